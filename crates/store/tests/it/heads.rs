//! Forward extremities and positions: what the rows of events tell, and what needs rows of its own.

use std::sync::Arc;

use messagehub_protocol::receive::{Judged, Standing};
use messagehub_store::{
    Mode, Room, Snapshot, Store, StoreError, StreamPos, Txn, backward_extremities, extremities,
    rooms, typing,
};
use ruma::OwnedUserId;

use crate::support::{Gathered, Server, apply, at, gather, message};

/// The rows that a table has.
fn count(snap: &Snapshot<'_>, table: &str) -> i64 {
    snap.conn().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// The last position that needed a row.
fn noted(snap: &Snapshot<'_>) -> i64 {
    snap.conn().query_row("SELECT last FROM positions", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn one_extremity_needs_no_row_and_several_do() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let mut room = server.create_room(txn, &alice)?;
            let first = server.send(txn, &mut room, message(&alice, "first"))?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [first]);
            assert_eq!(count(txn, "forward_extremities"), 0);

            // Two that follow the same event.
            let left = server.judged(txn, &room, message(&alice, "left"))?;
            let right = server.judged(txn, &room, message(&alice, "right"))?;
            let left = apply(txn, &mut room, &left)?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [left]);
            let right = apply(txn, &mut room, &right)?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [left, right]);
            assert_eq!(count(txn, "forward_extremities"), 2);

            let joint = server.send(txn, &mut room, message(&alice, "joint"))?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [joint]);
            assert_eq!(count(txn, "forward_extremities"), 0);

            extremities::replace(txn, room.nid, &[])?;
            assert_eq!(extremities::list(txn, room.nid)?, []);
            let again = server.judged(txn, &room, message(&alice, "again"))?;
            let again = apply(txn, &mut room, &again)?.nid;
            assert_eq!(extremities::list(txn, room.nid)?, [again]);
            assert_eq!(count(txn, "forward_extremities"), 0);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_position_that_an_event_carries_needs_no_row() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    let (by, author) = (server.clone(), alice.clone());
    let room = store.write(move |txn| by.create_room(txn, &author)).await.unwrap();
    assert_eq!(store.position(), StreamPos(2));
    assert_eq!(store.read(|snap| Ok::<_, StoreError>(noted(snap))).await.unwrap(), 0);
    assert_eq!(store.read(|snap| snap.position()).await.unwrap(), StreamPos(2));

    let nid = room.nid;
    let typist = alice.clone();
    store.write(move |txn| typing::start(txn, nid, &typist, at(1_000))).await.unwrap();
    assert_eq!(store.position(), StreamPos(3));
    assert_eq!(store.read(|snap| Ok::<_, StoreError>(noted(snap))).await.unwrap(), 3);

    drop(store);
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    assert_eq!(store.position(), StreamPos(3));
    let said = store
        .write(move |txn| {
            let mut room = rooms::find(txn, &room.room_id)?.unwrap();
            server.send(txn, &mut room, message(&alice, "after"))
        })
        .await
        .unwrap();
    assert_eq!(said.pos, Some(StreamPos(4)));

    drop(store);
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    assert_eq!(store.position(), StreamPos(4));
    assert_eq!(store.read(|snap| snap.position()).await.unwrap(), StreamPos(4));
}

/// A room, and what is said in it in any order.
struct Scene<'t, 'a> {
    server: Server,
    alice: OwnedUserId,
    room: Room,
    txn: &'t mut Txn<'a>,
}

impl Scene<'_, '_> {
    fn after(&self, prev: &Judged, text: &str) -> (Gathered, messagehub_protocol::build::NewEvent) {
        let new = message(&self.alice, text);
        let state = gather(self.txn, &self.room, &new).unwrap().state;
        (Gathered { prev_events: vec![Arc::clone(prev.pdu())], state }, new)
    }

    /// A message after another one.
    fn shown(&self, prev: &Judged, text: &str) -> Judged {
        let (gathered, new) = self.after(prev, text);
        self.server.decide(&self.room, new, gathered)
    }

    /// The same, soft failed.
    fn hidden(&self, prev: &Judged, text: &str) -> Judged {
        let (gathered, new) = self.after(prev, text);
        let judged = self.server.decide_late(&self.room, new, gathered);
        assert_eq!(judged.standing(), Standing::SoftFailed);
        judged
    }

    /// Stores events one after the other; gives the heads after each, by their texts.
    fn heads_after(&mut self, all: &[&Judged]) -> Vec<Vec<String>> {
        let mut heads = Vec::new();
        for judged in all {
            apply(self.txn, &mut self.room, judged).unwrap();
            heads.push(self.heads());
        }
        heads
    }

    fn heads(&self) -> Vec<String> {
        let heads = extremities::list(self.txn, self.room.nid).unwrap();
        let text = |nid| {
            let pdu = messagehub_store::events::pdu(self.txn, nid).unwrap();
            let content: serde_json::Value = serde_json::from_str(pdu.content().get()).unwrap();
            content["body"].as_str().unwrap_or_default().to_owned()
        };
        heads.into_iter().map(text).collect()
    }

    fn gaps(&self) -> usize {
        backward_extremities::list(self.txn, self.room.nid).unwrap().len()
    }
}

/// Does something in a room with one message, "first".
async fn in_a_room(act: impl FnOnce(Scene<'_, '_>, Judged) + Send + 'static) {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    let written = store.write(move |txn| {
        let alice = server.user("alice");
        let mut room = server.create_room(txn, &alice)?;
        let first = server.judged(txn, &room, message(&alice, "first"))?;
        apply(txn, &mut room, &first)?;
        act(Scene { server, alice, room, txn }, first);
        Ok::<_, StoreError>(())
    });
    written.await.unwrap();
}

#[tokio::test]
async fn an_event_is_the_head_in_place_of_what_is_before_hidden_ones() {
    in_a_room(|mut scene, first| {
        let one = scene.hidden(&first, "one");
        let other = scene.hidden(&one, "other");
        let last = scene.shown(&other, "last");
        assert_eq!(scene.heads_after(&[&one, &other, &last]), [["first"], ["first"], ["last"]]);
        assert_eq!(count(scene.txn, "forward_extremities"), 0);
    })
    .await;
}

#[tokio::test]
async fn what_comes_after_its_follower_is_no_head() {
    in_a_room(|mut scene, first| {
        let early = scene.shown(&first, "early");
        let late = scene.shown(&early, "late");
        assert_eq!(scene.heads_after(&[&late]), [["first", "late"]]);
        assert_eq!(scene.heads_after(&[&early]), [["late"]]);
        assert_eq!(scene.gaps(), 0);
        // Now the newest of the timeline is another event than the head.
        assert_eq!(count(scene.txn, "forward_extremities"), 1);
        let next = scene.shown(&late, "next");
        assert_eq!(scene.heads_after(&[&next]), [["next"]]);
        assert_eq!(count(scene.txn, "forward_extremities"), 0);
    })
    .await;
}

#[tokio::test]
async fn what_comes_hidden_after_its_follower_takes_the_place_of_what_is_before_it() {
    in_a_room(|mut scene, first| {
        let early = scene.shown(&first, "early");
        let hidden = scene.hidden(&early, "hidden");
        let late = scene.shown(&hidden, "late");
        assert_eq!(scene.heads_after(&[&late]), [["first", "late"]]);
        // It lacks something itself, which the one after it names from then on.
        assert_eq!(scene.heads_after(&[&hidden]), [["first", "late"]]);
        assert_eq!(scene.gaps(), 1);
        assert_eq!(scene.heads_after(&[&early]), [["late"]]);
        assert_eq!(scene.gaps(), 0);
    })
    .await;
}

#[tokio::test]
async fn what_only_hidden_ones_follow_is_a_head_until_more_does() {
    in_a_room(|mut scene, first| {
        let early = scene.shown(&first, "early");
        let hidden = scene.hidden(&early, "hidden");
        assert_eq!(scene.heads_after(&[&hidden, &early]), [["first"], ["early"]]);

        let beside = scene.shown(&early, "beside");
        let after = scene.hidden(&beside, "after");
        let last = scene.shown(&after, "last");
        let heads = scene.heads_after(&[&after, &last, &beside]);
        assert_eq!(heads, [vec!["early"], vec!["early", "last"], vec!["last"]]);
    })
    .await;
}
