//! Requests a second over one HTTP/2 stream between two nodes, beside a probe: hyper's HTTP/2 over a
//! stream of `libp2p-stream` in a swarm with nothing else, and with none of our bounds. Loopback only.
//!
//! ```text
//! request_rate [ROUNDS] [SECONDS]
//! ```
//!
//! Each round measures, for SECONDS each, the probe in a process of tokio's default for either end,
//! the probe with each end on one thread, and the node, whose network has one thread; first over QUIC
//! and then over TCP. The ratios are those of the same round. Sixty-four requests at once to an axum
//! router that knows the PeerId, answers of 900 bytes of JSON.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    error::Error,
    future::Future,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Json, Router, body::Body, routing::get};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::join_all};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    identity::Keypair,
    noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use messagehub_homeserver::{
    clock::{Clock, timestamp},
    peers::{Inbound, PeerIdentity, Peers},
};
use messagehub_net::{NetConfig, RequestBody, Seed, Switch};
use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    server_keys::{ServerKeys, ServerKeysTerms},
};
use prometheus_client::registry::Registry;
use ruma::OwnedServerName;
use serde::Serialize;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::compat::FuturesAsyncReadCompatExt;
use tower::ServiceExt;

type Failure = Box<dyn Error + Send + Sync>;

/// Requests at once.
const AT_ONCE: usize = 64;

/// Of each answer.
const ANSWER_BYTES: usize = 900;

/// How long anything but the measuring may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the probe speaks.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/probe/1");

/// What is asked for.
const URI: &str = "/_matrix/federation/v1/version";

#[derive(Clone, Copy, Debug)]
enum Kind {
    Quic,
    Tcp,
}

impl Kind {
    fn listen(self) -> &'static str {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The probe on tokio's default runtime.
    Probe,
    /// The probe on one thread.
    Narrow,
    Node,
}

impl Side {
    fn runtime(self) -> std::io::Result<Runtime> {
        match self {
            Self::Probe => Builder::new_multi_thread().enable_all().build(),
            Self::Narrow | Self::Node => Builder::new_current_thread().enable_all().build(),
        }
    }
}

const KINDS: [Kind; 2] = [Kind::Quic, Kind::Tcp];
const SIDES: [Side; 3] = [Side::Probe, Side::Narrow, Side::Node];

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|text| text == "serve").is_some() {
        let chosen: Vec<usize> = arguments.map(|text| text.parse()).collect::<Result<_, _>>()?;
        let &[kind, side] = chosen.as_slice() else { return Err("serve KIND SIDE".into()) };
        return serve(KINDS[kind], SIDES[side]);
    }
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    for (kind, which) in KINDS.into_iter().zip(0..) {
        let mut rates: [Vec<Rate>; SIDES.len()] = Default::default();
        for _ in 0..rounds {
            for (side, number) in SIDES.into_iter().zip(0..) {
                let server = Server::start(which, number)?;
                let measured = Duration::from_secs_f64(seconds);
                let rate = side.runtime()?.block_on(async {
                    match side {
                        Side::Probe | Side::Narrow => probe_rate(kind, measured, &server).await,
                        Side::Node => node_rate(measured, &server).await,
                    }
                })?;
                rates[number].push(rate);
            }
        }
        let [probe, narrow, node] = &rates;
        for (rates, name) in
            [(probe, "probe"), (narrow, "probe, one thread an end"), (node, "node")]
        {
            let (a_second, cpu_us) = (middle(rates, |r| r.a_second), middle(rates, |r| r.cpu_us));
            println!("{kind:?}, {name}: {a_second:.0}/s at {cpu_us:.1} µs of CPU");
        }
        for (rates, name) in [(probe, "probe"), (narrow, "probe of one thread an end")] {
            let ratios = rates.iter().zip(node).map(|(probe, node)| node.a_second / probe.a_second);
            println!("{kind:?}, node to {name} in one round: {:.2}", median(ratios.collect()));
        }
    }
    Ok(())
}

fn middle(rates: &[Rate], of: impl Fn(&Rate) -> f64) -> f64 {
    median(rates.iter().map(of).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Answers a second, and the CPU time of both ends for each in microseconds.
#[derive(Clone, Copy)]
struct Rate {
    a_second: f64,
    cpu_us: f64,
}

/// The end that answers, in a process of its own, which ends when this is dropped.
struct Server {
    process: Child,
    address: Multiaddr,
    peer_id: PeerId,
}

impl Server {
    fn start(kind: usize, side: usize) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", &kind.to_string(), &side.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (address, peer_id) = line.trim().split_once(' ').ok_or("the server did not start")?;
        Ok(Self { address: address.parse()?, peer_id: peer_id.parse()?, process })
    }

    /// CPU time of both processes so far, in seconds.
    fn cpu_seconds(&self) -> Result<f64, Failure> {
        Ok(cpu_seconds(std::process::id())? + cpu_seconds(self.process.id())?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU time of a process so far: a clock tick is a hundredth of a second on every Linux.
fn cpu_seconds(process: u32) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit(") ").next().ok_or("no fields")?.split(' ');
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

/// Answers until whoever started this process ends it, or goes.
fn serve(kind: Kind, side: Side) -> Result<(), Failure> {
    std::thread::spawn(|| {
        // The other end of standard input is closed when its process ends.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    side.runtime()?.block_on(async {
        match side {
            Side::Probe | Side::Narrow => serve_probe(kind).await,
            Side::Node => {
                let (end, run) = End::start(1, (vec![kind.listen().to_owned()], vec![])).await?;
                let address = end.addresses.first().ok_or("no address")?;
                println!("{address} {}", Seed::new([1; 32]).peer_id());
                run.await;
                Ok(())
            }
        }
    })
}

/// Asks, from as many tasks as [`AT_ONCE`], for as long as `measured`.
async fn rate<F>(ask: impl Fn() -> F, measured: Duration, server: &Server) -> Result<Rate, Failure>
where
    F: Future<Output = Result<usize, Failure>> + Send + 'static,
{
    // The first request makes the connection.
    ask().await?;
    let (begun, cpu) = (Instant::now(), server.cpu_seconds()?);
    let one = || async {
        let mut answered = 0_u32;
        while begun.elapsed() < measured {
            let bytes = ask().await?;
            if bytes != ANSWER_BYTES {
                return Err(format!("an answer of {bytes} bytes").into());
            }
            answered += 1;
        }
        Ok::<_, Failure>(answered)
    };
    let counts = join_all((0..AT_ONCE).map(|_| one())).await;
    let total: u32 = counts.into_iter().sum::<Result<u32, Failure>>()?;
    let a_second = f64::from(total) / begun.elapsed().as_secs_f64();
    Ok(Rate { a_second, cpu_us: (server.cpu_seconds()? - cpu) * 1e6 / f64::from(total) })
}

/// What both answer.
#[derive(Serialize)]
struct Answer {
    filler: String,
}

async fn answer() -> Json<Answer> {
    Json(Answer { filler: "x".repeat(ANSWER_BYTES - 13) })
}

// The probe.

async fn serve_stream(peer: PeerId, stream: Stream) {
    let answering = |Extension(_): Extension<PeerId>| answer();
    let router: Router = Router::new().route(URI, get(answering)).layer(Extension(peer));
    let service = service_fn(move |request: Request<Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // It ends with the measurement, when the other side goes.
    let _ = connection.serve_connection(TokioIo::new(stream.compat()), service).await;
}

/// A swarm that speaks the one protocol.
fn probe(kind: Kind) -> Result<Swarm<libp2p_stream::Behaviour>, Failure> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let behaviour = |_: &Keypair| libp2p_stream::Behaviour::new();
    Ok(match kind {
        Kind::Quic => builder.with_quic().with_behaviour(behaviour)?.build(),
        Kind::Tcp => builder
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
            .with_behaviour(behaviour)?
            .build(),
    })
}

/// Drives a swarm of which nothing more is asked.
async fn run(mut swarm: Swarm<libp2p_stream::Behaviour>) {
    loop {
        swarm.select_next_some().await;
    }
}

async fn serve_probe(kind: Kind) -> Result<(), Failure> {
    let mut server = probe(kind)?;
    server.listen_on(kind.listen().parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = server.select_next_some().await {
            break address;
        }
    };
    let mut streams = server.behaviour().new_control().accept(PROTOCOL)?;
    println!("{address} {}", server.local_peer_id());
    let mut tasks = JoinSet::new();
    tasks.spawn(run(server));
    while let Some((peer, stream)) = streams.next().await {
        tasks.spawn(serve_stream(peer, stream));
    }
    Ok(())
}

async fn probe_rate(kind: Kind, measured: Duration, server: &Server) -> Result<Rate, Failure> {
    let mut tasks = JoinSet::new();
    let mut client = probe(kind)?;
    let mut control = client.behaviour().new_control();
    let address = vec![server.address.clone()];
    client.dial(DialOpts::peer_id(server.peer_id).addresses(address).build())?;
    tasks.spawn(run(client));
    let stream = timeout(PATIENCE, control.open_stream(server.peer_id, PROTOCOL)).await??;
    let (sender, link) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream.compat()))
        .await?;
    tasks.spawn(async move {
        // It ends with the measurement.
        let _ = link.await;
    });
    let ask = || {
        let mut sender = sender.clone();
        async move {
            let request = Request::get(format!("http://peer{URI}"));
            let answer = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
            Ok(answer.into_body().collect().await?.to_bytes().len())
        }
    };
    rate(ask, measured, server).await
}

// The node.

fn clock() -> Clock {
    Clock::new(|| timestamp(1_900_000_000_000))
}

/// One end: its port and its addresses.
struct End {
    peers: Peers,
    inbound: mpsc::Receiver<Inbound>,
    addresses: Vec<String>,
}

impl End {
    /// Starts it; the future drives it.
    async fn start(
        number: u8,
        (listen, bootstrap): (Vec<String>, Vec<String>),
    ) -> Result<(Self, futures::future::BoxFuture<'static, ()>), Failure> {
        let seed = Seed::new([number; 32]);
        let terms = ServerKeysTerms {
            old_verify_keys: Vec::new(),
            peer_ids: vec![seed.peer_id()],
            issued_ts: clock().now(),
        };
        let (identity, verify) =
            (IdentityKey::from_seed(&[number; 32]), VerifyKey::from_seed(&[!number; 32]));
        let keys = ServerKeys::make(&identity, &verify, terms);
        let mut config = NetConfig::loopback(seed, clock());
        if listen.is_empty() {
            config.listening = Switch::Off;
        }
        config.listen_addresses = listen;
        config.bootstrap_peers = bootstrap;
        config.server = Some(keys.server_name().to_owned());
        let (peers, outbound) = Peers::pair(1_024);
        let (reports, inbound) = mpsc::channel(64);
        let told = Bytes::from(keys.json().get().to_owned());
        let router: Router = Router::new()
            .route(URI, get(|Extension(_): Extension<PeerIdentity>| answer()))
            .route("/_matrix/key/v2/server", get(move || async move { told }));
        let service = tower::service_fn(move |request: Request<RequestBody>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let mut registry = Registry::default();
        let host =
            messagehub_net::start(&config, service, outbound, reports, &mut registry).await?;
        let addresses = host.addresses();
        let run = host.run(std::future::pending()).boxed();
        Ok((Self { peers, inbound, addresses }, run))
    }

    async fn meet(&mut self, server: &OwnedServerName) -> Result<(), Failure> {
        let meeting = async {
            while let Some(report) = self.inbound.recv().await {
                if let Inbound::Connected { server_keys, .. } = report
                    && server_keys.server_name() == server
                {
                    return Ok(());
                }
            }
            Err("the transport ended")
        };
        Ok(timeout(PATIENCE, meeting).await??)
    }
}

async fn node_rate(measured: Duration, server: &Server) -> Result<Rate, Failure> {
    let mut tasks = JoinSet::new();
    let address = format!("{}/p2p/{}", server.address, server.peer_id);
    let (mut client, run) = End::start(2, (Vec::new(), vec![address])).await?;
    tasks.spawn(run);
    let name = IdentityKey::from_seed(&[1; 32]).server_name().to_owned();
    client.meet(&name).await?;
    let (peers, name) = (Arc::new(client.peers), Arc::new(name));
    let ask = || {
        let (peers, name) = (Arc::clone(&peers), Arc::clone(&name));
        async move {
            let request = Request::get(URI).body(Bytes::new())?;
            let answer = peers.request(OwnedServerName::clone(&name), request, PATIENCE).await;
            Ok(answer?.into_body().len())
        }
    };
    rate(ask, measured, server).await
}
