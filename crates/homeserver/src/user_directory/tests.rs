//! Finding people, with the transport played by the test.

use bytes::Bytes;
use ruma::server_name;
use serde_json::{Value, json};

use super::*;
use crate::{
    accounts,
    profiles::{Field, set},
    testing::TestServer,
};

/// A network on which `found` answers every search, and a request gets `body` from the server
/// that is asked.
struct Network {
    found: Vec<ServerKeys>,
    body: Value,
    searched: Vec<String>,
}

impl Network {
    fn of(found: Vec<ServerKeys>, body: Value) -> Self {
        Self { found, body, searched: Vec::new() }
    }

    async fn search(&mut self, server: &mut TestServer, caller: &UserId, term: &str) -> Found {
        let (hs, outbound) = (server.hs.clone(), &mut server.outbound);
        let search = search(&hs, caller, term, 10);
        tokio::pin!(search);
        loop {
            tokio::select! {
                found = &mut search => return found.unwrap(),
                Some(command) = outbound.recv() => self.answer(command),
            }
        }
    }

    fn answer(&mut self, command: Outbound) {
        match command {
            Outbound::Find { key, reply } => {
                self.searched.push(key);
                drop(reply.send(self.found.clone()));
            }
            Outbound::Request { reply, .. } => {
                let body = Bytes::from(self.body.to_string());
                drop(reply.send(Ok(http::Response::new(body))));
            }
            _ => {}
        }
    }
}

fn suffix_of(server: &TestServer, length: usize) -> String {
    suffix(server.hs.server_name(), length).to_owned()
}

fn ids(found: &Found) -> Vec<&str> {
    found.users.iter().map(|user| user.user_id.as_str()).collect()
}

#[test]
fn a_node_is_found_by_its_name_and_by_those_of_its_users() {
    let server = server_name!("bahwqcabaaoqqpp7tzyil4hlq3umoos6atft6jvrqtosq2xy53sdgiesvgg4a");
    assert_eq!(
        rendezvous(server, ["Ann".to_owned()].into_iter()),
        [
            "p2p:bahwqcabaaoqqpp7tzyil4hlq3umoos6atft6jvrqtosq2xy53sdgiesvgg4a",
            "Ann:esvgg4a",
            "Ann:iesvgg4a",
            "Ann:giesvgg4a",
            "Ann:dgiesvgg4a",
        ]
    );
}

#[tokio::test]
async fn users_of_this_node_are_found_by_part_of_their_name() {
    let mut server = TestServer::new(1);
    let ann = accounts::create(&server.hs, "ann", None).await.unwrap();
    let bob = accounts::create(&server.hs, "bob", None).await.unwrap();
    set(&server.hs, &bob, &bob, Field::DisplayName(Some("Robert Möller".to_owned())))
        .await
        .unwrap();
    let mut nobody = Network::of(Vec::new(), json!({}));
    for term in ["bob", "BOB", "möll", "robert", bob.as_str()] {
        let found = nobody.search(&mut server, &ann, term).await;
        assert_eq!(ids(&found), [bob.as_str()], "{term}");
    }
    assert!(ids(&nobody.search(&mut server, &ann, "ann").await).is_empty());
    assert!(ids(&nobody.search(&mut server, &ann, "  ").await).is_empty());
    assert!(nobody.searched.is_empty());
}

#[tokio::test]
async fn a_name_with_its_suffix_finds_who_has_both() {
    let (mut here, there) = (TestServer::new(2), TestServer::new(3));
    let ann = here.user_id("ann");
    let zoe = there.user_id("p2p");
    let body = json!({"users": [
        {"user_id": zoe, "displayname": "Zoé", "avatar_url": "mxc://x/y"},
        {"user_id": there.user_id("other"), "displayname": "Other"},
        {"user_id": "@victim:elsewhere.example", "displayname": "Zoé"},
    ]});
    let keys = there.hs.identity.server_keys();
    let mut network = Network::of(vec![keys.clone(), keys], body.clone());
    let term = format!("Zoé:{}", suffix_of(&there, 8));
    let found = network.search(&mut here, &ann, &term).await;
    assert_eq!(ids(&found), [zoe.as_str()]);
    assert_eq!(found.users[0].avatar_url.as_ref().unwrap().as_str(), "mxc://x/y");
    assert_eq!(network.searched, [term]);

    // Whoever answers with another suffix is not who was asked for.
    let lookalike = TestServer::new(4);
    let mut network = Network::of(vec![lookalike.hs.identity.server_keys()], body);
    let term = format!("Zoé:{}", suffix_of(&there, 7));
    assert!(ids(&network.search(&mut here, &ann, &term).await).is_empty());
}

#[tokio::test]
async fn a_full_user_id_is_asked_of_its_own_server() {
    let (mut here, there) = (TestServer::new(5), TestServer::new(6));
    let (ann, zoe) = (here.user_id("ann"), there.user_id("p2p"));
    let mut network = Network::of(Vec::new(), json!({"displayname": "Zoé"}));
    let found = network.search(&mut here, &ann, zoe.as_str()).await;
    assert_eq!(ids(&found), [zoe.as_str()]);
    assert_eq!(found.users[0].displayname.as_deref(), Some("Zoé"));
}

#[tokio::test]
async fn a_node_tells_its_names_only_when_it_wants_to_be_found() {
    let mut server = TestServer::new(7);
    accounts::create(&server.hs, "p2p", None).await.unwrap();
    let name = format!("p2p:{}", suffix_of(&server, 7));
    assert_eq!(names(&server.hs).await.unwrap(), std::slice::from_ref(&name));
    let mut advertised = None;
    while let Ok(command) = server.outbound.try_recv() {
        if let Outbound::Advertise { keys } = command {
            advertised = Some(keys);
        }
    }
    let advertised = advertised.unwrap();
    assert!(advertised.contains(&name));
    assert_eq!(advertised[0], format!("p2p:{}", server.hs.server_name()));

    let limits = crate::Limits { discoverable: false, ..crate::Limits::default() };
    server.hs.limits = std::sync::Arc::new(limits);
    assert!(discoverable(&server.hs).await.unwrap().is_empty());
}
