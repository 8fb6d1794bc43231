//! The binary as its owner meets it: commands, health and metrics, configuration errors, the end.

use e2e::{
    http::Caller,
    node::{Node, binary},
};
use serde_json::{Value, json};

async fn admin(node: &Node<'_>, path: &str) -> (u16, String) {
    let address = std::fs::read_to_string(node.data().join("admin.address")).expect("an address");
    let answer = reqwest::get(format!("http://{address}{path}")).await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_its_owner_how_it_is() {
    let mut node = Node::local(&["--registration", "open"]).await;
    let id = node.server_name().await;
    let greeting = node.output();
    assert!(greeting.contains(&id) && greeting.contains("http://127."), "{greeting}");
    assert!(greeting.contains(&format!("p2p:{}", &id[id.len() - 7..])), "{greeting}");

    assert_eq!(admin(&node, "/health").await, (200, "ok\n".to_owned()));
    let (status, metrics) = admin(&node, "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("messagehub_requests_refused_total"), "{metrics}");
    assert_eq!(admin(&node, "/status").await.0, 401, "the token is needed");

    let status: Value = serde_json::from_str(&node.run(&["status", "--json"], "").await).unwrap();
    assert_eq!(status["server_name"], id.as_str());
    assert!(status["addresses"].as_array().is_some_and(|list| !list.is_empty()), "{status}");
    assert_eq!(node.run(&["peers"], "").await, "no peers are connected");

    assert_eq!(
        node.run(&["user", "add", "carol"], e2e::node::PASSWORD).await,
        format!("@carol:{id}")
    );
    let users = node.run(&["user", "list"], "").await;
    assert!(users.contains(&format!("@p2p:{id}")) && users.contains("@carol:"), "{users}");

    let anna = Caller::register(node.client_address(), "anna").await;
    let room = anna.create_room(json!({})).await;
    anna.send(&room, "kept", "1").await.expect("a message is taken");
    let copy = node.data().join("copy.db");
    node.run(&["backup", copy.to_str().expect("UTF-8")], "").await;
    assert!(std::fs::metadata(&copy).expect("a copy").len() > 10_000);
    assert_eq!(node.run(&["check"], "").await, "the database is sound");

    let first = node.run(&["keys", "rotate"], "").await;
    assert!(first.starts_with("this node signs with ed25519:"), "{first}");
    anna.send(&room, "by another key", "2").await.expect("a message is taken");

    let log = node.log();
    assert!(!log.contains(e2e::node::PASSWORD), "a secret is in the log");
    node.stop().await;
    assert_eq!(node.server_name().await, id, "the name is the key, whoever asks");
    let second = node.run(&["keys", "rotate"], "").await;
    assert!(second.starts_with("this node signs with ed25519:") && second != first, "{second}");
    assert_eq!(node.server_name().await, id, "the name stays");
}

#[test]
fn a_broken_configuration_names_the_key() {
    let data = tempfile::tempdir().unwrap();
    for (text, expected) in [
        (
            r#"{"listenAdress": "x"}"#,
            "listenAdress: is not a known key; the nearest is listenAddress",
        ),
        (r#"{"registration": "maybe"}"#, "registration: its value is not allowed"),
        ("{", "config.json: is not JSON"),
    ] {
        std::fs::write(data.path().join("config.json"), text).unwrap();
        let output = std::process::Command::new(binary()).arg("--data").arg(data.path()).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "one line: {said}");
    }
}

#[test]
fn a_damaged_database_is_refused_and_kept() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("messagehub.db");
    std::fs::write(&file, "this is no database, but somebody may want it back").unwrap();
    for command in [&["run"][..], &["check"][..]] {
        let mut run = std::process::Command::new(binary());
        let output = run.arg("--data").arg(data.path()).args(command).output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("messagehub.db"), "{said}");
    }
    let kept = std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept, "this is no database, but somebody may want it back");
}
