"""notices.py TARGET ZIG: the licence texts of all that is in the binary, each text once, with the crates that are under it.

A crate without a licence file is listed with what its Cargo.toml says; the texts of those licences are among the others.
"""
import collections
import os
import re
import sys

from crates import compiled

FILES = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.I)


def texts(folder):
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if FILES.match(name) and os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                yield "\n".join(line.rstrip() for line in file.read().strip().splitlines())


def main():
    target, zig = sys.argv[1:]
    root, packages, _ = compiled(target)
    by_text, bare = collections.defaultdict(list), []
    for id, package in packages.items():
        folder = os.path.dirname(package["manifest_path"])
        title = f"{package['name']} {package['version']}"
        if id == root:
            continue
        found = list(texts(folder))
        if package["name"] == "libmimalloc-sys":  # the allocator itself, in C
            for path, _, _ in os.walk(os.path.join(folder, "c_src")):
                found += texts(path)
        for text in dict.fromkeys(found):
            by_text[text].append(title)
        if not found:
            bare.append(f"{title}: {package['license']}")
    for title, path in (("musl, the C library", "libc/musl/COPYRIGHT"), ("LLVM libunwind", "libunwind/LICENSE.TXT")):
        with open(os.path.join(zig, "lib", path), encoding="utf-8") as file:
            by_text[file.read().strip()].append(title)
    print("pgsluice holds the following software of others.\n")
    print("Rust's standard library is under MIT or Apache-2.0, at your option, as are:" if bare else "Rust's standard library is under MIT or Apache-2.0.")
    for title in bare:
        print("  " + title)
    for text, titles in sorted(by_text.items(), key=lambda pair: pair[1]):
        print("\n" + "=" * 78)
        print("\n".join(titles))
        print("-" * 78)
        print(text)


main()
