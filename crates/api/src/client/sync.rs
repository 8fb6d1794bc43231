//! Syncing.
//!
//! Spec: Client-Server API, "Syncing".

use axum::Router;
use messagehub_homeserver::{Homeserver, sessions::Session, sync};
use ruma::api::client::sync::sync_events;

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(sync)
}

/// `GET /_matrix/client/v3/sync`
async fn sync(
    hs: Homeserver,
    caller: Session,
    req: sync_events::v3::Request,
) -> Result<sync_events::v3::Response, ApiError> {
    Ok(sync::sync(&hs, &caller, req).await?)
}
