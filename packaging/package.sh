#!/bin/bash
# packaging/package.sh [TARGET ...]: a deb and an rpm of each target that build.sh has put into target/dist, there, by nfpm from
# nfpm.yaml; then lintian and rpmlint, which must have nothing to say. PACKAGE_VERSION and MAINTAINER may be set.
# The man page and the completions are generated from the command line by `cargo run --example manual`, or taken from MANUAL.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. packaging/env.sh
for t; do arch_of "$t" >/dev/null; done
[ $# -gt 0 ] || set -- "${ALL[@]}"
export PACKAGE_VERSION=${PACKAGE_VERSION:-$VERSION} MAINTAINER=${MAINTAINER:-pgsluice maintainers <maintainers@pgsluice.invalid>}
need python3 gzip lintian rpm rpmlint zsh fish
WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/pgsluice-package.XXXXXX"); export WORK
trap 'rm -rf "$WORK"' EXIT
tools

if [ -z "${MANUAL:-}" ]; then
  MANUAL=$WORK/manual; mkdir "$MANUAL"
  cargo run --quiet --locked --example manual -- "$MANUAL" || die "the man page and the completions could not be generated"
fi
packaging/completions.sh "$MANUAL"
gzip -9n <"$MANUAL/pgsluice.1" >"$WORK/pgsluice.1.gz"
cp "$MANUAL/pgsluice.bash" "$MANUAL/_pgsluice" "$MANUAL/pgsluice.fish" "$WORK/"
cp packaging/lintian-overrides "$WORK/"

# The changes as CHANGELOG.md has them: Debian's file, and the form from which nfpm writes the rpm's.
python3 packaging/changelog.py "$PACKAGE_VERSION" "$MAINTAINER" "$WORK"
gzip -9n <"$WORK/changelog.Debian" >"$WORK/changelog.Debian.gz"

{ # Debian's copyright file names Apache-2.0 where every Debian has it; NOTICES.gz has the others' texts.
  printf '%s\n' 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/' 'Upstream-Name: pgsluice' '' 'Files: *' \
    'Copyright: 2026 the authors of pgsluice' 'License: Apache-2.0 or Expat' \
    'Comment: The program holds software of others, under the licences in' ' /usr/share/doc/pgsluice/NOTICES.gz.' '' 'License: Apache-2.0' \
    ' On Debian systems its text is in /usr/share/common-licenses/Apache-2.0.' '' 'License: Expat'
  sed -n '/Permission is hereby granted/,$p' LICENSE | sed 's/^$/./; s/^/ /'
} >"$WORK/copyright"

for target; do
  BINARY=$DIST/$target/pgsluice ARCH=$(arch_of "$target")
  [ -x "$BINARY" ] || die "$BINARY is not there: packaging/build.sh $target"
  [ "$ARCH" != armhf ] || ARCH=arm7 # nfpm's word, from which it makes armhf and armv7hl
  export BINARY ARCH
  python3 packaging/notices.py "$target" "$TOOLS"/venv/lib/python3*/site-packages/ziglang >"$WORK/NOTICES"
  gzip -9n <"$WORK/NOTICES" >"$WORK/NOTICES.gz"
  for kind in deb rpm; do
    rm -f "$WORK"/out.*
    # nfpm itself expands variables in a few places only.
    sed "s,\${WORK},$WORK,g" packaging/nfpm.yaml >"$WORK/nfpm.yaml"
    [ $kind = rpm ] || sed -i '/^changelog:/d' "$WORK/nfpm.yaml" # it would break Debian's lines
    nfpm package -f "$WORK/nfpm.yaml" -p $kind -t "$WORK/out.$kind" >/dev/null
    case $kind in
      deb) file=pgsluice_${PACKAGE_VERSION}-1_$(dpkg-deb -f "$WORK/out.deb" Architecture).deb ;;
      rpm) file=pgsluice-${PACKAGE_VERSION}-1.$(rpm -qp --nosignature --qf '%{arch}' "$WORK/out.rpm").rpm ;;
    esac
    mv "$WORK/out.$kind" "$DIST/$file"
    case $kind in
      deb) lintian --allow-root --tag-display-limit 0 --fail-on error,warning "$DIST/$file" || die "lintian is not content with $file" ;;
      rpm)
        rpm -K --nosignature "$DIST/$file" >/dev/null || die "the digests of $file are wrong"
        rpmlint -c packaging/rpmlint.toml "$DIST/$file" >"$WORK/rpmlint" || { cat "$WORK/rpmlint"; die "rpmlint is not content with $file"; }
        grep -q ' 0 errors, 0 warnings' "$WORK/rpmlint" || { cat "$WORK/rpmlint"; die "rpmlint warns of $file"; } ;;
    esac
    echo "$file: $(stat -c %s "$DIST/$file") bytes, $kind lint clean"
  done
done
(cd "$DIST" && sha256sum ./*.deb ./*.rpm | sed 's,\./,,' >SHA256SUMS.packages)
