//! Rooms through the real router: which status and `errcode` a client sees.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use axum::{Router, body::Body};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use messagehub_homeserver::testing::TestServer;
use serde_json::{Value, json};
use tower::ServiceExt;

/// Whose token, method and path, body, and the status and `errcode` that are the answer.
type Refusal<'a> = (&'a str, (&'a str, &'a str), &'a str, (u16, &'a str));

const CLIENT: &str = "/_matrix/client/v3";

struct Api {
    router: Router,
    server: TestServer,
}

impl Api {
    fn new() -> Self {
        let server = TestServer::new(31);
        let router = messagehub_api::client::router(server.hs.clone());
        Self { router, server }
    }

    async fn register(&self, name: &str) -> String {
        let body = json!({
            "username": name, "password": "secret", "auth": { "type": "m.login.dummy" },
        });
        let (_, answer) = self.ask("", ("POST", "/register"), &body.to_string()).await;
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn ask(
        &self,
        token: &str,
        (method, path): (&str, &str),
        body: &str,
    ) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{CLIENT}{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn ok(&self, token: &str, request: (&str, &str), body: Value) -> Value {
        let (status, answer) = self.ask(token, request, &body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{request:?}: {answer}");
        answer
    }

    /// The status and the `errcode` of a refusal.
    async fn refused(&self, token: &str, request: (&str, &str), body: &str) -> (u16, String) {
        let (status, answer) = self.ask(token, request, body).await;
        assert!(!status.is_success(), "{request:?} succeeded");
        (status.as_u16(), answer["errcode"].as_str().unwrap_or_default().to_owned())
    }

    async fn room(&self, token: &str, body: Value) -> String {
        let answer = self.ok(token, ("POST", "/createRoom"), body).await;
        answer["room_id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn two_people_talk() {
    let api = Api::new();
    let (ann, ben) = (api.register("ann").await, api.register("ben").await);
    let ben_id = api.server.user_id("ben");
    let body = json!({ "preset": "private_chat", "name": "Us", "invite": [ben_id] });
    let room = api.room(&ann, body).await;
    api.ok(&ben, ("POST", &format!("/join/{room}")), json!({})).await;
    let send = format!("/rooms/{room}/send/m.room.message/1");
    let text = json!({ "msgtype": "m.text", "body": "hello" });
    let sent = api.ok(&ann, ("PUT", &send), text.clone()).await;
    assert_eq!(api.ok(&ann, ("PUT", &send), text).await, sent);
    let id = sent["event_id"].as_str().unwrap();
    let event = api.ok(&ben, ("GET", &format!("/rooms/{room}/event/{id}")), json!({})).await;
    assert_eq!(event["content"]["body"], "hello");
    assert_eq!(event["room_id"], room.as_str());
    let redact = format!("/rooms/{room}/redact/{id}/2");
    api.ok(&ann, ("PUT", &redact), json!({ "reason": "oops" })).await;
    let event = api.ok(&ben, ("GET", &format!("/rooms/{room}/event/{id}")), json!({})).await;
    assert_eq!(event["content"], json!({}));
    let topic = format!("/rooms/{room}/state/m.room.topic");
    api.ok(&ann, ("PUT", &topic), json!({ "topic": "T" })).await;
    assert_eq!(api.ok(&ben, ("GET", &topic), json!({})).await["topic"], "T");
    let whole = api.ok(&ben, ("GET", &format!("{topic}/?format=event")), json!({})).await;
    assert_eq!((&whole["type"], &whole["state_key"]), (&json!("m.room.topic"), &json!("")));
    let state = api.ok(&ben, ("GET", &format!("/rooms/{room}/state")), json!({})).await;
    assert!(state.as_array().unwrap().len() > 7);
    let members = api.ok(&ben, ("GET", &format!("/rooms/{room}/joined_members")), json!({})).await;
    assert_eq!(members["joined"].as_object().unwrap().len(), 2);
    assert_eq!(
        api.ok(&ben, ("GET", "/joined_rooms"), json!({})).await["joined_rooms"],
        json!([room])
    );
    for action in ["ban", "unban"] {
        let path = format!("/rooms/{room}/{action}");
        api.ok(&ann, ("POST", &path), json!({ "user_id": ben_id })).await;
    }
    api.ok(&ben, ("POST", &format!("/rooms/{room}/forget")), json!({})).await;
    api.ok(&ann, ("POST", &format!("/rooms/{room}/leave")), json!({})).await;
}

#[tokio::test]
async fn bad_rooms_are_refused_with_the_codes_of_the_specification() {
    let api = Api::new();
    let ann = api.register("ann").await;
    api.room(&ann, json!({ "room_alias_name": "taken" })).await;
    for (body, status, errcode) in [
        ("{", 400, "M_NOT_JSON"),
        ("[]", 400, "M_BAD_JSON"),
        (r#"{"invite": "ben"}"#, 400, "M_BAD_JSON"),
        (r#"{"invite": ["ben"]}"#, 400, "M_BAD_JSON"),
        (r#"{"room_version": "99"}"#, 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (r#"{"room_version": "1"}"#, 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (r#"{"room_alias_name": "taken"}"#, 400, "M_ROOM_IN_USE"),
        (r#"{"room_alias_name": "a:b"}"#, 400, "M_INVALID_PARAM"),
        (r#"{"initial_state": [{"type": "a", "content": {"n": 1.5}}]}"#, 400, "M_BAD_JSON"),
        (r#"{"initial_state": [{"type": "a"}]}"#, 400, "M_BAD_JSON"),
    ] {
        let refused = api.refused(&ann, ("POST", "/createRoom"), body).await;
        assert_eq!(refused, (status, errcode.to_owned()), "{body}");
    }
    let refused = api.refused("wrong", ("POST", "/createRoom"), "{}").await;
    assert_eq!(refused, (401, "M_UNKNOWN_TOKEN".to_owned()));
}

#[tokio::test]
async fn bad_requests_to_a_room_are_refused() {
    let api = Api::new();
    let (ann, ben) = (api.register("ann").await, api.register("ben").await);
    let ben_id = api.server.user_id("ben");
    let room = api.room(&ann, json!({})).await;
    let unknown = "!unknown:example.org";
    let send = format!("/rooms/{room}/send/m.room.message");
    let large = json!({ "body": "x".repeat(66_000) }).to_string();
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    let long_type = format!("/rooms/{room}/send/{}/1", "x".repeat(300));
    let kick = format!("/rooms/{room}/kick");
    let user = json!({ "user_id": ben_id }).to_string();
    let alias = format!("/directory/room/%23a:{}", api.server.hs.server_name());
    let of_room = json!({ "room_id": room }).to_string();
    let (upgrade, listed) =
        (format!("/rooms/{room}/upgrade"), format!("/directory/list/room/{room}"));
    let cases: &[Refusal<'_>] = &[
        (&ann, ("PUT", &format!("{send}/1")), &large, (413, "M_TOO_LARGE")),
        (&ann, ("PUT", &format!("{send}/1")), "nonsense", (400, "M_NOT_JSON")),
        (&ann, ("PUT", &format!("{send}/1")), "[]", (400, "M_BAD_JSON")),
        (&ann, ("PUT", &format!("{send}/1")), r#"{"a":0.1}"#, (400, "M_BAD_JSON")),
        (&ann, ("PUT", &format!("{send}/1")), r#"{"a":9007199254740992}"#, (400, "M_BAD_JSON")),
        (&ann, ("PUT", &format!("{send}/1")), &deep, (400, "M_BAD_JSON")),
        (&ann, ("PUT", &long_type), "{}", (400, "M_BAD_JSON")),
        (&ben, ("PUT", &format!("{send}/1")), "{}", (403, "M_FORBIDDEN")),
        (&ann, ("PUT", &format!("/rooms/{unknown}/send/a/1")), "{}", (403, "M_FORBIDDEN")),
        (&ann, ("PUT", &format!("/rooms/{room}/redact/$no/1")), "{}", (404, "M_NOT_FOUND")),
        (&ann, ("PUT", &format!("/rooms/{room}/state/m.room.create")), "{}", (403, "M_FORBIDDEN")),
        (&ann, ("GET", &format!("/rooms/{room}/state/m.nothing")), "", (404, "M_NOT_FOUND")),
        (&ben, ("GET", &format!("/rooms/{room}/state")), "", (403, "M_FORBIDDEN")),
        (&ben, ("GET", &format!("/rooms/{room}/joined_members")), "", (403, "M_FORBIDDEN")),
        (&ann, ("GET", &format!("/rooms/{room}/event/$no")), "", (404, "M_NOT_FOUND")),
        (&ben, ("POST", &format!("/join/{room}")), "{}", (403, "M_FORBIDDEN")),
        (&ben, ("POST", &format!("/rooms/{unknown}/leave")), "{}", (404, "M_NOT_FOUND")),
        (&ben, ("POST", "/join/%23no:example.org"), "{}", (404, "M_NOT_FOUND")),
        (&ann, ("POST", &kick), &user, (403, "M_FORBIDDEN")),
        (&ann, ("POST", &kick), "{}", (400, "M_BAD_JSON")),
        (&ann, ("POST", &format!("/rooms/{room}/forget")), "{}", (400, "M_UNKNOWN")),
        (&ben, ("PUT", &alias), &of_room, (403, "M_FORBIDDEN")),
        (&ann, ("GET", &alias), "", (404, "M_NOT_FOUND")),
        (&ben, ("POST", &format!("/knock/{room}")), "{}", (403, "M_FORBIDDEN")),
        (
            &ben,
            ("POST", "/knock/!bm8tc3VjaC1yb29tLW5vLXN1Y2gtcm9vbS1ubw"),
            "{}",
            (404, "M_NOT_FOUND"),
        ),
        (&ben, ("POST", &upgrade), r#"{"new_version":"12"}"#, (403, "M_FORBIDDEN")),
        (&ann, ("POST", &upgrade), r#"{"new_version":"odd"}"#, (400, "M_UNSUPPORTED_ROOM_VERSION")),
        (&ben, ("PUT", &listed), r#"{"visibility":"public"}"#, (403, "M_FORBIDDEN")),
        (&ben, ("GET", "/directory/list/room/!no:example.org"), "", (404, "M_NOT_FOUND")),
        (&ben, ("GET", "/publicRooms?since=x"), "", (400, "M_INVALID_PARAM")),
        (
            &ann,
            ("PUT", &format!("/user/{ben_id}/rooms/{room}/tags/u.x")),
            "{}",
            (403, "M_FORBIDDEN"),
        ),
        (&ann, ("POST", &format!("/rooms/{room}/nothing")), "{}", (404, "M_UNRECOGNIZED")),
    ];
    let position = api.server.hs.store.position();
    for (token, request, body, (status, errcode)) in cases {
        let refused = api.refused(token, *request, body).await;
        assert_eq!(refused, (*status, (*errcode).to_owned()), "{request:?}");
    }
    assert_eq!(api.server.hs.store.position(), position, "something was stored");
}
