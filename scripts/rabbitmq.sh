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
  start --dir DIR          start a node with all its files in DIR, print its AMQP URL; also written to DIR/url;
                           in a folder that was used before: the same node again, with its queues and port
  stop --dir DIR           stop exactly that node
  kill --dir DIR           end it with SIGKILL, as a crash would; its files stay, start brings it back
  freeze --dir DIR         stop its processes where they are, as if it were cut off from everybody
  thaw --dir DIR           let them go on
  ctl --dir DIR -- ARGS    run rabbitmqctl ARGS against it
  run --dir DIR            start, print the URL, stop when standard input ends: for a parent process, which cannot
                           leave the node behind however it ends
  with -- COMMAND ...      start in a temporary folder, run COMMAND with INFERQ_AMQP_URL set, stop in any case

options of start, run and with:
  --vhosts N               make the virtual hosts t1 ... tN besides / (for tests that run side by side)
  --port P                 listen on this port (a free one)
  --join OTHER             make a new node one of the cluster of the node in the folder OTHER, which runs
  --tls OTHER              listen for TLS as well, with ca.pem, cert.pem and key.pem of the folder OTHER; the port goes to DIR/tls_port
  --demand                 with --tls: let nobody in who shows no certificate of that ca.pem
  --remove                 (run) delete DIR at the end

examples:
  rabbitmq.sh with -- inferq demo
  rabbitmq.sh start --dir /tmp/node && rabbitmq.sh ctl --dir /tmp/node -- list_queues name messages
  rabbitmq.sh stop --dir /tmp/node

RABBITMQ_ROOT: an unpacked Debian root to take RabbitMQ from, entered by chroot (see rabbitmq4.sh); DIR is then a link
into that root.
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

# Prints the words that lead into the unpacked root, one a line; nothing where RabbitMQ is installed here.
entrance() {
    [ -z "${RABBITMQ_ROOT:-}" ] || printf '%s\n' chroot "$RABBITMQ_ROOT"
}

write_configuration() {
    local dir=$1 port=$2 vhosts=$3 join=$4 frames
    frames=$(grep '^frame_max = ' "$here/../deploy/rabbitmq/inferq.conf") || die "deploy/rabbitmq/inferq.conf has no frame_max"
    cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$port
log.file = $dir/log/rabbit.log
log.file.level = warning
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
$frames
CONF
    echo '[].' >"$dir/enabled_plugins"
    [ -z "$tls" ] || write_tls "$dir"
    if [ -n "$join" ]; then
        cat >>"$dir/rabbitmq.conf" <<CONF
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = $(cat "$join/name")
cluster_formation.classic_config.nodes.2 = $(cat "$dir/name")
CONF
        return
    fi
    echo "load_definitions = $dir/definitions.json" >>"$dir/rabbitmq.conf"
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

# Copies the certificates to where the node sees them, and has it listen.
write_tls() {
    local dir=$1
    mkdir -p "$dir/tls"
    cp "$tls/ca.pem" "$tls/cert.pem" "$tls/key.pem" "$dir/tls/"
    free_port >"$dir/tls_port"
    cat >>"$dir/rabbitmq.conf" <<CONF
listeners.ssl.1 = 127.0.0.1:$(cat "$dir/tls_port")
ssl_options.cacertfile = $dir/tls/ca.pem
ssl_options.certfile = $dir/tls/cert.pem
ssl_options.keyfile = $dir/tls/key.pem
ssl_options.verify = ${demand:-verify_none}
ssl_options.fail_if_no_peer_cert = $([ -n "$demand" ] && echo true || echo false)
CONF
}

# The node's environment, one assignment a line: nothing of the system's own node is read or written.
node_environment() {
    local dir=$1 port dist epmd
    read -r port dist epmd <"$dir/ports"
    cat <<ENVIRONMENT
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LANG=C.UTF-8
HOME=$dir/home
RABBITMQ_CONF_ENV_FILE=$dir/none
RABBITMQ_NODENAME=$(cat "$dir/name")
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

# Runs a command where RabbitMQ is, with the node's environment and no other.
inside() {
    local dir=$1 words=() environment=()
    shift
    mapfile -t words < <(entrance)
    mapfile -t environment < <(node_environment "$dir")
    "${words[@]}" /usr/bin/env -i "${environment[@]}" "$@"
}

# Starts a command where RabbitMQ is, in the background, and prints its process id, which is its session's as well: a
# signal for this script's group is none for it, and one for its session reaches all that it started.
launch() {
    local dir=$1 log=$2 words=() environment=()
    shift 2
    mapfile -t words < <(entrance)
    mapfile -t environment < <(node_environment "$dir")
    setsid "${words[@]}" /usr/bin/env -i "${environment[@]}" "$@" >"$log" 2>&1 </dev/null &
    disown
    echo $!
}

# Whether the process in a file is alive, and the one that was started here: a number can have been given away since.
alive() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "HOME=${1%/*}/home"
}

# Makes the folder; where RabbitMQ has a root of its own, inside that, with a link to it where the caller looks.
prepare_folder() {
    local dir=$1
    if [ -n "${RABBITMQ_ROOT:-}" ] && [ ! -e "$dir" ]; then
        mkdir -p "$RABBITMQ_ROOT$dir" "$(dirname "$dir")"
        ln -s "$RABBITMQ_ROOT$dir" "$dir"
    fi
    mkdir -p "$dir/home" "$dir/log" "$dir/mnesia"
}

start() {
    local dir=$1 vhosts=$2 port=$3 join=$4 server
    server=$(find_server) || die "there is no rabbitmq-server here; run: $0 install"
    prepare_folder "$dir"
    ! alive "$dir/node.pid" || die "a node runs already in $dir"
    [ -e "$dir/ports" ] || prepare_node "$dir" "$vhosts" "$port" "$join"
    local dist epmd
    read -r port dist epmd <"$dir/ports"
    # One of a cluster has its names with the first node's epmd, which other nodes may be using.
    if ! accepts "$epmd"; then
        launch "$dir" "$dir/log/epmd" epmd -port "$epmd" -address 127.0.0.1 >"$dir/epmd.pid"
        wait_for_port "$dir" "$epmd" epmd
    fi
    launch "$dir" "$dir/log/stdout" "$server" >"$dir/node.pid"
    wait_for_port "$dir" "$port" node
    echo "amqp://guest:guest@127.0.0.1:$port/%2f" | tee "$dir/url"
}

# Gives a new node its name and ports; where it joins another, that one's epmd and cookie.
prepare_node() {
    local dir=$1 vhosts=$2 port=$3 join=$4 epmd
    if [ -n "$join" ]; then
        echo "${dir##*/}@localhost" >"$dir/name"
        epmd=$(cut -d' ' -f3 "$join/ports")
        cp -p "$join/home/.erlang.cookie" "$dir/home/"
    else
        echo inferq@localhost >"$dir/name"
        epmd=$(free_port)
    fi
    echo "${port:-$(free_port)} $(free_port) $epmd" >"$dir/ports"
    write_configuration "$dir" "$(cut -d' ' -f1 "$dir/ports")" "$vhosts" "$join"
}

# Waits until `node` or `epmd` accepts connections.
wait_for_port() {
    local dir=$1 port=$2 what=$3 log=$1/log/stdout
    [ "$what" = node ] || log=$dir/log/$what
    for _ in $(seq 1200); do
        if accepts "$port"; then return; fi
        kill -0 "$(cat "$dir/$what.pid")" 2>/dev/null || {
            tail -n 20 "$log" >&2
            stop "$dir"
            die "$what ended while it started, see above"
        }
        sleep 0.1
    done
    tail -n 20 "$log" >&2
    stop "$dir"
    die "$what did not accept connections on port $port within 120 s"
}

# Ends the node: asks it first unless the signal is KILL.
end_node() {
    local dir=$1 signal=$2 pid
    alive "$dir/node.pid" || { rm -f "$dir/node.pid"; return 0; }
    pid=$(cat "$dir/node.pid")
    pkill "-$signal" -s "$pid" || true
    for _ in $(seq 150); do
        pgrep -s "$pid" --runstates RSDT >/dev/null || break
        sleep 0.1
    done
    pkill -KILL -s "$pid" || true
    rm -f "$dir/node.pid"
}

# Sends a signal to all processes of the node, and to nobody else.
signal_node() {
    alive "$1/node.pid" || die "no node runs in $1"
    pkill "-$2" -s "$(cat "$1/node.pid")"
}

stop_epmd() {
    ! alive "$1/epmd.pid" || kill -KILL "$(cat "$1/epmd.pid")" 2>/dev/null || true
    rm -f "$1/epmd.pid"
}

stop() {
    end_node "$1" TERM
    stop_epmd "$1"
}

remove() {
    [ -z "${RABBITMQ_ROOT:-}" ] || rm -rf "${RABBITMQ_ROOT:?}${1:?}"
    rm -rf "${1:?}"
}

# How a node listens for TLS; empty where it does not.
tls='' demand=''

main() {
    local command=${1:-} vhosts=0 port='' join='' remove='' dir=''
    [ $# -gt 0 ] && shift
    while [ $# -gt 0 ]; do
        case $1 in
        --dir) dir=$(absolute "${2:?--dir needs a folder}"); shift 2 ;;
        --vhosts) vhosts=${2:?--vhosts needs a number}; shift 2 ;;
        --port) port=${2:?--port needs a number}; shift 2 ;;
        --join) join=$(absolute "${2:?--join needs a folder}"); shift 2 ;;
        --tls) tls=$(absolute "${2:?--tls needs a folder}"); shift 2 ;;
        --demand) demand=verify_peer; shift ;;
        --remove) remove=yes; shift ;;
        --) shift; break ;;
        *) usage >&2; die "unknown option $1" ;;
        esac
    done
    case $command in
    start | stop | kill | freeze | thaw | ctl | run) [ -n "$dir" ] || die "$command needs --dir DIR" ;;
    esac
    case $command in
    find) find_server ;;
    install) find_server >/dev/null || install_packages rabbitmq-server ;;
    start) start "$dir" "$vhosts" "$port" "$join" ;;
    stop) stop "$dir" ;;
    kill) end_node "$dir" KILL ;;
    freeze) signal_node "$dir" STOP ;;
    thaw) signal_node "$dir" CONT ;;
    ctl) inside "$dir" "$(dirname "$(find_server)")/rabbitmqctl" --quiet "$@" ;;
    run) run "$dir" "$vhosts" "$port" "$join" "$remove" ;;
    with)
        [ $# -gt 0 ] || die "with needs -- COMMAND"
        with "$dir" "$vhosts" "$port" "$@"
        ;;
    -h | --help | help) usage ;;
    *) usage >&2; exit 2 ;;
    esac
}

# Set for the trap, which runs when the functions that know them have returned.
ended_folder='' ended_remove=''
at_end() {
    # Nobody misses what is deleted right after: no time for a goodbye.
    if [ -n "$ended_remove" ]; then end_node "$ended_folder" KILL; fi
    stop "$ended_folder"
    if [ -n "$ended_remove" ]; then remove "$ended_folder"; fi
}

run() {
    ended_folder=$1 ended_remove=$5
    trap at_end EXIT
    # Ctrl-C reaches the parent too: that ends, and so does standard input.
    trap '' INT
    start "$1" "$2" "$3" "$4"
    exec >/dev/null
    cat || true
}

with() {
    local dir=$1 vhosts=$2 port=$3
    shift 3
    ended_folder=$dir
    if [ -z "$dir" ]; then
        ended_folder=$(mktemp -u "${TMPDIR:-/tmp}/inferq-rabbitmq.XXXXXX")
        ended_remove=yes
    fi
    trap at_end EXIT
    say "starting a private RabbitMQ node"
    start "$ended_folder" "$vhosts" "$port" '' >/dev/null
    INFERQ_AMQP_URL=$(cat "$ended_folder/url") "$@"
}

# A path that stays true wherever the node is started from. A folder that is a link keeps its own name.
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }

main "$@"
