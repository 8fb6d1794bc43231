//! Media from any member, and from nobody else.

use std::time::Duration;

use messagehub_homeserver::{
    federation::{self, Call, FederationError},
    media::{self, MediaAddress, MediaError, MediaFile, Reach, Upload, Wanted},
};
use ruma::OwnedMxcUri;
use sha2::Digest as _;

use super::*;

async fn upload(node: &Node, by: &Session, bytes: &str) -> OwnedMxcUri {
    let upload = Upload {
        bytes: bytes.as_bytes().to_vec(),
        content_type: Some("image/png".to_owned()),
        filename: Some("cat.png".to_owned()),
    };
    media::upload(&node.hs, &by.user_id, upload).await.unwrap()
}

fn address(uri: &OwnedMxcUri) -> MediaAddress {
    let (server_name, media_id) = uri.parts().unwrap();
    MediaAddress { server_name: server_name.to_owned(), media_id: media_id.to_owned() }
}

async fn get(node: &Node, uri: &OwnedMxcUri) -> Result<MediaFile, MediaError> {
    let wanted = Wanted { address: address(uri), reach: Reach::Everywhere, wait: Duration::ZERO };
    media::get(&node.hs, &wanted).await
}

async fn show(hs: &Homeserver, session: &Session, room_id: &OwnedRoomId, uri: &OwnedMxcUri) {
    let message = NewMessage {
        room_id: room_id.clone(),
        kind: TimelineEventType::RoomMessage,
        content: to_raw_value(&json!({ "msgtype": "m.image", "body": "cat", "url": uri })).unwrap(),
        txn_id: uri.as_str().into(),
    };
    send::message(hs, session, message).await.unwrap();
}

async fn encrypt(hs: &Homeserver, by: &Session, room_id: &OwnedRoomId) {
    let state = send::NewState {
        room_id: room_id.clone(),
        kind: StateEventType::RoomEncryption,
        state_key: String::new(),
        content: to_raw_value(&json!({ "algorithm": "m.megolm.v1.aes-sha2" })).unwrap(),
    };
    send::state(hs, &by.user_id, state).await.unwrap();
}

/// Three nodes, a user on each, and a room of all three.
struct Three {
    net: Net,
    nodes: [Node; 3],
    users: [Session; 3],
    room_id: OwnedRoomId,
}

async fn three() -> Three {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(&mut net, (&a, &alice), (&b, &bob)).await;
    bring_in(&mut net, (&a, &alice), (&c, &carol), &room_id).await;
    net.until("everybody knows of everybody", || async {
        let joined = Some(MembershipState::Join);
        membership(&b.hs, &room_id, &carol.user_id).await == joined
            && membership(&a.hs, &room_id, &carol.user_id).await == joined
    })
    .await;
    Three { net, nodes: [a, b, c], users: [alice, bob, carol], room_id }
}

/// Until a node has the event that names an item.
async fn until_named(net: &mut Net, node: &Node, uri: &OwnedMxcUri, by: &Node) {
    net.until("the event arrives", || async {
        let (mxc, besides) = (uri.to_string(), node.owned_name());
        assert_ne!(by.name(), node.name());
        let rooms = read(&node.hs, move |snap| {
            messagehub_store::media_references::list_rooms(snap, &mxc, Some(&besides))
        });
        !rooms.await.is_empty()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_member_passes_media_on_when_its_own_server_is_off() {
    let mut t = three().await;
    let uri = upload(&t.nodes[0], &t.users[0], "a cat").await;
    t.net.drive(show(&t.nodes[0].hs, &t.users[0], &t.room_id, &uri)).await;
    let [a, b, c] = &t.nodes;
    until_named(&mut t.net, b, &uri, a).await;
    until_named(&mut t.net, c, &uri, a).await;
    let first = t.net.drive(get(b, &uri)).await.unwrap();
    assert_eq!(&first.bytes[..], b"a cat");

    t.net.hub.set_link(a.name(), c.name(), Link::Down);
    let passed_on = t.net.drive(get(c, &uri)).await.unwrap();
    assert_eq!(passed_on, first, "with its type and its name, which its server signed");
    // And from there once more: the description stays with it.
    let mut second = upload_second_hop(&mut t).await;
    second.push(passed_on);
    assert!(second.iter().all(|file| *file == first));
}

/// Drops b's way to a, and b's copy, by asking from c, which had it from b.
async fn upload_second_hop(t: &mut Three) -> Vec<MediaFile> {
    let [a, b, c] = &t.nodes;
    let uri = upload(a, &t.users[0], "a cat").await;
    t.net.hub.set_link(a.name(), c.name(), Link::Up);
    t.net.drive(show(&a.hs, &t.users[0], &t.room_id, &uri)).await;
    until_named(&mut t.net, b, &uri, a).await;
    until_named(&mut t.net, c, &uri, a).await;
    let at_c = t.net.drive(get(c, &uri)).await.unwrap();
    t.net.hub.set_link(a.name(), b.name(), Link::Down);
    let at_b = t.net.drive(get(b, &uri)).await.unwrap();
    vec![at_b, at_c]
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_not_believed() {
    let mut t = three().await;
    let uri = upload(&t.nodes[0], &t.users[0], "a cat").await;
    t.net.drive(show(&t.nodes[0].hs, &t.users[0], &t.room_id, &uri)).await;
    let [a, b, c] = &t.nodes;
    until_named(&mut t.net, b, &uri, a).await;
    until_named(&mut t.net, c, &uri, a).await;
    t.net.drive(get(b, &uri)).await.unwrap();
    // Whoever holds the copy changes it.
    for file in files(b.hs.store.media_dir()) {
        std::fs::write(file, "a dog").unwrap();
    }
    t.net.hub.set_link(a.name(), c.name(), Link::Down);
    let refused = t.net.drive(get(c, &uri)).await;
    assert!(matches!(refused, Err(MediaError::Unreachable | MediaError::Unknown)), "{refused:?}");
    t.net.hub.set_link(a.name(), c.name(), Link::Up);
    assert_eq!(&t.net.drive(get(c, &uri)).await.unwrap().bytes[..], b"a cat");
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Asks one node for an item as another, and gives the status.
async fn ask(from: &Node, to: &Node, path: &str) -> u16 {
    let call = Call { method: http::Method::GET, uri: path.to_owned(), body: Vec::new() };
    match federation::ask_raw(&from.hs, to.name(), call, Duration::from_secs(10)).await {
        Ok(_) => 200,
        Err(FederationError::Refused { status, .. }) => status,
        Err(error) => panic!("{error}"),
    }
}

fn paths(uri: &OwnedMxcUri, holder: &Node) -> Vec<String> {
    let MediaAddress { server_name, media_id } = address(uri);
    let ours = "/_matrix/federation/unstable/net.messagehub";
    let mut paths = vec![
        format!("{ours}/media/{server_name}/{media_id}"),
        format!("{ours}/media_description/{server_name}/{media_id}"),
    ];
    if server_name == holder.name() {
        paths.push(format!("/_matrix/federation/v1/media/download/{media_id}"));
        paths.push(format!(
            "/_matrix/federation/v1/media/thumbnail/{media_id}?width=32&height=32&method=crop"
        ));
    }
    paths
}

/// S15: a peer gets neither what no event of a shared room names, nor makes a node fetch for it.
#[tokio::test(start_paused = true)]
async fn a_peer_gets_no_media_that_it_could_not_see_and_no_proxy() {
    let mut t = three().await;
    let stranger = t.net.start(4);
    let dave = stranger.user("dave").await;
    let [a, b, c] = &t.nodes;
    let unnamed = upload(a, &t.users[0], "a secret").await;
    let named = upload(a, &t.users[0], "a cat").await;
    t.net.drive(show(&a.hs, &t.users[0], &t.room_id, &named)).await;
    until_named(&mut t.net, b, &named, a).await;
    t.net.drive(get(b, &named)).await.unwrap();
    for path in paths(&unnamed, a) {
        assert_eq!(t.net.drive(ask(c, a, &path)).await, 404, "unnamed: {path}");
    }
    for (holder, uri) in [(a, &named), (b, &named)] {
        for path in paths(uri, holder) {
            assert_eq!(t.net.drive(ask(&stranger, holder, &path)).await, 404, "stranger: {path}");
        }
    }
    for path in &paths(&named, b)[..2] {
        assert_eq!(t.net.drive(ask(c, b, path)).await, 200, "a member: {path}");
    }
    // b does not have it, and does not go and get it.
    let elsewhere = upload(a, &t.users[0], "another cat").await;
    t.net.drive(show(&a.hs, &t.users[0], &t.room_id, &elsewhere)).await;
    until_named(&mut t.net, b, &elsewhere, a).await;
    for path in paths(&elsewhere, b) {
        assert_eq!(t.net.drive(ask(c, b, &path)).await, 404, "proxy: {path}");
    }

    // Naming something oneself, in a room with its holder, is no way to it.
    let trap = shared_room(&mut t.net, (b, &t.users[1]), (&stranger, &dave)).await;
    t.net.drive(show(&stranger.hs, &dave, &trap, &named)).await;
    t.net
        .until("b has heard of it", || async {
            let (mxc, us) = (named.to_string(), b.owned_name());
            let rooms = read(&b.hs, move |snap| {
                messagehub_store::media_references::list_rooms(snap, &mxc, Some(&us))
            });
            rooms.await.len() == 2
        })
        .await;
    for path in paths(&named, b) {
        assert_eq!(t.net.drive(ask(&stranger, b, &path)).await, 404, "named by itself: {path}");
    }
    // But a member may forward it.
    t.net.drive(show(&b.hs, &t.users[1], &trap, &named)).await;
    until_named(&mut t.net, &stranger, &named, b).await;
    let forwarded = t.net.drive(get(&stranger, &named)).await.unwrap();
    assert_eq!(&forwarded.bytes[..], b"a cat");
}

#[tokio::test(start_paused = true)]
async fn media_behind_encryption_are_for_the_members_of_encrypted_rooms() {
    let mut t = three().await;
    let stranger = t.net.start(4);
    let dave = stranger.user("dave").await;
    let [a, b, c] = &t.nodes;
    let uri = upload(a, &t.users[0], "ciphertext").await;
    // The event that names it cannot be read by servers.
    let refused = t.net.drive(get(b, &uri)).await;
    assert!(matches!(refused, Err(MediaError::Unknown)), "{refused:?}");
    t.net.drive(encrypt(&a.hs, &t.users[0], &t.room_id)).await;
    t.net
        .until("the room is encrypted everywhere", || async {
            let mut all = true;
            for node in [b, c] {
                let room_id = t.room_id.clone();
                all &= read(&node.hs, move |snap| {
                    let room = rooms::find(snap, &room_id)?.unwrap();
                    let kind = StateEventType::RoomEncryption;
                    Ok(room_state::get(snap, room.state, &kind, "")?.is_some())
                })
                .await;
            }
            all
        })
        .await;
    assert_eq!(&t.net.drive(get(b, &uri)).await.unwrap().bytes[..], b"ciphertext");
    t.net.hub.set_link(a.name(), c.name(), Link::Down);
    assert_eq!(&t.net.drive(get(c, &uri)).await.unwrap().bytes[..], b"ciphertext");
    // A room with a member is not a room with the uploader.
    let room = shared_room(&mut t.net, (b, &t.users[1]), (&stranger, &dave)).await;
    t.net.drive(encrypt(&b.hs, &t.users[1], &room)).await;
    for path in paths(&uri, b) {
        assert_eq!(t.net.drive(ask(&stranger, b, &path)).await, 404, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_avatar_is_for_whoever_may_see_the_profile() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let alice = a.user("alice").await;
    let uri = upload(&a, &alice, "a face").await;
    let refused = net.drive(get(&b, &uri)).await;
    assert!(matches!(refused, Err(MediaError::Unknown)), "{refused:?}");
    let field = messagehub_homeserver::profiles::Field::AvatarUrl(Some(uri.clone()));
    let user = &alice.user_id;
    net.drive(messagehub_homeserver::profiles::set(&a.hs, user, user, field)).await.unwrap();
    assert_eq!(&net.drive(get(&b, &uri)).await.unwrap().bytes[..], b"a face");
}

/// A copy whose owner signed nothing is believed where an event names its hash, and only then.
#[tokio::test(start_paused = true)]
async fn a_hash_that_an_event_names_is_as_good_as_a_signature() {
    let mut t = three().await;
    let [_, b, c] = &t.nodes;
    let right: OwnedMxcUri = "mxc://gone.example/right".into();
    let wrong: OwnedMxcUri = "mxc://gone.example/wrong".into();
    let unnamed: OwnedMxcUri = "mxc://gone.example/unnamed".into();
    let copy = address(&upload(b, &t.users[1], "ciphertext").await);
    for uri in [&right, &wrong, &unnamed] {
        let (from, to) = (copy.clone(), address(uri));
        let copied = b.hs.store.write(move |txn| {
            let found = messagehub_store::media::find(txn, &from.server_name, &from.media_id)?;
            let copy = messagehub_store::media::Media { user_id: None, ..found.unwrap() };
            messagehub_store::media::insert(txn, &to, &copy)
        });
        assert!(copied.await.unwrap());
    }
    let hash = |text: &str| {
        let hash: [u8; 32] = sha2::Sha256::digest(text).into();
        data_encoding::BASE64_NOPAD.encode(&hash)
    };
    for (uri, sha256) in [(&right, hash("ciphertext")), (&wrong, hash("other"))] {
        let content = json!({ "msgtype": "m.file", "body": "file",
            "file": { "url": uri, "hashes": { "sha256": sha256 } } });
        let message = NewMessage {
            room_id: t.room_id.clone(),
            kind: TimelineEventType::RoomMessage,
            content: to_raw_value(&content).unwrap(),
            txn_id: uri.as_str().into(),
        };
        t.net.drive(send::message(&b.hs, &t.users[1], message)).await.unwrap();
        until_named(&mut t.net, c, uri, b).await;
    }
    t.net.drive(show(&b.hs, &t.users[1], &t.room_id, &unnamed)).await;
    until_named(&mut t.net, c, &unnamed, b).await;
    assert_eq!(&t.net.drive(get(c, &right)).await.unwrap().bytes[..], b"ciphertext");
    for uri in [&wrong, &unnamed] {
        let refused = t.net.drive(get(c, uri)).await;
        assert!(
            matches!(refused, Err(MediaError::Unreachable | MediaError::Unknown)),
            "{uri}: {refused:?}"
        );
    }
}
