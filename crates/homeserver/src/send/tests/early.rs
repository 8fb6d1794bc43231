//! Others are told of a message while the disk is still at work.

use std::sync::mpsc;

use messagehub_protocol::server_keys::ServerKeys;
use messagehub_store::{Mode, Store, StoreError};
use tokio::{sync::oneshot, task::JoinSet};

use super::*;
use crate::{
    federation::keys,
    ingest::{self, Outcome, Parcel},
    testing::{dag::Step, sealing},
};

/// A write that does not end by itself, and the group of which it is one.
struct Held {
    begun: Option<oneshot::Receiver<()>>,
    end: mpsc::Sender<End>,
    task: JoinSet<Result<(), StoreError>>,
}

enum End {
    Commit,
    /// As SQLite does by itself when the disk fails.
    Rollback,
}

impl Held {
    /// Stands in the queue behind what has been asked for until now.
    async fn queue(store: &Store) -> Self {
        let (store, (end, ended), (begun, begins)) =
            (store.clone(), mpsc::channel(), oneshot::channel());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let write = store.write(move |txn| {
                begun.send(()).unwrap();
                match ended.recv().unwrap() {
                    End::Commit => Ok(()),
                    End::Rollback => Ok(txn.conn().execute_batch("ROLLBACK")?),
                }
            });
            write.await
        });
        // On this one thread it gets as far as it can.
        tokio::task::yield_now().await;
        Self { begun: Some(begins), end, task }
    }

    async fn begins(&mut self) {
        self.begun.take().unwrap().await.unwrap();
    }

    fn end(&self, how: End) {
        self.end.send(how).unwrap();
    }

    async fn outcome(mut self) -> Result<(), StoreError> {
        self.task.join_next().await.unwrap().unwrap()
    }
}

/// A room that somebody from elsewhere is in, and for which there is a key.
struct Shared {
    server: TestServer,
    alice: Session,
    room_id: OwnedRoomId,
}

impl Shared {
    async fn new() -> Self {
        let server = TestServer::with_mode(11, Mode::Threaded);
        let alice = server.user("alice").await;
        let room_id = server.room(&alice, None).await;
        let zoe = UserId::parse("@zoe:other.example").unwrap();
        let public = json!({ "join_rule": "public" });
        let join = json!({ "membership": "join" });
        for (sender, about, content) in [
            (&alice.user_id, ("m.room.join_rules", ""), public),
            (&zoe, ("m.room.member", zoe.as_str()), join),
        ] {
            let head = server.head(&room_id).await;
            server.place(&room_id, Step::state(&[head], sender, about, content)).await;
        }
        let mut shared = Self { server, alice, room_id };
        shared.send("first").join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(shared.told().len(), 1, "for its key somebody had to look");
        shared
    }

    fn send(&self, body: &str) -> JoinSet<Result<OwnedEventId, SendError>> {
        let (hs, alice) = (self.server.hs.clone(), self.alice.clone());
        let new = message_in(&self.room_id, body, body);
        let mut sending = JoinSet::new();
        sending.spawn(async move { message(&hs, &alice, new).await });
        sending
    }

    /// The events of the frames that were given to the transport since this was asked.
    fn told(&mut self) -> Vec<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Frame {
            content: Content,
        }
        #[derive(Deserialize)]
        struct Content {
            pdus: Vec<Box<RawValue>>,
        }
        let mut told = Vec::new();
        while let Ok(command) = self.server.outbound.try_recv() {
            if let Outbound::Gossip { frame, .. } = command {
                let frame = sealing::open(&self.server.hs, &self.room_id, &frame).unwrap();
                told.extend(serde_json::from_slice::<Frame>(&frame).unwrap().content.pdus);
            }
        }
        told
    }

    /// Sends a message in a group that the test ends: what others were told before.
    async fn told_before(
        &mut self,
        how: End,
    ) -> (Vec<Box<RawValue>>, Result<OwnedEventId, SendError>) {
        let store = self.server.hs.store.clone();
        let mut first = Held::queue(&store).await;
        first.begins().await;
        let mut sending = self.send("second");
        tokio::task::yield_now().await;
        let mut last = Held::queue(&store).await;
        first.end(End::Commit);
        last.begins().await;
        let told = self.told();
        assert!(sending.try_join_next().is_none(), "it is not durable");
        let commits = matches!(how, End::Commit);
        last.end(how);
        assert_eq!(last.outcome().await.is_ok(), commits);
        assert_eq!(first.outcome().await.is_ok(), commits);
        (told, sending.join_next().await.unwrap().unwrap())
    }
}

#[tokio::test]
async fn others_hear_of_a_message_before_it_is_durable_and_once() {
    let mut shared = Shared::new().await;
    let (told, sent) = shared.told_before(End::Commit).await;
    assert_eq!(told.len(), 1);
    assert!(told[0].get().contains("second"));
    sent.unwrap();
    assert!(shared.told().is_empty());
}

#[tokio::test]
async fn a_message_that_the_disk_lost_comes_back_from_others() {
    let mut shared = Shared::new().await;
    let (told, sent) = shared.told_before(End::Rollback).await;
    assert!(matches!(sent, Err(SendError::Store(StoreError::Commit(_)))), "{sent:?}");
    // As when the node starts.
    let hs = &shared.server.hs;
    keys::remember(hs, vec![ServerKeys::clone(&hs.identity.server_keys())]).await.unwrap();
    let from = "other.example".try_into().unwrap();
    let parcel = Parcel { room_id: shared.room_id.clone(), from, pdus: told };
    let outcomes = ingest::events(hs, parcel).await.unwrap();
    assert_eq!(outcomes.values().collect::<Vec<_>>(), [&Outcome::Accepted]);
    let event_id = outcomes.keys().next().unwrap();
    let event = seen(&shared.server, &shared.alice, event_id).await;
    assert_eq!(event["content"]["body"], "second");
}
