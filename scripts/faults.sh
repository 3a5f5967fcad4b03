#!/usr/bin/env bash
# Runs the fault scorecard, which writes docs/faults.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

only_help "usage: faults.sh [--help]

Starts private RabbitMQ nodes and worker processes, injects faults, accounts for every job, writes docs/faults.md.
FAULTS_MINUTES: minutes in all (40); FAULTS_N: jobs a row (20000); FAULTS_SEED: seed of the faults (1);
FAULTS_ROWS: rows, such as 1,3 (all). The short form of all rows is: cargo test --test faults" "$@"

need_rust
ensure_rabbitmq
export FAULTS_MINUTES=${FAULTS_MINUTES:-40}
exec cargo test --locked --test faults
