#!/bin/bash
# benches/throughput.sh [rows=1000000] [rounds=3] [only=batched,single,one,wide] [delivery=idempotent,transactional]: how fast a backlog
# is drained, side by side.
# pg_recvlogical (the walsender's output to /dev/null: the source's own limit) and `pgsluice run` (into a real Kafka on the same
# machine) read the same backlog in turn, each from a slot of its own that is older than the backlog, by TCP on loopback.
# Prints for each round: rows/s, CPU µs a row, peak RSS; and the ratio pgsluice / pg_recvlogical of the same round, then the medians.
# With two deliveries also the ratio of the second to the first of the same round; which of them begins alternates.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
ROWS=1000000 ROUNDS=3 ONLY=batched,single,one,wide DELIVERY=idempotent
for a; do case $a in
  rows=*) ROWS=${a#*=} ;; rounds=*) ROUNDS=${a#*=} ;; only=*) ONLY=${a#*=} ;; delivery=*) DELIVERY=${a#*=} ;;
  *) sed -n '2,7s/^# //p' "$0" >&2; exit 2 ;;
esac; done
V=17 PORT=${BENCH_PG:-15990} KPORT=${BENCH_KAFKA:-15960} BIN=${PGSLUICE:-target/release/pgsluice}
for t in psql pg_recvlogical curl; do command -v "$t" >/dev/null || { echo "throughput: $t is missing" >&2; exit 1; }; done
[ -x "$BIN" ] || cargo build --release --locked
D=$(mktemp -d)
finish() { tests/servers/kafka-down bench >/dev/null 2>&1 || true; tests/servers/pg-down $V "$PORT" >/dev/null 2>&1 || true; rm -rf "$D"; }
trap finish EXIT
tests/servers/pg-up $V "$PORT" max_wal_size=8GB shared_buffers=256MB checkpoint_timeout=1h fsync=off >/dev/null
KAFKA_OPTS="-Xmx1g -XX:+UseSerialGC" tests/servers/kafka-up bench "$KPORT" >/dev/null
URL=postgres://postgres@127.0.0.1:$PORT/postgres
q() { psql -XqAt "$URL" -c "$1"; }

load() { # WORKLOAD: makes the backlog
  case $1 in
    batched) q "do \$\$ begin for i in 1..$((ROWS / 10000)) loop insert into bench(name, created_on) select 'Oyleli'||g, now() from generate_series(1,10000) g; commit; end loop; end \$\$" ;;
    single) q "do \$\$ begin for i in 1..$((ROWS / 4)) loop insert into bench(name, created_on) values ('Oyleli'||i, now()); commit; end loop; end \$\$" ;;
    one) q "insert into bench(name, created_on) select 'Oyleli'||g, now() from generate_series(1,$ROWS) g" ;;
    wide) q "do \$\$ begin for i in 1..$((ROWS / 40000)) loop insert into wide select g, md5(g::text)||md5(i::text), repeat('x', 300), g*1.5, jsonb_build_object('a', g, 'b', 'text'), now(), gen_random_uuid() from generate_series(1,10000) g; commit; end loop; end \$\$" ;;
  esac
}
rows() { case $1 in
  single) echo $((ROWS / 4)) ;; wide) echo $((ROWS / 40000 * 10000)) ;; batched) echo $((ROWS / 10000 * 10000)) ;; *) echo "$ROWS" ;;
esac; }

# What watches must not take the processor from what is watched: no program is started for a look.
look() { # PID: its CPU time in ticks to T, its peak RSS in KB to M; fails when it is gone
  local stat key value rest
  [ -r "/proc/$1/stat" ] && read -r stat <"/proc/$1/stat" && [[ "$stat" != *") Z "* ]] || return
  read -r _ _ _ _ _ _ _ _ _ _ _ value rest <<<"${stat##*) }"; T=$((value + ${rest%% *}))
  while read -r key value _; do if [ "$key" = VmHWM: ]; then M=$value; fi; done <"/proc/$1/status"
} 2>/dev/null
stored() { # SLOT: waits, in one session of the server
  q "do \$\$ begin for i in 1..30000 loop
       if (select confirmed_flush_lsn >= '$END' from pg_replication_slots where slot_name = '$1') then return; end if;
       perform pg_sleep(0.02);
     end loop; raise exception 'not stored'; end \$\$"
}
report() { # NAME ROWS SECONDS TICKS RSS_KB
  awk -v n="$1" -v r="$2" -v s="$3" -v t="$4" -v m="$5" -v hz="$(getconf CLK_TCK)" \
    'BEGIN { printf "  %-14s %8.0f rows/s  %5.2f us CPU a row  %6.1f MiB peak RSS\n", n, r / s, t / hz * 1e6 / r, m / 1024 }'
}
now() { date +%s.%N; }
median() { sort -n "$1" | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

IFS=, read -ra MODES <<<"$DELIVERY"
printf '%s rows, %s rounds, %s\n' "$ROWS" "$ROUNDS" "$(nproc) cores"
for w in ${ONLY//,/ }; do
  rm -f "$D"/ratios* "$D/cost"
  for round in $(seq 1 "$ROUNDS"); do
    q "set client_min_messages=warning; drop table if exists bench, wide; create table bench(id bigserial primary key, name text, created_on timestamptz);
       create table wide(id bigint, h text, x text, n numeric, j jsonb, t timestamptz, u uuid); drop publication if exists p; create publication p for table bench, wide"
    for s in raw "${MODES[@]}"; do
      q "select pg_drop_replication_slot('$s') from pg_replication_slots where slot_name='$s'" >/dev/null
      q "select pg_create_logical_replication_slot('$s','pgoutput')" >/dev/null
    done
    load "$w"; END=$(q "select pg_current_wal_insert_lsn()"); q "checkpoint"; N=$(rows "$w")
    [ "$round" = 1 ] && echo "$w: $N rows"

    B=$(now)
    pg_recvlogical -d "$URL" -S raw --start -n -F 0 -o proto_version=1 -o publication_names=p --endpos="$END" -f /dev/null &
    PID=$!; T=0 M=0
    while look $PID; do sleep 0.05; done
    wait $PID; RAW=$(awk -v a="$B" -v b="$(now)" 'BEGIN { print b - a }')
    report pg_recvlogical "$N" "$RAW" "$T" "$M"

    ORDER=("${MODES[@]}")
    if [ $((round % 2)) = 0 ] && [ ${#MODES[@]} = 2 ]; then ORDER=("${MODES[1]}" "${MODES[0]}"); fi
    for mode in "${ORDER[@]}"; do
      TOPIC=bench-$w-$mode-$round
      tests/servers/kafka-topics "127.0.0.1:$KPORT" create "$TOPIC" partitions="${PARTITIONS:-1}" >/dev/null
      B=$(now)
      "$BIN" run -s postgres.url="$URL" -s publication.name=p -s slot.name="$mode" -s kafka.brokers="127.0.0.1:$KPORT" -s kafka.transactional_id="$TOPIC-$PPID-$SECONDS" \
        -s kafka.delivery="$mode" -s "tables.public.bench=$TOPIC" -s "tables.public.wide=$TOPIC" -s admin.listen= ${EXTRA:-} 2>"$D/log" & PID=$!
      stored "$mode" || { cat "$D/log" >&2; echo "throughput: not stored after ten minutes" >&2; exit 1; }
      OURS=$(awk -v a="$B" -v b="$(now)" 'BEGIN { print b - a }'); look $PID || { cat "$D/log" >&2; echo "throughput: pgsluice ended" >&2; exit 1; }
      kill -TERM $PID; wait $PID
      report "$mode" "$N" "$OURS" "$T" "$M"
      GOT=$(tests/servers/kafka-count "127.0.0.1:$KPORT" "$TOPIC")
      [ "$GOT" = "$N" ] || { echo "throughput: $GOT records for $N rows" >&2; exit 1; }
      awk -v a="$RAW" -v b="$OURS" 'BEGIN { printf "%.3f\n", a / b }' | tee -a "$D/ratios-$mode" | sed 's/^/  ratio          /'
      declare "TOOK_$mode=$OURS"
    done
    if [ ${#MODES[@]} = 2 ]; then
      first=TOOK_${MODES[0]} second=TOOK_${MODES[1]}
      awk -v a="${!first}" -v b="${!second}" 'BEGIN { printf "%.3f\n", a / b }' | tee -a "$D/cost" | sed "s/^/  ${MODES[1]} to ${MODES[0]} /"
    fi
  done
  for mode in "${MODES[@]}"; do echo "$w: $mode: median ratio $(median "$D/ratios-$mode")"; done
  if [ -e "$D/cost" ]; then echo "$w: rate of ${MODES[1]} to ${MODES[0]}: median $(median "$D/cost")"; fi
done
