//! Spec: Server-Server API, "Policy Servers".

use axum::Router;
use messagehub_homeserver::{Homeserver, server::policy};
use ruma::api::federation::policy::sign_event;

use super::auth::Origin;
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(sign)
}

/// `POST /_matrix/policy/v1/sign`
async fn sign(
    hs: Homeserver,
    Origin(origin): Origin,
    request: sign_event::v1::Request,
) -> Result<sign_event::v1::Response, ApiError> {
    let signature = policy::sign(&hs, origin, request.pdu).await?;
    Ok(sign_event::v1::Response::new(hs.server_name().to_owned(), signature))
}
