"""sbom.py TARGET BINARY: a CycloneDX 1.5 document of what is in the binary: every crate with version, hash and licence."""
import datetime
import hashlib
import json
import os
import sys

from crates import checksums, compiled


def component(package, sums):
    name, version = package["name"], package["version"]
    ref = f"pkg:cargo/{name}@{version}"
    said = {"type": "library", "bom-ref": ref, "name": name, "version": version, "purl": ref, "scope": "required"}
    if package.get("license"):
        said["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if sums.get((name, version)):
        said["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
    if package.get("repository"):
        said["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return said


def main():
    target, binary = sys.argv[1:]
    root, packages, edges = compiled(target)
    sums = checksums()
    refs = {id: f"pkg:cargo/{p['name']}@{p['version']}" for id, p in packages.items()}
    own = component(packages[root], sums)
    own["type"] = "application"
    own["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(open(binary, "rb").read()).hexdigest()}]
    own["properties"] = [{"name": "target", "value": target}]
    own.pop("scope")
    when = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": own},
        "components": [component(p, sums) for id, p in packages.items() if id != root],
        "dependencies": [{"ref": refs[id], "dependsOn": sorted(refs[d] for d in edges[id])} for id in packages],
    }
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    print()


main()
