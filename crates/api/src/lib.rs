//! How requests reach this node: the Client-Server and the Server-Server API as axum routers.
//!
//! Invariant: this crate translates and decides nothing about Matrix. A handler calls one
//! use-case of `messagehub-homeserver` and wraps the answer; HTTP status and `errcode` exist
//! only in [`error`].

pub mod client;
pub mod error;
pub mod server;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;

mod caller;
mod endpoint;

pub use error::ApiError;
