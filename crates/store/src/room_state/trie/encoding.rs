//! Nodes as bytes. One row holds the nodes that one change made, the root first.

use std::sync::Arc;

use crate::{EventNid, KeyNid, StateNid};

/// How many nodes a row may hold: more than a path has, and a row stays below a page.
pub(super) const MAX_PACK: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 5;

/// Where a node is: row and place in the row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Address(i64);

impl Address {
    pub(super) fn new(row: i64, slot: usize) -> Self {
        debug_assert!(slot < MAX_PACK);
        Self(row << SLOT_BITS | slot as i64)
    }

    /// The root of a state; nothing for the empty one.
    pub(super) fn of_root(root: StateNid) -> Option<Self> {
        (root != super::super::EMPTY).then_some(Self(root.0))
    }

    pub(super) fn as_root(self) -> StateNid {
        StateNid(self.0)
    }

    pub(super) fn row(self) -> i64 {
        self.0 >> SLOT_BITS
    }

    pub(super) fn slot(self) -> usize {
        (self.0 & (MAX_PACK as i64 - 1)) as usize
    }
}

/// A node. Entries are in the order of their paths; children in that of the bits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Leaf(Box<[(KeyNid, EventNid)]>),
    Branch { bitmap: u16, children: Box<[Address]> },
}

impl Node {
    /// The child at a step; nothing in a leaf.
    pub(super) fn child(&self, step: u8) -> Option<Address> {
        let Self::Branch { bitmap, children } = self else { return None };
        let bit = 1_u16 << step;
        if bitmap & bit == 0 {
            return None;
        }
        children.get((bitmap & (bit - 1)).count_ones() as usize).copied()
    }
}

/// The nodes of one row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pack(Vec<Arc<Node>>);

impl Pack {
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        Self(nodes.into_iter().map(Arc::new).collect())
    }

    pub(super) fn node(&self, slot: usize) -> Option<Arc<Node>> {
        self.0.get(slot).map(Arc::clone)
    }

    /// A leaf is its number of entries, then keys and events. A branch is a zero, the
    /// bitmap, then the children. Numbers are LEB128.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 * self.0.len());
        for node in &self.0 {
            match &**node {
                Node::Leaf(entries) => {
                    push(&mut out, entries.len() as u64);
                    for (key, event) in entries {
                        push(&mut out, key.0 as u64);
                        push(&mut out, event.0 as u64);
                    }
                }
                Node::Branch { bitmap, children } => {
                    out.push(0);
                    out.extend_from_slice(&bitmap.to_le_bytes());
                    for child in children {
                        push(&mut out, child.0 as u64);
                    }
                }
            }
        }
        out
    }

    /// Nothing when the bytes are not what [`Self::encode`] writes.
    pub(super) fn decode(mut data: &[u8]) -> Option<Self> {
        let mut nodes = Vec::new();
        while !data.is_empty() {
            let entries = usize::try_from(pull(&mut data)?).ok()?;
            // Each entry has two bytes at least: a count beyond that allocates nothing.
            if entries > data.len() / 2 {
                return None;
            }
            let node = if entries > 0 {
                let pair =
                    |data: &mut &[u8]| Some((KeyNid(number(data)?), EventNid(number(data)?)));
                Node::Leaf((0..entries).map(|_| pair(&mut data)).collect::<Option<_>>()?)
            } else {
                let bitmap = u16::from_le_bytes(*data.split_off(..2)?.first_chunk()?);
                let children = 0..bitmap.count_ones();
                let children =
                    children.map(|_| number(&mut data).map(Address)).collect::<Option<_>>()?;
                Node::Branch { bitmap, children }
            };
            nodes.push(Arc::new(node));
        }
        Some(Self(nodes))
    }
}

fn push(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn pull(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = *data.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn number(data: &mut &[u8]) -> Option<i64> {
    pull(data).and_then(|value| i64::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> impl Strategy<Value = Node> {
        let entry =
            (1..i64::MAX, 1..i64::MAX).prop_map(|(key, event)| (KeyNid(key), EventNid(event)));
        let leaf =
            prop::collection::vec(entry, 1..20).prop_map(|entries| Node::Leaf(entries.into()));
        let branch = (any::<u16>(), prop::collection::vec(1..i64::MAX, 16)).prop_map(
            |(bitmap, children)| Node::Branch {
                bitmap,
                children: children
                    .into_iter()
                    .take(bitmap.count_ones() as usize)
                    .map(Address)
                    .collect(),
            },
        );
        prop_oneof![leaf, branch]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(nodes in prop::collection::vec(node(), 1..MAX_PACK)) {
            let pack = Pack::new(nodes);
            prop_assert_eq!(Pack::decode(&pack.encode()), Some(pack));
        }

        #[test]
        fn damage_never_panics(data in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Pack::decode(&data));
        }
    }
}
