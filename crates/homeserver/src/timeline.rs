//! Reading a run of a room's timeline: what one user may see and wants to see of it.

use messagehub_store::{
    RoomNid, Snapshot, StoreError, StoredEvent, StreamPos,
    events::{self, Direction},
};

use crate::visibility::Viewer;

/// Events that are looked at to find those that are wanted: looking for something rare must not
/// read the whole room. The client can page on from there.
const MAX_SCANNED: usize = 2000;

/// Events read at a time once it is clear that some are left out.
const NEXT_PAGE: usize = 100;

/// Which part of a timeline to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// The room.
    pub(crate) room: RoomNid,
    /// Just after this position.
    pub(crate) after: StreamPos,
    /// Up to this position, included.
    pub(crate) until: StreamPos,
    /// From which end.
    pub(crate) direction: Direction,
    /// At most so many events.
    pub(crate) limit: usize,
}

/// Events in the direction of reading.
#[derive(Debug)]
pub(crate) struct Run {
    /// The events.
    pub(crate) events: Vec<StoredEvent>,
    /// Whether there is, or may be, more.
    pub(crate) has_more: bool,
    /// Where reading goes on: just after this position.
    pub(crate) reached: StreamPos,
}

/// Reads the events of a part that `viewer` may see and `wants`.
///
/// # Errors
/// The store failed.
pub(crate) fn read(
    snap: &Snapshot<'_>,
    part: Part,
    viewer: &mut Viewer<'_, '_>,
    wants: impl Fn(&StoredEvent) -> bool,
) -> Result<Run, StoreError> {
    let (mut after, mut until) = (part.after, part.until);
    let mut run = Run {
        events: Vec::new(),
        has_more: false,
        reached: match part.direction {
            Direction::Backward => until,
            Direction::Forward => after,
        },
    };
    let mut page_size = part.limit.saturating_add(1);
    let mut scanned = 0;
    loop {
        let page = events::page(snap, part.room, (after, until), part.direction, page_size)?;
        let is_last = page.len() < page_size;
        scanned += page.len();
        for event in page {
            let place = beyond(&event, part);
            match part.direction {
                Direction::Backward => until = place,
                Direction::Forward => after = place,
            }
            if !wants(&event) || !viewer.can_see(&event)? {
                continue;
            }
            if run.events.len() == part.limit {
                run.has_more = true;
                return Ok(run);
            }
            run.reached = place;
            run.events.push(event);
        }
        if is_last {
            return Ok(run);
        }
        if scanned >= MAX_SCANNED {
            run.has_more = true;
            run.reached = match part.direction {
                Direction::Backward => until,
                Direction::Forward => after,
            };
            return Ok(run);
        }
        page_size = NEXT_PAGE;
    }
}

/// The place just beyond an event.
fn beyond(event: &StoredEvent, part: Part) -> StreamPos {
    match (event.pos, part.direction) {
        (Some(pos), Direction::Backward) => StreamPos(pos.0.saturating_sub(1)),
        (Some(pos), Direction::Forward) => pos,
        (None, Direction::Backward) => part.until,
        (None, Direction::Forward) => part.after,
    }
}
