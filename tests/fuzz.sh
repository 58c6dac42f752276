#!/bin/bash
# tests/fuzz.sh [SECONDS=60]: every target of fuzz/ by turns, SECONDS for all together, from the inputs in fuzz/seeds and what earlier
# runs here found worth keeping. Exits 1 on a finding and prints its input in hex. Needs no nightly: without a sanitizer cargo-fuzz
# only uses what the stable compiler takes when told so. The machine is left as it was: all is kept in fuzz/.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. tests/servers/need.sh
ALL=${1:-60}
[[ "$ALL" =~ ^[0-9]+$ ]] || die "SECONDS is a number"
need cc c++ timeout # libFuzzer is C++
VERSION=0.13.2 TOOLS=$PWD/fuzz/target/tools
unset CARGO_TARGET_DIR # what is built with instrumentation stays apart, in fuzz/target
export RUSTC_BOOTSTRAP=1 PATH=$TOOLS/bin:$PATH
if [[ "$(cargo fuzz --version 2>/dev/null || true)" != *" $VERSION" ]]; then
  echo "fuzz: installing cargo-fuzz $VERSION in fuzz/target/tools"
  # Unoptimised: it only puts a command line together.
  again 600 env CARGO_TARGET_DIR="$TOOLS/build" cargo install cargo-fuzz --locked --version "$VERSION" --debug --force --quiet --root "$TOOLS" ||
    die "cargo-fuzz could not be had: cargo install cargo-fuzz --locked --version $VERSION"
  rm -rf "$TOOLS/build"
fi
mapfile -t TARGETS < <(cargo fuzz list)
[ ${#TARGETS[@]} -gt 0 ] || die "fuzz/ has no targets"
EACH=$((ALL / ${#TARGETS[@]})); [ "$EACH" -gt 0 ] || EACH=1
LOG=$(mktemp); trap 'rm -f "$LOG"' EXIT
# The paths of this machine are nobody's business.
tidy() { sed "s|$PWD/||g; s|${CARGO_HOME:-$HOME/.cargo}|~/.cargo|g; s|$HOME|~|g"; }

timeout --foreground 1500 cargo fuzz build --sanitizer none >"$LOG" 2>&1 || { tail -40 "$LOG" | tidy >&2; die "the targets do not build"; }
FOUND=()
for target in "${TARGETS[@]}"; do
  CORPUS=fuzz/corpus/$target ARTIFACTS=fuzz/artifacts/$target BEGIN=$(mktemp)
  mkdir -p "$CORPUS" "$ARTIFACTS" # what is found goes to the first folder given, and so never into fuzz/seeds
  if timeout --foreground $((EACH + 120)) cargo fuzz run --sanitizer none "$target" "$CORPUS" "fuzz/seeds/$target" -- \
    -max_total_time="$EACH" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$LOG" 2>&1; then
    echo "fuzz: $target: $(sed -n 's/.*number_of_executed_units: *//p' "$LOG") executions in $EACH s, no finding"
  else
    FOUND+=("$target")
    echo "fuzz: $target: a finding" >&2
    { grep -E 'panicked at|ERROR: libFuzzer' -A3 "$LOG" || tail -20 "$LOG"; } | grep -vE '^ +[0-9]+: |^ +at ' | head -12 | tidy >&2
    find "$ARTIFACTS" -type f -newer "$BEGIN" | while read -r input; do
      echo "fuzz: its input, $(wc -c <"$input") bytes in hex:"; od -An -v -tx1 "$input" | tr -d ' \n'; echo
    done >&2
  fi
  rm -f "$BEGIN"
done
[ ${#FOUND[@]} = 0 ] || die "a finding in ${FOUND[*]}: the inputs are in fuzz/artifacts too, cargo fuzz run --sanitizer none TARGET FILE repeats one"
