#!/bin/bash
# tests/soak.sh [rounds=10] [seed=N] [minutes=0] [sim=1800] [fuzz=600] [FILTER ...]: the long runs that CI has no time for. Runs the
# integration tests and those marked #[ignore] with TESTS_SOAK=1, round after round with a new seed each (TESTS_SEED), in each that many
# seconds of simulated histories, and then the fuzz targets. Ends at the first failure and prints the command that repeats it. minutes: no
# new round after that.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
export TESTBED_INSTALL=${TESTBED_INSTALL:-1} TESTS_SOAK=1
. tests/servers/need.sh
ROUNDS=10 SIM=1800 SEED=$((RANDOM * 32768 + RANDOM)) MINUTES=0 FUZZ=600 FILTER=()
for a; do case $a in
  rounds=*) ROUNDS=${a#*=} ;; seed=*) SEED=${a#*=} ;; minutes=*) MINUTES=${a#*=} ;; sim=*) SIM=${a#*=} ;; fuzz=*) FUZZ=${a#*=} ;;
  -* | *=*) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;; *) FILTER+=("$a") ;;
esac; done
[[ "$ROUNDS$SEED$MINUTES$SIM$FUZZ" =~ ^[0-9]+$ ]] || die "rounds, seed, minutes, sim and fuzz are numbers"
need psql pg_recvlogical java python3 python3-venv openssl cc timeout
trap 'halt 130' INT
trap 'halt 143' TERM
limited 1800 cargo test --locked --no-run || die "the tests do not build"
for round in $(seq 1 "$ROUNDS"); do
  [ "$MINUTES" = 0 ] || [ $((SECONDS / 60)) -lt "$MINUTES" ] || break
  BEGIN=$SECONDS
  echo "=== round $round of $ROUNDS, seed $SEED"
  export TESTS_SEED=$SEED PROPTEST_CASES=4096
  limited 14400 cargo test --locked --no-fail-fast "${FILTER[@]}" -- --include-ignored ||
    die "round $round failed. Again: tests/soak.sh rounds=1 fuzz=0 seed=$SEED ${FILTER[*]}"
  limited 3600 cargo test --locked --features failpoints --test once failpoints:: || die "round $round failed at a failpoint, seed $SEED"
  if [ "$SIM" != 0 ]; then
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true SIM_FROM=$((SEED * 1000)) SIM_SECONDS=$SIM
    limited $((SIM + 1800)) cargo test --locked --release --features sim --test sim histories -- --nocapture ||
      die "round $round failed in the simulator. Again: SIM_SEED=(the seed above) cargo test --features sim --test sim histories -- --nocapture"
  fi
  echo "=== round $round: $((SECONDS - BEGIN)) s"
  SEED=$(((SEED * 1103515245 + 12345) % 2147483648))
done
[ "$FUZZ" = 0 ] || tests/fuzz.sh "$FUZZ"
