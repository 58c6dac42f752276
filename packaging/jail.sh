#!/bin/bash
# jail.sh PIDFILE FOLDER COMMAND...: runs it as nobody, with FOLDER as its whole, read-only file system. Without root: as the caller,
# in a user namespace, where the kernel allows that. The process keeps the id in PIDFILE. Nothing is inherited from the environment.
set -euo pipefail
PIDFILE=$1 FOLDER=$2; shift 2
echo $$ >"$PIDFILE"
# A mount namespace of its own, so that nothing is left mounted, whatever happens.
AS=() NOBODY=--userspec=65534:65534
[ $EUID = 0 ] || { AS=(--user --map-root-user) NOBODY=; }
# shellcheck disable=SC2016
exec unshare "${AS[@]}" --mount --propagation private -- bash -c '
  PATH=$PATH:/usr/sbin:/sbin; chroot=$(command -v chroot)
  mount --bind "$2" "$2" && mount -o remount,bind,ro,nosuid,nodev "$2" && nobody=$1 folder=$2 && shift 2 &&
  exec env -i "$chroot" ${nobody:+"$nobody"} "$folder" "$@"' jail "$NOBODY" "$FOLDER" "$@"
