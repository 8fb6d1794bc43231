//! Repository tasks: `cargo xtask tidy` checks what the compiler does not, `cargo xtask coverage`
//! writes `docs/coverage.md`, `cargo xtask sim` repeats a run of the simulator, `cargo xtask ci`
//! runs everything.

mod boundaries;
mod ci;
mod source;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// What went wrong, a line each.
type Faults = Vec<String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = root();
    let done = match arguments.first().map(String::as_str) {
        Some("tidy") => tidy(&root),
        Some("ci") => ci::ci(&root),
        Some("coverage") => coverage(&root),
        Some("sim") => sim(&root, &arguments[1..]),
        _ => Err(vec!["usage: cargo xtask tidy | coverage | sim --seed N | ci".to_owned()]),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(faults) => {
            for fault in faults {
                say(&fault);
            }
            ExitCode::FAILURE
        }
    }
}

/// The workspace: the parent of this crate.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

#[expect(clippy::print_stderr, reason = "a command line tool speaks on standard error")]
fn say(line: &str) {
    eprintln!("{line}");
}

fn tidy(root: &Path) -> Result<(), Faults> {
    let mut faults = source::check(root);
    faults.extend(boundaries::check(root));
    if faults.is_empty() {
        say("tidy: nothing to say");
        return Ok(());
    }
    Err(faults)
}

/// Asks the router for every operation of the specification and writes down what it has.
fn coverage(root: &Path) -> Result<(), Faults> {
    run(Command::new("cargo")
        .args(["test", "--quiet", "-p", "messagehub-api", "--test", "coverage"])
        .env("UPDATE_COVERAGE", "1")
        .current_dir(root))
}

fn sim(root: &Path, arguments: &[String]) -> Result<(), Faults> {
    let [flag, seed] = arguments else {
        return Err(vec!["usage: cargo xtask sim --seed N".to_owned()]);
    };
    if flag != "--seed" || seed.parse::<u64>().is_err() {
        return Err(vec!["usage: cargo xtask sim --seed N".to_owned()]);
    }
    run(Command::new("cargo")
        .args(["test", "-p", "sim", "one_seed", "--", "--nocapture"])
        .env("SIM_SEED", seed)
        .current_dir(root))
}

fn run(command: &mut Command) -> Result<(), Faults> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(vec![format!("{command:?}: {status}")]),
        Err(error) => Err(vec![format!("{command:?}: {error}")]),
    }
}
