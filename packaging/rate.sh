#!/bin/bash
# packaging/rate.sh [rows=2000000] [pairs=6]: the rate of the static binary beside that of one with glibc, of the same source and
# profile. Both drain the very same backlog into the same servers, each time by a fresh copy of one slot and into a fresh topic, in
# turn: A B, B A, A B ... as a machine's speed drifts, after a round of each that does not count, as a JVM must warm up.
# Prints rows/s and CPU a row of each, and the pairs' ratios; fails if their median is under 0.95.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. packaging/env.sh
ROWS=2000000 PAIRS=6 PROFILE=${PROFILE:-release}
for a; do case $a in
  rows=*) ROWS=${a#*=} ;; pairs=*) PAIRS=${a#*=} ;;
  *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
esac; done
MUSL=$DIST/$X86/pgsluice GLIBC=${GLIBC:-${CARGO_TARGET_DIR:-target}/$PROFILE/pgsluice}
[ -x "$MUSL" ] || die "$MUSL is not there: packaging/build.sh $X86"
[ -n "${GLIBC_READY:-}" ] || RUSTUP_TOOLCHAIN=$RUST cargo build --quiet --locked --profile "$PROFILE" --bin pgsluice
PORT=$((${TESTS_PORTS:-15000} + 1190)) KPORT=$((${TESTS_PORTS:-15000} + 1160)) LOG=$(mktemp)
finish() { tests/servers/kafka-down rate >/dev/null 2>&1 || true; tests/servers/pg-down 17 "$PORT" >/dev/null 2>&1 || true; rm -f "$LOG"; }
trap finish EXIT
tests/servers/pg-up 17 "$PORT" max_wal_size=16GB shared_buffers=256MB checkpoint_timeout=1h fsync=off >/dev/null
KAFKA_OPTS="-Xmx1g -XX:+UseSerialGC" tests/servers/kafka-up rate "$KPORT" >/dev/null
URL=postgres://postgres@127.0.0.1:$PORT/postgres
q() { psql -XqAt "$URL" -c "$1"; }
q "create table bench(id bigserial primary key, name text, created_on timestamptz)"
q "create publication p for table bench"
q "select pg_create_logical_replication_slot('base', 'pgoutput')" >/dev/null
q "do \$\$ begin for i in 1..$((ROWS / 10000)) loop insert into bench(name, created_on) select 'Oyleli'||g, now() from generate_series(1, 10000) g; commit; end loop; end \$\$"
END=$(q "select pg_current_wal_insert_lsn()"); q checkpoint

drain() { # BINARY: rows/s, and µs of CPU a row
  local topic=rate-$RANDOM$RANDOM begin end pid stat
  tests/servers/kafka-topics "127.0.0.1:$KPORT" create "$topic" partitions=1 >/dev/null
  q "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'ours'; select pg_copy_logical_replication_slot('base', 'ours')" >/dev/null
  begin=$EPOCHREALTIME
  "$1" run -s postgres.url="$URL" -s publication.name=p -s slot.name=ours -s kafka.brokers="127.0.0.1:$KPORT" \
    -s "tables.public.bench=$topic" -s admin.listen= 2>"$LOG" & pid=$!
  q "do \$\$ begin for i in 1..30000 loop
       if (select confirmed_flush_lsn >= '$END' from pg_replication_slots where slot_name = 'ours') then return; end if;
       perform pg_sleep(0.02);
     end loop; raise exception 'not stored after ten minutes'; end \$\$" || { cat "$LOG" >&2; die "$1 did not drain"; }
  end=$EPOCHREALTIME; stat=$(<"/proc/$pid/stat")
  kill -TERM $pid; wait $pid
  tests/servers/kafka-topics "127.0.0.1:$KPORT" delete "$topic" >/dev/null
  awk -v n="$ROWS" -v s="$begin" -v e="$end" -v hz="$(getconf CLK_TCK)" \
    '{ printf "%.0f %.3f\n", n / (e - s), ($12 + $13) / hz * 1e6 / n }' <<<"${stat##*) }"
}
drain "$GLIBC" >/dev/null; drain "$MUSL" >/dev/null
ratios=() cpus=()
for ((i = 0; i < PAIRS; i++)); do
  if ((i % 2)); then m=$(drain "$MUSL"); g=$(drain "$GLIBC"); else g=$(drain "$GLIBC"); m=$(drain "$MUSL"); fi
  ratios+=("$(awk -v m="${m% *}" -v g="${g% *}" 'BEGIN { printf "%.3f", m / g }')")
  cpus+=("$(awk -v m="${m#* }" -v g="${g#* }" 'BEGIN { printf "%.3f", m / g }')")
  echo "musl ${m% *} rows/s, ${m#* } us CPU a row; glibc ${g% *} rows/s, ${g#* } us: rate ${ratios[-1]}, CPU ${cpus[-1]}"
done
median() { printf '%s\n' "$@" | sort -n | awk '{ a[NR] = $1 } END { print (a[int((NR + 1) / 2)] + a[int(NR / 2) + 1]) / 2 }'; }
rate=$(median "${ratios[@]}")
echo "musl / glibc, medians of $PAIRS pairs: rate $rate, CPU a row $(median "${cpus[@]}")"
awk -v m="$rate" 'BEGIN { exit m < 0.95 }' || die "the static binary is slower than 0.95 of the other"
