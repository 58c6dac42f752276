#!/bin/bash
# tests/tutorial.sh: runs the README's tutorial as it is printed, on a real PostgreSQL and a real Kafka, and compares the records
# with those that it shows. pgsluice is target/release/pgsluice or debug, whichever is newer, or $PGSLUICE; built if there is none.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. tests/readme.sh
need psql timeout cc java python3 python3-venv
WORK=$(mktemp -d "${TMPDIR:-/tmp}/pgsluice-tutorial.XXXXXX") PID=''
tidy() {
  local code=$?; trap - EXIT
  [ -z "$PID" ] || kill -KILL "$PID" 2>/dev/null || true
  [ $code = 0 ] || [ ! -s "$WORK/log" ] || { echo "--- pgsluice said:"; tail -30 "$WORK/log"; } >&2
  servers_down; rm -rf "$WORK"; exit $code
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# 1. The README shows the file that ships.
block "toml tutorial" >"$WORK/readme.toml"
diff -u config/tutorial.toml "$WORK/readme.toml" || die "README.md shows another config/tutorial.toml than there is"

# 2. As printed: `pgsluice` is the one just built.
BINARY=${PGSLUICE:-}
if [ -z "$BINARY" ]; then
  TARGET=${CARGO_TARGET_DIR:-target}
  timeout --foreground 1200 cargo build --locked --quiet || die "pgsluice does not build"
  BINARY=$TARGET/debug/pgsluice
  [ ! "$TARGET/release/pgsluice" -nt "$BINARY" ] || BINARY=$TARGET/release/pgsluice
fi
mkdir "$WORK/bin"; ln -s "$(readlink -f "$BINARY")" "$WORK/bin/pgsluice"; export PATH=$WORK/bin:$PATH

servers
block "sql tutorial database" | psql_in postgres >"$WORK/sql"
block "sql tutorial setup" | psql_in cdc_db >>"$WORK/sql"
RUN=$(block "sh tutorial run")
[[ $RUN != *$'\n'* ]] || die "the block that runs pgsluice is more than one command"
read -ra WORDS <<<"$RUN"
"${WORDS[@]}" >"$WORK/log" 2>&1 &
PID=$!
ready $PID 60 || die "pgsluice is not ready after 60 s, or has ended"
block "sql tutorial change" | psql_in cdc_db >>"$WORK/sql"

# 3. The same records, but for what cannot be the same.
block "json tutorial records" >"$WORK/expected"
COUNT=$(wc -l <"$WORK/expected")
timeout --foreground 120 tests/servers/kafka-count "localhost:$KAFKA_PORT" users.0 --wait "$COUNT" --timeout 60 >/dev/null
READ=$(block "sh tutorial read")
timeout --foreground 120 bash -euo pipefail -c "${READ//localhost:19092/localhost:$KAFKA_PORT}" >"$WORK/records"
same() { sed -E 's/"timestamp":[0-9]+/"timestamp":0/; s/"id","[0-9a-f]{16}-[0-9a-f]{8}-[0-9a-f]{16}-([0-9a-f]{8})"/"id","\1"/' "$1"; }
diff -u <(same "$WORK/expected") <(same "$WORK/records") || die "the records are not those that README.md shows"

# 4. The consumer drops what is there twice.
tests/servers/kafka-produce "localhost:$KAFKA_PORT" users.0 <"$WORK/records"
CONSUMER=$(block "py tutorial consumer")
timeout --foreground 120 "$ROOT/kafka-venv/bin/python" -c "${CONSUMER//localhost:19092/localhost:$KAFKA_PORT}" >"$WORK/read"
[ "$(wc -l <"$WORK/read")" = "$COUNT" ] || { cat "$WORK/read"; die "the consumer of README.md does not print $COUNT records"; }

CODE=0; stop $PID 30 || CODE=$?; PID=''
[ $CODE = 0 ] || die "pgsluice ended with $CODE after SIGTERM"
echo "tutorial: $COUNT records, as README.md shows them"
