//! Media on a real disk.

use std::path::PathBuf;

use messagehub_store::media::MediaAddress;
use ruma::{
    OwnedMxcUri,
    api::{
        OutgoingResponseExt,
        federation::authenticated_media::{Content, ContentMetadata, FileOrLocation, get_content},
    },
    http_headers::{ContentDisposition, ContentDispositionType},
    server_name,
};
use tokio::sync::mpsc;

use super::*;
use crate::{peers::Outbound, sessions::Session, testing::TestServer};

fn text(bytes: &str) -> Upload {
    Upload {
        bytes: bytes.as_bytes().to_vec(),
        content_type: Some("text/plain".to_owned()),
        filename: Some("a.txt".to_owned()),
    }
}

fn wanted(uri: &OwnedMxcUri) -> Wanted {
    let (server_name, media_id) = uri.parts().unwrap();
    let address =
        MediaAddress { server_name: server_name.to_owned(), media_id: media_id.to_owned() };
    Wanted { address, reach: Reach::Everywhere, wait: Duration::ZERO }
}

fn files(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn caller(server: &TestServer) -> Session {
    Session { user_id: server.user_id("ann"), device_id: "D".into() }
}

#[tokio::test]
async fn an_upload_comes_back_and_equal_bytes_are_stored_once() {
    let server = TestServer::new(1);
    let (hs, ann) = (&server.hs, caller(&server).user_id);
    let first = upload(hs, &ann, text("hello")).await.unwrap();
    let second = upload(hs, &ann, text("hello")).await.unwrap();
    assert_ne!(first, second);
    let file = get(hs, &wanted(&first)).await.unwrap();
    assert_eq!(&file.bytes[..], b"hello");
    assert_eq!(file.content_type.as_deref(), Some("text/plain"));
    assert_eq!(file.filename.as_deref(), Some("a.txt"));
    let stored = files(hs.store.media_dir());
    assert_eq!(stored.len(), 1, "{stored:?}");
    let name = stored[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(name, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert!(!first.as_str().contains(&name[..8]));
}

#[tokio::test]
async fn path_tricks_are_unknown_media() {
    let server = TestServer::new(2);
    let hs = &server.hs;
    for media_id in ["../../identity.key", "..", "", "a/b", "a%2fb", "a\0b", "ä", "unfinished/x"] {
        let address = MediaAddress {
            server_name: hs.server_name().to_owned(),
            media_id: media_id.to_owned(),
        };
        let wanted = Wanted { address, reach: Reach::Everywhere, wait: Duration::ZERO };
        let refused = get(hs, &wanted).await;
        assert!(matches!(refused, Err(MediaError::Unknown)), "{media_id}: {refused:?}");
    }
}

#[tokio::test]
async fn what_cannot_stand_in_a_header_is_dropped() {
    let server = TestServer::new(3);
    let (hs, ann) = (&server.hs, caller(&server).user_id);
    let upload_of = Upload {
        bytes: b"x".to_vec(),
        content_type: Some("text/html\r\nSet-Cookie: a=b".to_owned()),
        filename: Some("a\nb".to_owned()),
    };
    let uri = upload(hs, &ann, upload_of).await.unwrap();
    let file = get(hs, &wanted(&uri)).await.unwrap();
    assert_eq!((file.content_type, file.filename), (None, None));
}

#[tokio::test]
async fn too_large_is_refused_and_leaves_nothing() {
    let server = TestServer::new(4);
    let (hs, ann) = (&server.hs, caller(&server).user_id);
    let bytes = vec![0; usize::try_from(hs.limits.max_upload_bytes).unwrap() + 1];
    let upload_of = Upload { bytes, content_type: None, filename: None };
    let refused = upload(hs, &ann, upload_of).await;
    assert!(matches!(refused, Err(MediaError::TooLarge)), "{refused:?}");
    assert!(files(hs.store.media_dir()).is_empty());
}

#[tokio::test]
async fn a_reserved_address_is_filled_by_its_owner_once() {
    let server = TestServer::new(5);
    let (hs, ann) = (&server.hs, caller(&server).user_id);
    let (uri, lapses) = reserve(hs, &ann).await.unwrap();
    assert_eq!(u64::from(lapses.get()), hs.clock.now_ms() + RESERVATION_MS);
    let early = get(hs, &wanted(&uri)).await;
    assert!(matches!(early, Err(MediaError::NotYetUploaded)), "{early:?}");
    let address = wanted(&uri).address;
    let stranger = fill(hs, &server.user_id("bob"), address.clone(), text("no")).await;
    assert!(matches!(stranger, Err(MediaError::NotYours)), "{stranger:?}");

    let patient = Wanted { wait: Duration::from_secs(30), ..wanted(&uri) };
    let (waited, filled) =
        tokio::join!(get(hs, &patient), fill(hs, &ann, address.clone(), text("hello")));
    filled.unwrap();
    assert_eq!(&waited.unwrap().bytes[..], b"hello");
    let again = fill(hs, &ann, address, text("other")).await;
    assert!(matches!(again, Err(MediaError::AlreadyUploaded)), "{again:?}");
}

#[tokio::test]
async fn reservations_are_bounded() {
    let server = TestServer::new(6);
    let (hs, ann) = (&server.hs, caller(&server).user_id);
    for _ in 0..MAX_RESERVED {
        reserve(hs, &ann).await.unwrap();
    }
    let refused = reserve(hs, &ann).await;
    assert!(matches!(refused, Err(MediaError::TooManyReserved)), "{refused:?}");
    server.clock.advance(RESERVATION_MS);
    reserve(hs, &ann).await.unwrap();
}

#[tokio::test]
async fn remote_media_is_not_asked_for_when_the_client_says_so() {
    let server = TestServer::new(7);
    let address = MediaAddress {
        server_name: server_name!("elsewhere.example").to_owned(),
        media_id: "abc".to_owned(),
    };
    let wanted = Wanted { address, reach: Reach::Here, wait: Duration::ZERO };
    let refused = get(&server.hs, &wanted).await;
    assert!(matches!(refused, Err(MediaError::Unknown)), "{refused:?}");
}

/// Answers the requests that the server sends, as a node that has the media and describes nothing.
async fn answer(outbound: &mut mpsc::Receiver<Outbound>, content: FileOrLocation) {
    let response = get_content::v1::Response::new(ContentMetadata::new(), content);
    let response = response.try_into_http_response::<Vec<u8>>().unwrap().map(Bytes::from);
    while let Some(command) = outbound.recv().await {
        if let Outbound::Request { destination, request, reply } = command {
            assert_eq!(destination, "elsewhere.example");
            if request.uri().path().contains("media_description") {
                let mut unknown = http::Response::new(Bytes::from_static(b"{}"));
                *unknown.status_mut() = http::StatusCode::NOT_FOUND;
                reply.send(Ok(unknown)).unwrap();
                continue;
            }
            assert_eq!(request.uri().path(), "/_matrix/federation/v1/media/download/abc");
            reply.send(Ok(response)).unwrap();
            return;
        }
    }
}

fn remote() -> Wanted {
    let address = MediaAddress {
        server_name: server_name!("elsewhere.example").to_owned(),
        media_id: "abc".to_owned(),
    };
    Wanted { address, reach: Reach::Everywhere, wait: Duration::ZERO }
}

#[tokio::test]
async fn remote_media_is_fetched_once_and_kept() {
    let mut server = TestServer::new(8);
    let hs = server.hs.clone();
    let disposition = ContentDisposition::new(ContentDispositionType::Inline)
        .with_filename(Some("cat.png".to_owned()));
    let content = Content::new(b"bytes".to_vec(), "image/png".to_owned(), disposition);
    let remote = remote();
    let (file, ()) = tokio::join!(
        get(&hs, &remote),
        answer(&mut server.outbound, FileOrLocation::File(content))
    );
    let file = file.unwrap();
    assert_eq!(&file.bytes[..], b"bytes");
    assert_eq!(file.content_type.as_deref(), Some("image/png"));
    assert_eq!(file.filename.as_deref(), Some("cat.png"));
    // Nobody answers now.
    assert_eq!(get(&hs, &remote).await.unwrap(), file);
    let ours =
        MediaAddress { server_name: hs.server_name().to_owned(), media_id: "abc".to_owned() };
    let asker = server_name!("asker.example").to_owned();
    for address in [ours, remote.address] {
        let refused = share::file(&hs, asker.clone(), address).await;
        assert!(matches!(refused, Err(MediaError::Unknown)), "{refused:?}");
    }
}

#[tokio::test]
async fn another_node_cannot_send_us_elsewhere() {
    let mut server = TestServer::new(9);
    let hs = server.hs.clone();
    let location = FileOrLocation::Location("http://127.0.0.1/secret".to_owned());
    let remote = remote();
    let (refused, ()) = tokio::join!(get(&hs, &remote), answer(&mut server.outbound, location));
    assert!(matches!(refused, Err(MediaError::Unknown)), "{refused:?}");
}
