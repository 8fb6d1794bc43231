//! Drives the real binary with go-libp2p: `tests/interop`.

use std::{path::Path, process::Command};

use crate::{Faults, run};

/// Builds the binary, and runs the tests in Go after what Go says about their form.
pub(crate) fn interop(root: &Path) -> Result<(), Faults> {
    let folder = root.join("tests/interop");
    let build = ["build", "--locked", "--bin", "messagehub"];
    run(Command::new("cargo").args(build).current_dir(root))?;
    // gofmt names the files that it would change, and that is no error for it.
    let output = Command::new("gofmt").args(["-l", "."]).current_dir(&folder).output();
    let output = output.map_err(|error| vec![format!("gofmt, which comes with Go: {error}")])?;
    let unformatted = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || !unformatted.is_empty() {
        return Err(unformatted
            .lines()
            .map(|file| format!("gofmt: tests/interop/{file}"))
            .collect());
    }
    // Each test by name: what is skipped must be seen.
    for arguments in [&["vet", "./..."][..], &["test", "-count=1", "-v", "./..."]] {
        run(Command::new("go").args(arguments).current_dir(&folder))?;
    }
    Ok(())
}
