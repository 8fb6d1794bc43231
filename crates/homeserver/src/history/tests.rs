use messagehub_protocol::pdu::SignedPdu;
use ruma::OwnedEventId;

use super::reached;
use crate::testing::{TestServer, dag::Step};

fn id(event: &SignedPdu) -> OwnedEventId {
    event.pdu().event_id().to_owned()
}

/// What a server gives as history beside what it was asked for would be placed without a word of
/// the current state: a message of somebody banned, dated back, for instance.
#[tokio::test]
async fn only_the_ancestors_of_what_was_asked_for_are_history() {
    let server = TestServer::new(71);
    let alice = server.user("alice").await.user_id;
    let room_id = server.room(&server.user("owner").await, None).await;
    let root = server.head(&room_id).await;
    let say = async |after: &[OwnedEventId], text: &str| {
        let drafted = server.draft(&room_id, Step::message(after, &alice, text)).await;
        server.submit(drafted.clone()).await;
        drafted
    };
    let first = say(std::slice::from_ref(&root), "first").await;
    let second = say(&[id(&first)], "second").await;
    let beside = say(&[root], "beside the past").await;
    let after = say(&[id(&second)], "after it").await;
    let (wanted, given) = (vec![id(&second)], vec![first, second, beside, after]);
    let (oldest, newest) = (id(&given[0]), id(&given[1]));
    let mut history: Vec<_> = reached(given, wanted).iter().map(id).collect();
    history.sort();
    let mut expected = vec![oldest, newest];
    expected.sort();
    assert_eq!(history, expected);
}

#[tokio::test]
async fn an_answer_without_what_was_asked_for_is_no_history() {
    let server = TestServer::new(72);
    let owner = server.user("owner").await;
    let room_id = server.room(&owner, None).await;
    let head = server.head(&room_id).await;
    let drafted = server.draft(&room_id, Step::message(&[head], &owner.user_id, "x")).await;
    let other = OwnedEventId::try_from("$somethingelse").unwrap();
    assert!(reached(vec![drafted], vec![other]).is_empty());
}
