#!/bin/sh
# deb: remove, purge, upgrade, ... rpm: 0 or 1. The user stays, as is the custom: its id must not become another's while files have it.
set -e
if [ "$1" = purge ]; then
  rm -rf /var/lib/pgsluice
fi
case "$1" in
  remove | 0) if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi ;;
esac
