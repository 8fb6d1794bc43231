//! What a client sees of what servers in a room answer when it wants in: rate limits above all.

use axum::response::IntoResponse;
use bytes::Bytes;
use http_body_util::BodyExt;
use messagehub_homeserver::rooms::knock::{self, Knock};

use super::*;
use crate::ApiError;

/// An answer of another server.
fn refusal(status: u16, body: Value) -> http::Response<Bytes> {
    let body = Bytes::from(body.to_string());
    http::Response::builder().status(status).body(body).unwrap()
}

fn limited(body_ms: Value) -> http::Response<Bytes> {
    refusal(
        429,
        json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "slowly", "retry_after_ms": body_ms }),
    )
}

/// What a client sees: status, body, and the pause in the header.
async fn seen(error: impl Into<ApiError>) -> (u16, Value, Option<String>) {
    let response = error.into().into_response();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = parts.headers.get(http::header::RETRY_AFTER);
    let header = header.map(|seconds| seconds.to_str().unwrap().to_owned());
    (parts.status.as_u16(), serde_json::from_slice(&body).unwrap(), header)
}

/// A room with this join rule and users of two nodes in it, and a third node.
async fn with_somebody_outside(
    net: &mut Net,
    join_rule: &str,
) -> ([Node; 3], Session, OwnedRoomId) {
    let nodes = [net.start(1), net.start(2), net.start(3)];
    let [a, b, c] = &nodes;
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    let room_id = shared_room(net, (a, &alice), (b, &bob)).await;
    let rule = json!({ "join_rule": join_rule });
    net.drive(set(&a.hs, &alice, &room_id, "m.room.join_rules", rule)).await;
    net.until("b knows", || async { shape(&a.hs, &room_id).await == shape(&b.hs, &room_id).await })
        .await;
    (nodes, carol, room_id)
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_asked_too_often_is_passed_over() {
    let mut net = Net::new();
    let ([a, b, c], carol, room_id) = with_somebody_outside(&mut net, "public").await;
    let via = vec![a.owned_name(), b.owned_name()];
    for part in ["/make_join/", "/send_join/"] {
        net.hub.answer_instead(a.name(), part, limited(json!(5_000)));
        net.drive(try_join(&c, &carol, &room_id, via.clone())).await.unwrap();
        until_membership(&mut net, &b, &room_id, &carol.user_id, MembershipState::Join).await;
        net.hub.answer_as_ever();
        net.drive(leave::leave(&c.hs, &carol.user_id, room_id.clone(), None)).await.unwrap();
        until_membership(&mut net, &b, &room_id, &carol.user_id, MembershipState::Leave).await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_are_asked_too_often_the_client_is_told_to_wait() {
    let mut net = Net::new();
    let ([a, b, c], carol, room_id) = with_somebody_outside(&mut net, "public").await;
    let via = vec![a.owned_name(), b.owned_name()];
    net.hub.answer_instead(a.name(), "/make_join/", limited(json!(90_000)));
    net.hub.answer_instead(b.name(), "/make_join/", limited(json!(4_500)));
    let refused = net.drive(try_join(&c, &carol, &room_id, via.clone())).await.unwrap_err();
    let (status, body, header) = seen(refused).await;
    assert_eq!((status, &body["errcode"]), (429, &json!("M_LIMIT_EXCEEDED")));
    assert_eq!((&body["retry_after_ms"], header.as_deref()), (&json!(4_500), Some("5")));

    // Nothing is known of the pause.
    net.hub.answer_as_ever();
    net.hub.answer_instead(a.name(), "/make_join/", refusal(429, json!({})));
    let only = vec![a.owned_name()];
    let refused = net.drive(try_join(&c, &carol, &room_id, only.clone())).await.unwrap_err();
    let (status, body, header) = seen(refused).await;
    assert_eq!((status, &body["errcode"]), (429, &json!("M_LIMIT_EXCEEDED")));
    assert_eq!((body.get("retry_after_ms"), header), (None, None));

    // With the join itself it is no different, and nothing stays of it.
    net.hub.answer_as_ever();
    net.hub.answer_instead(a.name(), "/send_join/", limited(json!(1_000)));
    let refused = net.drive(try_join(&c, &carol, &room_id, only)).await.unwrap_err();
    assert_eq!(seen(refused).await.0, 429);
    assert_eq!(membership(&c.hs, &room_id, &carol.user_id).await, None);

    net.hub.answer_as_ever();
    net.drive(try_join(&c, &carol, &room_id, via)).await.unwrap();
    until_membership(&mut net, &a, &room_id, &carol.user_id, MembershipState::Join).await;
}

#[tokio::test(start_paused = true)]
async fn a_knock_is_told_to_wait_as_well() {
    let mut net = Net::new();
    let ([a, b, c], carol, room_id) = with_somebody_outside(&mut net, "knock").await;
    let via = vec![a.owned_name(), b.owned_name()];
    let knock = async || {
        let knock = Knock { target: room_id.clone().into(), via: via.clone(), reason: None };
        knock::knock(&c.hs, &carol.user_id, knock).await
    };
    net.hub.answer_instead(a.name(), "_knock/", limited(json!(3_000)));
    net.hub.answer_instead(b.name(), "/send_knock/", limited(json!(2_000)));
    let refused = net.drive(knock()).await.unwrap_err();
    let (status, body, _) = seen(refused).await;
    assert_eq!((status, &body["errcode"]), (429, &json!("M_LIMIT_EXCEEDED")));
    assert_eq!(body["retry_after_ms"], 2_000);

    net.hub.answer_as_ever();
    net.hub.answer_instead(a.name(), "_knock/", limited(json!(3_000)));
    net.drive(knock()).await.unwrap();
    until_membership(&mut net, &b, &room_id, &carol.user_id, MembershipState::Knock).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_resident_says_keeps_its_meaning() {
    let mut net = Net::new();
    let ([a, b, c], carol, room_id) = with_somebody_outside(&mut net, "public").await;
    let via = vec![a.owned_name(), b.owned_name()];
    for (status, errcode, seen_status, seen_errcode) in [
        (400, "M_UNABLE_TO_AUTHORISE_JOIN", 400, "M_UNABLE_TO_AUTHORISE_JOIN"),
        (400, "M_UNABLE_TO_GRANT_JOIN", 400, "M_UNABLE_TO_GRANT_JOIN"),
        (400, "M_INCOMPATIBLE_ROOM_VERSION", 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        (403, "M_FORBIDDEN", 403, "M_FORBIDDEN"),
        (404, "M_NOT_FOUND", 404, "M_NOT_FOUND"),
        (401, "M_UNAUTHORIZED", 502, "M_UNKNOWN"),
        (500, "M_UNKNOWN", 502, "M_UNKNOWN"),
    ] {
        let answer = refusal(status, json!({ "errcode": errcode, "error": "no" }));
        for node in [&a, &b] {
            net.hub.answer_instead(node.name(), "/make_join/", answer.clone());
        }
        let refused = net.drive(try_join(&c, &carol, &room_id, via.clone())).await.unwrap_err();
        let (status, body, _) = seen(refused).await;
        assert_eq!((status, &body["errcode"]), (seen_status, &json!(seen_errcode)));
        net.hub.answer_as_ever();
    }
}
