//! Runs of the simulator.

use sim::{Endpoints, Failure, Outcome, Switches, Tally, run};

/// Runs some seeds; the whole must have proved something.
fn run_all(seeds: std::ops::Range<u64>) {
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    for seed in seeds {
        match run(seed, Switches::default()) {
            Ok(outcome) => tally += &outcome.tally,
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
    say(&tally);
    proves_something(&tally);
}

/// A run without forks, crashes and repairs is green and says nothing. The floors are about half
/// of what the seeds below bring.
fn proves_something(tally: &Tally) {
    let percent = |part: usize, whole: usize| 100 * part / whole.max(1);
    let per_run = |count: usize| count / tally.runs.max(1);
    for (what, has, least) in [
        (
            "percent of the events happened beside others",
            percent(tally.concurrent, tally.events),
            15,
        ),
        ("percent of the events merge branches", percent(tally.merges, tally.events), 5),
        ("percent of the events came by repair", percent(tally.repaired, tally.events), 15),
        (
            "percent of the promises had to be kept",
            percent(tally.acknowledged, tally.acknowledged + tally.excused),
            70,
        ),
        ("rooms of several nodes for each run", per_run(tally.shared_rooms), 1),
        ("state conflicts in ten runs", per_run(10 * tally.state_conflicts), 4),
        ("links cut in each run", per_run(tally.cuts), 3),
        ("crashes recovered in each run", per_run(tally.recoveries), 1),
        ("frames lost in each run", per_run(tally.frames_lost), 10),
        ("requests lost in each run", per_run(tally.requests_lost), 3),
        ("joins through another server in each run", per_run(tally.remote_joins), 3),
    ] {
        assert!(has >= least, "only {has} {what}, of at least {least}\n{tally:#?}");
    }
}

#[test]
fn seeds_from_1() {
    run_all(1..151);
}

#[test]
fn seeds_from_151() {
    run_all(151..301);
}

#[test]
fn a_seed_makes_the_same_run_again() {
    for seed in [2, 7, 11] {
        let (one, other) = (run(seed, Switches::default()), run(seed, Switches::default()));
        let (one, other) = (finished(one), finished(other));
        assert_eq!(one, other, "seed {seed}");
    }
}

#[test]
fn without_heads_events_are_lost() {
    let switches = Switches { heads: Endpoints::Refused, ..Switches::default() };
    most_fail(switches);
}

#[test]
fn without_gap_filling_events_are_lost() {
    let switches = Switches { gaps: Endpoints::Refused, ..Switches::default() };
    most_fail(switches);
}

/// Not every seed needs what is switched off; of those that pass as a rule, more than half fail.
fn most_fail(switches: Switches) {
    let seeds = 1..11;
    let failed: Vec<Failure> = seeds.filter_map(|seed| run(seed, switches).err()).collect();
    assert!(failed.len() > 5, "only {} of 10 runs failed: {failed:?}", failed.len());
    for failure in failed {
        assert!(failure.reason.contains("s after "), "{failure}");
    }
}

fn finished(run: Result<Outcome, Failure>) -> Outcome {
    match run {
        Ok(outcome) => outcome,
        Err(failure) => panic!("{failure}"),
    }
}

/// Repeats one run: `SIM_SEED=7 cargo test -p sim one_seed`, with `SIM_LOG=debug` to hear it.
#[test]
fn one_seed() {
    let seed = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    say(&finished(run(seed, Switches::default())));
}

#[expect(clippy::print_stdout, reason = "shown when a test fails, or with --nocapture")]
fn say(what: &impl std::fmt::Debug) {
    println!("{what:#?}");
}
