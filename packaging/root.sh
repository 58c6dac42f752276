# shellcheck shell=bash
# A fresh Debian root to install packages in, kept as an archive. Sourced after env.sh.
fresh_root() { # FOLDER: unpacked there, with a systemctl that records what it is asked in /systemctl.log
  need debootstrap
  local kept=$TOOLS/bookworm-minbase.tar mirror
  if [ ! -s "$kept" ]; then
    mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d/ 2>/dev/null | head -1) || true
    mkdir -p "$TOOLS"; root rm -rf "$TOOLS/bookworm"
    # The archive is signed, and debootstrap checks that: nothing comes from anybody else.
    root debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg bookworm "$TOOLS/bookworm" \
      "${mirror:-http://deb.debian.org/debian}" >"$TOOLS/debootstrap.log" 2>&1 || { tail -5 "$TOOLS/debootstrap.log" >&2; die "debootstrap failed"; }
    root tar -C "$TOOLS/bookworm" -cf "$kept.new" .; root mv "$kept.new" "$kept"; root rm -rf "$TOOLS/bookworm"
  fi
  mkdir -p "$1"; root tar -C "$1" -xf "$kept"
  root mkdir -p "$1/run/systemd/system" "$1/usr/bin"
  root tee "$1/usr/bin/systemctl" >/dev/null <<'S'
#!/bin/sh
echo "$*" >>/systemctl.log
S
  root chmod 755 "$1/usr/bin/systemctl"
}
