//! An ordinary Matrix client (matrix-sdk) and what tests ask it.

use std::{net::SocketAddr, time::Duration};

use matrix_sdk::{
    Client, Room,
    config::SyncSettings,
    room::MessagesOptions,
    ruma::{
        OwnedEventId, OwnedRoomId, RoomId, UInt,
        api::Direction,
        events::{AnySyncMessageLikeEvent, AnySyncTimelineEvent},
    },
};

use crate::{
    eventually,
    node::{Node, PASSWORD},
};

/// A logged-in client that syncs in the background until it is dropped.
pub struct User {
    /// The client.
    pub client: Client,
    sync: tokio::task::JoinHandle<()>,
}

impl Drop for User {
    fn drop(&mut self) {
        self.sync.abort();
    }
}

/// A client of the server at `address`, logged in with the tests' password.
pub async fn log_in(address: SocketAddr, localpart: &str) -> User {
    let builder = Client::builder().homeserver_url(format!("http://{address}"));
    let client = builder.build().await.expect("a server that answers /versions");
    let login = client.matrix_auth().login_username(localpart, PASSWORD);
    login.initial_device_display_name("e2e").send().await.expect("a login");
    let syncing = client.clone();
    let sync = tokio::spawn(async move {
        let settings = SyncSettings::new().timeout(Duration::from_secs(10));
        loop {
            // A dead server is what some tests are about: try again until dropped.
            if syncing.sync(settings.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    User { client, sync }
}

/// The first user of a node, after their owner gave them a password.
pub async fn owner_of(node: &Node<'_>) -> User {
    node.run(&["user", "password", "p2p"], PASSWORD).await;
    log_in(node.client_address(), "p2p").await
}

impl User {
    /// A room this client knows, once it knows it.
    pub async fn room(&self, room_id: &RoomId) -> Room {
        eventually("the room is known", async || self.client.get_room(room_id)).await
    }

    /// The first invitation that comes.
    pub async fn invitation(&self) -> OwnedRoomId {
        eventually("an invitation comes", async || {
            self.client.invited_rooms().first().map(|room| room.room_id().to_owned())
        })
        .await
    }

    /// Texts of a room from old to new with their ids, as far back as this user may read.
    pub async fn texts(&self, room: &Room) -> Vec<(OwnedEventId, String)> {
        let mut texts = Vec::new();
        let mut from = None;
        loop {
            let mut options = MessagesOptions::new(Direction::Backward);
            options.from = from.take();
            options.limit = UInt::from(100u32);
            let page = room.messages(options).await.expect("a page of history");
            texts.extend(page.chunk.iter().filter_map(|event| {
                let event = event.raw().deserialize().ok()?;
                let AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(
                    message,
                )) = event
                else {
                    return None;
                };
                let message = message.as_original()?;
                Some((message.event_id.clone(), message.content.body().to_owned()))
            }));
            from = page.end;
            if from.is_none() {
                break;
            }
        }
        texts.reverse();
        texts
    }

    /// Waits for a text in a room.
    pub async fn sees(&self, room: &Room, text: &str) {
        eventually(&format!("“{text}” is seen"), async || {
            self.texts(room).await.iter().any(|(_, body)| body == text).then_some(())
        })
        .await;
    }
}
