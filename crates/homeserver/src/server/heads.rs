//! Our heads, for another member to compare with its own (D11).

use std::collections::BTreeSet;

use messagehub_protocol::{
    limits::{MAX_DIGEST_ROOMS, MAX_HEADS_PER_ROOM},
    wire::heads::{HeadsRequest, HeadsResponse, MAX_LISTED_ROOMS, part_digests, part_of},
};
use messagehub_store::{
    Room, Snapshot, StoreError, events, extremities, joins_under_way, memberships, pending, rooms,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};

use crate::{Homeserver, digests, ingest::verify, peers::Peers, records, server::access};

/// Answers a comparison. Where the asker's heads are unknown here, the run loop learns that it has
/// something that we lack.
///
/// # Errors
/// Fails when the database does.
pub async fn compare(
    hs: &Homeserver,
    origin: OwnedServerName,
    mut asked: HeadsRequest,
) -> Result<HeadsResponse, StoreError> {
    records::heard(hs, &origin, std::mem::take(&mut asked.records)).await?;
    let (us, peers, asker) = (hs.server_name().to_owned(), hs.peers.clone(), origin.clone());
    let (mut answer, behind, lost) = hs
        .store
        .read(move |snap| {
            let mut answer = digests_for(snap, &peers, (&us, &asker), &asked)?;
            let (mut behind, mut lost) = (Vec::new(), Vec::new());
            for (room_id, theirs) in asked.heads {
                if is_lost(snap, &us, &room_id)? {
                    lost.push(room_id.clone());
                }
                let Some(room) = shared(snap, &room_id, &asker)? else { continue };
                if lacks(snap, &theirs)? {
                    behind.push(room_id.clone());
                }
                answer.heads.insert(room_id, of_room(snap, &room)?);
            }
            Ok::<_, StoreError>((answer, behind, lost))
        })
        .await?;
    // Whoever asks about a room may believe that we are in it, and say nothing else of it to us.
    if !lost.is_empty() {
        let believer = origin.clone();
        let noted = hs.store.write(move |txn| {
            for room_id in lost {
                joins_under_way::believe(txn, &room_id, &believer)?;
            }
            Ok::<_, StoreError>(())
        });
        noted.await?;
    }
    // Whoever names heads is asked for them, and nobody else: invented ones cost their inventor.
    if !behind.is_empty() {
        hs.peers.note_ahead(&origin, behind, hs.clock.now_ms());
    }
    answer.records = records::for_server(hs, &origin).await?;
    Ok(answer)
}

/// Whether we are not in a room, as far as we know, and have asked to join it.
fn is_lost(
    snap: &Snapshot<'_>,
    us: &ServerName,
    room_id: &OwnedRoomId,
) -> Result<bool, StoreError> {
    if joins_under_way::answers(snap, room_id)?.is_none() {
        return Ok(false);
    }
    match rooms::find(snap, room_id)? {
        Some(room) => Ok(!memberships::is_server_in(snap, room.nid, us)?),
        None => Ok(true),
    }
}

/// The part of the answer that is about digests.
fn digests_for(
    snap: &Snapshot<'_>,
    peers: &Peers,
    (us, them): (&ServerName, &ServerName),
    asked: &HeadsRequest,
) -> Result<HeadsResponse, StoreError> {
    let mut answer = HeadsResponse::default();
    if let Some(theirs) = asked.digest {
        let total = peers.digests().total(snap, (us, them))?;
        answer.digest = Some(total.digest);
        if total.digest != theirs {
            let rooms = peers.digests().rooms(snap, (us, them))?;
            if rooms.len() > MAX_LISTED_ROOMS {
                answer.parts = part_digests(digests::by_ref(&rooms));
            } else {
                answer.rooms = rooms;
            }
        }
    }
    if !asked.parts.is_empty() {
        let parts: BTreeSet<u8> = asked.parts.iter().copied().collect();
        let rooms = peers.digests().rooms(snap, (us, them))?;
        let wanted = rooms.into_iter().filter(|(room_id, _)| parts.contains(&part_of(room_id)));
        answer.rooms = wanted.take(MAX_DIGEST_ROOMS).collect();
    }
    Ok(answer)
}

/// Our heads of a room, the newest first.
pub(crate) fn of_room(snap: &Snapshot<'_>, room: &Room) -> Result<Vec<OwnedEventId>, StoreError> {
    let nids = extremities::list(snap, room.nid)?;
    nids.into_iter().rev().take(MAX_HEADS_PER_ROOM).map(|nid| events::id(snap, nid)).collect()
}

/// Whether some event is not here. One that waits for its ancestors is: to look at the heads again
/// would not help it, and two nodes that both lack something would call on each other without end.
pub(crate) fn lacks(snap: &Snapshot<'_>, ids: &[OwnedEventId]) -> Result<bool, StoreError> {
    for id in ids {
        if !verify::is_placed(snap, id)? && !pending::contains(snap, id)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn shared(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
    them: &ServerName,
) -> Result<Option<Room>, StoreError> {
    match access::shared_room(snap, room_id, them) {
        Ok(room) => Ok(Some(room)),
        Err(access::AccessError::Store(error)) => Err(error),
        Err(_) => Ok(None),
    }
}
