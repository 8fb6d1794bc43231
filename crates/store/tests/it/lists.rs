//! Small lists about rooms: knocks of ours, what is published, events by time.

use messagehub_store::{
    Mode, Store, StoreError, event_times,
    events::Direction,
    knocks,
    memberships::{self, NewMembership},
    published_rooms,
};
use ruma::{events::room::member::MembershipState, room_id, server_name, user_id};

use crate::support::{Server, at, message};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    (dir, store)
}

#[tokio::test]
async fn the_last_server_that_took_a_knock_is_known_until_it_is_forgotten() {
    let (_dir, store) = store();
    store
        .write(|txn| {
            let (room, user) = (room_id!("!r:x"), user_id!("@a:x"));
            assert_eq!(knocks::server(txn, room, user)?, None);
            for server in [server_name!("one"), server_name!("two")] {
                knocks::put(txn, room, user, server)?;
                assert_eq!(knocks::server(txn, room, user)?.as_deref(), Some(server));
            }
            assert_eq!(knocks::server(txn, room, user_id!("@b:x"))?, None);
            knocks::remove(txn, room, user)?;
            assert_eq!(knocks::server(txn, room, user)?, None);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn published_rooms_are_listed_by_their_members() {
    let (_dir, store) = store();
    let server = Server::new(1);
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    store
        .write(move |txn| {
            let small = server.create_room(txn, &alice)?;
            let large = server.create_room(txn, &alice)?;
            let pos = txn.position()?;
            let membership = &MembershipState::Join;
            let new = NewMembership { membership, event: None, pos, stripped: None };
            memberships::set(txn, large.nid, &bob, new)?;
            for room in [&small, &large, &small] {
                published_rooms::insert(txn, room.nid)?;
            }
            assert_eq!(published_rooms::list(txn)?, [(large.nid, 2), (small.nid, 1)]);
            published_rooms::remove(txn, small.nid)?;
            assert!(!published_rooms::contains(txn, small.nid)?);
            assert!(published_rooms::contains(txn, large.nid)?);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn events_are_found_by_their_time() {
    let (_dir, store) = store();
    let server = Server::new(1);
    let alice = server.user("alice");
    let (room, last) = store
        .write(move |txn| {
            let mut room = server.create_room(txn, &alice)?;
            let mut last = None;
            for n in 0..5 {
                last = Some(server.send(txn, &mut room, message(&alice, &n.to_string()))?.nid);
            }
            Ok::<_, StoreError>((room, last))
        })
        .await
        .unwrap();
    // Everything of this server has the time 1.
    store
        .read(move |snap| {
            let near = |time, direction, skip, limit| {
                event_times::nearest(snap, room.nid, (at(time), direction), (skip, limit))
            };
            assert_eq!(near(1, Direction::Forward, 0, 100)?.len(), 7);
            assert_eq!(near(1, Direction::Forward, 5, 100)?.len(), 2);
            assert_eq!(near(0, Direction::Backward, 0, 100)?, []);
            assert_eq!(near(2, Direction::Forward, 0, 100)?, []);
            let newest = near(9, Direction::Backward, 0, 1)?;
            assert_eq!(newest.first().copied(), last, "of one time the last comes first");
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}
