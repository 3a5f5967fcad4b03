#!/usr/bin/env bash
# Measures what a text costs on one core: the reference model with the fused LSTM beside tract alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

only_help "usage: bench-tract.sh [--help]

Prints milliseconds of CPU per text by length and batch size, fused and unfused, in one run." "$@"

need_rust
say "building (release)"
cargo bench --locked --bench tract --no-run
exec cargo bench --locked --bench tract
