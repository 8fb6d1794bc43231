//! Runs fuzz targets for some seconds each, on any toolchain:
//! `cargo run -p messagehub-fuzz -- [--seconds N] [--seed N] [TARGET…]`.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use messagehub_fuzz::{
    driver::{self, Budget},
    targets::{TARGETS, Target},
};

/// What a target must have been given to have been fuzzed at all, in a second.
const LEAST_INPUTS_PER_SECOND: u64 = 50;

struct Options {
    seconds: u64,
    seed: u64,
    names: Vec<String>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            say(&fault);
            return ExitCode::FAILURE;
        }
    };
    let chosen = TARGETS.iter().filter(|target| {
        options.names.is_empty() || options.names.iter().any(|n| n == target.name)
    });
    // Each panic is told once, by us.
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = false;
    for target in chosen {
        match fuzz(target, &options) {
            Ok(told) => say(&told),
            Err(fault) => {
                say(&fault);
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    const USAGE: &str = "usage: fuzz [--seconds N] [--seed N] [TARGET…]";
    let seed = std::process::id();
    let mut options = Options { seconds: 5, seed: u64::from(seed), names: Vec::new() };
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).ok_or(USAGE);
        match argument.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            name if TARGETS.iter().any(|target| target.name == name) => {
                options.names.push(argument);
            }
            name => return Err(format!("no target is called {name}; {USAGE}")),
        }
    }
    Ok(options)
}

fn fuzz(target: &Target, options: &Options) -> Result<String, String> {
    let (name, seed) = (target.name, options.seed);
    let corpus = driver::corpus(name).map_err(|error| format!("{name}: its corpus: {error}"))?;
    let corpus = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let (started, budget) = (Instant::now(), Budget::Time(Duration::from_secs(options.seconds)));
    let worth = driver::run(target, corpus, seed, budget).map_err(|failure| {
        let kept = keep(name, &failure.input);
        format!("{name}: seed {seed}: {}\n{name}: {kept}", failure.said)
    })?;
    let took = started.elapsed().as_secs_f64();
    if worth.inputs < LEAST_INPUTS_PER_SECOND * options.seconds {
        return Err(format!("{name}: only {} inputs in {took:.1} s: no fuzzing", worth.inputs));
    }
    Ok(format!("{name}: {} inputs, {} ends, {took:.1} s, seed {seed}", worth.inputs, worth.ends))
}

/// Writes an input down, so that the failure can be repeated and becomes part of the corpus.
fn keep(name: &str, input: &[u8]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    let path = folder.join(name);
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)) {
        Ok(()) => format!("the input is in {}", path.display()),
        Err(error) => format!("the input {input:?} could not be kept: {error}"),
    }
}

#[expect(clippy::print_stderr, reason = "a command line tool speaks on standard error")]
fn say(line: &str) {
    eprintln!("{line}");
}
