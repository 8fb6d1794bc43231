//! The one task that owns the swarm. It never waits for anything but its next event: what takes
//! time runs in tasks of its own and comes back as an event.

mod addresses;
mod advertising;
mod commands;
mod connections;
mod frames;
mod listening;
mod paths;
mod relays;
mod reports;
mod searches;
mod status;
mod trimming;
mod verifying;
mod waiting;

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::pin,
};

use bytes::Bytes;
use futures::StreamExt;
use libp2p::{Multiaddr, PeerId, Swarm, swarm::SwarmEvent};
use messagehub_homeserver::{
    clock::Clock,
    peers::{Inbound, Outbound},
};
use messagehub_protocol::server_keys::ServerKeys;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Duration, Instant},
};
use tracing::{error, info};

use crate::{
    behaviour::{self, Behaviour, BehaviourEvent},
    book::Book,
    config::{NetConfig, StartError},
    dht::Dht,
    discovery::Lookups,
    gossip::{Faults, Topics, Verdicts},
    metrics::Metrics,
    reach::Reach,
    records::Record,
    relaying::Clients,
    requests::{
        Job, PeerService,
        client::Sessions,
        keys::KeysError,
        server::{Patience, Server},
    },
    streams::{self, InboundStream, StreamLimits},
};
use addresses::OwnAddresses;
use advertising::Advertising;
use relays::Relays;
use reports::Reports;
use waiting::{Bulk, Waiting};

/// Streams of peers that are served at once. A peer needs one.
const MAX_SERVED: usize = 1_024;

/// Commands that are carried out before the swarm is looked at again, which costs as much as some of
/// them.
const COMMANDS_AT_ONCE: usize = 64;

/// How often planned dials, deadlines and repeated questions are looked at.
const TICK: Duration = Duration::from_millis(250);

/// How long a graceful end may take: enough to tell neighbours, not enough to annoy.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the tasks beside the event loop bring back.
pub(crate) enum Done {
    /// The session with a peer ended.
    Session,
    /// A served stream ended.
    Served,
    /// A peer told its keys, or did not.
    Keys(PeerId, Result<ServerKeys, KeysError>),
    /// Records of addresses whose signatures are right.
    Records(Vec<(Record, Bytes)>),
}

/// The way into the session with a peer.
pub(crate) struct Session {
    jobs: mpsc::Sender<Job>,
    /// Changed when there is a better path.
    path: watch::Sender<u64>,
}

/// The state of the transport.
pub(crate) struct EventLoop {
    pub(crate) swarm: Swarm<Behaviour>,
    outbound: mpsc::Receiver<Outbound>,
    streams: mpsc::Receiver<InboundStream>,
    reports: Reports,
    server: Server,
    sessions: Sessions,
    /// The session with each connected peer.
    open: HashMap<PeerId, Session>,
    book: Book,
    topics: Topics,
    verdicts: Verdicts,
    faults: Faults,
    lookups: Lookups,
    waiting: Waiting,
    bulk: Bulk,
    advertising: Advertising,
    reach: Reach,
    relays: Relays,
    own: OwnAddresses,
    /// Whom our relay serves.
    clients: Clients,
    /// The peers of trusted servers, as relay and limits know them.
    served_friends: HashSet<PeerId>,
    /// When idle connections are looked at again.
    trim_at: Instant,
    tasks: JoinSet<Done>,
    served: usize,
    clock: Clock,
    metrics: Metrics,
}

/// The ends of the channels between homeserver and transport.
pub(crate) struct Port {
    pub(crate) outbound: mpsc::Receiver<Outbound>,
    pub(crate) inbound: mpsc::Sender<Inbound>,
}

impl EventLoop {
    /// Sets everything up; nothing listens yet.
    pub(crate) fn new(
        config: &NetConfig,
        service: PeerService,
        port: Port,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let limits = StreamLimits::default();
        let (behaviour, opener, streams) = streams::Behaviour::new(limits, metrics.streams.clone());
        let clients = Clients::new(config.relay_service);
        let swarm = behaviour::swarm(config, behaviour, &clients)?;
        let now = Instant::now();
        Ok(Self {
            outbound: port.outbound,
            streams,
            reports: Reports::new(port.inbound, metrics.clone()),
            server: Server::new(service, metrics.clone(), Patience::default()),
            sessions: Sessions::new(opener, metrics.clone()),
            open: HashMap::new(),
            book: Book::new(*swarm.local_peer_id(), config.scope()),
            topics: Topics::default(),
            verdicts: Verdicts::default(),
            faults: Faults::new(now),
            lookups: Lookups::default(),
            waiting: Waiting::default(),
            bulk: Bulk::default(),
            advertising: Advertising::new(config, now)?,
            reach: Reach::new(config.scope(), now),
            relays: Relays::new(config)?,
            own: OwnAddresses::new(config),
            clients,
            served_friends: HashSet::new(),
            trim_at: now,
            tasks: JoinSet::new(),
            served: 0,
            clock: config.clock.clone(),
            metrics,
            swarm,
        })
    }

    /// Runs until `stop` is done or the homeserver is gone.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut commands = Vec::with_capacity(COMMANDS_AT_ONCE);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => break,
                count = self.outbound.recv_many(&mut commands, COMMANDS_AT_ONCE) => {
                    if count == 0 {
                        break;
                    }
                    commands.drain(..).for_each(|command| self.on_command(command));
                }
                // `select!` begins at any branch and goes on in order: behind the commands, the
                // swarm is polled before them only where it is the first.
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(stream) = self.streams.recv(), if self.served < MAX_SERVED => {
                    self.serve(stream);
                }
                Some(verdict) = self.verdicts.next(), if !self.verdicts.is_empty() => {
                    self.on_verdict(verdict);
                }
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.on_done(done);
                }
                () = self.reports.deliver(), if self.reports.has_some() => {}
                _ = tick.tick() => self.on_tick(),
            }
        }
        self.farewell().await;
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.on_disconnected(peer_id, connection_id, cause);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.on_dial_failed(peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { error, .. } => self.on_refused(&error),
            SwarmEvent::Dialing { peer_id: Some(peer), .. } => {
                self.book.entry(peer).dialing = true;
            }
            other => self.on_listener(other),
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Lan(event) => self.on_kad(Dht::Lan, event),
            BehaviourEvent::Wan(event) => self.on_kad(Dht::Wan, event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::RelayClient(event) => self.on_relay_client(event),
            BehaviourEvent::Relay(event) => self.on_relay(&event),
            BehaviourEvent::Dcutr(event) => self.on_upgrade(event),
            BehaviourEvent::AutonatClient(event) => self.on_tested(&event),
            BehaviourEvent::AutonatServer(_) => {}
            BehaviourEvent::Upnp(event) => self.on_upnp(event),
            BehaviourEvent::Limits(never)
            | BehaviourEvent::Handshakes(never)
            | BehaviourEvent::Streams(never) => match never {},
        }
    }

    fn on_done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Session) => {}
            Ok(Done::Served) => self.served = self.served.saturating_sub(1),
            Ok(Done::Keys(peer, keys)) => self.on_keys(peer, keys),
            Ok(Done::Records(verified)) => self.on_records(verified),
            // A task that panicked takes its stream with it and nothing else.
            Err(error) => error!(%error, "a task of the transport failed"),
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.start_anew_with_the_confused(now);
        self.dial_planned(now);
        self.ask_again(now);
        self.announce_late(now);
        self.look_at_reach(now);
        self.look_for_relays(now);
        self.enter_public_dht(now);
        self.advertise_again(now);
        self.upgrade_planned(now);
        self.fail_bulk(now);
        self.trim(now);
        self.forgive(now);
        self.settle(now);
    }

    fn serve(&mut self, stream: InboundStream) {
        self.served += 1;
        self.book.used(&stream.peer, Instant::now());
        let serving = self.server.clone().serve(stream);
        self.tasks.spawn(async move {
            serving.await;
            Done::Served
        });
    }

    /// Closes the connections, so that neighbours notice at once.
    async fn farewell(&mut self) {
        info!("leaving the network");
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // It may be gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // Those that do not answer in time notice by their own clocks.
        let _ = tokio::time::timeout(FAREWELL, closing).await;
    }

    /// The addresses that this node listens on.
    pub(crate) fn addresses(&self) -> Vec<Multiaddr> {
        self.swarm.listeners().cloned().collect()
    }
}
