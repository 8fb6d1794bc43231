use messagehub_store::{memberships, outbox, profiles, rooms};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomAliasId, RoomVersionId, UserId,
    events::room::member::MembershipState, owned_room_id, owned_server_name, room_alias_id,
};
use serde_json::{Value, json};

use super::{
    aliases::{self, AliasError},
    create::{self, NewRoom},
    forget::{self, ForgetError},
    invite::{self, Invite},
    join::{self, Join},
    leave::{self, LeaveError},
    membership::refresh_profile,
    moderate::{self, Action, ModerateError, Moderation},
    read::{self, ReadError, StatePart, StateQuery},
    ways::EntryError,
};
use crate::{
    send::{self, NewMessage, NewState, SendError},
    sessions::Session,
    testing::{TestServer, content},
};

const REMOTE: &str = "@eve:bahwqcabaaoqqpp7tzyil4hlq3umoos6atft6jvrqtosq2xy53sdgiesvgg4a";

/// Alice's room of a version, with Bob beside it.
struct Scene {
    server: TestServer,
    alice: Session,
    bob: Session,
    room_id: OwnedRoomId,
}

impl Scene {
    async fn new(version: Option<RoomVersionId>) -> Self {
        let server = TestServer::new(20);
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room_id = server.room(&alice, version).await;
        Self { server, alice, bob, room_id }
    }

    async fn invite(&self, by: &Session, user_id: &UserId) -> Result<(), SendError> {
        let (room_id, user_id) = (self.room_id.clone(), user_id.to_owned());
        let new = Invite { room_id, user_id, reason: Some("come".to_owned()) };
        invite::invite(&self.server.hs, &by.user_id, new).await
    }

    async fn join(&self, who: &Session) -> Result<OwnedRoomId, EntryError> {
        let new = Join { target: self.room_id.clone().into(), via: Vec::new(), reason: None };
        join::join(&self.server.hs, &who.user_id, new).await
    }

    async fn leave(&self, who: &Session) -> Result<(), LeaveError> {
        leave::leave(&self.server.hs, &who.user_id, self.room_id.clone(), None).await
    }

    async fn moderate(
        &self,
        by: &Session,
        user_id: &UserId,
        action: Action,
    ) -> Result<(), ModerateError> {
        let (room_id, user_id) = (self.room_id.clone(), user_id.to_owned());
        let new = Moderation { room_id, user_id, action, reason: None };
        moderate::moderate(&self.server.hs, &by.user_id, new).await
    }

    async fn set(&self, by: &Session, kind: &str, value: Value) {
        let new = NewState {
            room_id: self.room_id.clone(),
            kind: kind.into(),
            state_key: String::new(),
            content: content(&value),
        };
        send::state(&self.server.hs, &by.user_id, new).await.unwrap();
    }

    async fn say(&self, by: &Session, txn_id: &str) -> ruma::OwnedEventId {
        let new = NewMessage {
            room_id: self.room_id.clone(),
            kind: "m.room.message".into(),
            content: content(&json!({ "body": txn_id })),
            txn_id: txn_id.into(),
        };
        send::message(&self.server.hs, by, new).await.unwrap()
    }

    async fn membership(&self, of: &UserId) -> Option<MembershipState> {
        let (room_id, user_id) = (self.room_id.clone(), of.to_owned());
        self.server
            .read(move |snap| {
                let room = rooms::find(snap, &room_id)?.unwrap();
                Ok(memberships::find(snap, room.nid, &user_id)?.map(|member| member.membership))
            })
            .await
    }

    async fn outbox(&self) -> Vec<(outbox::Kind, Value)> {
        let destination = UserId::parse(REMOTE).unwrap().server_name().to_owned();
        let now = self.server.hs.clock.now();
        let taken = self.server.hs.store.write(move |txn| {
            let mut taken = Vec::new();
            while let Some(batch) = outbox::take_batch(txn, &destination, now)? {
                for entry in &batch.entries {
                    taken.push((entry.kind, serde_json::from_str(&entry.body).unwrap()));
                }
                outbox::finish(txn, &destination, batch.id)?;
            }
            Ok::<_, crate::StoreError>(taken)
        });
        taken.await.unwrap()
    }
}

#[tokio::test]
async fn people_come_and_go() {
    for version in [RoomVersionId::V2, RoomVersionId::V7, RoomVersionId::V11, RoomVersionId::V12] {
        let scene = Scene::new(Some(version)).await;
        let Scene { alice, bob, .. } = &scene;
        let refused = scene.join(bob).await.unwrap_err();
        assert!(matches!(refused, EntryError::Send(SendError::Forbidden(_))), "{refused}");
        scene.invite(alice, &bob.user_id).await.unwrap();
        assert_eq!(scene.membership(&bob.user_id).await, Some(MembershipState::Invite));
        scene.join(bob).await.unwrap();
        scene.join(bob).await.unwrap();
        assert_eq!(scene.membership(&bob.user_id).await, Some(MembershipState::Join));
        let again = scene.invite(alice, &bob.user_id).await.unwrap_err();
        assert!(matches!(again, SendError::Forbidden(_)), "{again}");
        scene.leave(bob).await.unwrap();
        scene.leave(bob).await.unwrap();
        assert_eq!(scene.membership(&bob.user_id).await, Some(MembershipState::Leave));
        scene.invite(alice, &bob.user_id).await.unwrap();
        scene.leave(bob).await.unwrap();
        assert_eq!(scene.membership(&bob.user_id).await, Some(MembershipState::Leave));
    }
}

#[tokio::test]
async fn moderators_kick_ban_and_forgive() {
    let scene = Scene::new(None).await;
    let Scene { alice, bob, .. } = &scene;
    let nobody = scene.moderate(alice, &bob.user_id, Action::Kick).await.unwrap_err();
    assert!(matches!(nobody, ModerateError::NotThere(_)), "{nobody}");
    scene.invite(alice, &bob.user_id).await.unwrap();
    scene.join(bob).await.unwrap();
    let powerless = scene.moderate(bob, &alice.user_id, Action::Ban).await.unwrap_err();
    assert!(matches!(powerless, ModerateError::Send(SendError::Forbidden(_))), "{powerless}");
    scene.moderate(alice, &bob.user_id, Action::Kick).await.unwrap();
    assert_eq!(scene.membership(&bob.user_id).await, Some(MembershipState::Leave));
    scene.moderate(alice, &bob.user_id, Action::Ban).await.unwrap();
    let kicked = scene.moderate(alice, &bob.user_id, Action::Kick).await.unwrap_err();
    assert!(matches!(kicked, ModerateError::NotThere(_)), "a kick must not lift a ban");
    let invited = scene.invite(alice, &bob.user_id).await.unwrap_err();
    assert!(matches!(invited, SendError::Forbidden(_)), "{invited}");
    scene.moderate(alice, &bob.user_id, Action::Unban).await.unwrap();
    assert_eq!(scene.membership(&bob.user_id).await, Some(MembershipState::Leave));
    let unbanned = scene.moderate(alice, &bob.user_id, Action::Unban).await.unwrap_err();
    assert!(matches!(unbanned, ModerateError::NotThere(_)), "{unbanned}");
}

#[tokio::test]
async fn only_what_was_left_can_be_forgotten() {
    let scene = Scene::new(None).await;
    let Scene { server, alice, bob, room_id } = &scene;
    let forget =
        async |who: &Session| forget::forget(&server.hs, &who.user_id, room_id.clone()).await;
    assert!(matches!(forget(bob).await, Err(ForgetError::Unknown)));
    assert!(matches!(forget(alice).await, Err(ForgetError::StillThere)));
    scene.leave(alice).await.unwrap();
    forget(alice).await.unwrap();
    assert_eq!(scene.membership(&alice.user_id).await, None);
    assert!(matches!(scene.leave(alice).await, Err(LeaveError::NotInRoom)));
}

#[tokio::test]
async fn an_invite_to_another_server_waits_in_the_outbox() {
    let scene = Scene::new(None).await;
    let Scene { alice, room_id, .. } = &scene;
    let eve = UserId::parse(REMOTE).unwrap();
    scene.set(alice, "m.room.name", json!({ "name": "Here" })).await;
    scene.invite(alice, &eve).await.unwrap();
    let waiting = scene.outbox().await;
    let [(outbox::Kind::Invite, body)] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!(body["room_id"], room_id.as_str());
    assert_eq!(body["room_version"], "12");
    assert_eq!(body["event"]["state_key"], eve.as_str());
    assert_eq!(body["event"]["sender"], alice.user_id.as_str());
    let shown = body["invite_room_state"].as_array().unwrap();
    let has = |kind: &str| shown.iter().any(|event| event["type"] == kind);
    assert!(has("m.room.create") && has("m.room.name") && has("m.room.member"));
    assert!(!has("m.room.guest_access"));
    // Withdrawing it goes the same way: the room is not shared, so no heads would tell.
    scene.moderate(alice, &eve, Action::Kick).await.unwrap();
    let waiting = scene.outbox().await;
    let [(outbox::Kind::Pdu, body)] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!(body["content"]["membership"], "leave");
}

#[tokio::test]
async fn an_invite_with_a_new_room_waits_too() {
    let server = TestServer::new(21);
    let alice = server.user("alice").await;
    let mut new = NewRoom::new();
    new.invite = vec![UserId::parse(REMOTE).unwrap()];
    new.is_direct = true;
    let room_id = create::room(&server.hs, &alice.user_id, new).await.unwrap();
    let bob = server.user("bob").await;
    let scene = Scene { server, alice, bob, room_id };
    let waiting = scene.outbox().await;
    let [(outbox::Kind::Invite, body)] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!(body["event"]["content"]["is_direct"], true);
}

#[tokio::test]
async fn a_room_that_nobody_here_knows_needs_a_way_to_it() {
    let scene = Scene::new(None).await;
    let Scene { server, bob, .. } = &scene;
    let target = owned_room_id!("!Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9v").into();
    let new = Join { target, via: vec![server.hs.server_name().to_owned()], reason: None };
    let error = join::join(&server.hs, &bob.user_id, new).await.unwrap_err();
    assert!(matches!(error, EntryError::NoWay), "{error}");
    let target = RoomAliasId::parse(format!("#nothing:{}", server.hs.server_name()));
    let target = target.unwrap().into();
    let new = Join { target, via: vec![owned_server_name!("example.org")], reason: None };
    let error = join::join(&server.hs, &bob.user_id, new).await.unwrap_err();
    let unknown = matches!(error, EntryError::Alias(AliasError::Unknown(_)));
    assert!(unknown, "{error}");
}

#[tokio::test]
async fn a_restricted_room_lets_in_who_is_in_the_other() {
    for version in [RoomVersionId::V8, RoomVersionId::V12] {
        let scene = Scene::new(Some(version.clone())).await;
        let Scene { server, alice, bob, room_id } = &scene;
        let club = create_public(server, alice).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let rule = json!({ "join_rule": "restricted", "allow": allow });
        scene.set(alice, "m.room.join_rules", rule).await;
        let refused = scene.join(bob).await.unwrap_err();
        assert!(matches!(refused, EntryError::Send(SendError::Forbidden(_))), "{refused}");
        let new = Join { target: club.into(), via: Vec::new(), reason: None };
        join::join(&server.hs, &bob.user_id, new).await.unwrap();
        scene.join(bob).await.unwrap();
        let query = StateQuery {
            room_id: room_id.clone(),
            kind: "m.room.member".into(),
            state_key: bob.user_id.to_string(),
            part: StatePart::Content,
        };
        let member = read::state_event(&server.hs, bob, query).await.unwrap();
        let member: Value = serde_json::from_str(member.get()).unwrap();
        assert_eq!(member["join_authorised_via_users_server"], alice.user_id.as_str());
    }
}

async fn create_public(server: &TestServer, by: &Session) -> OwnedRoomId {
    let mut new = NewRoom::new();
    new.preset = Some(ruma::api::client::room::create_room::v3::RoomPreset::PublicChat);
    create::room(&server.hs, &by.user_id, new).await.unwrap()
}

#[tokio::test]
async fn aliases_belong_to_who_made_them() {
    let scene = Scene::new(None).await;
    let Scene { server, alice, bob, room_id } = &scene;
    let alias = |name: &str| format!("#{name}:{}", server.hs.server_name()).try_into().unwrap();
    let make = async |by: &Session, name: &str| {
        aliases::create(&server.hs, &by.user_id, alias(name), room_id.clone()).await
    };
    assert!(matches!(make(bob, "a").await, Err(AliasError::Forbidden)));
    make(alice, "a").await.unwrap();
    assert!(matches!(make(alice, "a").await, Err(AliasError::Taken(_))));
    let foreign = room_alias_id!("#a:example.org").to_owned();
    let made = aliases::create(&server.hs, &alice.user_id, foreign, room_id.clone()).await;
    assert!(matches!(made, Err(AliasError::Invalid(_))));
    let found = aliases::resolve(&server.hs, &alias("a")).await.unwrap();
    assert_eq!(
        (&found.room_id, &found.servers[..]),
        (room_id, &[server.hs.server_name().to_owned()][..])
    );
    let listed = aliases::list(&server.hs, &alice.user_id, room_id.clone()).await.unwrap();
    assert_eq!(listed, [alias("a")]);
    let stranger = server.user("stranger").await;
    let list = async || aliases::list(&server.hs, &stranger.user_id, room_id.clone()).await;
    assert!(matches!(list().await, Err(AliasError::Forbidden)));
    let open = NewState {
        room_id: room_id.clone(),
        kind: "m.room.history_visibility".into(),
        state_key: String::new(),
        content: content(&json!({ "history_visibility": "world_readable" })),
    };
    send::state(&server.hs, &alice.user_id, open).await.unwrap();
    assert_eq!(list().await.unwrap(), [alias("a")]);
    let removed = aliases::remove(&server.hs, &bob.user_id, alias("a")).await;
    assert!(matches!(removed, Err(AliasError::Forbidden)));
    let join = Join { target: OwnedRoomAlias::from(alias("a")), via: Vec::new(), reason: None };
    scene.invite(alice, &bob.user_id).await.unwrap();
    assert_eq!(&join::join(&server.hs, &bob.user_id, join).await.unwrap(), room_id);
    aliases::remove(&server.hs, &alice.user_id, alias("a")).await.unwrap();
    let found = aliases::resolve(&server.hs, &alias("a")).await;
    assert!(matches!(found, Err(AliasError::Unknown(_))));
}

type OwnedRoomAlias = ruma::OwnedRoomOrAliasId;

#[tokio::test]
async fn who_left_sees_the_room_as_it_was_and_strangers_see_nothing() {
    let scene = Scene::new(None).await;
    let Scene { server, alice, bob, room_id } = &scene;
    let topic = async |who: &Session| {
        let query = StateQuery {
            room_id: room_id.clone(),
            kind: "m.room.topic".into(),
            state_key: String::new(),
            part: StatePart::Content,
        };
        let json = read::state_event(&server.hs, who, query).await?;
        Ok::<_, ReadError>(serde_json::from_str::<Value>(json.get()).unwrap()["topic"].clone())
    };
    let event = async |who: &Session, id: &ruma::OwnedEventId| {
        read::event(&server.hs, who, room_id.clone(), id.clone()).await
    };
    scene.set(alice, "m.room.topic", json!({ "topic": "before" })).await;
    let early = scene.say(alice, "early").await;
    assert!(matches!(topic(bob).await, Err(ReadError::NotInRoom)));
    assert!(matches!(event(bob, &early).await, Err(ReadError::NotFound)));
    scene.invite(alice, &bob.user_id).await.unwrap();
    assert!(matches!(topic(bob).await, Err(ReadError::NotInRoom)), "an invite is no entry");
    assert!(matches!(event(bob, &early).await, Err(ReadError::NotFound)));
    scene.join(bob).await.unwrap();
    assert_eq!(topic(bob).await.unwrap(), "before");
    event(bob, &early).await.unwrap();
    scene.leave(bob).await.unwrap();
    scene.set(alice, "m.room.topic", json!({ "topic": "after" })).await;
    let late = scene.say(alice, "late").await;
    assert_eq!(topic(bob).await.unwrap(), "before");
    event(bob, &early).await.unwrap();
    assert!(matches!(event(bob, &late).await, Err(ReadError::NotFound)));
    scene
        .set(alice, "m.room.history_visibility", json!({ "history_visibility": "world_readable" }))
        .await;
    let open = scene.say(alice, "open").await;
    let carol = server.user("carol").await;
    event(&carol, &open).await.unwrap();
    assert_eq!(topic(&carol).await.unwrap(), "after");
    assert!(matches!(event(&carol, &late).await, Err(ReadError::NotFound)));
}

#[tokio::test]
async fn history_for_members_only_begins_with_the_join() {
    for (visibility, from_invite) in [("joined", false), ("invited", true)] {
        let scene = Scene::new(None).await;
        let Scene { server, alice, bob, room_id } = &scene;
        let value = json!({ "history_visibility": visibility });
        scene.set(alice, "m.room.history_visibility", value).await;
        let before = scene.say(alice, "before").await;
        scene.invite(alice, &bob.user_id).await.unwrap();
        let between = scene.say(alice, "between").await;
        scene.join(bob).await.unwrap();
        let after = scene.say(alice, "after").await;
        let sees = async |id: &ruma::OwnedEventId| {
            read::event(&server.hs, bob, room_id.clone(), id.clone()).await.is_ok()
        };
        assert!(!sees(&before).await, "{visibility}");
        assert_eq!(sees(&between).await, from_invite, "{visibility}");
        assert!(sees(&after).await, "{visibility}");
    }
}

#[tokio::test]
async fn a_profile_change_is_told_in_every_room() {
    let scene = Scene::new(None).await;
    let Scene { server, alice, bob, room_id } = &scene;
    scene.invite(alice, &bob.user_id).await.unwrap();
    scene.join(bob).await.unwrap();
    let user: OwnedUserId = bob.user_id.clone();
    let profile = profiles::Profile {
        displayname: Some("Robert".to_owned()),
        avatar_url: Some("mxc://example.org/robert".into()),
    };
    let set = profile.clone();
    let stored = server.hs.store.write(move |txn| profiles::set(txn, &user, &set));
    stored.await.unwrap();
    refresh_profile(&server.hs, &bob.user_id).await.unwrap();
    let members = read::joined_members(&server.hs, &alice.user_id, room_id.clone()).await.unwrap();
    let robert = &members[&bob.user_id];
    assert_eq!(
        (&robert.display_name, &robert.avatar_url),
        (&profile.displayname, &profile.avatar_url)
    );
    let position = server.hs.store.position();
    refresh_profile(&server.hs, &bob.user_id).await.unwrap();
    assert_eq!(server.hs.store.position(), position);
}

#[tokio::test]
async fn members_and_rooms_are_listed() {
    let scene = Scene::new(None).await;
    let Scene { server, alice, bob, room_id } = &scene;
    let rooms = read::joined_rooms(&server.hs, &alice.user_id).await.unwrap();
    assert_eq!(rooms, std::slice::from_ref(room_id));
    assert!(read::joined_rooms(&server.hs, &bob.user_id).await.unwrap().is_empty());
    let strangers = read::joined_members(&server.hs, &bob.user_id, room_id.clone()).await;
    assert!(matches!(strangers, Err(ReadError::NotInRoom)));
    let state = read::state(&server.hs, alice, room_id.clone()).await.unwrap();
    assert!(state.len() >= 6);
}
