use messagehub_store::{StoreError, events, room_state, rooms, server_keys};
use ruma::{OwnedEventId, OwnedRoomId, events::StateEventType};
use serde_json::value::RawValue;

use super::{checked, state_of};
use crate::{testing::TestServer, view};

/// The ids of a room's current state.
async fn state_ids(server: &TestServer, room_id: &OwnedRoomId) -> Vec<OwnedEventId> {
    let room_id = room_id.clone();
    server
        .read(move |snap| {
            let room = rooms::find(snap, &room_id)?.unwrap();
            let all = room_state::all(snap, room.state)?;
            all.into_iter().map(|(.., nid)| events::id(snap, nid)).collect()
        })
        .await
}

/// A told state may name events that we hold, of a room where the teller has all the power.
#[tokio::test]
async fn events_of_another_room_are_no_state_of_this_one() {
    let server = TestServer::new(73);
    let alice = server.user("alice").await;
    let mallory = server.user("mallory").await;
    let (here, there) = (server.room(&alice, None).await, server.room(&mallory, None).await);
    let (ours, theirs) = (state_ids(&server, &here).await, state_ids(&server, &there).await);
    let told: Vec<_> = ours.iter().chain(&theirs).cloned().collect();
    let (wanted, told_only) = (here.clone(), theirs.clone());
    let (true_state, told_state, foreign_state, current) = server
        .hs
        .store
        .write(move |txn| {
            let room = rooms::find(txn, &wanted)?.unwrap();
            let state = |txn: &mut _, ids: &[OwnedEventId]| state_of(txn, &room, ids);
            let (honest, mixed) = (state(txn, &ours)?, state(txn, &told)?);
            let foreign = state(txn, &told_only)?;
            let names = |root| room_state::all(txn, root);
            Ok::<_, StoreError>((
                names(honest)?,
                names(mixed)?,
                names(foreign)?,
                names(room.state)?,
            ))
        })
        .await
        .unwrap();
    assert_eq!(true_state, current);
    assert_eq!(told_state, current, "what is of the other room says nothing here");
    assert!(foreign_state.is_empty());
}

/// Nor are they taken in as such when they are new to us.
#[tokio::test]
async fn a_told_event_of_another_room_is_left_out() {
    let server = TestServer::new(74);
    let alice = server.user("alice").await;
    let (here, there) = (server.room(&alice, None).await, server.room(&alice, None).await);
    let (wanted, other) = (here.clone(), there.clone());
    let own = server.hs.identity.server_keys();
    let kept = server.hs.store.write(move |txn| server_keys::put_if_newer(txn, &own));
    assert!(Result::<_, StoreError>::unwrap(kept.await));
    let rooms_of_signed = server
        .read(move |snap| {
            let room = rooms::find(snap, &wanted)?.unwrap();
            let rules = view::rules(&room).unwrap();
            let power = |room_id: &OwnedRoomId| {
                let room = rooms::find(snap, room_id)?.unwrap();
                let kind = StateEventType::RoomPowerLevels;
                let nid = room_state::get(snap, room.state, &kind, "")?.unwrap();
                let json = events::pdu(snap, nid)?.json().to_owned();
                Ok::<_, StoreError>(RawValue::from_string(json).unwrap())
            };
            let told = vec![power(&wanted)?, power(&other)?];
            let checked = checked(snap, (&wanted, rules), told)?;
            let rooms = checked.signed.iter().map(|event| event.pdu().room_id().to_owned());
            Ok(rooms.collect::<Vec<_>>())
        })
        .await;
    assert_eq!(rooms_of_signed, [here]);
}
