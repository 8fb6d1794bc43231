//! What continuous integration runs, and what README's second command is: every check there is,
//! the cheap ones first.

use std::{path::Path, process::Command};

use crate::{Faults, run, say};

/// One check: where it runs, and the command.
struct Step {
    folder: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

const fn cargo(folder: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { folder, program: "cargo", arguments }
}

const STEPS: &[Step] = &[
    cargo(".", &["fmt", "--all", "--check"]),
    cargo("tests/e2e", &["fmt", "--all", "--check"]),
    cargo(".", &["xtask", "tidy"]),
    cargo(".", &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    cargo(".", &["test", "--locked", "--workspace"]),
    cargo(".", &["run", "--locked", "-p", "messagehub-fuzz", "--", "--seconds", "3"]),
    cargo(".", &["build", "--locked", "--bin", "messagehub"]),
    cargo(".", &["xtask", "interop"]),
    cargo("tests/e2e", &["clippy", "--locked", "--all-targets", "--", "-D", "warnings"]),
    Step { folder: "tests/e2e/web", program: "npm", arguments: &["ci"] },
    cargo("tests/e2e", &["test", "--locked", "--", "--test-threads=2"]),
];

/// Runs every step; the first that fails ends it.
pub(crate) fn ci(root: &Path) -> Result<(), Faults> {
    for step in STEPS {
        say(&format!("ci: {}: {} {}", step.folder, step.program, step.arguments.join(" ")));
        run(Command::new(step.program).args(step.arguments).current_dir(root.join(step.folder)))?;
    }
    Ok(())
}
