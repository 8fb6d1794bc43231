//! Apply: the one function that makes a judged event part of a room.
//!
//! Local and remote events come here alike. What it writes: the event, the state after it, the
//! forward extremities, the current state, who is what in the room, and what a redaction takes
//! away.

use std::sync::Arc;

use messagehub_protocol::{
    pdu::Pdu,
    receive::{Judged, Standing, redaction_allowed},
};
use messagehub_store::{
    EventNid, Room, Snapshot, StateNid, StoreError, StreamPos, Txn, early_redactions,
    events::{self, Placement, StoredEvent},
    extremities,
    memberships::{self, NewMembership},
    room_state, rooms,
};
use ruma::{
    OwnedUserId, ServerName, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};

use crate::{
    Homeserver, early_invites,
    encryption::device_lists,
    peers::Outbound,
    view::{self, ViewError},
    visibility::membership_in,
};

#[cfg(test)]
mod tests;

/// What became of an event.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The event.
    pub pdu: Arc<Pdu>,
    /// Its integer.
    pub nid: EventNid,
    /// How it was judged.
    pub standing: Standing,
    /// Its place in the timeline; none when clients do not see it.
    pub pos: Option<StreamPos>,
    /// Whose membership changed with it.
    pub members: Vec<MemberChange>,
    /// Whether this server came into the room or left it with it.
    pub topic: Option<TopicChange>,
}

impl Appended {
    /// An event that was part of its room before. What it says of a membership counts as a change.
    pub(crate) fn known(event: StoredEvent) -> Self {
        let StoredEvent { nid, pdu, standing, pos, .. } = event;
        let about = pdu.state_key().and_then(|key| UserId::parse(key).ok());
        let change = about.zip(membership_in(&pdu));
        let members = change.map(|(user_id, now)| MemberChange { user_id, before: None, now });
        Self { pdu, nid, standing, pos, members: members.into_iter().collect(), topic: None }
    }
}

/// A change of what somebody is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// Who.
    pub user_id: OwnedUserId,
    /// What they were; `None` for nothing at all.
    pub before: Option<MembershipState>,
    /// What they are now.
    pub now: MembershipState,
}

/// A change of whether this server is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicChange {
    /// Its first user joined.
    Join,
    /// Its last user is gone.
    Leave,
}

/// Makes a judged event part of its room, whose current state is kept up in `room`.
///
/// `state_before` is the state it was judged by. Soft-failed and rejected events are stored and
/// change nothing else, unless they come after what follows them: then what they follow is no head.
///
/// # Errors
///
/// `Store` when the event is placed already; `Missing` or `Resolve` when the current state cannot
/// be resolved.
pub fn event(
    txn: &mut Txn<'_>,
    server: &ServerName,
    room: &mut Room,
    judged: &Judged,
    state_before: StateNid,
) -> Result<Appended, ViewError> {
    let (pdu, standing) = (judged.pdu(), judged.standing());
    let mut placement = Placement { state_before, state_after: state_before };
    let added = events::append(txn, room, judged, placement)?;
    if let (Standing::Accepted | Standing::SoftFailed, Some(state_key)) =
        (standing, pdu.state_key())
    {
        let root = room_state::set(txn, state_before, &state_type(pdu), state_key, added.nid)?;
        events::set_state_after(txn, added.nid, root)?;
        placement.state_after = root;
    }
    follow_up(txn, server, room, (added, judged, placement))
}

/// As [`event`], for an event of the past with the states around it.
///
/// # Errors
///
/// As [`event`].
pub(crate) fn history(
    txn: &mut Txn<'_>,
    server: &ServerName,
    room: &mut Room,
    (judged, placement): (&Judged, Placement),
) -> Result<Appended, ViewError> {
    let added = events::insert_history(txn, room, judged, Some(placement))?;
    follow_up(txn, server, room, (added, judged, placement))
}

/// What an event that was added changes in its room.
fn follow_up(
    txn: &mut Txn<'_>,
    server: &ServerName,
    room: &mut Room,
    (added, judged, placement): (events::Appended, &Judged, Placement),
) -> Result<Appended, ViewError> {
    let pdu = judged.pdu();
    let changes = advance(txn, server, room, (added, pdu, placement))?;
    let appended = Appended {
        pdu: Arc::clone(pdu),
        nid: added.nid,
        standing: judged.standing(),
        pos: added.pos,
        members: changes.members,
        topic: changes.topic,
    };
    device_lists::members_changed(txn, server, room, &appended)?;
    apply_early_redactions(txn, room, (added.nid, pdu))?;
    if added.pos.is_some() {
        apply_redaction(txn, room, (added.nid, pdu))?;
    }
    Ok(appended)
}

/// What a new current state changed in who is in the room.
#[derive(Debug, Clone, Default)]
pub struct StateChanges {
    /// Whose membership changed.
    pub members: Vec<MemberChange>,
    /// Whether this server came into the room or left it.
    pub topic: Option<TopicChange>,
}

/// Makes a state the current one of a room as of a position, and brings the memberships up to it.
///
/// # Errors
///
/// The store's.
pub fn set_current_state(
    txn: &mut Txn<'_>,
    server: &ServerName,
    (room, state): (&mut Room, StateNid),
    pos: StreamPos,
) -> Result<StateChanges, StoreError> {
    if room.state == state {
        return Ok(StateChanges::default());
    }
    let mut changed = Vec::new();
    for change in room_state::diff(txn, room.state, state)? {
        if change.kind == StateEventType::RoomMember {
            changed.push((change.state_key, change.after));
        }
    }
    rooms::set_state(txn, room, state, pos)?;
    let local = changed.iter().any(|(user_id, _)| is_of(user_id, server));
    let was_in = local && memberships::is_server_in(txn, room.nid, server)?;
    let mut members = Vec::new();
    for (user_id, event) in changed {
        members.extend(set_member(txn, room, (&user_id, event), pos)?);
    }
    let is_in = local && memberships::is_server_in(txn, room.nid, server)?;
    if was_in && !is_in {
        early_invites::show(txn, room, &mut members, pos)?;
    }
    let topic = match (was_in, is_in) {
        (false, true) => Some(TopicChange::Join),
        (true, false) => Some(TopicChange::Leave),
        _ => None,
    };
    Ok(StateChanges { members, topic })
}

/// Tells the transport to listen to a room, or no longer to. For after the commit.
pub fn announce_topic(hs: &Homeserver, room: &Room, topic: Option<TopicChange>) {
    let room_id = room.room_id.clone();
    match topic {
        Some(TopicChange::Join) => hs.peers.offer(Outbound::Join { room_id }),
        Some(TopicChange::Leave) => {
            hs.peers.room_keys().forget(&room_id);
            hs.peers.offer(Outbound::Leave { room_id })
        }
        None => true,
    };
}

/// Moves the forward extremities on to an event that was added, and brings the current state up to
/// them.
fn advance(
    txn: &mut Txn<'_>,
    server: &ServerName,
    room: &mut Room,
    (added, pdu, placement): (events::Appended, &Pdu, Placement),
) -> Result<StateChanges, ViewError> {
    let mut heads = extremities::advance(txn, room.nid, added, pdu)?;
    if added.pos.is_some() {
        leave_state_behind(txn, room, (added.nid, placement.state_before), &mut heads.now)?;
    }
    if heads.now == heads.before {
        return Ok(StateChanges::default());
    }
    let known = (added.nid, placement.state_after);
    let roots = states_after(txn, &heads.now, known)?;
    // A message on one of several branches leaves the states that were merged as they were.
    if roots.len() > 1 && roots == states_after(txn, &heads.before, known)? {
        return Ok(StateChanges::default());
    }
    let current = view::merge(txn, room, roots)?;
    if current == room.state {
        return Ok(StateChanges::default());
    }
    // Without a place of the event in the timeline the change has one of its own.
    let pos = added.pos.filter(|pos| *pos > StreamPos::ZERO);
    let pos = pos.unwrap_or_else(|| txn.next_pos());
    Ok(set_current_state(txn, server, (room, current), pos)?)
}

/// Of some heads leaves out those that are in the state before an event: it comes after them. Where
/// others told that state, what lies between may never come.
fn leave_state_behind(
    txn: &mut Txn<'_>,
    room: &Room,
    (event, state_before): (EventNid, StateNid),
    heads: &mut Vec<EventNid>,
) -> Result<(), StoreError> {
    if heads.len() < 2 {
        return Ok(());
    }
    let mut left = Vec::with_capacity(heads.len());
    for head in heads.iter().copied() {
        let pdu = events::pdu(txn, head)?;
        let held = match pdu.state_key() {
            Some(key) if head != event => {
                room_state::get(txn, state_before, &state_type(&pdu), key)?
            }
            _ => None,
        };
        if held != Some(head) {
            left.push(head);
        }
    }
    if left.len() < heads.len() && !left.is_empty() {
        extremities::replace(txn, room.nid, &left)?;
        *heads = left;
    }
    Ok(())
}

/// The states after some events, in order, each once; after one of them it is `known`.
fn states_after(
    snap: &Snapshot<'_>,
    nids: &[EventNid],
    known: (EventNid, StateNid),
) -> Result<Vec<StateNid>, ViewError> {
    let mut roots = Vec::with_capacity(nids.len());
    for nid in nids {
        if *nid == known.0 {
            roots.push(known.1);
            continue;
        }
        let event = events::get(snap, *nid)?;
        let missing = || ViewError::Missing(vec![event.pdu.event_id().to_owned()]);
        roots.push(event.state_after.ok_or_else(missing)?);
    }
    roots.sort_unstable();
    roots.dedup();
    Ok(roots)
}

fn set_member(
    txn: &mut Txn<'_>,
    room: &Room,
    (user_id, event): (&str, Option<EventNid>),
    pos: StreamPos,
) -> Result<Option<MemberChange>, StoreError> {
    // No rule lets in a member event whose state key is no user id, except into old rooms: it is
    // then nobody's membership.
    let Ok(user_id) = <&UserId>::try_from(user_id) else { return Ok(None) };
    let now = match event {
        Some(nid) => membership_in(&*events::pdu(txn, nid)?),
        None => None,
    };
    let now = now.unwrap_or(MembershipState::Leave);
    let before = memberships::find(txn, room.nid, user_id)?.map(|member| member.membership);
    let new = NewMembership { membership: &now, event, pos, stripped: None };
    memberships::set(txn, room.nid, user_id, new)?;
    Ok(Some(MemberChange { user_id: user_id.to_owned(), before, now }))
}

/// Takes away the content of an event where a redaction of it came before. One that clients do not
/// see is no exception: others may show it, and a redaction that finds it here redacts it too.
fn apply_early_redactions(
    txn: &mut Txn<'_>,
    room: &Room,
    (nid, pdu): (EventNid, &Pdu),
) -> Result<(), ViewError> {
    for redaction in early_redactions::list(txn, pdu.event_id())? {
        let redaction = events::get(txn, redaction)?;
        redact(txn, room, &redaction, (nid, pdu))?;
    }
    Ok(())
}

/// Takes away the content of what an accepted event redacts.
fn apply_redaction(
    txn: &mut Txn<'_>,
    room: &Room,
    (nid, pdu): (EventNid, &Pdu),
) -> Result<(), ViewError> {
    if *pdu.kind() != TimelineEventType::RoomRedaction {
        return Ok(());
    }
    let Some(target_id) = pdu.redacts() else { return Ok(()) };
    match events::find(txn, target_id)? {
        Some(target) if target.redacted_by.is_none() && target.room == room.nid => {
            let redaction = events::get(txn, nid)?;
            redact(txn, room, &redaction, (target.nid, &target.pdu))
        }
        Some(_) => Ok(()),
        None => Ok(early_redactions::insert(txn, target_id, nid)?),
    }
}

fn redact(
    txn: &mut Txn<'_>,
    room: &Room,
    redaction: &StoredEvent,
    (nid, target): (EventNid, &Pdu),
) -> Result<(), ViewError> {
    let keys = [
        (StateEventType::RoomCreate, String::new()),
        (StateEventType::RoomPowerLevels, String::new()),
    ];
    let state = view::part(txn, redaction.state_before.unwrap_or(room.state), &keys)?;
    if redaction_allowed(&redaction.pdu, target, &state, view::rules(room)?) {
        events::set_redacted(txn, nid, redaction.nid)?;
    }
    Ok(())
}

fn is_of(user_id: &str, server: &ServerName) -> bool {
    <&UserId>::try_from(user_id).is_ok_and(|user_id| user_id.server_name() == server)
}

fn state_type(pdu: &Pdu) -> StateEventType {
    StateEventType::from(pdu.kind().to_string())
}
