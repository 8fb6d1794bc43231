use messagehub_protocol::receive;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json};

use super::*;
use crate::{
    sessions::Session,
    testing::{TestServer, content_of, dag::Step},
};

struct Scene {
    server: TestServer,
    alice: Session,
    bob: Session,
    room_id: OwnedRoomId,
}

/// Alice's public room with Bob in it.
async fn scene() -> Scene {
    let server = TestServer::new(7);
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room_id = server.room(&alice, None).await;
    let open = json!({ "join_rule": "public" });
    let head = server.head(&room_id).await;
    let open = Step::state(&[head], &alice.user_id, ("m.room.join_rules", ""), open);
    let open = id(&server.place(&room_id, open).await);
    let join = member(&[open], &bob, &bob, "join");
    server.place(&room_id, join).await;
    Scene { server, alice, bob, room_id }
}

fn id(appended: &Appended) -> OwnedEventId {
    appended.pdu.event_id().to_owned()
}

fn member(after: &[OwnedEventId], by: &Session, of: &Session, membership: &str) -> Step {
    let content = json!({ "membership": membership });
    Step::state(after, &by.user_id, ("m.room.member", of.user_id.as_str()), content)
}

fn topic(after: &[OwnedEventId], by: &Session, topic: &str) -> Step {
    Step::state(after, &by.user_id, ("m.room.topic", ""), json!({ "topic": topic }))
}

impl Scene {
    async fn state(&self, kind: &str, key: &str) -> Value {
        let (room_id, kind) = (self.room_id.clone(), StateEventType::from(kind));
        let key = key.to_owned();
        self.server
            .read(move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                let event = view::state_event(snap, room.state, &kind, &key)?;
                Ok(event.map(|event| content_of(&event)).unwrap_or_default())
            })
            .await
    }

    async fn membership(&self, of: &Session) -> Option<MembershipState> {
        let (room_id, user_id) = (self.room_id.clone(), of.user_id.clone());
        self.server
            .read(move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                Ok(memberships::find(snap, room.nid, &user_id)?.map(|member| member.membership))
            })
            .await
    }
}

#[tokio::test]
async fn two_heads_are_resolved_and_joined_by_what_follows() {
    let scene = scene().await;
    let Scene { server, alice, room_id, .. } = &scene;
    let head = server.head(room_id).await;
    let left = server.place(room_id, topic(std::slice::from_ref(&head), alice, "left")).await;
    let right = server.place(room_id, topic(&[head], alice, "right")).await;
    assert_eq!(server.heads(room_id).await.len(), 2);
    // Of two topics by the same hand the later one stands, in whatever order they came.
    assert_eq!(scene.state("m.room.topic", "").await["topic"], "right");
    let both = [id(&left), id(&right)];
    let next = server.place(room_id, Step::message(&both, &alice.user_id, "hello")).await;
    assert_eq!(server.heads(room_id).await, [id(&next)]);
    assert_eq!(scene.state("m.room.topic", "").await["topic"], "right");
}

#[tokio::test]
async fn a_ban_beats_what_the_banned_said_meanwhile() {
    let scene = scene().await;
    let Scene { server, alice, bob, room_id } = &scene;
    let head = server.head(room_id).await;
    let rename = Step::state(
        std::slice::from_ref(&head),
        &alice.user_id,
        ("m.room.power_levels", ""),
        json!({ "users": { bob.user_id.as_str(): 50 } }),
    );
    let head = id(&server.place(room_id, rename).await);
    let ban = server.place(room_id, member(std::slice::from_ref(&head), alice, bob, "ban")).await;
    assert_eq!(ban.standing, Standing::Accepted);
    let said = server.place(room_id, topic(&[head], bob, "revenge")).await;
    assert_eq!(said.standing, Standing::SoftFailed);
    assert_eq!(said.pos, None);
    assert_eq!(server.heads(room_id).await, [id(&ban)]);
    assert_eq!(scene.state("m.room.topic", "").await, Value::Null);
    assert_eq!(scene.membership(bob).await, Some(MembershipState::Ban));
    // A graph that follows both is resolved: the ban stands.
    let both = [id(&ban), id(&said)];
    server.place(room_id, Step::message(&both, &alice.user_id, "so be it")).await;
    assert_eq!(scene.membership(bob).await, Some(MembershipState::Ban));
    assert_eq!(scene.state("m.room.topic", "").await, Value::Null);
}

#[tokio::test]
async fn a_resolution_can_undo_a_membership() {
    let scene = scene().await;
    let Scene { server, alice, bob, room_id } = &scene;
    let carol = server.user("carol").await;
    let head = server.head(room_id).await;
    let joined =
        server.place(room_id, member(std::slice::from_ref(&head), &carol, &carol, "join")).await;
    assert_eq!(joined.members.len(), 1);
    // On another branch the room was closed before: the join does not survive.
    let closed = json!({ "join_rule": "invite" });
    let close = Step::state(&[head], &alice.user_id, ("m.room.join_rules", ""), closed);
    let closed = server.place(room_id, close).await;
    assert_eq!(
        closed.members,
        [MemberChange {
            user_id: carol.user_id.clone(),
            before: Some(MembershipState::Join),
            now: MembershipState::Leave,
        }]
    );
    assert_eq!(scene.membership(&carol).await, Some(MembershipState::Leave));
    assert_eq!(scene.membership(bob).await, Some(MembershipState::Join));
}

#[tokio::test]
async fn a_rejected_event_changes_nothing() {
    let scene = scene().await;
    let Scene { server, bob, room_id, .. } = &scene;
    let head = server.head(room_id).await;
    let appended = server.place(room_id, topic(std::slice::from_ref(&head), bob, "mine")).await;
    assert_eq!(appended.standing, Standing::Rejected);
    assert_eq!(server.head(room_id).await, head);
    assert_eq!(scene.state("m.room.topic", "").await, Value::Null);
}

#[tokio::test]
async fn a_redaction_counts_before_and_after_its_target() {
    let scene = scene().await;
    let Scene { server, alice, bob, room_id } = &scene;
    let head = server.head(room_id).await;
    let said = Step::message(std::slice::from_ref(&head), &bob.user_id, "secret");
    let said = server.place(room_id, said).await;
    let redaction = |after: Vec<OwnedEventId>, by: &Session, target: &OwnedEventId| Step {
        kind: TimelineEventType::RoomRedaction,
        content: json!({}),
        redacts: Some(target.clone()),
        ..Step::message(&after, &by.user_id, "")
    };
    server.place(room_id, redaction(vec![id(&said)], alice, &id(&said))).await;
    let nid = said.nid;
    assert!(server.read(move |snap| events::get(snap, nid)).await.redacted_by.is_some());

    let head = server.head(room_id).await;
    let late = Step::message(std::slice::from_ref(&head), &bob.user_id, "another secret");
    let late = server.draft(room_id, late).await;
    let early = redaction(vec![head], alice, &late.pdu().event_id().to_owned());
    server.place(room_id, early).await;
    let nid = server.submit(late).await.nid;
    assert!(server.read(move |snap| events::get(snap, nid)).await.redacted_by.is_some());
}

#[tokio::test]
async fn an_event_cannot_follow_another_room() {
    let scene = scene().await;
    let Scene { server, alice, room_id, .. } = &scene;
    let other = server.head(&server.room(alice, None).await).await;
    let said = Step::message(&[other.clone(), server.head(room_id).await], &alice.user_id, "hi");
    let said = server.draft(room_id, said).await;
    let error = server.try_submit(said).await.unwrap_err();
    assert!(matches!(error, ViewError::Missing(missing) if missing == [other]));
}

#[tokio::test]
async fn what_a_told_state_holds_is_no_head_beside_the_event_after_it() {
    let scene = scene().await;
    let Scene { server, alice, room_id, .. } = &scene;
    let head = server.head(room_id).await;
    let said = Step::message(std::slice::from_ref(&head), &alice.user_id, "beside");
    let said = server.place(room_id, said).await;
    let told = server.place(room_id, topic(std::slice::from_ref(&head), alice, "told")).await;
    assert_eq!(server.heads(room_id).await.len(), 2);
    // What lies between the topic and this event never comes: others tell the state before it.
    let after = server.draft(room_id, Step::message(&[head], &alice.user_id, "after it")).await;
    let hs = server.hs.clone();
    let placed = server.hs.store.write(move |txn| {
        let mut room = rooms::find(txn, after.pdu().room_id())?.unwrap();
        let gathered = view::for_event(txn, &room, after.pdu())?;
        let state = events::get(txn, told.nid)?.state_after.unwrap();
        let judged = receive::check(after, &gathered.view);
        event(txn, hs.server_name(), &mut room, &judged, state)
    });
    let placed: Appended = placed.await.unwrap();
    assert_eq!(server.heads(room_id).await, [id(&said), id(&placed)]);
}
