//! The first answer to a client: all its rooms, and the newest of each.

use messagehub_store::{StoreError, StreamPos, account_data, memberships, rooms};
use ruma::{
    api::client::sync::sync_events::v3::Response,
    events::{AnyGlobalAccountDataEvent, room::member::MembershipState},
    serde::Raw,
};

use crate::push_rules;

use super::{Context, filter, incremental, room, token};

/// Everything, up to the context's position.
pub(super) fn answer(cx: &Context<'_>) -> Result<Response, StoreError> {
    let mut response = Response::new(token::sync_token(cx.until));
    let user_id = &cx.wanted.user_id;
    let mut data = account_data::list_between(cx.snap, user_id, StreamPos::ZERO, cx.until)?;
    response.account_data.events = incremental::global_data(cx, &data);
    add_default_push_rules(cx, &data, &mut response.account_data.events);
    data.retain(|datum| datum.room_id.is_some());
    for member in memberships::list_of_user(cx.snap, user_id)? {
        let room = rooms::get_by_nid(cx.snap, member.room)?;
        if !filter::room_passes(&cx.wanted.filter.room, &room.room_id) {
            continue;
        }
        let room_id = room.room_id.clone();
        match member.membership {
            MembershipState::Join => {
                let mut joined = room::joined(cx, &room, None)?;
                joined.account_data.events = incremental::room_data(cx, &data, &room_id);
                room::add_unread(cx, &room, &mut joined)?;
                response.rooms.join.insert(room_id, joined);
            }
            MembershipState::Invite if !room::is_unwanted(cx, &member)? => {
                response.rooms.invite.insert(room_id, room::invited(cx, &member)?);
            }
            MembershipState::Knock => {
                response.rooms.knock.insert(room_id, room::knocked(cx, &member)?);
            }
            MembershipState::Leave | MembershipState::Ban
                if cx.wanted.filter.room.include_leave =>
            {
                let mut left = room::left(cx, &room, &member, None)?;
                left.account_data.events = incremental::room_data(cx, &data, &room_id);
                response.rooms.leave.insert(room_id, left);
            }
            _ => {}
        }
    }
    Ok(response)
}

/// A client takes its push rules from here, so they are there even if nobody wrote any.
fn add_default_push_rules(
    cx: &Context<'_>,
    data: &[account_data::AccountDatum],
    events: &mut Vec<Raw<AnyGlobalAccountDataEvent>>,
) {
    let is_written =
        data.iter().any(|datum| datum.room_id.is_none() && datum.kind == push_rules::KIND);
    if !is_written && filter::kind_passes_globally(&cx.wanted.filter.account_data, push_rules::KIND)
    {
        let content = push_rules::to_content(&push_rules::defaults(&cx.wanted.user_id));
        events.extend(incremental::data_event(push_rules::KIND, &content));
    }
}
