//! What continuous integration runs, and what README's second command is: every check there is,
//! the cheap ones first.

use std::{path::Path, process::Command};

use crate::{Faults, run, say};

/// One check: where it runs, and the arguments of cargo.
struct Step {
    folder: &'static str,
    arguments: &'static [&'static str],
}

const STEPS: &[Step] = &[
    Step { folder: ".", arguments: &["fmt", "--all", "--check"] },
    Step { folder: "tests/e2e", arguments: &["fmt", "--all", "--check"] },
    Step { folder: ".", arguments: &["xtask", "tidy"] },
    Step {
        folder: ".",
        arguments: &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"],
    },
    Step { folder: ".", arguments: &["test", "--locked", "--workspace"] },
    Step { folder: ".", arguments: &["build", "--locked", "--bin", "messagehub"] },
    Step {
        folder: "tests/e2e",
        arguments: &["clippy", "--locked", "--all-targets", "--", "-D", "warnings"],
    },
    Step { folder: "tests/e2e", arguments: &["test", "--locked", "--", "--test-threads=2"] },
];

/// Runs every step; the first that fails ends it.
pub(crate) fn ci(root: &Path) -> Result<(), Faults> {
    for step in STEPS {
        say(&format!("ci: {}: cargo {}", step.folder, step.arguments.join(" ")));
        run(Command::new("cargo").args(step.arguments).current_dir(root.join(step.folder)))?;
    }
    Ok(())
}
