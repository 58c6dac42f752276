#!/bin/bash
# packaging/verify.sh: builds the x86_64 binary once in the quick profile (thin LTO) and sees that it is static, small, and works
# alone in an empty folder with real servers. PROFILE=release for the real thing. For CI: a few minutes.
# packaging/verify.sh --all: the three targets in the release profile, ARM by qemu; two builds in two folders are the same bytes;
# the packages in a fresh root, the image, the end-to-end suite with the musl binary under the unit's filter, and its rate beside glibc's.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export TESTBED_INSTALL=${TESTBED_INSTALL:-${CI:-1}}
. packaging/env.sh
case ${1:-} in
  '') export PROFILE=${PROFILE:-quick}; TARGETS=("$X86") ROWS=20000 ;;
  --all) export PROFILE=${PROFILE:-release}; TARGETS=("${ALL[@]}") ROWS=100000 ;;
  *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
esac
step() { printf '== %s (after %s s)\n' "$*" $SECONDS; }

step "units"
packaging/check-units.sh
step "build"
packaging/build.sh "${TARGETS[@]}"
for target in "${TARGETS[@]}"; do
  runner=$(runner_of "$target")
  # shellcheck disable=SC2086 # empty on the machine's own
  ms=$(python3 packaging/start.py $runner "$DIST/$target/pgsluice" version)
  echo "$target: $ms ms from start to the end of version"
  [ -n "$runner" ] || awk -v m="$ms" 'BEGIN { exit m > 50 }' || echo "$target: more than the wanted 50 ms"
  step "rows, $target"
  packaging/stream.sh "$target" $ROWS
done
[ "${1:-}" = --all ] || { step "done"; exit 0; }

step "the same bytes in another folder"
packaging/twice.sh "${TARGETS[@]}"
step "packages"
packaging/package.sh
packaging/install-test.sh
step "image"
packaging/image.sh
step "the end-to-end suite with the musl binary, with the system calls that the unit allows"
need systemd-analyze
packaging/check-units.sh --allowed >"$DIST/calls"
printf '#!/bin/sh\nexec "%s" "%s" --calls "%s" "%s" "$@"\n' "$(python3 -c 'import sys; print(sys.executable)')" "$PWD/packaging/filtered.py" \
  "$(readlink -f "$DIST/calls")" "$(readlink -f "$DIST/$X86/pgsluice")" >"$DIST/filtered"
chmod 755 "$DIST/filtered"
TESTS_BINARY=$(readlink -f "$DIST/filtered") cargo test --locked --test end_to_end
step "rate, musl beside glibc"
packaging/rate.sh
step "done"
