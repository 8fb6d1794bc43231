use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use messagehub_store::{Mode, rooms};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::json;

use super::*;
use crate::testing::{TestServer, dag::Step, sealing};

/// A room of a local user that somebody from elsewhere is in.
struct Shared {
    server: TestServer,
    alice: OwnedUserId,
    room_id: OwnedRoomId,
}

impl Shared {
    async fn new(mode: Mode) -> Self {
        let server = TestServer::with_mode(90, mode);
        let alice = server.user("alice").await;
        let room_id = server.room(&alice, None).await;
        let shared = Self { server, alice: alice.user_id, room_id };
        let public = json!({ "join_rule": "public" });
        shared.says(&shared.alice, ("m.room.join_rules", ""), public).await;
        shared.is(&zoe(), "join").await;
        shared
    }

    /// Adds a state event of anybody's.
    async fn says(&self, sender: &UserId, about: (&str, &str), content: serde_json::Value) {
        let head = self.server.head(&self.room_id).await;
        let step = Step::state(&[head], sender, about, content);
        let appended = self.server.place(&self.room_id, step).await;
        assert_eq!(appended.standing, messagehub_store::Standing::Accepted);
    }

    /// Lets somebody say what they are, or alice say it of them.
    async fn is(&self, user_id: &UserId, membership: &str) {
        let by_itself = matches!(membership, "join" | "leave");
        let sender = if by_itself { user_id } else { &*self.alice };
        let content = json!({ "membership": membership });
        self.says(sender, ("m.room.member", user_id.as_str()), content).await;
    }

    /// The key of a frame that is sealed now.
    async fn key(&self) -> RoomKeyId {
        let hs = &self.server.hs;
        let sealed = seal(hs, &self.room_id, b"frame").await.unwrap();
        let opened = sealing::open(hs, &self.room_id, &sealed);
        assert_eq!(opened.as_deref(), Some(&b"frame"[..]));
        sealing::key_of(hs, &self.room_id, &sealed).unwrap().id()
    }

    /// The key of a frame with what was written when the room had a state.
    fn key_for(&self, state: StateNid) -> Option<RoomKeyId> {
        let now_ms = self.server.hs.clock.now_ms();
        let keys = self.server.hs.peers.room_keys();
        keys.for_members_of(&self.room_id, state, now_ms).map(|key| key.id())
    }

    async fn state(&self) -> StateNid {
        let room_id = self.room_id.clone();
        self.server.read(move |snap| Ok(rooms::find(snap, &room_id)?.unwrap().state)).await
    }
}

fn zoe() -> OwnedUserId {
    OwnedUserId::try_from("@zoe:other.example").unwrap()
}

#[tokio::test]
async fn a_key_is_replaced_when_a_server_leaves_and_not_before() {
    let shared = Shared::new(Mode::Inline).await;
    let (zoe, yan) = (zoe(), OwnedUserId::try_from("@yan:other.example").unwrap());
    let first = shared.key().await;
    assert_eq!(shared.key().await, first);
    shared.is(&yan, "join").await;
    shared
        .says(
            &zoe,
            ("m.room.member", zoe.as_str()),
            json!({ "membership": "join", "displayname": "Z" }),
        )
        .await;
    shared.says(&shared.alice, ("m.room.topic", ""), json!({ "topic": "keys" })).await;
    assert_eq!(shared.key().await, first, "more people, and other state");
    shared.is(&yan, "ban").await;
    assert_eq!(shared.key().await, first, "zoe is still there");
    shared.is(&zoe, "leave").await;
    let second = shared.key().await;
    assert_ne!(second, first);
    shared.is(&zoe, "join").await;
    assert_eq!(shared.key().await, second);
    shared.is(&zoe, "leave").await;
    shared.is(&zoe, "join").await;
    assert_eq!(shared.key().await, second, "gone and back, and nothing was said in between");
    shared.is(&zoe, "leave").await;
    shared.is(&zoe, "invite").await;
    assert_ne!(shared.key().await, second, "gone, and only invited again");
}

#[tokio::test]
async fn what_was_written_before_somebody_left_is_for_them_too() {
    let shared = Shared::new(Mode::Inline).await;
    let first = shared.key().await;
    let before = shared.state().await;
    shared.is(&zoe(), "leave").await;
    assert_eq!(shared.key_for(before), Some(first));
    let after = shared.state().await;
    assert_eq!(shared.key_for(after), None, "what tells of it is for those who are left");
    let second = shared.key().await;
    assert_eq!(shared.key_for(after), Some(second));
    assert_eq!(shared.key_for(before), None, "no earlier key comes back");
    shared.server.clock.advance(7 * 24 * 60 * 60 * 1000);
    assert_eq!(shared.key_for(after), None, "it is old");
}

#[tokio::test]
async fn an_access_list_replaces_the_key_and_so_does_a_week() {
    let shared = Shared::new(Mode::Inline).await;
    let first = shared.key().await;
    let acl = json!({ "allow": ["*"], "deny": ["other.example"] });
    shared.says(&shared.alice, ("m.room.server_acl", ""), acl).await;
    let second = shared.key().await;
    assert_ne!(second, first);
    shared.server.clock.advance(7 * 24 * 60 * 60 * 1000);
    assert_ne!(shared.key().await, second);
    shared.server.hs.peers.room_keys().sweep(shared.server.hs.clock.now_ms());
    let key = shared.server.hs.peers.room_keys().find(&shared.room_id, second, 0);
    assert!(key.is_some(), "its last frames are still fresh");
}

#[tokio::test]
async fn a_room_that_was_left_has_no_key() {
    let shared = Shared::new(Mode::Inline).await;
    let id = shared.key().await;
    let hs = &shared.server.hs;
    crate::rooms::leave::leave(hs, &shared.alice, shared.room_id.clone(), None).await.unwrap();
    assert!(hs.peers.room_keys().find(&shared.room_id, id, 0).is_none());
    let sealed = seal(hs, &shared.room_id, b"frame").await;
    assert!(matches!(sealed, Err(SealError::UnknownRoom)), "{sealed:?}");
}

/// Many frames at once, on several threads, while somebody is banned.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_is_sealed_after_a_removal_is_sealed_with_the_old_key() {
    let shared = Arc::new(Shared::new(Mode::Threaded).await);
    let old = shared.key().await;
    let removed = Arc::new(AtomicBool::new(false));
    let sealers = (0..8).map(|_| {
        let (shared, removed) = (Arc::clone(&shared), Arc::clone(&removed));
        async move {
            let (mut before, mut after) = (0_u32, 0_u32);
            while after < 50 {
                let was_removed = removed.load(Ordering::SeqCst);
                let key = shared.key().await;
                assert!(!was_removed || key != old, "the old key after a removal");
                if was_removed {
                    after += 1
                } else {
                    before += 1
                }
                tokio::task::yield_now().await;
            }
            before
        }
    });
    let removing = async {
        for _ in 0..20 {
            shared.key().await;
        }
        shared.is(&zoe(), "ban").await;
        removed.store(true, Ordering::SeqCst);
    };
    let (before, ()) = tokio::join!(futures::future::join_all(sealers), removing);
    assert!(before.into_iter().sum::<u32>() > 0, "nothing was sealed before it");
}
