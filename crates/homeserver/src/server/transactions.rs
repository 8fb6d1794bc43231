//! What another server pushes: `/send`.
//!
//! Spec: Server-Server API, "Transactions".

mod newcomer;
mod withdrawals;

use std::collections::BTreeMap;

use messagehub_protocol::limits::{MAX_EDUS, MAX_FRAME_SERVER_KEYS, MAX_ID_BYTES, MAX_PDUS};
use messagehub_store::{
    Room, StoreError,
    joins_under_way::{self, Answers},
    memberships,
    outbox::{self, Arrival},
    rooms, sharing,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Homeserver, edus,
    federation::keys,
    ingest::{self, IngestError, Outcome, Parcel, verify},
    server::access,
    view,
};

/// What another server pushes.
#[derive(Debug)]
pub struct Transaction {
    /// The id that its sender gave it.
    pub txn_id: String,
    /// Events of any rooms.
    pub pdus: Vec<Box<RawValue>>,
    /// Ephemeral units.
    pub edus: Vec<Box<RawValue>>,
    /// The `server_keys` of the signers.
    pub server_keys: Vec<Box<RawValue>>,
}

/// Why a transaction is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// More entries than a transaction may have.
    #[error("a transaction with too many entries")]
    TooLarge,
    /// It is about a room that we are just joining; only afterwards can we know what it means.
    #[error("a join is under way; try again later")]
    JoinUnderWay,
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of the events: nothing to say, or why one was not taken.
pub type Results = BTreeMap<OwnedEventId, Result<(), String>>;

/// Applies a transaction. One that came before is answered again and changes nothing: events are
/// known by their ids, and the ephemeral units of a repeated transaction are not applied twice.
///
/// # Errors
/// Why it is not taken at all.
pub async fn apply(
    hs: &Homeserver,
    origin: OwnedServerName,
    transaction: Transaction,
) -> Result<Results, TransactionError> {
    let Transaction { txn_id, pdus, edus, server_keys } = transaction;
    let is_too_large = pdus.len() > MAX_PDUS
        || edus.len() > MAX_EDUS
        || server_keys.len() > MAX_FRAME_SERVER_KEYS
        || txn_id.len() > MAX_ID_BYTES;
    if is_too_large {
        return Err(TransactionError::TooLarge);
    }
    let (us, them) = (hs.server_name().to_owned(), origin.clone());
    // A stranger's own keys came with the request; those of others, which cost nothing to make,
    // would fill the disk.
    if hs.store.read(move |snap| memberships::share_a_room(snap, &us, &them)).await? {
        keys::learn(hs, &server_keys).await?;
    }
    let mut results = Results::new();
    for (room_id, pdus) in by_room(pdus) {
        results.extend(of_room(hs, &origin, room_id, pdus).await?);
    }
    if !edus.is_empty() {
        let (us, now) = (hs.server_name().to_owned(), hs.clock.now());
        let applied = hs.store.write(move |txn| {
            // What a stranger says of rooms is of none that both are in; but whoever invites sends
            // keys along.
            let is_heard = (memberships::share_a_room(txn, &us, &origin)?
                || sharing::has_server_invited(txn, &us, &origin)?)
                && outbox::note_received(txn, &origin, &txn_id)? == Arrival::First;
            if !is_heard {
                return Ok::<_, StoreError>(edus::Aftermath::default());
            }
            edus::apply(txn, (&us, &origin), &edus, now)
        });
        applied.await?.settle(hs);
    }
    Ok(results)
}

/// Events by the room they claim; those that claim none are of no room we could have.
fn by_room(pdus: Vec<Box<RawValue>>) -> BTreeMap<OwnedRoomId, Vec<Box<RawValue>>> {
    #[derive(Deserialize)]
    struct Claim {
        room_id: OwnedRoomId,
    }
    let mut by_room: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>> = BTreeMap::new();
    for pdu in pdus {
        if let Ok(Claim { room_id }) = serde_json::from_str(pdu.get()) {
            by_room.entry(room_id).or_default().push(pdu);
        }
    }
    by_room
}

/// What we are to a room, and the sender is.
enum Standing {
    /// Both are in it.
    Shared,
    /// We are not, and events of it mean something only to invited users of ours.
    Outside(Room),
    /// We are, and the sender is not, as far as we know.
    Newcomer,
    /// The room's access list excludes the sender.
    Excluded(Room),
    /// Neither is anything to the room.
    Stranger,
}

async fn of_room(
    hs: &Homeserver,
    origin: &OwnedServerName,
    room_id: OwnedRoomId,
    pdus: Vec<Box<RawValue>>,
) -> Result<Results, TransactionError> {
    let (us, them, id) = (hs.server_name().to_owned(), origin.clone(), room_id.clone());
    let standing = hs.store.read(move |snap| {
        let room = rooms::find(snap, &id)?;
        let is_ours = match &room {
            Some(room) => memberships::is_server_in(snap, room.nid, &us)?,
            None => false,
        };
        let joins = if is_ours { None } else { joins_under_way::answers(snap, &id)? };
        let standing = |standing| Ok::<_, StoreError>((standing, joins));
        let Some(room) = room else { return standing(Standing::Stranger) };
        if !is_ours {
            return standing(Standing::Outside(room));
        }
        standing(if !access::is_admitted(snap, &room, &them)? {
            Standing::Excluded(room)
        } else if memberships::is_server_in(snap, room.nid, &them)? {
            Standing::Shared
        } else {
            Standing::Newcomer
        })
    });
    let (standing, joins) = standing.await?;
    if let Some(joins) = joins {
        // Whoever tells us of the room may believe that we are in it: a join of ours may live on
        // there that its first witness knows nothing of any more.
        let (id, believer) = (room_id.clone(), origin.clone());
        hs.store.write(move |txn| joins_under_way::believe(txn, &id, &believer)).await?;
        if joins == Answers::Open {
            return Err(TransactionError::JoinUnderWay);
        }
    }
    match standing {
        Standing::Shared => {
            let parcel = Parcel { room_id, from: origin.clone(), pdus };
            match ingest::events(hs, parcel).await {
                Ok(outcomes) => Ok(outcomes.into_iter().map(result).collect()),
                Err(IngestError::View(view::ViewError::Store(error))) => Err(error.into()),
                Err(error) => {
                    tracing::warn!(%origin, %error, "a transaction could not be applied");
                    Ok(Results::new())
                }
            }
        }
        Standing::Newcomer => Ok(newcomer::introduced(hs, origin, room_id, pdus).await?),
        Standing::Outside(room) => Ok(withdrawals::take(hs, origin, room, pdus).await?),
        Standing::Excluded(room) => Ok(excluded(&room, pdus)),
        Standing::Stranger => {
            tracing::debug!(%origin, %room_id, "events of a room that we do not share");
            Ok(Results::new())
        }
    }
}

fn result((event_id, outcome): (OwnedEventId, Outcome)) -> (OwnedEventId, Result<(), String>) {
    let result = match outcome {
        Outcome::Refused(reason) | Outcome::Unjudged(reason) => Err(reason),
        Outcome::Rejected => Err("the event is not allowed where it stands".to_owned()),
        Outcome::Accepted
        | Outcome::Known
        | Outcome::Parked
        | Outcome::StillParked
        | Outcome::SoftFailed => Ok(()),
    };
    (event_id, result)
}

/// Each event by its id, and why it is not taken.
///
/// Spec: Server-Server API, "Server Access Control Lists (ACLs)".
fn excluded(room: &Room, pdus: Vec<Box<RawValue>>) -> Results {
    let Ok(rules) = view::rules(room) else { return Results::new() };
    let ids = pdus.into_iter().filter_map(|json| {
        let event = verify::well_formed(json, &room.room_id, rules).ok()?;
        Some(event.pdu().event_id().to_owned())
    });
    ids.map(|id| (id, Err("the room's access list excludes the server".to_owned()))).collect()
}
