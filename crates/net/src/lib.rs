//! How bytes reach other nodes: libp2p.
//!
//! One implementer of the port in `messagehub_homeserver::peers`. Invariants: the swarm task does
//! no I/O of its own and never waits; every queue is bounded; a request goes only to a peer whose
//! verified `server_keys` are those of the server asked for and list its PeerId; peers reach the
//! service they are given and nothing else.

mod behaviour;
mod book;
mod config;
mod dht;
mod discovery;
mod event_loop;
mod gossip;
mod handshakes;
mod host;
mod metrics;
mod private_network;
mod reach;
mod records;
mod relaying;
mod requests;
mod scope;
mod scoped;
mod streams;
mod transport;

pub use config::{NetConfig, RelayService, Seed, StartError, Switch};
pub use dht::PUBLIC_BOOTSTRAP_PEERS;
pub use host::{Host, start};
pub use private_network::PrivateNetwork;
pub use requests::{BoxError, RequestBody};
