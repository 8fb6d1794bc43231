//! The Client-Server API by hand, where a test must see every single answer.

use std::{net::SocketAddr, time::Duration};

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::within;

/// Someone with an access token.
#[derive(Clone)]
pub struct Caller {
    http: Client,
    base: String,
    token: String,
}

impl Caller {
    /// Registers an account at a node with open registration.
    pub async fn register(address: SocketAddr, name: &str) -> Self {
        let base = format!("http://{address}/_matrix/client/v3");
        let mut caller = Self { http: Client::new(), base, token: String::new() };
        let body = json!({
            "username": name, "password": crate::node::PASSWORD, "auth": {"type": "m.login.dummy"},
        });
        let account = caller.ask(Method::POST, "/register", body).await.expect("an account");
        account["access_token"].as_str().expect("a token").clone_into(&mut caller.token);
        caller
    }

    /// The same caller at another address.
    pub fn moved(&self, address: SocketAddr) -> Self {
        Self { base: format!("http://{address}/_matrix/client/v3"), ..self.clone() }
    }

    /// The same server with another token; an empty one is none.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The answer to a GET of a path that does not begin like the others.
    pub async fn get_absolute(&self, path: &str) -> Response {
        let root = self.base.trim_end_matches("/_matrix/client/v3");
        let request = self.http.get(format!("{root}{path}")).bearer_auth(&self.token);
        request.send().await.expect("an answer")
    }

    /// The JSON answer, if the status is 200; `None` for anything else, a lost connection too.
    pub async fn ask(&self, method: Method, path: &str, body: Value) -> Option<Value> {
        let answer = self.raw(method, path, body.to_string()).await?;
        if answer.status() != 200 {
            return None;
        }
        answer.json().await.ok()
    }

    /// The answer to any bytes; `None` when the connection is lost.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Option<Response> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if method != Method::GET {
            request = request.header("content-type", "application/json").body(body);
        }
        request.send().await.ok()
    }

    /// Creates a room.
    pub async fn create_room(&self, body: Value) -> String {
        let room = self.ask(Method::POST, "/createRoom", body).await.expect("a room");
        room["room_id"].as_str().expect("a room id").to_owned()
    }

    /// Sends a text; its event id if the server acknowledged it.
    pub async fn send(&self, room_id: &str, text: &str, txn_id: &str) -> Option<String> {
        let path = format!("/rooms/{}/send/m.room.message/{txn_id}", escape(room_id));
        let sent = self.ask(Method::PUT, &path, json!({"msgtype": "m.text", "body": text})).await?;
        Some(sent["event_id"].as_str().expect("an event id").to_owned())
    }

    /// Their user id.
    pub async fn user_id(&self) -> String {
        let answer = self.ask(Method::GET, "/account/whoami", Value::Null).await;
        answer.expect("a session")["user_id"].as_str().expect("a user id").to_owned()
    }

    /// What changed since a token of the last time; waits up to two seconds for something.
    pub async fn sync(&self, since: Option<&str>) -> Option<Value> {
        let since = since.map(|token| format!("&since={token}")).unwrap_or_default();
        self.ask(Method::GET, &format!("/sync?timeout=2000{since}"), Value::Null).await
    }

    /// Waits for an invitation to this room.
    pub async fn is_invited(&self, room_id: &str, limit: Duration) -> bool {
        let mut since: Option<String> = None;
        let seen = within(limit, async || {
            let update = self.sync(since.as_deref()).await?;
            since = update["next_batch"].as_str().map(str::to_owned);
            update["rooms"]["invite"].get(room_id).map(|_| ())
        });
        seen.await.is_some()
    }

    /// Joins a room, trying again until the way there is found.
    pub async fn joins(&self, room_id: &str, limit: Duration) -> bool {
        let path = format!("/join/{}", escape(room_id));
        within(limit, async || self.ask(Method::POST, &path, json!({})).await).await.is_some()
    }

    /// Waits for a text in a room, and gives the id of its event.
    pub async fn hears(&self, room_id: &str, text: &str, limit: Duration) -> Option<String> {
        let path = format!("/rooms/{}/messages?dir=b&limit=20", escape(room_id));
        within(limit, async || {
            let page = self.ask(Method::GET, &path, Value::Null).await?;
            let chunk = page["chunk"].as_array()?;
            let event = chunk.iter().find(|event| event["content"]["body"] == text)?;
            event["event_id"].as_str().map(str::to_owned)
        })
        .await
    }

    /// Event ids and texts of a whole room, from old to new.
    pub async fn history(&self, room_id: &str) -> Vec<(String, String)> {
        let mut events = Vec::new();
        let mut from = String::new();
        loop {
            let path = format!("/rooms/{}/messages?dir=b&limit=500{from}", escape(room_id));
            let page = self.ask(Method::GET, &path, Value::Null).await.expect("a page");
            let chunk = page["chunk"].as_array().expect("a list");
            events.extend(chunk.iter().filter(|event| event["type"] == "m.room.message").map(
                |event| {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    (text(&event["event_id"]), text(&event["content"]["body"]))
                },
            ));
            let Some(end) = page["end"].as_str() else { break };
            from = format!("&from={end}");
        }
        events.reverse();
        events
    }
}

/// A room id as a segment of a path.
pub fn escape(id: &str) -> String {
    id.replace('!', "%21").replace(':', "%3A").replace('$', "%24")
}
