#!/bin/sh
# The user of the service, before its files are unpacked, as the configuration belongs to its group. Where systemd is,
# sysusers.d/pgsluice.conf says the same; a container or a chroot has none.
set -e
if ! getent group pgsluice >/dev/null; then
  groupadd --system pgsluice
fi
if ! getent passwd pgsluice >/dev/null; then
  useradd --system --gid pgsluice --home-dir /var/lib/pgsluice --no-create-home --shell /usr/sbin/nologin \
    --comment "pgsluice" pgsluice
fi
