#!/usr/bin/env bash
# Formatting, clippy and shellcheck; every warning is an error.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: lint.sh

Checks the formatting (rustfmt), the code (clippy, warnings are errors) and the scripts (shellcheck, installed if need be).
USAGE
}

main() {
    case ${1:-} in
    '') ;;
    -h | --help) usage; return ;;
    *) usage >&2; exit 2 ;;
    esac
    cd "$here/.."
    need_rust
    cargo fmt --version >/dev/null 2>&1 || die "rustfmt is missing; run: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || die "clippy is missing; run: rustup component add clippy"
    say "formatting"
    cargo fmt --all --check
    say "shellcheck"
    command -v shellcheck >/dev/null || install_packages shellcheck
    shell_files | xargs -d '\n' shellcheck --external-sources --source-path=SCRIPTDIR
    say "clippy"
    cargo clippy --locked --package inferq --package inferq-kernels --all-targets -- --deny warnings
}

# Every shell script of the repository, one a line.
shell_files() {
    find .ci scripts models deploy -type f \( -name '*.sh' -o -path '.ci/run' \) -not -path '*/out/*' | sort
}

main "$@"
