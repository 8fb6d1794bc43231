# Nodes on loopback for measurements. Sourced; `work` is a directory for them, `binary` the node.
# shellcheck shell=bash

children=()
end() {
    kill "${children[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
}
trap end EXIT

# Loopback only: nothing of a measurement may leave the machine.
export MESSAGEHUB_RATE_LIMITS=null MESSAGEHUB_LIBP2P_MDNS=false MESSAGEHUB_REGISTRATION=open
unset MESSAGEHUB_BIN # the node takes every variable of that form for a key

# Starts a node of a new identity; its process is in `pid`.
node() { # NAME PORT LIBP2P_PORT [BOOTSTRAP]
    rm -rf "${work:?}/$1"
    env MESSAGEHUB_LIBP2P_LISTEN_ADDRESSES="/ip4/127.0.0.1/tcp/$3,/ip4/127.0.0.1/udp/$3/quic-v1" \
        ${4:+"MESSAGEHUB_LIBP2P_DHT_BOOTSTRAP_PEERS=$4"} \
        "$binary" --data "$work/$1" --listen "127.0.0.1:$2" >"$work/$1.out" 2>"$work/$1.log" &
    children+=($!)
    pid=$!
}

# Waits until a homeserver answers.
answers() { # URL
    for _ in $(seq 600); do
        curl -fs "$1/_matrix/client/versions" >/dev/null && return
        sleep 0.1
    done
    echo "$1 does not answer" >&2
    exit 1
}

# The PeerId of a node.
peer_id() { # NAME
    "$binary" --data "$work/$1" status --json | sed 's/.*"peer_id":"\([^"]*\)","addresses.*/\1/'
}

# Waits until a node knows another.
meets() { # NAME
    for _ in $(seq 100); do
        "$binary" --data "$work/$1" peers --json | grep -q '"server_name":"b' && return
        sleep 0.1
    done
    echo "$1 meets nobody" >&2
    exit 1
}
