//! Looking around in a room: context, members, and who may not.

use ruma::{
    api::client::{
        context::get_context, membership::get_member_events, message::get_message_events,
    },
    events::room::member::MembershipState,
    uint,
};
use serde_json::{Value, json};

use super::{Client, TestServer, joined, words};
use crate::{
    members,
    messages::{self, MessagesError},
};

fn written<T: serde::Serialize>(events: &T) -> Vec<String> {
    words(&serde_json::to_value(events).unwrap())
}

#[tokio::test]
async fn an_event_comes_with_what_is_around_it() {
    let server = TestServer::new(51);
    let alice = Client::new(&server, "alice");
    let bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    alice.say(&room_id, "a").await;
    alice.say(&room_id, "b").await;
    let middle = alice.say(&room_id, "c").await;
    bob.say(&room_id, "d").await;
    alice.say(&room_id, "e").await;
    let mut request = get_context::v3::Request::new(room_id.clone(), middle);
    request.limit = uint!(3);
    request.filter = serde_json::from_value(json!({"lazy_load_members": true})).unwrap();
    let found = messages::context(&server.hs, &alice.session, request.clone()).await.unwrap();
    assert_eq!(written(&found.events_before), ["b"]);
    assert_eq!(written(&[found.event.unwrap()]), ["c"]);
    assert_eq!(written(&found.events_after), ["d", "e"]);
    let state = written(&found.state);
    assert!(state.contains(&"create".to_owned()) && state.contains(&"member@bob".to_owned()));

    let mut back = get_message_events::v3::Request::backward(room_id.clone());
    back.from = found.start;
    back.limit = uint!(1);
    let page = messages::page(&server.hs, &alice.session, back).await.unwrap();
    assert_eq!(written(&page.chunk), ["a"]);

    let carol = server.user("carol").await;
    let refused = messages::context(&server.hs, &carol, request.clone()).await;
    assert!(matches!(refused, Err(MessagesError::Forbidden)));
    request.event_id = ruma::owned_event_id!("$nothing");
    let unknown = messages::context(&server.hs, &alice.session, request).await;
    assert!(matches!(unknown, Err(MessagesError::UnknownEvent)));
}

#[tokio::test]
async fn strangers_and_strange_tokens_get_no_page() {
    let server = TestServer::new(52);
    let alice = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    let mut request = get_message_events::v3::Request::backward(room_id);
    let carol = server.user("carol").await;
    let refused = messages::page(&server.hs, &carol, request.clone()).await;
    assert!(matches!(refused, Err(MessagesError::Forbidden)));
    request.from = Some("x1".to_owned());
    let refused = messages::page(&server.hs, &alice.session, request).await;
    assert!(matches!(refused, Err(MessagesError::InvalidToken)));
}

#[tokio::test]
async fn who_was_not_there_yet_sees_no_joined_history() {
    let server = TestServer::new(53);
    let alice = Client::new(&server, "alice");
    let mut bob = Client::new(&server, "bob");
    let room_id = alice.public_room().await;
    let visibility = json!({"history_visibility": "joined"});
    alice.set(&room_id, "m.room.history_visibility", visibility).await;
    alice.say(&room_id, "secret").await;
    bob.join(&room_id).await;
    alice.say(&room_id, "welcome").await;
    let answer = bob.sync().await;
    let seen = super::timeline(joined(&answer, &room_id));
    assert!(
        !seen.contains(&"secret".to_owned()) && seen.contains(&"welcome".to_owned()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn members_as_they_are_and_as_they_were() {
    let server = TestServer::new(54);
    let alice = Client::new(&server, "alice");
    let bob = Client::new(&server, "bob");
    let mut observer = Client::new(&server, "alice");
    let room_id = alice.public_room().await;
    bob.join(&room_id).await;
    observer.sync().await;
    bob.leave(&room_id).await;
    let list = async |change: &dyn Fn(&mut get_member_events::v3::Request)| {
        let mut request = get_member_events::v3::Request::new(room_id.clone());
        change(&mut request);
        let answer = members::list(&server.hs, &alice.session, request).await.unwrap();
        let mut members: Vec<(String, String)> = answer
            .chunk
            .iter()
            .map(|event| {
                let event: Value = serde_json::from_str(event.json().get()).unwrap();
                let user =
                    event["state_key"].as_str().unwrap().split(':').next().unwrap().to_owned();
                (user, event["content"]["membership"].as_str().unwrap().to_owned())
            })
            .collect();
        members.sort();
        members
    };
    let pair = |user: &str, membership: &str| (user.to_owned(), membership.to_owned());
    assert_eq!(list(&|_| {}).await, [pair("@alice", "join"), pair("@bob", "leave")]);
    let there = list(&|request| request.not_membership = Some(MembershipState::Leave)).await;
    assert_eq!(there, [pair("@alice", "join")]);
    let at = observer.token.clone();
    let before = list(&|request| request.at.clone_from(&at)).await;
    assert_eq!(before, [pair("@alice", "join"), pair("@bob", "join")]);
    let gone = list(&|request| request.membership = Some(MembershipState::Leave)).await;
    assert_eq!(gone, [pair("@bob", "leave")]);
}
