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
    /// Of these, nodes that did more than their software does.
    hostile_nodes,
    /// Rooms.
    rooms,
    /// Rooms that more than one honest node was in at the end.
    shared_rooms,
    /// Deeds of people that were acknowledged.
    deeds_done,
    /// Deeds that were refused: not allowed, not reachable.
    deeds_refused,
    /// Things that hostile nodes did.
    misdeeds,
    /// Wrong or missing answers that hostile nodes gave.
    lies,
    /// Events in the rooms at the end, of the time of trouble.
    events,
    /// Of these, events beside which others happened without knowing of them: each was on one of
    /// several branches that were merged.
    concurrent,
    /// Of these, events that follow several others: where branches were merged.
    merges,
    /// Keys of room state that were set on two branches at once, and have one value everywhere.
    state_conflicts,
    /// Events that one node shows and another keeps without showing.
    soft_failed,
    /// Acknowledged events that had to be everywhere in the end, and were.
    acknowledged,
    /// Acknowledged events that had not: their server left the room or was put out after them.
    excused,
    /// Acknowledged invites that had to arrive in the end, and did.
    invites_delivered,
    /// Acknowledged receipts that had to be everywhere in the end, and were.
    receipts_delivered,
    /// Connections that broke because a link did.
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
    /// Events that came to a node by repair only: heads, gaps, history.
    repaired,
    /// Joins through another server.
    remote_joins,
    /// Kicks and bans done.
    moderated,
}

impl Tally {
    /// What a run must have had to be worth anything, and this one had not.
    pub fn shortcoming(&self) -> Option<&'static str> {
        let needed = [
            (self.recoveries, "no crash was recovered"),
            (self.repaired, "no event came by repair only"),
            (self.concurrent, "no event was merged from a fork"),
        ];
        needed.into_iter().find(|(count, _)| *count == 0).map(|(_, what)| what)
    }

    /// Of a hundred events, those that were merged from forks.
    pub fn percent_from_forks(&self) -> usize {
        100 * self.concurrent / self.events.max(1)
    }
}
