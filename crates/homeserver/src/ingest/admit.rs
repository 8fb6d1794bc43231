//! Gather, decide, apply: signed events become part of their room, in one transaction.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use messagehub_protocol::{
    limits::MAX_PREV_EVENTS,
    pdu::{Pdu, RawPdu, SignedPdu},
    receive::{self, Standing},
    server_keys::KeyRing,
};
use messagehub_store::{
    EventNid, Room, Snapshot, StateNid, StoreError, Txn, backward_extremities, events, extremities,
    pending::{self, NewPending, Pending},
    room_state,
};
use ruma::{EventId, ServerName, events::StateEventType};
use serde_json::value::RawValue;

use super::{IngestError, Outcome, Outcomes, verify};
use crate::{
    append::{self, TopicChange},
    history,
    view::{self, ViewError},
};

/// What one transaction did.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// Of every event that was judged or parked, those included that had waited.
    pub(crate) outcomes: Outcomes,
    /// Whether this server came into the room or left it.
    pub(crate) topics: Vec<TopicChange>,
}

/// Judges events and makes them part of their room; what lacks ancestors is parked, and what was
/// parked for want of these is judged too.
pub(crate) fn admit(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &mut Room,
    (from, events): (&ServerName, Vec<SignedPdu>),
) -> Result<Admitted, IngestError> {
    let mut admitted = Admitted::default();
    let mut queue: VecDeque<SignedPdu> = verify::topological(events).into();
    while let Some(signed) = queue.pop_front() {
        let event_id = signed.pdu().event_id().to_owned();
        let outcome = one(txn, us, room, (from, signed), &mut admitted.topics)?;
        if !matches!(outcome, Outcome::Parked | Outcome::StillParked) {
            pending::remove(txn, &event_id)?;
            queue.extend(ready(txn, room, &event_id)?);
        }
        admitted.outcomes.insert(event_id, outcome);
    }
    Ok(admitted)
}

/// As [`admit`], for the events that waited for one that was placed in another way.
pub(crate) fn release(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &mut Room,
    arrived: &EventId,
) -> Result<Admitted, IngestError> {
    let waiting = ready(txn, room, arrived)?;
    admit(txn, us, room, (us, waiting))
}

fn one(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &mut Room,
    (from, signed): (&ServerName, SignedPdu),
    topics: &mut Vec<TopicChange>,
) -> Result<Outcome, IngestError> {
    let pdu = signed.pdu().clone();
    if verify::is_placed(txn, pdu.event_id())? {
        return Ok(Outcome::Known);
    }
    let gathered = match view::for_event(txn, room, &pdu) {
        Ok(gathered) => gathered,
        Err(ViewError::Missing(missing)) => {
            let new = NewPending {
                event_id: pdu.event_id(),
                room_id: &room.room_id,
                origin: from,
                json: pdu.json(),
            };
            let waited = pending::contains(txn, pdu.event_id())?;
            pending::park(txn, new, &missing)?;
            return Ok(if waited { Outcome::StillParked } else { Outcome::Parked });
        }
        Err(ViewError::Resolve(error)) => {
            tracing::error!(event_id = %pdu.event_id(), %error, "branches could not be resolved");
            return Ok(Outcome::Unjudged(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let judged = receive::check(signed, &gathered.view).among(&heads_beside(txn, room, &pdu)?);
    let appended = append::event(txn, us, room, &judged, gathered.state_before)?;
    topics.extend(appended.topic);
    Ok(of_standing(appended.standing))
}

/// As [`admit`], for one event whose ancestors cannot be had: judged by the state before it as
/// another server tells it. Gives `None` where even that does not suffice.
pub(crate) fn admit_by_state(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &mut Room,
    (from, signed): (&ServerName, SignedPdu),
    state_before: StateNid,
) -> Result<Option<Admitted>, IngestError> {
    let event_id = signed.pdu().event_id().to_owned();
    let can_wait_no_longer = verify::is_placed(txn, &event_id)?
        || !matches!(view::for_event(txn, room, signed.pdu()), Err(ViewError::Missing(_)));
    if can_wait_no_longer {
        return admit(txn, us, room, (from, vec![signed])).map(Some);
    }
    let appended = if is_past(txn, room, signed.pdu())? {
        let states = HashMap::from([(event_id.clone(), state_before)]);
        history::place(txn, us, room, (vec![signed], &states))?.pop()
    } else {
        match view::at(txn, room, state_before, signed.pdu()) {
            Ok(view) => {
                let others = heads_beside(txn, room, signed.pdu())?;
                let judged = receive::check(signed, &view).among(&others);
                Some(append::event(txn, us, room, &judged, state_before)?)
            }
            Err(ViewError::Missing(_)) => None,
            Err(error) => return Err(error.into()),
        }
    };
    let Some(appended) = appended else { return Ok(None) };
    pending::remove(txn, &event_id)?;
    let mut admitted = release(txn, us, room, &event_id)?;
    admitted.topics.extend(appended.topic);
    admitted.outcomes.insert(event_id, of_standing(appended.standing));
    Ok(Some(admitted))
}

/// Whether an event without a place is state that held before one of the events at which our
/// history begins: then it is before them, and the current state has no say about it.
fn is_past(snap: &Snapshot<'_>, room: &Room, pdu: &Pdu) -> Result<bool, StoreError> {
    let Some((state_key, nid)) = pdu.state_key().zip(events::find_nid(snap, pdu.event_id())?)
    else {
        return Ok(false);
    };
    let kind = StateEventType::from(pdu.kind().to_string());
    let gaps = backward_extremities::list(snap, room.nid)?;
    let first: BTreeSet<EventNid> = gaps.into_iter().map(|gap| gap.named_by).collect();
    for named_by in first {
        let Some(state) = events::get(snap, named_by)?.state_before else { continue };
        if room_state::get(snap, state, &kind, state_key)? == Some(nid) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The forward extremities that there would be beside an event; none where they are few enough.
fn heads_beside(snap: &Snapshot<'_>, room: &Room, pdu: &Pdu) -> Result<Vec<Arc<Pdu>>, StoreError> {
    let mut beside = Vec::new();
    let heads = extremities::list(snap, room.nid)?;
    if heads.len() < MAX_PREV_EVENTS {
        return Ok(beside);
    }
    for nid in heads {
        let head = events::pdu(snap, nid)?;
        if !pdu.prev_events().iter().any(|prev| *prev == *head.event_id()) {
            beside.push(head);
        }
    }
    Ok(beside)
}

fn of_standing(standing: Standing) -> Outcome {
    match standing {
        Standing::Accepted => Outcome::Accepted,
        Standing::SoftFailed => Outcome::SoftFailed,
        Standing::Rejected | Standing::Outlier => Outcome::Rejected,
    }
}

/// The events that lack nothing any more, now that one is there.
fn ready(txn: &mut Txn<'_>, room: &Room, arrived: &EventId) -> Result<Vec<SignedPdu>, IngestError> {
    let waiting = pending::take_ready(txn, arrived)?;
    let mut ready = Vec::with_capacity(waiting.len());
    for event in waiting {
        ready.extend(unpark(txn, room, event)?);
    }
    Ok(ready)
}

/// A parked event with its signatures checked again: what was parked is bytes.
pub(crate) fn unpark(
    snap: &Snapshot<'_>,
    room: &Room,
    event: Pending,
) -> Result<Option<SignedPdu>, IngestError> {
    let rules = view::rules(room)?;
    let Ok(json) = RawValue::from_string(event.json) else { return Ok(None) };
    let Ok(well_formed) = RawPdu::new(json).well_formed(rules) else { return Ok(None) };
    Ok(verify::signed(snap, well_formed, &KeyRing::new())?.ok())
}
