"""image.py OUT CA VERSION ARCH=BINARY ...: a container image as an OCI layout in the folder OUT, without a container engine.

FROM scratch: one layer with the binary, the CA certificates, and the user it runs as. Times and order are fixed, so that the same
binary gives the same digest. https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""
import datetime
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
WHEN = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
ID = 65532  # the custom of images without a shell; Kubernetes wants a number for runAsNonRoot
PLATFORMS = {
    "amd64": {"architecture": "amd64", "os": "linux"},
    "arm64": {"architecture": "arm64", "os": "linux", "variant": "v8"},
    "armhf": {"architecture": "arm", "os": "linux", "variant": "v7"},
}
TYPE = "application/vnd.oci.image."


def layer(binary, ca):
    files = {
        "etc/passwd": (b"pgsluice:x:%d:%d:pgsluice:/:/sbin/nologin\n" % (ID, ID), 0o644),
        "etc/group": (b"pgsluice:x:%d:\n" % ID, 0o644),
        "etc/ssl/certs/ca-certificates.crt": (open(ca, "rb").read(), 0o644),
        "usr/bin/pgsluice": (open(binary, "rb").read(), 0o755),
    }
    folders = {"etc/pgsluice"}
    for name in list(files) + list(folders):
        while "/" in name:
            name = name.rpartition("/")[0]
            folders.add(name)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(folders | set(files)):
            info = tarfile.TarInfo(name)
            info.mtime = EPOCH
            if name in folders:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                data, info.mode = files[name]
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Layout:
    def __init__(self, folder):
        self.folder = folder
        os.makedirs(os.path.join(folder, "blobs", "sha256"), exist_ok=True)
        self.write("oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())

    def write(self, name, data):
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(data)

    def blob(self, kind, data):
        if not isinstance(data, bytes):
            data = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(data).hexdigest()
        self.write(f"blobs/sha256/{digest}", data)
        return {"mediaType": TYPE + kind, "digest": "sha256:" + digest, "size": len(data)}


def image(layout, arch, binary, ca, labels):
    plain = layer(binary, ca)
    packed = layout.blob("layer.v1.tar+gzip", gzip.compress(plain, 9, mtime=0))
    config = layout.blob("config.v1+json", {
        **PLATFORMS[arch],
        "created": WHEN,
        "config": {
            "User": f"{ID}:{ID}",
            "Entrypoint": ["/usr/bin/pgsluice"],
            "Cmd": ["run", "--config", "/etc/pgsluice/pgsluice.toml"],
            "ExposedPorts": {"8081/tcp": {}},
            "StopSignal": "SIGTERM",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain).hexdigest()]},
        "history": [{"created": WHEN, "created_by": "packaging/image.py"}],
    })
    manifest = {"schemaVersion": 2, "mediaType": TYPE + "manifest.v1+json", "config": config, "layers": [packed], "annotations": labels}
    return {**layout.blob("manifest.v1+json", manifest), "platform": PLATFORMS[arch]}


def main():
    out, ca, version, *binaries = sys.argv[1:]
    labels = {
        "org.opencontainers.image.title": "pgsluice",
        "org.opencontainers.image.description": "Stream every committed PostgreSQL change to Kafka",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.created": WHEN,
        "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
    }
    layout = Layout(out)
    manifests = [image(layout, *pair.split("=", 1), ca, labels) for pair in binaries]
    index = layout.blob("index.v1+json", {"schemaVersion": 2, "mediaType": TYPE + "index.v1+json", "manifests": manifests})
    index["annotations"] = {"org.opencontainers.image.ref.name": version}
    layout.write("index.json", json.dumps({"schemaVersion": 2, "mediaType": TYPE + "index.v1+json", "manifests": [index]}).encode())
    print(index["digest"])


main()
