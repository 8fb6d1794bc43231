use std::{future::Future, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, noise, ping,
    swarm::{
        ConnectionId, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts, dial_opts::PeerCondition,
    },
    tcp, yamux,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Behaviour, InboundStream, OpenError, Opener, StreamLimits, behaviour::Path};
use crate::metrics::StreamMetrics;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}

fn build<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_quic()
        .with_behaviour(|_| Ok(behaviour))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

struct Node {
    swarm: Swarm<Behaviour>,
    opener: Opener,
    streams: mpsc::Receiver<InboundStream>,
    metrics: StreamMetrics,
}

impl Node {
    fn new(limits: StreamLimits) -> Self {
        let metrics = StreamMetrics::default();
        let (behaviour, opener, streams) = Behaviour::new(limits, metrics.clone());
        Self { swarm: build(behaviour), opener, streams, metrics }
    }

    fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &str) -> Multiaddr {
    swarm.listen_on(address.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

/// Dials `address` from `a` and waits until both sides see the connection. Gives `a`'s id of it.
async fn connect<B: NetworkBehaviour>(
    a: &mut Swarm<Behaviour>,
    b: &mut Swarm<B>,
    address: Multiaddr,
) -> ConnectionId {
    let dial = DialOpts::peer_id(*b.local_peer_id())
        .condition(PeerCondition::Always)
        .addresses(vec![address])
        .build();
    let dialed = dial.connection_id();
    a.dial(dial).unwrap();
    let (mut here, mut there) = (false, false);
    within(async {
        while !(here && there) {
            tokio::select! {
                event = a.select_next_some() => {
                    here |= matches!(event, SwarmEvent::ConnectionEstablished { .. });
                }
                event = b.select_next_some() => {
                    there |= matches!(event, SwarmEvent::ConnectionEstablished { .. });
                }
            }
        }
    })
    .await;
    dialed
}

/// Runs a swarm in the background, until the set is dropped.
fn run<B: NetworkBehaviour + Send>(tasks: &mut JoinSet<()>, mut swarm: Swarm<B>)
where
    B::ToSwarm: std::fmt::Debug,
{
    tasks.spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
}

/// Answers each stream's first byte.
fn run_echo(tasks: &mut JoinSet<()>, mut streams: mpsc::Receiver<InboundStream>) {
    tasks.spawn(async move {
        let mut echoes = JoinSet::new();
        while let Some(mut inbound) = streams.recv().await {
            echoes.spawn(async move {
                let mut byte = [0];
                inbound.stream.read_exact(&mut byte).await.unwrap();
                inbound.stream.write_all(&byte).await.unwrap();
                inbound.stream.close().await.unwrap();
            });
        }
    });
}

/// Opens a stream, sends a byte, and expects it back.
async fn echo(opener: Opener, peer: PeerId) -> Result<(), String> {
    let mut stream = opener.open(peer).await.map_err(|error| error.to_string())?;
    let io = |error: std::io::Error| error.to_string();
    stream.write_all(&[7]).await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map_err(io)?;
    assert_eq!(byte, [7]);
    stream.close().await.map_err(io)
}

async fn a_burst_loses_none(listen_on: &str) {
    const BURST: usize = 1_000;
    let (mut a, mut b) = (Node::new(StreamLimits::default()), Node::new(StreamLimits::default()));
    let address = listen(&mut b.swarm, listen_on).await;
    connect(&mut a.swarm, &mut b.swarm, address).await;
    let peer = b.peer();
    let mut tasks = JoinSet::new();
    run(&mut tasks, a.swarm);
    run(&mut tasks, b.swarm);
    run_echo(&mut tasks, b.streams);
    let mut opens = JoinSet::new();
    for _ in 0..BURST {
        opens.spawn(echo(a.opener.clone(), peer));
    }
    let results = within(opens.join_all()).await;
    let lost: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(lost.is_empty(), "{} lost, like {:?}", lost.len(), lost[0]);
    assert_eq!(a.metrics.outbound.get(), BURST as u64);
    assert_eq!(b.metrics.inbound.get(), BURST as u64);
    assert_eq!(b.metrics.overflowed.get(), 0);
}

#[tokio::test]
async fn a_burst_over_tcp_loses_none() {
    a_burst_loses_none(TCP).await;
}

#[tokio::test]
async fn a_burst_over_quic_loses_none() {
    a_burst_loses_none(QUIC).await;
}

async fn an_overflow_resets(limits: StreamLimits, listen_on: &str) {
    let (mut a, mut b) = (Node::new(StreamLimits::default()), Node::new(limits));
    let address = listen(&mut b.swarm, listen_on).await;
    connect(&mut a.swarm, &mut b.swarm, address).await;
    let (opened_by, peer) = (a.peer(), b.peer());
    let mut tasks = JoinSet::new();
    run(&mut tasks, a.swarm);
    run(&mut tasks, b.swarm);
    // The dialer learns of the negotiation with its first read; nobody serves the first stream.
    let mut held = within(a.opener.open(peer)).await.unwrap();
    held.write_all(&[7]).await.unwrap();
    held.flush().await.unwrap();
    for _ in 0..2 {
        let mut stream = within(a.opener.open(peer)).await.unwrap();
        let read = within(stream.read(&mut [0])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    assert_eq!(b.metrics.inbound.get(), 1);
    assert_eq!(b.metrics.overflowed.get(), 2);
    let mut first = b.streams.recv().await.unwrap();
    let mut byte = [0];
    within(first.stream.read_exact(&mut byte)).await.unwrap();
    assert_eq!((first.peer, byte), (opened_by, [7]));
}

#[tokio::test]
async fn a_full_queue_resets_and_counts() {
    let limits = StreamLimits { inbound_queue: 1, ..StreamLimits::default() };
    an_overflow_resets(limits, TCP).await;
    an_overflow_resets(limits, QUIC).await;
}

#[tokio::test]
async fn too_many_streams_on_one_connection_are_reset_and_counted() {
    let limits = StreamLimits { inbound_per_connection: 1, ..StreamLimits::default() };
    an_overflow_resets(limits, TCP).await;
}

#[tokio::test]
async fn the_newest_direct_connection_is_used() {
    let (mut a, mut b) = (Node::new(StreamLimits::default()), Node::new(StreamLimits::default()));
    let over_tcp = listen(&mut b.swarm, TCP).await;
    let over_quic = listen(&mut b.swarm, QUIC).await;
    let peer = b.peer();
    let older = connect(&mut a.swarm, &mut b.swarm, over_tcp).await;
    assert_eq!(a.swarm.behaviour().best(&peer), Some(older));
    let newer = connect(&mut a.swarm, &mut b.swarm, over_quic).await;
    assert_eq!(a.swarm.behaviour().best(&peer), Some(newer));
    let mut tasks = JoinSet::new();
    run(&mut tasks, b.swarm);
    run_echo(&mut tasks, b.streams);
    a.swarm.close_connection(newer);
    within(async {
        while !matches!(a.swarm.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {}
    })
    .await;
    assert_eq!(a.swarm.behaviour().best(&peer), Some(older));
    run(&mut tasks, a.swarm);
    within(echo(a.opener, peer)).await.unwrap();
}

#[tokio::test]
async fn a_relayed_connection_is_used_only_without_a_direct_one() {
    let (mut behaviour, ..) = Behaviour::new(StreamLimits::default(), StreamMetrics::default());
    let peer = PeerId::random();
    let id = ConnectionId::new_unchecked;
    assert_eq!(behaviour.best(&peer), None);
    behaviour.connections.insert(peer, vec![(id(1), Path::Direct), (id(2), Path::Relayed)]);
    assert_eq!(behaviour.best(&peer), Some(id(1)));
    behaviour.closed(peer, id(1));
    assert_eq!(behaviour.best(&peer), Some(id(2)));
    behaviour.moved(peer, id(2), Path::Direct);
    behaviour.closed(peer, id(2));
    assert!(behaviour.connections.is_empty(), "nothing is kept of a peer that is gone");
}

#[tokio::test]
async fn an_open_says_why_it_failed() {
    let mut a = Node::new(StreamLimits::default());
    let mut stranger = build(ping::Behaviour::default());
    let address = listen(&mut stranger, TCP).await;
    connect(&mut a.swarm, &mut stranger, address).await;
    let peer = *stranger.local_peer_id();
    let mut tasks = JoinSet::new();
    run(&mut tasks, stranger);
    run(&mut tasks, a.swarm);
    let error = |result: Result<super::PeerStream, _>| result.unwrap_err();
    assert_eq!(error(within(a.opener.open(peer)).await), OpenError::Unsupported);
    let nobody = PeerId::random();
    assert_eq!(error(within(a.opener.open(nobody)).await), OpenError::NotConnected);
    tasks.shutdown().await;
    assert_eq!(error(within(a.opener.open(peer)).await), OpenError::Closed);
    assert_eq!(a.metrics.failed.get(), 2);
}
