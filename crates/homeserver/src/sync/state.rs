//! The state of a room that a client must know to understand the timeline it gets.

use std::collections::{BTreeMap, BTreeSet};

use messagehub_store::{
    EventNid, Room, StateNid, StoreError, StreamPos,
    events::{self, StoredEvent},
    room_state::{self, StateChange},
};
use ruma::{OwnedUserId, events::StateEventType};

use super::{
    Context, StateForm,
    filter::{self, Members},
    timeline::{self, Timeline},
};

/// Membership changes in a gap that a lazily loading client gets. Where there are more, it asks
/// for the members when it shows them.
const MAX_LAZY_CHANGES: usize = 100;

/// Events before the client's token whose senders it is known to have. More would cost more to
/// read than their member events do.
const MAX_LOOK_BACK: usize = 20;

/// Two states of a room: what the client has, and what there is at the end of the timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Where the client's state is from; `None` where it has none.
    pub(super) since: Option<StreamPos>,
    pub(super) known: StateNid,
    pub(super) now: StateNid,
}

/// The state part of a room's answer.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) events: Vec<StoredEvent>,
    /// Whether the room's summary may have changed.
    pub(super) summary_changed: bool,
}

type Entries = BTreeMap<(StateEventType, String), EventNid>;

/// The state events for a timeline.
pub(super) fn load(
    cx: &Context<'_>,
    room: &Room,
    span: Span,
    timeline: &Timeline,
) -> Result<State, StoreError> {
    let needed = needed_members(cx, room, span, timeline)?;
    let (entries, summary_changed) = match cx.wanted.form {
        StateForm::After => changed_until_end(cx, span, &needed)?,
        StateForm::Before => changed_until_start(cx, span, timeline, &needed)?,
    };
    let wanted = &cx.wanted.filter.room.state;
    if !filter::part_passes(wanted, &room.room_id) {
        return Ok(State { events: Vec::new(), summary_changed });
    }
    let mut events = events::load_many(cx.snap, entries.into_values())?;
    events.retain(|event| filter::passes(wanted, &event.pdu));
    Ok(State { events, summary_changed })
}

/// The users whose membership events a lazily loading client needs for a timeline.
fn needed_members(
    cx: &Context<'_>,
    room: &Room,
    span: Span,
    timeline: &Timeline,
) -> Result<BTreeSet<OwnedUserId>, StoreError> {
    if cx.wanted.members == Members::All {
        return Ok(BTreeSet::new());
    }
    let mut needed: BTreeSet<OwnedUserId> =
        timeline.events.iter().map(|event| event.pdu.sender().to_owned()).collect();
    match span.since {
        None => {
            needed.insert(cx.wanted.user_id.clone());
        }
        Some(since) if cx.wanted.members == Members::Lazy && !needed.is_empty() => {
            for event in last_seen(cx, room, since)? {
                needed.remove(event.pdu.sender());
            }
        }
        Some(_) => {}
    }
    Ok(needed)
}

/// The events just before a token, which the client has: each answer holds the newest events of
/// its stretch, as many as the limit says, so the newest before a token were in some answer, and
/// the members who sent them too.
fn last_seen(
    cx: &Context<'_>,
    room: &Room,
    since: StreamPos,
) -> Result<Vec<StoredEvent>, StoreError> {
    let limit = filter::timeline_limit(&cx.wanted.filter.room.timeline).min(MAX_LOOK_BACK);
    timeline::newest(cx, room, (timeline::BEFORE_ALL, since), limit).map(|run| run.events)
}

/// What differs between the client's state and the one at the end of the timeline.
fn changed_until_end(
    cx: &Context<'_>,
    span: Span,
    needed: &BTreeSet<OwnedUserId>,
) -> Result<(Entries, bool), StoreError> {
    let changes = changes(cx, span)?;
    let summary_changed = touches_summary(&changes);
    let mut entries = Entries::new();
    for change in changes {
        if let Some(after) = change.after {
            entries.insert((change.kind, change.state_key), after);
        }
    }
    thin_out_members(cx, &mut entries, needed);
    add_members(cx, &mut entries, span.now, needed)?;
    Ok((entries, summary_changed))
}

/// What differs between the client's state and the one at the start of the timeline, so that
/// the client gets to the state at its end by applying the timeline's own state events.
fn changed_until_start(
    cx: &Context<'_>,
    span: Span,
    timeline: &Timeline,
    needed: &BTreeSet<OwnedUserId>,
) -> Result<(Entries, bool), StoreError> {
    let is_gap = timeline.limited || span.known == room_state::EMPTY;
    let start = match timeline.events.first().and_then(|event| event.state_before) {
        Some(before) if is_gap => before,
        _ => span.known,
    };
    let mut entries = Entries::new();
    let until_start = changes(cx, Span { now: start, ..span })?;
    let mut summary_changed = touches_summary(&until_start);
    for change in until_start {
        if let Some(after) = change.after {
            entries.insert((change.kind, change.state_key), after);
        }
    }
    // Forks of the room may have changed what no event of this timeline shows.
    let until_end = changes(cx, Span { known: start, ..span })?;
    summary_changed |= touches_summary(&until_end);
    for change in until_end {
        match change.after {
            Some(after) if !timeline.contains(after) => {
                entries.insert((change.kind, change.state_key), after);
            }
            _ => {}
        }
    }
    thin_out_members(cx, &mut entries, needed);
    let root = if is_gap && start != room_state::EMPTY { start } else { span.now };
    add_members(cx, &mut entries, root, needed)?;
    entries.retain(|_, nid| !timeline.contains(*nid));
    Ok((entries, summary_changed))
}

/// The differences between two states. From nothing, for a lazily loading client, they are
/// found without looking at the members.
fn changes(cx: &Context<'_>, span: Span) -> Result<Vec<StateChange>, StoreError> {
    if span.known == span.now {
        return Ok(Vec::new());
    }
    if span.known != room_state::EMPTY || cx.wanted.members == Members::All {
        return room_state::diff(cx.snap, span.known, span.now);
    }
    let all = room_state::all_but_members(cx.snap, span.now)?;
    Ok(all
        .into_iter()
        .map(|(kind, state_key, after)| StateChange {
            kind,
            state_key,
            before: None,
            after: Some(after),
        })
        .collect())
}

fn touches_summary(changes: &[StateChange]) -> bool {
    changes.iter().any(|change| {
        matches!(
            change.kind,
            StateEventType::RoomMember
                | StateEventType::RoomName
                | StateEventType::RoomCanonicalAlias
        )
    })
}

/// Leaves out membership changes that a lazily loading client does not need, where there are
/// many.
fn thin_out_members(cx: &Context<'_>, entries: &mut Entries, needed: &BTreeSet<OwnedUserId>) {
    let is_member = |kind: &StateEventType| *kind == StateEventType::RoomMember;
    if cx.wanted.members == Members::All
        || entries.keys().filter(|(kind, _)| is_member(kind)).count() <= MAX_LAZY_CHANGES
    {
        return;
    }
    entries.retain(|(kind, state_key), _| {
        !is_member(kind) || needed.iter().any(|user_id| user_id.as_str() == state_key)
    });
}

fn add_members(
    cx: &Context<'_>,
    entries: &mut Entries,
    root: StateNid,
    needed: &BTreeSet<OwnedUserId>,
) -> Result<(), StoreError> {
    if cx.wanted.members == Members::All {
        return Ok(());
    }
    for user_id in needed {
        let member = room_state::get(cx.snap, root, &StateEventType::RoomMember, user_id.as_str())?;
        if let Some(nid) = member {
            entries.entry((StateEventType::RoomMember, user_id.as_str().to_owned())).or_insert(nid);
        }
    }
    Ok(())
}
