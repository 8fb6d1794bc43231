//! Three people who are not always there: what is sent to those who are off arrives when they wake,
//! through whoever has it; and who was put out reads nothing of what comes after.

use std::path::Path;

use e2e::{
    DEADLINE,
    http::{Caller, escape},
    namespace::{Lan, Machine, are_wanted},
    node::Node,
};
use reqwest::Method;
use serde_json::{Value, json};

/// A node, and the one who uses it.
struct Person<'a> {
    node: Node<'a>,
    caller: Caller,
    id: String,
}

impl<'a> Person<'a> {
    async fn on(machine: &'a Machine, name: &str) -> Self {
        let variables = [("REGISTRATION", "open"), ("RATE_LIMITS", "null")];
        let node = Node::configured(machine, &variables).await;
        let caller = Caller::register(node.client_address(), name).await;
        let id = caller.user_id().await;
        Self { node, caller, id }
    }

    async fn leaves(&mut self) {
        self.node.stop().await;
    }

    async fn returns(&mut self) {
        self.node.start().await;
        self.caller = self.caller.moved(self.node.client_address());
    }

    async fn says(&self, room: &str, text: &str) {
        let sent = self.caller.send(room, text, text).await;
        assert!(sent.is_some(), "“{text}” is taken");
    }

    async fn hears(&self, room: &str, text: &str) {
        let heard = self.caller.hears(room, text, DEADLINE).await;
        assert!(heard.is_some(), "{} hears “{text}”, log:\n{}", self.id, self.node.log());
    }

    async fn invites(&self, room: &str, guest: &Self) {
        let path = format!("/rooms/{}/invite", escape(room));
        let body = json!({"user_id": guest.id});
        let invited = self.caller.ask(Method::POST, &path, body).await;
        assert!(invited.is_some(), "an invitation is taken whether {} is there or not", guest.id);
    }

    async fn accepts(&self, room: &str) {
        let invited = self.caller.is_invited(room, DEADLINE).await;
        assert!(invited, "{} is invited, log:\n{}", self.id, self.node.log());
        let joined = self.caller.joins(room, DEADLINE).await;
        assert!(joined, "{} can join, log:\n{}", self.id, self.node.log());
    }

    async fn texts(&self, room: &str) -> Vec<String> {
        self.caller.history(room).await.into_iter().map(|(_, text)| text).collect()
    }
}

/// A private room in which all of them are.
async fn room_of(host: &Person<'_>, guests: &[&Person<'_>]) -> String {
    let room = host.caller.create_room(json!({"preset": "private_chat"})).await;
    for guest in guests {
        host.invites(&room, guest).await;
        guest.accepts(&room).await;
    }
    room
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_are_never_there_at_once_talk_through_a_third() {
    if !are_wanted() {
        return;
    }
    let lan = Lan::new();
    let machines = [lan.machine(), lan.machine(), lan.machine()];
    let [mut anna, mut bob, carol] = [
        Person::on(&machines[0], "anna").await,
        Person::on(&machines[1], "bob").await,
        Person::on(&machines[2], "carol").await,
    ];
    let room = room_of(&anna, &[&bob, &carol]).await;
    bob.leaves().await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..5 {
            expected.push(format!("anna {round} {number}"));
            anna.says(&room, &expected[expected.len() - 1]).await;
        }
        carol.hears(&room, &expected[expected.len() - 1]).await;
        anna.leaves().await;
        bob.returns().await;
        bob.hears(&room, &expected[expected.len() - 1]).await;
        expected.push(format!("bob {round}"));
        bob.says(&room, &expected[expected.len() - 1]).await;
        carol.hears(&room, &expected[expected.len() - 1]).await;
        bob.leaves().await;
        anna.returns().await;
        anna.hears(&room, &expected[expected.len() - 1]).await;
    }
    assert_eq!(anna.texts(&room).await, expected);
    assert_eq!(carol.texts(&room).await, expected);
    anna.leaves().await;
    bob.returns().await;
    assert_eq!(bob.texts(&room).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_waits_for_one_who_is_off() {
    if !are_wanted() {
        return;
    }
    let lan = Lan::new();
    let (left, right) = (lan.machine(), lan.machine());
    let mut bob = Person::on(&right, "bob").await;
    bob.leaves().await;
    // Anna's node has never seen Bob's, and is itself restarted before he wakes.
    let mut anna = Person::on(&left, "anna").await;
    let room = anna.caller.create_room(json!({"preset": "private_chat"})).await;
    anna.invites(&room, &bob).await;
    anna.says(&room, "are you there?").await;
    anna.leaves().await;
    anna.returns().await;
    bob.returns().await;
    bob.accepts(&room).await;
    anna.says(&room, "now you are").await;
    bob.hears(&room, "now you are").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_put_out_reads_nothing_afterwards() {
    if !are_wanted() {
        return;
    }
    let lan = Lan::new();
    let machines = [lan.machine(), lan.machine(), lan.machine()];
    let [anna, bob, mallory] = [
        Person::on(&machines[0], "anna").await,
        Person::on(&machines[1], "bob").await,
        Person::on(&machines[2], "mallory").await,
    ];
    for deed in ["kick", "ban"] {
        let room = room_of(&anna, &[&bob, &mallory]).await;
        let other = room_of(&anna, &[&mallory]).await;
        anna.says(&room, &format!("before the {deed}")).await;
        mallory.hears(&room, &format!("before the {deed}")).await;
        let path = format!("/rooms/{}/{deed}", escape(&room));
        let done = anna.caller.ask(Method::POST, &path, json!({"user_id": mallory.id})).await;
        assert!(done.is_some(), "the {deed} is taken");
        let secret = format!("a secret after the {deed}");
        anna.says(&room, &secret).await;
        bob.hears(&room, &secret).await;
        // What Anna says later, elsewhere, has come by the same way: so the secret would have.
        anna.says(&other, "elsewhere").await;
        mallory.hears(&other, "elsewhere").await;
        let page = format!("/rooms/{}/messages?dir=b&limit=100", escape(&room));
        let page = mallory.caller.ask(Method::GET, &page, Value::Null).await.unwrap_or_default();
        assert!(!page.to_string().contains(&secret), "{page}");
        let files = files_with(mallory.node.data(), secret.as_bytes());
        assert!(files.is_empty(), "after the {deed} it is in {files:?}");
        let seen = files_with(mallory.node.data(), format!("before the {deed}").as_bytes());
        assert!(!seen.is_empty(), "what came before is in the files, in clear");
    }
}

/// Names of the files of a directory in which these bytes are.
fn files_with(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let files = std::fs::read_dir(directory).expect("a directory").flatten();
    let files = files.filter(|file| file.path().is_file()).filter(|file| {
        let content = std::fs::read(file.path()).unwrap_or_default();
        content.windows(bytes.len()).any(|window| window == bytes)
    });
    files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}
