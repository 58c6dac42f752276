#!/bin/bash
# packaging/twice.sh TARGET ...: builds them again, from a copy of the source in another folder with an empty target folder, and
# compares with target/dist, byte by byte.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. packaging/env.sh
FIRST=$(readlink -f "$DIST")
OTHER=$(mktemp -d "${TMPDIR:-/var/tmp}/pgsluice-elsewhere.XXXXXX")
trap 'rm -rf "$OTHER"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$OTHER"
(cd "$OTHER" && CARGO_TARGET_DIR=$OTHER/out PACKAGING_DIST=$OTHER/dist packaging/build.sh "$@" >"$OTHER/log" 2>&1) ||
  { tail -20 "$OTHER/log" >&2; die "the second build failed"; }
for target; do
  cmp "$FIRST/$target/pgsluice" "$OTHER/dist/$target/pgsluice" || die "$target: two builds of one source differ"
  cmp "$FIRST/$target/pgsluice.cdx.json" "$OTHER/dist/$target/pgsluice.cdx.json" || die "$target: two SBOMs of one source differ"
  ! grep -qaF -e "$PWD/" -e "${CARGO_HOME:-$HOME/.cargo}/registry" -e "$OTHER" "$FIRST/$target/pgsluice" || die "$target: a path of this machine is in it"
  echo "$target: two builds in two folders are the same bytes"
done
