//! Giving room keys to other members (D10).

use std::collections::BTreeSet;

use messagehub_protocol::wire::{
    room_keys::{RoomKeysRequest, RoomKeysResponse},
    sealed::RoomKey,
};
use messagehub_store::{Snapshot, StoreError};
use ruma::{OwnedServerName, ServerName};

use super::access::{self, AccessError};
use crate::{
    Homeserver,
    ingest::{IngestError, verify},
    peers::Counters,
    rate::Limited,
    room_keys::has_applied,
    view::ViewError,
};

/// Why a server gets no keys of a room.
#[derive(Debug, thiserror::Error)]
pub enum RoomKeysRefused {
    /// We or they are not in the room.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It asks too fast.
    #[error(transparent)]
    Limited(#[from] Limited),
}

impl From<StoreError> for RoomKeysRefused {
    fn from(error: StoreError) -> Self {
        Self::Access(error.into())
    }
}

/// Those of the wanted keys that we hold and may give: ours to every member of the room, those of
/// others only when what they were made after has come about here, since until then we may take
/// somebody for a member against whom a key was made.
///
/// # Errors
/// See [`RoomKeysRefused`].
pub async fn give(
    hs: &Homeserver,
    origin: OwnedServerName,
    wanted: RoomKeysRequest,
) -> Result<RoomKeysResponse, RoomKeysRefused> {
    let now_ms = hs.clock.now_ms();
    let keys = hs.peers.room_keys();
    keys.may_ask(&origin, now_ms)?;
    // Before the rows are read: a key is given by who is in the room after it was made.
    let key_ids: BTreeSet<_> = wanted.key_ids.iter().copied().collect();
    let held: Vec<_> =
        key_ids.iter().filter_map(|id| keys.find(&wanted.room_id, *id, now_ms)).collect();
    let us = hs.server_name().to_owned();
    let given = hs
        .store
        .read(move |snap| {
            match verify::room_of_ours(snap, &wanted.room_id, &us) {
                Ok(_) => {}
                Err(IngestError::View(ViewError::Store(error))) => return Err(error.into()),
                Err(_) => return Err(AccessError::UnknownRoom),
            }
            let room = access::shared_room(snap, &wanted.room_id, &origin)?;
            let mut given = Vec::with_capacity(held.len());
            for key in held {
                if is_ours(&key, &us) || is_applied(snap, &room, &key)? {
                    given.push(RoomKey::clone(&key));
                }
            }
            Ok::<_, AccessError>(given)
        })
        .await?;
    Counters::add(&hs.peers.counters().room_keys_given, given.len());
    Ok(RoomKeysResponse { keys: given })
}

fn is_ours(key: &RoomKey, us: &ServerName) -> bool {
    key.owner() == us
}

fn is_applied(
    snap: &Snapshot<'_>,
    room: &messagehub_store::Room,
    key: &RoomKey,
) -> Result<bool, StoreError> {
    for event_id in key.after() {
        if !has_applied(snap, room, event_id)? {
            return Ok(false);
        }
    }
    Ok(true)
}
