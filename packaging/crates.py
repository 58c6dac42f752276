"""The crates that are compiled into the binary of one target, as cargo resolves them: for sbom.py and notices.py."""
import json
import os
import subprocess


def compiled(target):
    """cargo's package descriptions, without what is only for tests or runs only while building."""
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    macros = {id for id, package in packages.items() if any("proc-macro" in t["kind"] for t in package["targets"])}
    root = metadata["resolve"]["root"]
    seen, queue, edges = {root}, [root], {}
    while queue:
        id = queue.pop()
        edges[id] = []
        for dep in nodes[id]["deps"]:
            if dep["pkg"] in macros or all(kind["kind"] is not None for kind in dep["dep_kinds"]):
                continue
            edges[id].append(dep["pkg"])
            if dep["pkg"] not in seen:
                seen.add(dep["pkg"])
                queue.append(dep["pkg"])
    return root, {id: packages[id] for id in sorted(seen, key=lambda i: (packages[i]["name"], packages[i]["version"]))}, edges


def checksums():
    """(name, version) → sha256 of the crate, from Cargo.lock."""
    import tomllib

    with open("Cargo.lock", "rb") as file:
        return {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(file)["package"]}
