//! A new trie beside an old one: only the nodes that differ.

use super::{Address, Change, MAX_LEAF, Node, Pack, encoding::MAX_PACK, load, path, step};
use crate::{EventNid, KeyNid, Snapshot, StoreError};

/// A node that exists, or the draft with this index.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ref {
    Old(Address),
    New(usize),
}

enum Draft {
    Leaf(Vec<(KeyNid, EventNid)>),
    Branch(Box<[Option<Ref>; 16]>),
}

/// Nodes that have no address yet.
pub(super) struct Drafts<'s> {
    snap: &'s Snapshot<'s>,
    nodes: Vec<Draft>,
}

impl<'s> Drafts<'s> {
    pub(super) fn new(snap: &'s Snapshot<'s>) -> Self {
        Self { snap, nodes: Vec::new() }
    }

    /// The subtree with the changes made; the old one itself when they change nothing.
    /// `changes` are in the order of their paths and belong below `old`.
    pub(super) fn update(
        &mut self,
        old: Option<Address>,
        depth: u32,
        changes: &[Change],
    ) -> Result<Option<Ref>, StoreError> {
        let node = old.map(|address| load(self.snap, address)).transpose()?;
        match node.as_deref() {
            None => Ok(self.build(&merge(&[], changes), depth)),
            Some(Node::Leaf(entries)) => {
                let merged = merge(entries, changes);
                if *merged == **entries {
                    return Ok(old.map(Ref::Old));
                }
                Ok(self.build(&merged, depth))
            }
            Some(branch @ Node::Branch { .. }) => {
                let children = std::array::from_fn(|n| branch.child(n as u8).map(Ref::Old));
                let updated = self.update_children(branch, depth, changes)?;
                if updated == children {
                    return Ok(old.map(Ref::Old));
                }
                self.join(updated)
            }
        }
    }

    fn update_children(
        &mut self,
        branch: &Node,
        depth: u32,
        changes: &[Change],
    ) -> Result<[Option<Ref>; 16], StoreError> {
        let mut children = std::array::from_fn(|n| branch.child(n as u8).map(Ref::Old));
        for group in changes.chunk_by(|a, b| step(a.path, depth) == step(b.path, depth)) {
            let n = step(group[0].path, depth);
            children[usize::from(n)] = self.update(branch.child(n), depth + 1, group)?;
        }
        Ok(children)
    }

    /// A subtree of exactly these entries.
    fn build(&mut self, entries: &[(KeyNid, EventNid)], depth: u32) -> Option<Ref> {
        if entries.is_empty() {
            return None;
        }
        if entries.len() <= MAX_LEAF {
            return Some(self.push(Draft::Leaf(entries.to_vec())));
        }
        let mut children = [None; 16];
        let at = |entry: &(KeyNid, EventNid)| step(path(entry.0), depth);
        for group in entries.chunk_by(|a, b| at(a) == at(b)) {
            children[usize::from(at(&group[0]))] = self.build(group, depth + 1);
        }
        Some(self.push(Draft::Branch(Box::new(children))))
    }

    /// A branch of these children; or the leaf it must be when removals left few entries.
    fn join(&mut self, children: [Option<Ref>; 16]) -> Result<Option<Ref>, StoreError> {
        let mut entries = Vec::new();
        for child in children.into_iter().flatten() {
            let small = match child {
                Ref::New(index) => match &self.nodes[index] {
                    Draft::Leaf(leaf) => {
                        entries.extend_from_slice(leaf);
                        true
                    }
                    Draft::Branch(_) => false,
                },
                Ref::Old(address) => match &*load(self.snap, address)? {
                    Node::Leaf(leaf) => {
                        entries.extend_from_slice(leaf);
                        true
                    }
                    Node::Branch { .. } => false,
                },
            };
            if !small || entries.len() > MAX_LEAF {
                return Ok(Some(self.push(Draft::Branch(Box::new(children)))));
            }
        }
        Ok((!entries.is_empty()).then(|| self.push(Draft::Leaf(entries))))
    }

    fn push(&mut self, draft: Draft) -> Ref {
        self.nodes.push(draft);
        Ref::New(self.nodes.len() - 1)
    }

    /// The drafts that `root` needs, in the order in which they will be read.
    pub(super) fn into_packs(self, root: Option<Ref>) -> Packs {
        let mut order = Vec::new();
        let mut next: Vec<_> = root.into_iter().collect();
        while let Some(reference) = next.pop() {
            let Ref::New(index) = reference else { continue };
            order.push(index);
            if let Draft::Branch(children) = &self.nodes[index] {
                next.extend(children.iter().rev().flatten());
            }
        }
        Packs { drafts: self.nodes, order, root }
    }
}

/// Drafts in the order of their rows and slots.
pub(super) struct Packs {
    drafts: Vec<Draft>,
    order: Vec<usize>,
    root: Option<Ref>,
}

impl Packs {
    /// Gives every draft its address. Returns the rows to write, and the root.
    pub(super) fn number(
        self,
        mut row: impl FnMut() -> i64,
    ) -> (Vec<(i64, Pack)>, Option<Address>) {
        let mut addresses = vec![None; self.drafts.len()];
        let rows: Vec<_> = self.order.chunks(MAX_PACK).map(|pack| (row(), pack)).collect();
        for (row, pack) in &rows {
            for (slot, index) in pack.iter().enumerate() {
                addresses[*index] = Some(Address::new(*row, slot));
            }
        }
        let resolve = |reference: Ref| match reference {
            Ref::Old(address) => Some(address),
            Ref::New(index) => addresses[index],
        };
        let node = |index: &usize| match &self.drafts[*index] {
            Draft::Leaf(entries) => Node::Leaf(entries.clone().into()),
            Draft::Branch(children) => {
                let present = children.iter().enumerate().filter(|(_, child)| child.is_some());
                let bitmap = present.fold(0, |bitmap, (n, _)| bitmap | 1_u16 << n);
                let children =
                    children.iter().flatten().filter_map(|child| resolve(*child)).collect();
                Node::Branch { bitmap, children }
            }
        };
        let packs =
            rows.iter().map(|(row, pack)| (*row, Pack::new(pack.iter().map(node).collect())));
        (packs.collect(), self.root.and_then(resolve))
    }
}

/// The entries with the changes made. Both are in the order of their paths.
fn merge(entries: &[(KeyNid, EventNid)], changes: &[Change]) -> Vec<(KeyNid, EventNid)> {
    let mut merged = Vec::with_capacity(entries.len() + changes.len());
    let mut entries = entries.iter().copied().peekable();
    for change in changes {
        while let Some(entry) = entries.next_if(|entry| path(entry.0) < change.path) {
            merged.push(entry);
        }
        // The entry that the change replaces.
        entries.next_if(|entry| entry.0 == change.key);
        merged.extend(change.event.map(|event| (change.key, event)));
    }
    merged.extend(entries);
    merged
}
