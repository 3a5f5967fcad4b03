#!/usr/bin/env bash
# The reference model on all its test posts, through the pipeline that serves.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: evaluate-topic.sh [arguments of inferq models evaluate]

Downloads the package that the posts come in, unless it is there, writes the 7,138 test posts to target/topic/test.jsonl, and runs
`inferq models evaluate --model topic` on them.
USAGE
}

main() {
    case ${1:-} in
    -h | --help) usage; return ;;
    esac
    cd "$here/.."
    need_rust
    ensure_python_venv
    local target venv
    target=$(target_folder)
    venv=$target/topic/venv
    [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
    "$venv/bin/python" models/topic/training/test_posts.py "$target/topic/test.jsonl"
    cargo build --release --locked
    "$target/release/inferq" models evaluate --model topic --data "$target/topic/test.jsonl" "$@"
}

main "$@"
