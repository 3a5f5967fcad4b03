#!/usr/bin/env bash
# Measures the ways of forming batches against each other: `inferq bench`, release build, in all its forms.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

only_help "usage: bench-batching.sh [--help]

Builds inferq and runs \`inferq bench\`; its table goes to target/bench-batching.txt, its figures to bench-batching.json and its
page with plots to bench-batching.html beside it. About five minutes; scripts/bench-record.sh puts the table into
docs/benchmarks.md.

  BENCH_BLOCKS     blocks of each arm and load (3)
  BENCH_BLOCK_MS   milliseconds of a block (4000)
  BENCH_OPTIONS    further options of inferq bench, such as --models magika" "$@"

need_rust
target=$(target_folder)
out=$target/bench-batching
say "building (release)"
cargo build --locked --release --bin inferq
read -ra more <<<"${BENCH_OPTIONS:-}"
"$target/release/inferq" bench --blocks "${BENCH_BLOCKS:-3}" --block-ms "${BENCH_BLOCK_MS:-4000}" \
    --json "$out.json" --html "$out.html" "${more[@]}" | tee "$out.txt"
say "the same is in $out.txt, .json and .html; make bench-record puts the table into the docs"
