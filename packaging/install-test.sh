#!/bin/bash
# packaging/install-test.sh: the x86_64 deb and rpm in fresh roots: installed, the unit's command run there as its user against real
# servers, upgraded from an older version, removed, purged. No systemd runs there: a systemctl records what it is asked.
# The ARM packages are unpacked and their binary started by qemu.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. packaging/env.sh
. packaging/root.sh
FIRST=$((${TESTS_PORTS:-15000} + 1100)); PG=$FIRST KAFKA=$((FIRST + 10)) ADMIN=$((FIRST + 70)) NAME=install-$FIRST
need psql java python3 python3-venv curl dpkg-deb rpm
WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/pgsluice-install.XXXXXX") PID=''
tidy() {
  local code=$?; trap - EXIT
  [ -z "$PID" ] || root kill -KILL "$PID" 2>/dev/null || true
  [ $code = 0 ] || [ ! -s "$WORK/run.log" ] || tail -20 "$WORK/run.log" >&2
  tests/servers/pg-down 17 "$PG" >/dev/null 2>&1 || true
  tests/servers/kafka-down "$NAME" >/dev/null 2>&1 || true
  root rm -rf "$WORK"; exit $code
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
is() { [ "$2" = "$3" ] || die "$1: $2, not $3"; }
asked() { root cat "$ROOT_DIR/systemctl.log" 2>/dev/null || true; }
in_root() { root chroot "$ROOT_DIR" env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
mode() { in_root stat -c '%a %U:%G' "$1"; }

OLD=$WORK/old; mkdir -p "$OLD/dist"
ln -s "$(readlink -f "$DIST/$X86")" "$OLD/dist/$X86"
PACKAGE_VERSION=0.0.1 PACKAGING_DIST=$OLD/dist packaging/package.sh "$X86" >/dev/null
SUPERUSER=$(tests/servers/pg-up 17 "$PG" | tail -1)
tests/servers/kafka-down "$NAME" >/dev/null 2>&1 || true
tests/servers/kafka-up "$NAME" "$KAFKA" >/dev/null
sql() { PGOPTIONS="-c client_min_messages=warning" psql -XqAt -v ON_ERROR_STOP=1 -d "$SUPERUSER" -c "$1"; }

configure() { # KIND: what an administrator would write
  sql "drop table if exists $1; create table $1(id int primary key); drop publication if exists p; create publication p for table $1"
  sql "select pg_create_logical_replication_slot('$1', 'pgoutput')" >/dev/null
  root tee "$ROOT_DIR/etc/pgsluice/pgsluice.toml" >/dev/null <<T
# written by the administrator
[postgres]
url = "postgres://postgres@127.0.0.1:$PG/postgres"
[publication]
name = "p"
[slot]
name = "$1"
[kafka]
brokers = ["127.0.0.1:$KAFKA"]
[tables]
"public.$1" = "$1"
[topic]
create = true
[admin]
listen = "127.0.0.1:$ADMIN"
T
}
serve() { # KIND: the unit's own command, as the unit's user, in the root; ten rows arrive
  local unit=$ROOT_DIR/usr/lib/systemd/system/pgsluice.service command user end code=0
  command=$(sed -n 's/^ExecStart=//p' "$unit") user=$(sed -n 's/^User=//p' "$unit")
  # shellcheck disable=SC2016,SC2086
  root sh -c 'echo $$ >"$1"; shift; exec env -i "$(command -v chroot)" "$@"' sh "$WORK/pid" \
    --userspec="$(in_root id -u "$user"):$(in_root id -g "$user")" "$ROOT_DIR" $command >"$WORK/run.log" 2>&1 & local child=$!
  end=$((SECONDS + 120))
  until curl -fso /dev/null "http://127.0.0.1:$ADMIN/readyz"; do
    kill -0 $child 2>/dev/null || die "the service's command has ended"
    [ $SECONDS -lt $end ] || die "the service's command is not ready after 120 s"
    sleep 0.1
  done
  PID=$(cat "$WORK/pid")
  sql "insert into $1 select generate_series(1, 10)"
  tests/servers/kafka-count "127.0.0.1:$KAFKA" "$1" --wait 10 --timeout 60 >/dev/null || die "the rows did not arrive"
  root kill -TERM "$PID"; wait $child || code=$?; PID=''
  is "$1: exit code of the service's command" $code 0
}
installed() { # what must be so after an installation
  is "the configuration" "$(mode /etc/pgsluice/pgsluice.toml)" "640 root:pgsluice"
  is "its folder" "$(mode /etc/pgsluice)" "750 root:pgsluice"
  is "the state's folder" "$(mode /var/lib/pgsluice)" "750 pgsluice:pgsluice"
  is "the binary" "$(mode /usr/bin/pgsluice)" "755 root:root"
  in_root test -s /usr/lib/systemd/system/pgsluice@.service || die "no template unit"
  in_root sh -c '/usr/bin/pgsluice version && zcat /usr/share/man/man1/pgsluice.1.gz' >/dev/null || die "no binary or no man page"
}

deb() {
  ROOT_DIR=$WORK/deb; fresh_root "$ROOT_DIR"
  root cp "$OLD/dist/pgsluice_0.0.1-1_amd64.deb" "$DIST/pgsluice_$VERSION-1_amd64.deb" "$ROOT_DIR/"
  in_root dpkg -i pgsluice_0.0.1-1_amd64.deb >"$WORK/dpkg.log" 2>&1 || { cat "$WORK/dpkg.log" >&2; die "dpkg -i failed"; }
  installed
  is "dpkg -V" "$(in_root dpkg -V pgsluice)" ""
  is "a first installation asks systemctl for" "$(asked)" "daemon-reload"
  configure deb; serve deb
  in_root dpkg -i "pgsluice_$VERSION-1_amd64.deb" >"$WORK/dpkg.log" 2>&1 </dev/null || { cat "$WORK/dpkg.log" >&2; die "the upgrade failed"; }
  installed
  in_root grep -q "written by the administrator" /etc/pgsluice/pgsluice.toml || die "the upgrade replaced the configuration"
  is "an upgrade asks systemctl for" "$(asked | tail -n +2)" "daemon-reload
try-restart pgsluice.service pgsluice@*.service"
  in_root dpkg -r pgsluice >/dev/null 2>&1
  in_root test ! -e /usr/bin/pgsluice || die "the binary is still there after a removal"
  in_root test -e /etc/pgsluice/pgsluice.toml || die "a removal took the configuration away"
  is "a removal asks systemctl for" "$(asked | tail -n +4)" "--no-reload disable --now pgsluice.service pgsluice@*.service
daemon-reload"
  in_root dpkg -P pgsluice >/dev/null 2>&1
  in_root sh -c 'test ! -e /etc/pgsluice && test ! -e /var/lib/pgsluice' || die "a purge left files"
  echo "deb: installed, ran, upgraded with its configuration kept and a restart, removed, purged"
}
rpm_() {
  ROOT_DIR=$WORK/rpm; fresh_root "$ROOT_DIR"
  local old=$OLD/dist/pgsluice-0.0.1-1.x86_64.rpm new=$DIST/pgsluice-$VERSION-1.x86_64.rpm
  # --nodeps: the root's programs are Debian's, and not in rpm's database.
  act() { root rpm --root "$ROOT_DIR" --dbpath /var/lib/rpm "$@" >"$WORK/rpm.log" 2>&1 || { cat "$WORK/rpm.log" >&2; die "rpm $1 failed"; }; }
  root rpm --root "$ROOT_DIR" --dbpath /var/lib/rpm --initdb
  act -i --nodeps --nosignature "$old"
  installed
  act -V --nodeps pgsluice
  is "a first installation asks systemctl for" "$(asked)" "daemon-reload"
  configure rpm; serve rpm
  act -U --nodeps --nosignature "$new"
  installed
  in_root grep -q "written by the administrator" /etc/pgsluice/pgsluice.toml || die "the upgrade replaced the configuration"
  is "an upgrade asks systemctl for" "$(asked | tail -n +2)" "daemon-reload
try-restart pgsluice.service pgsluice@*.service"
  act -e --nodeps pgsluice
  in_root test ! -e /usr/bin/pgsluice || die "the binary is still there after a removal"
  is "a removal asks systemctl for" "$(asked | tail -n +4)" "--no-reload disable --now pgsluice.service pgsluice@*.service
daemon-reload"
  in_root test -e /etc/pgsluice/pgsluice.toml.rpmsave || die "a removal took the administrator's configuration away"
  echo "rpm: installed, ran, upgraded with its configuration kept and a restart, removed"
}
arm() { # TARGET DEB RPM
  local runner folder; runner=$(runner_of "$1")
  [ -x "$DIST/$1/pgsluice" ] || { echo "$1: not built, so its packages were not tried"; return; }
  for file in "$2" "$3"; do
    folder=$(mktemp -d "$WORK/arm.XXXXXX")
    case $file in
      *.deb) dpkg-deb -x "$DIST/$file" "$folder" ;;
      *.rpm) (cd "$folder" && rpm2archive - <"$(readlink -f "$DIST")/$file" | tar -xz) ;;
    esac
    # shellcheck disable=SC2086 # empty on the machine's own
    $runner "$folder/usr/bin/pgsluice" version >/dev/null || die "the binary of $file does not run"
    cmp "$folder/usr/bin/pgsluice" "$DIST/$1/pgsluice"
    echo "$file: unpacked, its binary runs"
  done
}
case ${1:-all} in
  deb) deb ;; rpm) rpm_ ;;
  all)
    deb; rpm_
    arm "$ARM64" "pgsluice_$VERSION-1_arm64.deb" "pgsluice-$VERSION-1.aarch64.rpm"
    arm "$ARMV7" "pgsluice_$VERSION-1_armhf.deb" "pgsluice-$VERSION-1.armv7hl.rpm" ;;
  *) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;;
esac
