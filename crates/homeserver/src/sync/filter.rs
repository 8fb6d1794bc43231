//! Which events a client's filter lets through.
//!
//! Spec: Client-Server API, "Filtering".

use messagehub_protocol::pdu::Pdu;
use ruma::{
    RoomId, UserId,
    api::client::filter::{Filter, LazyLoadOptions, RoomEventFilter, RoomFilter, UrlFilter},
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Events of a room in one answer when the filter names no limit. The specification leaves the
/// number to the server; ten is what clients are used to.
pub(crate) const DEFAULT_TIMELINE_LIMIT: usize = 10;

/// Events of a room in one answer, whatever the filter says: a thousand events of 64 KiB are as
/// much as one answer may weigh.
pub(crate) const MAX_TIMELINE_LIMIT: usize = 1000;

/// Whether a room event passes.
pub(crate) fn passes(filter: &RoomEventFilter, pdu: &Pdu) -> bool {
    let kind = pdu.kind().to_string();
    kind_passes(filter.types.as_deref(), &filter.not_types, &kind)
        && sender_passes(filter, pdu.sender())
        && url_passes(filter.url_filter, pdu.content())
}

/// Whether a filter lets everything through, so that events need not be looked at.
pub(crate) fn lets_all_pass(filter: &RoomEventFilter) -> bool {
    filter.types.is_none()
        && filter.not_types.is_empty()
        && filter.senders.is_none()
        && filter.not_senders.is_empty()
        && filter.url_filter.is_none()
}

/// Whether data without a sender pass, such as account data and ephemeral events.
pub(crate) fn kind_passes_in_room(filter: &RoomEventFilter, kind: &str) -> bool {
    kind_passes(filter.types.as_deref(), &filter.not_types, kind)
}

/// Whether data of the account as a whole pass.
pub(crate) fn kind_passes_globally(filter: &Filter, kind: &str) -> bool {
    kind_passes(filter.types.as_deref(), &filter.not_types, kind)
}

/// Whether a room may appear in the answer at all.
pub(crate) fn room_passes(filter: &RoomFilter, room_id: &RoomId) -> bool {
    listed(filter.rooms.as_deref(), &filter.not_rooms, room_id)
}

/// Whether a part of a room's answer may hold anything.
pub(crate) fn part_passes(filter: &RoomEventFilter, room_id: &RoomId) -> bool {
    listed(filter.rooms.as_deref(), &filter.not_rooms, room_id)
}

/// How many timeline events the filter asks for, within our bounds.
pub(crate) fn timeline_limit(filter: &RoomEventFilter) -> usize {
    match filter.limit {
        Some(limit) => usize::try_from(u64::from(limit)).unwrap_or(usize::MAX),
        None => DEFAULT_TIMELINE_LIMIT,
    }
    .min(MAX_TIMELINE_LIMIT)
}

/// Which membership events a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Members {
    /// All of them.
    All,
    /// Those of the senders in the timeline that it does not have yet.
    Lazy,
    /// Those of the senders in the timeline, again and again.
    LazyRedundant,
}

impl Members {
    /// What a filter asks for.
    pub(crate) fn wanted(filter: &RoomEventFilter) -> Self {
        match filter.lazy_load_options {
            LazyLoadOptions::Disabled => Self::All,
            LazyLoadOptions::Enabled { include_redundant_members: false } => Self::Lazy,
            LazyLoadOptions::Enabled { include_redundant_members: true } => Self::LazyRedundant,
        }
    }
}

fn listed(
    rooms: Option<&[ruma::OwnedRoomId]>,
    not_rooms: &[ruma::OwnedRoomId],
    id: &RoomId,
) -> bool {
    rooms.is_none_or(|rooms| rooms.iter().any(|room| room == id))
        && !not_rooms.iter().any(|room| room == id)
}

fn sender_passes(filter: &RoomEventFilter, sender: &UserId) -> bool {
    filter.senders.as_ref().is_none_or(|senders| senders.iter().any(|user| user == sender))
        && !filter.not_senders.iter().any(|user| user == sender)
}

fn kind_passes(types: Option<&[String]>, not_types: &[String], kind: &str) -> bool {
    types.is_none_or(|types| types.iter().any(|pattern| glob(pattern, kind)))
        && !not_types.iter().any(|pattern| glob(pattern, kind))
}

fn url_passes(filter: Option<UrlFilter>, content: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct WithUrl<'a> {
        #[serde(borrow)]
        url: Option<&'a RawValue>,
    }
    let has_url = || {
        serde_json::from_str::<WithUrl<'_>>(content.get())
            .is_ok_and(|content| content.url.is_some_and(|url| url.get().starts_with('"')))
    };
    match filter {
        None => true,
        Some(UrlFilter::EventsWithUrl) => has_url(),
        Some(UrlFilter::EventsWithoutUrl) => !has_url(),
    }
}

/// Whether `text` matches a pattern in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts = tail.split('*');
    let last = parts.next_back().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use ruma::{api::client::filter::RoomEventFilter, uint};

    use super::{MAX_TIMELINE_LIMIT, glob, kind_passes, timeline_limit};

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, matches) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("*", "", true),
            ("m.*", "m.room.name", true),
            ("m.*.name", "m.room.name", true),
            ("m.*.name", "m.name", false),
            ("*room*", "m.room.name", true),
            ("*.name.*", "m.room.name", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXc", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_is_excluded_wins_over_what_is_included() {
        let only = ["m.*".to_owned()];
        let but = ["m.reaction".to_owned()];
        assert!(kind_passes(Some(&only), &but, "m.room.message"));
        assert!(!kind_passes(Some(&only), &but, "m.reaction"));
        assert!(!kind_passes(Some(&[]), &[], "m.room.message"));
        assert!(kind_passes(None, &[], "m.room.message"));
    }

    #[test]
    fn the_limit_is_bounded() {
        let mut filter = RoomEventFilter::default();
        assert_eq!(timeline_limit(&filter), 10);
        filter.limit = Some(uint!(5));
        assert_eq!(timeline_limit(&filter), 5);
        filter.limit = Some(uint!(1_000_000));
        assert_eq!(timeline_limit(&filter), MAX_TIMELINE_LIMIT);
    }
}
