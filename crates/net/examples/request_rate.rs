//! Requests a second over one HTTP/2 stream between two nodes, beside a bare probe: hyper's HTTP/2
//! over a stream of the same libp2p transports, with no swarm and none of our bounds. Loopback only.
//!
//! ```text
//! request_rate [ROUNDS] [SECONDS]
//! ```
//!
//! Each round measures probe and node one after the other, for SECONDS each, first over QUIC and
//! then over TCP; the ratio is that of the same round. Sixty-four requests at once, answers of 900
//! bytes of JSON, both ends in this process.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    convert::Infallible,
    error::Error,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise, quic, tcp, yamux,
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

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    let measured = Duration::from_secs_f64(seconds);
    for kind in [Kind::Quic, Kind::Tcp] {
        let (mut probes, mut nodes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let probe = probe_rate(kind, measured).await?;
            let node = node_rate(kind, measured).await?;
            println!("{kind:?}: probe {probe:.0}/s, node {node:.0}/s, {:.2}", node / probe);
            probes.push(probe);
            nodes.push(node);
            ratios.push(node / probe);
        }
        let [probe, node, ratio] = [probes, nodes, ratios].map(median);
        println!("{kind:?}, medians: probe {probe:.0}/s, node {node:.0}/s, ratio {ratio:.2}");
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Asks, from as many tasks as [`AT_ONCE`], for as long as `measured`; answers a second.
async fn rate<F>(ask: impl Fn() -> F, measured: Duration) -> Result<f64, Failure>
where
    F: Future<Output = Result<usize, Failure>> + Send + 'static,
{
    // The first request makes the connection.
    ask().await?;
    let begun = Instant::now();
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
    Ok(f64::from(total) / begun.elapsed().as_secs_f64())
}

fn answer() -> Bytes {
    Bytes::from(format!(r#"{{"filler":"{}"}}"#, "x".repeat(ANSWER_BYTES - 13)))
}

// The probe.

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

fn transport(kind: Kind) -> Result<Connections, Failure> {
    let keypair = Keypair::generate_ed25519();
    Ok(match kind {
        Kind::Quic => quic::tokio::Transport::new(quic::Config::new(&keypair))
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
        Kind::Tcp => tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&keypair)?)
            .multiplex(yamux::Config::default())
            .boxed(),
    })
}

/// A connection and the streams it gives.
struct Connection {
    muxer: StreamMuxerBox,
    /// Streams that are still to be opened.
    wanted: usize,
    streams: mpsc::UnboundedSender<SubstreamBox>,
}

impl Connection {
    fn start(
        muxer: StreamMuxerBox,
        wanted: usize,
        tasks: &mut JoinSet<()>,
    ) -> mpsc::UnboundedReceiver<SubstreamBox> {
        let (streams, opened) = mpsc::unbounded_channel();
        let mut connection = Self { muxer, wanted, streams };
        tasks.spawn(async move { poll_fn(|cx| connection.poll(cx)).await });
        opened
    }

    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = false;
            if self.wanted > 0
                && let Poll::Ready(opened) = self.muxer.poll_outbound_unpin(cx)
            {
                let Ok(stream) = opened else { return Poll::Ready(()) };
                self.wanted -= 1;
                moved = true;
                if self.streams.send(stream).is_err() {
                    return Poll::Ready(());
                }
            }
            if let Poll::Ready(opened) = self.muxer.poll_inbound_unpin(cx) {
                let Ok(stream) = opened else { return Poll::Ready(()) };
                moved = true;
                if self.streams.send(stream).is_err() {
                    return Poll::Ready(());
                }
            }
            if let Poll::Ready(event) = self.muxer.poll_unpin(cx) {
                moved = true;
                if event.is_err() {
                    return Poll::Ready(());
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }
}

/// Serves whoever comes, on every stream, until dropped.
async fn serve(mut transport: Connections, told: mpsc::UnboundedSender<Multiaddr>) {
    let mut tasks = JoinSet::new();
    loop {
        match poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await {
            TransportEvent::NewAddress { listen_addr, .. } => {
                // Only the first address is waited for.
                let _ = told.send(listen_addr);
            }
            TransportEvent::Incoming { upgrade, .. } => {
                tasks.spawn(async move {
                    let Ok((_, muxer)) = upgrade.await else { return };
                    let mut tasks = JoinSet::new();
                    let mut streams = Connection::start(muxer, 0, &mut tasks);
                    while let Some(stream) = streams.recv().await {
                        tasks.spawn(serve_stream(stream));
                    }
                });
            }
            _ => {}
        }
    }
}

async fn serve_stream(stream: SubstreamBox) {
    let body = answer();
    let service = service_fn(move |_| {
        let body = body.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // It ends with the measurement, when the other side goes.
    let _ = connection.serve_connection(TokioIo::new(stream.compat()), service).await;
}

async fn probe_rate(kind: Kind, measured: Duration) -> Result<f64, Failure> {
    let mut listener = transport(kind)?;
    listener.listen_on(ListenerId::next(), kind.listen().parse()?)?;
    let (told, mut addresses) = mpsc::unbounded_channel();
    let mut server = JoinSet::new();
    server.spawn(serve(listener, told));
    let address = timeout(PATIENCE, addresses.recv()).await?.ok_or("it does not listen")?;

    let mut dialer = transport(kind)?;
    let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let (_, muxer) = timeout(PATIENCE, dialer.dial(address, how)?).await??;
    let mut client = JoinSet::new();
    let mut streams = Connection::start(muxer, 1, &mut client);
    let stream = timeout(PATIENCE, streams.recv()).await?.ok_or("no stream")?;
    let (sender, link) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream.compat()))
        .await?;
    client.spawn(async move {
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
    async fn start(
        number: u8,
        (listen, bootstrap): (Vec<String>, Vec<String>),
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, Failure> {
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
        tasks.spawn(host.run(std::future::pending()));
        Ok(Self { keys, peers, inbound, addresses })
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

async fn node_rate(kind: Kind, measured: Duration) -> Result<f64, Failure> {
    let mut tasks = JoinSet::new();
    let server = End::start(1, (vec![kind.listen().to_owned()], Vec::new()), &mut tasks).await?;
    let there = server.addresses.clone();
    let mut client = End::start(2, (Vec::new(), there), &mut tasks).await?;
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
