//! Voice over IP.
//!
//! Spec: Client-Server API, "Voice over IP".

use axum::{Json, Router, body::Body, extract::State, routing::get};
use bytes::Bytes;
use messagehub_homeserver::Homeserver;
use ruma::api::auth_scheme::AccessToken;
use serde_json::{Value, json};

use crate::{ApiError, caller::Scheme};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .route("/_matrix/client/v3/voip/turnServer", get(turn_server))
        .route("/_matrix/client/r0/voip/turnServer", get(turn_server))
}

/// `GET /_matrix/client/v3/voip/turnServer`
///
/// This node has none. The specification has no answer for that; an empty object is what Synapse
/// gives, and what keeps web clients from reporting an error at every start.
async fn turn_server(
    State(hs): State<Homeserver>,
    request: http::Request<Body>,
) -> Result<Json<Value>, ApiError> {
    AccessToken::identify(&hs, &request.map(|_| Bytes::new())).await?;
    Ok(Json(json!({})))
}
