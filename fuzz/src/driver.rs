//! Runs one target: the corpus first, then inputs made from it.

use std::{
    collections::BTreeSet,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    mutate::{Choices, mutated},
    targets::Target,
};

/// Inputs that later ones are made from: more ends than a decoder has.
const MAX_POOL: usize = 4_096;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// After so much time.
    Time(Duration),
    /// After so many inputs.
    Inputs(u64),
}

/// What a run was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    /// Inputs that the target was given, those of the corpus included.
    pub inputs: u64,
    /// Different ends that they came to.
    pub ends: usize,
}

/// An input on which a target failed.
#[derive(Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What the target said.
    pub said: String,
}

/// The inputs that are kept for a target, by the names of their files.
///
/// # Errors
/// The corpus cannot be read, or there is none.
pub fn corpus(name: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    files.into_iter().map(|path| Ok((path.clone(), fs::read(path)?))).collect()
}

/// Runs a target on a corpus, and on what is made from it.
///
/// # Errors
/// The first input on which it fails.
pub fn run(
    target: &Target,
    corpus: Vec<Vec<u8>>,
    seed: u64,
    budget: Budget,
) -> Result<Worth, Failure> {
    let started = Instant::now();
    let mut choices = Choices::from_seed(seed);
    let mut ends = BTreeSet::new();
    let mut inputs = 0;
    for input in &corpus {
        ends.insert(end_of(target, input)?);
        inputs += 1;
    }
    let mut pool = corpus;
    loop {
        let done = match budget {
            // A look at the clock costs more than many an input.
            Budget::Time(time) => inputs % 64 == 0 && started.elapsed() >= time,
            Budget::Inputs(most) => inputs >= most,
        };
        if done {
            return Ok(Worth { inputs, ends: ends.len() });
        }
        let input = mutated(&pool, &mut choices);
        inputs += 1;
        if ends.insert(end_of(target, &input)?) && pool.len() < MAX_POOL {
            pool.push(input);
        }
    }
}

fn end_of(target: &Target, input: &[u8]) -> Result<String, Failure> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failure { input: input.to_vec(), said: said.unwrap_or_default() }
    })
}
