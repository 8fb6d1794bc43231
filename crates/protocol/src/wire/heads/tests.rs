use proptest::prelude::*;
use ruma::{event_id, room_id};
use serde_json::json;

use super::*;

#[test]
fn a_digest_is_of_the_set() {
    let (a, b) = (event_id!("$a"), event_id!("$b"));
    assert_eq!(room_digest([a, b]), room_digest([b, a, b]));
    assert_ne!(room_digest([a, b]), room_digest([a]));
    assert_ne!(room_digest([]), room_digest([a]));
    assert_ne!(
        room_digest([event_id!("$a"), event_id!("$b$c")]),
        room_digest([event_id!("$a$b"), event_id!("$c")])
    );
    let (x, y) = ((room_id!("!x"), room_digest([a])), (room_id!("!y"), room_digest([b])));
    assert_eq!(total_digest([x, y]), total_digest([y, x]));
    assert_ne!(total_digest([x, y]), total_digest([x]));
    assert_ne!(total_digest([(x.0, y.1), (y.0, x.1)]), total_digest([x, y]));
}

#[test]
fn requests_and_answers_are_read_back() {
    let digest = room_digest([event_id!("$a")]);
    let heads = RoomHeads::from([(room_id!("!x").to_owned(), vec![event_id!("$a").to_owned()])]);
    let request = HeadsRequest { digest: Some(digest), heads: heads.clone() };
    let json = serde_json::to_vec(&request).unwrap();
    assert_eq!(HeadsRequest::parse(&json).unwrap(), request);
    let rooms = BTreeMap::from([(room_id!("!x").to_owned(), digest)]);
    let response = HeadsResponse { digest: Some(digest), rooms, heads };
    let json = serde_json::to_vec(&response).unwrap();
    assert_eq!(HeadsResponse::parse(&json).unwrap(), response);
    assert_eq!(HeadsRequest::parse(b"{}").unwrap(), HeadsRequest::default());
    assert_eq!(serde_json::to_string(&HeadsResponse::default()).unwrap(), "{}");
}

#[test]
fn the_bounds_hold() {
    let rooms = |count: usize| -> serde_json::Map<_, _> {
        (0..count).map(|n| (format!("!{n}"), json!(["$a"]))).collect()
    };
    let events = |count: usize| json!({"heads": {"!x": vec!["$a"; count]}}).to_string();
    let request = |json: String| HeadsRequest::parse(json.as_bytes());
    assert!(request(json!({"heads": rooms(100)}).to_string()).is_ok());
    assert!(request(json!({"heads": rooms(101)}).to_string()).is_err());
    assert!(request(events(20)).is_ok());
    assert!(request(events(21)).is_err());
    assert!(HeadsResponse::parse(events(21).as_bytes()).is_err());
    let digests: serde_json::Map<_, _> =
        (0..=5_000).map(|n| (format!("!{n}"), json!("AAAAAAAAAAAAAAAAAAAAAA"))).collect();
    assert!(HeadsResponse::parse(json!({"rooms": digests}).to_string().as_bytes()).is_err());
}

#[test]
fn other_forms_are_refused() {
    for json in [
        r#"{"digest":""}"#,
        r#"{"digest":"AAAAAAAAAAAAAAAAAAAAAB"}"#,
        r#"{"digest":"AAAAAAAAAAAAAAAAAAAAAA=="}"#,
        r#"{"heads":{"x":["$a"]}}"#,
        r#"{"heads":{"!x":["a"]}}"#,
        r#"{"heads":[]}"#,
        "[",
    ] {
        assert!(HeadsRequest::parse(json.as_bytes()).is_err(), "{json}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = HeadsRequest::parse(&bytes);
        let _ = HeadsResponse::parse(&bytes);
    }
}
