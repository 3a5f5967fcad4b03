#!/usr/bin/env bash
# Measures what the envelope costs on one core: opening, refusing and sealing, small and large. Needs no broker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

only_help "usage: bench-envelope.sh [--help]

Prints what opening, refusing and sealing an envelope takes, in microseconds. Quiet machines give the best figures." "$@"

need_rust
say "building (release)"
cargo bench --locked --bench envelope --no-run
exec cargo bench --locked --bench envelope
