//! What a room shows of itself to somebody who is not in it, with an invite or a knock.
//!
//! Other servers get and give whole events, so that what is shown can be verified; clients get
//! stripped state.
//!
//! Spec: Server-Server API, "Inviting to a room" and "Knocking upon a room"; Client-Server API,
//! "Stripped state".

use std::sync::Arc;

use messagehub_protocol::{
    pdu::Pdu,
    server_keys::{KeyRing, ServerKeys},
};
use messagehub_store::{Snapshot, StateNid, StoreError};
use ruma::{
    OwnedUserId, RoomId, UserId, events::TimelineEventType, room_version_rules::RoomVersionRules,
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::access::raw;
use crate::{
    client_event,
    federation::keys,
    ingest::{Outcome, verify},
};

/// Events of the room shown; the specification recommends eight types.
const MAX_SHOWN: usize = 32;

/// Bytes of all of them: they come with each initial sync for as long as an invite is open.
const MAX_SHOWN_BYTES: usize = 64 * 1024;

/// Signers whose keys are read from one request: each event shown has one.
const MAX_BROUGHT: usize = MAX_SHOWN;

/// What a room shows, for another server.
#[derive(Debug, Default)]
pub struct Shown {
    /// Whole events.
    pub pdus: Vec<Box<RawValue>>,
    /// One `server_keys` object for each signer.
    pub server_keys: Vec<Box<RawValue>>,
}

/// The state that says what a room is, and some members, as whole events. Those that come last are
/// left out where all would be too much; the create event comes first.
///
/// # Errors
/// The store's.
pub(crate) fn of_room(
    snap: &Snapshot<'_>,
    own: &ServerKeys,
    state: StateNid,
    members: &[&UserId],
) -> Result<Shown, StoreError> {
    let mut left = MAX_SHOWN_BYTES;
    let mut pdus: Vec<Arc<Pdu>> = Vec::new();
    for pdu in client_event::shown_state(snap, state, members)? {
        if let Some(rest) = left.checked_sub(pdu.json().len()) {
            left = rest;
            pdus.push(pdu);
        }
    }
    let server_keys = keys::for_events(snap, own, pdus.iter().map(|pdu| &**pdu))?;
    Ok(Shown { pdus: pdus.iter().filter_map(|pdu| raw(pdu.json())).collect(), server_keys })
}

/// Why what came is not shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShownError {
    /// A room of this version must show whole events of its own.
    #[error("what is shown of the room is no event of it: {0}")]
    NoEvent(String),
    /// Without it nothing says which room it is.
    #[error("the create event is not among what is shown of the room")]
    NoCreate,
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks what another server shows of a room. From version 12 on, whose room ids follow from the
/// create event, only whole events of that room with good signatures will do; before it, servers
/// may still send stripped state, of which nobody can check anything. An event whose signer has no
/// keys here is left out.
///
/// # Errors
/// What the specification has an invite refused for.
pub(crate) fn checked(
    snap: &Snapshot<'_>,
    (room_id, rules): (&RoomId, &'static RoomVersionRules),
    shown: &[Box<RawValue>],
    brought: &KeyRing,
) -> Result<Vec<Box<RawValue>>, ShownError> {
    let is_strict = rules.authorization.room_create_event_id_as_room_id;
    let mut left = MAX_SHOWN_BYTES;
    let mut good = Vec::new();
    let mut has_create = false;
    for json in shown.iter().take(MAX_SHOWN) {
        let Some(rest) = left.checked_sub(json.get().len()) else { continue };
        left = rest;
        let event = match verify::well_formed(json.clone(), room_id, rules) {
            Ok(event) => event,
            Err(outcome) if is_strict => return Err(ShownError::NoEvent(reason(outcome))),
            Err(_) => {
                good.push(json.clone());
                continue;
            }
        };
        has_create |= *event.pdu().kind() == TimelineEventType::RoomCreate;
        match verify::signed(snap, event, brought)? {
            Ok(signed) => good.extend(raw(signed.pdu().json())),
            Err(Outcome::Unjudged(reason)) => {
                tracing::debug!(%room_id, reason, "an event is not shown");
            }
            Err(outcome) if is_strict => return Err(ShownError::NoEvent(reason(outcome))),
            Err(_) => {}
        }
    }
    if is_strict && !has_create { Err(ShownError::NoCreate) } else { Ok(good) }
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(reason) | Outcome::Unjudged(reason) => reason,
        _ => "it is not usable".to_owned(),
    }
}

/// The keys that came with a request, verified and not kept: a stranger's list must not fill the
/// disk. Invalid ones are passed over.
pub(crate) fn ring(server_keys: &[Box<RawValue>]) -> KeyRing {
    let verified = server_keys.iter().take(MAX_BROUGHT).filter_map(|json| {
        let keys = ServerKeys::verify(json.get()).ok()?;
        Some((keys.server_name().to_owned(), keys))
    });
    verified.collect()
}

/// What a user is shown, as a JSON array of stripped state, the user's own membership last. What
/// is neither stripped state nor a whole state event is not shown.
///
/// # Errors
/// Never in practice: what was parsed can be written.
pub(crate) fn stripped(shown: &[Box<RawValue>], own: &Pdu) -> Result<String, serde_json::Error> {
    #[derive(Deserialize, Serialize)]
    struct Shown {
        content: Box<RawValue>,
        sender: OwnedUserId,
        state_key: String,
        r#type: String,
    }
    let mut list = Vec::new();
    for event in shown {
        let Ok(event) = serde_json::from_str::<Shown>(event.get()) else { continue };
        let is_own =
            event.r#type == "m.room.member" && own.state_key() == Some(event.state_key.as_str());
        if !is_own {
            list.push(to_raw_value(&event)?);
        }
    }
    list.push(to_raw_value(&Shown {
        content: own.content().to_owned(),
        sender: own.sender().to_owned(),
        state_key: own.state_key().unwrap_or_default().to_owned(),
        r#type: own.kind().to_string(),
    })?);
    serde_json::to_string(&list)
}
