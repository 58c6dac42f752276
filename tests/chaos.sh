#!/bin/bash
# tests/chaos.sh [--faults N] [--seed S] [--mode idempotent|transactional] [--only KIND,KIND]: two instances, three brokers, N faults
# (100 if not said) in the order of seed S (by chance if not said, and printed), of some kinds or all (tests/chaos/fault.rs), while rows
# are written; then every record is compared with what PostgreSQL committed. Ends with 0 if none is lost, none repeated and all are in
# order. About 6 seconds a fault.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export TESTBED_INSTALL=${TESTBED_INSTALL:-1} TESTS_FAULTS=100 TESTS_SEED=$((RANDOM * 32768 + RANDOM)) TESTS_MODE=idempotent TESTS_ONLY=
. tests/servers/need.sh
while [ $# -ge 2 ]; do case $1 in
  --faults) TESTS_FAULTS=$2 ;; --seed) TESTS_SEED=$2 ;; --mode) TESTS_MODE=$2 ;; --only) TESTS_ONLY=$2 ;;
  *) break ;;
esac; shift 2; done
[ $# = 0 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
[[ "$TESTS_FAULTS$TESTS_SEED" =~ ^[0-9]+$ ]] || die "faults and seed are numbers"
[[ $TESTS_MODE == idempotent || $TESTS_MODE == transactional ]] || die "mode is idempotent or transactional"
need psql java python3 python3-venv openssl cc timeout
trap 'halt 130' INT
trap 'halt 143' TERM
limited 1800 cargo test --locked --no-run --test chaos || die "the test does not build"
limited $((600 + 60 * TESTS_FAULTS)) cargo test --locked --test chaos -- --nocapture ||
  die "it failed. Again: tests/chaos.sh --faults $TESTS_FAULTS --seed $TESTS_SEED --mode $TESTS_MODE${TESTS_ONLY:+ --only $TESTS_ONLY}"
