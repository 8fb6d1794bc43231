//! What all nodes must agree on, byte for byte.

pub mod auth;
pub mod build;
pub mod canonical;
pub mod identity;
pub mod keys;
pub mod limits;
pub mod pdu;
pub mod policy;
pub mod receive;
pub mod resolve;
pub mod rules;
pub mod server_keys;
pub mod signed_json;
pub mod wire;

#[cfg(test)]
mod testing;
