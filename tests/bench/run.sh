#!/usr/bin/env bash
# Times MessageHub beside Synapse (SQLite, from PyPI) in one run, on loopback, and prints the
# medians as Markdown tables. Everything is bounded and stops by itself.
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

measure() { # LABEL PID ARGUMENTS...
    local label=$1 pids=$2
    shift 2
    "$hsbench" --label "$label" --pid "$pids" --register dummy --runs "$runs" \
        --quiet-cores 0.3 --quiet-wait-s "${QUIET_WAIT:-20}" --limit-s 300 "$@" >>"$out" 2>>"$work/hsbench.log"
}
one_server() { # LABEL PID URL MESSAGES
    measure "$1" "$2" --url "$3" idle --seconds 10 --phase after-start
    measure "$1" "$2" --url "$3" send --users 1 --rooms 1 --concurrency 1 --messages "$4" --warmup 20
    measure "$1" "$2" --url "$3" send --users 8 --rooms 4 --concurrency 8 --messages $(($4 * 3)) --warmup 40
    measure "$1" "$2" --url "$3" echo --messages 100 --warmup 10
    measure "$1" "$2" --url "$3" sync-incremental --users 30 --messages 20 --warmup 3
    measure "$1" "$2" --url "$3" sync-initial --rooms 20 --messages 20 --members 4 --repeat 5
    measure "$1" "$2" --url "$3" messages --messages 1000 --repeat 3
    measure "$1" "$2" --url "$3" media --size 1000000 --count 20
}

FRESH=1 "$synapse_sh" "$synapse_dir" 18118 >"$work/synapse.log" 2>&1 &
children+=($!)
synapse=$!
answers http://127.0.0.1:18118
one_server synapse "$synapse" http://127.0.0.1:18118 100
kill "$synapse"
wait "$synapse" 2>/dev/null || true

node a 18008 18108
a=$pid
answers http://127.0.0.1:18008
one_server messagehub "$a" http://127.0.0.1:18008 2000

node b 18009 18109 "/ip4/127.0.0.1/tcp/18108/p2p/$(peer_id a)"
b=$pid
answers http://127.0.0.1:18009
meets b
measure messagehub-two-nodes "$a,$b" --url http://127.0.0.1:18008 --url http://127.0.0.1:18009 \
    echo --messages 100 --warmup 10
kill "$a" "$b"
wait "$a" "$b" 2>/dev/null || true

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
