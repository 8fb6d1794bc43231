//! The Server-Server API: all that a peer can reach. One file per chapter of the specification.
//!
//! Invariant: every operation but the public ones (version, keys) knows its [`auth::Origin`], and
//! nothing of the Client-Server API is here.

mod auth;
mod events;
mod heads;
mod keyed;
mod keys;
mod media;
mod membership;
mod policy;
mod query;
mod relay;
mod room_keys;
mod rooms;
mod transactions;
mod users;

use axum::{Router, response::IntoResponse};
use messagehub_homeserver::Homeserver;

use crate::ApiError;

/// All operations of the Server-Server API that this node has. Everything else answers 404
/// `M_UNRECOGNIZED`, a known path with another method 405.
///
/// The transport puts a [`messagehub_homeserver::peers::PeerIdentity`] into the extensions of
/// each request; without one nothing signed is accepted.
pub fn router(hs: Homeserver) -> Router {
    let operations = Router::new()
        .merge(events::router())
        .merge(heads::router())
        .merge(keys::router())
        .merge(media::router())
        .merge(membership::router())
        .merge(policy::router())
        .merge(query::router())
        .merge(rooms::router())
        .merge(transactions::router())
        .merge(users::router());
    let relayed = closed(operations.clone()).with_state(hs.clone());
    // Never relayed: a key is given to whoever is at the other end.
    let operations = operations.merge(room_keys::router());
    closed(operations.merge(relay::router(relayed))).with_state(hs)
}

/// Answers whatever is not there.
fn closed(operations: Router<Homeserver>) -> Router<Homeserver> {
    operations
        .fallback(async || ApiError::unrecognized().into_response())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed().into_response())
}
