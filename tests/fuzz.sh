#!/bin/bash
# tests/fuzz.sh [SECONDS=60|build]: every target of fuzz/ by turns, SECONDS for all together, from the inputs in fuzz/seeds and what earlier
# runs here found worth keeping. Exits 1 on a finding and prints its input in hex. Needs no nightly and no cargo-fuzz: the flags below
# are those of `cargo fuzz --sanitizer none`, which stable compilers take. The machine is left as it was: all is kept in fuzz/.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. tests/servers/need.sh
ALL=${1:-60}
[[ "$ALL" =~ ^([0-9]+|build)$ ]] || die "SECONDS is a number"
need cc c++ timeout # libFuzzer is C++
HOST=$(rustc -vV | sed -n 's/^host: //p')
BUILT=fuzz/target/$HOST/release
COVERAGE="-Cpasses=sancov-module"
for flag in level=4 inline-8bit-counters pc-table trace-compares; do COVERAGE+=" -Cllvm-args=-sanitizer-coverage-$flag"; done
mapfile -t TARGETS < <(sed -n '/^\[\[bin\]\]/,/^name/s/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml)
[ ${#TARGETS[@]} -gt 0 ] || die "fuzz/ has no targets"
LOG=$(mktemp); trap 'rm -f "$LOG"' EXIT
# The paths of this machine are nobody's business.
tidy() { sed "s|$PWD/||g; s|${CARGO_HOME:-$HOME/.cargo}|~/.cargo|g; s|$HOME|~|g"; }

# With a target named, build scripts and macros are built without the flags, as they run once.
timeout --foreground 1500 env RUSTFLAGS="$COVERAGE --cfg fuzzing" CARGO_TARGET_DIR=fuzz/target \
  cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$HOST" --bins >"$LOG" 2>&1 || { tail -40 "$LOG" | tidy >&2; die "the targets do not build"; }
[ "$ALL" != build ] || exit 0
EACH=$((ALL / ${#TARGETS[@]})); [ "$EACH" -gt 0 ] || EACH=1
FOUND=()
for target in "${TARGETS[@]}"; do
  CORPUS=fuzz/corpus/$target ARTIFACTS=fuzz/artifacts/$target BEGIN=$(mktemp)
  mkdir -p "$CORPUS" "$ARTIFACTS" # what is found goes to the first folder given, and so never into fuzz/seeds
  if timeout --foreground $((EACH + 120)) "$BUILT/$target" "$CORPUS" "fuzz/seeds/$target" "-artifact_prefix=$ARTIFACTS/" \
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
[ ${#FOUND[@]} = 0 ] || die "a finding in ${FOUND[*]}: the inputs are in fuzz/artifacts too, $BUILT/TARGET FILE repeats one"
