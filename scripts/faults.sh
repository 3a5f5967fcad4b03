#!/usr/bin/env bash
# Runs the fault scorecard, which writes docs/faults.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

case ${1:-} in
'') ;;
-h | --help)
    echo "usage: faults.sh"
    echo
    echo "Starts a private RabbitMQ node and worker processes, injects faults, and accounts for every job."
    echo "FAULTS_N: jobs a row (500); FAULTS_SEED: seed of the faults (1); FAULTS_ROWS: rows, such as 1,3 (all)."
    exit
    ;;
*) die "unknown option $1; see $0 --help" ;;
esac

need_rust
ensure_rabbitmq
exec cargo test --locked --test faults
