#!/usr/bin/env bash
# Measures inferq beside what a user would pick instead, on one private broker, in one run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

read -r -d '' usage <<'USAGE' || true
usage: bench-peers.sh [--help]

Builds inferq, installs Celery, aio-pika, mosec and onnxruntime from PyPI into an environment of their own
(target/peers/venv, about 280 MB), starts a private RabbitMQ node, measures every worker with the same model, texts and
generator, and prints one table in Markdown; the same goes to target/bench-peers.md, and the figures to
target/bench-peers.json. A worker that fails is left out and told of. About ten minutes.
scripts/bench-record.sh puts the tables into docs/benchmarks.md.

  BENCH_SECONDS   length of a block (8)
  BENCH_ROUNDS    rounds; medians over them are told (3)
  BENCH_WORKERS   some of inferq,celery,aio_pika,mosec (all)
  BENCH_QUEUES    type of the job queues of Celery and aio-pika: quorum, as inferq's are, or classic (quorum)
  BENCH_TEXTS     full: every text is as long as the model reads; mixed: as the posts are (full)
  BENCH_INFERQ_PROCESSES
                  processes of inferq, which share two executors: 1, as the defaults have it, or 2 (1)
  BENCH_SEED      seed of the arrivals (1)

docs/benchmarks.md says how it is measured.
USAGE

# Builds the generator and prints its path.
build_generator() {
    cargo bench --locked --bench peers --no-run --message-format json |
        sed -n 's/.*"name":"peers".*"executable":"\([^"]*\)".*/\1/p'
}

main() {
    only_help "$usage" "$@"
    need_rust
    ensure_rabbitmq
    local target generator
    target=$(target_folder)
    prepare_python "$target/peers/venv" bench/peers/requirements.txt
    say "building the generator and inferq (release)"
    generator=$(build_generator)
    [ -x "$generator" ] || die "cargo did not say where it built the generator"
    # Last: features that only tests and benches ask for are not in the program that is measured.
    cargo build --locked --release --bin inferq
    PEERS_INFERQ="$target/release/inferq" PEERS_PYTHON="$target/peers/venv/bin/python" \
        PEERS_JSON="$target/bench-peers.json" scripts/rabbitmq.sh with -- "$generator"
    say "the same is in $target/bench-peers.md and, as figures, in bench-peers.json; make bench-record puts it into the docs"
}

main "$@"
