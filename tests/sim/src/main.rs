//! Runs the simulator: `cargo xtask sim` builds and starts this.

#![expect(clippy::print_stdout, reason = "a command line tool speaks on standard output")]

use std::{
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sim::{Endpoints, Failure, Script, Switches, Tally, run, shrink};

const USAGE: &str = "usage: cargo xtask sim [--seed N | --seeds COUNT [--from N] | --script FILE]
           [--nodes N] [--jobs N] [--without heads|gaps|outbox]... [--no-shrink]";

/// How long a failed seed is made smaller: a run of a few nodes takes less than a second.
const SHRINKING: Duration = Duration::from_secs(180);

/// Where scripts of failed runs are written.
const FOLDER: &str = "target/sim-failures";

/// What to do.
struct Wishes {
    seeds: Range<u64>,
    script: Option<PathBuf>,
    nodes: Option<usize>,
    jobs: usize,
    switches: Switches,
    shrinks: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(wishes) = read(&arguments) else {
        println!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match &wishes.script {
        Some(path) => repeat(path, &wishes),
        None => run_all(&wishes),
    }
}

fn read(arguments: &[String]) -> Option<Wishes> {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let (mut from, mut count) = (1, 1);
    let mut wishes = Wishes {
        seeds: 1..2,
        script: None,
        nodes: None,
        jobs,
        switches: Switches::default(),
        shrinks: true,
    };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        if flag == "--no-shrink" {
            wishes.shrinks = false;
            continue;
        }
        let value = rest.next()?;
        match flag.as_str() {
            "--seed" => (from, count) = (value.parse().ok()?, 1),
            "--seeds" => count = value.parse().ok()?,
            "--from" => from = value.parse().ok()?,
            "--script" => wishes.script = Some(value.into()),
            "--nodes" => wishes.nodes = Some(value.parse().ok()?),
            "--jobs" => wishes.jobs = value.parse().ok()?,
            "--without" => match value.as_str() {
                "heads" => wishes.switches.heads = Endpoints::Refused,
                "gaps" => wishes.switches.gaps = Endpoints::Refused,
                "outbox" => wishes.switches.outbox = Endpoints::Refused,
                _ => return None,
            },
            _ => return None,
        }
    }
    wishes.seeds = from..from + count;
    Some(wishes)
}

/// Runs every seed, on some threads, each run on one.
fn run_all(wishes: &Wishes) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(wishes.seeds.start);
    let done = Mutex::new((Tally::default(), Vec::new(), Duration::ZERO));
    thread::scope(|scope| {
        for _ in 0..wishes.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= wishes.seeds.end {
                        return;
                    }
                    let script = Script::draw(seed, wishes.nodes, wishes.switches);
                    let started = Instant::now();
                    let outcome = run(&script);
                    let took = started.elapsed();
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.2 = done.2.max(took);
                    match outcome {
                        Ok(outcome) => done.0 += &outcome.tally,
                        Err(failure) => {
                            println!("{failure}");
                            done.1.push((script, failure));
                        }
                    }
                }
            });
        }
    });
    let (tally, failures, longest) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{tally:#?}");
    println!(
        "{} seeds in {:.1} s, the longest {:.1} s; {} failed; {} % of the events were merged from \
         forks; peak memory {}",
        wishes.seeds.end - wishes.seeds.start,
        begun.elapsed().as_secs_f64(),
        longest.as_secs_f64(),
        failures.len(),
        tally.percent_from_forks(),
        peak_memory(),
    );
    let Some((script, failure)) = failures.into_iter().next() else { return ExitCode::SUCCESS };
    if wishes.shrinks {
        make_smaller(&script, failure);
    }
    ExitCode::FAILURE
}

fn make_smaller(script: &Script, failure: Failure) {
    let steps = script.steps.len();
    let shrunk = shrink(script, failure, SHRINKING);
    println!(
        "shrunk in {} runs from {} nodes and {steps} steps to {} and {}:\n{}{}",
        shrunk.runs,
        script.present().len(),
        shrunk.script.present().len(),
        shrunk.script.steps.len(),
        shrunk.script,
        shrunk.failure,
    );
    let path = PathBuf::from(FOLDER).join(format!("seed-{}.json", script.seed));
    let written =
        serde_json::to_vec_pretty(&shrunk.script).map_err(std::io::Error::from).and_then(|json| {
            std::fs::create_dir_all(FOLDER).and_then(|()| std::fs::write(&path, json))
        });
    match written {
        Ok(()) => println!("repeat it with: cargo xtask sim --script {}", path.display()),
        Err(error) => println!("the script could not be written to {}: {error}", path.display()),
    }
}

/// Runs a script from a file.
fn repeat(path: &PathBuf, wishes: &Wishes) -> ExitCode {
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let script = read.and_then(|json| {
        serde_json::from_slice::<Script>(&json).map_err(|error| error.to_string())
    });
    let script = match script {
        Ok(script) => script,
        Err(error) => {
            println!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    println!("{script}");
    match run(&script) {
        Ok(outcome) => {
            println!("{outcome:#?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            if wishes.shrinks {
                make_smaller(&script, failure);
            }
            ExitCode::FAILURE
        }
    }
}

/// The most memory that this process had, as Linux tells it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}
