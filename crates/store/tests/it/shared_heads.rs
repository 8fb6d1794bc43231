use messagehub_store::{
    Mode, Store, StoreError, extremities,
    memberships::{self, NewMembership},
    shared_heads,
};
use ruma::events::room::member::MembershipState::Join;

use crate::support::{Server, message};

#[tokio::test]
async fn the_heads_of_shared_rooms_are_those_of_each_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(|txn| {
            let [home, friend, third] = [1, 2, 3].map(Server::new);
            let (alice, bob, carol) = (home.user("alice"), friend.user("bob"), third.user("carol"));
            let mut both = Vec::new();
            for n in 0..4 {
                let mut room = home.create_room(txn, &alice)?;
                for user in [&bob, &carol].into_iter().take(n) {
                    let pos = txn.next_pos();
                    let new = NewMembership { membership: &Join, event: None, pos, stripped: None };
                    memberships::set(txn, room.nid, user, new)?;
                }
                home.send(txn, &mut room, message(&alice, "hi"))?;
                both.push(room);
            }
            // One with two heads, one with none.
            let tip = extremities::list(txn, both[2].nid)?;
            let branch = [tip[0], messagehub_store::EventNid(tip[0].0 - 1)];
            extremities::replace(txn, both[2].nid, &branch)?;
            extremities::replace(txn, both[3].nid, &[])?;
            let shared = shared_heads::list(txn, &home.name, &friend.name)?;
            let found: Vec<_> = shared.iter().map(|shared| shared.room).collect();
            assert_eq!(found, memberships::shared_rooms(txn, &home.name, &friend.name)?);
            assert_eq!(found.len(), 3);
            for (shared, room) in shared.iter().zip(&both[1..]) {
                assert_eq!(shared.heads, extremities::list(txn, room.nid)?);
                assert_eq!(shared.state, room.state);
            }
            assert_eq!(shared[1].heads.len(), 2);
            let all = [&*home.name, &friend.name, &third.name];
            assert!(shared_heads::is_any_with_all(txn, all)?);
            assert_eq!(shared_heads::list(txn, &home.name, &Server::new(9).name)?, []);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}
