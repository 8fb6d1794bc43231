//! Our heads, for another member to compare with its own (D11).

use std::collections::BTreeMap;

use messagehub_protocol::{
    limits::{MAX_DIGEST_ROOMS, MAX_HEADS_PER_ROOM},
    wire::heads::{HeadsDigest, HeadsRequest, HeadsResponse, room_digest, total_digest},
};
use messagehub_store::{
    Room, Snapshot, StoreError, events, extremities, memberships, pending, rooms,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};

use crate::{Homeserver, ingest::verify, server::access};

/// Answers a comparison. Where the asker's heads are unknown here, the run loop learns that we
/// are behind.
///
/// # Errors
/// Fails when the database does.
pub async fn compare(
    hs: &Homeserver,
    origin: OwnedServerName,
    asked: HeadsRequest,
) -> Result<HeadsResponse, StoreError> {
    let us = hs.server_name().to_owned();
    let (answer, behind) = hs
        .store
        .read(move |snap| {
            let mut answer = HeadsResponse::default();
            if let Some(theirs) = asked.digest {
                let digests = digests(snap, &us, &origin)?;
                let ours = total_digest(digests.iter().map(|(id, digest)| (&**id, *digest)));
                answer.digest = Some(ours);
                if ours != theirs {
                    answer.rooms = digests.into_iter().take(MAX_DIGEST_ROOMS).collect();
                }
            }
            let mut behind = Vec::new();
            for (room_id, theirs) in asked.heads {
                let Some(room) = shared(snap, &room_id, &origin)? else { continue };
                if lacks(snap, &theirs)? {
                    behind.push(room_id.clone());
                }
                answer.heads.insert(room_id, of_room(snap, &room)?);
            }
            Ok::<_, StoreError>((answer, behind))
        })
        .await?;
    behind.iter().for_each(|room_id| hs.peers.note_behind(room_id));
    Ok(answer)
}

/// The digest of every room that two servers share.
pub(crate) fn digests(
    snap: &Snapshot<'_>,
    us: &ServerName,
    them: &ServerName,
) -> Result<BTreeMap<OwnedRoomId, HeadsDigest>, StoreError> {
    let mut digests = BTreeMap::new();
    for nid in memberships::shared_rooms(snap, us, them)? {
        let room = rooms::get_by_nid(snap, nid)?;
        let mut heads = Vec::new();
        for nid in extremities::list(snap, nid)? {
            heads.push(events::id(snap, nid)?);
        }
        digests.insert(room.room_id, room_digest(heads.iter().map(|id| &**id)));
    }
    Ok(digests)
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
