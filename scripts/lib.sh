# Functions that the scripts share. Sourced, never run.

# Says on standard error what is being done.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Says what is wrong and ends the script.
die() { say "error: $*"; exit 1; }

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
