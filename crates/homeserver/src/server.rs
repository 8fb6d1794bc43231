//! What this node answers to other servers.
//!
//! Invariant: nothing about a room is told to a server that is not in it (or was not, as far as
//! the room's history visibility says); each answer is bounded.

pub mod access;
pub mod events;
pub mod heads;
pub mod invite;
pub mod keys;
pub mod membership;
pub mod origin;
pub mod state;
pub mod transactions;
