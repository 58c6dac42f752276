#!/bin/bash
# tests/fuzz.sh [SECONDS=60]: every target of fuzz/ by turns, SECONDS for all together. Needs no nightly: without a sanitizer
# cargo-fuzz only uses what the stable compiler takes when told so.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. tests/servers/need.sh
ALL=${1:-60}
[ -f fuzz/Cargo.toml ] || { echo "fuzz: there is no fuzz/ yet"; exit 0; }
need c++ timeout # libFuzzer is C++
VERSION=0.13.2
if ! command -v cargo-fuzz >/dev/null; then
  echo "fuzz: installing cargo-fuzz $VERSION with cargo"
  again 600 cargo install cargo-fuzz --locked --version "$VERSION" --quiet || die "cargo-fuzz could not be had: cargo install cargo-fuzz --locked --version $VERSION"
fi
export RUSTC_BOOTSTRAP=1 PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
mapfile -t TARGETS < <(cargo fuzz list)
[ ${#TARGETS[@]} -gt 0 ] || die "fuzz/ has no targets"
EACH=$((ALL / ${#TARGETS[@]})); [ "$EACH" -gt 0 ] || EACH=1
timeout --foreground 800 cargo fuzz build --sanitizer none >/dev/null || die "the targets do not build"
for target in "${TARGETS[@]}"; do
  LOG=$(mktemp)
  if timeout --foreground $((EACH + 120)) cargo fuzz run --sanitizer none "$target" -- -max_total_time="$EACH" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$LOG" 2>&1; then
    echo "fuzz: $target, $EACH s, $(sed -n 's/.*number_of_executed_units: *//p' "$LOG") runs, no finding"
    rm "$LOG"
  else
    tail -40 "$LOG" >&2; rm "$LOG"
    die "$target found something: the input is in fuzz/artifacts/$target"
  fi
done
