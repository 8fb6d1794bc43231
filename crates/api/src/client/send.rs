//! Sending messages.
//!
//! Spec: Client-Server API, "Sending events to a room".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    send::{self, NewMessage},
    sessions::Session,
};
use ruma::{api::client::message::send_message_event, events::TimelineEventType};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(send_message)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
async fn send_message(
    hs: Homeserver,
    session: Session,
    req: send_message_event::v3::Request,
) -> Result<send_message_event::v3::Response, ApiError> {
    let new = NewMessage {
        room_id: req.room_id,
        kind: TimelineEventType::from(req.event_type),
        content: req.body.into_json(),
        txn_id: req.txn_id,
    };
    Ok(send_message_event::v3::Response::new(send::message(&hs, &session, new).await?))
}
