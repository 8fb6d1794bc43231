//! What travels between nodes beside the Server-Server API's own bodies.
//!
//! `docs/wire.md` describes all of it for other implementers.

pub mod frame;
pub mod heads;
pub mod media;
pub mod relayed;
pub mod request;
pub mod room_keys;
pub mod sealed;

mod signed;

#[cfg(test)]
mod tests;
