#!/usr/bin/env bash
# Says what is here and what is missing. Changes nothing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: doctor.sh

One line for each tool: what it is for, and how it is had where it is missing. Exit code 1 where inferq cannot be built.
USAGE
}

missing_for_build=0

# report NAME NEEDED-FOR REMEDY COMMAND...: runs COMMAND, shows the first line that it prints.
report() {
    local name=$1 purpose=$2 remedy=$3 found
    shift 3
    if found=$("$@" 2>/dev/null) && [ -n "$found" ]; then
        printf '  ok       %-16s %s\n' "$name" "${found%%$'\n'*}"
    else
        printf '  missing  %-16s for %s: %s\n' "$name" "$purpose" "$remedy"
        return 1
    fi
}

rabbitmq_server() { "$here/rabbitmq.sh" find; }
python_venv() { python_with_venv && echo "python3 with venv"; }
c_compiler() { command -v cc; }
make_program() { command -v make; }

main() {
    case ${1:-} in
    '') ;;
    -h | --help) usage; return ;;
    *) usage >&2; exit 2 ;;
    esac
    echo "to build and run:"
    report cargo "building" "https://rustup.rs" cargo --version || missing_for_build=1
    report "C compiler" "building" "apt-get install gcc" c_compiler || missing_for_build=1
    report make "building" "apt-get install make" make_program || missing_for_build=1
    report rabbitmq-server "the demo and the tests" "installed by make demo and make test" rabbitmq_server || true
    echo "for make test and make check:"
    report rustfmt "make check" "rustup component add rustfmt" cargo fmt --version || true
    report clippy "make check" "rustup component add clippy" cargo clippy --version || true
    report shellcheck "make check" "installed by make check" command -v shellcheck || true
    report docker-compose "the compose test" "installed by make test" compose version || true
    report "python3 venv" "the Python client's test" "installed by make test" python_venv || true
    report redis-server "the test of the shared replay guard" "installed by make test" command -v redis-server || true
    report cargo-deny "make check" "installed by make deny" cargo deny --version || true
    echo "for containers:"
    report "docker engine" "docker-compose.yml" "see docs.docker.com/engine/install" docker_engine || true
    echo "memory and disk:"
    report memory "the release build" "2 GiB at least" memory || true
    report "free disk" "the release build" "2 GiB at least" free_disk || true
    exit "$missing_for_build"
}

docker_engine() { docker version --format '{{.Server.Version}}'; }
memory() { echo "$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo) / 1048576)) GiB"; }
free_disk() { df -h --output=avail "$here" | tail -n 1 | tr -d ' '; }

main "$@"
