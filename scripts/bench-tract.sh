#!/usr/bin/env bash
# Measures what a text costs on one core: the reference model as it is served, as tract alone runs it, and in onnxruntime.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

only_help "usage: bench-tract.sh [--help]

Installs onnxruntime from PyPI into an environment of its own (target/tract/venv, about 120 MB), and prints milliseconds
of CPU per text by length and batch size: as served, by tract alone, by onnxruntime on one thread; all in one run, in turn
on the same batches. Three minutes, and a build." "$@"

need_rust
venv=$(target_folder)/tract/venv
prepare_python "$venv" benches/tract/requirements.txt
say "building (release)"
cargo bench --locked --bench tract --no-run
TRACT_PYTHON="$venv/bin/python" exec cargo bench --locked --bench tract
