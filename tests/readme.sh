# shellcheck shell=bash
# The tutorial of README.md, for tests/tutorial.sh and tests/demo.sh: its fenced blocks are run as they are printed.
# Sourced in the repository's root. A block is named by its info string, such as "sql tutorial setup".
. tests/servers/need.sh
# The caller's own databases are not the tutorial's, and a PGSLUICE_ variable is a configuration key.
for name in $(compgen -e PG); do [[ $name == PG_BIN || $name == PGSLUICE ]] || unset "$name"; done

block() { # INFO: the text of the block that begins with ```INFO
  local text; text=$(awk -v want="\`\`\`$1" '$0 == want { inside = 1; next } inside && /^```/ { exit } inside' README.md)
  [ -n "$text" ] || die "README.md has no block \`\`\`$1"
  printf '%s\n' "$text"
}
port() { # PORT SPAN: this one if it and the SPAN - 1 after it are free, else others
  local p=$1 i
  while :; do
    for ((i = 0; i < $2; i++)); do (: <"/dev/tcp/127.0.0.1/$((p + i))") 2>/dev/null && break; done
    [ "$i" -lt "$2" ] || { echo "$p"; return; }
    p=$((p + 10 + RANDOM % 200)); [ $p -lt 32000 ] || p=10000
  done
}
psql_in() { # DATABASE: psql as superuser, through the unix socket; SQL from stdin
  PGOPTIONS='-c client_min_messages=warning' timeout --foreground 60 psql -Xq -v ON_ERROR_STOP=1 -d "${SUPERUSER/\/postgres\?/\/$1?}"
}
servers() { # starts PostgreSQL 17 with the README's settings and logins by password, and Kafka, there where the tutorial has them if that is free
  local setting settings=()
  while read -r setting; do [[ $setting != *=* ]] || settings+=("$setting"); done < <(block "ini tutorial postgresql.conf")
  PG=$(port 5432 1) KAFKA_PORT=$(port 19092 6) ADMIN=$(port 8081 1)
  SUPERUSER=$(timeout --foreground 900 tests/servers/pg-up 17 "$PG" auth=scram "${settings[@]}" | tail -1) || exit 1
  CLUSTER=tutorial-$KAFKA_PORT
  timeout --foreground 100 tests/servers/kafka-down "$CLUSTER"
  timeout --foreground 1800 tests/servers/kafka-up "$CLUSTER" "$KAFKA_PORT" >/dev/null || exit 1
  # Where a port was taken: the environment goes over the file.
  if [ "$PG" != 5432 ]; then
    echo "127.0.0.1:5432 is taken, so PostgreSQL is on $PG, and PGSLUICE_POSTGRES__URL says so"
    export PGSLUICE_POSTGRES__URL=postgres://cdc_user@127.0.0.1:$PG/cdc_db
  fi
  if [ "$KAFKA_PORT" != 19092 ]; then
    echo "localhost:19092 is taken, so Kafka is on $KAFKA_PORT, and PGSLUICE_KAFKA__BROKERS says so"
    export PGSLUICE_KAFKA__BROKERS="[\"localhost:$KAFKA_PORT\"]"
  fi
  if [ "$ADMIN" != 8081 ]; then
    echo "127.0.0.1:8081 is taken, so our own HTTP is on $ADMIN, and PGSLUICE_ADMIN__LISTEN says so"
    export PGSLUICE_ADMIN__LISTEN=127.0.0.1:$ADMIN
  fi
}
servers_down() {
  [ -z "${PG:-}" ] || timeout --foreground 100 tests/servers/pg-down 17 "$PG" || true
  [ -z "${CLUSTER:-}" ] || timeout --foreground 100 tests/servers/kafka-down "$CLUSTER" || true
}
ready() { # PID SECONDS: waits until /readyz is 200; fails when the process has ended
  local end=$((SECONDS + $2)) answer
  while [ $SECONDS -lt $end ]; do
    kill -0 "$1" 2>/dev/null || return 1
    answer=$({ exec 8<>"/dev/tcp/127.0.0.1/$ADMIN" && printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&8 &&
      timeout --foreground 2 head -1 <&8; } 2>/dev/null) || true
    [[ $answer != "HTTP/1.1 200"* ]] || return 0
    sleep 0.2
  done
  return 1
}
stop() { # PID SECONDS: SIGTERM; returns its exit code
  kill -TERM "$1" 2>/dev/null || true
  local end=$((SECONDS + $2))
  while kill -0 "$1" 2>/dev/null; do
    [ $SECONDS -lt $end ] || { kill -KILL "$1"; echo "it did not stop in $2 s" >&2; return 1; }
    sleep 0.1
  done
  wait "$1"
}
