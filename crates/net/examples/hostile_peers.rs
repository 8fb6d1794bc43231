//! A thousand strangers with bad manners, for `tests/bench/hostile.sh`. Loopback only.
//!
//! ```text
//! hostile_peers ADDRESS SERVER_NAME [PEERS] [SECONDS]
//! ```
//!
//! Each has an identity of its own, connects to ADDRESS (a multiaddr with `/p2p/<PeerId>`), and
//! until the time is up, about twice a second, does one of these: subscribes to fifty rooms that
//! are none, publishes noise to one, asks with and without a signature, or sends a transaction of
//! a megabyte. Beside them a hundred TCP connections begin a handshake and never go on.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::{
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use messagehub_homeserver::{
    clock::{Clock, timestamp},
    peers::{Inbound, Outbound, Peers, RequestError},
};
use messagehub_net::{NetConfig, RequestBody, Seed, Switch};
use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    server_keys::{ServerKeys, ServerKeysTerms},
    wire::request::{self, RequestParts, SERVER_KEYS_HEADER},
};
use prometheus_client::registry::Registry;
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc, task::JoinSet, time::Instant};

/// Handshakes that are begun and never finished.
const SLOW: usize = 100;

/// Between two deeds of one peer.
const PAUSE: Duration = Duration::from_millis(500);

/// Rooms subscribed to in one deed.
const ROOMS: u64 = 50;

/// What came of all of it.
#[derive(Default)]
struct Tally {
    connected: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    unreachable: AtomicU64,
}

/// One of them.
struct Stranger {
    number: u64,
    keys: ServerKeys,
    verify_key: VerifyKey,
    peers: Peers,
    victim: OwnedServerName,
    clock: Clock,
    tally: Arc<Tally>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: hostile_peers ADDRESS SERVER_NAME [PEERS] [SECONDS]";
    let (address, victim) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let victim = OwnedServerName::try_from(victim)?;
    let count: u64 = arguments.next().map_or(Ok(1_000), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(60), |text| text.parse())?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let tally = Arc::<Tally>::default();
    let mut all = JoinSet::new();
    for number in 0..count {
        all.spawn(live(number, address.clone(), victim.clone(), end, tally.clone()));
    }
    for _ in 0..SLOW {
        all.spawn(dawdle(socket_of(&address)?, end));
    }
    all.join_all().await;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "connections made {}, requests answered {}, refused {}, without a way {}",
        count(&tally.connected),
        count(&tally.answered),
        count(&tally.refused),
        count(&tally.unreachable),
    );
    Ok(())
}

/// The TCP socket of a multiaddr `/ip4/…/tcp/…/…`.
fn socket_of(address: &str) -> Result<SocketAddr, Box<dyn Error>> {
    let parts: Vec<&str> = address.split('/').collect();
    match parts.as_slice() {
        ["", "ip4", ip, "tcp", port, ..] => Ok(format!("{ip}:{port}").parse()?),
        _ => Err("ADDRESS must begin with /ip4/…/tcp/…".into()),
    }
}

/// Begins a handshake and keeps the connection for as long as it is let.
async fn dawdle(to: SocketAddr, end: Instant) {
    while Instant::now() < end {
        if let Ok(mut stream) = TcpStream::connect(to).await
            && stream.write_all(b"\x13/multistream/1.0.0\n").await.is_ok()
        {
            tokio::time::sleep_until(end.min(Instant::now() + Duration::from_secs(30))).await;
        } else {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn live(
    number: u64,
    address: String,
    victim: OwnedServerName,
    end: Instant,
    tally: Arc<Tally>,
) {
    let seed = |salt: u64| {
        let mut seed = [0xaa; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        seed[8..16].copy_from_slice(&salt.to_be_bytes());
        seed
    };
    let clock = Clock::new(|| timestamp(now_ms()));
    let (identity, verify_key) = (IdentityKey::from_seed(&seed(1)), VerifyKey::from_seed(&seed(2)));
    let peer_ids = vec![Seed::new(seed(3)).peer_id()];
    let terms = ServerKeysTerms { old_verify_keys: Vec::new(), peer_ids, issued_ts: clock.now() };
    let keys = ServerKeys::make(&identity, &verify_key, terms);
    let mut config = NetConfig::loopback(Seed::new(seed(3)), clock.clone());
    config.listening = Switch::Off;
    config.bootstrap_peers = vec![address];
    let (peers, outbound) = Peers::pair(1_024);
    let (to_us, inbound) = mpsc::channel(64);
    let (mut registry, told) = (Registry::default(), keys.json().get().to_owned());
    let service = tower::service_fn(move |_: Request<RequestBody>| {
        let told = told.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(told)))) }
    });
    let host = match messagehub_net::start(&config, service, outbound, to_us, &mut registry).await {
        Ok(host) => host,
        Err(error) => return eprintln!("stranger {number}: {error}"),
    };
    let stranger = Stranger { number, keys, verify_key, peers, victim, clock, tally };
    tokio::join!(host.run(tokio::time::sleep_until(end)), stranger.misbehave(inbound, end));
}

impl Stranger {
    async fn misbehave(self, mut inbound: mpsc::Receiver<Inbound>, end: Instant) {
        // Not all in the same moment.
        tokio::time::sleep(PAUSE.mul_f64((self.number % 100) as f64 / 100.0)).await;
        for deed in 0.. {
            while let Ok(report) = inbound.try_recv() {
                if matches!(report, Inbound::Connected { .. }) {
                    self.tally.connected.fetch_add(1, Ordering::Relaxed);
                }
            }
            if Instant::now() >= end {
                return;
            }
            match deed % 5 {
                0 => self.subscribe(deed).await,
                1 => self.publish(deed),
                2 => {
                    self.ask(("GET", "/_matrix/federation/v1/query/profile?user_id=%40a%3Ab"), "")
                        .await
                }
                3 => self.ask_unsigned(),
                _ => {
                    let filler = "x".repeat(1_000_000);
                    let body = format!(r#"{{"pdus":[{{"type":"{filler}"}}],"edus":[]}}"#);
                    self.ask(("PUT", "/_matrix/federation/v1/send/1"), &body).await;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn room(&self, n: u64) -> Option<OwnedRoomId> {
        RoomId::parse(format!("!{}-{n}:nowhere.example", self.number)).ok()
    }

    async fn subscribe(&self, deed: u64) {
        for n in 0..ROOMS {
            if let Some(room_id) = self.room(deed * ROOMS + n) {
                self.peers.tell(Outbound::Join { room_id }).await;
            }
        }
    }

    fn publish(&self, deed: u64) {
        if let Some(room_id) = self.room(deed.saturating_sub(1) * ROOMS) {
            let frame = Bytes::from(deed.to_be_bytes().repeat(1_024));
            self.peers.offer(Outbound::Gossip { room_id, frame });
        }
    }

    async fn ask(&self, (method, uri): (&str, &str), body: &str) {
        let parts = RequestParts { method, uri, body: body.as_bytes() };
        let origin = self.keys.server_name();
        let now = self.clock.now();
        let Ok(signature) = request::sign(parts, origin, &self.victim, now, &self.verify_key)
        else {
            return;
        };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(http::header::AUTHORIZATION, signature.header_value())
            .header(SERVER_KEYS_HEADER, request::server_keys_header(&self.keys))
            .body(Bytes::from(body.to_owned()));
        if let Ok(request) = request {
            let asking = self.peers.request(self.victim.clone(), request, PAUSE * 10);
            self.note(asking.await);
        }
    }

    fn ask_unsigned(&self) {
        // The answer is of no interest: the request is given up at once.
        let (reply, _) = tokio::sync::oneshot::channel();
        let uri = "/_matrix/federation/v1/state/!x:y?event_id=z";
        if let Ok(request) = Request::get(uri).body(Bytes::new()) {
            let destination = self.victim.clone();
            self.peers.offer(Outbound::Request { destination, request, reply });
        }
    }

    fn note(&self, outcome: Result<Response<Bytes>, RequestError>) {
        let counter = match outcome {
            Ok(response) if response.status().is_success() => &self.tally.answered,
            Ok(_) => &self.tally.refused,
            Err(_) => &self.tally.unreachable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "the peers of a running node live in its time")]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
