//! Of what others tell, what is no history from before we came.
//!
//! A server that knows none of our heads gives a room from its create event on. That event follows
//! nothing, so it and all after it could be judged; but what was before we came is not new, and by
//! the current state it may not pass.

use std::collections::HashSet;

use messagehub_protocol::pdu::Pdu;
use messagehub_store::{
    Room, Snapshot, StoreError, StreamPos,
    events::{self, Direction},
};
use ruma::OwnedEventId;
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    ingest::verify,
    view::{self, ViewError},
};

/// Leaves out the events that are older than our timeline and do not go on from what is placed here.
/// How old an event is it says itself: it could wait for what it follows just as well.
pub(super) async fn we_came(
    hs: &Homeserver,
    room: &Room,
    told: Vec<Box<RawValue>>,
) -> Result<Vec<Box<RawValue>>, StoreError> {
    let room = room.clone();
    hs.store.read(move |snap| connected(snap, &room, told)).await
}

fn connected(
    snap: &Snapshot<'_>,
    room: &Room,
    told: Vec<Box<RawValue>>,
) -> Result<Vec<Box<RawValue>>, StoreError> {
    let rules = match view::rules(room) {
        Ok(rules) => rules,
        Err(ViewError::Store(error)) => return Err(error),
        Err(_) => return Ok(told),
    };
    let timeline = (StreamPos::ZERO, StreamPos(i64::MAX));
    let first = events::page(snap, room.nid, timeline, Direction::Forward, 1)?;
    let Some(first) = first.first().map(|first| first.pdu.depth()).filter(|depth| *depth > 1)
    else {
        return Ok(told);
    };
    let (mut kept, mut events) = (Vec::with_capacity(told.len()), Vec::new());
    for json in told {
        match verify::well_formed(json.clone(), &room.room_id, rules) {
            Ok(event) => events.push((event, json)),
            // Whatever is wrong with it is said where it is taken in.
            Err(_) => kept.push(json),
        }
    }
    events.sort_by_key(|(event, _)| event.pdu().depth());
    let mut ids: HashSet<OwnedEventId> = HashSet::new();
    for (event, json) in events {
        let pdu = event.pdu();
        if pdu.depth() >= first || goes_on(snap, pdu, &ids)? {
            ids.insert(pdu.event_id().to_owned());
            kept.push(json);
        }
    }
    Ok(kept)
}

/// Whether all that an event follows is placed or among some events.
fn goes_on(
    snap: &Snapshot<'_>,
    pdu: &Pdu,
    among: &HashSet<OwnedEventId>,
) -> Result<bool, StoreError> {
    for prev in pdu.prev_events() {
        if !among.contains(prev) && !verify::is_placed(snap, prev)? {
            return Ok(false);
        }
    }
    Ok(!pdu.prev_events().is_empty())
}
