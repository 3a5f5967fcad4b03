#!/usr/bin/env bash
# All tests, with what they need.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: test.sh [arguments of cargo test]

Installs what the tests need and is not there (a RabbitMQ server, docker-compose, Python's venv, Node, a Redis server, shellcheck), then runs
`cargo test`. The tests start brokers of their own, in temporary folders, on free ports of loopback.
USAGE
}

main() {
    case ${1:-} in
    -h | --help) usage; return ;;
    esac
    cd "$here/.."
    need_rust
    ensure_rabbitmq
    ensure_compose
    ensure_python_venv
    command -v node >/dev/null || install_packages nodejs
    command -v npm >/dev/null || install_packages npm
    command -v redis-server >/dev/null || install_packages redis-server
    command -v shellcheck >/dev/null || install_packages shellcheck
    say "building and running the tests"
    [[ $# -gt 0 ]] || cargo test --locked -p inferq-kernels
    cargo test --locked --no-fail-fast "$@"
}

main "$@"
