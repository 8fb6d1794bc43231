//! Account data: what clients keep on the server for their user, for the whole account or one
//! room. It shows in the user's `/sync`.
//!
//! Spec: Client-Server API, "Client Config".

use messagehub_store::{StoreError, account_data, account_data::Scope};
use ruma::{OwnedRoomId, UserId};
use serde_json::value::RawValue;

use crate::{Homeserver, push_rules};

/// Data of one user. Clients write a few dozen, and some per room.
const MAX_DATA: u64 = 50_000;

/// Why account data could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AccountDataError {
    /// There is none of that type.
    #[error("there is no account data of that type")]
    Unknown,
    /// Push rules and read markers have operations of their own.
    #[error("this type cannot be set here")]
    Managed,
    /// The content is not a JSON object.
    #[error("account data is a JSON object")]
    NotAnObject,
    /// The user keeps too much already.
    #[error("the account has too much data")]
    TooMuch,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which datum is meant.
#[derive(Debug, Clone)]
pub struct Key {
    /// The room; `None` for the account as a whole.
    pub room_id: Option<OwnedRoomId>,
    /// The type.
    pub kind: String,
}

impl Key {
    fn scope(&self) -> Scope<'_> {
        self.room_id.as_deref().map_or(Scope::Global, Scope::Room)
    }
}

/// The content of a datum.
///
/// # Errors
/// See [`AccountDataError`].
pub async fn get(
    hs: &Homeserver,
    user_id: &UserId,
    key: Key,
) -> Result<Box<RawValue>, AccountDataError> {
    let user_id = user_id.to_owned();
    hs.store
        .read(move |snap| {
            account_data::find(snap, &user_id, key.scope(), &key.kind)?
                .ok_or(AccountDataError::Unknown)
        })
        .await
}

/// Writes a datum.
///
/// # Errors
/// See [`AccountDataError`].
pub async fn set(
    hs: &Homeserver,
    user_id: &UserId,
    key: Key,
    content: Box<RawValue>,
) -> Result<(), AccountDataError> {
    if key.kind == push_rules::KIND || key.kind == "m.fully_read" {
        return Err(AccountDataError::Managed);
    }
    if !content.get().starts_with('{') {
        return Err(AccountDataError::NotAnObject);
    }
    let user_id = user_id.to_owned();
    hs.store
        .write(move |txn| {
            if account_data::count(txn, &user_id)? >= MAX_DATA {
                return Err(AccountDataError::TooMuch);
            }
            account_data::set(txn, &user_id, key.scope(), &key.kind, &content)?;
            Ok(())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestServer, content};

    #[tokio::test]
    async fn what_is_written_is_read_and_managed_types_are_refused() {
        let server = TestServer::new(1);
        let (hs, ann) = (&server.hs, server.user_id("ann"));
        let key = |kind: &str| Key { room_id: None, kind: kind.to_owned() };
        let value = content(&serde_json::json!({"a": 1}));
        set(hs, &ann, key("m.direct"), value.clone()).await.unwrap();
        assert_eq!(get(hs, &ann, key("m.direct")).await.unwrap().get(), value.get());
        let other = get(hs, &server.user_id("bob"), key("m.direct")).await;
        assert!(matches!(other, Err(AccountDataError::Unknown)), "{other:?}");
        for kind in ["m.push_rules", "m.fully_read"] {
            let refused = set(hs, &ann, key(kind), value.clone()).await;
            assert!(matches!(refused, Err(AccountDataError::Managed)), "{refused:?}");
        }
        let list = set(hs, &ann, key("m.x"), content(&serde_json::json!([]))).await;
        assert!(matches!(list, Err(AccountDataError::NotAnObject)), "{list:?}");
    }
}
