//! Where nodes are, for tests in which that matters: two nodes hear each other only when one of
//! them knew where the other was.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use messagehub_homeserver::peers::Inbound;
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};

/// The addresses of all nodes, and who knows which.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Where each node is now; it moves by counting up.
    now: BTreeMap<OwnedServerName, u64>,
    /// Where each node thinks that others are.
    known: BTreeMap<OwnedServerName, BTreeMap<OwnedServerName, u64>>,
    /// The newest record that each node believed of each other.
    believed: BTreeMap<(OwnedServerName, OwnedServerName), u64>,
    /// Who is connected.
    links: BTreeSet<(OwnedServerName, OwnedServerName)>,
}

/// What stands for a signed record of addresses.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    server: OwnedServerName,
    peer_id: String,
    address: u64,
}

impl Addresses {
    /// The address of a node as text.
    pub(super) fn text(&self, server: &ServerName) -> String {
        format!("/memory/{}", self.at(server))
    }

    fn at(&self, server: &ServerName) -> u64 {
        self.now.get(server).copied().unwrap_or(1)
    }

    /// A node is somewhere else from now on.
    pub(super) fn move_away(&mut self, server: &ServerName) {
        *self.now.entry(server.to_owned()).or_insert(1) += 1;
    }

    /// Whether two nodes are connected.
    pub(super) fn is_linked(&self, one: &ServerName, other: &ServerName) -> bool {
        self.links.contains(&super::hub::pair(one, other))
    }

    /// Connects two nodes if one of them knows where the other is. Says whether they are new to
    /// each other.
    pub(super) fn dial(&mut self, from: &ServerName, to: &ServerName) -> bool {
        let known = self.known.get(from).and_then(|known| known.get(to)).copied();
        if known != Some(self.at(to)) {
            return false;
        }
        let is_new = self.links.insert(super::hub::pair(from, to));
        let here = self.at(from);
        self.learn(to, from, here);
        is_new
    }

    /// A node is gone, and with it its connections; what it knew comes from its own memory.
    pub(super) fn forget(&mut self, server: &ServerName) {
        self.known.remove(server);
        self.believed.retain(|(node, _), _| node != server);
        self.links.retain(|(one, other)| one != server && other != server);
    }

    /// A node remembers where another one was reached.
    pub(super) fn learn_text(&mut self, node: &ServerName, server: &ServerName, address: &str) {
        let number = address.strip_prefix("/memory/").and_then(|number| number.parse().ok());
        if let Some(number) = number {
            self.learn(node, server, number);
        }
    }

    fn learn(&mut self, node: &ServerName, server: &ServerName, address: u64) {
        let known = self.known.entry(node.to_owned()).or_default();
        let at = known.entry(server.to_owned()).or_default();
        *at = address.max(*at);
    }

    /// What a node believes of a record that others handed on.
    pub(super) fn believe(&mut self, node: &ServerName, record: &Bytes) -> Option<Inbound> {
        let read: Record = serde_json::from_slice(record).ok()?;
        if read.server == node {
            return None;
        }
        let pair = (node.to_owned(), read.server.clone());
        let before = self.believed.insert(pair, read.address);
        self.learn(node, &read.server, read.address);
        (before < Some(read.address)).then(|| report_of(&read, record.clone()))
    }

    /// The record of where a node is.
    pub(super) fn own(&self, server: &ServerName, peer_id: &str) -> Option<Inbound> {
        let record = Record {
            server: server.to_owned(),
            peer_id: peer_id.to_owned(),
            address: self.at(server),
        };
        let bytes = serde_json::to_vec(&record).ok()?;
        Some(report_of(&record, bytes.into()))
    }
}

fn report_of(record: &Record, bytes: Bytes) -> Inbound {
    Inbound::Record {
        server: record.server.clone(),
        peer_id: record.peer_id.clone(),
        seq: record.address,
        record: bytes,
        addresses: vec![format!("/memory/{}", record.address)],
    }
}
