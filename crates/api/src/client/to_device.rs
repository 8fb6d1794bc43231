//! Messages from device to device.
//!
//! Spec: Client-Server API, "Send-to-Device messaging".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    sessions::Session,
    to_device::{self, Sending},
};
use ruma::api::client::to_device::send_event_to_device::v3::{Request, Response};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(send)
}

/// `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`
async fn send(hs: Homeserver, caller: Session, req: Request) -> Result<Response, ApiError> {
    let sending = Sending { kind: req.event_type, txn_id: req.txn_id, messages: req.messages };
    to_device::send(&hs, &caller, sending).await?;
    Ok(Response::new())
}
