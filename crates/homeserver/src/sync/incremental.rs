//! What changed since the client's last answer. Only rooms with something new are looked at.

use std::collections::BTreeSet;

use messagehub_store::{
    Room, RoomNid, StoreError, StreamPos,
    account_data::{self, AccountDatum},
    changes,
    memberships::{self, Membership},
    room_state, rooms,
};
use ruma::{
    RoomId,
    api::client::sync::sync_events::v3::{Response, Rooms, Timeline},
    events::{
        AnyGlobalAccountDataEvent, AnyRoomAccountDataEvent, StateEventType,
        room::member::MembershipState,
    },
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::visibility;

use super::{Context, filter, room, token};

/// What came after `since`, and whether that is anything. Up to `checked` it was nothing.
pub(super) fn answer(
    cx: &Context<'_>,
    since: StreamPos,
    checked: StreamPos,
) -> Result<(Response, bool), StoreError> {
    let mut response = Response::new(token::sync_token(cx.until));
    if checked >= cx.until && !cx.wanted.full_state {
        return Ok((response, false));
    }
    let user_id = &cx.wanted.user_id;
    let data = account_data::list_between(cx.snap, user_id, since, cx.until)?;
    response.account_data.events = global_data(cx, &data);
    let moved = memberships::list_of_user_since(cx.snap, user_id, since)?;
    for nid in rooms_to_look_at(cx, checked, &moved, &data)? {
        let Some(member) = memberships::find(cx.snap, nid, user_id)? else {
            continue;
        };
        let room = rooms::get_by_nid(cx.snap, nid)?;
        if filter::room_passes(&cx.wanted.filter.room, &room.room_id) {
            add_room(cx, (room, &member), (since, &data), &mut response.rooms)?;
        }
    }
    let is_news =
        !response.rooms.is_empty() || !response.account_data.is_empty() || cx.wanted.full_state;
    Ok((response, is_news))
}

/// The rooms that may have something new for the user.
fn rooms_to_look_at(
    cx: &Context<'_>,
    checked: StreamPos,
    moved: &[Membership],
    data: &[AccountDatum],
) -> Result<BTreeSet<RoomNid>, StoreError> {
    let mut found: BTreeSet<RoomNid> = moved.iter().map(|member| member.room).collect();
    for room_id in data.iter().filter_map(|datum| datum.room_id.as_deref()) {
        found.extend(rooms::find(cx.snap, room_id)?.map(|room| room.nid));
    }
    if !cx.wanted.full_state
        && let Some(rooms) = changes::list_rooms(cx.snap, checked, cx.until)?
    {
        found.extend(rooms);
        return Ok(found);
    }
    for nid in memberships::rooms_of(cx.snap, &cx.wanted.user_id, &MembershipState::Join)? {
        if cx.wanted.full_state || changes::in_room(cx.snap, nid, checked, cx.until)? {
            found.insert(nid);
        }
    }
    Ok(found)
}

/// Adds a room where the user's part in it puts it, if there is anything to say.
fn add_room(
    cx: &Context<'_>,
    (room, member): (Room, &Membership),
    (since, data): (StreamPos, &[AccountDatum]),
    rooms: &mut Rooms,
) -> Result<(), StoreError> {
    let room_id = room.room_id.clone();
    let moved = member.pos > since;
    match member.membership {
        MembershipState::Join => {
            let is_new = moved && !was_joined(cx, &room, since)?;
            let mut joined = room::joined(cx, &room, (!is_new).then_some(since))?;
            if is_new {
                mark_return(cx, (&room, since), &mut joined.timeline)?;
            }
            joined.account_data.events = if is_new {
                let user_id = &cx.wanted.user_id;
                let all = account_data::list_between(cx.snap, user_id, StreamPos::ZERO, cx.until)?;
                room_data(cx, &all, &room_id)
            } else {
                room_data(cx, data, &room_id)
            };
            let says_something = !joined.timeline.is_empty()
                || !joined.state.is_empty()
                || !joined.account_data.is_empty()
                || !joined.ephemeral.is_empty()
                || !joined.summary.is_empty();
            if is_new || says_something {
                room::add_unread(cx, &room, &mut joined)?;
                rooms.join.insert(room_id, joined);
            }
        }
        MembershipState::Invite if moved && !room::is_unwanted(cx, member)? => {
            rooms.invite.insert(room_id, room::invited(cx, member)?);
        }
        MembershipState::Knock if moved => {
            rooms.knock.insert(room_id, room::knocked(cx, member)?);
        }
        MembershipState::Leave | MembershipState::Ban if moved => {
            let known = was_joined(cx, &room, since)?.then_some(since);
            let mut left = room::left(cx, &room, member, known)?;
            if known.is_none() {
                mark_return(cx, (&room, since), &mut left.timeline)?;
            }
            rooms.leave.insert(room_id, left);
        }
        _ => {}
    }
    Ok(())
}

/// A room to which a user came back is told anew, from its newest events. What the client has of
/// an earlier stay may be among them or end before them, so it must not put the one behind the
/// other.
fn mark_return(
    cx: &Context<'_>,
    (room, since): (&Room, StreamPos),
    timeline: &mut Timeline,
) -> Result<(), StoreError> {
    let user_id = &cx.wanted.user_id;
    let known = rooms::state_at(cx.snap, room.nid, since)?;
    let kind = StateEventType::RoomMember;
    let last = room_state::get(cx.snap, known, &kind, user_id.as_str())?;
    if timeline.prev_batch.is_some() && visibility::was_joined_before(cx.snap, user_id, last)? {
        timeline.limited = true;
    }
    Ok(())
}

fn was_joined(cx: &Context<'_>, room: &Room, at: StreamPos) -> Result<bool, StoreError> {
    room::is_joined(cx, rooms::state_at(cx.snap, room.nid, at)?)
}

/// The account's data that the filter lets through.
pub(super) fn global_data(
    cx: &Context<'_>,
    data: &[AccountDatum],
) -> Vec<Raw<AnyGlobalAccountDataEvent>> {
    let wanted = &cx.wanted.filter.account_data;
    data.iter()
        .filter(|datum| datum.room_id.is_none())
        .filter(|datum| filter::kind_passes_globally(wanted, &datum.kind))
        .filter_map(|datum| data_event(&datum.kind, &datum.content))
        .collect()
}

/// A room's data that the filter lets through.
pub(super) fn room_data(
    cx: &Context<'_>,
    data: &[AccountDatum],
    room_id: &RoomId,
) -> Vec<Raw<AnyRoomAccountDataEvent>> {
    let wanted = &cx.wanted.filter.room.account_data;
    if !filter::part_passes(wanted, room_id) {
        return Vec::new();
    }
    data.iter()
        .filter(|datum| datum.room_id.as_deref() == Some(room_id))
        .filter(|datum| filter::kind_passes_in_room(wanted, &datum.kind))
        .filter_map(|datum| data_event(&datum.kind, &datum.content))
        .collect()
}

/// A datum as an event. Its content is the text that the client wrote.
pub(super) fn data_event<T>(kind: &str, content: &RawValue) -> Option<Raw<T>> {
    #[derive(Serialize)]
    struct Event<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        content: &'a RawValue,
    }
    // A string and what is JSON already always become JSON.
    to_raw_value(&Event { kind, content }).ok().map(Raw::from_json)
}
