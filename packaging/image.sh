#!/bin/bash
# packaging/image.sh: a container image of the binaries in target/dist, x86_64 and aarch64 (and armv7 if it is there), as an OCI layout
# in target/dist/image and as one archive; no engine is needed. Then skopeo reads it, umoci unpacks it, and what was unpacked
# is run; the Kubernetes example is held against Kubernetes' own schemas.
# To publish: skopeo copy --all oci:target/dist/image:VERSION docker://REGISTRY/pgsluice:VERSION
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
. packaging/env.sh
need python3 python3-venv skopeo umoci
IMAGE=$DIST/image WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/pgsluice-image.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
want=$(sha256sum <packaging/requirements-image.txt | cut -c1-16) VENV=$TOOLS/image-venv
if [ "$(cat "$VENV/.done" 2>/dev/null)" != "$want" ]; then
  rm -rf "$VENV"; mkdir -p "$TOOLS"; python3 -m venv "$VENV"
  again 600 "$VENV/bin/pip" install -q --disable-pip-version-check --require-hashes --only-binary :all: -r packaging/requirements-image.txt ||
    die "packaging/requirements-image.txt could not be had from PyPI"
  echo "$want" >"$VENV/.done"
fi
CA=$("$VENV/bin/python" -m certifi)
PAIRS=()
for target in "${ALL[@]}"; do
  [ ! -x "$DIST/$target/pgsluice" ] || PAIRS+=("$(arch_of "$target")=$DIST/$target/pgsluice")
done
[ ${#PAIRS[@]} -gt 0 ] || die "no binary is in $DIST: packaging/build.sh"

rm -rf "$IMAGE"
DIGEST=$(python3 packaging/image.py "$IMAGE" "$CA" "$VERSION" "${PAIRS[@]}")
AGAIN=$(python3 packaging/image.py "$WORK/again" "$CA" "$VERSION" "${PAIRS[@]}")
[ "$DIGEST" = "$AGAIN" ] || die "the same binaries gave two images"

for pair in "${PAIRS[@]}"; do
  case ${pair%%=*} in amd64) as=(amd64 '') run='' ;; arm64) as=(arm64 '') run=$(runner_of "$ARM64") ;; armhf) as=(arm v7) run=$(runner_of "$ARMV7") ;; esac
  # skopeo checks every digest as it copies one platform out of the index; umoci knows no index.
  skopeo --override-os linux --override-arch "${as[0]}" ${as[1]:+--override-variant "${as[1]}"} --insecure-policy \
    copy --quiet "oci:$IMAGE:$VERSION" "oci:$WORK/${as[0]}:$VERSION"
  skopeo inspect --config "oci:$WORK/${as[0]}:$VERSION" | python3 -c '
import json, sys
config, arch = json.load(sys.stdin), sys.argv[1]
assert config["architecture"] == arch and config["os"] == "linux", config
assert config["config"]["User"] == "65532:65532" and config["config"]["Entrypoint"] == ["/usr/bin/pgsluice"], config' "${as[0]}"
  umoci unpack --rootless --image "$WORK/${as[0]}:$VERSION" "$WORK/${as[0]}.bundle" >/dev/null 2>&1 || die "umoci cannot unpack ${as[0]}"
  cmp "$WORK/${as[0]}.bundle/rootfs/usr/bin/pgsluice" "${pair#*=}"
  $run "$WORK/${as[0]}.bundle/rootfs/usr/bin/pgsluice" version
done
skopeo --insecure-policy copy --quiet --all "oci:$IMAGE:$VERSION" "oci-archive:$WORK/image.tar:$VERSION"
rm "$WORK/image.tar"
tar -C "$IMAGE" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf "$DIST/pgsluice-$VERSION.oci.tar" .
echo "image: ${#PAIRS[@]} architectures, $DIGEST, $(stat -c %s "$DIST/pgsluice-$VERSION.oci.tar") bytes; read by skopeo, unpacked by umoci, run"

"$VENV/bin/kubernetes-validate" --strict packaging/kubernetes.yaml || die "packaging/kubernetes.yaml is not what Kubernetes takes"
# And what is inside of it is what pgsluice takes, without the environment: release.sh's PGSLUICE_COMMIT would be a key.
"$VENV/bin/python" - "$WORK" <<'P'
import sys, yaml
for part in yaml.safe_load_all(open("packaging/kubernetes.yaml")):
    if part["kind"] == "ConfigMap":
        text = part["data"]["pgsluice.toml"].replace("/run/secrets/pgsluice", sys.argv[1])
        open(sys.argv[1] + "/pgsluice.toml", "w").write(text)
P
touch "$WORK/postgres" "$WORK/kafka" # passwords that can be read
case $(uname -m) in
  x86_64) [ ! -x "$DIST/$X86/pgsluice" ] || env -i "$DIST/$X86/pgsluice" config -c "$WORK/pgsluice.toml" >/dev/null || die "the configuration in packaging/kubernetes.yaml is wrong" ;;
esac
echo "kubernetes.yaml: as the schemas want it"
