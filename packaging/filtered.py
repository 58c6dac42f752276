"""filtered.py [--calls FILE] [--root FOLDER] [--user ID] COMMAND...: becomes COMMAND, under what packaging/pgsluice.service lets it call.

SystemCallFilter, RestrictAddressFamilies, RestrictNamespaces, MemoryDenyWriteExecute and NoNewPrivileges as systemd would set them, and harder:
where the unit answers with an error the process ends here by SIGSYS, so that nothing that it copes with is missed. With --root that folder is all it sees, and the
environment is empty. --calls: what `check-units.sh --allowed` has printed, to be faster."""
import argparse
import ctypes
import os
import re
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
KILL, ALLOW = 0x80000000, 0x7FFF0000  # SCMP_ACT_KILL_PROCESS, SCMP_ACT_ALLOW
NOT_EQUAL, EQUAL, MASKED = 1, 4, 7  # SCMP_CMP_…
WRITE, EXECUTE = 2, 4  # PROT_…
NAMESPACES = 0x7E020080  # CLONE_NEW…
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}


class Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class Filter:
    def __init__(self):
        try:
            self.lib = ctypes.CDLL("libseccomp.so.2")
        except OSError:
            raise SystemExit("filtered.py: libseccomp2 is missing: apt-get install libseccomp2")
        self.lib.seccomp_init.restype = ctypes.c_void_p
        self.lib.seccomp_load.argtypes = [ctypes.c_void_p]
        self.lib.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Compare)]
        self.context = self.lib.seccomp_init(KILL)

    def allow(self, name, *compare):
        number = self.lib.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # another machine's, or newer than the library: the process ends if it calls it
            return
        code = self.lib.seccomp_rule_add_array(self.context, ALLOW, number, len(compare), (Compare * len(compare))(*compare))
        if code:
            raise SystemExit(f"filtered.py: {name}: {os.strerror(-code)}")

    def load(self):  # with no_new_privs, which is libseccomp's default
        code = self.lib.seccomp_load(self.context)
        if code:
            raise SystemExit(f"filtered.py: the filter cannot be set: {os.strerror(-code)}")


def main():
    options = argparse.ArgumentParser(usage="filtered.py [--calls FILE] [--root FOLDER] [--user ID] COMMAND...")
    options.add_argument("--calls")
    options.add_argument("--root")
    options.add_argument("--user", type=int)
    options.add_argument("command", nargs=argparse.REMAINDER)
    options = options.parse_args()
    with open(f"{HERE}/pgsluice.service") as file:
        unit = file.read()
    command = ["cat", options.calls] if options.calls else [f"{HERE}/check-units.sh", "--allowed"]
    allowed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    families = re.search("^RestrictAddressFamilies=(.*)", unit, re.M)[1].split()
    for line in "MemoryDenyWriteExecute=yes", "NoNewPrivileges=yes", "RestrictNamespaces=yes":
        assert f"\n{line}\n" in unit, f"the unit has no {line} any more"

    rules = Filter()
    for name in allowed:
        if name == "socket":
            for family in families:
                rules.allow(name, Compare(0, EQUAL, FAMILIES[family], 0))
        elif name == "mmap":  # not writable and executable at once
            rules.allow(name, Compare(2, MASKED, WRITE, 0))
            rules.allow(name, Compare(2, MASKED, EXECUTE, 0))
        elif name in ("mprotect", "pkey_mprotect"):  # not executable later
            rules.allow(name, Compare(2, MASKED, EXECUTE, 0))
        elif name == "shmat":
            rules.allow(name, Compare(2, MASKED, 0o100000, 0))  # SHM_EXEC
        elif name == "clone":
            rules.allow(name, Compare(0, MASKED, NAMESPACES, 0))
        elif name in ("clone3", "unshare", "setns"):  # their flags cannot be seen, or are nothing else
            pass
        else:
            rules.allow(name)
    if options.root:
        os.chroot(options.root)
        os.chdir("/")
    if options.user is not None:
        os.setgroups([])
        os.setgid(options.user)
        os.setuid(options.user)
    rules.load()
    os.execve(options.command[0], options.command, {} if options.root else os.environ)


main()
