//! The trie: 16-way nodes, few bytes each, never changed once written.
//!
//! The path of a key is its class and then a bijective hash, so no two keys share one.
//! A subtree of at most [`MAX_LEAF`] entries is one leaf; every larger one is a branch.
//! So the shape of a trie follows from its entries alone.

use std::sync::Arc;

use rusqlite::OptionalExtension;

use super::keys;
use crate::{EventNid, KeyNid, Snapshot, StateNid, StoreError, Txn, txn::Table};

use draft::Drafts;
pub(crate) use encoding::Pack;
use encoding::{Address, Node};

mod draft;
mod encoding;

/// Larger leaves make fewer nodes to read and longer ones to write; measured in benches/room_state.rs.
pub(super) const MAX_LEAF: usize = 16;

/// A key to set to an event, or to remove.
#[derive(Clone, Copy)]
pub(super) struct Change {
    path: u64,
    key: KeyNid,
    event: Option<EventNid>,
}

impl Change {
    pub(super) fn new(key: KeyNid, event: Option<EventNid>) -> Self {
        Self { path: path(key), key, event }
    }
}

/// Which part of a trie to read.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Whole,
    Class(u8),
    AllBut(u8),
}

impl Part {
    fn has(self, class: u8) -> bool {
        match self {
            Self::Whole => true,
            Self::Class(wanted) => class == wanted,
            Self::AllBut(unwanted) => class != unwanted,
        }
    }
}

/// What one trie has for a key and the other has.
pub(super) type Difference = (KeyNid, Option<EventNid>, Option<EventNid>);

pub(super) fn get(
    snap: &Snapshot<'_>,
    root: StateNid,
    key: KeyNid,
) -> Result<Option<EventNid>, StoreError> {
    let path = path(key);
    let mut next = Address::of_root(root);
    let mut depth = 0;
    while let Some(address) = next {
        match &*load(snap, address)? {
            Node::Leaf(entries) => {
                return Ok(entries.iter().find(|(its, _)| *its == key).map(|(_, event)| *event));
            }
            branch @ Node::Branch { .. } => next = branch.child(step(path, depth)),
        }
        depth += 1;
    }
    Ok(None)
}

/// Writes the nodes that differ from `root`'s, in as few rows as they fit.
pub(super) fn apply(
    txn: &mut Txn<'_>,
    root: StateNid,
    mut changes: Vec<Change>,
) -> Result<StateNid, StoreError> {
    // Stable, so of two changes of one key the later comes last.
    changes.sort_by_key(|change| change.path);
    changes.dedup_by(|later, earlier| {
        let same = later.key == earlier.key;
        if same {
            *earlier = *later;
        }
        same
    });
    let mut drafts = Drafts::new(txn);
    let new_root = drafts.update(Address::of_root(root), 0, &changes)?;
    let packs = drafts.into_packs(new_root);
    let (rows, root) = packs.number(|| txn.next_nid(Table::StateNodes));
    let mut insert =
        txn.conn().prepare_cached("INSERT INTO state_nodes (nid, data) VALUES (?1, ?2)")?;
    for (row, pack) in rows {
        let data = pack.encode();
        insert.execute((row, &data))?;
        txn.shared.nodes.insert(row, Arc::new(pack), data.len());
    }
    Ok(root.map_or(super::EMPTY, Address::as_root))
}

pub(super) fn entries(
    snap: &Snapshot<'_>,
    root: StateNid,
    part: Part,
) -> Result<Vec<(KeyNid, EventNid)>, StoreError> {
    let mut found = Vec::new();
    let Some(root) = Address::of_root(root) else { return Ok(found) };
    match &*load(snap, root)? {
        Node::Leaf(entries) => {
            found.extend(entries.iter().filter(|(key, _)| part.has(keys::class_of(*key))));
        }
        branch @ Node::Branch { .. } => {
            for class in (0..16).filter(|class| part.has(*class)) {
                collect(snap, branch.child(class), &mut found)?;
            }
        }
    }
    Ok(found)
}

pub(super) fn diff(
    snap: &Snapshot<'_>,
    before: StateNid,
    after: StateNid,
) -> Result<Vec<Difference>, StoreError> {
    let mut found = Vec::new();
    compare(snap, Address::of_root(before), Address::of_root(after), &mut found)?;
    Ok(found)
}

fn compare(
    snap: &Snapshot<'_>,
    before: Option<Address>,
    after: Option<Address>,
    found: &mut Vec<Difference>,
) -> Result<(), StoreError> {
    if before == after {
        return Ok(());
    }
    if let (Some(before), Some(after)) = (before, after) {
        let (before, after) = (load(snap, before)?, load(snap, after)?);
        if let (Node::Branch { .. }, Node::Branch { .. }) = (&*before, &*after) {
            for class in 0..16 {
                compare(snap, before.child(class), after.child(class), found)?;
            }
            return Ok(());
        }
    }
    let (mut old, mut new) = (Vec::new(), Vec::new());
    collect(snap, before, &mut old)?;
    collect(snap, after, &mut new)?;
    compare_entries(&old, &new, found);
    Ok(())
}

/// Merges two lists in the order of their paths.
fn compare_entries(
    mut old: &[(KeyNid, EventNid)],
    mut new: &[(KeyNid, EventNid)],
    found: &mut Vec<Difference>,
) {
    loop {
        let order = match (old.first(), new.first()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => path(a.0).cmp(&path(b.0)),
        };
        let before = if order.is_le() { old.split_off_first() } else { None };
        let after = if order.is_ge() { new.split_off_first() } else { None };
        let (a, b) = (before.map(|entry| entry.1), after.map(|entry| entry.1));
        if let Some((key, _)) = before.or(after).filter(|_| a != b) {
            found.push((*key, a, b));
        }
    }
}

fn collect(
    snap: &Snapshot<'_>,
    address: Option<Address>,
    found: &mut Vec<(KeyNid, EventNid)>,
) -> Result<(), StoreError> {
    let Some(address) = address else { return Ok(()) };
    match &*load(snap, address)? {
        Node::Leaf(entries) => found.extend_from_slice(entries),
        Node::Branch { children, .. } => {
            for child in children {
                collect(snap, Some(*child), found)?;
            }
        }
    }
    Ok(())
}

/// Reads a node, from the cache if it is there.
fn load(snap: &Snapshot<'_>, address: Address) -> Result<Arc<Node>, StoreError> {
    let damaged = || StoreError::Damaged(format!("state node {address:?} cannot be read"));
    let cached = snap.shared.nodes.get(&address.row());
    let pack = match cached {
        Some(pack) => pack,
        None => {
            let mut select =
                snap.conn().prepare_cached("SELECT data FROM state_nodes WHERE nid = ?1")?;
            let (pack, weight) = select
                .query_row([address.row()], |row| {
                    let data = row.get_ref(0)?.as_blob()?;
                    Ok((Pack::decode(data), data.len()))
                })
                .optional()?
                .ok_or_else(damaged)?;
            let pack = Arc::new(pack.ok_or_else(damaged)?);
            snap.shared.nodes.insert(address.row(), Arc::clone(&pack), weight);
            pack
        }
    };
    pack.node(address.slot()).ok_or_else(damaged)
}

/// Where a key is: its class in the highest four bits, then 60 well-mixed bits.
fn path(key: KeyNid) -> u64 {
    const MASK: u64 = (1 << 60) - 1;
    // Each line is a bijection of 60 bits: an odd factor, or a shift folded in.
    let mut hash = (key.0 as u64 >> keys::CLASS_BITS) & MASK;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) & MASK;
    hash ^= hash >> 31;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93) & MASK;
    hash ^= hash >> 31;
    (u64::from(keys::class_of(key)) << 60) | hash
}

/// Which of 16 children a path takes at a depth.
fn step(path: u64, depth: u32) -> u8 {
    (path >> (60 - 4 * depth) & 15) as u8
}

/// How many nodes a trie has.
#[cfg(test)]
pub(super) fn count_nodes(snap: &Snapshot<'_>, root: StateNid) -> Result<usize, StoreError> {
    let mut next: Vec<_> = Address::of_root(root).into_iter().collect();
    let mut count = 0;
    while let Some(address) = next.pop() {
        count += 1;
        if let Node::Branch { children, .. } = &*load(snap, address)? {
            next.extend(children);
        }
    }
    Ok(count)
}
