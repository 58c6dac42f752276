#!/bin/bash
# benches/startup.sh [rows=5000000] [small=10] [large=1000] [rounds=3] [delivery=idempotent]: what a start costs beyond a login.
# 1. A topic of 100 partitions, one of them of `small` MB, and the same with `large` MB: the cost should be the same.
# 2. A transaction of so many rows, half of it stored when the process is killed: all of that is read back, and its names remembered
#    (delivery=transactional: it was never committed, and none of it is).
# Prints of each start: seconds, requests, bytes fetched, names remembered, peak RSS then; and checks that each row is stored once.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
ROWS=5000000 SMALL=10 LARGE=1000 ROUNDS=3 DELIVERY=idempotent
for a; do case $a in
  rows=*) ROWS=${a#*=} ;; small=*) SMALL=${a#*=} ;; large=*) LARGE=${a#*=} ;; rounds=*) ROUNDS=${a#*=} ;; delivery=*) DELIVERY=${a#*=} ;;
  *) sed -n '2,6s/^# //p' "$0" >&2; exit 2 ;;
esac; done
V=17 PORT=${BENCH_PG:-15990} KPORT=${BENCH_KAFKA:-15960} BIN=${PGSLUICE:-target/release/pgsluice}
for t in psql curl; do command -v "$t" >/dev/null || { echo "startup: $t is missing" >&2; exit 1; }; done
[ -x "$BIN" ] || cargo build --release --locked
D=$(mktemp -d) PID=
finish() { kill "$PID" 2>/dev/null || true; tests/servers/kafka-down bench >/dev/null 2>&1 || true; tests/servers/pg-down $V "$PORT" >/dev/null 2>&1 || true; rm -rf "$D"; }
trap finish EXIT
tests/servers/pg-up $V "$PORT" max_wal_size=8GB shared_buffers=256MB checkpoint_timeout=1h fsync=off >/dev/null
KAFKA_OPTS="-Xmx1g -XX:+UseSerialGC" tests/servers/kafka-up bench "$KPORT" >/dev/null
URL=postgres://postgres@127.0.0.1:$PORT/postgres
q() { psql -XqAt "$URL" -c "$1"; }
fail() { cat "$D/log" >&2; echo "startup: $1" >&2; exit 1; }

prepare() { # TOPIC PARTITIONS
  tests/servers/kafka-topics "127.0.0.1:$KPORT" create "$1" partitions="$2" >/dev/null
  q "select pg_drop_replication_slot(slot_name) from pg_replication_slots" >/dev/null
  q "set client_min_messages=warning; drop table if exists t; create table t(k int, x text); alter table t replica identity full;
     drop publication if exists p; create publication p for table t"
  q "select pg_create_logical_replication_slot('startup','pgoutput')" >/dev/null
}
start() { # TOPIC: until it streams
  "$BIN" run -s postgres.url="$URL" -s publication.name=p -s slot.name=startup -s kafka.brokers="127.0.0.1:$KPORT" -s kafka.transactional_id="$1" \
    -s kafka.delivery="$DELIVERY" -s "tables.\"public.t\".topic=$1" -s 'tables."public.t".key=["k"]' -s admin.listen=127.0.0.1:$((PORT + 1)) -s log.format=json 2>"$D/log" & PID=$!
  for _ in $(seq 3000); do
    if grep -q '"message":"streaming"' "$D/log"; then return; fi
    kill -0 $PID 2>/dev/null || fail "pgsluice ended"
    sleep 0.05
  done
  fail "it does not stream"
}
told() { # NAME: what the log says of the taking
  local line rss
  line=$(grep -m1 'the topics are ours, and read back' "$D/log") || fail "the topics were not taken"
  rss=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$PID/status")
  awk -v n="$1" -v l="$line" -v r="$rss" 'function f(name) { match(l, "\"" name "\":\"?[0-9]+"); v = substr(l, RSTART, RLENGTH); sub(/.*[:"]/, "", v); return v }
    BEGIN { printf "  %-28s %7.3f s  %4d requests  %11d bytes  %8d names  %6.1f MiB peak RSS\n", n, f("ms") / 1000, f("requests"), f("bytes"), f("stored"), r / 1024 }'
}
stored() { # waits until all is confirmed, in one session of the server
  local end; end=$(q "select pg_current_wal_insert_lsn()")
  q "do \$\$ begin for i in 1..60000 loop
       if (select confirmed_flush_lsn >= '$end' from pg_replication_slots where slot_name = 'startup') then return; end if;
       perform pg_sleep(0.02);
     end loop; raise exception 'not stored'; end \$\$" || fail "not stored after twenty minutes"
}
stop() { kill -TERM $PID; wait $PID || fail "it did not stop well"; }
once() { # TOPIC ROWS
  local got; got=$(tests/servers/kafka-count "127.0.0.1:$KPORT" "$1" --timeout 600)
  [ "$got" = "$2" ] || fail "$got records for $2 rows"
}

echo "100 partitions, one of them large"
for mb in "$SMALL" "$LARGE"; do
  TOPIC=startup-$mb; prepare "$TOPIC" 100; start "$TOPIC"
  q "do \$\$ begin for i in 1..$mb loop insert into t select 1, repeat('x', 940) from generate_series(1,1000) g; commit; end loop; end \$\$"
  q "insert into t select g, 'small' from generate_series(1,10000) g"
  stored; stop
  for round in $(seq "$ROUNDS"); do start "$TOPIC"; told "$mb MB, round $round"; stop; done
  once "$TOPIC" $((mb * 1000 + 10000))
done

echo "a transaction of $ROWS rows, half of it stored"
TOPIC=startup-half; prepare "$TOPIC" 1; start "$TOPIC"
q "insert into t select g, 'row' from generate_series(1,$ROWS) g"
for _ in $(seq 6000); do
  GOT=$(curl -fs "http://127.0.0.1:$((PORT + 1))/metrics" | sed -n 's/^pgsluice_rows_total{op="c"} \([0-9]*\).*/\1/p')
  [ "${GOT:-0}" -lt $((ROWS / 2)) ] || break
  sleep 0.05
done
kill -KILL $PID; wait $PID 2>/dev/null || true
start "$TOPIC"; told "after $GOT rows"
stored; stop; once "$TOPIC" "$ROWS"
