//! Runs of the simulator.

use sim::{Endpoints, Outcome, Switches, Tally, run};

/// Runs some seeds, and says which failed.
fn run_all(seeds: impl Iterator<Item = u64>) -> Tally {
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    for seed in seeds {
        match run(seed, Switches::default()) {
            Ok(outcome) => tally += &outcome.tally,
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
    tally
}

/// Repeats one run: `SIM_SEED=7 cargo test -p sim one_seed`, with `SIM_LOG=debug` to hear it.
#[test]
fn one_seed() {
    let seed = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    match run(seed, Switches::default()) {
        Ok(outcome) => println!("{outcome:#?}"),
        Err(failure) => panic!("{failure}"),
    }
}
