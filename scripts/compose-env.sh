#!/usr/bin/env bash
# Writes .env for docker-compose.yml: secrets and ids that belong to this machine and not into the repository.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: compose-env.sh

Writes .env beside docker-compose.yml, readable by you alone: random passwords for the broker and the dashboards, and
the user that workers run as, which must own the key files. Never overwrites an .env that is there.
USAGE
}

random_word() { od -An -v -tx1 -N 24 /dev/urandom | tr -d ' \n'; }

main() {
    case ${1:-} in
    '') ;;
    -h | --help) usage; return ;;
    *) usage >&2; exit 2 ;;
    esac
    cd "$here/.."
    [ ! -e .env ] || die ".env is there already; remove it for a new one"
    local uid gid
    uid=$(id -u) gid=$(id -g)
    # A worker never runs as root, not even for a user who is root.
    [ "$uid" -ne 0 ] || { uid=65532 gid=65532; }
    (umask 077 && cat >.env) <<ENVIRONMENT
RABBITMQ_PASSWORD=$(random_word)
GRAFANA_PASSWORD=$(random_word)
INFERQ_UID=$uid
INFERQ_GID=$gid
ENVIRONMENT
    say "wrote .env; workers run as $uid:$gid"
    [ "$uid" -eq "$(id -u)" ] || say "let them read the keys: chown -R $uid:$gid keys"
}

main "$@"
