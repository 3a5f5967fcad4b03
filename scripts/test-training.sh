#!/usr/bin/env bash
# Tests of the training steps that need no PyTorch, in an environment of their own.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: test-training.sh

Installs numpy, scipy and tokenizers, as models/topic/training/requirements.txt pins them, into target/topic/test-venv, and runs
models/topic/training/test_steps.py.
USAGE
}

main() {
    case ${1:-} in
    -h | --help) usage; return ;;
    esac
    cd "$here/.."
    local venv=target/topic/test-venv wanted=target/topic/test-requirements.txt
    mkdir -p target/topic
    grep -E '^(numpy|scipy|tokenizers)==' models/topic/training/requirements.txt >"$wanted"
    prepare_python "$venv" "$wanted"
    PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m unittest discover -s models/topic/training
}

main "$@"
