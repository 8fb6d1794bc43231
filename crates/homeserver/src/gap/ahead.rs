//! Long gaps: batch after batch, from one member after the other, each fetched while the one before
//! it is taken in.
//!
//! What the next batch begins after is read from the bytes of the last one, before anything of it
//! was judged. If some of it turns out to be no good, or a member has less than another one, the
//! ordinary rounds go on from what is here.

use std::collections::BTreeSet;

use messagehub_store::StoreError;
use ruma::{OwnedEventId, OwnedServerName, RoomId};
use serde_json::value::RawValue;

use super::{BATCH, Gap, MAX_IDS, MAX_ROUNDS, OLDEST_FIRST, since, told_between};
use crate::{
    Homeserver,
    ingest::{self, IngestError, Outcome, Parcel, verify},
    outliers::StateError,
    peers::Counters,
    view::{self, ViewError},
};

/// Fetches what is missing from those of some members that are connected, in turn. Gives the
/// number of events that it brought.
///
/// # Errors
/// Fails when the database does.
pub(super) async fn fetch(
    hs: &Homeserver,
    room_id: &RoomId,
    servers: &[OwnedServerName],
) -> Result<usize, StoreError> {
    let Some(gap) = super::find(hs, room_id, &BTreeSet::new()).await? else { return Ok(0) };
    let near: Vec<_> = servers.iter().filter(|server| hs.peers.is_connected(server)).collect();
    let mut turns = near.iter().cycle().skip(1);
    let Some(mut from) = turns.next() else { return Ok(0) };
    let mut earliest = gap.earliest.clone();
    let mut batch = ask(hs, &gap, from, &earliest).await?;
    let mut taken = 0;
    for _ in 0..MAX_ROUNDS {
        if batch.is_empty() {
            break;
        }
        let is_full = batch.len() >= BATCH;
        earliest = tips(&gap, &batch, earliest)?;
        let parcel = Parcel { room_id: room_id.to_owned(), from: (*from).clone(), pdus: batch };
        let Some(next) = turns.next() else { break };
        let following =
            async { if is_full { ask(hs, &gap, next, &earliest).await } else { Ok(Vec::new()) } };
        let (news, following) = futures::join!(take(hs, parcel), following);
        let News { all, placed } = news?;
        taken += all;
        if placed == 0 {
            break;
        }
        (batch, from) = (following?, next);
    }
    Counters::add(&hs.peers.counters().events_repaired, taken);
    Ok(taken)
}

/// The next batch after some events. A member that does not answer has none.
async fn ask(
    hs: &Homeserver,
    gap: &Gap,
    server: &OwnedServerName,
    earliest: &[OwnedEventId],
) -> Result<Vec<Box<RawValue>>, StoreError> {
    let told = told_between(hs, (gap, earliest), (server, Some(OLDEST_FIRST))).await;
    let told = super::ours(told.map_err(StateError::from))?.unwrap_or_default();
    since::we_came(hs, &gap.room, told).await
}

/// The events that nothing follows, when a batch comes on top of some.
fn tips(
    gap: &Gap,
    batch: &[Box<RawValue>],
    mut earliest: Vec<OwnedEventId>,
) -> Result<Vec<OwnedEventId>, StoreError> {
    let rules = match view::rules(&gap.room) {
        Ok(rules) => rules,
        Err(ViewError::Store(error)) => return Err(error),
        Err(_) => return Ok(earliest),
    };
    let (mut ids, mut named) = (Vec::new(), BTreeSet::new());
    for json in batch {
        if let Ok(event) = verify::well_formed(json.clone(), &gap.room.room_id, rules) {
            ids.push(event.pdu().event_id().to_owned());
            named.extend(event.pdu().prev_events().iter().cloned());
        }
    }
    ids.reverse();
    ids.append(&mut earliest);
    ids.retain(|event_id| !named.contains(event_id));
    ids.truncate(MAX_IDS);
    Ok(ids)
}

struct News {
    all: usize,
    /// Those of all that found their place.
    placed: usize,
}

async fn take(hs: &Homeserver, parcel: Parcel) -> Result<News, StoreError> {
    let room_id = parcel.room_id.clone();
    match ingest::events(hs, parcel).await {
        Ok(outcomes) => {
            let all = outcomes.values().filter(|outcome| outcome.is_news()).count();
            let parked = outcomes.values().filter(|outcome| **outcome == Outcome::Parked).count();
            Ok(News { all, placed: all - parked })
        }
        Err(IngestError::View(ViewError::Store(error))) => Err(error),
        Err(error) => {
            tracing::debug!(%room_id, %error, "a batch could not be taken in");
            Ok(News { all: 0, placed: 0 })
        }
    }
}
