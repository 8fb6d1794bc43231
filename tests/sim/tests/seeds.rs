//! Runs of the simulator: a share of what `cargo xtask sim --seeds 1000` runs.

use std::time::Duration;

use sim::{Endpoints, Failure, Outcome, Script, Switches, Tally, Vice, run, shrink};

/// How long a failed seed is made smaller.
const SHRINKING: Duration = Duration::from_secs(30);

/// Runs some seeds; nearly each must have proved something, and so must the whole.
fn run_all(seeds: std::ops::Range<u64>) {
    let (mut tally, mut failures, mut worthless) = (Tally::default(), Vec::new(), 0);
    for seed in seeds {
        let script = Script::draw(seed, None, Switches::default());
        match run(&script) {
            Ok(outcome) => {
                worthless += usize::from(outcome.tally.shortcoming().is_some());
                tally += &outcome.tally;
            }
            Err(failure) => failures.push((script, failure)),
        }
    }
    if let Some((script, failure)) = failures.pop() {
        let all: Vec<String> = failures.iter().map(|(_, failure)| failure.to_string()).collect();
        let shrunk = shrink(&script, failure, SHRINKING);
        panic!(
            "{}\n{}\nin short:\n{}{}",
            all.join("\n"),
            script.seed,
            shrunk.script,
            shrunk.failure
        );
    }
    say(&tally);
    proves_something(&tally);
    assert!(worthless * 10 <= tally.runs, "{worthless} of {} runs prove nothing", tally.runs);
}

/// A run without forks, crashes and repairs is green and says nothing. But for the first, which is
/// asked for, the floors are about half of what the seeds below bring.
fn proves_something(tally: &Tally) {
    let percent = |part: usize, whole: usize| 100 * part / whole.max(1);
    let per_run = |count: usize| count / tally.runs.max(1);
    for (what, has, least) in [
        ("percent of the events were merged from forks", tally.percent_from_forks(), 30),
        ("percent of the events merge branches", percent(tally.merges, tally.events), 5),
        ("events in each run came by repair", per_run(tally.repaired), 5),
        (
            "percent of the promises had to be kept",
            percent(tally.acknowledged, tally.acknowledged + tally.excused),
            60,
        ),
        ("rooms of several nodes for each run", per_run(tally.shared_rooms), 1),
        ("state conflicts in ten runs", per_run(10 * tally.state_conflicts), 10),
        ("connections cut in each run", per_run(tally.cuts), 3),
        ("crashes recovered in each run", per_run(tally.recoveries), 1),
        ("frames lost in each run", per_run(tally.frames_lost), 10),
        ("requests lost in each run", per_run(tally.requests_lost), 3),
        ("joins through another server in each run", per_run(tally.remote_joins), 2),
        ("invites delivered in ten runs", per_run(10 * tally.invites_delivered), 1),
        ("receipts delivered in ten runs", per_run(10 * tally.receipts_delivered), 1),
        ("hostile nodes in ten runs", per_run(10 * tally.hostile_nodes), 2),
        ("misdeeds in ten runs", per_run(10 * tally.misdeeds), 2),
        ("lies in ten runs", per_run(10 * tally.lies), 2),
    ] {
        assert!(has >= least, "only {has} {what}, of at least {least}\n{tally:#?}");
    }
}

#[test]
fn seeds_from_1() {
    run_all(1..51);
}

#[test]
fn seeds_from_51() {
    run_all(51..101);
}

#[test]
fn forty_nodes() {
    let script = Script::draw(1, Some(40), Switches::default());
    let outcome = finished(run(&script));
    assert_eq!(outcome.tally.shortcoming(), None);
    assert!(outcome.tally.percent_from_forks() >= 30, "{:#?}", outcome.tally);
}

#[test]
fn a_seed_makes_the_same_run_again() {
    for seed in [2, 7, 11] {
        let script = Script::draw(seed, None, Switches::default());
        let (one, other) = (finished(run(&script)), finished(run(&script)));
        assert_eq!(one, other, "seed {seed}");
    }
}

#[test]
fn a_script_survives_being_written_down() {
    let script = Script::draw(3, Some(8), Switches::default());
    let json = serde_json::to_string(&script).expect("a script is JSON");
    assert_eq!(serde_json::from_str::<Script>(&json).expect("the same script"), script);
}

#[test]
fn without_heads_events_are_lost() {
    most_fail(Switches { heads: Endpoints::Refused, ..Switches::default() });
}

#[test]
fn without_gap_filling_events_are_lost() {
    most_fail(Switches { gaps: Endpoints::Refused, ..Switches::default() });
}

#[test]
fn without_the_outbox_invites_and_receipts_are_lost() {
    most_fail(Switches { outbox: Endpoints::Refused, ..Switches::default() });
}

/// Not every seed needs what is switched off; of those that pass as a rule, more than half fail.
fn most_fail(switches: Switches) {
    let scripts = (1..9).map(|seed| Script::draw(seed, None, switches));
    let failed: Vec<Failure> = scripts.filter_map(|script| run(&script).err()).collect();
    assert!(failed.len() > 4, "only {} of 8 runs failed: {failed:?}", failed.len());
    for failure in failed {
        let is_loss = ["s after ", " lost", "other state", "other heads", "a hole"];
        assert!(is_loss.iter().any(|loss| failure.reason.contains(loss)), "{failure}");
    }
}

/// A member that leaves things out of the states it tells deceives nobody who can ask a second one.
/// Where nobody else can be asked its word is taken, so not every run stands it.
#[test]
fn a_liar_about_states_is_outvoted() {
    let scripts = (1..9).map(|seed| {
        let mut script = Script::draw(seed, Some(7), Switches::default());
        script.nodes[2].vices.insert(Vice::TellsWrongStates);
        script
    });
    let failed: Vec<Failure> = scripts.filter_map(|script| run(&script).err()).collect();
    assert!(failed.len() <= 2, "{} of 8 runs failed: {failed:?}", failed.len());
}

/// What a failed seed is worth to whoever has to find the fault.
#[test]
fn a_failed_script_becomes_smaller_and_fails_alike() {
    let switches = Switches { heads: Endpoints::Refused, ..Switches::default() };
    let failed = (1..9).find_map(|seed| {
        let script = Script::draw(seed, None, switches);
        run(&script).err().map(|failure| (script, failure))
    });
    let (script, failure) = failed.expect("without heads, runs fail");
    let kind = failure.kind();
    let shrunk = shrink(&script, failure, SHRINKING);
    assert!(shrunk.script.steps.len() < script.steps.len() / 2, "{}", shrunk.script);
    assert_eq!(shrunk.failure.kind(), kind);
    assert_eq!(run(&shrunk.script).expect_err("it fails again").reason, shrunk.failure.reason);
}

fn finished(run: Result<Outcome, Failure>) -> Outcome {
    match run {
        Ok(outcome) => outcome,
        Err(failure) => panic!("{failure}"),
    }
}

#[expect(clippy::print_stdout, reason = "shown when a test fails, or with --nocapture")]
fn say(what: &impl std::fmt::Debug) {
    println!("{what:#?}");
}
