//! What happened, in numbers, so that a run that proved nothing is noticed.

use std::ops::AddAssign;

macro_rules! tally {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// What happened in one run or in many. Numbers of things.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[$doc])* pub $field: usize,)*
        }

        impl AddAssign<&Tally> for Tally {
            fn add_assign(&mut self, other: &Tally) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

tally! {
    /// Runs.
    runs,
    /// Nodes.
    nodes,
    /// Rooms.
    rooms,
    /// Rooms that more than one node was in at the end.
    shared_rooms,
    /// Deeds of people that were acknowledged.
    deeds_done,
    /// Deeds that were refused: not allowed, not reachable.
    deeds_refused,
    /// Events in the rooms at the end.
    events,
    /// Of these, events that follow several others: where branches were merged.
    merges,
    /// Of these, events beside which others happened without knowing of them.
    concurrent,
    /// Keys of room state that were set on two branches at once.
    state_conflicts,
    /// Events that one node shows and another keeps without showing.
    soft_failed,
    /// Acknowledged events that had to be everywhere in the end, and were.
    acknowledged,
    /// Acknowledged events that had not: their server left the room or was put out after them.
    excused,
    /// Links cut.
    cuts,
    /// Nodes killed.
    crashes,
    /// Nodes that came back and had every acknowledged event.
    recoveries,
    /// Frames that reached a node.
    frames_delivered,
    /// Frames lost on a link.
    frames_lost,
    /// Frames delivered a second time.
    frames_repeated,
    /// Frames handed on by a node that is not their author.
    frames_forwarded,
    /// Requests that reached a node.
    requests,
    /// Requests or answers lost.
    requests_lost,
    /// Requests refused because of the switches.
    requests_refused,
    /// Events that came by repair: heads, gaps, history.
    repaired,
    /// Joins through another server.
    remote_joins,
    /// Kicks and bans done.
    moderated,
}
