#!/bin/bash
# packaging/build.sh [TARGET ...]: pgsluice as one static file for x86_64-unknown-linux-musl, aarch64-unknown-linux-musl and
# armv7-unknown-linux-musleabihf (all three if none is named), in target/dist/TARGET/, with an SBOM (CycloneDX) and SHA256SUMS.
# The same source gives the same bytes, in whatever folder. Fails at anything that is not static, or over 8 MB.
# PROFILE=quick: thin LTO, for CI. ROUTE=rustup|debian|cross picks where the compiler comes from (README.md beside this).
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. packaging/env.sh
. packaging/toolchain.sh
PROFILE=${PROFILE:-release}
for t; do arch_of "$t" >/dev/null; done
[ $# -gt 0 ] || set -- "${ALL[@]}"
need readelf python3
OUT=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$DIST"

with_zig() { # TARGET: cargo with zig as C compiler and linker
  local target=$1 name flags; name=$(tr a-z- A-Z_ <<<"$target")
  # Position-independent, for address space randomisation: zig makes a plain static file unless it is told. No path of this machine.
  flags="-Crelocation-model=pic -Clink-arg=-pie --remap-path-prefix=$CARGO_HOME=/cargo --remap-path-prefix=$PWD=/src"
  # Where the standard library's source is installed, rustc names that folder.
  flags+=" --remap-path-prefix=$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/src/rust=/rustc/$RUST_COMMIT"
  [ -z "$STD_FLAGS" ] || flags="$STD_FLAGS -Clink-self-contained=no $flags"
  env "CARGO_TARGET_${name}_RUSTFLAGS=$flags" "CFLAGS_${target//-/_}=-ffile-prefix-map=$CARGO_HOME=/cargo" \
    "CARGO_PROFILE_${PROFILE^^}_STRIP=false" CARGO_TARGET_DIR="$OUT" \
    cargo-zigbuild zigbuild --locked --profile "$PROFILE" -j"$JOBS" --target "$target" --bin pgsluice
}
with_cross() { # TARGET: in a container, with the image's own musl
  local name; name=$(tr a-z- A-Z_ <<<"$1")
  command -v cross >/dev/null || die "ROUTE=cross needs cross (cargo install cross --locked) and Docker or Podman"
  env CROSS_CONFIG="$PWD/cross.toml" RUSTUP_TOOLCHAIN="$RUST" "CARGO_TARGET_${name}_RUSTFLAGS=--remap-path-prefix=/cargo=/cargo --remap-path-prefix=/project=/src" \
    "CARGO_PROFILE_${PROFILE^^}_STRIP=false" CARGO_TARGET_DIR="$OUT" cross build --locked --profile "$PROFILE" --target "$1" --bin pgsluice
}
static() { # FILE: nothing of the host is needed to start it
  local headers dynamic; headers=$(readelf -lW "$1") dynamic=$(readelf -dW "$1")
  ! grep -q INTERP <<<"$headers" || die "$1 asks for an interpreter"
  ! grep -q NEEDED <<<"$dynamic" || die "$1 asks for a library: $(grep NEEDED <<<"$dynamic")"
  grep -q 'Type:.*DYN' <<<"$(readelf -hW "$1")" || die "$1 is not position-independent"
}

tools
[ "${ROUTE:-}" = cross ] || toolchain
for target; do
  begin=$SECONDS
  if [ "${ROUTE:-}" = cross ]; then with_cross "$target"; else standard_library "$target"; with_zig "$target"; fi
  mkdir -p "$DIST/$target"
  static "$OUT/$target/$PROFILE/pgsluice"
  python3 packaging/elf.py strip "$OUT/$target/$PROFILE/pgsluice" "$DIST/$target/pgsluice"
  static "$DIST/$target/pgsluice"
  for path in "$HOME/" "$CARGO_HOME/" "$PWD/" "$OUT/"; do
    ! grep -qaF -e "$path" "$DIST/$target/pgsluice" || die "$DIST/$target/pgsluice has a path of this machine in it, below $path"
  done
  bytes=$(stat -c %s "$DIST/$target/pgsluice")
  [ "$bytes" -le $MAX_BYTES ] || die "$DIST/$target/pgsluice has $bytes bytes, more than $MAX_BYTES"
  python3 packaging/sbom.py "$target" "$DIST/$target/pgsluice" >"$DIST/$target/pgsluice.cdx.json"
  echo "$target: $bytes bytes ($PROFILE, by ${ROUTE:-rustup}, $((SECONDS - begin)) s), of which:"
  python3 packaging/elf.py weigh "$OUT/$target/$PROFILE/pgsluice"
done
(cd "$DIST" && sha256sum ./*/pgsluice ./*/pgsluice.cdx.json | sed 's,\./,,' >SHA256SUMS && cat SHA256SUMS)
