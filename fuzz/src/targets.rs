//! The targets: each takes any bytes, holds what must hold of them, and says what became of them.

#![expect(clippy::expect_used, reason = "what a target expects is what it tests")]

use std::fmt::Display;

use libp2p::core::{PeerRecord, SignedEnvelope};
use messagehub_protocol::{
    canonical::{canonicalize, is_canonical, parse_object, to_canonical},
    identity::ServerKey,
    keys::{IdentityKey, VerifyKey},
    pdu::{Pdu, RawPdu},
    rules::{list_supported, rules_of},
    server_keys::{ServerKeys, ServerKeysTerms},
    wire::{
        frame::Frame,
        heads::{HeadsRequest, HeadsResponse},
        media::MediaDescription,
        relayed::{InnerAnswer, InnerRequest, SealedRequest},
        request::{RequestSignature, read_server_keys_header},
        room_keys::{RoomKeysRequest, RoomKeysResponse},
        sealed::{NONCE_BYTES, ROOM_KEY_BYTES, RoomKey, SealedFrame},
    },
};
use ruma::{
    CanonicalJsonValue, MilliSecondsSinceUnixEpoch, RoomVersionId, ServerName, UInt, room_id,
    server_name,
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// A decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its corpus and of its libFuzzer binary.
    pub name: &'static str,
    /// Takes an input, and says what became of it.
    pub run: fn(&[u8]) -> String,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "server_name", run: server_name },
    Target { name: "server_keys", run: server_keys },
    Target { name: "canonical_json", run: canonical_json },
    Target { name: "frame", run: frame },
    Target { name: "sealed_frame", run: sealed_frame },
    Target { name: "room_keys", run: room_keys },
    Target { name: "relayed", run: relayed },
    Target { name: "media_description", run: media_description },
    Target { name: "peer_record", run: peer_record },
    Target { name: "x_matrix_header", run: x_matrix_header },
    Target { name: "heads", run: heads },
    Target { name: "pdu", run: pdu },
];

/// The one frame that was signed by somebody.
const SIGNED_FRAME: &[u8] = include_bytes!("../corpus/frame/valid");

/// That frame, sealed.
const SEALED_FRAME: &[u8] = include_bytes!("../corpus/sealed_frame/valid");

/// The one request that was sealed to a server.
const RELAYED: &[u8] = include_bytes!("../corpus/relayed/sealed");

/// The one description that was signed.
const DESCRIPTION: &str = include_str!("../corpus/media_description/valid");

/// The one peer record that was signed.
const RECORD: &[u8] = include_bytes!("../corpus/peer_record/valid");

/// Canonical JSON: reading and writing, the scan, and ruma's own writer agree.
pub fn canonical_json(json: &[u8]) -> String {
    let object = match parse_object(json) {
        Ok(object) => object,
        Err(error) => {
            assert!(!is_canonical(json));
            return refused(&error);
        }
    };
    let form = to_canonical(&object);
    assert!(is_canonical(form.as_bytes()));
    assert_eq!(is_canonical(json), form.as_bytes() == json);
    assert_eq!(parse_object(form.as_bytes()).ok().as_ref(), Some(&object));
    assert_eq!(canonicalize(json).ok().as_deref(), Some(form.as_str()));
    let fields = object.len();
    assert_eq!(CanonicalJsonValue::Object(object).to_string(), form);
    format!("an object of {} fields", fields.min(20))
}

/// Gossip frames. Only the one of the corpus was signed by somebody, so nothing else may open.
pub fn frame(bytes: &[u8]) -> String {
    let opened = Frame::open(bytes, now());
    assert_eq!(opened.is_ok(), bytes == SIGNED_FRAME);
    ended(opened.map(|_| "opened"))
}

/// Sealed frames. Only the one of the corpus was sealed with this key, so nothing else may open.
pub fn sealed_frame(bytes: &[u8]) -> String {
    let room_id = room_id!("!room:example.org");
    let secret = Zeroizing::new([4; ROOM_KEY_BYTES]);
    let key = RoomKey::new(owner().to_owned(), room_id, secret, Vec::new());
    let opened = SealedFrame::parse(bytes).and_then(|sealed| sealed.open(room_id, &key));
    assert_eq!(opened.is_ok(), bytes == SEALED_FRAME);
    // The other way round: whatever is sealed is what is opened. Sealing much takes its time.
    if bytes.len() <= 256
        && let Ok(sealed) = key.seal(room_id, [6; NONCE_BYTES], bytes)
    {
        let read = SealedFrame::parse(&sealed).and_then(|sealed| sealed.open(room_id, &key));
        assert_eq!(read.as_deref(), Ok(bytes));
    }
    ended(opened.map(|_| "opened"))
}

/// Questions for room keys, and answers: what was not asked for is not taken.
pub fn room_keys(json: &[u8]) -> String {
    let request = RoomKeysRequest::parse(json);
    if let Ok(request) = &request {
        let again = serde_json::to_vec(&request).expect("what was read can be written");
        assert_eq!(RoomKeysRequest::parse(&again).ok().as_ref(), Some(request));
    }
    let room_id = room_id!("!room:example.org");
    let secret = Zeroizing::new([4; ROOM_KEY_BYTES]);
    let asked = RoomKey::new(owner().to_owned(), room_id, secret, Vec::new()).id();
    let asked = RoomKeysRequest { room_id: room_id.to_owned(), key_ids: vec![asked] };
    let response = RoomKeysResponse::parse(json, &asked);
    if let Ok(response) = &response {
        assert!(response.keys.iter().all(|key| asked.key_ids == [key.id()]));
        let again = serde_json::to_vec(&response).expect("what was read can be written");
        let again = RoomKeysResponse::parse(&again, &asked).expect("what was written can be read");
        assert_eq!(again.keys.len(), response.keys.len());
    }
    let (request, response) = (request.map(|_| "read"), response.map(|_| "read"));
    format!("request {}, answer {}", ended(request), ended(response))
}

/// Requests that another server carries, what is sealed in them, and the answers. Only the request
/// of the corpus was sealed to this key, so nothing else may open.
pub fn relayed(json: &[u8]) -> String {
    let sealed = SealedRequest::parse(json);
    let (us, key) = (IdentityKey::from_seed(&[3; 32]), VerifyKey::from_seed(&[4; 32]));
    let opened = sealed.and_then(|sealed| sealed.open(us.server_name(), &key).map(|_| sealed));
    if let Ok(opened) = &opened {
        let corpus = SealedRequest::parse(RELAYED).expect("the corpus is a sealed request");
        assert_eq!(opened.sealed, corpus.sealed);
    }
    let request = serde_json::from_slice::<InnerRequest>(json);
    if let Ok(request) = &request {
        let again = serde_json::to_vec(request).expect("what was read can be written");
        assert!(serde_json::from_slice::<InnerRequest>(&again).is_ok());
    }
    let answer = serde_json::from_slice::<InnerAnswer>(json);
    if let Ok(answer) = &answer {
        let again = serde_json::to_vec(answer).expect("what was read can be written");
        assert!(serde_json::from_slice::<InnerAnswer>(&again).is_ok());
    }
    let (request, answer) = (request.map(|_| "read"), answer.map(|_| "read"));
    let opened = ended(opened.map(|_| "opened"));
    format!("{opened}, inner request {}, inner answer {}", ended(request), ended(answer))
}

/// What a server says of a file. Only that of the corpus was signed, so nothing else may count, but
/// for white space and the order of keys.
pub fn media_description(json: &[u8]) -> String {
    let Ok(json) = str::from_utf8(json) else { return "no text".to_owned() };
    let terms =
        ServerKeysTerms { old_verify_keys: Vec::new(), peer_ids: Vec::new(), issued_ts: now() };
    let (identity, key) = (IdentityKey::from_seed(&[1; 32]), VerifyKey::from_seed(&[2; 32]));
    let keys = ServerKeys::make(&identity, &key, terms);
    let mxc = format!("mxc://{}/file", owner());
    let verified = MediaDescription::verify(json, &mxc, &keys);
    if let Ok(description) = &verified {
        let corpus = MediaDescription::verify(DESCRIPTION, &mxc, &keys);
        assert_eq!(corpus.ok().as_ref(), Some(description));
    }
    ended(verified.map(|_| "verified"))
}

/// The signed record of where a peer is. Only that of the corpus was signed by anybody.
pub fn peer_record(bytes: &[u8]) -> String {
    let envelope = match SignedEnvelope::from_protobuf_encoding(bytes) {
        Ok(envelope) => envelope,
        Err(error) => return refused(&error),
    };
    let record = PeerRecord::from_signed_envelope_interop(envelope);
    if let Ok(record) = &record {
        let signed = SignedEnvelope::from_protobuf_encoding(RECORD).expect("the corpus has one");
        let signed = PeerRecord::from_signed_envelope_interop(signed).expect("a record");
        assert_eq!((record.peer_id(), record.seq()), (signed.peer_id(), signed.seq()));
        assert_eq!(record.addresses(), signed.addresses());
    }
    ended(record.map(|_| "verified"))
}

/// Heads requests and answers.
pub fn heads(json: &[u8]) -> String {
    let request = HeadsRequest::parse(json);
    if let Ok(request) = &request {
        let again = serde_json::to_vec(request).expect("what was read can be written");
        assert_eq!(HeadsRequest::parse(&again).ok().as_ref(), Some(request));
    }
    let response = HeadsResponse::parse(json);
    if let Ok(response) = &response {
        let again = serde_json::to_vec(response).expect("what was read can be written");
        assert_eq!(HeadsResponse::parse(&again).ok().as_ref(), Some(response));
    }
    let (request, response) = (request.map(|_| "read"), response.map(|_| "read"));
    format!("request {}, answer {}", ended(request), ended(response))
}

/// Events of every room version, up to where their signers' keys are needed.
pub fn pdu(json: &[u8]) -> String {
    let raw = str::from_utf8(json).ok().map(|json| RawValue::from_string(json.to_owned()));
    let Some(Ok(raw)) = raw else { return "no JSON".to_owned() };
    list_supported().map(|version| pdu_of(&raw, version)).collect::<Vec<_>>().join(", ")
}

fn pdu_of(raw: &RawValue, version: &RoomVersionId) -> String {
    let rules = rules_of(version).expect("a supported version has rules");
    let event = match RawPdu::new(raw.to_owned()).well_formed(rules) {
        Ok(event) => event,
        Err(error) => return refused(&error),
    };
    let signers = event.required_signers().len();
    let (id, json) = (event.pdu().event_id().to_owned(), event.pdu().json().to_owned());
    // What is stored is read again as the same event.
    let again = RawValue::from_string(json.clone()).expect("an event is JSON");
    let again = RawPdu::new(again).well_formed(rules).expect("an event stays well-formed");
    assert_eq!(again.pdu().event_id(), id);
    let trusted = Pdu::from_trusted(json, id, rules).expect("an event can be stored");
    assert_eq!(trusted.room_id(), event.pdu().room_id());
    format!("an event of {signers}")
}

/// `server_keys`: what is verified is read again from its own canonical form.
pub fn server_keys(json: &[u8]) -> String {
    let Ok(json) = str::from_utf8(json) else { return "no text".to_owned() };
    let verified = ServerKeys::verify(json);
    if let Ok(keys) = &verified {
        assert_eq!(ServerKeys::verify(keys.json().get()).ok().as_ref(), Some(keys));
    }
    ended(verified.map(|_| "verified"))
}

/// Server names: what is read as a key has one spelling.
pub fn server_name(text: &[u8]) -> String {
    let Ok(name) = <&ServerName>::try_from(&*String::from_utf8_lossy(text)).map(ToOwned::to_owned)
    else {
        return "no name".to_owned();
    };
    let key = ServerKey::try_from(&*name);
    if let Ok(key) = &key {
        assert_eq!(key.server_name(), name);
    }
    ended(key.map(|_| "a key"))
}

/// The `Authorization` and `X-Matrix-Server-Keys` headers.
pub fn x_matrix_header(header: &[u8]) -> String {
    let Ok(header) = str::from_utf8(header) else { return "no text".to_owned() };
    let signature = RequestSignature::parse(header);
    if let Ok(signature) = &signature {
        let again = RequestSignature::parse(&signature.header_value());
        assert_eq!(again.ok().as_ref(), Some(signature));
    }
    let keys = read_server_keys_header(header, server_name!("example.org"), None);
    let (signature, keys) = (signature.map(|_| "read"), keys.map(|_| "read"));
    format!("signature {}, keys {}", ended(signature), ended(keys))
}

/// The time at which the frame of the corpus, which is the one of `docs/wire.md`, was made.
fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::new_saturating(1_750_000_000_000))
}

/// The server that signed and sealed that frame.
fn owner() -> &'static ServerName {
    server_name!("bahwqcabarkeohxlubhyzl7ks3mwtzos5olfgocn7dwkbeg7toseadnapn5oa")
}

fn ended<E: Display>(outcome: Result<&str, E>) -> String {
    match outcome {
        Ok(end) => end.to_owned(),
        Err(error) => refused(&error),
    }
}

/// The words of a refusal, without what differs from input to input.
fn refused(error: &dyn Display) -> String {
    const WORDS: usize = 3;
    let text = error.to_string();
    let words = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    words.take(WORDS).collect::<Vec<_>>().join(" ")
}
