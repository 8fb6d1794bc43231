//! Several homeservers in one process, one thread and virtual time, joined by an in-memory
//! transport: what the federation tests and the simulator run on.
//!
//! The transport plays the part of `net`: it hands requests to each other's
//! [`server::router`](crate::server::router), floods frames to subscribers, and reports who is
//! connected. Links can be cut, nodes stopped and started again on the same data.

mod addresses;
mod hub;
mod node;
#[cfg(test)]
mod tests;

pub use hub::{Hub, Link, deliver};
pub use node::{Net, Node};
