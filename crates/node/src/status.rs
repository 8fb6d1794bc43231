//! What `messagehub status` and `messagehub peers` show: gathered by the running node, sent as
//! JSON over the admin address.

use messagehub_homeserver::{
    Homeserver, heads,
    peers::{Path, PeerStatus, Transport},
    user_directory,
};
use messagehub_store::StoreError;
use serde::{Deserialize, Serialize};

use crate::{
    backlog::{self, Backlog},
    reachability::{self, Reachability},
};

/// How the node is reached, and how it stands with its peers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The server name.
    pub(crate) server_name: String,
    /// Names under which users of this node are found.
    pub(crate) names: Vec<String>,
    /// Our PeerId.
    pub(crate) peer_id: String,
    /// Multiaddresses we listen on.
    pub(crate) addresses: Vec<String>,
    /// How others reach us.
    pub(crate) reachability: Reachability,
    /// Connected peers.
    pub(crate) peers: Vec<Peer>,
    /// What waits for other servers.
    pub(crate) outbox: Backlog,
    /// When all this was so, in milliseconds since the Unix epoch.
    pub(crate) at: u64,
}

/// One connected peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its PeerId.
    pub(crate) peer_id: String,
    /// The server it speaks for, once that is verified.
    pub(crate) server_name: Option<String>,
    /// `direct` or `relayed`.
    pub(crate) path: String,
    /// The relay, where the path goes through one that is known.
    pub(crate) relay: Option<String>,
    /// `tcp` or `quic`; of a relayed path, the way to the relay, where that is known.
    pub(crate) transport: Option<String>,
    /// The multiaddress in use.
    pub(crate) address: String,
    /// The last round trip, in milliseconds.
    pub(crate) latency_ms: Option<f64>,
    /// Rooms that both servers are in.
    pub(crate) shared_rooms: usize,
    /// Of these, rooms where one has events the other lacks, as of the last comparison.
    pub(crate) rooms_behind: usize,
    /// When heads were last compared, in milliseconds since the Unix epoch.
    pub(crate) compared_at: Option<u64>,
}

/// Asks the store and the transport.
pub(crate) async fn gather(hs: &Homeserver) -> Result<Status, StoreError> {
    let net = hs.peers.status().await.unwrap_or_default();
    let mut peers = Vec::with_capacity(net.peers.len());
    for peer in net.peers {
        let standing = match &peer.server {
            Some(server) => Some(heads::standing(hs, server).await?),
            None => None,
        };
        let (path, relay, transport) = way(&peer);
        peers.push(Peer {
            peer_id: peer.peer_id,
            server_name: peer.server.map(|server| server.to_string()),
            path: path.to_owned(),
            relay,
            transport: transport.map(str::to_owned),
            address: peer.address,
            latency_ms: peer.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            shared_rooms: standing.as_ref().map_or(0, |standing| standing.shared_rooms),
            rooms_behind: standing.as_ref().map_or(0, |standing| standing.rooms_behind),
            compared_at: standing.and_then(|s| s.compared_at).map(|at| at.get().into()),
        });
    }
    Ok(Status {
        server_name: hs.server_name().to_string(),
        names: user_directory::names(hs).await?,
        peer_id: net.peer_id,
        addresses: net.addresses,
        reachability: reachability::of(net.reachability, net.nat),
        peers,
        outbox: backlog::gather(hs).await?,
        at: hs.clock.now_ms(),
    })
}

/// Which way the connection with a peer goes: path, relay, and what carries it.
fn way(peer: &PeerStatus) -> (&'static str, Option<String>, Option<&'static str>) {
    let (path, relay) = match &peer.path {
        Path::Direct => ("direct", None),
        Path::Relayed { relay } => ("relayed", relay.clone()),
    };
    let transport = peer.transport.map(|transport| match transport {
        Transport::Tcp => "tcp",
        Transport::Quic => "quic",
    });
    (path, relay, transport)
}

impl Status {
    /// For people.
    pub(crate) fn human(&self) -> String {
        let mut lines = vec![format!("server name  {}", self.server_name)];
        lines.extend(self.names.iter().map(|name| format!("found as     {name}")));
        lines.push(format!("peer id      {}", self.peer_id));
        lines.extend(self.addresses.iter().map(|address| format!("listening    {address}")));
        lines.extend(self.reachability.human());
        lines.push(format!("peers        {}", self.peers.len()));
        lines.extend(self.outbox.human(self.at));
        lines.join("\n")
    }

    /// The peers, for people.
    pub(crate) fn human_peers(&self) -> String {
        if self.peers.is_empty() {
            return "no peers are connected".to_owned();
        }
        self.peers.iter().map(Peer::human).collect::<Vec<_>>().join("\n")
    }
}

impl Peer {
    fn human(&self) -> String {
        let name = self.server_name.as_deref().unwrap_or("(not yet verified)");
        let latency =
            self.latency_ms.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:.1} ms"));
        let sync = match (self.rooms_behind, self.compared_at) {
            (_, None) => "not compared yet".to_owned(),
            (0, Some(_)) => "in sync".to_owned(),
            (behind, Some(_)) => format!("{behind} rooms not in sync"),
        };
        format!(
            "{name}\n  peer id {}\n  path    {}\n  latency {latency}\n  rooms   {} shared, {sync}",
            self.peer_id,
            self.human_path(),
            self.shared_rooms
        )
    }

    fn human_path(&self) -> String {
        let by = self.transport.as_deref().map(|by| format!(" over {by}")).unwrap_or_default();
        match &self.relay {
            Some(relay) => format!("{}{by} through {relay}", self.path),
            None => format!("{}{by}, {}", self.path, self.address),
        }
    }
}
