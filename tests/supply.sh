#!/bin/bash
# tests/supply.sh: what we build on. Licences, advisories and sources by cargo-deny (.deny.toml) if it is installed; it is not
# fetched for this. That no crate links a C library is held in any case.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
# These crates link, or bring and build, a C library. ring and mimalloc compile sources of their own, and nothing else may.
C='openssl-sys|native-tls|libz-sys|zstd-sys|lz4-sys|bzip2-sys|lzma-sys|rdkafka-sys|sasl2-sys|pq-sys|libsqlite3-sys|aws-lc-sys|libgssapi-sys|krb5-sys'
FOUND=$(cargo tree --locked -e normal,build --target all --prefix none -f '{p}' | awk '{ print $1 }' | sort -u | grep -xE "$C" || true)
[ -z "$FOUND" ] || { echo "supply: links a C library: $FOUND" >&2; exit 1; }
if command -v cargo-deny >/dev/null; then
  cargo deny --config .deny.toml --log-level warn check
else
  echo "supply: cargo-deny is not installed, so licences and advisories were not checked (cargo install cargo-deny --locked)"
fi
