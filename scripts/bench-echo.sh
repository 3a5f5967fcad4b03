#!/usr/bin/env bash
# Measures what a job costs without inference: the identity model beside a bare lapin echo, on one private broker.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

scripts/rabbitmq.sh install
say "building (release)"
cargo bench --locked --bench echo --no-run
exec scripts/rabbitmq.sh with -- cargo bench --locked --bench echo
