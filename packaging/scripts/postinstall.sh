#!/bin/sh
# deb: configure [OLD VERSION]. rpm: 1 (first installation) or 2 (upgrade).
# A first installation starts nothing, as nobody has said yet what to stream. An upgrade restarts what runs.
set -e
upgrade=no
case "$1" in
  configure) [ -z "$2" ] || upgrade=yes ;;
  1) ;;
  [2-9]) upgrade=yes ;;
  *) exit 0 ;; # abort-upgrade and the like: nothing was unpacked
esac
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || true
if [ "$upgrade" = yes ]; then
  systemctl try-restart pgsluice.service 'pgsluice@*.service' || true
fi
