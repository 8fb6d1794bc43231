//! Bad input from clients: the specification's error, nothing written, and the node serves on.

use e2e::{
    http::{Caller, escape},
    node::Node,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Status and `errcode` of an answer.
async fn error(caller: &Caller, method: Method, path: &str, body: Vec<u8>) -> (u16, String) {
    let answer = caller.raw(method, path, body).await.expect("an answer");
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or_default();
    (status, body["errcode"].as_str().unwrap_or_default().to_owned())
}

fn nested(depth: usize) -> Vec<u8> {
    let mut json = br#"{"msgtype":"m.text","body":"x","deep":"#.to_vec();
    json.extend(std::iter::repeat_n(b'[', depth));
    json.extend(std::iter::repeat_n(b']', depth));
    json.push(b'}');
    json
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_clear_error_and_writes_nothing() {
    let node = Node::local(&["--registration", "open"]).await;
    let address = node.client_address();
    let anna = Caller::register(address, "anna").await;
    let room_id = anna.create_room(json!({})).await;
    let room = escape(&room_id);
    let send = |n: usize| format!("/rooms/{room}/send/m.room.message/bad{n}");
    let before = state_of(&anna, &room).await;

    let long = "x".repeat(300);
    let bodies: Vec<(Vec<u8>, u16, &str)> = vec![
        (b"{".to_vec(), 400, "M_NOT_JSON"),
        (b"not json".to_vec(), 400, "M_NOT_JSON"),
        (b"\xff\xfe{}".to_vec(), 400, "M_NOT_JSON"),
        (b"{\"body\":\"\xff\"}".to_vec(), 400, "M_NOT_JSON"),
        (b"[]".to_vec(), 400, "M_BAD_JSON"),
        (br#"{"n":1.5}"#.to_vec(), 400, "M_BAD_JSON"),
        (br#"{"n":9007199254740993}"#.to_vec(), 400, "M_BAD_JSON"),
        (nested(5_000), 400, "M_BAD_JSON"),
        (nested(120), 400, "M_BAD_JSON"),
        (big(70_000), 413, "M_TOO_LARGE"),
        (big(3_000_000), 413, "M_TOO_LARGE"),
    ];
    for (number, (body, status, errcode)) in bodies.into_iter().enumerate() {
        let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let got = error(&anna, Method::PUT, &send(number), body).await;
        assert_eq!(got, (status, errcode.to_owned()), "{start}");
    }

    let text = br#"{"msgtype":"m.text","body":"x"}"#.to_vec();
    let unknown_room = format!("/rooms/{}/send/m.room.message/1", escape("!nowhere:x"));
    let got = error(&anna, Method::PUT, &unknown_room, text.clone()).await;
    assert_eq!(got, (403, "M_FORBIDDEN".to_owned()));
    let no_room = "/rooms/nonsense/send/m.room.message/1";
    assert_eq!(error(&anna, Method::PUT, no_room, text.clone()).await.0, 400);
    let long_type = format!("/rooms/{room}/send/{long}/1");
    assert_eq!(error(&anna, Method::PUT, &long_type, text.clone()).await.0, 400);
    let long_key = format!("/rooms/{room}/state/m.x/{long}");
    assert_eq!(error(&anna, Method::PUT, &long_key, b"{}".to_vec()).await.0, 400);
    let wrong_type = br#"{"name": 7, "invite": "nobody"}"#.to_vec();
    let got = error(&anna, Method::POST, "/createRoom", wrong_type).await;
    assert_eq!(got, (400, "M_BAD_JSON".to_owned()));

    let bob = Caller::register(address, "bob").await;
    let got = error(&bob, Method::PUT, &send(100), text.clone()).await;
    assert_eq!(got, (403, "M_FORBIDDEN".to_owned()));
    let stranger = anna.with_token("syt_nobody_ever_gave_this");
    let got = error(&stranger, Method::PUT, &send(101), text).await;
    assert_eq!(got, (401, "M_UNKNOWN_TOKEN".to_owned()));
    let got = error(&anna.with_token(""), Method::GET, "/sync", Vec::new()).await;
    assert_eq!(got, (401, "M_MISSING_TOKEN".to_owned()));

    assert_eq!(state_of(&anna, &room).await, before, "nothing was written");
    assert!(anna.history(&room_id).await.is_empty(), "nothing was written");
    assert!(anna.send(&room_id, "still here", "last").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_media_directory() {
    let node = Node::local(&["--registration", "open"]).await;
    let anna = Caller::register(node.client_address(), "anna").await;
    let server = node.server_name().await;
    let tricks = [
        "..%2F..%2Fidentity.key",
        "%2e%2e%2fidentity.key",
        "..",
        "identity.key",
        "%00",
        "a%2Fb",
        "..%5C..%5Cidentity.key",
    ];
    for trick in tricks {
        for download in ["/_matrix/media/v3/download", "/_matrix/client/v1/media/download"] {
            let answer = anna.get_absolute(&format!("{download}/{server}/{trick}")).await;
            let status = answer.status().as_u16();
            let text = answer.text().await.expect("a body");
            assert!((400..500).contains(&status), "{download} {trick}: {status}");
            assert!(text.contains("errcode"), "{download} {trick}: {text}");
        }
    }
}

/// The ids of a room's state events.
async fn state_of(caller: &Caller, room: &str) -> Vec<String> {
    let state = caller.ask(Method::GET, &format!("/rooms/{room}/state"), Value::Null).await;
    let state = state.expect("the state");
    let ids = state.as_array().expect("a list").iter().map(|event| event["event_id"].to_string());
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids
}

fn big(bytes: usize) -> Vec<u8> {
    json!({"msgtype": "m.text", "body": "x".repeat(bytes)}).to_string().into_bytes()
}
