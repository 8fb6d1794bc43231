//! `docs/wire.md` and the code say the same.

use data_encoding::HEXLOWER;
use ruma::{MilliSecondsSinceUnixEpoch, UInt, event_id, room_id};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    frame::{Frame, message_id, topic},
    heads::{
        HEADS_PATH, HeadsRequest, MAX_LISTED_ROOMS, PARTS, part_of, room_digest, total_digest,
    },
    media::{DESCRIPTION_ENDPOINT, DESCRIPTION_PATH, MEDIA_ENDPOINT, MEDIA_PATH, MediaDescription},
    relayed::{InnerAnswer, InnerRequest, RELAY_PATH, RELAYED_PATH, SealedRequest, Secrets},
    request::{RequestParts, RequestSignature, SERVER_KEYS_HEADER, sign},
    room_keys::{ROOM_KEYS_PATH, RoomKeysRequest, RoomKeysResponse},
    sealed::{RoomKey, SealedFrame},
};
use crate::{
    keys::{IdentityKey, VerifyKey},
    limits::*,
    server_keys::{ServerKeys, ServerKeysTerms},
};

const DOC: &str = include_str!("../../../../docs/wire.md");

const NOW: u64 = 1_750_000_000_000;

fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(NOW).unwrap())
}

fn server_keys() -> ServerKeys {
    let terms = ServerKeysTerms {
        old_verify_keys: Vec::new(),
        peer_ids: vec!["12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".to_owned()],
        issued_ts: now(),
    };
    ServerKeys::make(&identity(), &verify_key(), terms)
}

fn identity() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

fn verify_key() -> VerifyKey {
    VerifyKey::from_seed(&[2; 32])
}

fn destination() -> IdentityKey {
    IdentityKey::from_seed(&[3; 32])
}

fn frame() -> Vec<u8> {
    let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
    let frame = Frame {
        origin: identity().server_name().to_owned(),
        room_id: room_id!("!room:example.org").to_owned(),
        origin_server_ts: now(),
        pdus: vec![raw(r#"{"type":"m.room.message"}"#)],
        edus: vec![],
        server_keys: vec![server_keys().json().to_owned()],
    };
    frame.sign(&verify_key()).unwrap()
}

fn request() -> (RequestParts<'static>, RequestSignature) {
    let parts = RequestParts {
        method: "PUT",
        uri: "/_matrix/federation/v1/send/1",
        body: br#"{"pdus": [], "edus": []}"#,
    };
    let (from, to) = (identity(), destination());
    let signature =
        sign(parts, from.server_name(), to.server_name(), now(), &verify_key()).unwrap();
    (parts, signature)
}

fn destination_keys() -> ServerKeys {
    let terms = ServerKeysTerms {
        old_verify_keys: Vec::new(),
        peer_ids: vec!["12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".to_owned()],
        issued_ts: now(),
    };
    ServerKeys::make(&destination(), &VerifyKey::from_seed(&[4; 32]), terms)
}

/// The request of above, sealed, and the answer to it.
fn relayed() -> [String; 2] {
    let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
    let (parts, signature) = request();
    let inner = InnerRequest {
        method: parts.method.to_owned(),
        uri: parts.uri.to_owned(),
        authorization: signature.header_value(),
        server_keys: None,
        content: Some(raw(r#"{"edus":[],"pdus":[]}"#)),
    };
    let secrets = Secrets { ephemeral: [5; 32], nonce: [6; 24] };
    let (sealed, key) = SealedRequest::seal(&inner, &destination_keys(), &secrets).unwrap();
    let opened = sealed.open(destination().server_name(), &VerifyKey::from_seed(&[4; 32]));
    assert!(opened.is_ok());
    let answer = InnerAnswer { status: 200, content: raw(r#"{"pdus":{}}"#) };
    let answer = key.seal(&answer, &[7; 24]).unwrap();
    [serde_json::to_string(&sealed).unwrap(), serde_json::to_string(&answer).unwrap()]
}

/// Each stands alone on a line of the document.
#[test]
fn the_vectors_hold() {
    let topic = topic(room_id!("!room:example.org"));
    let room = room_digest([event_id!("$b"), event_id!("$a")]);
    let total = total_digest([(room_id!("!room:example.org"), room)]);
    let digest = |digest| serde_json::to_string(&digest).unwrap();
    let (parts, signature) = request();
    let checked = signature.verify(parts, destination().server_name(), &server_keys(), now());
    assert!(checked.is_ok());
    let [relayed_request, relayed_answer] = relayed();
    for vector in [
        relayed_request,
        relayed_answer,
        part_of(room_id!("!room:example.org")).to_string(),
        HEXLOWER.encode(identity().server_key().as_bytes()),
        identity().server_name().to_string(),
        HEXLOWER.encode(&verify_key().public_key()),
        verify_key().key_id().to_string(),
        server_keys().json().get().to_owned(),
        signature.header_value(),
        String::from_utf8(frame()).unwrap(),
        HEXLOWER.encode(&message_id(&topic, &frame())),
        topic,
        digest(room),
        digest(total),
    ] {
        assert!(DOC.lines().any(|line| line == vector), "docs/wire.md lacks\n{vector}");
    }
    let request = HeadsRequest { digest: Some(total), ..Default::default() };
    assert!(serde_json::to_string(&request).unwrap().contains(&digest(total)));
}

fn room_key() -> RoomKey {
    let owner = identity().server_name().to_owned();
    let after = vec![event_id!("$ban").to_owned()];
    RoomKey::new(owner, room_id!("!room:example.org"), Zeroizing::new([4; 32]), after)
}

#[test]
fn the_vectors_of_sealed_frames_hold() {
    let (key, room_id) = (room_key(), room_id!("!room:example.org"));
    let sealed = key.seal(room_id, [5; 24], &frame()).unwrap();
    let opened = SealedFrame::parse(&sealed).unwrap().open(room_id, &key);
    assert_eq!(opened.unwrap(), frame());
    let answer = serde_json::to_string(&RoomKeysResponse { keys: vec![key.clone()] }).unwrap();
    let asked = RoomKeysRequest { room_id: room_id.to_owned(), key_ids: vec![key.id()] };
    assert!(RoomKeysResponse::parse(answer.as_bytes(), &asked).is_ok());
    for vector in [
        HEXLOWER.encode(key.id().as_bytes()),
        serde_json::to_string(&key.id()).unwrap(),
        HEXLOWER.encode(&sealed),
        HEXLOWER.encode(&message_id(&topic(room_id), &sealed)),
        answer,
    ] {
        assert!(DOC.lines().any(|line| line == vector), "docs/wire.md lacks\n{vector}");
    }
    assert!(DOC.contains(ROOM_KEYS_PATH));
}

#[test]
fn the_vector_of_media_descriptions_holds() {
    let (identity, keys) = (identity(), server_keys());
    let description = MediaDescription {
        mxc: format!("mxc://{}/abcDEF123", identity.server_name()),
        sha256: Sha256::digest("a cat").into(),
        length: 5,
        content_type: Some("image/png".to_owned()),
        filename: Some("cat.png".to_owned()),
        created_ts: now(),
    };
    let vector = description.sign(identity.server_name(), &verify_key());
    let read = MediaDescription::verify(&vector, &description.mxc, &keys).unwrap();
    assert!(read == description && read.describes(b"a cat"));
    assert!(DOC.lines().any(|line| line == vector), "docs/wire.md lacks\n{vector}");
    assert!(DOC.contains(MEDIA_PATH) && DOC.contains(DESCRIPTION_PATH));
    assert!(MEDIA_ENDPOINT.starts_with(MEDIA_PATH));
    assert!(DESCRIPTION_ENDPOINT.starts_with(DESCRIPTION_PATH));
}

#[test]
fn the_limits_are_those_of_the_document() {
    for (name, limit) in [
        ("MAX_PDU_BYTES", MAX_PDU_BYTES),
        ("MAX_ID_BYTES", MAX_ID_BYTES),
        ("MAX_PREV_EVENTS", MAX_PREV_EVENTS),
        ("MAX_AUTH_EVENTS", MAX_AUTH_EVENTS),
        ("MAX_PDUS", MAX_PDUS),
        ("MAX_EDUS", MAX_EDUS),
        ("MAX_JSON_DEPTH", MAX_JSON_DEPTH),
        ("ENVELOPE_DEPTH", ENVELOPE_DEPTH),
        ("MAX_FRAME_BYTES", MAX_FRAME_BYTES),
        ("SEALED_OVERHEAD_BYTES", SEALED_OVERHEAD_BYTES),
        ("MAX_SEALED_FRAME_BYTES", MAX_SEALED_FRAME_BYTES),
        ("MAX_ROOM_KEYS_ASKED", MAX_ROOM_KEYS_ASKED),
        ("MAX_ROOM_KEY_AFTER", MAX_ROOM_KEY_AFTER),
        ("MAX_FRAME_SERVER_KEYS", MAX_FRAME_SERVER_KEYS),
        ("MAX_SERVER_KEYS_BYTES", MAX_SERVER_KEYS_BYTES),
        ("MAX_VERIFY_KEYS", MAX_VERIFY_KEYS),
        ("MAX_OLD_VERIFY_KEYS", MAX_OLD_VERIFY_KEYS),
        ("MAX_PEER_IDS", MAX_PEER_IDS),
        ("MAX_AUTHORIZATION_BYTES", MAX_AUTHORIZATION_BYTES),
        ("MAX_URI_BYTES", MAX_URI_BYTES),
        ("MAX_DIGEST_ROOMS", MAX_DIGEST_ROOMS),
        ("MAX_HEADS_ROOMS", MAX_HEADS_ROOMS),
        ("MAX_HEADS_PER_ROOM", MAX_HEADS_PER_ROOM),
        ("MAX_MEDIA_TEXT_BYTES", MAX_MEDIA_TEXT_BYTES),
        ("MAX_MEDIA_DESCRIPTION_BYTES", MAX_MEDIA_DESCRIPTION_BYTES),
        ("PARTS", PARTS),
        ("MAX_LISTED_ROOMS", MAX_LISTED_ROOMS),
        ("MAX_RECORDS", MAX_RECORDS),
        ("MAX_RECORD_BYTES", MAX_RECORD_BYTES),
        ("MAX_RELAYED_REQUEST_BYTES", MAX_RELAYED_REQUEST_BYTES),
        ("MAX_RELAYED_ANSWER_BYTES", MAX_RELAYED_ANSWER_BYTES),
        ("MAX_REPLAY_PER_ORIGIN", MAX_REPLAY_PER_ORIGIN),
        ("MAX_REPLAY_ORIGINS", MAX_REPLAY_ORIGINS),
        ("SERVER_KEYS_VALIDITY_MS", usize::try_from(SERVER_KEYS_VALIDITY_MS).unwrap()),
        ("SERVER_KEYS_RENEWAL_MS", usize::try_from(SERVER_KEYS_RENEWAL_MS).unwrap()),
        ("CLOCK_GRACE_MS", usize::try_from(CLOCK_GRACE_MS).unwrap()),
        ("FRESHNESS_MS", usize::try_from(FRESHNESS_MS).unwrap()),
    ] {
        let row = format!("| `{name}` | {limit} |");
        assert!(DOC.lines().any(|line| line.starts_with(&row)), "docs/wire.md lacks\n{row}");
    }
    assert!(DOC.contains(RELAY_PATH) && DOC.contains(RELAYED_PATH));
    assert!(DOC.contains(HEADS_PATH) && DOC.to_lowercase().contains(SERVER_KEYS_HEADER));
}
