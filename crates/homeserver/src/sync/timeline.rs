//! The newest events of a room, as many as the client wants.

use messagehub_store::{
    EventNid, Room, StoreError, StoredEvent, StreamPos, backward_extremities, events::Direction,
};

use crate::{
    timeline::{self, Part, Run},
    visibility::Viewer,
};

use super::{Context, filter};

/// Before all history, that which was fetched later included.
pub(super) const BEFORE_ALL: StreamPos = StreamPos(i64::MIN);

/// A run of events, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) events: Vec<StoredEvent>,
    /// Whether events between the client's last answer and these are left out.
    pub(super) limited: bool,
    /// Where the run begins: just after this position.
    pub(super) begins: Option<StreamPos>,
}

impl Timeline {
    /// Whether an event is in the run.
    pub(super) fn contains(&self, nid: EventNid) -> bool {
        self.events.iter().any(|event| event.nid == nid)
    }
}

/// The newest events after one position and not after another that the client may see and
/// wants, as many as its filter says.
pub(super) fn load(
    cx: &Context<'_>,
    room: &Room,
    window: (StreamPos, StreamPos),
) -> Result<Timeline, StoreError> {
    let wanted = &cx.wanted.filter.room.timeline;
    if !filter::part_passes(wanted, &room.room_id) {
        return Ok(Timeline::default());
    }
    let mut run = newest(cx, room, window, filter::timeline_limit(wanted))?;
    run.events.reverse();
    // A room that was joined elsewhere has history that is not here yet.
    let limited = run.has_more
        || window.0 == BEFORE_ALL && !backward_extremities::list(cx.snap, room.nid)?.is_empty();
    Ok(Timeline { events: run.events, limited, begins: Some(run.reached) })
}

/// At most `limit` of those events, the newest first.
pub(super) fn newest(
    cx: &Context<'_>,
    room: &Room,
    (after, until): (StreamPos, StreamPos),
    limit: usize,
) -> Result<Run, StoreError> {
    let part = Part { room: room.nid, after, until, direction: Direction::Backward, limit };
    let mut viewer = Viewer::new(cx.snap, room.nid, &cx.wanted.user_id)?;
    timeline::read(cx.snap, part, &mut viewer, |event| wants(cx, event))
}

fn wants(cx: &Context<'_>, event: &StoredEvent) -> bool {
    let wanted = &cx.wanted.filter.room.timeline;
    let pdu = &event.pdu;
    (filter::lets_all_pass(wanted) || filter::passes(wanted, pdu))
        && (pdu.is_state() || !cx.ignored.contain(pdu.sender()))
}
