//! What travels between nodes beside the Server-Server API's own bodies.
//!
//! `docs/wire.md` describes all of it for other implementers.

pub mod frame;
pub mod heads;
pub mod request;

mod signed;

#[cfg(test)]
mod tests;
