//! Spec: Server-Server API, "Transactions".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    server::transactions::{self, Transaction},
};
use ruma::api::federation::transactions::send_transaction_message;

use super::{
    auth::Origin,
    keyed::{Keyed, KeyedAnswer},
};
use crate::{ApiError, endpoint::RumaRoutes};

/// Largest transaction in bytes: 50 of the largest events, 51 of the largest `server_keys`, and
/// half a MiB for EDUs.
const MAX_TRANSACTION_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma_with_limit(send, |_| MAX_TRANSACTION_BYTES)
}

/// `PUT /_matrix/federation/v1/send/{txnId}`
async fn send(
    hs: Homeserver,
    Origin(origin): Origin,
    Keyed { request, server_keys, .. }: Keyed<send_transaction_message::v1::Request>,
) -> Result<KeyedAnswer<send_transaction_message::v1::Response>, ApiError> {
    let transaction = Transaction {
        txn_id: request.transaction_id.to_string(),
        pdus: request.pdus,
        edus: request.edus.into_iter().map(ruma::serde::Raw::into_json).collect(),
        server_keys,
    };
    let results = transactions::apply(&hs, origin, transaction).await?;
    let answer = send_transaction_message::v1::Response::new(results);
    Ok(KeyedAnswer { answer, server_keys: Vec::new() })
}
