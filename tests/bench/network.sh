#!/usr/bin/env bash
# Measures the network, each part by itself. Release builds, one machine, nothing leaves it; bounded,
# and stops by itself. All but `requests` need network namespaces: root on Linux, and `ip`.
#
#   tests/bench/network.sh requests [ROUNDS] [SECONDS]        beside a bare HTTP/2 probe
#   tests/bench/network.sh copies [NODES] [MESSAGES] [BYTES]  of each message in one room
#   tests/bench/network.sh catch-up [EVENTS]                  after having been off
#   tests/bench/network.sh rooms [ROOMS]                      at rest, and after a reconnect
#   tests/bench/network.sh large-room [MEMBERS] [JOINS]       joining a room of many members
#
# MESSAGEHUB_BIN names another binary than the release build.
set -euo pipefail
what=${1:?usage: network.sh requests|copies|catch-up|rooms|large-room ...}
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
examples=$root/target/release/examples

example() { # NAME
    cargo build --quiet --release -p messagehub-net --example "$1"
}
case $what in
requests)
    example request_rate
    exec "$examples/request_rate" "$@"
    ;;
copies)
    example gossip_copies
    # A socket for each end of each connection: 9,900 in a room of 100 nodes.
    ulimit -n "$(ulimit -Hn)"
    exec unshare --net sh -c 'ip link set lo up && exec "$@"' sh "$examples/gossip_copies" "$@"
    ;;
catch-up | rooms | large-room)
    if [ -z "${MESSAGEHUB_BIN:-}" ]; then
        cargo build --quiet --release --bin messagehub
        export MESSAGEHUB_BIN=$root/target/release/messagehub
    fi
    if [ "$what" = large-room ]; then
        # It is not measured, and the release build has no place for the features of tests.
        cargo build --quiet -p messagehub-homeserver --example fill_room --features test-support
        export FILL_ROOM=$root/target/debug/examples/fill_room
    fi
    cd tests/e2e
    exec cargo run --quiet --bin network -- "$what" "$@"
    ;;
*)
    echo "there is no measurement $what" >&2
    exit 2
    ;;
esac
