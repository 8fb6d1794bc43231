#!/usr/bin/env bash
# Times MessageHub beside Synapse (SQLite, from PyPI) in one run and by turns, on loopback, and
# prints the medians as Markdown tables. Everything is bounded and stops by itself.
#
#   tests/bench/run.sh HSBENCH SYNAPSE_SH [WORK_DIR]
#
# HSBENCH is the built hsbench, SYNAPSE_SH the script that starts Synapse. RUNS (3) is how often
# each phase is measured, MESSAGEHUB_BIN another binary than target/release/messagehub, SYNAPSE_DIR
# where Synapse is installed already.
set -euo pipefail
hsbench=$(realpath "${1:?usage: run.sh HSBENCH SYNAPSE_SH [WORK_DIR]}")
synapse_sh=$(realpath "${2:?usage: run.sh HSBENCH SYNAPSE_SH [WORK_DIR]}")
work=${3:-$(mktemp -d)}
root=$(cd "$(dirname "$0")/../.." && pwd)
binary=$(realpath "${MESSAGEHUB_BIN:-$root/target/release/messagehub}")
runs=${RUNS:-3}
mkdir -p "$work"
work=$(realpath "$work")
synapse_dir=${SYNAPSE_DIR:-$work/synapse}
out=$work/results.jsonl
: >"$out"

. "$root/tests/bench/lib.sh"

measure() { # LABEL PIDS ARGUMENTS...
    local label=$1 pids=$2
    shift 2
    "$hsbench" --label "$label" --pid "$pids" --register dummy --runs 1 \
        --quiet-cores 0.3 --quiet-wait-s "${QUIET_WAIT:-20}" --limit-s 300 "$@" >>"$out" 2>>"$work/hsbench.log"
}
synapse() { measure synapse "$synapse" --url http://127.0.0.1:18118 "$@"; }
messagehub() { measure messagehub "$a" --url http://127.0.0.1:18008 "$@"; }
two_nodes() {
    measure messagehub-two-nodes "$a,$b" --url http://127.0.0.1:18008 --url http://127.0.0.1:18009 "$@"
}
# By turns, because the speed of a machine changes within minutes.
by_turns() { # ARGUMENTS...
    for _ in $(seq "$runs"); do
        synapse "$@"
        messagehub "$@"
    done
}
send() { # MESSAGES ARGUMENTS... (MessageHub gets twenty times as many, to be timed as long)
    for _ in $(seq "$runs"); do
        synapse send --messages "$1" "${@:2}"
        messagehub send --messages $(($1 * 20)) "${@:2}"
    done
}

FRESH=1 "$synapse_sh" "$synapse_dir" 18118 >"$work/synapse.log" 2>&1 &
children+=($!)
synapse=$!
node a 18008 18108
a=$pid
answers http://127.0.0.1:18118
answers http://127.0.0.1:18008

by_turns idle --seconds 10 --phase after-start
send 100 --users 1 --rooms 1 --concurrency 1 --warmup 20
send 300 --users 8 --rooms 4 --concurrency 8 --warmup 40

node b 18009 18109 "/ip4/127.0.0.1/tcp/18108/p2p/$(peer_id a)"
b=$pid
answers http://127.0.0.1:18009
meets b
for _ in $(seq "$runs"); do
    for server in synapse messagehub two_nodes; do
        "$server" echo --messages 100 --warmup 10
    done
done
kill "$b"
wait "$b" 2>/dev/null || true

by_turns sync-incremental --users 30 --messages 20 --warmup 3
by_turns sync-initial --rooms 20 --messages 20 --members 4 --repeat 5
by_turns messages --messages 1000 --repeat 3
by_turns media --size 1000000 --count 20
kill "$synapse" "$a"
wait "$synapse" "$a" 2>/dev/null || true

rm -rf "${work:?}/start"
export MESSAGEHUB_LIBP2P_LISTEN_ADDRESSES=/ip4/127.0.0.1/tcp/18110
startup() { # LABEL URL COMMAND
    "$hsbench" --label "$1" --url "$2" startup --repeat 5 --command "$3" \
        >>"$out" 2>>"$work/hsbench.log"
}
cat >"$work/start-synapse.sh" <<SCRIPT
cd "$synapse_dir/data-18118" && exec "$synapse_dir/venv/bin/python" -m synapse.app.homeserver -c homeserver.yaml
SCRIPT
startup synapse http://127.0.0.1:18118 "bash $work/start-synapse.sh"
startup messagehub http://127.0.0.1:18010 "$binary --data $work/start --listen 127.0.0.1:18010"
"$hsbench" summary "$out"
