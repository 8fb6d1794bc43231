//! What a run was worth: how much happened on branches, and was merged.

use std::collections::{BTreeMap, BTreeSet};

use ruma::OwnedEventId;

use crate::{
    life::START_MS,
    look::{Held, Look},
    world::World,
};

/// Counts how much of the time of trouble happened apart in a room. What comes before and after it,
/// when everybody hears everybody, would only water it down.
pub(crate) fn measure(world: &World, seen: &Look) {
    let (from, until) = world.trouble.get();
    let ms = |since: std::time::Duration| {
        START_MS + u64::try_from(since.as_millis()).unwrap_or(u64::MAX / 2)
    };
    let of_trouble = |event: &Held| (ms(from)..=ms(until)).contains(&event.ts);
    let graph = Graph::of(&seen.events);
    let measured: Vec<&OwnedEventId> = seen
        .events
        .iter()
        .filter(|(_, event)| of_trouble(event))
        .map(|(event_id, _)| event_id)
        .collect();
    let concurrent =
        measured.iter().filter(|a| measured.iter().any(|b| graph.are_apart(a, b))).count();
    let merges = measured.iter().filter(|id| seen.events[**id].prev_events.len() > 1).count();
    let mut settings: BTreeMap<&(String, String), Vec<&OwnedEventId>> = BTreeMap::new();
    for (event_id, event) in &seen.events {
        if let Some(key) = &event.sets {
            settings.entry(key).or_default().push(event_id);
        }
    }
    let conflicts = settings
        .values()
        .filter(|by| by.iter().any(|a| by.iter().any(|b| graph.are_apart(a, b))))
        .count();
    world.count(|tally| {
        tally.events += measured.len();
        tally.merges += merges;
        tally.concurrent += concurrent;
        tally.state_conflicts += conflicts;
    });
}

/// Who comes before whom, a bit for each pair.
struct Graph<'a> {
    number: BTreeMap<&'a OwnedEventId, usize>,
    /// For each event, those before it.
    before: Vec<Vec<u64>>,
}

impl<'a> Graph<'a> {
    fn of(events: &'a BTreeMap<OwnedEventId, Held>) -> Self {
        let number: BTreeMap<&OwnedEventId, usize> = events.keys().zip(0..).collect();
        let words = events.len().div_ceil(64);
        let mut graph = Self { number, before: vec![vec![0; words]; events.len()] };
        for event_id in oldest_first(events) {
            let Some(at) = graph.number.get(event_id).copied() else { continue };
            let mut before = vec![0; words];
            for prev in &events[event_id].prev_events {
                let Some(prev) = graph.number.get(prev).copied() else { continue };
                before[prev / 64] |= 1_u64 << (prev % 64);
                for (word, more) in before.iter_mut().zip(&graph.before[prev]) {
                    *word |= more;
                }
            }
            graph.before[at] = before;
        }
        graph
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        self.before[b][a / 64] & (1 << (a % 64)) != 0
    }

    /// Whether neither comes before the other.
    fn are_apart(&self, a: &OwnedEventId, b: &OwnedEventId) -> bool {
        let (Some(a), Some(b)) = (self.number.get(a), self.number.get(b)) else { return false };
        a != b && !self.is_before(*a, *b) && !self.is_before(*b, *a)
    }
}

/// Each after all that it follows.
fn oldest_first(events: &BTreeMap<OwnedEventId, Held>) -> Vec<&OwnedEventId> {
    let (mut order, mut done) = (Vec::with_capacity(events.len()), BTreeSet::new());
    let mut stack: Vec<&OwnedEventId> = events.keys().collect();
    while let Some(event_id) = stack.pop() {
        if done.contains(event_id) {
            continue;
        }
        let Some((event_id, event)) = events.get_key_value(event_id) else { continue };
        let open: Vec<&OwnedEventId> = event
            .prev_events
            .iter()
            .filter(|prev| events.contains_key(*prev) && !done.contains(*prev))
            .collect();
        if open.is_empty() {
            done.insert(event_id);
            order.push(event_id);
        } else {
            stack.push(event_id);
            stack.extend(open);
        }
    }
    order
}
