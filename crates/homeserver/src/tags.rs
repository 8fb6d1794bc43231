//! Tags: how a user sorts their rooms.
//!
//! Spec: Client-Server API, "Room Tagging".

use messagehub_store::{
    Snapshot, StoreError,
    account_data::{self, Scope},
};
use ruma::{OwnedRoomId, RoomId, UserId};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::Homeserver;

/// The type of the account data that holds the tags of a room.
const KIND: &str = "m.tag";

/// Tags of one room: the specification names three, and people make up a few.
const MAX_TAGS: usize = 100;

/// Bytes of the name of a tag.
///
/// Spec: Client-Server API, "Room Tagging".
const MAX_NAME_BYTES: usize = 255;

/// Why tags are not changed.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// The name is too long.
    #[error("the name of a tag has at most {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// The room has [`MAX_TAGS`].
    #[error("the room has too many tags")]
    TooMany,
    /// What is said of a tag is no JSON object.
    #[error("what is said of a tag is a JSON object")]
    NotAnObject,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tags of a room: the value of `tags`.
///
/// # Errors
/// The store's.
pub async fn list(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
) -> Result<Map<String, Value>, StoreError> {
    let user_id = user_id.to_owned();
    hs.store.read(move |snap| tags(snap, &user_id, &room_id)).await
}

/// Puts a tag on a room, or changes what is said of it.
///
/// # Errors
/// See [`TagError`].
pub async fn set(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
    (tag, info): (String, Box<RawValue>),
) -> Result<(), TagError> {
    if tag.len() > MAX_NAME_BYTES {
        return Err(TagError::TooLong);
    }
    let info: Map<String, Value> =
        serde_json::from_str(info.get()).map_err(|_| TagError::NotAnObject)?;
    change(hs, user_id, room_id, move |tags| {
        if tags.len() >= MAX_TAGS && !tags.contains_key(&tag) {
            return Err(TagError::TooMany);
        }
        tags.insert(tag, info.into());
        Ok(())
    })
    .await
}

/// Takes a tag off a room. One that is not there is no error.
///
/// # Errors
/// The store's.
pub async fn remove(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
    tag: String,
) -> Result<(), TagError> {
    change(hs, user_id, room_id, move |tags| {
        tags.remove(&tag);
        Ok(())
    })
    .await
}

async fn change(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), TagError> + Send + 'static,
) -> Result<(), TagError> {
    let user_id = user_id.to_owned();
    hs.store
        .write(move |txn| {
            let before = tags(txn, &user_id, &room_id)?;
            let mut after = before.clone();
            change(&mut after)?;
            if after != before {
                let content =
                    to_raw_value(&json!({ "tags": after })).map_err(|_| TagError::NotAnObject)?;
                account_data::set(txn, &user_id, Scope::Room(&room_id), KIND, &content)?;
            }
            Ok(())
        })
        .await
}

/// The tags as clients may have written them by themselves: of any form.
fn tags(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    room_id: &RoomId,
) -> Result<Map<String, Value>, StoreError> {
    let datum = account_data::find(snap, user_id, Scope::Room(room_id), KIND)?;
    let content = datum.and_then(|datum| serde_json::from_str::<Value>(datum.get()).ok());
    Ok(match content.as_ref().and_then(|content| content.get("tags")) {
        Some(Value::Object(tags)) => tags.clone(),
        _ => Map::new(),
    })
}

#[cfg(test)]
mod tests {
    use ruma::owned_room_id;

    use super::*;
    use crate::testing::{TestServer, content};

    #[tokio::test]
    async fn tags_come_and_go() {
        let server = TestServer::new(1);
        let (hs, ann) = (&server.hs, server.user_id("ann"));
        let room = || owned_room_id!("!r:x");
        let info = || content(&json!({ "order": 0.25 }));
        assert_eq!(list(hs, &ann, room()).await.unwrap(), Map::new());
        for tag in ["m.favourite", "u.work"] {
            set(hs, &ann, room(), (tag.to_owned(), info())).await.unwrap();
        }
        remove(hs, &ann, room(), "u.work".to_owned()).await.unwrap();
        remove(hs, &ann, room(), "u.never".to_owned()).await.unwrap();
        let tags = Value::Object(list(hs, &ann, room()).await.unwrap());
        assert_eq!(tags, json!({ "m.favourite": { "order": 0.25 } }));

        let long = set(hs, &ann, room(), ("x".repeat(256), info())).await;
        assert!(matches!(long, Err(TagError::TooLong)), "{long:?}");
        let list = set(hs, &ann, room(), ("u.x".to_owned(), content(&json!([])))).await;
        assert!(matches!(list, Err(TagError::NotAnObject)), "{list:?}");
    }
}
