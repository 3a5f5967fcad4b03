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
    ensure_python_venv
    local venv=target/topic/test-venv wanted
    wanted=$(grep -E '^(numpy|scipy|tokenizers)==' models/topic/training/requirements.txt)
    if [[ $(cat "$venv/installed.txt" 2>/dev/null) != "$wanted" ]]; then
        say "installing ${wanted//$'\n'/ } into $venv"
        python3 -m venv "$venv"
        # shellcheck disable=SC2086 # one argument a line
        "$venv/bin/pip" install --quiet $wanted
        printf '%s\n' "$wanted" >"$venv/installed.txt"
    fi
    PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m unittest discover -s models/topic/training
}

main "$@"
