"""elf.py strip IN OUT | weigh IN: what a static binary of Rust and C holds, and the same without its symbols.

The linker is asked to leave the symbols in, as they say what weighs most. There is no `strip` for all three machines in a
plain Debian; here it is a matter of leaving out the sections that are not loaded.
"""
import collections
import os
import re
import struct
import sys


class Elf:
    def __init__(self, path):
        self.data = data = open(path, "rb").read()
        if data[:4] != b"\x7fELF" or data[5] != 1:
            sys.exit(f"{path} is no little-endian ELF file")
        self.wide = data[4] == 2
        self.header = "<16sHHIQQQIHHHHHH" if self.wide else "<16sHHIIIIIHHHHHH"
        self.fields = list(struct.unpack_from(self.header, data))
        offset, count, names = self.fields[6], self.fields[12], self.fields[13]
        self.section = "<IIQQQQIIQQ" if self.wide else "<IIIIIIIIII"
        size = struct.calcsize(self.section)
        # name, type, flags, address, offset, size, link, info, alignment, entry size
        self.sections = [list(struct.unpack_from(self.section, data, offset + i * size)) for i in range(count)]
        table = self.sections[names]
        text = data[table[4] : table[4] + table[5]]
        self.names = [text[s[0] : text.index(b"\0", s[0])].decode() for s in self.sections]

    def symbols(self):
        """(name, section, size) of each function and object."""
        for index, name in enumerate(self.names):
            if name != ".symtab":
                continue
            _, _, _, _, offset, size, link, _, _, entry = self.sections[index]
            strings = self.sections[link][4]
            for at in range(offset, offset + size, entry):
                if self.wide:
                    title, info, _, section, _, length = struct.unpack_from("<IBBHQQ", self.data, at)
                else:
                    title, _, length, info, _, section = struct.unpack_from("<IIIBBH", self.data, at)
                if info & 15 in (1, 2) and 0 < section < 0xFF00 and length:
                    begin = strings + title
                    yield self.data[begin : self.data.index(b"\0", begin)].decode(errors="replace"), section, length


LOADED = 2  # SHF_ALLOC
NO_BITS = 8


def strip(source, target):
    """Loaded sections stay where they are, so no address and no offset of a segment changes; then names, then headers."""
    elf = Elf(source)
    kept = [i for i, s in enumerate(elf.sections) if i == 0 or s[2] & LOADED]
    number = {old: new for new, old in enumerate(kept)}
    end = max([s[4] + (0 if s[1] == NO_BITS else s[5]) for i, s in enumerate(elf.sections) if i in number])
    segments, entry, count = elf.fields[5], elf.fields[9], elf.fields[10]
    for i in range(count):  # a segment may hold more than its sections
        if elf.wide:
            _, _, at, _, _, size = struct.unpack_from("<IIQQQQ", elf.data, segments + i * entry)
        else:
            _, at, _, _, size = struct.unpack_from("<IIIII", elf.data, segments + i * entry)
        end = max(end, at + size)
    names, rows = bytearray(b"\0"), []
    for old in kept:
        row = list(elf.sections[old])
        row[0] = len(names) if old else 0
        names += elf.names[old].encode() + b"\0" if old else b""
        if old and row[6]:
            row[6] = number.get(row[6], 0)
        if row[2] & 0x40:  # SHF_INFO_LINK
            row[7] = number.get(row[7], 0)
        rows.append(row)
    title = len(names)
    names += b".shstrtab\0"
    rows.append([title, 3, 0, 0, end, len(names), 0, 0, 1, 0])
    table = -(-(end + len(names)) // 8) * 8
    fields = list(elf.fields)
    fields[6], fields[12], fields[13] = table, len(rows), len(rows) - 1
    out = bytearray(elf.data[:end]) + names
    out += bytes(table - len(out))
    out += b"".join(struct.pack(elf.section, *row) for row in rows)
    struct.pack_into(elf.header, out, 0, *fields)
    with open(target + ".new", "wb") as file:
        file.write(out)
    os.chmod(target + ".new", 0o755)
    os.replace(target + ".new", target)


def crate_of(symbol):
    """The crate that a symbol is from, by Rust's two ways to write names; the rest is C and assembly."""
    legacy = re.match(r"_ZN(\d+)", symbol)
    if legacy and re.search(r"17h[0-9a-f]{16}E", symbol):
        size = int(legacy[1])
        part = symbol[legacy.end() : legacy.end() + size]
        # <a::b::C as d::e::F>::f is _$LT$a..b..C$u20$as..., and is the type's crate
        part = re.sub(r"^_\$LT\$[A-Z]\w?\$u20\$as\$u20\$", "", part)  # <T as d::e::F>: the trait's, then
        part = re.sub(r"^_?(\$(LT|RF|u5b|BP|LP|u20|u27)\$|mut|dyn|const|\$u[0-9a-f]+\$)*", "", part)
        return re.split(r"\.\.|\$|::|\.", part.lstrip("_"))[0] or "core"
    if symbol.startswith("_R"):
        # A crate's root is C, perhaps s and a number in base 62, then a length and the name: of several, the first.
        root = re.search(r"C(?:s[0-9a-zA-Z]*_)?(\d+)_?", symbol)
        if root:
            return symbol[root.end() : root.end() + int(root[1])]
    for name, begin in (("mimalloc (C)", ("mi_", "_mi_")), ("ring (C, assembly)", ("ring_core",))):
        if symbol.startswith(begin):
            return name
    return "musl, unwinder (C)"


def weigh(source):
    elf, total, named = Elf(source), collections.Counter(), collections.Counter()
    for name, section, size in elf.symbols():
        if elf.sections[section][1] != NO_BITS and elf.sections[section][2] & LOADED:
            total[crate_of(name)] += size
            named[section] += size
    for i, row in enumerate(elf.sections):
        if row[2] & LOADED and row[1] != NO_BITS and row[5] - named[i] > 0:
            total["(" + elf.names[i] + " without a name)"] += row[5] - named[i]
    for name, size in total.most_common(14):
        print(f"  {size / 1024:8.0f} KiB  {name}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["strip", source, target]:
            strip(source, target)
        case ["weigh", source]:
            weigh(source)
        case _:
            sys.exit(__doc__)
