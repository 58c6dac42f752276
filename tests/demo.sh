#!/bin/bash
# tests/demo.sh: rows committed in a real PostgreSQL arrive in a real Apache Kafka, while you watch. Plays the README's tutorial
# from nothing: gets what is missing, builds, sets up, streams, tidies up. Under ten minutes the first time on two cores.
# TESTBED_INSTALL=0: no apt-get. PG_BIN, KAFKA_HOME: an installed PostgreSQL 17 and Kafka instead of downloaded ones.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export TESTBED_INSTALL=${TESTBED_INSTALL:-1}
. tests/readme.sh
B='' C='' G='' R='' X=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then B=$'\e[1m' C=$'\e[36m' G=$'\e[32m' R=$'\e[31m' X=$'\e[0m'; fi
step() { printf '\n%s▸ %s%s\n' "$B" "$*" "$X"; }
show() { printf '%s' "$C"; sed 's/^/    /'; printf '%s' "$X"; }
WORK=$(mktemp -d "${TMPDIR:-/tmp}/pgsluice-demo.XXXXXX") PID='' BUILD='' FOLLOW=''
tidy() {
  local code=$? p; trap - EXIT
  for p in $PID $FOLLOW $BUILD; do kill "$p" 2>/dev/null || true; done
  if [ $code != 0 ]; then
    for p in build log; do [ ! -s "$WORK/$p" ] || { echo "--- the end of its $p:"; tail -15 "$WORK/$p"; } >&2; done
    printf '%sThe demo did not work; the reason is above.%s\n' "$R" "$X" >&2
  fi
  servers_down; rm -rf "$WORK"; exit $code
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step "What it takes: a C compiler for Rust's linker, psql, Java and Python; what is missing is fetched by apt-get."
command -v cargo >/dev/null || die "cargo is missing: get Rust 1.95 or later from https://rustup.rs"
need timeout flock cc psql java python3 python3-venv openssl
echo "All there."

step "Building pgsluice (cargo build --release), and meanwhile starting PostgreSQL 17 and Apache Kafka, which are downloaded the first time."
(exec timeout --foreground 1500 cargo build --locked --release) >"$WORK/build" 2>&1 & BUILD=$!
servers
echo "PostgreSQL is on 127.0.0.1:$PG, Kafka on localhost:$KAFKA_PORT."
wait $BUILD || { BUILD=''; die "pgsluice does not build"; }
BUILD=''
BINARIES=$(readlink -f "${CARGO_TARGET_DIR:-target}/release"); export PATH=$BINARIES:$PATH
pgsluice version

step "As superuser: a database with a table, a publication, a slot, and a user who may replicate and nothing else."
{ block "sql tutorial database"; block "sql tutorial setup"; } | show
block "sql tutorial database" | psql_in postgres >/dev/null
block "sql tutorial setup" | psql_in cdc_db >/dev/null

step "The whole configuration, config/tutorial.toml:"
show <config/tutorial.toml

step "Streaming: $(block "sh tutorial run")"
read -ra WORDS <<<"$(block "sh tutorial run")"
"${WORDS[@]}" >"$WORK/log" 2>&1 & PID=$!
ready $PID 60 || die "pgsluice is not ready after 60 s, or has ended"
show <"$WORK/log"

# Prints records as they arrive: headers op and id, key, value.
pretty() {
  python3 -uc '
import json, sys
green, off = sys.argv[1:]
for line in sys.stdin:
    r = json.loads(line); h = dict(r["headers"])
    print("    %susers.0[%d]@%d  op=%s  key=%s  value=%s%s" % (green, r["partition"], r["offset"], h.get("op"), r["key"], r["value"], off))
    print("      id=%s" % h.get("id"), flush=True)
' "$G" "$X"
}
COUNT=$(block "json tutorial records" | wc -l)
step "From here on: SQL as it is committed, and the records of topic users.0 as they arrive in Kafka."
(timeout --foreground 120 tests/servers/kafka-dump --follow --max "$COUNT" --timeout 60 "localhost:$KAFKA_PORT" users.0 | tee "$WORK/records" | pretty) & FOLLOW=$!
SENT=0
while read -r statement; do
  [ -n "$statement" ] || continue
  printf '  %s%s%s\n' "$C" "$statement" "$X"
  psql_in cdc_db <<<"$statement" >/dev/null
  SENT=$((SENT + 1)) END=$((SECONDS + 30)) # a statement of the tutorial is one row
  until [ "$(wc -l <"$WORK/records" 2>/dev/null || echo 0)" -ge $SENT ]; do
    [ $SECONDS -lt $END ] || die "no record after 30 s"
    kill -0 $PID 2>/dev/null || die "pgsluice has ended"
    sleep 0.05
  done
  sleep 0.5 # for the eye
done < <(block "sql tutorial change")
wait $FOLLOW || die "not all $COUNT records arrived"
FOLLOW=''

step "Stopping it by SIGTERM: what was received is stored and confirmed, and it ends with 0."
CODE=0; stop $PID 30 || CODE=$?; PID=''
[ $CODE = 0 ] || die "it ended with $CODE"
echo "select slot_name, confirmed_flush_lsn, active from pg_replication_slots;" | psql_in cdc_db | show
step "Tidying up. $COUNT records in $((SECONDS / 60)) min $((SECONDS % 60)) s, all in all. Next: README.md, or tests/all.sh for every test."
