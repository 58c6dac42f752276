#!/bin/bash
# packaging/check-units.sh [TRACE ...]: the units are sound, expose little (at most 1.5 of 10 by `systemd-analyze security`), differ only
# by their instance, and their user is one that systemd-sysusers makes. A TRACE, as `strace -f -o TRACE pgsluice …` writes it, has no system call that the units forbid.
# packaging/check-units.sh --allowed: prints the system calls that they allow.
# Skipped, and said, where there is no systemd-analyze; exit 1 if anything is wrong.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
if ! command -v systemd-analyze >/dev/null; then
  [ "${1:-}" != --allowed ] || { echo "check-units: no systemd-analyze (Debian: apt-get install systemd)" >&2; exit 1; }
  echo "check-units: skipped: no systemd-analyze (Debian: apt-get install systemd)"
  exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/check-units.XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() { echo "check-units: $*" >&2; exit 1; }

# What the units allow: each set in turn, with its sets in it; `~` takes away.
members() { # @SET: its system calls
  systemd-analyze syscall-filter "$1" | sed -n 's/^    //p' | while read -r name; do
    case $name in @*) members "$name" ;; '#'*) ;; *) echo "$name" ;; esac
  done
}
touch "$work/allowed"
while read -r sets; do
  take=; [[ $sets != '~'* ]] || take=yes sets=${sets#'~'}
  for set in $sets; do case $set in @*) members "$set" ;; *) echo "$set" ;; esac; done | sort -u >"$work/set"
  if [ -n "$take" ]; then
    comm -23 "$work/allowed" "$work/set" >"$work/next"
  else
    { members @default; cat "$work/allowed" "$work/set"; } | sort -u >"$work/next"
  fi
  mv "$work/next" "$work/allowed"
done < <(sed -n 's/^SystemCallFilter=//p' pgsluice.service)
[ "$(wc -l <"$work/allowed")" -gt 100 ] || fail "that is no list of system calls"
if [ "${1:-}" = --allowed ]; then cat "$work/allowed"; exit 0; fi

# Where the package is not installed neither is its binary.
for unit in pgsluice.service pgsluice@.service; do
  sed "s|^ExecStart=/usr/bin/pgsluice|ExecStart=/bin/true|" "$unit" >"$work/$unit"
done
for unit in pgsluice.service pgsluice@orders.service; do
  said=$(systemd-analyze --man=no verify "$work/$unit" 2>&1) || fail "$unit: ${said:-systemd-analyze verify failed}"
  [ -z "$said" ] || fail "$unit: $said"
done
for unit in pgsluice.service pgsluice@.service; do
  said=$(systemd-analyze security --no-pager --offline=true --threshold=15 "$work/$unit") || fail "$unit: $(tail -n 1 <<<"$said")"
  tail -n 1 <<<"$said" | tr -d '→' | sed 's/^ */check-units: /; s/ *[^ -~]*$//'
done

if command -v systemd-sysusers >/dev/null; then
  mkdir -p "$work/root/etc"
  said=$(systemd-sysusers --root="$work/root" "$PWD/pgsluice.sysusers" 2>&1) || fail "pgsluice.sysusers: $said"
  grep -q '^pgsluice:' "$work/root/etc/passwd" || fail "pgsluice.sysusers makes no user: $said"
fi

plain() { sed -e '/^# One of several/,/^# admin.listen/d' -e 's/: %i$//; s|%i.toml|pgsluice.toml|; s|pgsluice/%i$|pgsluice|' "$1"; }
diff pgsluice.service <(plain pgsluice@.service) || fail "pgsluice@.service differs from pgsluice.service in more than its instance"

for trace in "$@"; do
  # `strace -f` begins each line with the process's id.
  sed -nE 's/^([0-9]+ +)?([a-z_0-9]+)\(.*/\2/p; s/^([0-9]+ +)?<\.\.\. ([a-z_0-9]+) resumed>.*/\2/p' "$trace" | sort -u >"$work/used"
  [ -s "$work/used" ] || fail "$trace: no system call in it"
  forbidden=$(comm -13 "$work/allowed" "$work/used" | tr '\n' ' ')
  [ -z "$forbidden" ] || fail "$trace: the units forbid $forbidden"
  echo "check-units: ${trace##*/}: $(wc -l <"$work/used") system calls, all allowed"
done
