#!/usr/bin/env bash
# RabbitMQ 4 on a system that has an older one: taken from an unpacked Debian 13, run as private nodes like rabbitmq.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

suite=trixie
root=${INFERQ_RABBITMQ4_ROOT:-$here/../target/rabbitmq4}

usage() {
    cat <<'USAGE'
usage: rabbitmq4.sh COMMAND [options]

  install         unpack a minimal Debian 13 with its rabbitmq-server by debootstrap, unless it is there (about 400 MB,
                  some minutes; debootstrap is installed if it is missing)
  remove          delete it
  test [ARGS]     run the tests of the broker against RabbitMQ 4; ARGS go to cargo test
  find | start | stop | kill | freeze | thaw | ctl | run | with
                  as rabbitmq.sh --help says, in the unpacked Debian; install comes first by itself
                  (not for find)

The Debian is kept in target/rabbitmq4, or in the folder INFERQ_RABBITMQ4_ROOT. It comes from the mirror that apt uses
here. Needs root, for chroot.
USAGE
}

# The Debian mirror that apt uses, without the archives of updates.
mirror() {
    # shellcheck disable=SC2016 # apt expands these, not the shell
    apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)' 2>/dev/null |
        awk '$2 !~ /-/ && $3 == "main" && $4 == "Debian" { print $1; exit }'
}

install() {
    [ ! -x "$root/usr/sbin/rabbitmq-server" ] || return 0
    [ "$(id -u)" -eq 0 ] || die "unpacking and entering a Debian needs root; run: sudo $0 ${*:-install}"
    command -v apt-get >/dev/null || die "there is no apt-get here, so no Debian mirror is known"
    install_packages debootstrap
    local from partial proxy=''
    from=$(mirror)
    [ -n "$from" ] || die "apt knows no Debian mirror here: see /etc/apt/sources.list"
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [ -z "$proxy" ] || export http_proxy=$proxy
    mkdir -p "$(dirname "$root")"
    partial=$(mktemp -d "$root.partial.XXXXXX")
    say "unpacking Debian $suite with rabbitmq-server into $root (some minutes)"
    if ! debootstrap --variant=minbase --include=rabbitmq-server "$suite" "$partial" "$from" >"$partial.log" 2>&1; then
        tail -n 20 "$partial.log" >&2
        die "debootstrap failed; the whole of its words is in $partial.log"
    fi
    rm -rf "$partial.log" "$partial"/var/cache/apt/archives/*.deb
    chmod 755 "$partial"
    # Whoever was faster has made the same.
    mv --no-target-directory "$partial" "$root" 2>/dev/null || rm -rf "$partial"
}

main() {
    local command=${1:-}
    [ $# -gt 0 ] && shift
    case $command in
    install) install ;;
    remove) [ ! -e "$root" ] || rm -rf "${root:?}" ;;
    test)
        install test
        cd "$here/.."
        need_rust
        INFERQ_TEST_RABBITMQ=scripts/rabbitmq4.sh cargo test --locked --no-fail-fast --test contract --test amqp --test faults "$@"
        ;;
    find | start | stop | kill | freeze | thaw | ctl | run | with)
        [ "$command" = find ] && [ ! -d "$root" ] && exit 1
        install "$command"
        RABBITMQ_ROOT=$(cd "$root" && pwd) exec "$here/rabbitmq.sh" "$command" "$@"
        ;;
    -h | --help | help) usage ;;
    *) usage >&2; exit 2 ;;
    esac
}

main "$@"
