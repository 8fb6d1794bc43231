use messagehub_store::{
    Mode, RoomNid, Store, StoreError, StreamPos, Txn,
    memberships::{self, NewMembership},
};
use ruma::{UserId, events::room::member::MembershipState};

use crate::support::Server;

fn set(txn: &mut Txn<'_>, room: i64, user: &UserId, membership: &MembershipState) -> StreamPos {
    let pos = txn.next_pos();
    let new = NewMembership { membership, event: None, pos, stripped: None };
    memberships::set(txn, RoomNid(room), user, new).unwrap();
    pos
}

#[tokio::test]
async fn who_is_where() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(|txn| {
            let [home, friend, stranger] = [1, 2, 3].map(Server::new);
            let (alice, bob) = (home.user("alice"), home.user("bob"));
            let (carol, mallory) = (friend.user("carol"), stranger.user("mallory"));
            use MembershipState::{Ban, Invite, Join, Leave};
            set(txn, 1, &alice, &Join);
            set(txn, 1, &bob, &Join);
            set(txn, 1, &carol, &Join);
            set(txn, 1, &mallory, &Ban);
            set(txn, 2, &alice, &Join);
            let invited = set(txn, 2, &carol, &Invite);
            set(txn, 3, &carol, &Join);

            assert_eq!(memberships::list_joined(txn, RoomNid(1))?.len(), 3);
            assert_eq!(memberships::list(txn, RoomNid(1))?.len(), 4);
            assert_eq!(memberships::count_joined(txn, RoomNid(1))?, 3);
            assert_eq!(memberships::count_with(txn, RoomNid(2), &Invite)?, 1);
            let local = memberships::list_joined_from(txn, RoomNid(1), &home.name)?;
            assert_eq!(local, [alice.clone(), bob.clone()]);
            assert_eq!(
                memberships::servers_in(txn, RoomNid(1))?,
                [home.name.clone(), friend.name.clone()]
            );
            assert_eq!(memberships::servers_in(txn, RoomNid(9))?.len(), 0);
            assert_eq!(memberships::shared_rooms(txn, &home.name, &friend.name)?, [RoomNid(1)]);
            assert!(!memberships::is_server_in(txn, RoomNid(1), &stranger.name)?);
            assert!(memberships::is_server_in(txn, RoomNid(3), &friend.name)?);
            let others = memberships::servers_sharing_rooms_with(txn, &home.name)?;
            assert_eq!(others, std::slice::from_ref(&friend.name));
            assert_eq!(memberships::rooms_of(txn, &alice, &Join)?, [RoomNid(1), RoomNid(2)]);

            let changed = memberships::list_of_user_since(txn, &carol, StreamPos(invited.0 - 1))?;
            let rooms: Vec<_> = changed.iter().map(|membership| membership.room.0).collect();
            assert_eq!(rooms, [2, 3]);
            assert_eq!(changed[0].membership, Invite);

            set(txn, 1, &carol, &Leave);
            assert_eq!(memberships::shared_rooms(txn, &home.name, &friend.name)?, []);
            let left = memberships::find(txn, RoomNid(1), &carol)?.unwrap();
            assert_eq!(left.membership, Leave);
            memberships::remove(txn, RoomNid(1), &carol)?;
            assert_eq!(memberships::find(txn, RoomNid(1), &carol)?, None);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}
