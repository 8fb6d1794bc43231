//! Requests a second over one HTTP/2 stream between two nodes, beside a probe: hyper's HTTP/2 over a
//! stream of `libp2p-stream` in a swarm with nothing else, and with none of our bounds. Loopback only.
//!
//! ```text
//! request_rate [ROUNDS] [SECONDS]
//! ```
//!
//! Each round measures probe and node one after the other, for SECONDS each, first over QUIC and
//! then over TCP; the ratio is that of the same round. Sixty-four requests at once, answers of 900
//! bytes of JSON, both ends in this process, each on one thread of its own, as the network of a node
//! is.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{convert::Infallible, error::Error, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use libp2p::{
    PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    identity::Keypair,
    noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use messagehub_homeserver::{
    clock::{Clock, timestamp},
    peers::{Inbound, Peers},
};
use messagehub_net::{NetConfig, RequestBody, Seed, Switch};
use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    server_keys::{ServerKeys, ServerKeysTerms},
};
use prometheus_client::registry::Registry;
use ruma::OwnedServerName;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::compat::FuturesAsyncReadCompatExt;

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

/// The end that asks runs on this thread, the one that answers on another.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let there =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let outcome = measure(there.handle()).await;
    there.shutdown_background();
    outcome
}

async fn measure(there: &Handle) -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    let measured = Duration::from_secs_f64(seconds);
    for kind in [Kind::Quic, Kind::Tcp] {
        let (mut probes, mut nodes) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let probe = probe_rate((kind, measured), there).await?;
            let node = node_rate((kind, measured), there).await?;
            println!("{kind:?}: {}", compared(probe, node));
            probes.push(probe);
            nodes.push(node);
        }
        let ratios = probes.iter().zip(&nodes).map(|(probe, node)| node.a_second / probe.a_second);
        let ratio = median(ratios.collect());
        let [probe, node] = [probes, nodes].map(medians);
        println!("{kind:?}, medians: {}; ratio of one round {ratio:.2}", compared(probe, node));
    }
    Ok(())
}

fn compared(probe: Rate, node: Rate) -> String {
    format!(
        "probe {:.0}/s at {:.1} µs of CPU, node {:.0}/s at {:.1} µs, {:.2}",
        probe.a_second,
        probe.cpu_us,
        node.a_second,
        node.cpu_us,
        node.a_second / probe.a_second
    )
}

fn medians(rates: Vec<Rate>) -> Rate {
    Rate {
        a_second: median(rates.iter().map(|rate| rate.a_second).collect()),
        cpu_us: median(rates.iter().map(|rate| rate.cpu_us).collect()),
    }
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

/// CPU time of this process so far, in seconds: a clock tick is a hundredth of one on every Linux.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(") ").next().ok_or("no fields")?.split(' ');
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

/// Asks, from as many tasks as [`AT_ONCE`], for as long as `measured`.
async fn rate<F>(ask: impl Fn() -> F, measured: Duration) -> Result<Rate, Failure>
where
    F: Future<Output = Result<usize, Failure>> + Send + 'static,
{
    // The first request makes the connection.
    ask().await?;
    let (begun, cpu) = (Instant::now(), cpu_seconds()?);
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
    Ok(Rate { a_second, cpu_us: (cpu_seconds()? - cpu) * 1e6 / f64::from(total) })
}

fn answer() -> Bytes {
    Bytes::from(format!(r#"{{"filler":"{}"}}"#, "x".repeat(ANSWER_BYTES - 13)))
}

// The probe.

async fn serve_stream(peer: PeerId, stream: Stream) {
    let body = answer();
    let service = service_fn(move |mut request: Request<Incoming>| {
        // What the router of a server needs to know.
        request.extensions_mut().insert(peer);
        let body = body.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
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

/// A probe that listens, and where.
async fn listening(
    kind: Kind,
) -> Result<(Swarm<libp2p_stream::Behaviour>, libp2p::Multiaddr), Failure> {
    let mut server = probe(kind)?;
    server.listen_on(kind.listen().parse()?)?;
    let listening = async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = server.select_next_some().await {
                return address;
            }
        }
    };
    let address = timeout(PATIENCE, listening).await?;
    Ok((server, address))
}

async fn probe_rate((kind, measured): (Kind, Duration), there: &Handle) -> Result<Rate, Failure> {
    let mut tasks = JoinSet::new();
    let (server, address) = there.spawn(listening(kind)).await??;
    let peer_id = *server.local_peer_id();
    let mut streams = server.behaviour().new_control().accept(PROTOCOL)?;
    tasks.spawn_on(run(server), there);
    let serving = async move {
        let mut serving = JoinSet::new();
        while let Some((peer, stream)) = streams.next().await {
            serving.spawn(serve_stream(peer, stream));
        }
    };
    tasks.spawn_on(serving, there);

    let mut client = probe(kind)?;
    let mut control = client.behaviour().new_control();
    client.dial(DialOpts::peer_id(peer_id).addresses(vec![address]).build())?;
    tasks.spawn(run(client));
    let stream = timeout(PATIENCE, control.open_stream(peer_id, PROTOCOL)).await??;
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
    rate(ask, measured).await
}

// The node.

fn clock() -> Clock {
    Clock::new(|| timestamp(1_900_000_000_000))
}

/// One end: its keys, its settings and its port.
struct End {
    keys: ServerKeys,
    peers: Peers,
    inbound: mpsc::Receiver<Inbound>,
    addresses: Vec<String>,
}

impl End {
    /// Starts it; the future drives it.
    async fn start(
        number: u8,
        (listen, bootstrap): (Vec<String>, Vec<String>),
    ) -> Result<(Self, BoxFuture<'static, ()>), Failure> {
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
        let (told, body) = (Bytes::from(keys.json().get().to_owned()), answer());
        let service = tower::service_fn(move |request: Request<RequestBody>| {
            let of_keys = request.uri().path().starts_with("/_matrix/key/");
            let body = if of_keys { told.clone() } else { body.clone() };
            async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
        });
        let mut registry = Registry::default();
        let host =
            messagehub_net::start(&config, service, outbound, reports, &mut registry).await?;
        let addresses = host.addresses();
        let run = host.run(std::future::pending()).boxed();
        Ok((Self { keys, peers, inbound, addresses }, run))
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

async fn node_rate((kind, measured): (Kind, Duration), there: &Handle) -> Result<Rate, Failure> {
    let mut tasks = JoinSet::new();
    let listen = vec![kind.listen().to_owned()];
    let (server, run) = there.spawn(End::start(1, (listen, Vec::new()))).await??;
    tasks.spawn_on(run, there);
    let (mut client, run) = End::start(2, (Vec::new(), server.addresses.clone())).await?;
    tasks.spawn(run);
    let name = server.keys.server_name().to_owned();
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
    rate(ask, measured).await
}
