#!/usr/bin/env bash
# Start to first peer by mDNS: how long a fresh node takes from its start until it has verified the
# node that is on the same LAN already. Two network namespaces, so root on Linux and `ip`.
#
#   tests/bench/first_peer.sh [STARTS]
#
# STARTS is 50 unless said otherwise; MESSAGEHUB_BIN names another binary than the release build.
set -euo pipefail
starts=${1:-50}
root=$(cd "$(dirname "$0")/../.." && pwd)
if [ -z "${MESSAGEHUB_BIN:-}" ]; then
    cargo build --quiet --release --bin messagehub --manifest-path "$root/Cargo.toml"
    export MESSAGEHUB_BIN=$root/target/release/messagehub
fi
cd "$root/tests/e2e"
exec cargo run --quiet --bin first_peer -- "$starts"
