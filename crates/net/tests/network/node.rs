//! One node for tests: keys, a small service, and the transport, on loopback.

use std::{
    convert::Infallible,
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use messagehub_homeserver::{
    clock::{Clock, ManualClock},
    peers::{
        Acceptance, Inbound, MAX_RESPONSE_BYTES, NetStatus, Outbound, Path, PeerIdentity, Peers,
        Reachability, RequestError,
    },
};
use messagehub_net::{BoxError, NetConfig, RequestBody, Seed, Switch};
use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    server_keys::{ServerKeys, ServerKeysTerms},
};
use prometheus_client::registry::Registry;
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
};

/// The time that all test nodes agree on.
const NOW_MS: u64 = 1_900_000_000_000;

/// Runs a future that must end soon.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(40), future).await.expect("it takes too long")
}

/// Keys of the server with this number, that name these peers.
pub(crate) fn server_keys(number: u8, peer_ids: Vec<String>) -> ServerKeys {
    let identity = IdentityKey::from_seed(&[number; 32]);
    let verify = VerifyKey::from_seed(&[number ^ 0xff; 32]);
    let issued_ts = clock().now();
    ServerKeys::make(
        &identity,
        &verify,
        ServerKeysTerms { old_verify_keys: vec![], peer_ids, issued_ts },
    )
}

/// The seed of the transport key of the node with this number.
pub(crate) fn seed(number: u8) -> Seed {
    Seed::new([number ^ 0x55; 32])
}

fn clock() -> Clock {
    ManualClock::at(NOW_MS).clock()
}

/// What a node is made of, before it starts.
pub(crate) struct Plan {
    pub(crate) number: u8,
    /// What it says about itself; its own keys by default.
    pub(crate) tells: ServerKeys,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) port_file: Option<PathBuf>,
    pub(crate) changes: Vec<Change>,
}

/// What differs from the settings of a loopback node.
pub(crate) type Change = Box<dyn FnOnce(&mut NetConfig)>;

impl Plan {
    pub(crate) fn new(number: u8) -> Self {
        let tells = server_keys(number, vec![seed(number).peer_id()]);
        Self { number, tells, bootstrap: vec![], port_file: None, changes: vec![] }
    }

    /// Changes the settings.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut NetConfig) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Listens nowhere, like a node whose NAT lets nobody in.
    pub(crate) fn hidden(self) -> Self {
        self.with(|config| config.listening = Switch::Off)
    }

    /// Uses these nodes as relays.
    pub(crate) fn behind(self, relays: &[&Node]) -> Self {
        let addresses: Vec<String> = relays.iter().map(|node| node.addresses[0].clone()).collect();
        self.with(|config| config.static_relays = addresses)
    }

    /// Dials these nodes at start.
    pub(crate) fn near(mut self, others: &[&Node]) -> Self {
        self.bootstrap = others.iter().flat_map(|node| node.addresses.clone()).collect();
        self
    }

    pub(crate) async fn start(self) -> Node {
        let seed = seed(self.number);
        let mut config = NetConfig::loopback(seed, clock());
        config.bootstrap_peers = self.bootstrap;
        config.server = Some(self.tells.server_name().to_owned());
        for change in self.changes {
            change(&mut config);
        }
        if let Some(file) = self.port_file {
            config.port_file = Some(file);
            config.listen_addresses = vec![];
        }
        let (peers, outbound) = Peers::pair(1024);
        let (to_homeserver, inbound) = mpsc::channel(64);
        let mut registry = Registry::default();
        let served = Arc::new(AtomicUsize::new(0));
        let release = Arc::new(Notify::new());
        let service = service(self.tells.clone(), served.clone(), release.clone());
        let host =
            messagehub_net::start(&config, service, outbound, to_homeserver, &mut registry).await;
        let host = host.unwrap();
        let (peer_id, addresses) = (host.peer_id(), host.addresses());
        let (stop, stopped) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(host.run(async {
            let _ = stopped.await;
        }));
        let name = self.tells.server_name().to_owned();
        Node {
            name,
            keys: self.tells,
            peer_id,
            addresses,
            peers,
            inbound,
            registry,
            served,
            release,
            stop,
            tasks,
        }
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) name: OwnedServerName,
    pub(crate) keys: ServerKeys,
    pub(crate) peer_id: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) peers: Peers,
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    registry: Registry,
    /// Requests other than for keys that reached the service.
    served: Arc<AtomicUsize>,
    /// Lets one request for `/slow` be answered.
    pub(crate) release: Arc<Notify>,
    stop: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

/// A frame that waits for a verdict.
pub(crate) struct WaitingFrame {
    pub(crate) source: String,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) frame: Bytes,
    reply: oneshot::Sender<Acceptance>,
}

impl WaitingFrame {
    pub(crate) fn judge(self, acceptance: Acceptance) {
        self.reply.send(acceptance).unwrap();
    }
}

impl Node {
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Waits for the next report that `choose` takes.
    pub(crate) async fn wait<T>(&mut self, choose: impl Fn(Inbound) -> Option<T>) -> T {
        within(async {
            loop {
                let report = self.inbound.recv().await.expect("the transport ended");
                if let Some(chosen) = choose(report) {
                    return chosen;
                }
            }
        })
        .await
    }

    /// Waits until a server is here; gives its peer and addresses.
    pub(crate) async fn wait_for(&mut self, other: &Node) -> (String, Vec<String>) {
        self.wait_for_name(&other.name.clone()).await
    }

    pub(crate) async fn wait_for_name(&mut self, name: &OwnedServerName) -> (String, Vec<String>) {
        self.wait(|report| match report {
            Inbound::Connected { server_keys, peer_id, addresses }
                if server_keys.server_name() == name =>
            {
                Some((peer_id, addresses))
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn wait_gone(&mut self, name: &OwnedServerName) {
        self.wait(|report| match report {
            Inbound::Disconnected { server } if server == *name => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn wait_path_lost(&mut self, name: &OwnedServerName) {
        self.wait(|report| match report {
            Inbound::PathLost { server } if server == *name => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn wait_frame(&mut self) -> WaitingFrame {
        self.wait(|report| match report {
            Inbound::Frame { source, room_id, frame, reply } => {
                Some(WaitingFrame { source, room_id, frame, reply })
            }
            _ => None,
        })
        .await
    }

    /// Waits until a peer of `other` subscribed to a room.
    pub(crate) async fn wait_subscribed(&mut self, other: &Node, room: &RoomId) {
        let peer = other.peer_id.clone();
        self.wait(|report| match report {
            Inbound::Subscribed { peer_id, room_id, .. } if peer_id == peer && room_id == room => {
                Some(())
            }
            _ => None,
        })
        .await;
    }

    pub(crate) async fn join(&self, room_id: &RoomId) {
        assert!(self.peers.tell(Outbound::Join { room_id: room_id.to_owned() }).await);
    }

    /// Tells the transport whom this node shares rooms with.
    pub(crate) async fn trust(&self, others: &[&Node]) {
        let servers = others.iter().map(|other| other.name.clone()).collect();
        assert!(self.peers.tell(Outbound::Trusted { servers }).await);
    }

    /// Tells the transport of a server, as the homeserver does after a restart, and trusts it.
    pub(crate) async fn knows(&self, others: &[&Node]) {
        for other in others {
            self.learn(other.keys.clone(), vec![]).await;
        }
        self.trust(others).await;
    }

    /// Waits until the status is as it should be.
    pub(crate) async fn until(&self, is_right: impl Fn(&NetStatus) -> bool) -> NetStatus {
        within(async {
            let mut look = tokio::time::interval(Duration::from_millis(50));
            loop {
                look.tick().await;
                let status = self.peers.status().await.expect("the transport ended");
                if is_right(&status) {
                    return status;
                }
            }
        })
        .await
    }

    /// Waits until this node is reachable through a relay; gives the address.
    pub(crate) async fn until_relayed(&self) -> String {
        let is_relayed = |status: &NetStatus| matches!(&status.reachability, Reachability::Private { relays } if !relays.is_empty());
        match self.until(is_relayed).await.reachability {
            Reachability::Private { relays } => relays[0].address.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Which way the connection with another node goes.
    pub(crate) async fn path_to(&self, other: &Node) -> Option<Path> {
        let status = self.peers.status().await.unwrap();
        let mut peers = status.peers.into_iter();
        peers.find(|peer| peer.peer_id == other.peer_id).map(|peer| peer.path)
    }

    pub(crate) async fn gossip(&self, room_id: &RoomId, frame: Bytes) {
        assert!(self.peers.tell(Outbound::Gossip { room_id: room_id.to_owned(), frame }).await);
    }

    pub(crate) async fn learn(&self, server_keys: ServerKeys, addresses: Vec<String>) {
        assert!(self.peers.tell(Outbound::Learn { server_keys, addresses }).await);
    }

    /// Asks `other` for `path` with a body.
    pub(crate) async fn ask(
        &self,
        other: &OwnedServerName,
        path: &str,
        body: &'static [u8],
    ) -> Result<Response<Bytes>, RequestError> {
        let request = Request::put(path).body(Bytes::from_static(body)).unwrap();
        self.peers.request(other.clone(), request, Duration::from_secs(30)).await
    }

    /// The value of a metric, as the text of its line begins.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |value| value.parse().unwrap())
    }

    /// Ends the node politely.
    pub(crate) async fn stop(mut self) {
        self.stop.send(()).unwrap();
        within(self.tasks.join_next()).await.unwrap().unwrap();
    }
}

type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Tells its keys, echoes bodies, and sends more than it should when asked.
fn service(
    keys: ServerKeys,
    served: Arc<AtomicUsize>,
    release: Arc<Notify>,
) -> impl tower::Service<
    Request<RequestBody>,
    Response = Response<ResponseBody>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |request: Request<RequestBody>| {
        let (keys, served, release) = (keys.clone(), served.clone(), release.clone());
        async move {
            let path = request.uri().to_string();
            let peer = request.extensions().get::<PeerIdentity>().unwrap().peer_id.clone();
            if path == "/_matrix/key/v2/server" {
                return Ok(answer(keys.json().get().to_owned(), ""));
            }
            served.fetch_add(1, Ordering::SeqCst);
            if path == "/huge" {
                return Ok(Response::new(huge()));
            }
            if path == "/slow" {
                release.notified().await;
                return Ok(answer("slow", ""));
            }
            if path == "/never" {
                return std::future::pending().await;
            }
            let body = request.into_body().collect().await;
            Ok(match body {
                Ok(body) => answer(body.to_bytes(), &format!("{peer} {path}")),
                Err(_) => {
                    let mut refused = answer("", "");
                    *refused.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                    refused
                }
            })
        }
    })
}

fn answer(body: impl Into<Bytes>, from: &str) -> Response<ResponseBody> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().header("x-from", from).body(body).unwrap()
}

/// A body of one byte more than is allowed, whose length is not declared.
fn huge() -> ResponseBody {
    let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
    let pieces = std::iter::repeat_n(piece, MAX_RESPONSE_BYTES / (1024 * 1024));
    let pieces = pieces.chain([Bytes::from_static(b"!")]);
    let frames = futures::stream::iter(pieces.map(|piece| Ok::<_, BoxError>(Frame::data(piece))));
    StreamBody::new(frames).boxed_unsync()
}
