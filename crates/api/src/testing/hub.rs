//! The transport: who is there, who hears whom, and how a command travels.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http_body_util::BodyExt;
use messagehub_homeserver::peers::{
    Acceptance, Inbound, NetStatus, Outbound, PeerIdentity, RequestError,
};
use messagehub_protocol::server_keys::ServerKeys;
use ruma::{OwnedRoomId, OwnedServerName, ServerName};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;

use super::addresses::Addresses;

/// How often an answer that is held back looks whether it may come.
const HELD: Duration = Duration::from_secs(1);

/// Whether two nodes hear each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// They do.
    Up,
    /// They do not.
    Down,
}

/// The in-memory transport. Cloning gives another handle to the same one.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ports: BTreeMap<OwnedServerName, Port>,
    cut: BTreeSet<(OwnedServerName, OwnedServerName)>,
    /// Where nodes are; `None` where everybody finds everybody.
    addresses: Option<Addresses>,
    gossip: Gossip,
    /// Answers to requests whose path holds this do not come back.
    lost_answers: Option<String>,
    /// Answers to requests whose path holds this are on their way.
    held_answers: Option<String>,
    /// Answers to requests whose path holds this arrive as an empty object.
    spoiled_answers: Option<String>,
    /// What nodes answer instead of what they would: to requests whose path holds this.
    answered_instead: Vec<(OwnedServerName, String, http::Response<Bytes>)>,
    /// Requests that were carried, for tests that count: from whom, to whom, which path.
    carried: Vec<(OwnedServerName, OwnedServerName, String)>,
    frames: Vec<(OwnedServerName, OwnedRoomId, Bytes)>,
}

/// Whether frames arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Gossip {
    #[default]
    Flooded,
    Lost,
}

/// One node, as the transport sees it.
#[derive(Debug)]
struct Port {
    router: Router,
    inbound: mpsc::Sender<Inbound>,
    keys: ServerKeys,
    peer_id: String,
    topics: BTreeSet<OwnedRoomId>,
    advertised: BTreeSet<String>,
}

impl State {
    fn hears(&self, one: &ServerName, other: &ServerName) -> bool {
        let is_found = self.addresses.as_ref().is_none_or(|found| found.is_linked(one, other));
        is_found && !self.cut.contains(&pair(one, other))
    }

    fn address_of(&self, port: &Port) -> String {
        match &self.addresses {
            Some(addresses) => addresses.text(port.keys.server_name()),
            None => format!("/memory/{}", port.peer_id),
        }
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a node on the network and tells everybody who hears it.
    pub fn attach(
        &self,
        (keys, peer_id): (ServerKeys, String),
        router: Router,
        inbound: mpsc::Sender<Inbound>,
    ) {
        let name = keys.server_name().to_owned();
        let port = Port {
            router,
            inbound,
            keys,
            peer_id,
            topics: BTreeSet::new(),
            advertised: BTreeSet::new(),
        };
        let others: Vec<OwnedServerName> = {
            let mut state = self.state();
            state.ports.insert(name.clone(), port);
            state.ports.keys().filter(|other| **other != name).cloned().collect()
        };
        others.iter().for_each(|other| self.introduce(&name, other));
        let state = self.state();
        if let (Some(addresses), Some(port)) = (&state.addresses, state.ports.get(&name))
            && let Some(own) = addresses.own(&name, &port.peer_id)
        {
            report(port, own);
        }
    }

    /// From now on nodes find each other by their addresses. Those that hear each other stay
    /// connected, and learn where the other one is.
    pub fn mind_addresses(&self) {
        let pairs: Vec<_> = {
            let mut state = self.state();
            let mut addresses = Addresses::default();
            let names: Vec<_> = state.ports.keys().cloned().collect();
            let all = names.iter().flat_map(|one| names.iter().map(move |other| (one, other)));
            let near = all.filter(|(one, other)| one < other && state.hears(one, other));
            let pairs: Vec<_> = near.map(|(one, other)| (one.clone(), other.clone())).collect();
            for (one, other) in &pairs {
                let at = addresses.text(other);
                addresses.learn_text(one, other, &at);
                addresses.dial(one, other);
            }
            state.addresses = Some(addresses);
            pairs
        };
        pairs.iter().for_each(|(one, other)| self.introduce(one, other));
    }

    /// A node, which is off, will be found somewhere else.
    pub fn move_away(&self, name: &ServerName) {
        if let Some(addresses) = &mut self.state().addresses {
            addresses.move_away(name);
        }
    }

    /// Takes a node off the network.
    pub fn detach(&self, name: &ServerName) {
        let mut state = self.state();
        state.ports.remove(name);
        if let Some(addresses) = &mut state.addresses {
            addresses.forget(name);
        }
        for port in state.ports.values() {
            report(port, Inbound::Disconnected { server: name.to_owned() });
        }
    }

    /// Cuts or mends the link between two nodes.
    pub fn set_link(&self, one: &ServerName, other: &ServerName, link: Link) {
        let pair = pair(one, other);
        match link {
            Link::Down => {
                let mut state = self.state();
                state.cut.insert(pair);
                for (here, there) in [(one, other), (other, one)] {
                    if let Some(port) = state.ports.get(here) {
                        report(port, Inbound::Disconnected { server: there.to_owned() });
                    }
                }
            }
            Link::Up => {
                self.state().cut.remove(&pair);
                self.introduce(one, other);
            }
        }
    }

    /// From now on no frame arrives: what still converges does so by comparing heads.
    pub fn lose_gossip(&self) {
        self.state().gossip = Gossip::Lost;
    }

    /// From now on answers to requests whose path holds `part` are lost; `None` for none any more.
    pub fn lose_answers(&self, part: Option<&str>) {
        self.state().lost_answers = part.map(str::to_owned);
    }

    /// From now on answers to requests whose path holds `part` do not arrive, and nobody knows;
    /// `None` for none any more, and those on their way come.
    pub fn hold_answers(&self, part: Option<&str>) {
        self.state().held_answers = part.map(str::to_owned);
    }

    /// From now on answers to requests whose path holds `part` are an empty object; `None` for none
    /// any more.
    pub fn spoil_answers(&self, part: Option<&str>) {
        self.state().spoiled_answers = part.map(str::to_owned);
    }

    /// From now on a node does not get requests whose path holds `part`: this is the answer.
    pub fn answer_instead(&self, name: &ServerName, part: &str, answer: http::Response<Bytes>) {
        self.state().answered_instead.push((name.to_owned(), part.to_owned(), answer));
    }

    /// From now on nodes answer all requests themselves.
    pub fn answer_as_ever(&self) {
        self.state().answered_instead.clear();
    }

    /// The number of requests that were carried so far.
    pub fn carried(&self) -> usize {
        self.state().carried.len()
    }

    /// The paths of all requests that one node sent to another.
    pub fn carried_between(&self, from: &ServerName, to: &ServerName) -> Vec<String> {
        let state = self.state();
        let between = state.carried.iter().filter(|(one, other, _)| one == from && other == to);
        between.map(|(_, _, path)| path.clone()).collect()
    }

    /// The last frame that a node published.
    pub fn last_frame_of(&self, name: &ServerName) -> Option<(OwnedRoomId, Bytes)> {
        let state = self.state();
        let mut frames = state.frames.iter().rev();
        frames
            .find(|(origin, ..)| origin == name)
            .map(|(_, room, frame)| (room.clone(), frame.clone()))
    }

    /// Reports something to a node that no other node said.
    pub fn inject(&self, name: &ServerName, what: Inbound) {
        if let Some(port) = self.state().ports.get(name) {
            report(port, what);
        }
    }

    /// Tells two nodes of each other, if they hear each other.
    fn introduce(&self, one: &ServerName, other: &ServerName) {
        let state = self.state();
        if !state.hears(one, other) {
            return;
        }
        let (Some(one), Some(other)) = (state.ports.get(one), state.ports.get(other)) else {
            return;
        };
        for (here, there) in [(one, other), (other, one)] {
            let connected = Inbound::Connected {
                server_keys: there.keys.clone(),
                peer_id: there.peer_id.clone(),
                addresses: vec![state.address_of(there)],
            };
            report(here, connected);
            for room_id in here.topics.intersection(&there.topics) {
                report(here, subscribed(there, room_id));
            }
        }
    }

    /// Carries the commands of one node until it drops its end. Requests travel side by side.
    pub async fn serve(self, name: OwnedServerName, mut outbound: mpsc::Receiver<Outbound>) {
        let mut travelling: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = travelling.next(), if !travelling.is_empty() => {}
                command = outbound.recv() => match command {
                    Some(command) => travelling.extend(self.carry(&name, command)),
                    None => return,
                },
            }
        }
    }

    /// Does what can be done at once; gives what takes its way.
    fn carry(&self, name: &OwnedServerName, command: Outbound) -> Vec<BoxFuture<'static, ()>> {
        match command {
            Outbound::Gossip { room_id, frame } => self.flood(name, &room_id, &frame),
            Outbound::Join { room_id } => self.subscribe(name, &room_id),
            Outbound::Leave { room_id } => {
                if let Some(port) = self.state().ports.get_mut(name) {
                    port.topics.remove(&room_id);
                }
                Vec::new()
            }
            Outbound::Request { destination, request, reply } => {
                let (hub, name) = (self.clone(), name.clone());
                vec![Box::pin(async move {
                    let answer = hub.request(&name, &destination, request).await;
                    // Whoever asked may have stopped waiting.
                    let _unheard = reply.send(answer);
                })]
            }
            Outbound::Learn { server_keys, addresses } => {
                self.learn(name, server_keys.server_name(), &addresses);
                Vec::new()
            }
            Outbound::Records { records } => {
                self.believe(name, &records);
                Vec::new()
            }
            Outbound::Trusted { .. } => Vec::new(),
            Outbound::Advertise { keys } => {
                if let Some(port) = self.state().ports.get_mut(name) {
                    port.advertised = keys.into_iter().collect();
                }
                Vec::new()
            }
            Outbound::Find { key, reply } => {
                let _unheard = reply.send(self.find(name, &key));
                Vec::new()
            }
            Outbound::Status { reply } => {
                let _unheard = reply.send(NetStatus::default());
                Vec::new()
            }
        }
    }

    fn flood(
        &self,
        name: &OwnedServerName,
        room_id: &OwnedRoomId,
        frame: &Bytes,
    ) -> Vec<BoxFuture<'static, ()>> {
        let mut state = self.state();
        state.frames.push((name.clone(), room_id.clone(), frame.clone()));
        if state.gossip == Gossip::Lost {
            return Vec::new();
        }
        let Some(source) = state.ports.get(name).map(|port| port.peer_id.clone()) else {
            return Vec::new();
        };
        let hears = |other: &&OwnedServerName| *other != name && state.hears(name, other);
        let mut verdicts: Vec<BoxFuture<'static, ()>> = Vec::new();
        for other in state.ports.keys().filter(hears) {
            let port = &state.ports[other];
            if port.topics.contains(room_id) {
                let (reply, verdict) = oneshot::channel::<Acceptance>();
                let (room_id, frame) = (room_id.clone(), frame.clone());
                report(port, Inbound::Frame { source: source.clone(), room_id, frame, reply });
                verdicts.push(Box::pin(async move { drop(verdict.await) }));
            }
        }
        verdicts
    }

    fn subscribe(
        &self,
        name: &OwnedServerName,
        room_id: &OwnedRoomId,
    ) -> Vec<BoxFuture<'static, ()>> {
        let mut state = self.state();
        if let Some(port) = state.ports.get_mut(name) {
            port.topics.insert(room_id.clone());
        }
        let Some(joined) = state.ports.get(name) else { return Vec::new() };
        for (other, port) in &state.ports {
            let hears = other != name && state.hears(name, other);
            if hears && port.topics.contains(room_id) {
                report(port, subscribed(joined, room_id));
                report(joined, subscribed(port, room_id));
            }
        }
        Vec::new()
    }

    async fn request(
        &self,
        from: &ServerName,
        to: &ServerName,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, RequestError> {
        self.dial(from, to);
        let (router, peer_id) = {
            let mut state = self.state();
            let path = request.uri().path().to_owned();
            state.carried.push((from.to_owned(), to.to_owned(), path));
            if !state.hears(from, to) {
                return Err(RequestError::Unreachable);
            }
            let path = request.uri().path();
            let mut instead = state.answered_instead.iter();
            if let Some((.., answer)) =
                instead.find(|(name, part, _)| name == to && path.contains(part))
            {
                return Ok(answer.clone());
            }
            let sender = state.ports.get(from).ok_or(RequestError::Unreachable)?;
            let receiver = state.ports.get(to).ok_or(RequestError::Unreachable)?;
            (receiver.router.clone(), sender.peer_id.clone())
        };
        let path = request.uri().path().to_owned();
        let answer = deliver(router, peer_id, request).await;
        let is_meant =
            |part: &Option<String>| part.as_ref().is_some_and(|part| path.contains(part));
        while is_meant(&self.state().held_answers) {
            tokio::time::sleep(HELD).await;
        }
        let (is_lost, is_spoiled) = {
            let state = self.state();
            (is_meant(&state.lost_answers), is_meant(&state.spoiled_answers))
        };
        match (is_lost, is_spoiled) {
            (true, _) => Err(RequestError::TimedOut),
            (false, true) => answer.map(|answer| answer.map(|_| Bytes::from_static(b"{}"))),
            (false, false) => answer,
        }
    }

    /// A node remembers where another one was, and looks whether it is there.
    fn learn(&self, name: &ServerName, other: &ServerName, texts: &[String]) {
        if let Some(addresses) = &mut self.state().addresses {
            texts.iter().for_each(|text| addresses.learn_text(name, other, text));
        }
        self.dial(name, other);
    }

    fn dial(&self, name: &ServerName, other: &ServerName) {
        let is_new = {
            let mut state = self.state();
            let is_there =
                state.ports.contains_key(other) && !state.cut.contains(&pair(name, other));
            let addresses = state.addresses.as_mut().filter(|_| is_there);
            addresses.is_some_and(|addresses| addresses.dial(name, other))
        };
        if is_new {
            self.introduce(name, other);
        }
    }

    fn believe(&self, name: &ServerName, records: &[Bytes]) {
        let mut state = self.state();
        let Some(addresses) = &mut state.addresses else { return };
        let believed: Vec<_> =
            records.iter().filter_map(|record| addresses.believe(name, record)).collect();
        if let Some(port) = state.ports.get(name) {
            believed.into_iter().for_each(|record| report(port, record));
        }
    }

    fn find(&self, name: &ServerName, key: &str) -> Vec<ServerKeys> {
        let state = self.state();
        let there = state.ports.iter().filter(|(other, port)| {
            *other != name && state.hears(name, other) && port.advertised.contains(key)
        });
        there.map(|(_, port)| port.keys.clone()).collect()
    }
}

/// Hands a request to a router as if it came from a peer.
///
/// # Errors
/// `Refused` when the answer breaks off.
pub async fn deliver(
    router: Router,
    peer_id: String,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, RequestError> {
    let mut request = request.map(Body::from);
    request.extensions_mut().insert(PeerIdentity { peer_id });
    let answered = router.oneshot(request).await;
    let (parts, body) = match answered {
        Ok(response) => response.into_parts(),
        Err(never) => match never {},
    };
    let body = body.collect().await.map_err(|error| RequestError::Refused(error.to_string()))?;
    Ok(http::Response::from_parts(parts, body.to_bytes()))
}

fn subscribed(who: &Port, room_id: &OwnedRoomId) -> Inbound {
    Inbound::Subscribed {
        peer_id: who.peer_id.clone(),
        server: Some(who.keys.server_name().to_owned()),
        room_id: room_id.clone(),
    }
}

/// A node that does not keep up loses reports, as it would with the real transport.
fn report(port: &Port, report: Inbound) {
    if port.inbound.try_send(report).is_err() {
        tracing::debug!(peer_id = port.peer_id, "a node did not keep up");
    }
}

pub(super) fn pair(one: &ServerName, other: &ServerName) -> (OwnedServerName, OwnedServerName) {
    let (one, other) = if one < other { (one, other) } else { (other, one) };
    (one.to_owned(), other.to_owned())
}
