//! The Client-Server API. One file per chapter of the specification.

mod account;
mod account_data;
mod aliases;
mod directory;
mod filter;
mod keys;
mod media;
mod members;
mod membership;
mod messages;
mod openid;
mod presence;
mod profile;
pub(crate) mod proof;
mod public_rooms;
mod push;
mod receipts;
mod redact;
mod rooms_create;
mod send;
mod server;
mod session;
mod spaces;
mod state;
mod sync;
mod tags;
mod to_device;
mod typing;
mod voip;

use axum::{Router, response::IntoResponse};
use http::{HeaderName, Method, header};
use messagehub_homeserver::Homeserver;
use tower_http::cors::{Any, CorsLayer};

use crate::ApiError;

/// All operations of the Client-Server API that this node has. Everything else answers 404
/// `M_UNRECOGNIZED`, a known path with another method 405.
pub fn router(hs: Homeserver) -> Router {
    Router::new()
        .merge(server::router())
        .merge(session::router())
        .merge(account::router())
        .merge(profile::router())
        .merge(account_data::router())
        .merge(filter::router())
        .merge(push::router())
        .merge(media::router())
        .merge(directory::router())
        .merge(sync::router())
        .merge(messages::router())
        .merge(members::router())
        .merge(receipts::router())
        .merge(typing::router())
        .merge(keys::router())
        .merge(to_device::router())
        .merge(presence::router())
        .merge(openid::router())
        .merge(rooms_create::router())
        .merge(membership::router())
        .merge(send::router())
        .merge(state::router())
        .merge(redact::router())
        .merge(aliases::router())
        .merge(public_rooms::router())
        .merge(spaces::router())
        .merge(tags::router())
        .merge(voip::router())
        .fallback(async || ApiError::unrecognized().into_response())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed().into_response())
        .layer(cors())
        .with_state(hs)
}

/// Any web client may talk to this server; what it may do is decided by its token.
///
/// Spec: Client-Server API, "Web Browser Clients".
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
        .allow_headers([
            HeaderName::from_static("x-requested-with"),
            header::CONTENT_TYPE,
            header::AUTHORIZATION,
        ])
}
