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
    let records = vec![Record(vec![0, 255])];
    let request = HeadsRequest {
        digest: Some(digest),
        parts: vec![0, 63],
        heads: heads.clone(),
        records: records.clone(),
    };
    let json = serde_json::to_vec(&request).unwrap();
    assert_eq!(HeadsRequest::parse(&json).unwrap(), request);
    let rooms = BTreeMap::from([(room_id!("!x").to_owned(), digest)]);
    let parts = part_digests([(room_id!("!x"), digest)]);
    let response = HeadsResponse { digest: Some(digest), parts, rooms, heads, records };
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
    let records = |count: usize, bytes: usize| {
        json!({"records": vec![BASE64_NOPAD.encode(&vec![0; bytes]); count]}).to_string()
    };
    assert!(request(records(64, 1024)).is_ok());
    assert!(request(records(65, 1)).is_err());
    assert!(request(records(1, 1025)).is_err());
    assert!(HeadsResponse::parse(records(65, 1).as_bytes()).is_err());
    assert!(request(json!({"parts": vec![0; 65]}).to_string()).is_err());
    assert!(
        HeadsResponse::parse(
            json!({"parts": vec!["AAAAAAAAAAAAAAAAAAAAAA"; 65]}).to_string().as_bytes()
        )
        .is_err()
    );
    let digests: serde_json::Map<_, _> =
        (0..=5_000).map(|n| (format!("!{n}"), json!("AAAAAAAAAAAAAAAAAAAAAA"))).collect();
    assert!(HeadsResponse::parse(json!({"rooms": digests}).to_string().as_bytes()).is_err());
}

#[test]
fn a_room_changes_the_digest_of_its_part_alone() {
    let ids: Vec<ruma::OwnedRoomId> =
        (0..500).map(|n| format!("!{n}").try_into().unwrap()).collect();
    let of = |event: &'static str| {
        let digest = room_digest([<&EventId>::try_from(event).unwrap()]);
        move |id| (id, digest)
    };
    let before = part_digests(ids.iter().map(|id| &**id).map(of("$a")));
    assert_eq!(before.len(), PARTS);
    assert!(ids.iter().all(|id| usize::from(part_of(id)) < PARTS));
    let rooms = ids.iter().map(|id| &**id).map(of("$a")).filter(|(id, _)| *id != &*ids[7]);
    let after = part_digests(rooms.chain([of("$b")(&*ids[7])]));
    let changed: Vec<_> = (0..PARTS).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(changed, [usize::from(part_of(&ids[7]))]);
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
        r#"{"parts":[256]}"#,
        r#"{"records":["A"]}"#,
        r#"{"records":["AA=="]}"#,
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
