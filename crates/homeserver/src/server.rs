//! What this node answers to other servers.
//!
//! Invariant: nothing about a room is told to a server that is not in it (or was not, as far as
//! the room's history visibility says); each answer is bounded.

pub mod access;
pub mod events;
pub mod heads;
pub mod hierarchy;
pub mod invite;
pub mod keys;
pub mod membership;
pub mod origin;
pub(crate) mod pace;
pub mod policy;
pub mod relay;
pub mod room_keys;
pub mod shown;
pub mod state;
pub mod third_party;
pub mod timestamp;
pub mod transactions;
