use proptest::prelude::*;
use ruma::{MilliSecondsSinceUnixEpoch, UInt};
use serde_json::json;

use super::*;
use crate::{keys::IdentityKey, server_keys::ServerKeysTerms};

fn key() -> VerifyKey {
    VerifyKey::from_seed(&[4; 32])
}

fn identity() -> IdentityKey {
    IdentityKey::from_seed(&[3; 32])
}

fn server_keys() -> ServerKeys {
    let terms = ServerKeysTerms {
        old_verify_keys: Vec::new(),
        peer_ids: vec!["12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".to_owned()],
        issued_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_000u32)),
    };
    ServerKeys::make(&identity(), &key(), terms)
}

fn secrets() -> Secrets {
    Secrets { ephemeral: [5; 32], nonce: [6; 24] }
}

fn request() -> InnerRequest {
    InnerRequest {
        method: "PUT".to_owned(),
        uri: "/_matrix/federation/v1/send/1".to_owned(),
        authorization: "X-Matrix …".to_owned(),
        server_keys: None,
        content: Some(RawValue::from_string(r#"{"pdus":[]}"#.to_owned()).unwrap()),
    }
}

fn answer(body: &str) -> InnerAnswer {
    InnerAnswer { status: 200, content: RawValue::from_string(body.to_owned()).unwrap() }
}

fn opened() -> (SealedRequest, AnswerKey, AnswerKey) {
    let (sealed, ours) = SealedRequest::seal(&request(), &server_keys(), &secrets()).unwrap();
    let (_, theirs) = sealed.open(identity().server_name(), &key()).unwrap();
    (sealed, ours, theirs)
}

#[test]
fn a_request_and_its_answer_arrive() {
    let (sealed, ours) = SealedRequest::seal(&request(), &server_keys(), &secrets()).unwrap();
    let read = SealedRequest::parse(&serde_json::to_vec(&sealed).unwrap()).unwrap();
    assert_eq!(read, sealed);
    let (inner, theirs) = read.open(identity().server_name(), &key()).unwrap();
    assert_eq!(serde_json::to_string(&inner).unwrap(), serde_json::to_string(&request()).unwrap());
    let sealed = theirs.seal(&answer(r#"{"a":1}"#), &[9; 24]).unwrap();
    let read: SealedAnswer = serde_json::from_slice(&serde_json::to_vec(&sealed).unwrap()).unwrap();
    let inner = ours.open(&read).unwrap();
    assert_eq!((inner.status, inner.content.get()), (200, r#"{"a":1}"#));
}

#[test]
fn whoever_carries_it_reads_and_changes_nothing() {
    let (sealed, ours, theirs) = opened();
    let text = String::from_utf8_lossy(&sealed.sealed).into_owned();
    assert!(!text.contains("federation") && !text.contains("pdus"));
    let us = identity();
    let opens = |changed: &SealedRequest| changed.open(us.server_name(), &key()).is_ok();
    for at in [0, NONCE_BYTES, sealed.sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed.sealed[at] ^= 1;
        assert!(!opens(&changed), "byte {at}");
    }
    let mut changed = sealed.clone();
    changed.ephemeral[0] ^= 1;
    assert!(!opens(&changed));
    let mut forged = theirs.seal(&answer("{}"), &[9; 24]).unwrap();
    forged.sealed[30] ^= 1;
    assert!(matches!(ours.open(&forged), Err(RelayedError::Sealed)));
    // The carrier cannot make one up, nor give the answer to another request.
    let secrets = Secrets { ephemeral: [7; 32], nonce: [6; 24] };
    let (other, _) = SealedRequest::seal(&request(), &server_keys(), &secrets).unwrap();
    let (_, of_other) = other.open(identity().server_name(), &key()).unwrap();
    let misplaced = of_other.seal(&answer("{}"), &[9; 24]).unwrap();
    assert!(ours.open(&misplaced).is_err());
}

#[test]
fn only_the_destination_opens_it() {
    let (sealed, ..) = opened();
    let other = IdentityKey::from_seed(&[8; 32]);
    let opened = sealed.open(other.server_name(), &key());
    assert!(matches!(opened, Err(RelayedError::AnotherKey)));
    let rotated = VerifyKey::from_seed(&[8; 32]);
    assert!(sealed.open(identity().server_name(), &rotated).is_err());
    let mut forged = sealed.clone();
    forged.key_id = rotated.key_id().to_string();
    let opened = forged.open(identity().server_name(), &rotated);
    assert!(matches!(opened, Err(RelayedError::Sealed)));
}

#[test]
fn a_point_of_small_order_agrees_with_nobody() {
    let (mut sealed, ..) = opened();
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        sealed.ephemeral = point;
        let opened = sealed.open(identity().server_name(), &key());
        assert!(matches!(opened, Err(RelayedError::Sealed)));
    }
}

#[test]
fn what_must_not_travel_does_not() {
    for uri in [
        RELAY_PATH,
        RELAYED_PATH,
        "/_matrix/federation/unstable/net.messagehub/relayed?x",
        "/_matrix/federation/unstable/net.messagehub/room_keys",
        "/_matrix/federation/v1/media/download/x",
        "/_matrix/federation/unstable/net.messagehub/media/a/b",
        "/_matrix/federation/v1/../unstable/net.messagehub/relay",
        "/_matrix/key/v2/server",
        "/_matrix/client/v3/sync",
        "http://x/_matrix/federation/v1/send/1",
        "",
    ] {
        assert!(!may_be_relayed(uri), "{uri}");
        let sealed = SealedRequest::seal(
            &InnerRequest { uri: uri.to_owned(), ..request() },
            &server_keys(),
            &secrets(),
        );
        assert!(matches!(sealed, Err(RelayedError::Excluded)));
    }
    for uri in [
        "/_matrix/federation/v1/send/1",
        "/_matrix/federation/v1/query/profile?user_id=%40a%3Ab",
        "/_matrix/federation/unstable/net.messagehub/heads",
    ] {
        assert!(may_be_relayed(uri), "{uri}");
    }
}

#[test]
fn the_bounds_hold() {
    let of = |bytes: usize| {
        let body = format!("\"{}\"", "x".repeat(bytes));
        Some(RawValue::from_string(body).unwrap())
    };
    let seal = |bytes| {
        let request = InnerRequest { content: of(bytes), ..request() };
        SealedRequest::seal(&request, &server_keys(), &secrets())
    };
    assert!(seal(MAX_RELAYED_REQUEST_BYTES - 500).is_ok());
    assert!(matches!(seal(MAX_RELAYED_REQUEST_BYTES), Err(RelayedError::TooLarge(_))));
    let (sealed, ours, theirs) = opened();
    let large = SealedRequest { sealed: vec![0; MAX_RELAYED_REQUEST_BYTES + 41], ..sealed };
    assert!(SealedRequest::parse(&serde_json::to_vec(&large).unwrap()).is_err());
    let large = format!("\"{}\"", "x".repeat(MAX_RELAYED_ANSWER_BYTES));
    assert!(theirs.seal(&answer(&large), &[9; 24]).is_err());
    let large = SealedAnswer { sealed: vec![0; MAX_RELAYED_ANSWER_BYTES + 41] };
    assert!(matches!(ours.open(&large), Err(RelayedError::TooLarge(_))));
}

#[test]
fn other_forms_are_refused() {
    let (sealed, ..) = opened();
    let good = serde_json::to_value(&sealed).unwrap();
    for (field, value) in [
        ("destination", json!("not a name/")),
        ("ephemeral", json!("AAAA")),
        ("ephemeral", json!(1)),
        ("sealed", json!("A")),
        ("sealed", json!("AAA=")),
        ("key_id", json!(null)),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert!(SealedRequest::parse(bad.to_string().as_bytes()).is_err(), "{bad}");
    }
    let short = SealedRequest { sealed: vec![0; 10], ..sealed };
    assert!(short.open(identity().server_name(), &key()).is_err());
}

#[test]
fn secrets_are_not_printed() {
    let (_, ours, _) = opened();
    assert_eq!(format!("{ours:?} {:?}", secrets()), "AnswerKey(..) Secrets(..)");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = SealedRequest::parse(&bytes);
        let (sealed, ours, _) = opened();
        let forged = SealedAnswer { sealed: bytes.clone() };
        let opened = ours.open(&forged);
        prop_assert!(opened.is_err());
        let forged = SealedRequest { sealed: bytes, ..sealed };
        let opened = forged.open(identity().server_name(), &key());
        prop_assert!(opened.is_err());
    }
}
