//! Walking the graph of events. The edges are in the events themselves.

use std::{
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
};

use messagehub_protocol::pdu::Pdu;
use ruma::{EventId, OwnedEventId};

use crate::{
    EventNid, RoomNid, Snapshot, StoreError, StreamPos, events,
    events::{Direction, StoredEvent},
};

/// The most events one walk looks at: bounds what one request of a peer costs.
pub const MAX_WALK: usize = 10_000;

/// Those of some events that are not stored at all.
///
/// # Errors
/// Fails when the database does.
pub fn missing_of<'i, I: AsRef<EventId> + 'i>(
    snap: &Snapshot<'_>,
    ids: impl IntoIterator<Item = &'i I>,
) -> Result<Vec<OwnedEventId>, StoreError> {
    let mut missing = Vec::new();
    for id in ids {
        let id = id.as_ref();
        if events::find_nid(snap, id)?.is_none() {
            missing.push(id.to_owned());
        }
    }
    Ok(missing)
}

/// Events with all that their auth events rest on.
#[derive(Clone, Debug, Default)]
pub struct AuthChain {
    /// Everything found, without the events one began with unless they are in it.
    pub events: HashMap<OwnedEventId, Arc<Pdu>>,
    /// What is named but not stored.
    pub missing: Vec<OwnedEventId>,
}

/// The auth chain of some events: their auth events, those of these, and so on. From
/// room version 12 on no event names the create event, so it is not in it.
///
/// # Errors
/// Fails when the database does.
pub fn auth_chain<'p>(
    snap: &Snapshot<'_>,
    of: impl IntoIterator<Item = &'p Arc<Pdu>>,
) -> Result<AuthChain, StoreError> {
    let mut chain = AuthChain::default();
    let mut seen = HashSet::new();
    let mut next: Vec<OwnedEventId> =
        of.into_iter().flat_map(|pdu| pdu.auth_events()).cloned().collect();
    while let Some(id) = next.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        match events::find_nid(snap, &id)? {
            Some(nid) => {
                let pdu = events::pdu(snap, nid)?;
                next.extend(pdu.auth_events().iter().filter(|id| !seen.contains(*id)).cloned());
                chain.events.insert(id, pdu);
            }
            None => chain.missing.push(id),
        }
    }
    Ok(chain)
}

/// What one side of a graph has and the other has not.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'i> {
    /// The room; events of others are not followed.
    pub room: RoomNid,
    /// Where to begin; these are part of the result.
    pub from: &'i [OwnedEventId],
    /// These and all their ancestors are not part of it.
    pub known: &'i [OwnedEventId],
    /// How many events at most.
    pub limit: usize,
}

/// Placed events reachable from `from` by `prev_events` and not from `known`, the deepest first:
/// what `/backfill`, `/get_missing_events` and a comparison of heads are answered with.
///
/// Both sides are walked together in the order of depth. A depth that lies can only
/// make the result larger than necessary, and [`MAX_WALK`] bounds the cost.
///
/// # Errors
/// Fails when the database does.
pub fn ancestors(snap: &Snapshot<'_>, walk: Walk<'_>) -> Result<Vec<StoredEvent>, StoreError> {
    events::load_many(snap, ancestor_nids(snap, walk)?)
}

/// As [`ancestors`], by their integers: a long walk is not held in memory as a whole.
fn ancestor_nids(snap: &Snapshot<'_>, walk: Walk<'_>) -> Result<Vec<EventNid>, StoreError> {
    let mut frontier = Frontier {
        snap,
        room: walk.room,
        queue: BinaryHeap::new(),
        seen: HashMap::new(),
        wanted: 0,
    };
    for id in walk.known {
        frontier.add(id, Side::Known)?;
    }
    for id in walk.from {
        frontier.add(id, Side::Wanted)?;
    }
    let mut found = Vec::new();
    let mut looked_at = 0;
    while let Some((nid, side)) = frontier.next() {
        looked_at += 1;
        if found.len() >= walk.limit || looked_at > MAX_WALK {
            break;
        }
        let event = events::get(snap, nid)?;
        for prev in event.pdu.prev_events() {
            frontier.add(prev, side)?;
        }
        if side == Side::Wanted && (event.state_before.is_some() || event.pos.is_some()) {
            found.push(nid);
        }
    }
    Ok(found)
}

/// Events of a timeline that are read at once.
const PAGE: usize = 128;

/// At most `walk.limit` placed events that are neither among `walk.known` nor before them, each
/// after those before it, of those that are given: what a long gap is filled with from its old end,
/// at the cost of what is given.
///
/// The timeline is read on from where the oldest of `known` stands, beyond `walk.from`. Branches
/// that came before that, to what of the timeline follows them or to `walk.from`, go first. Where
/// nothing of `known` is in the timeline, it is the oldest of what is before `walk.from`.
///
/// # Errors
/// Fails when the database does.
pub fn oldest_first(
    snap: &Snapshot<'_>,
    walk: Walk<'_>,
    is_given: impl Fn(&StoredEvent) -> bool,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut heads = Vec::new();
    for id in walk.known {
        heads.extend(events::find(snap, id)?.filter(|event| event.room == walk.room));
    }
    let Some(start) = heads.iter().filter_map(|head| head.pos).min() else {
        return oldest_ancestors(snap, walk, is_given);
    };
    // Where some of `known` is not here, what is before it cannot be told from what comes after.
    let ends = if heads.len() == walk.known.len() { walk.from } else { &[] };
    let mut seen = history_since(snap, start, heads)?;
    let (mut earlier, mut hidden) = (Vec::new(), Vec::new());
    for id in ends {
        let event = events::find(snap, id)?.filter(|event| !seen.contains(&event.nid));
        match event.map(|event| event.pos) {
            Some(Some(pos)) if pos <= start => earlier.push(id.clone()),
            // It is in no timeline, and before it may be all of this one.
            Some(None) => hidden.push(id.clone()),
            _ => {}
        }
    }
    let mut found = Vec::new();
    let mut after = start;
    let mut looked_at = 0;
    while found.len() < walk.limit && looked_at < MAX_WALK {
        let all = (after, StreamPos(i64::MAX));
        let page = events::page(snap, walk.room, all, Direction::Forward, PAGE)?;
        let Some(last) = page.last().and_then(|event| event.pos) else { break };
        (after, looked_at) = (last, looked_at + page.len());
        for event in page {
            if found.len() >= walk.limit || !seen.insert(event.nid) {
                continue;
            }
            for prev in event.pdu.prev_events() {
                let nid = events::find_nid(snap, prev)?;
                if nid.is_some_and(|nid| !seen.contains(&nid)) {
                    earlier.push(prev.clone());
                }
            }
            found.extend(Some(event).filter(&is_given));
        }
    }
    if found.len() < walk.limit {
        earlier.append(&mut hidden);
    }
    if earlier.is_empty() {
        return Ok(found);
    }
    let branches = Walk { from: &earlier, ..walk };
    // What stands further on comes with the timeline.
    let is_new = |event: &StoredEvent| event.pos.is_none_or(|pos| pos <= start) && is_given(event);
    let mut all = oldest_ancestors(snap, branches, is_new)?;
    all.append(&mut found);
    all.truncate(walk.limit);
    Ok(all)
}

/// The oldest `walk.limit` of the events that [`ancestors`] would find without a limit, of those
/// that are given: of a long walk nothing else is kept.
fn oldest_ancestors(
    snap: &Snapshot<'_>,
    walk: Walk<'_>,
    is_given: impl Fn(&StoredEvent) -> bool,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut found = Vec::new();
    for nid in ancestor_nids(snap, Walk { limit: MAX_WALK, ..walk })?.into_iter().rev() {
        if found.len() >= walk.limit {
            break;
        }
        found.extend(Some(events::get(snap, nid)?).filter(&is_given));
    }
    Ok(found)
}

/// Some events and those before them, back to a place in the timeline.
fn history_since(
    snap: &Snapshot<'_>,
    start: StreamPos,
    mut next: Vec<StoredEvent>,
) -> Result<HashSet<EventNid>, StoreError> {
    let mut seen: HashSet<EventNid> = next.iter().map(|event| event.nid).collect();
    while let Some(event) = next.pop() {
        // What clients do not see has no place; it is passed through.
        if event.pos.is_some_and(|pos| pos <= start) || seen.len() > MAX_WALK {
            continue;
        }
        for prev in event.pdu.prev_events() {
            if let Some(nid) = events::find_nid(snap, prev)?
                && seen.insert(nid)
            {
                next.push(events::get(snap, nid)?);
            }
        }
    }
    Ok(seen)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Wanted,
    Known,
}

struct Frontier<'s> {
    snap: &'s Snapshot<'s>,
    room: RoomNid,
    /// Depth first; an integer breaks ties, so that the order is the same every time.
    queue: BinaryHeap<(u64, EventNid)>,
    /// Each event's side, and whether it was handed out.
    seen: HashMap<EventNid, (Side, bool)>,
    /// How many in the queue are wanted: without any the walk ends.
    wanted: usize,
}

impl Frontier<'_> {
    fn add(&mut self, id: &EventId, side: Side) -> Result<(), StoreError> {
        let Some(nid) = events::find_nid(self.snap, id)? else { return Ok(()) };
        match self.seen.get_mut(&nid) {
            Some((its_side, handed_out)) => {
                if *its_side == Side::Wanted && side == Side::Known && !*handed_out {
                    *its_side = side;
                    self.wanted -= 1;
                }
            }
            None => {
                let event = events::get(self.snap, nid)?;
                if event.room == self.room {
                    self.queue.push((event.pdu.depth(), nid));
                    self.seen.insert(nid, (side, false));
                    self.wanted += usize::from(side == Side::Wanted);
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<(EventNid, Side)> {
        if self.wanted == 0 {
            return None;
        }
        let (_, nid) = self.queue.pop()?;
        let (side, handed_out) = self.seen.get_mut(&nid)?;
        *handed_out = true;
        self.wanted -= usize::from(*side == Side::Wanted);
        Some((nid, *side))
    }
}
