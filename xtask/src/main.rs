//! Repository tasks: `cargo xtask tidy` checks what the compiler does not, `cargo xtask coverage`
//! writes `docs/coverage.md`, `cargo xtask sim` repeats a run of the simulator, `cargo xtask interop`
//! drives a node with go-libp2p, `cargo xtask ci` runs everything.

mod boundaries;
mod ci;
mod interop;
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
        Some("interop") => interop::interop(&root),
        _ => {
            Err(vec!["usage: cargo xtask tidy | coverage | sim --seed N | interop | ci".to_owned()])
        }
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

/// Builds the simulator fast enough for many runs, and starts it. What it does with its arguments
/// is in `tests/sim/src/main.rs`.
fn sim(root: &Path, arguments: &[String]) -> Result<(), Faults> {
    run(Command::new("cargo")
        .args(["run", "--quiet", "--profile", "sim", "-p", "sim", "--"])
        .args(arguments)
        .current_dir(root))
}

fn run(command: &mut Command) -> Result<(), Faults> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(vec![format!("{command:?}: {status}")]),
        Err(error) => Err(vec![format!("{command:?}: {error}")]),
    }
}
