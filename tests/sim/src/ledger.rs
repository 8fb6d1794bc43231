//! What was promised: every event and receipt whose sender was told that it is kept.

use std::collections::BTreeMap;

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

/// One promise.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    pub(crate) node: usize,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) event_id: OwnedEventId,
    /// How often the node had lost the room before.
    stay: u32,
}

/// A receipt that somebody gave.
#[derive(Debug, Clone)]
struct Given {
    /// The join by which they were in the room.
    join: OwnedEventId,
    /// Who must have it, and how often each had lost the room before.
    nodes: Vec<(usize, u32)>,
}

/// All promises.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    promises: Vec<Promise>,
    /// Who gave receipts where; the last of each.
    receipts: BTreeMap<(OwnedRoomId, OwnedUserId), Given>,
    /// How often a node lost a room: it left, or was put out.
    lost: BTreeMap<(usize, OwnedRoomId), u32>,
}

impl Ledger {
    /// A node acknowledged an event.
    pub(crate) fn promise(&mut self, node: usize, room_id: OwnedRoomId, event_id: OwnedEventId) {
        let stay = self.stay(node, &room_id);
        self.promises.push(Promise { node, room_id, event_id, stay });
    }

    /// A node acknowledged a receipt; `members` are the nodes in the room then, itself among them.
    pub(crate) fn receipt(
        &mut self,
        (room_id, user_id): (OwnedRoomId, OwnedUserId),
        join: OwnedEventId,
        members: Vec<usize>,
    ) {
        let nodes = members.into_iter().map(|node| (node, self.stay(node, &room_id))).collect();
        self.receipts.insert((room_id, user_id), Given { join, nodes });
    }

    /// A node is no longer in a room.
    pub(crate) fn lose(&mut self, node: usize, room_id: OwnedRoomId) {
        *self.lost.entry((node, room_id)).or_default() += 1;
    }

    /// Whether the node has been in the room without a break since it promised. Else others need
    /// not have the event: they stopped listening to that node.
    pub(crate) fn binds(&self, promise: &Promise) -> bool {
        self.stay(promise.node, &promise.room_id) == promise.stay
    }

    pub(crate) fn of_node(&self, node: usize) -> Vec<OwnedEventId> {
        let of_node = self.promises.iter().filter(|promise| promise.node == node);
        of_node.map(|promise| promise.event_id.clone()).collect()
    }

    pub(crate) fn of_room<'a>(
        &'a self,
        room_id: &'a OwnedRoomId,
    ) -> impl Iterator<Item = &'a Promise> {
        self.promises.iter().filter(move |promise| promise.room_id == *room_id)
    }

    /// Receipts in a room: of whom, by which join they were in it, and the nodes that must have
    /// each: those that stayed since then.
    pub(crate) fn receipts_of(
        &self,
        room_id: &OwnedRoomId,
    ) -> Vec<(OwnedUserId, OwnedEventId, Vec<usize>)> {
        let of_room = self.receipts.iter().filter(|((room, _), _)| room == room_id);
        let stayed = |given: &Given| -> Vec<usize> {
            let stayed =
                given.nodes.iter().filter(|(node, stay)| self.stay(*node, room_id) == *stay);
            stayed.map(|(node, _)| *node).collect()
        };
        of_room
            .map(|((_, user_id), given)| (user_id.clone(), given.join.clone(), stayed(given)))
            .collect()
    }

    fn stay(&self, node: usize, room_id: &OwnedRoomId) -> u32 {
        self.lost.get(&(node, room_id.clone())).copied().unwrap_or_default()
    }
}
