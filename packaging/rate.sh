#!/bin/bash
# packaging/rate.sh [rows=300000] [rounds=3]: the rate of the static binary beside that of one with glibc, of the same source and
# profile, in turn: A B, B A, A B ... as a machine's speed drifts. Fails if the median of the pairs is under 0.95.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. packaging/env.sh
ROWS=300000 ROUNDS=3 PROFILE=${PROFILE:-release}
for a; do case $a in
  rows=*) ROWS=${a#*=} ;; rounds=*) ROUNDS=${a#*=} ;;
  *) sed -n '2,3s/^# //p' "$0" >&2; exit 2 ;;
esac; done
MUSL=$DIST/$X86/pgsluice GLIBC=${GLIBC:-${CARGO_TARGET_DIR:-target}/$PROFILE/pgsluice}
[ -x "$MUSL" ] || die "$MUSL is not there: packaging/build.sh $X86"
[ -n "${GLIBC_READY:-}" ] || RUSTUP_TOOLCHAIN=$RUST cargo build --quiet --locked --profile "$PROFILE" --bin pgsluice
export BENCH_PG=$((${TESTS_PORTS:-15000} + 1190)) BENCH_KAFKA=$((${TESTS_PORTS:-15000} + 1160))
rate() { # BINARY: rows/s of draining a backlog, and µs of CPU a row
  local said; said=$(PGSLUICE=$1 benches/throughput.sh rows="$ROWS" rounds=1 only=batched) || { echo "$said" >&2; die "no rate of $1"; }
  awk '$1 == "pgsluice" { print $2, $4 }' <<<"$said"
}
pairs=()
for ((i = 0; i < ROUNDS; i++)); do
  if ((i % 2)); then m=$(rate "$MUSL"); g=$(rate "$GLIBC"); else g=$(rate "$GLIBC"); m=$(rate "$MUSL"); fi
  pairs+=("$(awk -v m="${m% *}" -v g="${g% *}" 'BEGIN { printf "%.3f", m / g }')")
  echo "musl ${m% *} rows/s, ${m#* } us CPU a row; glibc ${g% *} rows/s, ${g#* } us: ${pairs[-1]}"
done
median=$(printf '%s\n' "${pairs[@]}" | sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }')
echo "musl / glibc: median $median of $ROUNDS pairs"
awk -v m="$median" 'BEGIN { exit m < 0.95 }' || die "the static binary is slower than 0.95 of the other"
