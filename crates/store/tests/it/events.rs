use messagehub_protocol::receive;
use messagehub_store::{
    Mode, Standing, StateNid, Store, StoreError, StreamPos, backward_extremities,
    events::{self, Direction, Placement},
    extremities, room_state, rooms,
};
use ruma::events::StateEventType;
use serde_json::json;

use crate::support::{Server, message, state};

const TOPIC: StateEventType = StateEventType::RoomTopic;

#[tokio::test]
async fn an_event_comes_back_as_it_went_in_with_the_state_before_it() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    let (room, topics, said) = store
        .write(move |txn| {
            let mut room = server.create_room(txn, &alice)?;
            let mut topics = Vec::new();
            let mut said = Vec::new();
            for n in 0..3 {
                let topic = state(&alice, "m.room.topic", "", &json!({"topic": n.to_string()}));
                topics.push(server.send(txn, &mut room, topic)?.nid);
                said.push(server.send(txn, &mut room, message(&alice, &n.to_string()))?);
            }
            Ok::<_, StoreError>((room, topics, said))
        })
        .await
        .unwrap();
    drop(store);
    // Nothing of this is in memory any more.
    let store = Store::open(dir.path(), Mode::Threaded).unwrap();
    store
        .read(move |snap| {
            assert_eq!(rooms::find(snap, &room.room_id)?, Some(room.clone()));
            for (n, appended) in said.iter().enumerate() {
                let event = events::get(snap, appended.nid)?;
                assert_eq!(event.pos, appended.pos);
                assert_eq!(event.standing, Standing::Accepted);
                assert_eq!(event.state_before, event.state_after);
                let before = event.state_before.unwrap();
                assert_eq!(room_state::get(snap, before, &TOPIC, "")?, Some(topics[n]));
                let found = events::find(snap, event.pdu.event_id())?.unwrap();
                assert_eq!(found.pdu.json(), event.pdu.json());
            }
            let topic = events::get(snap, topics[1])?;
            let [before, after] = [topic.state_before, topic.state_after].map(Option::unwrap);
            assert_eq!(room_state::get(snap, before, &TOPIC, "")?, Some(topics[0]));
            assert_eq!(room_state::get(snap, after, &TOPIC, "")?, Some(topics[1]));
            // The state at a position is the current one after the event there.
            let pos = topic.pos.unwrap();
            assert_eq!(rooms::state_at(snap, room.nid, pos)?, after);
            assert_eq!(rooms::state_at(snap, room.nid, StreamPos(pos.0 - 1))?, before);
            assert_eq!(rooms::state_at(snap, room.nid, StreamPos::ZERO)?, room_state::EMPTY);
            assert_eq!(extremities::list(snap, room.nid)?, [said[2].nid]);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn timelines_are_read_in_both_directions() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let mut one = server.create_room(txn, &alice)?;
            let mut other = server.create_room(txn, &alice)?;
            for n in 0..5 {
                server.send(txn, &mut one, message(&alice, &format!("one {n}")))?;
                server.send(txn, &mut other, message(&alice, &format!("other {n}")))?;
            }
            let positions = |events: Vec<events::StoredEvent>| {
                events.into_iter().map(|event| event.pos.unwrap().0).collect::<Vec<_>>()
            };
            let range = |after, until| (StreamPos(after), StreamPos(until));
            let page = |range, direction, limit| {
                events::page(txn, one.nid, range, direction, limit).map(positions)
            };
            assert_eq!(page(range(4, i64::MAX), Direction::Forward, 3)?, [5, 7, 9]);
            assert_eq!(page(range(4, 9), Direction::Backward, 2)?, [9, 7]);
            assert_eq!(page(range(i64::MIN, 5), Direction::Backward, 9)?, [5, 2, 1]);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_outlier_gets_its_place_once() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let alice = server.user("alice");
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let room = server.create_room(txn, &alice)?;
            let judged = server.judged(txn, &room, message(&alice, "early"))?;
            let pdu = judged.pdu().clone();
            // As it comes without its place, and again.
            let outlier = receive::accept_unplaced(server.signed_again(&pdu));
            let nid = events::insert_outlier(txn, &room, &outlier)?;
            assert_eq!(events::insert_outlier(txn, &room, &outlier)?, nid);
            let stored = events::get(txn, nid)?;
            assert_eq!((stored.standing, stored.pos), (Standing::Outlier, None));
            assert_eq!(stored.state_before, None);

            let placement = Placement { state_before: room.state, state_after: room.state };
            let appended = events::append(txn, &room, &judged, placement)?;
            assert_eq!(appended.nid, nid);
            let stored = events::get(txn, nid)?;
            assert_eq!((stored.standing, stored.pos), (Standing::Accepted, appended.pos));
            assert_eq!(stored.state_before, Some(room.state));

            let again = events::append(txn, &room, &judged, placement);
            assert!(matches!(again, Err(StoreError::Misuse(_))), "{again:?}");
            let again = events::insert_history(txn, &room, &judged, None);
            assert!(matches!(again, Err(StoreError::Misuse(_))), "{again:?}");
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn history_goes_before_everything_and_closes_gaps() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let (alice, there) = (server.user("alice"), tempfile::tempdir().unwrap());
    let source = Store::open(there.path(), Mode::Inline).unwrap();
    let writer = server.clone();
    let sender = alice.clone();
    let judged = source
        .write(move |txn| {
            let mut room = writer.create_room(txn, &sender)?;
            let mut judged = Vec::new();
            for n in 0..4 {
                let event = writer.judged(txn, &room, message(&sender, &n.to_string()))?;
                crate::support::apply(txn, &mut room, &event)?;
                judged.push(event);
            }
            Ok::<_, StoreError>(judged)
        })
        .await
        .unwrap();
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let room_id = judged[0].pdu().room_id();
            let room = rooms::insert(txn, room_id, &ruma::RoomVersionId::V12)?;
            let placement = Placement { state_before: room.state, state_after: room.state };
            let live = events::append(txn, &room, &judged[3], placement)?;
            let gaps = |txn: &_| {
                let gaps = backward_extremities::list(txn, room.nid)?;
                Ok::<_, StoreError>(gaps.into_iter().map(|gap| gap.missing).collect::<Vec<_>>())
            };
            assert_eq!(gaps(txn)?, [judged[2].pdu().event_id()]);
            for event in [&judged[2], &judged[1]] {
                events::insert_history(txn, &room, event, None)?;
            }
            assert_eq!(gaps(txn)?, [judged[0].pdu().event_id()]);
            let everything = (StreamPos(i64::MIN), StreamPos(i64::MAX));
            let page = events::page(txn, room.nid, everything, Direction::Forward, 9)?;
            let ids: Vec<_> = page.iter().map(|event| event.pdu.event_id()).collect();
            let expected: Vec<_> = judged[1..].iter().map(|event| event.pdu().event_id()).collect();
            assert_eq!(ids, expected);
            assert!(page[0].pos < page[1].pos && page[1].pos < Some(StreamPos::ZERO));
            assert_eq!(page[2].pos, live.pos);
            assert_eq!(page[0].state_before, None::<StateNid>);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_not_accepted_has_no_position() {
    let (dir, server) = (tempfile::tempdir().unwrap(), Server::new(1));
    let (alice, mallory) = (server.user("alice"), server.user("mallory"));
    let store = Store::open(dir.path(), Mode::Inline).unwrap();
    store
        .write(move |txn| {
            let mut room = server.create_room(txn, &alice)?;
            let position = txn.position()?;
            let rejected = server.send(txn, &mut room, message(&mallory, "let me in"))?;
            assert_eq!(rejected.pos, None);
            assert_eq!(txn.position()?, position);
            assert_eq!(events::get(txn, rejected.nid)?.standing, Standing::Rejected);

            let said = server.send(txn, &mut room, message(&alice, "oops"))?;
            let redaction = server.send(txn, &mut room, message(&alice, "as if"))?;
            events::set_redacted(txn, said.nid, redaction.nid)?;
            assert_eq!(events::get(txn, said.nid)?.redacted_by, Some(redaction.nid));
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
}
