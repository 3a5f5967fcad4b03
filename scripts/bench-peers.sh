#!/usr/bin/env bash
# Measures inferq beside what a user would pick instead, on one private broker, in one run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

usage() {
    cat <<'USAGE'
usage: bench-peers.sh

Builds inferq, installs Celery, aio-pika, mosec and onnxruntime from PyPI into an environment of their own
(target/peers/venv, about 280 MB), starts a private RabbitMQ node, measures every worker with the same model, texts and
generator, and prints one table in Markdown; the same figures go to target/bench-peers.json. About ten minutes.

  BENCH_SECONDS   length of a block (8)
  BENCH_ROUNDS    rounds; medians over them are told (3)
  BENCH_WORKERS   some of inferq,celery,aio_pika,mosec (all)
  BENCH_QUEUES    type of the job queues of Celery and aio-pika: quorum, as inferq's are, or classic (quorum)
  BENCH_TEXTS     full: every text is as long as the model reads; mixed: as the posts are (full)
  BENCH_INFERQ_PROCESSES
                  processes of inferq, which share two executors: 2, as `inferq demo` starts them, or 1 (2)
  BENCH_SEED      seed of the arrivals (1)

docs/benchmarks.md says how it is measured.
USAGE
}

# Makes the Python environment, unless it holds what is asked for.
prepare_python() {
    local venv=$1 wanted=bench/peers/requirements.txt
    cmp -s "$wanted" "$venv/installed.txt" && return
    ensure_python_venv
    say "installing the Python workers from PyPI into $venv: $(tr '\n' ' ' <"$wanted")"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$venv/installed.txt"
}

# Builds the generator and prints its path.
build_generator() {
    cargo bench --locked --bench peers --no-run --message-format json |
        sed -n 's/.*"name":"peers".*"executable":"\([^"]*\)".*/\1/p'
}

main() {
    case ${1:-} in
    '') ;;
    -h | --help) usage; return ;;
    *) die "unknown option $1; see $0 --help" ;;
    esac
    need_rust
    ensure_rabbitmq
    local target generator
    target=$(target_folder)
    prepare_python "$target/peers/venv"
    say "building the generator and inferq (release)"
    generator=$(build_generator)
    [ -x "$generator" ] || die "cargo did not say where it built the generator"
    # Last: features that only tests and benches ask for are not in the program that is measured.
    cargo build --locked --release --bin inferq
    PEERS_INFERQ="$target/release/inferq" PEERS_PYTHON="$target/peers/venv/bin/python" \
        PEERS_JSON="$target/bench-peers.json" scripts/rabbitmq.sh with -- "$generator"
    say "the same figures are in $target/bench-peers.json"
}

main "$@"
