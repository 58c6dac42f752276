#!/bin/sh
# deb: remove, or upgrade NEW VERSION. rpm: 0 (removal) or 1 (upgrade). An upgrade is restarted once it is unpacked.
set -e
case "$1" in
  remove | 0) ;;
  *) exit 0 ;;
esac
[ -d /run/systemd/system ] || exit 0
systemctl --no-reload disable --now pgsluice.service 'pgsluice@*.service' || true
