#!/usr/bin/env bash
# The whole way of a few jobs on a machine that has nothing but cargo and a C compiler.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: demo.sh [arguments of `inferq demo`]

Builds inferq, starts a private RabbitMQ node (installed if need be) in a temporary folder on a free port, runs
`inferq demo` against it, and stops the node, whatever happens. INFERQ_AMQP_URL: use that broker instead.
USAGE
}

main() {
    case ${1:-} in
    -h | --help) usage; return ;;
    esac
    cd "$here/.."
    need_rust
    say "building inferq (the first build takes some minutes)"
    cargo build --release --locked --bin inferq
    local inferq
    inferq=$(target_folder)/release/inferq
    if [ -n "${INFERQ_AMQP_URL:-}" ]; then
        say "using the broker of INFERQ_AMQP_URL"
        exec "$inferq" demo "$@"
    fi
    if ! "$here/rabbitmq.sh" find >/dev/null && ! "$here/rabbitmq.sh" install; then
        say "there is no RabbitMQ here, and it could not be installed; two ways on:"
        say "  INFERQ_AMQP_URL=amqp://user:password@host:5672/%2f make demo    with a broker that you have"
        say "  $inferq demo --embedded    with the broker that is built in"
        exit 4
    fi
    exec "$here/rabbitmq.sh" with -- "$inferq" demo "$@"
}

main "$@"
