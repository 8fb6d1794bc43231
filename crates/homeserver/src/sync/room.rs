//! One room's part of an answer.

use messagehub_store::{
    Room, StateNid, StoreError, StreamPos, events,
    events::StoredEvent,
    memberships::{self, Membership},
    room_state, rooms,
    unread::{Counts, Tally},
};
use ruma::{
    UInt, UserId,
    api::client::sync::sync_events::{
        UnreadNotificationsCount,
        v3::{
            InviteState, InvitedRoom, JoinedRoom, KnockState, KnockedRoom, LeftRoom, RoomSummary,
            State as StatePart, StateEvents, Timeline as TimelinePart,
        },
    },
    events::{StateEventType, room::member::MembershipState},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    client_event,
    invite_permission::{self, InvitePermission},
    unread,
    visibility::membership_in,
};

use super::{
    Context, StateForm, ephemeral,
    state::{self, Span},
    timeline::{self, BEFORE_ALL, Timeline},
    token,
};

/// Members that name a room without a name.
///
/// Spec: Client-Server API, "Syncing", `m.heroes`.
const MAX_HEROES: usize = 5;

/// A joined room, as it differs from what the client had at `since`; with `None`, all of it.
pub(super) fn joined(
    cx: &Context<'_>,
    room: &Room,
    since: Option<StreamPos>,
) -> Result<JoinedRoom, StoreError> {
    let after = since.unwrap_or(BEFORE_ALL);
    let timeline = timeline::load(cx, room, (after, cx.until))?;
    let asked = since.filter(|_| !cx.wanted.full_state);
    let span = Span { since: asked, known: known_state(cx, room, since)?, now: room.state };
    let state = state::load(cx, room, span, &timeline)?;
    let mut answer = JoinedRoom::new();
    if since.is_none() || cx.wanted.full_state || state.summary_changed {
        answer.summary = summary(cx, room)?;
    }
    answer.state = state_part(cx, &state.events)?;
    answer.timeline = timeline_part(cx, timeline)?;
    answer.ephemeral.events = ephemeral::events(cx, room, since.unwrap_or(StreamPos::ZERO))?;
    Ok(answer)
}

/// Adds the unread counts to a joined room's answer.
pub(super) fn add_unread(
    cx: &Context<'_>,
    room: &Room,
    answer: &mut JoinedRoom,
) -> Result<(), StoreError> {
    let tally = unread::count(cx.snap, room, &cx.wanted.user_id, cx.until)?;
    if cx.wanted.filter.room.timeline.unread_thread_notifications {
        answer.unread_notifications = notifications(tally.main);
        answer.unread_thread_notifications = tally
            .threads
            .iter()
            .map(|(root, counts)| (root.clone(), notifications(*counts)))
            .collect();
    } else {
        answer.unread_notifications = notifications(in_all(&tally));
    }
    Ok(())
}

/// A room that the user left or was banned from: what happened until then.
pub(super) fn left(
    cx: &Context<'_>,
    room: &Room,
    member: &Membership,
    since: Option<StreamPos>,
) -> Result<LeftRoom, StoreError> {
    let mut answer = LeftRoom::new();
    let Some(nid) = member.event else {
        return Ok(answer);
    };
    let departure = events::get(cx.snap, nid)?;
    let left_at = departure.pos.unwrap_or(member.pos);
    let known = known_state(cx, room, since)?;
    let was_in_room = is_joined(cx, known)?
        || departure.state_before.map_or(Ok(false), |before| is_joined(cx, before))?;
    if !was_in_room {
        // Who was only invited may see the end of the invite, and nothing of the room.
        let timeline = Timeline { events: vec![departure], limited: false, begins: None };
        answer.timeline = timeline_part(cx, timeline)?;
        return Ok(answer);
    }
    let timeline = timeline::load(cx, room, (since.unwrap_or(BEFORE_ALL), left_at))?;
    let span = Span { since, known, now: rooms::state_at(cx.snap, room.nid, left_at)? };
    let state = state::load(cx, room, span, &timeline)?;
    answer.state = state_part(cx, &state.events)?;
    answer.timeline = timeline_part(cx, timeline)?;
    Ok(answer)
}

/// A room that the user is invited to: what it shows of itself, and the invite.
pub(super) fn invited(cx: &Context<'_>, member: &Membership) -> Result<InvitedRoom, StoreError> {
    let mut invite_state = InviteState::new();
    invite_state.events = shown(cx, member)?.into_iter().map(Raw::from_json).collect();
    Ok(invite_state.into())
}

/// A room that the user knocked on: what it shows of itself, and the knock.
pub(super) fn knocked(cx: &Context<'_>, member: &Membership) -> Result<KnockedRoom, StoreError> {
    let mut knock_state = KnockState::new();
    knock_state.events = shown(cx, member)?.into_iter().map(Raw::from_json).collect();
    let mut room = KnockedRoom::new();
    room.knock_state = knock_state;
    Ok(room)
}

/// What the inviting server sent along, or what the room's state here says.
fn shown(cx: &Context<'_>, member: &Membership) -> Result<Vec<Box<RawValue>>, StoreError> {
    let sent = match &member.stripped {
        None => Vec::new(),
        Some(json) => serde_json::from_str::<Vec<Box<RawValue>>>(json)
            .map_err(|error| StoreError::Damaged(format!("the state of an invite: {error}")))?,
    };
    let Some(nid) = member.event else {
        return Ok(sent);
    };
    let invite = events::get(cx.snap, nid)?;
    let mut shown = match invite.state_before {
        Some(state) => client_event::stripped_state(cx.snap, state, &[invite.pdu.sender()])?,
        None => sent,
    };
    shown.retain(|event| !is_member_event_of(event, &member.user_id));
    shown.push(client_event::stripped(&invite.pdu)?);
    Ok(shown)
}

fn is_member_event_of(stripped: &RawValue, user_id: &UserId) -> bool {
    #[derive(Deserialize)]
    struct Key {
        #[serde(rename = "type")]
        kind: StateEventType,
        state_key: String,
    }
    serde_json::from_str::<Key>(stripped.get()).is_ok_and(|key| {
        key.kind == StateEventType::RoomMember && key.state_key == user_id.as_str()
    })
}

/// Whether an invite comes from somebody whose invites the user does not take.
pub(super) fn is_unwanted(cx: &Context<'_>, invite: &Membership) -> Result<bool, StoreError> {
    let Some(nid) = invite.event else { return Ok(false) };
    let event = events::get(cx.snap, nid)?;
    let permission = invite_permission::of(cx.snap, &cx.wanted.user_id, event.pdu.sender())?;
    Ok(permission != InvitePermission::Allowed)
}

/// Whether the user is joined in a state of a room.
pub(super) fn is_joined(cx: &Context<'_>, root: StateNid) -> Result<bool, StoreError> {
    let user_id = cx.wanted.user_id.as_str();
    let Some(nid) = room_state::get(cx.snap, root, &StateEventType::RoomMember, user_id)? else {
        return Ok(false);
    };
    Ok(membership_in(&*events::pdu(cx.snap, nid)?) == Some(MembershipState::Join))
}

/// The state of a room that the client has.
fn known_state(
    cx: &Context<'_>,
    room: &Room,
    since: Option<StreamPos>,
) -> Result<StateNid, StoreError> {
    match since {
        Some(since) if !cx.wanted.full_state => rooms::state_at(cx.snap, room.nid, since),
        _ => Ok(room_state::EMPTY),
    }
}

fn timeline_part(cx: &Context<'_>, run: Timeline) -> Result<TimelinePart, StoreError> {
    let mut part = TimelinePart::new();
    if run.limited || !run.events.is_empty() {
        part.prev_batch = run.begins.map(token::timeline_token);
    }
    part.limited = run.limited;
    part.events = formatted(cx, &run.events)?;
    Ok(part)
}

fn state_part(cx: &Context<'_>, events: &[StoredEvent]) -> Result<StatePart, StoreError> {
    let events = StateEvents::with_events(formatted(cx, events)?);
    Ok(match cx.wanted.form {
        StateForm::Before => StatePart::Before(events),
        StateForm::After => StatePart::After(events),
    })
}

fn formatted<T>(cx: &Context<'_>, events: &[StoredEvent]) -> Result<Vec<Raw<T>>, StoreError> {
    events.iter().map(|event| Ok(Raw::from_json(cx.format.event(cx.snap, event)?))).collect()
}

/// The numbers of members, and who names a room that has no name.
fn summary(cx: &Context<'_>, room: &Room) -> Result<RoomSummary, StoreError> {
    let count = |membership| memberships::count_with(cx.snap, room.nid, &membership);
    let mut summary = RoomSummary::new();
    summary.joined_member_count = UInt::try_from(count(MembershipState::Join)?).ok();
    summary.invited_member_count = UInt::try_from(count(MembershipState::Invite)?).ok();
    let has_name = room_state::get(cx.snap, room.state, &StateEventType::RoomName, "")?.is_some();
    let has_alias =
        room_state::get(cx.snap, room.state, &StateEventType::RoomCanonicalAlias, "")?.is_some();
    if !has_name && !has_alias {
        summary.heroes =
            memberships::list_heroes(cx.snap, room.nid, &cx.wanted.user_id, MAX_HEROES)?;
    }
    Ok(summary)
}

fn in_all(tally: &Tally) -> Counts {
    tally.threads.values().fold(tally.main, |sum, thread| Counts {
        notifications: sum.notifications.saturating_add(thread.notifications),
        highlights: sum.highlights.saturating_add(thread.highlights),
    })
}

fn notifications(counts: Counts) -> UnreadNotificationsCount {
    let mut answer = UnreadNotificationsCount::new();
    answer.notification_count = Some(counts.notifications.into());
    answer.highlight_count = Some(counts.highlights.into());
    answer
}
