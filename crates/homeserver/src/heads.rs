//! Comparing heads with another member, and fetching what it has and we lack: the guarantee
//! behind gossip (D11).

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use messagehub_protocol::{
    limits::{MAX_DIGEST_ROOMS, MAX_HEADS_ROOMS, MAX_PDUS},
    wire::heads::{
        HEADS_PATH, HeadsDigest, HeadsRequest, HeadsResponse, PARTS, part_digests, part_of,
    },
};
use messagehub_store::{Snapshot, StoreError, memberships, pending, rooms};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName,
    events::StateEventType,
};
use serde_json::value::RawValue;

use crate::{
    Homeserver, digests,
    federation::{self, ASK_TIMEOUT, Call, FederationError},
    ingest::{self, IngestError, Parcel, verify},
    outbox, outliers,
    peers::{Claim, Compared, Counters},
    records,
    server::heads as ours,
    view::{self, ViewError},
};

/// Rooms of one server that are repaired at once: each waits for its answers one after the other.
const MAX_REPAIRS: usize = 8;

/// Heads that a server named and does not have, in one comparison, before no more are asked of it:
/// an honest one may have forgotten some, or may not tell them to us.
const MAX_FALSE_HEADS: usize = 8;

type Digests = BTreeMap<OwnedRoomId, HeadsDigest>;

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
/// here; `gap` does the rest. In sync that is one request, and no look at any room.
///
/// # Errors
/// The server did not answer, or our database failed.
pub async fn compare(hs: &Homeserver, server: &OwnedServerName) -> Result<(), HeadsError> {
    let (us, them, peers) = (hs.server_name().to_owned(), server.clone(), hs.peers.clone());
    let total = hs.store.read(move |snap| peers.digests().total(snap, (&us, &them))).await?;
    if total.rooms == 0 {
        return Ok(());
    }
    Counters::add(&hs.peers.counters().heads_exchanges, 1);
    let request = HeadsRequest { digest: Some(total.digest), ..HeadsRequest::default() };
    let answer = ask_with_records(hs, server, request).await?;
    let rooms = match answer.digest == Some(total.digest) {
        true => Vec::new(),
        false => differing(hs, server, answer).await?,
    };
    let at = hs.clock.now();
    hs.peers.note_compared(server, Compared { rooms_differing: rooms.len(), at });
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
    compare_rooms(hs, server, BTreeSet::from([room_id.to_owned()])).await
}

/// As [`compare_room`], of some rooms at once.
///
/// # Errors
/// The server did not answer, or our database failed.
pub async fn compare_rooms(
    hs: &Homeserver,
    server: &OwnedServerName,
    rooms: BTreeSet<OwnedRoomId>,
) -> Result<(), HeadsError> {
    Counters::add(&hs.peers.counters().heads_exchanges, 1);
    catch_up(hs, server, rooms.into_iter().take(MAX_HEADS_ROOMS).collect()).await
}

/// The rooms of ours in which the other side has other heads, or thinks that one of us is not.
async fn differing(
    hs: &Homeserver,
    server: &OwnedServerName,
    answer: HeadsResponse,
) -> Result<Vec<OwnedRoomId>, HeadsError> {
    let (us, them, peers) = (hs.server_name().to_owned(), server.clone(), hs.peers.clone());
    let ours = hs.store.read(move |snap| peers.digests().rooms(snap, (&us, &them))).await?;
    if answer.parts.is_empty() {
        return Ok(unlike(&ours, &answer.rooms));
    }
    let parts = unlike_parts(&ours, &answer.parts);
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let request = HeadsRequest { parts: parts.clone(), ..HeadsRequest::default() };
    let answer = ask(hs, server, &request).await?;
    let ours = ours.into_iter().filter(|(room_id, _)| parts.contains(&part_of(room_id))).collect();
    Ok(unlike(&ours, &answer.rooms))
}

fn unlike_parts(ours: &Digests, theirs: &[HeadsDigest]) -> Vec<u8> {
    let ours = part_digests(digests::by_ref(ours));
    let numbers = 0..u8::try_from(PARTS).unwrap_or(u8::MAX);
    let differ = ours.iter().zip(theirs).map(|(ours, theirs)| ours != theirs);
    numbers.zip(differ).filter(|(_, differs)| *differs).map(|(number, _)| number).collect()
}

/// The rooms of ours that the other side has with other heads, then those it does not list. A full
/// list says nothing of what is not in it.
fn unlike(ours: &Digests, theirs: &Digests) -> Vec<OwnedRoomId> {
    let differs = |(room_id, digest): (&OwnedRoomId, &HeadsDigest)| {
        theirs.get(room_id).filter(|theirs| *theirs != digest).map(|_| room_id.clone())
    };
    let mut rooms: Vec<_> = ours.iter().filter_map(differs).collect();
    if theirs.len() < MAX_DIGEST_ROOMS {
        rooms.extend(ours.keys().filter(|room_id| !theirs.contains_key(*room_id)).cloned());
    }
    rooms
}

/// Asks, and hands on address records in both directions.
async fn ask_with_records(
    hs: &Homeserver,
    server: &OwnedServerName,
    mut request: HeadsRequest,
) -> Result<HeadsResponse, HeadsError> {
    let news = records::news_for(hs, server).await?;
    request.records = news.records;
    let mut answer = ask(hs, server, &request).await?;
    hs.peers.note_told(server, news.up_to);
    records::heard(hs, server, std::mem::take(&mut answer.records)).await?;
    Ok(answer)
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
    let request = HeadsRequest { heads: heads.clone(), ..HeadsRequest::default() };
    let mut answer = ask(hs, server, &request).await?;
    let strange: Vec<_> =
        heads.keys().filter(|room_id| !answer.heads.contains_key(*room_id)).cloned().collect();
    if !strange.is_empty() && introduce(hs, server, strange.clone()).await? {
        let again = heads.clone().into_iter().filter(|(room_id, _)| strange.contains(room_id));
        let again = HeadsRequest { heads: again.collect(), ..HeadsRequest::default() };
        answer.heads.extend(ask(hs, server, &again).await?.heads);
    }
    // An answer about rooms that were not asked about is passed over.
    answer.heads.retain(|room_id, _| heads.contains_key(room_id));
    let mut repairs = stream::iter(answer.heads)
        .map(|(room_id, theirs)| repair(hs, server, room_id, theirs))
        .buffer_unordered(MAX_REPAIRS);
    let mut missed = 0;
    while let Some(repaired) = repairs.next().await {
        missed += repaired?;
        if missed >= MAX_FALSE_HEADS {
            tracing::info!(%server, "a server names heads that it does not have");
            hs.peers.comparing().distrust(server, hs.clock.now_ms());
            break;
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
        Err(error) if error.is_refusal() => {
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

/// Fetches the heads that we lack, but for those that another job is fetching. They wait, and so
/// say what is missing between them and what we have. Gives the number of those that the server
/// named and did not have.
async fn repair(
    hs: &Homeserver,
    server: &OwnedServerName,
    room_id: OwnedRoomId,
    theirs: Vec<OwnedEventId>,
) -> Result<usize, HeadsError> {
    let unknown = hs.store.read(move |snap| unknown(snap, theirs)).await?;
    let claims: Vec<(OwnedEventId, Claim)> = unknown
        .into_iter()
        .filter_map(|id| hs.peers.comparing().claim(&id).map(|claim| (id, claim)))
        .collect();
    if claims.is_empty() {
        return Ok(0);
    }
    let (mut pdus, mut missed) = (Vec::new(), 0);
    for (event_id, _claim) in &claims {
        match outliers::fetch_event(hs, server, event_id.clone()).await {
            Ok(pdu) => pdus.push(pdu),
            Err(error) if error.is_refusal() => {
                tracing::debug!(%server, %error, "a head could not be had");
                missed += 1;
            }
            Err(error) => {
                // Others who have it may have left it to this job.
                hs.peers.note_behind(&room_id);
                return Err(error.into());
            }
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
    Ok(missed)
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

#[cfg(test)]
mod tests {
    use messagehub_protocol::wire::heads::room_digest;
    use ruma::{EventId, room_id};

    use super::*;

    fn digest(head: &str) -> HeadsDigest {
        room_digest([<&EventId>::try_from(head).unwrap()])
    }

    #[test]
    fn rooms_that_differ_come_before_those_that_are_not_listed() {
        let [same, differs, unlisted] = [room_id!("!s"), room_id!("!d"), room_id!("!a")];
        let ours = Digests::from([
            (same.to_owned(), digest("$1")),
            (differs.to_owned(), digest("$1")),
            (unlisted.to_owned(), digest("$1")),
        ]);
        let theirs = Digests::from([
            (same.to_owned(), digest("$1")),
            (differs.to_owned(), digest("$2")),
            (room_id!("!theirs").to_owned(), digest("$2")),
        ]);
        assert_eq!(unlike(&ours, &theirs), [differs.to_owned(), unlisted.to_owned()]);
        assert!(unlike(&ours, &ours).is_empty());
        let parts = unlike_parts(&ours, &part_digests(digests::by_ref(&theirs)));
        assert!(parts.contains(&part_of(differs)) && parts.contains(&part_of(unlisted)));
    }
}
