//! Many homeservers on one thread, with a seeded clock, seeded links, cuts, crashes and hostile
//! members.
//!
//! Everything is real but time, chance and the transport: the homeservers with their SQLite
//! databases, their run loops, and the Server-Server router that answers their peers. The
//! simulator plays `net` at the other end of the port (`homeserver::peers`).
//!
//! A seed makes a [`Script`], and a run follows from its script, so a seed that fails fails again,
//! and what is left out of the script ([`shrink`]) changes nothing else. A run has three parts:
//! trouble (people act while links break and nodes die), peace (all links and nodes are back, nobody
//! acts, and everything that is missing must arrive), and the last word (one message from each
//! member, after which all honest nodes must hold the same bytes).

mod course;
mod crowd;
mod deeds;
mod dice;
mod errors;
mod evil;
mod ledger;
mod life;
mod links;
mod look;
mod measure;
mod plan;
mod requests;
mod script;
mod shrink;
mod tally;
mod trace;
mod transport;
mod verdict;
mod world;

pub use script::{Deed, Endpoints, NetPlan, NodePlan, Script, Step, Switches, Vice, What};
pub use shrink::{Shrunk, shrink};
pub use tally::Tally;

use std::{rc::Rc, time::Duration};

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What happened in it, in numbers.
    pub tally: Tally,
    /// A hash of everything that happened, in its order.
    pub trace: u64,
}

/// What a run found wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[error("seed {seed}: {reason}\n  repeat it with: cargo xtask sim --seed {seed}")]
pub struct Failure {
    /// The seed that shows it again.
    pub seed: u64,
    /// What was wrong.
    pub reason: String,
}

impl Failure {
    /// What kind of failure it is: the words of the reason that name no node, event or time.
    pub fn kind(&self) -> String {
        let words = self.reason.lines().next().unwrap_or_default().split_whitespace();
        let plain = words.filter(|word| {
            word.chars().all(|letter| letter.is_ascii_alphabetic() || ",:".contains(letter))
                && word.len() < 20
        });
        plain.take(12).collect::<Vec<_>>().join(" ")
    }
}

/// Why something in a run went wrong, for the report.
pub(crate) type Fault = Box<dyn std::error::Error>;

/// A run is stopped when this much of its own time has passed: far more than any needs.
const LONGEST_RUN: Duration = Duration::from_secs(6 * 3600);

/// Runs a script.
///
/// # Errors
/// What the run found wrong.
pub fn run(script: &Script) -> Result<Outcome, Failure> {
    let errors = errors::Errors::listen();
    let failure = |reason: String| Failure { seed: script.seed, reason };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| failure(error.to_string()))?;
    let local = tokio::task::LocalSet::new();
    let whole = async {
        let world = world::World::new(script.clone())?;
        let told = tokio::time::timeout(LONGEST_RUN, course::play(&world)).await;
        let trouble = world.close().await;
        told.map_err(|_| "the run does not end")??;
        match trouble {
            Some(trouble) => Err(trouble.into()),
            None => Ok(Rc::clone(&world)),
        }
    };
    let played: Result<_, Fault> = local.block_on(&runtime, whole);
    let logged = errors.take();
    let world = played.map_err(|fault| failure(with(&fault.to_string(), &logged)))?;
    if !logged.is_empty() {
        return Err(failure(with("a homeserver reported an error", &logged)));
    }
    Ok(Outcome { tally: world.tally.borrow().clone(), trace: world.trace.borrow().value() })
}

fn with(reason: &str, logged: &str) -> String {
    match logged.is_empty() {
        true => reason.to_owned(),
        false => format!("{reason}\n  logged: {logged}"),
    }
}
