#!/bin/bash
# packaging/stream.sh TARGET ROWS: the binary of target/dist/TARGET at work. PostgreSQL 17 and Kafka, TLS and SCRAM on both sides;
# it runs as nobody, on a read-only file system that holds nothing but itself, its configuration and a CA file; what this
# machine runs without qemu, with the system calls that the unit allows and no others. ROWS rows are committed and must all
# arrive. Then again with names: from /etc/hosts, and by DNS, with the CA in the system's place.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. packaging/env.sh
TARGET=$1 ROWS=$2
FIRST=$((${TESTS_PORTS:-15000} + 1100)); PG=$FIRST KAFKA=$((FIRST + 10)) ADMIN=$((FIRST + 70))
NAMES=127.0.53.53 NAME=packaging-$FIRST
need psql java python3 python3-venv openssl curl unshare systemd-analyze
ROOTED=''; ! root true 2>/dev/null || ROOTED=yes
as_root() { if [ -n "$ROOTED" ]; then root "$@"; else "$@"; fi; }
[ -n "$ROOTED" ] || unshare --user --map-root-user --mount true 2>/dev/null || die "root or sudo is needed, as user namespaces are not allowed here"
RUNNER=$(runner_of "$TARGET") FILTERED=--filtered
[ -z "$RUNNER" ] || FILTERED='' # qemu calls more than what it runs
WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/pgsluice-stream.XXXXXX") JAIL='' PID='' DNS=''
chmod 755 "$WORK"
tidy() {
  local code=$?; trap - EXIT
  [ -z "$PID" ] || as_root kill -KILL "$PID" 2>/dev/null || true
  [ -z "$DNS" ] || as_root kill "$(cat "$WORK/dns.pid")" 2>/dev/null || true
  [ $code = 0 ] || { for log in "$WORK"/*.log; do [ ! -s "$log" ] || { echo "--- the end of $log"; tail -20 "$log"; }; done >&2; }
  tests/servers/pg-down 17 "$PG" >/dev/null 2>&1 || true
  tests/servers/kafka-down "$NAME" >/dev/null 2>&1 || true
  rm -rf "$WORK"; exit $code
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

SUPERUSER=$(tests/servers/pg-up 17 "$PG" tls=only auth=scram | tail -1)
tests/servers/kafka-down "$NAME" >/dev/null 2>&1 || true
tests/servers/kafka-up "$NAME" "$KAFKA" >/dev/null
CA=$(tests/servers/certificates)/ca.pem
sql() { psql -XqAt -v ON_ERROR_STOP=1 -d "$SUPERUSER" -c "$1"; }
sql "create table t(id bigint primary key, a text); create publication p for table t"
sql "select pg_create_logical_replication_slot('s', 'pgoutput')" >/dev/null

jail() { # HOST CA: a folder with the binary, its configuration and, if CA is a path in there, that file; and nothing else
  JAIL=$(mktemp -d "$WORK/jail.XXXXXX"); chmod 755 "$JAIL"
  install -m 755 "$DIST/$TARGET/pgsluice" "$JAIL/pgsluice"
  [ -z "$RUNNER" ] || install -m 755 "$(command -v "$RUNNER")" "$JAIL/qemu"
  install -D -m 644 "$CA" "$JAIL/$2"
  cat >"$JAIL/pgsluice.toml" <<T
[postgres]
host = "$1"
port = $PG
user = "sluice"
database = "postgres"
password = "sluice-secret"
sslmode = "verify-full"
channel_binding = "require"
$([[ $2 == etc/* ]] || echo "sslrootcert = \"/$2\"")
[publication]
name = "p"
[slot]
name = "s"
[kafka]
brokers = ["$1:$((KAFKA + 3))"]
[kafka.tls]
enabled = true
$([[ $2 == etc/* ]] || echo "ca = \"/$2\"")
[kafka.sasl]
mechanism = "SCRAM-SHA-512"
user = "sluice"
password = "sluice-secret"
[tables]
"public.t" = "t"
[topic]
create = true
[admin]
listen = "127.0.0.1:$ADMIN"
T
}
inside() { # LOG COMMAND...: it runs in the jail, and its id is in PID
  local log=$1; shift
  as_root packaging/jail.sh ${FILTERED:+"$FILTERED"} "$WORK/pid" "$JAIL" ${RUNNER:+/qemu} /pgsluice "$@" >>"$log" 2>&1
}
start() { # LOG
  : >"$WORK/$1"; rm -f "$WORK/pid"
  inside "$WORK/$1" run -c /pgsluice.toml & CHILD=$!
  local end=$((SECONDS + 120))
  until curl -fso /dev/null "http://127.0.0.1:$ADMIN/readyz"; do
    kill -0 $CHILD 2>/dev/null || die "it has ended"
    [ $SECONDS -lt $end ] || die "it is not ready after 120 s"
    sleep 0.1
  done
  PID=$(cat "$WORK/pid")
}
finish() { # SIGTERM, and 0
  local code=0
  as_root kill -TERM "$PID"; wait $CHILD || code=$?; PID=''
  [ $code = 0 ] || die "it ended with $code"
}
rss() { awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$PID/status"; }
insert() { # FROM TO: as transactions of a thousand rows
  sql "do \$\$ begin for i in $1..$2 by 1000 loop insert into t select g, 'row '||g from generate_series(i, least(i + 999, $2)) g; commit; end loop; end \$\$"
}
arrived() { # ROWS: each of 1 to ROWS, once, as nothing was cut off
  tests/servers/kafka-count "127.0.0.1:$KAFKA" t --wait "$1" --timeout 600 >/dev/null || die "not all $1 rows arrived"
  tests/servers/kafka-dump "127.0.0.1:$KAFKA" t | python3 -c '
import json, sys
rows = [json.loads(json.loads(line)["value"])["id"] for line in sys.stdin]
want = int(sys.argv[1])
sys.exit(0 if rows == list(range(1, want + 1)) else f"{len(rows)} records are not the rows 1 to {want} in order")' "$1"
}

jail 127.0.0.1 ca.pem
[ "$(cd "$JAIL" && find . -type f | grep -cv qemu)" = 3 ] || die "the jail holds more than binary, configuration and CA"
inside "$WORK/version.log" version; inside "$WORK/config.log" config -c /pgsluice.toml
if [ -n "$FILTERED" ]; then # that it is one: a call that is refused ends it
  # shellcheck disable=SC2016
  code=$(bash -c 'python3 packaging/filtered.py "$@"; echo $?' filtered "$(command -v chown)" root "$JAIL" 2>/dev/null)
  [ "$code" = 159 ] || die "the filter lets chown through: exit $code"
fi
grep -q "^pgsluice $VERSION" "$WORK/version.log" || die "version does not say $VERSION"
grep -q "sluice-secret" "$WORK/config.log" && die "config shows the password"
grep -q 'name = "p"\|publication' "$WORK/config.log" || die "config does not show the publication"
echo "$TARGET: $(cat "$WORK/version.log"), as nobody, read-only, in a folder of three files${FILTERED:+, under the filter of the unit}"

start run.log
[ -z "$ROOTED" ] || [ "$(stat -c %u "/proc/$PID")" = 65534 ] || die "it does not run as nobody"
grep -q "^[^ ]* [^ ]* [^ ]* [^ ]* / / ro" "/proc/$PID/mountinfo" || grep -q " / ro" "/proc/$PID/mountinfo" || die "its file system is not read-only"
[ -z "$FILTERED" ] || grep -q "^Seccomp:[[:space:]]2" "/proc/$PID/status" || die "no filter is set"
[ "$(sql "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'sluice'")" = t ] || die "not by TLS"
BEFORE=$(rss) BEGIN=$(date +%s.%N)
insert 1 "$ROWS"; arrived "$ROWS"
TOOK=$(awk -v a="$BEGIN" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
sleep 3 # idle: only the slot and the brokers are looked after
AFTER=$(rss)
finish
echo "$TARGET: $ROWS rows by TLS and SCRAM on both sides, committed and read back in $TOOK s; RSS $BEFORE MiB when ready, $AFTER MiB idle after them"
[ -n "$RUNNER" ] || awk -v r="$AFTER" 'BEGIN { exit r > 10 }' || echo "$TARGET: more than the wanted 10 MiB"

# By name: /etc/hosts says it, ::1 first, where nobody listens; and the CA is one of the system's.
jail localhost etc/ssl/certs/ca-certificates.crt
printf '::1 localhost\n127.0.0.1 localhost\n' >"$JAIL/etc/hosts"
start hosts.log
insert $((ROWS + 1)) $((ROWS + 10)); arrived $((ROWS + 10)); finish
echo "$TARGET: the same by /etc/hosts, with the system's CAs"

# By DNS: a search domain, an answer that is too long for UDP, and two families.
rm "$JAIL/etc/hosts"
printf 'nameserver %s\nsearch sluice.test\n' $NAMES >"$JAIL/etc/resolv.conf"
# shellcheck disable=SC2016
if [ -z "$ROOTED" ]; then echo "$TARGET: DNS not tried, as only root may listen on its port"; exit 0; fi
# shellcheck disable=SC2016
root sh -c 'echo $$ >"$1"; exec python3 packaging/names.py "$2" "$3"' sh "$WORK/dns.pid" $NAMES "$WORK/dns.log" >"$WORK/dns.ready" 2>&1 & DNS=$!
for _ in $(seq 1 100); do [ -s "$WORK/dns.ready" ] && break; sleep 0.1; done
grep -q ready "$WORK/dns.ready" || die "no DNS server on $NAMES: $(cat "$WORK/dns.ready")"
start dns-run.log
insert $((ROWS + 11)) $((ROWS + 20)); arrived $((ROWS + 20)); finish
for want in "tcp localhost.sluice.test. A answered" "tcp localhost.sluice.test. AAAA answered" "udp localhost.sluice.test. A truncated"; do
  grep -qx "$want" "$WORK/dns.log" || die "the DNS server was not asked: $want"
done
echo "$TARGET: the same by DNS, with a search domain, TCP and IPv6"
for log in run hosts dns-run; do
  ! grep -q "sluice-secret" "$WORK/$log.log" || die "the log tells the password"
done
