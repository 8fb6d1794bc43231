//! Ephemeral units of other servers: what is worth telling and is no event.
//!
//! Spec: Server-Server API, "EDUs".

use messagehub_store::{
    StoreError, Txn,
    outbox::{self, NewEntry, Queued},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, RoomId, ServerName,
    api::federation::transactions::edu::Edu,
};
use serde_json::value::RawValue;

use crate::{
    Homeserver, encryption::device_lists, peers::Counters, presence, receipts, to_device, typing,
};

/// What is to be done after the commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Aftermath {
    /// Whether there is something to fetch.
    fetches: bool,
    /// Units that could not be read or that nobody has a use for.
    ignored: usize,
}

impl Aftermath {
    /// Counts what was ignored, and wakes whoever fetches.
    pub(crate) fn settle(self, hs: &Homeserver) {
        Counters::add(&hs.peers.counters().edus_ignored, self.ignored);
        if self.fetches {
            hs.peers.wake();
        }
    }
}

/// Applies the units of one transaction or frame, as said by `origin`. A unit that cannot be read
/// or that we have no use for is passed over; the others count all the same.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn apply(
    txn: &mut Txn<'_>,
    (us, origin): (&ServerName, &ServerName),
    edus: &[Box<RawValue>],
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Aftermath, StoreError> {
    let mut after = Aftermath::default();
    for edu in edus {
        match serde_json::from_str::<Edu>(edu.get()) {
            Ok(Edu::Typing(content)) => typing::ingest(txn, origin, &content, now)?,
            Ok(Edu::Receipt(content)) => receipts::ingest(txn, origin, &content)?,
            Ok(Edu::Presence(content)) => presence::ingest(txn, (us, origin), &content, now)?,
            Ok(Edu::DirectToDevice(content)) => to_device::ingest(txn, (us, origin), &content)?,
            Ok(Edu::DeviceListUpdate(content)) => {
                after.fetches |= device_lists::ingest(txn, (us, origin), &content)?;
            }
            Ok(Edu::SigningKeyUpdate(content)) => {
                after.fetches |= device_lists::ingest_signing_keys(txn, (us, origin), &content)?;
            }
            Ok(_) => {
                tracing::debug!(%origin, "an EDU of an unknown type");
                after.ignored += 1;
            }
            Err(error) => {
                tracing::debug!(%origin, %error, "an EDU could not be read");
                after.ignored += 1;
            }
        }
    }
    Ok(after)
}

/// Puts a unit into the outbox of each of some servers, in the transaction that caused it. Where a
/// slot is named, it takes the place of an earlier unit of that slot that still waits.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn queue(
    txn: &mut Txn<'_>,
    servers: &[OwnedServerName],
    (slot, edu): (Option<&str>, &Edu),
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    if servers.is_empty() {
        return Ok(());
    }
    let body =
        serde_json::to_string(edu).map_err(|error| StoreError::Damaged(error.to_string()))?;
    for destination in servers {
        let entry = NewEntry { destination, kind: outbox::Kind::Edu, slot, body: &body };
        if outbox::insert(txn, entry, now)? == Queued::Full {
            tracing::warn!(%destination, "too much waits for a server; an EDU to it is lost");
        }
    }
    Ok(())
}

/// Those units that may come by the topic of a room: about that room, and worth nothing later.
pub(crate) fn for_room(edus: Vec<Box<RawValue>>, room_id: &RoomId) -> Vec<Box<RawValue>> {
    let about_it = |edu: &RawValue| match serde_json::from_str::<Edu>(edu.get()) {
        Ok(Edu::Typing(content)) => content.room_id == room_id,
        _ => false,
    };
    edus.into_iter().filter(|edu| about_it(edu)).collect()
}
