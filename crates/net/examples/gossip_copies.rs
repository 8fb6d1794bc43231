//! Copies and bytes of each message in a room of many nodes: nodes in one process, each connected
//! with all others, as members of a room of a hundred are, and nothing but gossip between them.
//!
//! ```text
//! gossip_copies [NODES] [MESSAGES] [BYTES]
//! ```
//!
//! Copies are counted twice over: what the homeservers are given, and what gossipsub itself says
//! it had already. Bytes are those of the loopback interface, so run it in a network namespace of
//! its own: `tests/bench/network.sh copies`.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use messagehub_homeserver::{
    clock::{Clock, timestamp},
    peers::{Acceptance, Inbound, Outbound, Peers},
};
use messagehub_net::{NetConfig, RequestBody, Seed};
use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    server_keys::{ServerKeys, ServerKeysTerms},
};
use prometheus_client::registry::Registry;
use ruma::{OwnedRoomId, RoomId};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// How long the nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long a message may take to all nodes: they share the cores of one machine.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Between the arrival of one message everywhere and the next: its last copies come meanwhile.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the bytes are counted that nodes exchange without a message.
const IDLE: Duration = Duration::from_secs(10);

/// Bytes of a message of a hundred characters as a sealed frame.
const FRAME_BYTES: usize = 1_500;

/// What all nodes count together.
#[derive(Debug, Default)]
struct Tally {
    first: AtomicU64,
    again: AtomicU64,
    /// From publishing to the homeserver of another node, summed, in microseconds.
    delay_us: AtomicU64,
    slowest_us: AtomicU64,
    begun_us: AtomicU64,
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Counts what gossipsub says about copies that it had already.
struct Copies(Arc<Tally>);

/// Whether an event of the log is about a copy.
struct Said(bool);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 |= format!("{value:?}").starts_with("Message already received");
        }
    }
}

impl Subscriber for Copies {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() == Level::DEBUG
            && metadata.target().starts_with("libp2p_gossipsub")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said(false);
        event.record(&mut said);
        self.0.again.fetch_add(u64::from(said.0), Ordering::Relaxed);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u8 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let messages: u64 = arguments.next().map_or(Ok(50), |text| text.parse())?;
    let size: usize = arguments.next().map_or(Ok(FRAME_BYTES), |text| text.parse())?;
    let tally = Arc::<Tally>::default();
    tracing::subscriber::set_global_default(Copies(Arc::clone(&tally)))?;
    let room_id = RoomId::parse("!measured:example.org")?;
    let origin = Instant::now();
    let mut tasks = JoinSet::new();
    let (mut nodes, mut known) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (peers, address) =
            start(number, known.clone(), &mut tasks, (Arc::clone(&tally), origin)).await?;
        // All are members of the room, and so no strangers.
        let all: Vec<ServerKeys> = (0..count).map(keys).collect();
        let servers = all.iter().map(|keys| keys.server_name().to_owned()).collect();
        for server_keys in all {
            peers.tell(Outbound::Learn { server_keys, addresses: Vec::new() }).await;
        }
        peers.tell(Outbound::Trusted { servers }).await;
        peers.tell(Outbound::Join { room_id: room_id.clone() }).await;
        nodes.push(peers);
        known.push(address);
    }
    let all = nodes.len() * (nodes.len() - 1);
    let mut found = 0;
    while found < all && origin.elapsed() < PATIENCE {
        sleep(Duration::from_secs(1)).await;
        let status = join_all(nodes.iter().map(Peers::status)).await;
        found = status.into_iter().flatten().map(|status| status.peers.len()).sum();
    }
    println!("{found} of {all} neighbours found after {:.0?}", origin.elapsed());
    // Until each has its mesh: ten heartbeats.
    sleep(Duration::from_secs(10)).await;

    let (before, begun) = (loopback_bytes()?, Instant::now());
    sleep(IDLE).await;
    let idle = (loopback_bytes()? - before) as f64 / begun.elapsed().as_secs_f64();
    let (before, begun, again) = (loopback_bytes()?, Instant::now(), get(&tally.again));
    for number in 0..messages {
        let sender = &nodes[usize::try_from(number)? % nodes.len()];
        publish(sender, &room_id, (number, size), (&tally, origin));
        let all = (number + 1) * (u64::from(count) - 1);
        let late = Instant::now() + ARRIVAL;
        while get(&tally.first) < all && Instant::now() < late {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(PAUSE).await;
    }
    let bytes = loopback_bytes()? - before;
    let bytes = bytes.saturating_sub((idle * begun.elapsed().as_secs_f64()) as u64);
    report(&tally, (messages, u64::from(count), size as u64), (bytes, again));
    Ok(())
}

fn publish(
    sender: &Peers,
    room_id: &OwnedRoomId,
    (number, size): (u64, usize),
    (tally, origin): (&Tally, Instant),
) {
    let mut frame = vec![0x5a; size];
    frame[..8].copy_from_slice(&number.to_be_bytes());
    tally.begun_us.store(micros(origin), Ordering::Relaxed);
    sender.offer(Outbound::Gossip { room_id: room_id.clone(), frame: Bytes::from(frame) });
}

fn report(tally: &Tally, (messages, nodes, size): (u64, u64, u64), (bytes, again): (u64, u64)) {
    let first = get(&tally.first);
    let again = get(&tally.again) - again;
    let each = |value: u64| value as f64 / messages as f64;
    let of_node = |value: u64| each(value) / nodes as f64;
    println!("{messages} messages of {size} bytes among {nodes} nodes");
    println!("nodes that got each message: {:.1} of {}", each(first), nodes - 1);
    println!(
        "copies of each message: {:.0}; for each node {:.2}",
        each(first + again),
        of_node(first + again)
    );
    println!(
        "bytes on the wire for each message: {:.0}; for each node {:.0}",
        each(bytes),
        of_node(bytes)
    );
    println!(
        "until another node has it: mean {:.1} ms, longest {:.1} ms",
        get(&tally.delay_us) as f64 / first.max(1) as f64 / 1e3,
        get(&tally.slowest_us) as f64 / 1e3
    );
}

fn micros(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The bytes that the loopback interface of this namespace received so far.
fn loopback_bytes() -> Result<u64, Box<dyn Error>> {
    let table = std::fs::read_to_string("/proc/net/dev")?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next()).ok_or("no loopback")?;
    Ok(bytes.parse()?)
}

fn clock() -> Clock {
    Clock::new(|| timestamp(1_900_000_000_000))
}

fn keys(number: u8) -> ServerKeys {
    let terms = ServerKeysTerms {
        old_verify_keys: Vec::new(),
        peer_ids: vec![Seed::new([number; 32]).peer_id()],
        issued_ts: clock().now(),
    };
    let (identity, verify) =
        (IdentityKey::from_seed(&[number; 32]), VerifyKey::from_seed(&[!number; 32]));
    ServerKeys::make(&identity, &verify, terms)
}

/// Starts a node that dials all that are there; gives its port and address.
async fn start(
    number: u8,
    known: Vec<String>,
    tasks: &mut JoinSet<()>,
    (tally, origin): (Arc<Tally>, Instant),
) -> Result<(Peers, String), Box<dyn Error>> {
    let keys = keys(number);
    let mut config = NetConfig::loopback(Seed::new([number; 32]), clock());
    config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.bootstrap_peers = known;
    config.server = Some(keys.server_name().to_owned());
    let (peers, outbound) = Peers::pair(1_024);
    let (reports, inbound) = mpsc::channel(4_096);
    let told = Bytes::from(keys.json().get().to_owned());
    let service = tower::service_fn(move |_: Request<RequestBody>| {
        let told = told.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(told))) }
    });
    let mut registry = Registry::default();
    let host = messagehub_net::start(&config, service, outbound, reports, &mut registry).await?;
    let address = host.addresses().into_iter().next().ok_or("it does not listen")?;
    tasks.spawn(host.run(std::future::pending()));
    tasks.spawn(judge(inbound, tally, origin));
    Ok((peers, address))
}

/// The homeserver's part: it takes every frame.
async fn judge(mut inbound: mpsc::Receiver<Inbound>, tally: Arc<Tally>, origin: Instant) {
    while let Some(report) = inbound.recv().await {
        let Inbound::Frame { reply, .. } = report else { continue };
        let delay = micros(origin).saturating_sub(get(&tally.begun_us));
        tally.first.fetch_add(1, Ordering::Relaxed);
        tally.delay_us.fetch_add(delay, Ordering::Relaxed);
        tally.slowest_us.fetch_max(delay, Ordering::Relaxed);
        // The transport may have ended.
        let _ = reply.send(Acceptance::Accept);
    }
}
