#!/usr/bin/env bash
# A thousand hostile peers: memory of a node that they fall upon, and what two honest nodes notice,
# beside the quiet values of the same run. On loopback; bounded, and stops by itself.
#
#   tests/bench/hostile.sh HSBENCH [WORK_DIR]
#
# HSBENCH is the built hsbench. PEERS (1000) is how many there are.
set -euo pipefail
hsbench=$(realpath "${1:?usage: hostile.sh HSBENCH [WORK_DIR]}")
work=${2:-$(mktemp -d)}
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$work"
work=$(realpath "$work")
if [ -z "${MESSAGEHUB_BIN:-}" ]; then
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" --bin messagehub
    MESSAGEHUB_BIN=$root/target/release/messagehub
fi
binary=$(realpath "$MESSAGEHUB_BIN")
cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p messagehub-net --example hostile_peers
. "$root/tests/bench/lib.sh"
# Each of the thousand has some sockets.
ulimit -n "$(ulimit -Hn)"

memory() { # PID
    awk '/^VmHWM/ { most = $2 / 1024 } /^VmRSS/ { now = $2 / 1024 }
        END { printf "%.1f MiB, at most %.1f until now\n", now, most }' "/proc/$1/status"
}
echo_between() { # LABEL
    "$hsbench" --label "$1" --pid "$a,$b" --register dummy --runs 1 --limit-s 120 \
        --url http://127.0.0.1:18008 --url http://127.0.0.1:18009 \
        echo --messages 300 --warmup 20 2>>"$work/hsbench.log" |
        sed "s/.*\"p50_ms\":\([0-9.]*\).*\"p99_ms\":\([0-9.]*\).*/$1: PUT to the other's \/sync p50 \1 ms, p99 \2 ms/"
}

node a 18008 18108
a=$pid
answers http://127.0.0.1:18008
node b 18009 18109 "/ip4/127.0.0.1/tcp/18108/p2p/$(peer_id a)"
b=$pid
answers http://127.0.0.1:18009
meets b
for _ in 1 2 3; do
    echo_between "quiet"
    echo "quiet: $(memory "$a")"
done

"$binary" --data "$work/a" id >"$work/id"
server=$(grep -om1 "bahwqc[a-z2-7]*" "$work/id")
# They would bring processors of their own, and here they take those of the node: with what it leaves.
nice -n 19 "$root/target/release/examples/hostile_peers" "/ip4/127.0.0.1/tcp/18108/p2p/$(peer_id a)" \
    "$server" "${PEERS:-1000}" 90 >"$work/hostile.out" 2>"$work/hostile.err" &
hostile=$!
children+=("$hostile")
sleep 20 # until all of them have tried
for _ in 1 2 3; do
    echo_between "under attack"
    echo "under attack: $(memory "$a")"
done
wait "$hostile"
cat "$work/hostile.out"
echo_between "afterwards"
echo "afterwards: $(memory "$a")"
