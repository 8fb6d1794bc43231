//! Redacting events.
//!
//! Spec: Client-Server API, "Redactions".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    send::{self, NewRedaction},
    sessions::Session,
};
use ruma::api::client::redact::redact_event;

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(redact_event)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
async fn redact_event(
    hs: Homeserver,
    session: Session,
    req: redact_event::v3::Request,
) -> Result<redact_event::v3::Response, ApiError> {
    let new = NewRedaction {
        room_id: req.room_id,
        target: req.event_id,
        reason: req.reason,
        txn_id: req.txn_id,
    };
    Ok(redact_event::v3::Response::new(send::redaction(&hs, &session, new).await?))
}
