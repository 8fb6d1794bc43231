//! A client of one node, over HTTP.

use axum::{Router, body::Body};
use data_encoding::BASE64_NOPAD;
use http_body_util::BodyExt;
use messagehub_protocol::{keys::VerifyKey, signed_json};
use tower::ServiceExt;

use super::*;
use crate::client;

/// A device that is logged in.
pub(super) struct Client {
    router: Router,
    pub(super) session: Session,
    token: String,
    pub(super) since: Option<String>,
}

impl Client {
    /// A new account with a device.
    pub(super) async fn register(node: &Node, name: &str, device: &str) -> Self {
        let router = client::router(node.hs.clone());
        let body = json!({
            "username": name, "password": "a long enough password", "device_id": device,
            "auth": { "type": "m.login.dummy" },
        });
        let (status, answer) =
            call(&router, None, ("POST", "/_matrix/client/v3/register"), &body).await;
        assert_eq!(status, 200, "{answer}");
        Self::of(router, &answer)
    }

    /// One device more of the same user.
    pub(super) async fn log_in(&self, device: &str) -> Self {
        let body = json!({
            "type": "m.login.password", "device_id": device,
            "identifier": { "type": "m.id.user", "user": self.session.user_id },
            "password": "a long enough password",
        });
        let (status, answer) =
            call(&self.router, None, ("POST", "/_matrix/client/v3/login"), &body).await;
        assert_eq!(status, 200, "{answer}");
        Self::of(self.router.clone(), &answer)
    }

    fn of(router: Router, answer: &serde_json::Value) -> Self {
        let text = |field: &str| answer[field].as_str().unwrap().to_owned();
        let session = Session {
            user_id: text("user_id").try_into().unwrap(),
            device_id: text("device_id").into(),
        };
        Self { router, session, token: text("access_token"), since: None }
    }

    /// Lets go of a node that is to be stopped.
    pub(super) fn leave(&mut self) {
        self.router = Router::new();
    }

    /// The same device after its node was started again.
    pub(super) fn at(&mut self, node: &Node) {
        self.router = client::router(node.hs.clone());
    }

    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        body: serde_json::Value,
    ) -> (u16, serde_json::Value) {
        let path = format!("/_matrix/client/{path}");
        call(&self.router, Some(&self.token), (method, &path), &body).await
    }

    pub(super) async fn ok(
        &self,
        method: &str,
        path: &str,
        body: serde_json::Value,
    ) -> serde_json::Value {
        let (status, answer) = self.call(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    pub(super) async fn sync(&mut self) -> serde_json::Value {
        let since = self.since.as_ref().map(|since| format!("&since={since}")).unwrap_or_default();
        let path = format!("v3/sync?set_presence=offline&timeout=0{since}");
        let answer = self.ok("GET", &path, json!({})).await;
        self.since = Some(answer["next_batch"].as_str().unwrap().to_owned());
        answer
    }

    pub(super) fn user(&self) -> &str {
        self.session.user_id.as_str()
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn device(&self) -> &str {
        self.session.device_id.as_str()
    }

    /// Uploads identity keys that follow from a seed, and gives them.
    pub(super) async fn upload_keys(&self, seed: u8) -> serde_json::Value {
        let keys = device_keys(self.user(), self.device(), seed);
        self.ok("POST", "v3/keys/upload", json!({ "device_keys": keys })).await;
        keys
    }

    pub(super) async fn query(&self, user: &str) -> serde_json::Value {
        self.ok("POST", "v3/keys/query", json!({ "device_keys": { user: [] } })).await
    }
}

async fn call(
    router: &Router,
    token: Option<&str>,
    (method, path): (&str, &str),
    body: &serde_json::Value,
) -> (u16, serde_json::Value) {
    let mut request = http::Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = if method == "GET" { Body::empty() } else { Body::from(body.to_string()) };
    let response = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

pub(super) fn key(seed: u8) -> VerifyKey {
    VerifyKey::from_seed(&[seed; 32])
}

pub(super) fn public(seed: u8) -> String {
    BASE64_NOPAD.encode(&key(seed).public_key())
}

/// Signs an object as a user's key.
pub(super) fn sign(object: &mut serde_json::Value, user: &str, key_id: &str, seed: u8) {
    let form = signed_json::signed_form(&object.to_string()).unwrap();
    let signature = BASE64_NOPAD.encode(&key(seed).sign(form.as_bytes()));
    object["signatures"][user][key_id] = signature.into();
}

/// The identity keys of a device.
pub(super) fn device_keys(user: &str, device: &str, seed: u8) -> serde_json::Value {
    let mut keys = json!({
        "user_id": user,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("ed25519:{device}"): public(seed),
            format!("curve25519:{device}"): public(seed.wrapping_add(100)),
        },
    });
    sign(&mut keys, user, &format!("ed25519:{device}"), seed);
    keys
}

/// Keys for one use: `signed_curve25519:<name>`.
pub(super) fn one_time_keys(names: &[&str]) -> serde_json::Value {
    let keys = names.iter().map(|name| {
        let key = json!({ "key": BASE64_NOPAD.encode(name.as_bytes()), "signatures": {} });
        (format!("signed_curve25519:{name}"), key)
    });
    keys.collect::<serde_json::Map<_, _>>().into()
}
