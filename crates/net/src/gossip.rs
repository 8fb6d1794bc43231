//! Room events among members: gossipsub, one topic a room. D10.
//!
//! Gossip is the fast path and may lose anything; the heads exchange repairs it. So nothing here
//! retries, and every queue that is full drops.

mod faults;
mod prompt;
mod settings;
#[cfg(test)]
mod tests;
mod topics;
mod verdicts;

pub(crate) use faults::Faults;
pub(crate) use settings::{Gossip, MAX_TOPICS, behaviour};
pub(crate) use topics::Topics;
pub(crate) use verdicts::{Verdict, Verdicts};
