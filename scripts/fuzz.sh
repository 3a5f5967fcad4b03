#!/usr/bin/env bash
# Feeds the decoders with whatever a fuzzer comes up with, one target after the other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

VERSION=0.13.2
SECONDS_EACH=${FUZZ_SECONDS:-60}

case ${1:-} in
-h | --help)
    echo "usage: fuzz.sh [target...]"
    echo
    echo "Runs the targets of fuzz/ (default: all) for FUZZ_SECONDS each (60). Installs cargo-fuzz under target/; needs no nightly Rust."
    echo "What is found grows target/fuzz/corpus; an input that fails is kept in target/fuzz/failed, and ends the run."
    exit
    ;;
esac

need_rust
command -v c++ >/dev/null || install_packages g++
root=$PWD
tools=$root/target/tools
[ -x "$tools/bin/cargo-fuzz" ] || {
    say "installing cargo-fuzz $VERSION under target/"
    cargo install --quiet --locked --root "$tools" --version "$VERSION" cargo-fuzz
}
PATH=$tools/bin:$PATH

# The sanitizers of memory want a nightly Rust, and look for what safe code cannot do. Panics, overflows, time and memory are looked for.
options=(--sanitizer none --debug-assertions --target-dir "$root/target/fuzz/build")
say "building: every crate with instruments, which takes minutes the first time"
cargo fuzz build "${options[@]}"

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
for target in "${targets[@]}"; do
    grown=$root/target/fuzz/corpus/$target failed=$root/target/fuzz/failed/$target
    mkdir -p "$grown" "$failed"
    say "$target for $SECONDS_EACH s"
    # The lines of progress are thousands; of them those at powers of two and the last are shown.
    cargo fuzz run "${options[@]}" "$target" "$grown" "$root/fuzz/corpus/$target" -- \
        -max_total_time="$SECONDS_EACH" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$failed/" 2>&1 | { grep -vE '^#[0-9]+\s+(REDUCE|NEW|RELOAD)|NEW_FUNC' || true; } ||
        die "$target failed; its input is in $failed"
done
