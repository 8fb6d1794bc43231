//! Read receipts and fully read markers.
//!
//! Spec: Client-Server API, "Receipts" and "Fully read markers".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    receipts::{self, Kind, Mark, NewReceipt},
    sessions::Session,
};
use ruma::{
    api::client::{
        read_marker::set_read_marker,
        receipt::create_receipt::{self, v3::ReceiptType},
    },
    events::receipt::ReceiptThread,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(send).ruma(set_markers)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
async fn send(
    hs: Homeserver,
    caller: Session,
    req: create_receipt::v3::Request,
) -> Result<create_receipt::v3::Response, ApiError> {
    let mark = match req.receipt_type {
        ReceiptType::Read => Mark::Read(Kind::Public),
        ReceiptType::ReadPrivate => Mark::Read(Kind::Private),
        ReceiptType::FullyRead => Mark::FullyRead,
        _ => return Err(ApiError::invalid_param("There is no such type of receipt.")),
    };
    let new = NewReceipt { room_id: req.room_id, event_id: req.event_id, mark, thread: req.thread };
    receipts::send(&hs, &caller.user_id, vec![new]).await?;
    Ok(create_receipt::v3::Response::new())
}

/// `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
async fn set_markers(
    hs: Homeserver,
    caller: Session,
    req: set_read_marker::v3::Request,
) -> Result<set_read_marker::v3::Response, ApiError> {
    let marks = [
        (req.fully_read, Mark::FullyRead),
        (req.read_receipt, Mark::Read(Kind::Public)),
        (req.private_read_receipt, Mark::Read(Kind::Private)),
    ];
    let new = marks.into_iter().filter_map(|(event_id, mark)| {
        let room_id = req.room_id.clone();
        Some(NewReceipt { room_id, event_id: event_id?, mark, thread: ReceiptThread::Unthreaded })
    });
    receipts::send(&hs, &caller.user_id, new.collect()).await?;
    Ok(set_read_marker::v3::Response::new())
}
