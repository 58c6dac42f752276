#!/bin/bash
# tests/supply.sh: what we build on. Licences, advisories and sources by cargo-deny (.deny.toml) if it is installed; it is not
# fetched for this. That no crate links a C library, and what is there twice, is held by tests/supply.rs in any case.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
if command -v cargo-deny >/dev/null; then
  cargo deny --config .deny.toml --log-level warn check
else
  echo "supply: cargo-deny is not installed, so licences and advisories were not checked (cargo install cargo-deny --locked)"
fi
