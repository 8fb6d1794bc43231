//! Who is there, of the people that a user meets in rooms.
//!
//! Spec: Client-Server API, "Presence".

use messagehub_store::{
    StoreError, StreamPos,
    presence::{self, Presence},
    sharing,
};
use ruma::{
    UInt,
    api::client::filter::Filter,
    events::presence::{PresenceEvent, PresenceEventContent},
    serde::Raw,
};
use serde_json::value::to_raw_value;

use super::{Context, devices::Met, filter};
use crate::presence as uses;

/// People in one answer whatever the filter says; presence of more is no use to anybody.
const MAX_PEOPLE: usize = 1000;

/// What changed since the client's last answer, and how people are whom the user has just met; in
/// the first answer, everybody who is there.
pub(super) fn events(
    cx: &Context<'_>,
    since: Option<StreamPos>,
    met: &Met,
) -> Result<Vec<Raw<PresenceEvent>>, StoreError> {
    let wanted = &cx.wanted.filter.presence;
    let mut events = Vec::new();
    if !filter::kind_passes_globally(wanted, "m.presence") {
        return Ok(events);
    }
    let user_id = &cx.wanted.user_id;
    let people = match since {
        None => presence::list_present(cx.snap)?,
        Some(since) => {
            let mut people = presence::list_between(cx.snap, since, cx.until)?;
            for other in &met.came {
                if people.iter().all(|known| known.user_id != *other) {
                    people.extend(presence::find(cx.snap, other)?);
                }
            }
            people
        }
    };
    let limit = wanted.limit.and_then(|limit| usize::try_from(u64::from(limit)).ok());
    for presence in people {
        if events.len() >= limit.unwrap_or(MAX_PEOPLE).min(MAX_PEOPLE) {
            break;
        }
        let other = &presence.user_id;
        if passes(wanted, &presence)
            && !cx.ignored.contain(other)
            && (other == user_id || sharing::do_users(cx.snap, user_id, other)?)
        {
            events.extend(event(cx, &presence));
        }
    }
    Ok(events)
}

fn passes(filter: &Filter, presence: &Presence) -> bool {
    let is_in = |list: &[ruma::OwnedUserId]| list.contains(&presence.user_id);
    filter.senders.as_deref().is_none_or(is_in) && !is_in(&filter.not_senders)
}

fn event(cx: &Context<'_>, presence: &Presence) -> Option<Raw<PresenceEvent>> {
    let status = uses::status(Some(presence), cx.format.now);
    let mut content = PresenceEventContent::new(status.presence);
    content.status_msg = status.status_msg;
    content.currently_active = status.currently_active.then_some(true);
    content.last_active_ago =
        status.last_active_ago.map(|ago| UInt::try_from(ago.as_millis()).unwrap_or(UInt::MAX));
    let event = PresenceEvent { content, sender: presence.user_id.clone() };
    // Strings, integers and user ids always become JSON.
    to_raw_value(&event).ok().map(Raw::from_json)
}
