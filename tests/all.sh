#!/bin/bash
# tests/all.sh [PART ...]: everything that CI runs, part by part; all of them if none is named. Gets what is missing by apt-get if it
# may (TESTBED_INSTALL=0 forbids), else says what to install. Each part has a time limit, so that nothing hangs.
# Parts: format lint doc supply test fuzz tutorial package. The last line sums up cargo's "test result" lines.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
export TESTBED_INSTALL=${TESTBED_INSTALL:-1} CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
. tests/servers/need.sh
PARTS=("$@"); [ $# -gt 0 ] || PARTS=(format lint doc supply test fuzz tutorial package)
FUZZ_SECONDS=${FUZZ_SECONDS:-60} # for all targets together
LOG=$(mktemp -d "${TMPDIR:-/tmp}/pgsluice-all.XXXXXX") ASIDE=''
touch "$LOG/times" "$LOG/failed"
need timeout
command -v cargo >/dev/null || die "cargo is missing: get Rust 1.95 or later from https://rustup.rs"
need cc

# What a killed test binary leaves is stopped by its guard, which holds the pipe to tee until it is done.
trap 'rm -rf "$LOG"' EXIT
trap 'end_aside; halt 130' INT
trap 'end_aside; halt 143' TERM
end_aside() { [ -z "$ASIDE" ] || { kill -TERM "$ASIDE"; wait "$ASIDE"; } 2>/dev/null; }

part() { # NAME SECONDS COMMAND...: runs it if it was asked for
  local name=$1 limit=$2 begin=$SECONDS code; shift 2
  [[ " ${PARTS[*]} " == *" $name "* ]] || return 0
  echo "=== $name"
  limited "$limit" "$@"; code=$?
  echo " $name $((SECONDS - begin)) s;" >>"$LOG/times"
  case $code in
    0) ;;
    124 | 137) echo "$name: not done after $limit s" >>"$LOG/failed" ;;
    *) echo "$name: exit $code" >>"$LOG/failed" ;;
  esac
}
for name in "${PARTS[@]}"; do
  case $name in format | lint | doc | supply | test | fuzz | tutorial | package) ;; *) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;; esac
done

part format 60 cargo fmt --check
lint() { cargo clippy --locked -- -D warnings && cargo clippy --locked --all-targets --all-features -- -D warnings; }
# One build for both features, of its own, as everything in it is optimised a little: it has to be quick. The crates that
# others made are those of the tests' build, so they are taken over from there.
featured() { # CARGO'S ARGUMENTS...
  CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/featured \
    cargo test --locked --no-fail-fast --features failpoints,sim "$@"
}
seed() {
  local from=${CARGO_TARGET_DIR:-target}/debug to=${CARGO_TARGET_DIR:-target}/featured/debug
  [ ! -e "$to" ] || return 0
  mkdir -p "$to" && cp -a "$from/.fingerprint" "$from/build" "$from/deps" "$to/" || rm -rf "$to"
}
ahead() { # what is built while tests wait for servers; what fails here fails there again
  nice -n 19 bash -c 'featured --no-run --test once --test sim'
  [[ $AHEAD != *" fuzz "* ]] || nice -n 19 tests/fuzz.sh build
  [[ $AHEAD != *" package "* ]] || PROFILE=quick nice -n 19 packaging/build.sh x86_64-unknown-linux-musl
}
# Tests mostly wait for servers, so two lanes run side by side. Those that share ports are in one of them.
BESIDE="end_to_end failover faults kafka_broker kafka_producer"
lane() { # NAME...: test binaries
  local names=(); for name; do names+=(--test "$name"); done
  cargo test --locked --no-fail-fast "${names[@]}"
}
tests() { # what needs a feature runs by itself, so that all else is the binary that people get
  local code=0 beside name others=()
  for name in tests/*.rs; do
    name=$(basename "$name" .rs)
    [[ " $BESIDE sim " == *" $name "* ]] || others+=("$name")
  done
  cargo test --locked --no-run || return
  seed
  ahead >"$LOG/ahead" 2>&1 &
  lane $BESIDE >"$LOG/beside" 2>&1 & beside=$!
  cargo test --locked --no-fail-fast --lib --bins --examples || code=$?
  lane "${others[@]}" || code=$?
  cargo test --locked --no-fail-fast --doc || code=$?
  featured --test once failpoints:: || code=$?
  # Two minutes of histories, of which there must be 2000 at least, and each planted fault.
  SIM_SECONDS=120 featured --test sim || code=$?
  wait $beside || code=$?
  return $code
}
export -f lint featured seed ahead lane tests
part lint 1200 bash -c lint
part doc 1200 env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
part supply 300 tests/supply.sh
if [[ " ${PARTS[*]} " == *" test "* ]]; then
  need psql pg_recvlogical java python3 python3-venv openssl
fi
export LOG BESIDE AHEAD=" ${PARTS[*]} "
part test 3600 bash -o pipefail -c 'tests 2>&1 | tee "$LOG/test"'
[ ! -s "$LOG/beside" ] || { echo "=== test, what ran beside"; tee -a "$LOG/test" <"$LOG/beside"; }
# A target at a time, so it leaves a core to the others.
{ trap 'halt 143' INT TERM; part fuzz 900 tests/fuzz.sh "$FUZZ_SECONDS"; } >"$LOG/fuzz" 2>&1 & ASIDE=$!
part tutorial 900 tests/tutorial.sh
part package 1500 packaging/verify.sh
wait "$ASIDE"; ASIDE=''
cat "$LOG/fuzz"

[ ! -s "$LOG/times" ] || echo "took:$(tr -d '\n' <"$LOG/times") $SECONDS s in all"
sed 's/^/FAILED /' "$LOG/failed"
if [ -s "$LOG/test" ]; then # cargo prints one such line a binary
  sed 's/\x1b\[[0-9;]*m//g' "$LOG/test" | awk '/^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1); if ($i ~ /^ignored/) g += $(i-1) } }
    END { printf "test result: %s. %d passed; %d failed; %d ignored\n", f ? "FAILED" : "ok", p, f, g }'
fi
[ ! -s "$LOG/failed" ]
