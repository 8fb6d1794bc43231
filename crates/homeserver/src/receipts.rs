//! Read receipts: how far users have read, for others and for their own counts.
//!
//! Spec: Client-Server API, "Receipts".

use std::collections::BTreeMap;

use messagehub_store::{
    Room, Snapshot, StoreError, Txn, events, memberships,
    outbox::{self, NewEntry},
    receipts::{self, Receipt},
    rooms,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, ServerName, UserId,
    api::federation::transactions::edu::{Edu, ReceiptContent, ReceiptData, ReceiptMap},
    events::receipt::{Receipt as EventReceipt, ReceiptThread},
};

use crate::{Homeserver, read_markers, server::access};

pub use messagehub_store::receipts::Kind;

/// Receipts taken from one EDU; a server that has read more sends the rest later.
const MAX_RECEIPTS_PER_EDU: usize = 1000;

/// Why a receipt was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The user is not in the room.
    #[error("the user is not in the room")]
    NotJoined,
    /// There is no such event in the room.
    #[error("there is no such event in the room")]
    UnknownEvent,
    /// The thread is neither `main` nor an event id, or threads do not apply.
    #[error("the thread is invalid")]
    InvalidThread,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `m.read` or `m.read.private`.
    Read(Kind),
    /// `m.fully_read`: the user's own place in the room, kept as account data.
    FullyRead,
}

/// A receipt of a local user.
#[derive(Debug, Clone)]
pub struct NewReceipt {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The last event that was read.
    pub event_id: OwnedEventId,
    /// What it says.
    pub mark: Mark,
    /// The part of the room that was read.
    pub thread: ReceiptThread,
}

/// Takes the receipts of a local user, all or none, and tells other servers of the public ones.
/// A receipt for an event before the one known already changes nothing.
///
/// # Errors
/// See [`ReceiptError`].
pub async fn send(
    hs: &Homeserver,
    user_id: &UserId,
    new: Vec<NewReceipt>,
) -> Result<(), ReceiptError> {
    for receipt in &new {
        check_thread(receipt)?;
    }
    let user_id = user_id.to_owned();
    let us = hs.identity.server_name().to_owned();
    let now = hs.clock.now();
    hs.store
        .write(move |txn| {
            for receipt in &new {
                if let Some((room, receipt)) = apply(txn, &user_id, receipt, now)? {
                    queue(txn, &us, &room, &receipt)?;
                }
            }
            Ok::<_, ReceiptError>(())
        })
        .await?;
    hs.peers.wake();
    Ok(())
}

/// Takes the receipts that another server sends for its users.
///
/// # Errors
/// The store failed.
pub fn ingest(
    txn: &mut Txn<'_>,
    origin: &ServerName,
    content: &ReceiptContent,
) -> Result<(), StoreError> {
    let mut left = MAX_RECEIPTS_PER_EDU;
    for (room_id, ReceiptMap { read, .. }) in &content.receipts {
        let Some(room) = rooms::find(txn, room_id)? else {
            continue;
        };
        if !access::is_admitted(txn, &room, origin)? {
            continue;
        }
        let taken = read.iter().take(left);
        left -= taken.len();
        for (user_id, read) in taken {
            if user_id.server_name() != origin || !memberships::is_joined(txn, room.nid, user_id)? {
                continue;
            }
            let Some(event_id) = read.event_ids.first() else {
                continue;
            };
            let receipt = Receipt {
                user_id: user_id.clone(),
                kind: Kind::Public,
                thread: read.data.thread.clone(),
                event_id: event_id.clone(),
                ts: read.data.ts.unwrap_or(MilliSecondsSinceUnixEpoch(ruma::uint!(0))),
            };
            if is_thread_here(txn, &room, &receipt.thread)?
                && !is_elsewhere(txn, &room, &receipt.event_id)?
                && advances(txn, &room, &receipt)?
            {
                receipts::set(txn, room.nid, &receipt)?;
            }
        }
    }
    Ok(())
}

/// Writes one receipt; gives it back if other servers are to learn of it.
fn apply(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    new: &NewReceipt,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Option<(Room, Receipt)>, ReceiptError> {
    let room = rooms::find(txn, &new.room_id)?.ok_or(ReceiptError::NotJoined)?;
    if !memberships::is_joined(txn, room.nid, user_id)? {
        return Err(ReceiptError::NotJoined);
    }
    let event = events::find(txn, &new.event_id)?.filter(|event| event.room == room.nid);
    let event = event.ok_or(ReceiptError::UnknownEvent)?;
    let Mark::Read(kind) = new.mark else {
        read_markers::advance(txn, user_id, &room, &event)?;
        return Ok(None);
    };
    let receipt = Receipt {
        user_id: user_id.to_owned(),
        kind,
        thread: new.thread.clone(),
        event_id: new.event_id.clone(),
        ts: now,
    };
    if !advances(txn, &room, &receipt)? {
        return Ok(None);
    }
    receipts::set(txn, room.nid, &receipt)?;
    Ok((kind == Kind::Public).then_some((room, receipt)))
}

/// Puts a receipt into the outbox for every other server in its room. There it takes the place
/// of an earlier one of the same user that still waits.
fn queue(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &Room,
    receipt: &Receipt,
) -> Result<(), StoreError> {
    let mut servers = memberships::servers_in(txn, room.nid)?;
    servers.retain(|server| server != us);
    if servers.is_empty() {
        return Ok(());
    }
    let data = EventReceipt::new(receipt.ts);
    let mut data = ReceiptData::new(data, vec![receipt.event_id.clone()]);
    data.data.thread = receipt.thread.clone();
    let read = ReceiptMap::new(BTreeMap::from([(receipt.user_id.clone(), data)]));
    let content = ReceiptContent::new(BTreeMap::from([(room.room_id.clone(), read)]));
    let body = serde_json::to_string(&Edu::Receipt(content))
        .map_err(|error| StoreError::Damaged(error.to_string()))?;
    let thread = receipt.thread.as_str().unwrap_or_default();
    let slot = format!("m.receipt {} {} {thread}", room.room_id, receipt.user_id);
    for destination in servers {
        let entry = NewEntry {
            destination: &destination,
            kind: outbox::Kind::Edu,
            slot: Some(&slot),
            body: &body,
        };
        outbox::insert(txn, entry, receipt.ts)?;
    }
    Ok(())
}

/// Whether a receipt says more than the one there is. What cannot be compared, because an event
/// has not arrived yet, is believed.
fn advances(snap: &Snapshot<'_>, room: &Room, receipt: &Receipt) -> Result<bool, StoreError> {
    let key = (receipt.kind, &receipt.thread);
    let Some(known) = receipts::find(snap, room.nid, &receipt.user_id, key)? else {
        return Ok(true);
    };
    if known == receipt.event_id {
        return Ok(false);
    }
    let pos = |event_id: &EventId| {
        Ok::<_, StoreError>(events::find(snap, event_id)?.and_then(|event| event.pos))
    };
    Ok(match (pos(&known)?, pos(&receipt.event_id)?) {
        (Some(known), Some(new)) => new > known,
        _ => true,
    })
}

fn check_thread(new: &NewReceipt) -> Result<(), ReceiptError> {
    let allowed = match new.mark {
        Mark::Read(_) => is_known_thread(&new.thread),
        Mark::FullyRead => new.thread == ReceiptThread::Unthreaded,
    };
    if allowed { Ok(()) } else { Err(ReceiptError::InvalidThread) }
}

/// Whether a thread begins with an event of the room. There is one receipt for a thread, so threads
/// that somebody makes up would be receipts without end.
fn is_thread_here(
    snap: &Snapshot<'_>,
    room: &Room,
    thread: &ReceiptThread,
) -> Result<bool, StoreError> {
    let ReceiptThread::Thread(root) = thread else { return Ok(is_known_thread(thread)) };
    Ok(events::find(snap, root)?.is_some_and(|event| event.room == room.nid))
}

/// Whether an event is of another room. One that has not arrived yet may be of this one.
fn is_elsewhere(snap: &Snapshot<'_>, room: &Room, event_id: &EventId) -> Result<bool, StoreError> {
    Ok(events::find(snap, event_id)?.is_some_and(|event| event.room != room.nid))
}

fn is_known_thread(thread: &ReceiptThread) -> bool {
    matches!(thread, ReceiptThread::Unthreaded | ReceiptThread::Main | ReceiptThread::Thread(_))
}
