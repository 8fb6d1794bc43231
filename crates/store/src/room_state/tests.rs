use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{Mode, Store};

type Model = BTreeMap<(String, String), i64>;
type Step = ((String, String), Option<i64>);

/// Runs a closure in one write, and rolls it back.
fn with_txn(
    test: impl FnOnce(&mut Txn<'_>) -> Result<(), TestCaseError> + Send + 'static,
) -> Result<(), TestCaseError> {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(store.write(move |txn| Ok::<_, StoreError>(test(txn))));
    outcome.unwrap()
}

/// Few types and keys, so that changes meet; one type with many keys, so that nodes split.
fn step() -> impl Strategy<Value = Step> {
    let member = (0..400).prop_map(|n| ("m.room.member".to_owned(), format!("@user{n}:b.example")));
    let other = (0..20, 0..3).prop_map(|(kind, key)| (format!("type{kind}"), format!("{key}")));
    let key = prop_oneof![4 => member, 1 => other];
    (key, prop_oneof![4 => (1..1000_i64).prop_map(Some), 1 => Just(None)])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..400)
}

fn change(model: &mut Model, ((kind, state_key), event): &Step) {
    let key = (kind.clone(), state_key.clone());
    match event {
        Some(event) => model.insert(key, *event),
        None => model.remove(&key),
    };
}

fn apply_all(txn: &mut Txn<'_>, root: StateNid, steps: &[Step]) -> StateNid {
    let steps: Vec<_> = steps
        .iter()
        .map(|((kind, key), event)| (StateEventType::from(kind.clone()), key, event.map(EventNid)))
        .collect();
    apply(txn, root, steps.iter().map(|(kind, key, event)| (kind, key.as_str(), *event))).unwrap()
}

fn contents(snap: &Snapshot<'_>, root: StateNid) -> Model {
    let all = all(snap, root).unwrap();
    let model: Model =
        all.iter().map(|(kind, key, event)| ((kind.to_string(), key.clone()), event.0)).collect();
    assert_eq!(model.len(), all.len(), "a key is there twice");
    model
}

/// The shape of a trie must follow from its contents: then equal parts stay shared.
fn node_count(snap: &Snapshot<'_>, root: StateNid) -> usize {
    trie::count_nodes(snap, root).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_state_is_a_map(steps in steps()) {
        with_txn(move |txn| {
            let (mut root, mut model) = (EMPTY, Model::new());
            let mut former = Vec::new();
            for step in &steps {
                root = apply_all(txn, root, std::slice::from_ref(step));
                change(&mut model, step);
                former.push((root, model.clone()));
            }
            prop_assert_eq!(contents(txn, root), model.clone());
            prop_assert_eq!(len(txn, root).unwrap(), model.len());
            prop_assert_eq!(root == EMPTY, model.is_empty());
            // Roots are immutable: every former state is still what it was.
            for (root, model) in former.into_iter().step_by(17) {
                prop_assert_eq!(contents(txn, root), model);
            }
            for ((kind, key), event) in model.iter() {
                let kind = StateEventType::from(kind.clone());
                prop_assert_eq!(get(txn, root, &kind, key).unwrap(), Some(EventNid(*event)));
            }
            prop_assert_eq!(get(txn, root, &StateEventType::RoomName, "").unwrap(), None);
            Ok(())
        })?;
    }

    #[test]
    fn the_way_to_a_state_leaves_no_trace(steps in steps()) {
        with_txn(move |txn| {
            let mut one_by_one = EMPTY;
            let mut model = Model::new();
            for step in &steps {
                one_by_one = apply_all(txn, one_by_one, std::slice::from_ref(step));
                change(&mut model, step);
            }
            let at_once = apply_all(txn, EMPTY, &steps);
            prop_assert_eq!(contents(txn, at_once), model);
            prop_assert_eq!(node_count(txn, at_once), node_count(txn, one_by_one));
            prop_assert_eq!(diff(txn, at_once, one_by_one).unwrap(), vec![]);
            // What changes nothing makes no new state.
            prop_assert_eq!(apply_all(txn, at_once, &[]), at_once);
            let again: Vec<Step> = contents(txn, at_once).into_iter().map(|(k, v)| (k, Some(v))).collect();
            prop_assert_eq!(apply_all(txn, at_once, &again), at_once);
            Ok(())
        })?;
    }

    #[test]
    fn a_difference_is_exactly_what_changed(common in steps(), left in steps(), right in steps()) {
        with_txn(move |txn| {
            let base = apply_all(txn, EMPTY, &common);
            let a = apply_all(txn, base, &left[..left.len() / 8]);
            let b = apply_all(txn, base, &right[..right.len() / 8]);
            let (old, new) = (contents(txn, a), contents(txn, b));
            let mut found = BTreeMap::new();
            for StateChange { kind, state_key, before, after } in diff(txn, a, b).unwrap() {
                let change = (before.map(|nid| nid.0), after.map(|nid| nid.0));
                prop_assert!(found.insert((kind.to_string(), state_key), change).is_none());
            }
            let keys = old.keys().chain(new.keys());
            let expected: BTreeMap<_, _> = keys
                .map(|key| (key.clone(), (old.get(key).copied(), new.get(key).copied())))
                .filter(|(_, (before, after))| before != after)
                .collect();
            prop_assert_eq!(found, expected);
            Ok(())
        })?;
    }

    #[test]
    fn parts_make_the_whole(steps in steps()) {
        with_txn(move |txn| {
            let root = apply_all(txn, EMPTY, &steps);
            let whole = contents(txn, root);
            let mut parts = Model::new();
            for (kind, key, event) in all_but_members(txn, root).unwrap() {
                prop_assert_ne!(kind.clone(), StateEventType::RoomMember);
                parts.insert((kind.to_string(), key), event.0);
            }
            for (key, event) in all_of_type(txn, root, &StateEventType::RoomMember).unwrap() {
                parts.insert(("m.room.member".to_owned(), key), event.0);
            }
            prop_assert_eq!(&parts, &whole);
            let of_type = all_of_type(txn, root, &StateEventType::from("type3")).unwrap();
            let expected = whole.keys().filter(|(kind, _)| kind == "type3").count();
            prop_assert_eq!(of_type.len(), expected);
            Ok(())
        })?;
    }
}

#[test]
fn a_change_in_a_large_room_writes_little() {
    let bytes = |txn: &Txn<'_>| -> i64 {
        txn.conn()
            .query_row("SELECT coalesce(sum(length(data)), 0) FROM state_nodes", [], |row| {
                row.get(0)
            })
            .unwrap()
    };
    with_txn(move |txn| {
        let steps: Vec<Step> = (0..10_000)
            .map(|n| (("m.room.member".to_owned(), format!("@user{n}:b.example")), Some(n + 1)))
            .collect();
        let root = apply_all(txn, EMPTY, &steps);
        let before = bytes(txn);
        for n in 0..100 {
            set(
                txn,
                root,
                &StateEventType::RoomMember,
                &format!("@user{n}:b.example"),
                EventNid(99_999),
            )
            .unwrap();
        }
        let each = (bytes(txn) - before) / 100;
        assert!(each < 600, "{each} bytes");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_lost_node_is_reported() {
    with_txn(|txn| {
        let root = set(txn, EMPTY, &StateEventType::RoomName, "", EventNid(1)).unwrap();
        let lost = StateNid(root.0 + (1 << 20));
        assert!(matches!(all(txn, lost), Err(StoreError::Damaged(_))));
        Ok(())
    })
    .unwrap();
}
