#!/bin/bash
# packaging/release.sh: all that a release is, in target/dist: the static binaries as archives, deb, rpm, SBOMs, the image, and one
# SHA256SUMS of it. The same on a laptop and in .github/workflows/release.yml. Builds from what is committed, and nothing else.
# ALLOW_DIRTY=1: from what is there. It publishes nothing.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export TESTBED_INSTALL=${TESTBED_INSTALL:-${CI:-1}}
. packaging/env.sh
[ -n "${ALLOW_DIRTY:-}" ] || [ -z "$(git status --porcelain)" ] || die "there are changes that are not committed (ALLOW_DIRTY=1 builds them)"
TAG=${TAG:-}
[ -z "$TAG" ] || [ "$TAG" = "v$VERSION" ] || die "the tag is $TAG, the version in Cargo.toml is $VERSION"
PGSLUICE_COMMIT=$(git rev-parse --short=12 HEAD); export PGSLUICE_COMMIT
rm -rf "$DIST"
packaging/build.sh
packaging/package.sh
packaging/image.sh
for target in "${ALL[@]}"; do
  name=pgsluice-$VERSION-$target; mkdir "$DIST/$name"
  cp "$DIST/$target/pgsluice" LICENSE README.md CHANGELOG.md config/example.toml "$DIST/$name/"
  python3 packaging/notices.py "$target" "$TOOLS"/venv/lib/python3*/site-packages/ziglang >"$DIST/$name/NOTICES"
  tar -C "$DIST" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c "$name" | gzip -9n >"$DIST/$name.tar.gz"
  cp "$DIST/$target/pgsluice.cdx.json" "$DIST/$name.cdx.json"
  rm -rf "${DIST:?}/$name"
done
cd "$DIST"
rm -f SHA256SUMS SHA256SUMS.packages
sha256sum ./*.tar.gz ./*.cdx.json ./*.deb ./*.rpm ./*.oci.tar | sed 's,\./,,' >SHA256SUMS
cat SHA256SUMS
