#!/usr/bin/env bash
# Licences, sources, bans and advisories of the dependencies, as deny.toml says.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: deny.sh [--if-installed]

Runs cargo-deny, which is built and installed where it is missing (some minutes); with --if-installed it is left out then.
The advisories need the network: where the database cannot be had they are left out, with a line that says so.
USAGE
}

main() {
    local if_installed=no
    case ${1:-} in
    '') ;;
    --if-installed) if_installed=yes ;;
    -h | --help) usage; return ;;
    *) usage >&2; exit 2 ;;
    esac
    cd "$here/.."
    need_rust
    if ! cargo deny --version >/dev/null 2>&1; then
        if [ "$if_installed" = yes ]; then
            say "cargo-deny is not installed, licences are not checked (make deny installs it)"
            return
        fi
        say "building cargo-deny"
        cargo install cargo-deny --locked
    fi
    cargo deny --all-features check licenses bans sources
    if cargo deny fetch db >/dev/null 2>&1; then
        cargo deny --all-features check advisories
    else
        say "the advisory database cannot be had here, advisories are not checked"
    fi
}

main "$@"
