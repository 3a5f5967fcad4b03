# shellcheck shell=bash
# Functions that the scripts share. Sourced, never run.

# Says on standard error what is being done.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Says what is wrong and ends the script.
die() { say "error: $*"; exit 1; }

# only_help USAGE ARGUMENTS...: for a script without options. Asked for help, prints USAGE and ends; refuses anything else.
only_help() {
    case ${2:-} in
    '') ;;
    -h | --help) printf '%s\n' "$1"; exit ;;
    *) die "unknown option $2; see $0 --help" ;;
    esac
}

# Runs a command as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "$1 needs root, and there is no sudo here; run as root, or install by hand: $*"
    fi
}

# Installs Debian packages, unless they are installed already.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; there is no apt-get here to install them with"
    say "installing ${missing[*]} (Debian packages)"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 || die "apt-get update failed"
    # Services that a package brings must not start by themselves: the scripts start what they need, privately.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install --no-install-recommends -y "${missing[@]}" >&2 ||
        die "could not install ${missing[*]}"
}

# Makes sure that inferq can be built: cargo, a C compiler for the crates that hold C or assembly, make for the allocator.
need_rust() {
    command -v cargo >/dev/null || die "there is no cargo here; install Rust from https://rustup.rs"
    command -v cc >/dev/null || install_packages gcc libc6-dev
    command -v make >/dev/null || install_packages make
}

# The folder that cargo builds into.
target_folder() {
    cargo metadata --format-version 1 --no-deps --locked --offline |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Installs a RabbitMQ server unless there is one.
ensure_rabbitmq() {
    local scripts
    scripts=$(dirname "${BASH_SOURCE[0]}")
    "$scripts/rabbitmq.sh" find >/dev/null || "$scripts/rabbitmq.sh" install
}

# Docker's compose, as a plugin or as a program of its own.
compose() {
    if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}

# Installs compose unless it is there. It reads files here; no engine is needed.
ensure_compose() {
    compose version >/dev/null 2>&1 || install_packages docker-compose
}

# Whether python3 can make an environment with pip in it.
python_with_venv() { python3 -c 'import venv, ensurepip' 2>/dev/null; }

# Installs Python and its venv unless they are there.
ensure_python_venv() {
    python_with_venv || install_packages python3 python3-venv
    python_with_venv || die "python3 has no venv, and python3-venv did not bring it: $(command -v python3)"
}

# Makes the Python environment in folder $1 with the packages of the file $2, unless it holds them.
prepare_python() {
    local venv=$1 wanted=$2
    cmp -s "$wanted" "$venv/installed.txt" && return
    ensure_python_venv
    say "installing packages from PyPI into $venv: $(tr '\n' ' ' <"$wanted")"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$venv/installed.txt"
}

# Prints a TCP port of loopback that nobody listens on.
free_port() {
    python3 - <<'PYTHON' 2>/dev/null || free_port_by_trying
import socket
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1])
PYTHON
}

free_port_by_trying() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 30000))
        accepts "$port" || { echo "$port"; return; }
    done
    die "found no free port"
}

# Whether somebody listens on a port of loopback.
accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
