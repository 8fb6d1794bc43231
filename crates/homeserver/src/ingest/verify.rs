//! The part that needs no transaction: form, identifiers, hashes and signatures.

use std::collections::{BTreeSet, HashMap};

use messagehub_protocol::{
    pdu::{RawPdu, SignedPdu, WellFormedPdu},
    server_keys::KeyRing,
};
use messagehub_store::{Room, Snapshot, StoreError, events, memberships, rooms};
use ruma::{EventId, OwnedEventId, RoomId, ServerName, room_version_rules::RoomVersionRules};
use serde_json::value::RawValue;

use super::{IngestError, Outcome, Outcomes};
use crate::{
    federation::keys,
    view::{self, ViewError},
};

/// Events whose signatures are good, and what became of the rest.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// To be judged.
    pub(crate) signed: Vec<SignedPdu>,
    /// Of those that need no judging.
    pub(crate) outcomes: Outcomes,
    /// Of those that are so malformed that they have no id.
    pub(crate) nameless: Vec<Outcome>,
}

/// A room that this server is in.
pub(crate) fn room_of_ours(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    us: &ServerName,
) -> Result<Room, IngestError> {
    let room = rooms::find(snap, room_id)?.ok_or(IngestError::UnknownRoom)?;
    if !memberships::is_server_in(snap, room.nid, us)? {
        return Err(IngestError::UnknownRoom);
    }
    Ok(room)
}

/// Checks events of one room as far as bytes and keys go, and passes over those that are placed
/// already. `brought` are verified keys that came with the events and may not be stored yet.
pub(crate) fn events(
    snap: &Snapshot<'_>,
    room: &Room,
    (pdus, brought): (Vec<Box<RawValue>>, &KeyRing),
) -> Result<Checked, ViewError> {
    let rules = view::rules(room)?;
    let mut checked = Checked::default();
    for json in pdus {
        let well_formed = match well_formed(json, &room.room_id, rules) {
            Ok(well_formed) => well_formed,
            Err(outcome) => {
                checked.nameless.push(outcome);
                continue;
            }
        };
        let event_id = well_formed.pdu().event_id().to_owned();
        if is_placed(snap, &event_id)? {
            checked.outcomes.insert(event_id, Outcome::Known);
            continue;
        }
        match signed(snap, well_formed, brought)? {
            Ok(signed) => checked.signed.push(signed),
            Err(outcome) => drop(checked.outcomes.insert(event_id, outcome)),
        }
    }
    Ok(checked)
}

/// An event of a room, from bytes; its id is known after this.
pub(crate) fn well_formed(
    json: Box<RawValue>,
    room_id: &RoomId,
    rules: &'static RoomVersionRules,
) -> Result<WellFormedPdu, Outcome> {
    let well_formed =
        RawPdu::new(json).well_formed(rules).map_err(|error| Outcome::of_fault(&error))?;
    if well_formed.pdu().room_id() != room_id {
        return Err(Outcome::Refused("the event belongs to another room".to_owned()));
    }
    Ok(well_formed)
}

/// Checks the signatures of an event with the keys we hold, or newer ones that were brought.
pub(crate) fn signed(
    snap: &Snapshot<'_>,
    well_formed: WellFormedPdu,
    brought: &KeyRing,
) -> Result<Result<SignedPdu, Outcome>, StoreError> {
    let mut ring: KeyRing = keys::ring(snap, well_formed.required_signers())?;
    for server in well_formed.required_signers() {
        if let Some(keys) = brought.get(server)
            && ring.get(server).is_none_or(|known| keys.is_newer_than(known))
        {
            ring.insert(server.clone(), keys.clone());
        }
    }
    Ok(well_formed.signed(&ring).map_err(|error| Outcome::of_fault(&error)))
}

/// Whether an event has its place in the graph; an outlier has not.
pub(crate) fn is_placed(snap: &Snapshot<'_>, event_id: &EventId) -> Result<bool, StoreError> {
    let found = events::find(snap, event_id)?;
    Ok(found.is_some_and(|event| event.pos.is_some() || event.state_before.is_some()))
}

/// Orders events so that each comes after those of them that it follows or rests on. Where a
/// cycle was made up, its events come last and then lack each other.
pub(crate) fn topological(events: Vec<SignedPdu>) -> Vec<SignedPdu> {
    let position: HashMap<OwnedEventId, usize> = events
        .iter()
        .enumerate()
        .map(|(index, event)| (event.pdu().event_id().to_owned(), index))
        .collect();
    let mut waits_for = vec![0_usize; events.len()];
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); events.len()];
    for (index, event) in events.iter().enumerate() {
        let before: BTreeSet<usize> = event
            .pdu()
            .prev_events()
            .iter()
            .chain(event.pdu().auth_events())
            .filter_map(|id| position.get(id).copied())
            .collect();
        waits_for[index] = before.len();
        before.into_iter().for_each(|earlier| followers[earlier].push(index));
    }
    // The first that can go goes first, so that an order that was right already stays.
    let mut ready: BTreeSet<usize> =
        (0..events.len()).filter(|index| waits_for[*index] == 0).collect();
    let mut order = Vec::with_capacity(events.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for &follower in &followers[next] {
            waits_for[follower] -= 1;
            if waits_for[follower] == 0 {
                ready.insert(follower);
            }
        }
    }
    let placed: BTreeSet<usize> = order.iter().copied().collect();
    order.extend((0..events.len()).filter(|index| !placed.contains(index)));
    let mut events: Vec<Option<SignedPdu>> = events.into_iter().map(Some).collect();
    order.into_iter().filter_map(|index| events[index].take()).collect()
}

#[cfg(test)]
mod tests;
