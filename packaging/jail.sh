#!/bin/bash
# jail.sh [--filtered] PIDFILE FOLDER COMMAND...: runs it as nobody, with FOLDER as its whole, read-only file system. Without root: as the caller,
# in a user namespace, where the kernel allows that. The process keeps the id in PIDFILE. Nothing is inherited from the environment.
# --filtered: with the system calls that the units allow, and no others.
set -euo pipefail
FILTER=; [ "$1" != --filtered ] || { FILTER=$(readlink -f "$(dirname "$0")/filtered.py"); shift; }
PIDFILE=$1 FOLDER=$2; shift 2
echo $$ >"$PIDFILE"
# A mount namespace of its own, so that nothing is left mounted, whatever happens.
AS=() NOBODY=65534
[ $EUID = 0 ] || { AS=(--user --map-root-user) NOBODY=; }
# shellcheck disable=SC2016
exec unshare "${AS[@]}" --mount --propagation private -- bash -c '
  PATH=$PATH:/usr/sbin:/sbin; chroot=$(command -v chroot)
  mount --bind "$2" "$2" && mount -o remount,bind,ro,nosuid,nodev "$2" && nobody=$1 folder=$2 filter=$3 && shift 3 &&
  if [ -n "$filter" ]; then exec python3 "$filter" --root "$folder" ${nobody:+--user "$nobody"} "$@"; fi &&
  exec env -i "$chroot" ${nobody:+--userspec="$nobody:$nobody"} "$folder" "$@"' jail "$NOBODY" "$FOLDER" "$FILTER" "$@"
