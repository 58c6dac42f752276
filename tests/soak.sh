#!/bin/bash
# tests/soak.sh [rounds=10] [seed=N] [minutes=0] [fuzz=600] [FILTER ...]: the long runs that CI has no time for. Runs the integration
# tests and those marked #[ignore] with TESTS_SOAK=1, round after round with a new seed each (TESTS_SEED), and then the fuzz
# targets for that many seconds. Ends at the first failure and prints the command that repeats it. minutes: no new round after that.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
export TESTBED_INSTALL=${TESTBED_INSTALL:-1} TESTS_SOAK=1
. tests/servers/need.sh
ROUNDS=10 SEED=$((RANDOM * 32768 + RANDOM)) MINUTES=0 FUZZ=600 FILTER=()
for a; do case $a in
  rounds=*) ROUNDS=${a#*=} ;; seed=*) SEED=${a#*=} ;; minutes=*) MINUTES=${a#*=} ;; fuzz=*) FUZZ=${a#*=} ;;
  -* | *=*) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;; *) FILTER+=("$a") ;;
esac; done
[[ "$ROUNDS$SEED$MINUTES$FUZZ" =~ ^[0-9]+$ ]] || die "rounds, seed, minutes and fuzz are numbers"
need psql pg_recvlogical java python3 python3-venv openssl cc timeout
trap 'halt 130' INT
trap 'halt 143' TERM
limited 1800 cargo test --locked --no-run || die "the tests do not build"
for round in $(seq 1 "$ROUNDS"); do
  [ "$MINUTES" = 0 ] || [ $((SECONDS / 60)) -lt "$MINUTES" ] || break
  BEGIN=$SECONDS
  echo "=== round $round of $ROUNDS, seed $SEED"
  export TESTS_SEED=$SEED PROPTEST_CASES=4096
  limited 7200 cargo test --locked --no-fail-fast "${FILTER[@]}" -- --include-ignored ||
    die "round $round failed. Again: tests/soak.sh rounds=1 fuzz=0 seed=$SEED ${FILTER[*]}"
  limited 3600 cargo test --locked --features failpoints --test once failpoints:: || die "round $round failed at a failpoint, seed $SEED"
  echo "=== round $round: $((SECONDS - BEGIN)) s"
  SEED=$(((SEED * 1103515245 + 12345) % 2147483648))
done
[ "$FUZZ" = 0 ] || tests/fuzz.sh "$FUZZ"
