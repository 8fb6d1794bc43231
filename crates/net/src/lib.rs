//! How bytes reach other nodes: libp2p.
//!
//! One implementer of the port in `messagehub_homeserver::peers`. Invariants: the swarm task does
//! no I/O of its own and never waits; every queue is bounded; a request goes only to a peer whose
//! verified `server_keys` are those of the server asked for and list its PeerId; peers reach the
//! service they are given and nothing else.

mod behaviour;
mod book;
mod config;
mod discovery;
mod event_loop;
mod gossip;
mod host;
mod metrics;
mod requests;
mod streams;

pub use config::{NetConfig, Seed, StartError, Switch};
pub use host::{Host, start};
pub use requests::{BoxError, RequestBody};
