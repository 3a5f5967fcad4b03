#!/usr/bin/env bash
# Measures what a job costs without inference: the identity model beside a bare lapin echo, on one private broker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

what=()
case ${1:-} in
'') ;;
--confirms) what=(-- --confirms) ;;
-h | --help)
    echo "usage: bench-echo.sh [--confirms]"
    echo
    echo "Starts a private RabbitMQ node and measures the worker without inference beside a bare echo, in one run; with"
    echo "--confirms, the worker beside one whose replies nobody confirms."
    exit
    ;;
*) die "unknown option $1; see $0 --help" ;;
esac

need_rust
scripts/rabbitmq.sh install
say "building (release)"
cargo bench --locked --bench echo --no-run
exec scripts/rabbitmq.sh with -- cargo bench --locked --bench echo "${what[@]}"
