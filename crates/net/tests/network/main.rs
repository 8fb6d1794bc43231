//! Real libp2p on loopback: several nodes in one process, each with a small service.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod discovery;
mod gossip;
mod node;
mod private;
mod public_dht;
mod records;
mod relay;
mod requests;
