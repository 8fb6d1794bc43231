//! Asking a member of a room for the keys with which its frames are sealed.
//!
//! An answer need not be trusted: each key is checked against the id that was asked for, which
//! names its owner and its room.

use data_encoding::BASE64_NOPAD;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};
use thiserror::Error;
use zeroize::Zeroizing;

use super::sealed::{ROOM_KEY_BYTES, RoomKey, RoomKeyId};
use crate::limits::{MAX_ROOM_KEY_AFTER, MAX_ROOM_KEYS_ASKED};

/// Where room keys are asked for. Never relayed: a key is given to whoever is at the other end.
pub const ROOM_KEYS_PATH: &str = "/_matrix/federation/unstable/net.messagehub/room_keys";

/// Which keys are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomKeysRequest {
    /// The room, in which asker and answerer are joined.
    pub room_id: OwnedRoomId,
    /// The ids of the keys, at most [`MAX_ROOM_KEYS_ASKED`].
    pub key_ids: Vec<RoomKeyId>,
}

/// Those of the keys that the answerer holds and may give.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RoomKeysResponse {
    /// In any order.
    pub keys: Vec<RoomKey>,
}

/// Why bytes are no request for keys, or no answer to one.
#[derive(Debug, Error)]
pub enum RoomKeysError {
    /// Another form.
    #[error("room keys: {0}")]
    Form(#[from] serde_json::Error),
    /// More entries than the bound.
    #[error("room keys: too many {0}")]
    TooMany(&'static str),
    /// No 32 bytes of base64.
    #[error("room keys: a key that is none")]
    Key,
    /// A key whose id was not asked for: of another server or room than it says, or made up.
    #[error("room keys: a key that was not asked for")]
    NotAsked,
}

impl RoomKeysRequest {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// [`RoomKeysError`]; a list above its bound is one.
    pub fn parse(json: &[u8]) -> Result<Self, RoomKeysError> {
        let request: Self = serde_json::from_slice(json)?;
        if request.key_ids.len() > MAX_ROOM_KEYS_ASKED {
            return Err(RoomKeysError::TooMany("key_ids"));
        }
        Ok(request)
    }
}

impl RoomKeysResponse {
    /// Reads the answer to a request.
    ///
    /// # Errors
    ///
    /// [`RoomKeysError`]; a key that was not asked for is one.
    pub fn parse(json: &[u8], asked: &RoomKeysRequest) -> Result<Self, RoomKeysError> {
        let told: Told = serde_json::from_slice(json)?;
        if told.keys.len() > MAX_ROOM_KEYS_ASKED {
            return Err(RoomKeysError::TooMany("keys"));
        }
        let keys: Result<_, _> =
            told.keys.into_iter().map(|key| key.checked(&asked.room_id)).collect();
        let keys: Vec<RoomKey> = keys?;
        if keys.iter().any(|key| !asked.key_ids.contains(&key.id())) {
            return Err(RoomKeysError::NotAsked);
        }
        Ok(Self { keys })
    }
}

#[derive(Deserialize)]
struct Told {
    keys: Vec<ToldKey>,
}

#[derive(Deserialize)]
struct ToldKey {
    owner: OwnedServerName,
    key: String,
    #[serde(default)]
    after: Vec<OwnedEventId>,
}

impl ToldKey {
    fn checked(self, room_id: &RoomId) -> Result<RoomKey, RoomKeysError> {
        if self.after.len() > MAX_ROOM_KEY_AFTER {
            return Err(RoomKeysError::TooMany("events"));
        }
        let text = Zeroizing::new(self.key);
        let mut secret = Zeroizing::new([0; ROOM_KEY_BYTES]);
        let length = BASE64_NOPAD.decode_len(text.len()).map_err(|_| RoomKeysError::Key)?;
        if length != ROOM_KEY_BYTES {
            return Err(RoomKeysError::Key);
        }
        let decoded = BASE64_NOPAD.decode_mut(text.as_bytes(), &mut *secret);
        decoded.map_err(|_| RoomKeysError::Key)?;
        Ok(RoomKey::new(self.owner, room_id, secret, self.after))
    }
}

impl Serialize for RoomKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let secret = Zeroizing::new(BASE64_NOPAD.encode(&*self.secret));
        let mut key = serializer.serialize_struct("RoomKey", 3)?;
        key.serialize_field("after", self.after())?;
        key.serialize_field("key", &*secret)?;
        key.serialize_field("owner", self.owner())?;
        key.end()
    }
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, room_id, server_name};
    use serde_json::{Value, json};

    use super::*;

    fn key(seed: u8, after: usize) -> RoomKey {
        let after = vec![event_id!("$ban").to_owned(); after];
        let owner = server_name!("example.org").to_owned();
        let secret = Zeroizing::new([seed; ROOM_KEY_BYTES]);
        RoomKey::new(owner, room_id!("!room:example.org"), secret, after)
    }

    fn asked(key_ids: Vec<RoomKeyId>) -> RoomKeysRequest {
        RoomKeysRequest { room_id: room_id!("!room:example.org").to_owned(), key_ids }
    }

    fn answer(change: impl FnOnce(&mut Value)) -> Result<RoomKeysResponse, RoomKeysError> {
        let mut json = json!(RoomKeysResponse { keys: vec![key(1, 1)] });
        change(&mut json);
        RoomKeysResponse::parse(json.to_string().as_bytes(), &asked(vec![key(1, 0).id()]))
    }

    #[test]
    fn keys_are_read_back() {
        let read = answer(|_| {}).unwrap();
        assert_eq!((read.keys[0].id(), read.keys[0].after()), (key(1, 0).id(), key(1, 1).after()));
        let request = asked(vec![key(1, 0).id(), key(2, 0).id()]);
        let json = serde_json::to_vec(&request).unwrap();
        assert_eq!(RoomKeysRequest::parse(&json).unwrap(), request);
        assert!(answer(|json| json["keys"] = json!([])).unwrap().keys.is_empty());
    }

    #[test]
    fn a_key_passed_off_as_another_is_refused() {
        let claim = |change: fn(&mut Value)| answer(|json| change(&mut json["keys"][0]));
        let not_asked = |read| matches!(read, Err(RoomKeysError::NotAsked));
        assert!(not_asked(claim(|key| key["owner"] = json!("example.com"))));
        assert!(not_asked(claim(|key| key["key"] = json!(BASE64_NOPAD.encode(&[2; 32])))));
        let mut elsewhere = asked(vec![key(1, 0).id()]);
        elsewhere.room_id = room_id!("!other:example.org").to_owned();
        let json = serde_json::to_vec(&RoomKeysResponse { keys: vec![key(1, 0)] }).unwrap();
        assert!(not_asked(RoomKeysResponse::parse(&json, &elsewhere)));
    }

    #[test]
    fn wrong_forms_are_refused() {
        use RoomKeysError::{Form, Key, TooMany};
        let claim = |change: fn(&mut Value)| answer(|json| change(&mut json["keys"][0]));
        for text in ["", "AAAA", "!", &BASE64_NOPAD.encode(&[1; 33])] {
            assert!(matches!(answer(|json| json["keys"][0]["key"] = json!(text)), Err(Key)));
        }
        assert!(matches!(claim(|key| key["key"] = json!(1)), Err(Form(_))));
        assert!(matches!(claim(|key| key["owner"] = json!("a b")), Err(Form(_))));
        assert!(matches!(claim(|key| key["after"] = json!(vec!["$a"; 33])), Err(TooMany(_))));
        let many = json!(vec![key(1, 0); MAX_ROOM_KEYS_ASKED + 1]);
        assert!(matches!(answer(|json| json["keys"] = many), Err(TooMany(_))));
        let many = asked(vec![key(1, 0).id(); MAX_ROOM_KEYS_ASKED + 1]);
        let many = serde_json::to_vec(&many).unwrap();
        assert!(matches!(RoomKeysRequest::parse(&many), Err(TooMany(_))));
        let id = json!({ "room_id": "!a:b", "key_ids": ["AAAA"] }).to_string();
        assert!(matches!(RoomKeysRequest::parse(id.as_bytes()), Err(Form(_))));
    }
}
