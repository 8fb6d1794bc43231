//! What clients ask at start-up and about accounts, through the real router.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::net::SocketAddr;

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use messagehub_homeserver::testing::TestServer;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Client {
    router: Router,
    server: TestServer,
    token: Option<String>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    fn errcode(&self) -> String {
        self.json()["errcode"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    fn new(seed: u64) -> Self {
        let server = TestServer::new(seed);
        let router = messagehub_api::client::router(server.hs.clone());
        Self { router, server, token: None }
    }

    /// With an account and a session.
    async fn registered(seed: u64) -> Self {
        let mut client = Self::new(seed);
        let body = json!({
            "username": "ann", "password": "secret", "device_id": "D",
            "auth": {"type": "m.login.dummy"},
        });
        let answer = client.post("/_matrix/client/v3/register", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
        client.token = Some(answer.json()["access_token"].as_str().unwrap().to_owned());
        client
    }

    fn user(&self) -> String {
        self.server.user_id("ann").to_string()
    }

    async fn send(&self, mut request: Request<Body>) -> Answer {
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let local = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 5000)));
        request.extensions_mut().insert(local);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    async fn ask(&self, method: &str, uri: &str, body: Option<Value>) -> Answer {
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, "127.84.48.2")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        self.send(request.unwrap()).await
    }

    async fn get(&self, uri: &str) -> Answer {
        self.ask("GET", uri, None).await
    }

    async fn post(&self, uri: &str, body: Value) -> Answer {
        self.ask("POST", uri, Some(body)).await
    }

    async fn put(&self, uri: &str, body: Value) -> Answer {
        self.ask("PUT", uri, Some(body)).await
    }
}

#[tokio::test]
async fn what_clients_ask_first() {
    let client = Client::new(1);
    let versions = client.get("/_matrix/client/versions").await.json();
    assert_eq!(versions["versions"][0], "v1.1");
    assert_eq!(versions["versions"].as_array().unwrap().len(), 11);
    let well_known = client.get("/.well-known/matrix/client").await.json();
    assert_eq!(well_known["m.homeserver"]["base_url"], "http://127.84.48.2");
    for path in ["/_matrix/client/v3/login", "/_matrix/client/r0/login"] {
        let flows = client.get(path).await.json();
        let kinds: Vec<_> = flows["flows"].as_array().unwrap().iter().map(|f| &f["type"]).collect();
        assert_eq!(kinds, ["m.login.password", "m.login.sso", "m.login.token"]);
        assert_eq!(flows["flows"][1]["identity_providers"][0]["name"], "MessageHub");
    }
    for path in ["/_matrix/client/v1/auth_metadata", "/nothing"] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, &*answer.errcode()), (StatusCode::NOT_FOUND, "M_UNRECOGNIZED"));
    }
}

#[tokio::test]
async fn a_token_is_needed_and_must_be_known() {
    let mut client = Client::new(2);
    for path in ["account/whoami", "pushrules/", "capabilities", "devices"] {
        let answer = client.get(&format!("/_matrix/client/v3/{path}")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.errcode(), "M_MISSING_TOKEN", "{path}");
    }
    client.token = Some("nonsense".to_owned());
    let answer = client.get("/_matrix/client/v3/account/whoami").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.errcode(), "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn registering_asks_for_a_proof_first() {
    let client = Client::new(3);
    let asked = client.post("/_matrix/client/v3/register", json!({"username": "ann"})).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
    assert_eq!(asked.json()["flows"], json!([{"stages": ["m.login.dummy"]}]));
    assert!(asked.json()["session"].is_string());
    assert_eq!(asked.json().get("errcode"), None);
    let guest = client.post("/_matrix/client/v3/register?kind=guest", json!({})).await;
    assert_eq!(guest.status, StatusCode::FORBIDDEN);
    for (name, errcode) in [("a b", "M_INVALID_USERNAME"), ("ann", "")] {
        let path =
            format!("/_matrix/client/v3/register/available?username={}", name.replace(' ', "%20"));
        let answer = client.get(&path).await;
        assert_eq!(answer.errcode(), errcode);
    }
    let empty = json!({"username": "x", "password": "", "auth": {"type": "m.login.dummy"}});
    let answer = client.post("/_matrix/client/v3/register", empty).await;
    assert_eq!((answer.status, &*answer.errcode()), (StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD"));
}

#[tokio::test]
async fn logging_in_and_out() {
    let mut client = Client::registered(4).await;
    let who = client.get("/_matrix/client/v3/account/whoami").await.json();
    assert_eq!(who, json!({"user_id": client.user(), "device_id": "D"}));
    let login = |password: &str| {
        json!({
            "type": "m.login.password", "password": password, "device_id": "E",
            "identifier": {"type": "m.id.user", "user": "ann"},
        })
    };
    let wrong = client.post("/_matrix/client/v3/login", login("guess")).await;
    assert_eq!((wrong.status, &*wrong.errcode()), (StatusCode::FORBIDDEN, "M_FORBIDDEN"));
    let unknown = client.post("/_matrix/client/v3/login", json!({"type": "m.login.x"})).await;
    assert_eq!((unknown.status, &*unknown.errcode()), (StatusCode::BAD_REQUEST, "M_UNKNOWN"));
    let done = client.post("/_matrix/client/v3/login", login("secret")).await.json();
    assert_eq!(done["user_id"], client.user());
    assert_eq!(done["device_id"], "E");
    assert_eq!(done.get("well_known"), None);

    let devices = client.get("/_matrix/client/v3/devices").await.json();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2);
    let refused = client.ask("DELETE", "/_matrix/client/v3/devices/E", Some(json!({}))).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json()["flows"], json!([{"stages": ["m.login.password"]}]));
    let auth = json!({"auth": login("secret")});
    let removed = client.ask("DELETE", "/_matrix/client/v3/devices/E", Some(auth)).await;
    assert_eq!(removed.status, StatusCode::OK, "{}", removed.json());

    assert_eq!(client.post("/_matrix/client/v3/logout", json!({})).await.status, StatusCode::OK);
    let gone = client.get("/_matrix/client/v3/account/whoami").await;
    assert_eq!(gone.errcode(), "M_UNKNOWN_TOKEN");
    client.token = Some(done["access_token"].as_str().unwrap().to_owned());
    assert_eq!(client.get("/_matrix/client/v3/devices").await.errcode(), "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn changing_the_password_logs_the_others_out() {
    let client = Client::registered(5).await;
    let login = |password: &str| {
        json!({
            "type": "m.login.password", "password": password, "user": "ann", "device_id": "E",
            "identifier": {"type": "m.id.user", "user": "ann"},
        })
    };
    client.post("/_matrix/client/v3/login", login("secret")).await;
    let change = json!({"new_password": "better", "auth": login("secret")});
    let done = client.post("/_matrix/client/v3/account/password", change).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.json());
    let devices = client.get("/_matrix/client/v3/devices").await.json();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    let old = client.post("/_matrix/client/v3/login", login("secret")).await;
    assert_eq!(old.status, StatusCode::FORBIDDEN);
    let new = client.post("/_matrix/client/v3/login", login("better")).await;
    assert_eq!(new.status, StatusCode::OK);
}

#[tokio::test]
async fn settings_of_an_account() {
    let client = Client::registered(6).await;
    let user = client.user();
    let capabilities = client.get("/_matrix/client/v3/capabilities").await.json();
    assert_eq!(capabilities["capabilities"]["m.room_versions"]["default"], "12");
    assert_eq!(capabilities["capabilities"]["m.room_versions"]["available"]["2"], "stable");

    let rules = client.get("/_matrix/client/v3/pushrules/").await.json();
    assert_eq!(rules["global"]["override"][0]["rule_id"], ".m.rule.master");
    let rule = "/_matrix/client/v3/pushrules/global/content/cake";
    let body = json!({"pattern": "cake", "actions": ["notify"]});
    assert_eq!(client.put(rule, body).await.status, StatusCode::OK);
    assert_eq!(client.get(rule).await.json()["pattern"], "cake");
    let off = client.put(&format!("{rule}/enabled"), json!({"enabled": false})).await;
    assert_eq!(off.status, StatusCode::OK);
    assert_eq!(client.get(&format!("{rule}/enabled")).await.json(), json!({"enabled": false}));
    assert_eq!(client.ask("DELETE", rule, None).await.status, StatusCode::OK);
    assert_eq!(client.get(rule).await.errcode(), "M_NOT_FOUND");

    let filters = format!("/_matrix/client/v3/user/{user}/filter");
    let filter = json!({"room": {"timeline": {"limit": 7}}});
    let id = client.post(&filters, filter.clone()).await.json()["filter_id"].clone();
    let kept = client.get(&format!("{filters}/{}", id.as_str().unwrap())).await;
    assert_eq!(kept.json(), filter);
    assert_eq!(client.get(&format!("{filters}/99")).await.errcode(), "M_NOT_FOUND");

    let data = format!("/_matrix/client/v3/user/{user}/account_data/m.direct");
    assert_eq!(client.get(&data).await.errcode(), "M_NOT_FOUND");
    let content = json!({"@b:x": ["!r:x"]});
    assert_eq!(client.put(&data, content.clone()).await.status, StatusCode::OK);
    assert_eq!(client.get(&data).await.json(), content);
    let other = "/_matrix/client/v3/user/@eve:x/account_data/m.direct";
    assert_eq!(client.get(other).await.errcode(), "M_FORBIDDEN");

    let profile = format!("/_matrix/client/v3/profile/{user}");
    let name = format!("{profile}/displayname");
    assert_eq!(client.put(&name, json!({"displayname": "Ann"})).await.status, StatusCode::OK);
    assert_eq!(client.get(&profile).await.json(), json!({"displayname": "Ann"}));
    assert_eq!(client.get(&name).await.json(), json!({"displayname": "Ann"}));
    let search = json!({"search_term": "nobody"});
    let found = client.post("/_matrix/client/v3/user_directory/search", search).await.json();
    assert_eq!(found, json!({"results": [], "limited": false}));
}

#[tokio::test]
async fn media_is_served_harmlessly() {
    let mut client = Client::registered(7).await;
    let html = b"<script>alert(1)</script>".to_vec();
    let upload = Request::post("/_matrix/media/v3/upload?filename=a%22b.html")
        .header(header::CONTENT_TYPE, "text/html")
        .body(Body::from(html.clone()));
    let uri = client.send(upload.unwrap()).await.json()["content_uri"].clone();
    let address = uri.as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    for path in ["client/v1/media/download", "media/v3/download", "media/r0/download"] {
        let answer = client.get(&format!("/_matrix/{path}/{address}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.bytes, html);
        assert_eq!(answer.header("content-type"), "text/html");
        assert!(answer.header("content-disposition").starts_with("attachment; filename="));
        assert!(
            answer.header("content-security-policy").starts_with("sandbox; default-src 'none'")
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cross-origin-resource-policy"), "cross-origin");
    }
    let named = client.get(&format!("/_matrix/client/v1/media/download/{address}/b.txt")).await;
    assert_eq!(named.header("content-disposition"), "attachment; filename=b.txt");
    let size = client.get("/_matrix/client/v1/media/config").await.json();
    assert_eq!(size["m.upload.size"], client.server.hs.limits.max_upload_bytes);
    let small = format!("/_matrix/client/v1/media/thumbnail/{address}?width=32&height=32");
    assert_eq!(client.get(&small).await.status, StatusCode::BAD_REQUEST);
    let server = client.server.hs.server_name().to_string();
    for id in ["..%2f..%2fkey", "%2e%2e", "nothing"] {
        let answer = client.get(&format!("/_matrix/client/v1/media/download/{server}/{id}")).await;
        assert_eq!(answer.errcode(), "M_NOT_FOUND", "{id}");
    }
    let reserved = client.post("/_matrix/media/v1/create", json!({})).await.json();
    let address =
        reserved["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    let waiting = format!("/_matrix/client/v1/media/download/{address}?timeout_ms=0");
    assert_eq!(client.get(&waiting).await.errcode(), "M_NOT_YET_UPLOADED");
    let fill = Request::put(format!("/_matrix/media/v3/upload/{address}")).body(Body::from("hi"));
    assert_eq!(client.send(fill.unwrap()).await.status, StatusCode::OK);
    assert_eq!(client.get(&waiting).await.bytes, b"hi");
    client.token = None;
    assert_eq!(client.get(&waiting).await.errcode(), "M_MISSING_TOKEN");
}

#[tokio::test]
async fn single_sign_on_from_button_to_session() {
    let client = Client::new(8);
    let hs = client.server.hs.clone();
    let user = messagehub_homeserver::accounts::create(&hs, "p2p", None).await.unwrap();
    let start =
        "/_matrix/client/v3/login/sso/redirect/messagehub?redirectUrl=http%3A%2F%2F127.84.48.1%2F";
    let page = client.get(start).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.header("x-frame-options"), "DENY");
    assert_eq!(page.header("cache-control"), "no-store");
    let html = String::from_utf8(page.bytes).unwrap();
    let (_, rest) = html.split_once("name=\"token\" value=\"").unwrap();
    let token = rest.split('"').next().unwrap();
    let form = format!("token={token}&user={}", user.as_str().replace(':', "%3A"));
    let confirm = |origin: &str| {
        Request::post("/_messagehub/sso/confirm")
            .header(header::HOST, "127.84.48.2")
            .header(header::ORIGIN, origin)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.clone()))
            .unwrap()
    };
    let evil = client.send(confirm("https://evil.example")).await;
    assert_eq!(evil.status, StatusCode::FORBIDDEN);
    let answer = client.send(confirm("http://127.84.48.2")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let login = answer.header("location").strip_prefix("http://127.84.48.1/?loginToken=").unwrap();
    let body = json!({"type": "m.login.token", "token": login});
    let done = client.post("/_matrix/client/v3/login", body.clone()).await;
    assert_eq!(done.json()["user_id"], user.as_str());
    assert_eq!(client.post("/_matrix/client/v3/login", body).await.errcode(), "M_FORBIDDEN");
    let missing = client.get("/_matrix/client/v3/login/sso/redirect").await;
    assert_eq!(missing.errcode(), "M_MISSING_PARAM");
}
