//! Two people, two machines, one LAN, no configuration: the main job, end to end.

use e2e::{
    client::{User, owner_of},
    eventually,
    namespace::{Lan, are_wanted},
    node::Node,
};
use matrix_sdk::{
    Room,
    attachment::AttachmentConfig,
    media::{MediaFormat, MediaRequestParameters},
    ruma::{
        OwnedEventId, OwnedUserId, UserId,
        api::client::{receipt::create_receipt::v3::ReceiptType, room::create_room},
        events::{
            AnySyncMessageLikeEvent, AnySyncTimelineEvent, SyncMessageLikeEvent,
            receipt::{ReceiptThread, ReceiptType as StoredReceiptType},
            room::message::{MessageType, RoomMessageEventContent},
        },
    },
};

/// A 1×1 PNG.
const IMAGE: &[u8] = &[
    0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R', 0, 0, 0,
    1, 0, 0, 0, 1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 0x0d, b'I', b'D', b'A', b'T',
    0x78, 0x9c, 0x63, 0x60, 0x60, 0x60, 0x60, 0, 0, 0, 5, 0, 1, 0xa5, 0xf6, 0x45, 0x40, 0, 0, 0, 0,
    b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82,
];

async fn find(searcher: &User, term: &str) -> OwnedUserId {
    eventually(&format!("a search for {term} finds somebody"), async || {
        let found = searcher.client.search_users(term, 10).await.expect("a search");
        found.results.first().map(|user| user.user_id.clone())
    })
    .await
}

/// Makes a room and brings `guest` in by an invitation.
async fn meet(host: &User, guest: &User, guest_id: &UserId) -> (Room, Room) {
    let mut request = create_room::v3::Request::new();
    request.invite = vec![guest_id.to_owned()];
    request.preset = Some(create_room::v3::RoomPreset::TrustedPrivateChat);
    let room = host.client.create_room(request).await.expect("a room");
    let invited = guest.invitation().await;
    assert_eq!(invited, room.room_id());
    let joined = eventually("the invitation can be accepted", async || {
        guest.client.join_room_by_id(&invited).await.ok()
    })
    .await;
    (room, joined)
}

async fn say(room: &Room, text: &str) -> OwnedEventId {
    let content = RoomMessageEventContent::text_plain(text);
    room.send(content).await.expect("a message is taken").response.event_id
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_find_each_other_and_talk() {
    if !are_wanted() {
        return;
    }
    let lan = Lan::new();
    let (left, right) = (lan.machine(), lan.machine());
    let (node_a, node_b) = (Node::on(&left).await, Node::on(&right).await);
    let (anna, bob) = (owner_of(&node_a).await, owner_of(&node_b).await);
    bob.client.account().set_display_name(Some("Bob")).await.expect("a display name");

    let server_b = node_b.server_name().await;
    let term = format!("Bob:{}", &server_b[server_b.len() - 7..]);
    let bob_id = find(&anna, &term).await;
    assert_eq!(bob_id.server_name().as_str(), server_b);

    let (at_anna, at_bob) = meet(&anna, &bob, &bob_id).await;
    let hello = say(&at_anna, "hello").await;
    bob.sees(&at_bob, "hello").await;
    say(&at_bob, "hello yourself").await;
    anna.sees(&at_anna, "hello yourself").await;

    typing_is_seen(&at_bob, &at_anna).await;
    receipt_is_seen(&at_bob, &at_anna, (&bob_id, &hello)).await;
    image_arrives(&at_anna, &bob, &at_bob).await;
}

async fn typing_is_seen(at_bob: &Room, at_anna: &Room) {
    let (_guard, mut typing) = at_anna.subscribe_to_typing_notifications();
    at_bob.typing_notice(true).await.expect("a typing notice is taken");
    let seen = async {
        loop {
            if !typing.recv().await.expect("a subscription").is_empty() {
                break;
            }
        }
    };
    tokio::time::timeout(e2e::DEADLINE, seen).await.expect("typing is seen on the other side");
}

async fn receipt_is_seen(at_bob: &Room, at_anna: &Room, (reader, event): (&UserId, &OwnedEventId)) {
    let thread = ReceiptThread::Unthreaded;
    let receipt = at_bob.send_single_receipt(ReceiptType::Read, thread.clone(), event.clone());
    receipt.await.expect("a receipt is taken");
    eventually("the receipt is seen on the other side", async || {
        let stored = at_anna.load_user_receipt(StoredReceiptType::Read, thread.clone(), reader);
        stored.await.expect("the client's store").filter(|(id, _)| id == event)
    })
    .await;
}

async fn image_arrives(at_anna: &Room, bob: &User, at_bob: &Room) {
    let png = "image/png".parse().expect("a type");
    let image = at_anna.send_attachment("dot.png", &png, IMAGE.to_vec(), AttachmentConfig::new());
    let event_id = image.await.expect("an image is taken").event_id;
    let source = eventually("the image event arrives", async || {
        let event = at_bob.event(&event_id, None).await.ok()?;
        let AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(
            SyncMessageLikeEvent::Original(message),
        )) = event.raw().deserialize().ok()?
        else {
            return None;
        };
        match message.content.msgtype {
            MessageType::Image(image) => Some(image.source),
            _ => None,
        }
    })
    .await;
    let request = MediaRequestParameters { source, format: MediaFormat::File };
    let bytes = bob.client.media().get_media_content(&request, false).await.expect("the image");
    assert_eq!(bytes, IMAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_catches_up_in_order() {
    if !are_wanted() {
        return;
    }
    let lan = Lan::new();
    let (left, right) = (lan.machine(), lan.machine());
    let (node_a, mut node_b) = (Node::on(&left).await, Node::on(&right).await);
    let (anna, bob) = (owner_of(&node_a).await, owner_of(&node_b).await);
    let bob_id: OwnedUserId = bob.client.user_id().expect("a login").to_owned();
    let found = find(&anna, bob_id.as_str()).await;
    assert_eq!(found, bob_id);
    let (at_anna, at_bob) = meet(&anna, &bob, &bob_id).await;
    say(&at_anna, "before").await;
    bob.sees(&at_bob, "before").await;
    drop(bob);

    let mut sent = Vec::new();
    for i in 0..200 {
        if i == 20 {
            node_b.kill().await;
        }
        let text = format!("message {i}");
        sent.push((say(&at_anna, &text).await, text));
    }
    node_b.start().await;

    let bob = e2e::client::log_in(node_b.client_address(), "p2p").await;
    let at_bob = bob.room(at_anna.room_id()).await;
    bob.sees(&at_bob, "message 199").await;
    let expected: Vec<_> = sent.iter().map(|(id, text)| (id.clone(), text.clone())).collect();
    let got = eventually("all messages arrive", async || {
        let texts = bob.texts(&at_bob).await;
        let got: Vec<_> =
            texts.into_iter().filter(|(_, text)| text.starts_with("message ")).collect();
        (got.len() >= expected.len()).then_some(got)
    })
    .await;
    let wrong = got.iter().zip(&expected).find(|(got, expected)| got != expected);
    assert!(wrong.is_none(), "not in order: got and expected {wrong:?}");
    assert_eq!(got.len(), expected.len(), "all 200, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_joins_through_any_member() {
    if !are_wanted() {
        return;
    }
    let lan = Lan::new();
    let machines = (lan.machine(), lan.machine(), lan.machine());
    let (mut node_a, node_b) = (Node::on(&machines.0).await, Node::on(&machines.1).await);
    let (anna, bob) = (owner_of(&node_a).await, owner_of(&node_b).await);
    let bob_id: OwnedUserId = bob.client.user_id().expect("a login").to_owned();
    find(&anna, bob_id.as_str()).await;
    let mut request = create_room::v3::Request::new();
    request.invite = vec![bob_id.clone()];
    request.preset = Some(create_room::v3::RoomPreset::PublicChat);
    let at_anna = anna.client.create_room(request).await.expect("a room");
    let invited = bob.invitation().await;
    let at_bob = bob.client.join_room_by_id(&invited).await.expect("a join");
    for i in 0..30 {
        say(&at_anna, &format!("history {i}")).await;
    }
    bob.sees(&at_bob, "history 29").await;
    drop(anna);
    node_a.stop().await;

    let node_c = Node::on(&machines.2).await;
    let carol = owner_of(&node_c).await;
    find(&carol, bob_id.as_str()).await;
    let via = [bob_id.server_name().to_owned()];
    let room = invited.as_str().try_into().expect("a room id");
    let at_carol = eventually("the third can join", async || {
        carol.client.join_room_by_id_or_alias(room, &via).await.ok()
    })
    .await;
    let history = eventually("the history comes", async || {
        let texts = carol.texts(&at_carol).await;
        let texts: Vec<_> =
            texts.into_iter().map(|(_, text)| text).filter(|t| t.starts_with("history")).collect();
        (texts.len() >= 30).then_some(texts)
    })
    .await;
    let expected: Vec<_> = (0..30).map(|i| format!("history {i}")).collect();
    assert_eq!(history, expected);
}
