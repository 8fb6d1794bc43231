//! Comparing heads with another member, and fetching what it has and we lack: the guarantee
//! behind gossip (D11).

use std::collections::BTreeMap;

use messagehub_protocol::{
    limits::{MAX_DIGEST_ROOMS, MAX_HEADS_ROOMS, MAX_PDUS},
    wire::heads::{HEADS_PATH, HeadsDigest, HeadsRequest, HeadsResponse, total_digest},
};
use messagehub_store::{Snapshot, StoreError, memberships, pending, rooms};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName,
    events::StateEventType,
};
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    federation::{self, ASK_TIMEOUT, Call, FederationError},
    ingest::{self, IngestError, Parcel, verify},
    outbox, outliers,
    peers::{Compared, Counters},
    server::heads as ours,
    view::{self, ViewError},
};

/// Why heads could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// The other server did not answer.
    #[error(transparent)]
    Federation(#[from] FederationError),
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How this node stands with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Rooms in which both are.
    pub shared_rooms: usize,
    /// Of these, rooms whose heads differed at the last comparison; 0 is in sync.
    pub rooms_behind: usize,
    /// When heads were last compared; `None` when they were not since the start.
    pub compared_at: Option<MilliSecondsSinceUnixEpoch>,
}

/// How this node stands with another one, for people.
///
/// # Errors
/// Fails when the database does.
pub async fn standing(hs: &Homeserver, server: &ServerName) -> Result<Standing, StoreError> {
    let (us, them) = (hs.server_name().to_owned(), server.to_owned());
    let shared = hs.store.read(move |snap| memberships::shared_rooms(snap, &us, &them)).await?;
    let compared = hs.peers.compared(server);
    Ok(Standing {
        shared_rooms: shared.len(),
        rooms_behind: compared.map_or(0, |compared| compared.rooms_differing),
        compared_at: compared.map(|compared| compared.at),
    })
}

/// Compares the heads of all rooms shared with a server, and fetches the heads that are missing
/// here; `gap` does the rest.
///
/// # Errors
/// The server did not answer, or our database failed.
pub async fn compare(hs: &Homeserver, server: &OwnedServerName) -> Result<(), HeadsError> {
    let (us, them) = (hs.server_name().to_owned(), server.clone());
    let digests = hs.store.read(move |snap| ours::digests(snap, &us, &them)).await?;
    if digests.is_empty() {
        return Ok(());
    }
    Counters::add(&hs.peers.counters().heads_exchanges, 1);
    let total = total_digest(digests.iter().map(|(id, digest)| (&**id, *digest)));
    let request = HeadsRequest { digest: Some(total), ..HeadsRequest::default() };
    let answer = ask(hs, server, &request).await?;
    let differing = differing(&digests, &answer);
    let at = hs.clock.now();
    hs.peers.note_compared(server, Compared { rooms_differing: differing.len(), at });
    let unlisted = unlisted(&digests, &answer);
    let rooms: Vec<_> = differing.into_iter().chain(unlisted).collect();
    for rooms in rooms.chunks(MAX_HEADS_ROOMS) {
        catch_up(hs, server, rooms.to_vec()).await?;
    }
    Ok(())
}

/// Compares the heads of one room, and fetches what is missing here.
///
/// # Errors
/// The server did not answer, or our database failed.
pub async fn compare_room(
    hs: &Homeserver,
    server: &OwnedServerName,
    room_id: &RoomId,
) -> Result<(), HeadsError> {
    Counters::add(&hs.peers.counters().heads_exchanges, 1);
    catch_up(hs, server, vec![room_id.to_owned()]).await
}

/// The rooms of ours that the other side has too, with other heads.
fn differing(
    digests: &BTreeMap<OwnedRoomId, HeadsDigest>,
    answer: &HeadsResponse,
) -> Vec<OwnedRoomId> {
    let differs = |(room_id, theirs): (&OwnedRoomId, &HeadsDigest)| {
        digests.get(room_id).filter(|ours| *ours != theirs).map(|_| room_id.clone())
    };
    answer.rooms.iter().filter_map(differs).collect()
}

/// The rooms of ours that the other side does not think we share.
fn unlisted(
    digests: &BTreeMap<OwnedRoomId, HeadsDigest>,
    answer: &HeadsResponse,
) -> Vec<OwnedRoomId> {
    // Where both digests are alike nothing is listed, and a full list says nothing of the rest.
    if answer.rooms.len() >= MAX_DIGEST_ROOMS || is_alike(digests, answer) {
        return Vec::new();
    }
    digests.keys().filter(|room_id| !answer.rooms.contains_key(*room_id)).cloned().collect()
}

fn is_alike(digests: &BTreeMap<OwnedRoomId, HeadsDigest>, answer: &HeadsResponse) -> bool {
    answer.digest == Some(total_digest(digests.iter().map(|(id, digest)| (&**id, *digest))))
}

async fn ask(
    hs: &Homeserver,
    server: &OwnedServerName,
    request: &HeadsRequest,
) -> Result<HeadsResponse, FederationError> {
    let body = serde_json::to_vec(request)
        .map_err(|error| FederationError::BadRequest(error.to_string()))?;
    let call = Call { method: http::Method::POST, uri: HEADS_PATH.to_owned(), body };
    let answer = federation::ask_raw(hs, server, call, ASK_TIMEOUT).await?;
    HeadsResponse::parse(&answer).map_err(|error| FederationError::BadAnswer(error.to_string()))
}

async fn catch_up(
    hs: &Homeserver,
    server: &OwnedServerName,
    rooms: Vec<OwnedRoomId>,
) -> Result<(), HeadsError> {
    let us = hs.server_name().to_owned();
    let heads = hs
        .store
        .read(move |snap| {
            let mut heads = BTreeMap::new();
            for room_id in rooms {
                if let Some(room) = rooms::find(snap, &room_id)?
                    && memberships::is_server_in(snap, room.nid, &us)?
                {
                    heads.insert(room_id, ours::of_room(snap, &room)?);
                }
            }
            Ok::<_, StoreError>(heads)
        })
        .await?;
    if heads.is_empty() {
        return Ok(());
    }
    let mut answer = ask(hs, server, &HeadsRequest { digest: None, heads: heads.clone() }).await?;
    let strange: Vec<_> =
        heads.keys().filter(|room_id| !answer.heads.contains_key(*room_id)).cloned().collect();
    if !strange.is_empty() && introduce(hs, server, strange.clone()).await? {
        let again = heads.clone().into_iter().filter(|(room_id, _)| strange.contains(room_id));
        let again = HeadsRequest { digest: None, heads: again.collect() };
        answer.heads.extend(ask(hs, server, &again).await?.heads);
    }
    for (room_id, theirs) in answer.heads {
        // An answer about rooms that were not asked about is passed over.
        if heads.contains_key(&room_id) {
            repair(hs, server, &room_id, theirs).await?;
        }
    }
    Ok(())
}

/// Shows a server, which is in some rooms and does not know that we are too, the events by which
/// our users joined: it was away when we came in through somebody else. Says whether it took them.
async fn introduce(
    hs: &Homeserver,
    server: &OwnedServerName,
    rooms: Vec<OwnedRoomId>,
) -> Result<bool, HeadsError> {
    let us = hs.server_name().to_owned();
    let joins = hs.store.read(move |snap| joins(snap, &us, rooms)).await?;
    if joins.is_empty() {
        return Ok(false);
    }
    let txn_id = format!("i{}", hs.peers.signing_time(hs.clock.now()).get());
    match outbox::push(hs, server, &txn_id, (joins, Vec::new())).await {
        Ok(()) => Ok(true),
        Err(error @ FederationError::Refused { .. }) => {
            tracing::debug!(%server, %error, "an introduction was refused");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// One join of a user of ours in each room.
fn joins(
    snap: &Snapshot<'_>,
    us: &ServerName,
    rooms: Vec<OwnedRoomId>,
) -> Result<Vec<Box<RawValue>>, StoreError> {
    let mut joins = Vec::new();
    for room_id in rooms.into_iter().take(MAX_PDUS) {
        let Some(room) = rooms::find(snap, &room_id)? else { continue };
        let Some(user_id) = memberships::list_joined_from(snap, room.nid, us)?.into_iter().next()
        else {
            continue;
        };
        let kind = StateEventType::RoomMember;
        let join = view::state_event(snap, room.state, &kind, user_id.as_str())?;
        joins.extend(join.and_then(|join| RawValue::from_string(join.json().to_owned()).ok()));
    }
    Ok(joins)
}

/// Fetches the heads that we lack. They wait, and so say what is missing between them and what we
/// have.
async fn repair(
    hs: &Homeserver,
    server: &OwnedServerName,
    room_id: &OwnedRoomId,
    theirs: Vec<OwnedEventId>,
) -> Result<(), HeadsError> {
    let unknown = hs.store.read(move |snap| unknown(snap, theirs)).await?;
    if unknown.is_empty() {
        return Ok(());
    }
    let mut pdus = Vec::new();
    for event_id in unknown {
        match outliers::fetch_event(hs, server, event_id).await {
            Ok(pdu) => pdus.push(pdu),
            Err(error @ FederationError::Refused { .. }) => {
                tracing::debug!(%server, %error, "a head could not be had");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let parcel = Parcel { room_id: room_id.clone(), from: server.clone(), pdus };
    match ingest::events(hs, parcel).await {
        Ok(outcomes) => {
            let taken = outcomes.values().filter(|outcome| outcome.is_news()).count();
            Counters::add(&hs.peers.counters().events_repaired, taken);
        }
        Err(IngestError::View(ViewError::Store(error))) => return Err(error.into()),
        Err(error) => tracing::warn!(%server, %room_id, %error, "heads could not be taken in"),
    }
    // What lies between waits for the one job that fills gaps in this room.
    Ok(())
}

fn unknown(
    snap: &Snapshot<'_>,
    theirs: Vec<OwnedEventId>,
) -> Result<Vec<OwnedEventId>, StoreError> {
    let mut unknown = Vec::new();
    for id in theirs {
        if !verify::is_placed(snap, &id)? && !pending::contains(snap, &id)? {
            unknown.push(id);
        }
    }
    Ok(unknown)
}
