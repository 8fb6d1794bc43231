//! Measures how long a fresh node takes from its start until it has verified its first peer, found
//! by multicast on a LAN: `cargo run --bin first_peer -- 50` in `tests/e2e`. A benchmark, no test.

use std::time::Duration;

use e2e::{namespace::Lan, node::Node};
use tokio::time::Instant;

/// Starts, unless the command line says another number.
const STARTS: usize = 50;

/// Between two looks; what is measured is that much too long at most.
const LOOK: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() {
    let number = std::env::args().nth(1).map(|text| text.parse::<usize>());
    let number = number.map_or(STARTS, |number| number.expect("a number of starts"));
    let lan = Lan::new();
    let (resident, newcomer) = (lan.machine(), lan.machine());
    let _resident = Node::on(&resident).await;
    let mut took = Vec::with_capacity(number);
    for start in 1..=number {
        took.push(one(&newcomer).await);
        eprint!("\r{start} of {number}");
    }
    took.sort_unstable();
    let quantile = |percent: usize| took[(took.len() * percent).div_ceil(100).max(1) - 1];
    let [p50, p90, p99] = [50, 90, 99].map(quantile);
    println!(
        "\rstart to first peer by mDNS, {number} starts: p50 {p50:.0?}, p90 {p90:.0?}, p99 {p99:.0?}"
    );
}

/// One start of a node that was never started before.
async fn one(machine: &e2e::namespace::Machine) -> Duration {
    let begun = Instant::now();
    let node = Node::on(machine).await;
    let mut pause = tokio::time::interval(LOOK);
    loop {
        pause.tick().await;
        let status = node.status().await;
        let peers = status["peers"].as_array().expect("a list of peers");
        if peers.iter().any(|peer| peer["server_name"].is_string()) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < e2e::DEADLINE, "no peer, log:\n{}", node.log());
    }
}
