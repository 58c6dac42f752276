# shellcheck shell=bash
# Where everything is kept, and how a missing program is got; sourced by every script here.
# apt-get is only used where that was allowed: by TESTBED_INSTALL=1 (tests/demo.sh and tests/all.sh set it; =0 forbids) or in CI.
KEEP=/var/tmp # not /tmp, which is small or in memory on many machines
export TESTBED=${TESTBED:-$KEEP/testbed}
ROOT=$TESTBED PATH=$PATH:/usr/sbin:/sbin
die() { echo "${0##*/}: $*" >&2; exit 1; }

package_of() { # PROGRAM: its Debian package
  case $1 in
    java) echo default-jre-headless ;; mvn) echo maven ;; psql | pg_recvlogical) echo postgresql-client ;;
    python3-venv) echo python3-venv ;; runuser | flock | setsid) echo util-linux ;; useradd) echo passwd ;;
    systemd-analyze) echo systemd ;; timeout) echo coreutils ;; cc) echo gcc ;; c++) echo g++ ;; *) echo "$1" ;;
  esac
}
there() { # PROGRAM
  case $1 in
    python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;; # Debian's python3 comes without
    *) command -v "$1" >/dev/null ;;
  esac
}
missing() { local t; for t; do there "$t" || package_of "$t"; done | sort -u; }
root() { if [ $EUID = 0 ]; then "$@"; else sudo -n "$@"; fi; }
may_install() {
  [ "${TESTBED_INSTALL:-${CI:+1}}" = 1 ] && command -v apt-get >/dev/null && { [ $EUID = 0 ] || sudo -n true 2>/dev/null; }
}
need() { # PROGRAM...: all there, or fetched, or one sentence that says what to do
  local packages; mapfile -t packages < <(missing "$@")
  [ ${#packages[@]} -gt 0 ] || return 0
  if may_install; then
    echo "${0##*/}: installing ${packages[*]} with apt-get" >&2
    # The lock's timeout, as several scripts may want something at once. The first try is with the lists that are there.
    local get=(root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    { "${get[@]}" install --no-install-recommends "${packages[@]}" || { "${get[@]}" update &&
      "${get[@]}" install --no-install-recommends "${packages[@]}"; }; } >/dev/null 2>&1 </dev/null 9>&- || true
    mapfile -t packages < <(missing "$@")
    [ ${#packages[@]} -gt 0 ] || return 0
  fi
  die "${packages[*]} is missing: apt-get install ${packages[*]}"
}
again() { # SECONDS COMMAND...: up to three times, as a registry or a network may be out of sorts for a moment
  local limit=$1 try; shift
  for try in 1 2 3; do
    timeout "$limit" "$@" && return 0
    [ "$try" = 3 ] || { echo "${0##*/}: $1 failed, trying again" >&2; sleep $((try * 3)); }
  done
  return 1
}
CHILD=''
limited() { # SECONDS COMMAND...: ends it with all its processes after that time (124), and with us: trap 'halt CODE' INT TERM
  timeout --kill-after=30 "$@" & CHILD=$!
  local code=0; wait "$CHILD" || code=$?
  CHILD=''; return $code
}
halt() { [ -z "$CHILD" ] || { kill -TERM "$CHILD"; wait "$CHILD"; } 2>/dev/null; exit "$1"; }
