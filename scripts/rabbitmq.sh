#!/usr/bin/env bash
# A private RabbitMQ node: its own folder, free ports, loopback only. Touches no other node of the machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

usage() {
    cat <<'USAGE'
usage: rabbitmq.sh COMMAND [options]

  find                     print where rabbitmq-server is; exit 1 where there is none
  install                  install it (Debian's rabbitmq-server) unless it is there
  start --dir DIR          start a node with all its files in DIR, print its AMQP URL; also written to DIR/url
  stop --dir DIR           stop exactly that node
  run --dir DIR            start, print the URL, stop when standard input ends: for a parent process
  with -- COMMAND ...      start in a temporary folder, run COMMAND with INFERQ_AMQP_URL set, stop in any case

options of start, run and with:
  --vhosts N               make the virtual hosts t1 ... tN besides / (for tests that run side by side)
  --port P                 listen on this port (a free one)

RABBITMQ_ROOT: an unpacked Debian root to take RabbitMQ from, entered by chroot (see rabbitmq4.sh).
USAGE
}

# guest:guest, salted and hashed as RabbitMQ keeps it.
guest_hash='3q2+75aNGf124eTg+tvb47eka+41cdHPe6D/bajJtf6epOu5'

find_server() {
    local candidate
    for candidate in /usr/lib/rabbitmq/bin/rabbitmq-server "$(command -v rabbitmq-server || true)"; do
        [ -n "$candidate" ] && [ -x "${RABBITMQ_ROOT:-}$candidate" ] && { echo "$candidate"; return; }
    done
    return 1
}

# Runs a command where RabbitMQ is: here, or inside the unpacked root.
inside() {
    if [ -n "${RABBITMQ_ROOT:-}" ]; then chroot "$RABBITMQ_ROOT" /usr/bin/env "$@"; else env "$@"; fi
}

write_configuration() {
    local dir=$1 port=$2 vhosts=$3
    cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$port
log.file = $dir/log/rabbit.log
log.file.level = warning
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
load_definitions = $dir/definitions.json
CONF
    echo '[].' >"$dir/enabled_plugins"
    local names='"/"' i
    for i in $(seq "$vhosts"); do names+=" \"t$i\""; done
    local list='' grants='' name
    for name in $names; do
        list+="${list:+, }{\"name\": $name}"
        grants+="${grants:+, }{\"user\": \"guest\", \"vhost\": $name, \"configure\": \".*\", \"write\": \".*\", \"read\": \".*\"}"
    done
    cat >"$dir/definitions.json" <<JSON
{"users": [{"name": "guest", "password_hash": "$guest_hash", "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["administrator"]}],
 "vhosts": [$list], "permissions": [$grants]}
JSON
}

# The node's environment, one assignment a line: nothing of the system's own node is read or written.
node_environment() {
    local dir=$1 port=$2 dist=$3 epmd=$4
    cat <<ENVIRONMENT
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LANG=C.UTF-8
HOME=$dir/home
RABBITMQ_CONF_ENV_FILE=$dir/none
RABBITMQ_NODENAME=inferq$port@localhost
RABBITMQ_NODE_PORT=$port
RABBITMQ_DIST_PORT=$dist
RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf
RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins
RABBITMQ_MNESIA_BASE=$dir/mnesia
RABBITMQ_LOG_BASE=$dir/log
RABBITMQ_PID_FILE=$dir/pid
RABBITMQ_FEATURE_FLAGS_FILE=$dir/feature_flags
RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}
ERL_EPMD_PORT=$epmd
ERL_EPMD_ADDRESS=127.0.0.1
ENVIRONMENT
}

start() {
    local dir=$1 vhosts=$2 port=$3
    local server
    server=$(find_server) || die "there is no rabbitmq-server here; run: $0 install"
    local host_dir="${RABBITMQ_ROOT:-}$dir"
    mkdir -p "$host_dir/home" "$host_dir/log" "$host_dir/mnesia"
    [ ! -e "$host_dir/node.pid" ] || ! kill -0 "$(cat "$host_dir/node.pid")" 2>/dev/null ||
        die "a node runs already in $dir"
    # A node that is started again keeps its port, which is part of its name and so of its data.
    [ -n "$port" ] || port=$(cat "$host_dir/port" 2>/dev/null || free_port)
    echo "$port" >"$host_dir/port"
    local dist epmd
    dist=$(free_port) && epmd=$(free_port)
    write_configuration_at "$host_dir" "$dir" "$port" "$vhosts"
    local environment=()
    mapfile -t environment < <(node_environment "$dir" "$port" "$dist" "$epmd")
    echo "$epmd" >"$host_dir/epmd.port"
    # A session of its own, so that a signal for the script's group is none for the node.
    setsid "$BASH" -c 'exec "$@"' node \
        $([ -n "${RABBITMQ_ROOT:-}" ] && echo chroot "$RABBITMQ_ROOT") \
        /usr/bin/env -i "${environment[@]}" "$server" >"$host_dir/log/stdout" 2>&1 </dev/null &
    echo $! >"$host_dir/node.pid"
    wait_until_ready "$host_dir" "$port"
    echo "amqp://guest:guest@127.0.0.1:$port/%2f" | tee "$host_dir/url"
}

# Writes the configuration at a path of the host for a node that sees it at another.
write_configuration_at() {
    write_configuration "$1" "$3" "$4"
    sed -i "s|$1/|$2/|g" "$1/rabbitmq.conf"
}

wait_until_ready() {
    local dir=$1 port=$2 pid
    pid=$(cat "$dir/node.pid")
    for _ in $(seq 600); do
        if accepts "$port"; then return; fi
        kill -0 "$pid" 2>/dev/null || { tail -n 20 "$dir/log/stdout" >&2; die "the node ended while it started"; }
        sleep 0.1
    done
    tail -n 20 "$dir/log/stdout" >&2
    die "the node did not accept connections within 60 s"
}

stop() {
    local dir="${RABBITMQ_ROOT:-}$1" pid
    [ -e "$dir/node.pid" ] || return 0
    # The shell that was started has become the Erlang machine's parent: both are in one session of their own.
    pid=$(cat "$dir/node.pid")
    pkill -TERM -s "$pid" 2>/dev/null || true
    for _ in $(seq 150); do
        pgrep -s "$pid" >/dev/null || break
        sleep 0.1
    done
    pkill -KILL -s "$pid" 2>/dev/null || true
    stop_epmd "$dir"
    rm -f "$dir/node.pid"
}

stop_epmd() {
    local port
    port=$(cat "$1/epmd.port")
    pkill -KILL -f "epmd .*-port $port\b" 2>/dev/null || inside ERL_EPMD_PORT="$port" epmd -kill >/dev/null 2>&1 || true
}

main() {
    local command=${1:-} dir='' vhosts=0 port=''
    [ $# -gt 0 ] && shift
    while [ $# -gt 0 ]; do
        case $1 in
        --dir) dir=$2; shift 2 ;;
        --vhosts) vhosts=$2; shift 2 ;;
        --port) port=$2; shift 2 ;;
        --) shift; break ;;
        *) usage >&2; die "unknown option $1" ;;
        esac
    done
    case $command in
    find) find_server ;;
    install) find_server >/dev/null || install_packages rabbitmq-server ;;
    start) [ -n "$dir" ] || die "start needs --dir DIR"; start "$dir" "$vhosts" "$port" ;;
    stop) [ -n "$dir" ] || die "stop needs --dir DIR"; stop "$dir" ;;
    run)
        [ -n "$dir" ] || die "run needs --dir DIR"
        trap 'stop "$dir"' EXIT
        start "$dir" "$vhosts" "$port"
        cat >/dev/null
        ;;
    with)
        [ $# -gt 0 ] || die "with needs -- COMMAND"
        dir=${dir:-$(temporary_folder)}
        trap 'stop "$dir"; rm -rf "${RABBITMQ_ROOT:-}${dir:?}"' EXIT
        say "starting a private RabbitMQ node"
        start "$dir" "$vhosts" "$port" >/dev/null
        INFERQ_AMQP_URL=$(cat "${RABBITMQ_ROOT:-}$dir/url") "$@"
        ;;
    -h | --help | help) usage ;;
    *) usage >&2; exit 2 ;;
    esac
}

# A fresh folder, as the node sees it.
temporary_folder() {
    local made
    made=$(mktemp -d "${RABBITMQ_ROOT:-}/tmp/inferq-rabbitmq.XXXXXX")
    echo "${made#"${RABBITMQ_ROOT:-}"}"
}

main "$@"
