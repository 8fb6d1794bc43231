//! The port between this node's use-cases and whatever carries bytes to other nodes.
//!
//! Plain data over bounded channels: `net` (libp2p) is one implementer, the
//! simulator another. Nothing here knows about libp2p; a peer is the text form
//! of its PeerId, a server is a Matrix server name.

mod comparing;
mod live;
mod relays;
mod retries;
mod status;

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use messagehub_protocol::{server_keys::ServerKeys, wire::request::ReplayFilter};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::digests::Digests;

use self::live::Live;
pub use self::live::{Compared, Counters};
pub use self::retries::Attempt;
pub use self::status::{
    Mapping, NatFacts, NetStatus, Path, PeerStatus, Reachability, RelayStatus, Transport,
};
pub(crate) use self::{
    comparing::{Claim, Comparing},
    relays::{Routes, Slot, Slots},
    retries::Retries,
};
use crate::{ingest::FramePaces, room_keys::RoomKeys, server::pace::RequestPaces};

/// Commands waiting for the transport. A burst of a few hundred frames (one
/// joined room each at start) must fit; what does not fit is repaired by the
/// heads exchange.
pub const OUTBOUND_CAPACITY: usize = 1024;

/// Reports waiting for the ingest loop. The transport drops frames, never
/// connections, when it is full.
pub const INBOUND_CAPACITY: usize = 1024;

/// How long one `Find` may take: a DHT walk on a LAN takes well under a second,
/// and a person waits for the answer.
pub const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request may take when its caller names no other limit.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest response body that a request accepts: a send_join of a room with
/// 10,000 members is about 16 MB of JSON; media has its own, smaller limit.
pub const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

pub use messagehub_protocol::limits::MAX_RECORD_BYTES;

/// What this node asks of the transport.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most commands under load are requests")]
pub enum Outbound {
    /// Publish a sealed frame to the topic of a room.
    Gossip {
        /// The room whose topic carries the frame.
        room_id: OwnedRoomId,
        /// The frame's bytes, at most `MAX_SEALED_FRAME_BYTES`.
        frame: Bytes,
    },
    /// Subscribe to the topic of a room.
    Join {
        /// The room.
        room_id: OwnedRoomId,
    },
    /// Unsubscribe from the topic of a room.
    Leave {
        /// The room.
        room_id: OwnedRoomId,
    },
    /// Carry one signed Server-Server request to a server and bring the answer.
    Request {
        /// The server whose node is to answer.
        destination: OwnedServerName,
        /// The request; its URI is a path with a query.
        request: http::Request<Bytes>,
        /// Gets the response, whatever its status. Dropping it gives the request up.
        reply: oneshot::Sender<Result<http::Response<Bytes>, RequestError>>,
    },
    /// What is remembered about a server: which peers speak for it, and where they were.
    Learn {
        /// Its verified keys, which name its peers.
        server_keys: ServerKeys,
        /// Addresses (multiaddr text) where its peers were reached before.
        addresses: Vec<String>,
    },
    /// The complete list of strings under which this node may be found. Replaces the former.
    Advertise {
        /// The rendezvous strings of D14.
        keys: Vec<String>,
    },
    /// Who advertises a rendezvous string?
    Find {
        /// The rendezvous string.
        key: String,
        /// Gets the verified keys of those who do, within [`FIND_TIMEOUT`].
        reply: oneshot::Sender<Vec<ServerKeys>>,
    },
    /// Signed addresses of peers that other servers passed on. The transport believes those whose
    /// signature is right and whose peer a server lists, and reports them as [`Inbound::Record`].
    Records {
        /// Each a libp2p signed envelope of a peer record, at most [`MAX_RECORD_BYTES`].
        records: Vec<Bytes>,
    },
    /// The complete set of servers that share a room with us or are contacts. Replaces the former.
    Trusted {
        /// Their names: whom our relay serves, and whose connections are kept under pressure.
        servers: BTreeSet<OwnedServerName>,
    },
    /// How is the network?
    Status {
        /// Gets the answer.
        reply: oneshot::Sender<NetStatus>,
    },
}

/// Why a request got no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No path to any peer of that server is known.
    #[error("the server cannot be reached")]
    Unreachable,
    /// A path existed, and the answer did not come in time.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The response is larger than [`MAX_RESPONSE_BYTES`].
    #[error("the answer is too large")]
    TooLarge,
    /// The transport or the peer refused; the text is for the log.
    #[error("the request was refused: {0}")]
    Refused(String),
}

/// What the transport reports.
#[derive(Debug)]
pub enum Inbound {
    /// A frame came from the topic of a room.
    Frame {
        /// The PeerId of the neighbour that forwarded it.
        source: String,
        /// The room whose topic carried it.
        room_id: OwnedRoomId,
        /// The frame's bytes, not yet looked at.
        frame: Bytes,
        /// Gets the verdict on forwarding.
        reply: oneshot::Sender<Acceptance>,
    },
    /// A peer is connected, and it speaks for a server: name, signature and PeerId are verified.
    Connected {
        /// The server's keys.
        server_keys: ServerKeys,
        /// The peer.
        peer_id: String,
        /// Where it was reached (multiaddr text).
        addresses: Vec<String>,
    },
    /// The last connection to a server is gone.
    Disconnected {
        /// The server.
        server: OwnedServerName,
    },
    /// One of several connections to a server is gone, and with it what was on its way.
    PathLost {
        /// The server.
        server: OwnedServerName,
    },
    /// A peer subscribed to the topic of a room of ours.
    Subscribed {
        /// The peer.
        peer_id: String,
        /// The server it speaks for, where that is known already.
        server: Option<OwnedServerName>,
        /// The room.
        room_id: OwnedRoomId,
    },
    /// A signed record of where a peer is, ours included whenever our addresses change: verified,
    /// and newer than what was reported before.
    Record {
        /// The server that lists the peer.
        server: OwnedServerName,
        /// The peer.
        peer_id: String,
        /// Of two records of one peer the one with the greater number counts.
        seq: u64,
        /// The signed envelope, to be passed on as it is.
        record: Bytes,
        /// The addresses in it that can be used (multiaddr text with the PeerId).
        addresses: Vec<String>,
    },
}

/// Whether a frame may be forwarded to other peers. Style section 3.3, point 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Acceptance {
    /// Forward it.
    Accept,
    /// Do not forward it, and hold nothing against the sender.
    Ignore,
    /// Do not forward it; any honest peer could see that it is bad.
    Reject,
}

/// Who is at the other end of a connection. The transport puts it into the
/// extensions of every request that it hands to the Server-Server router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The authenticated PeerId in its text form.
    pub peer_id: String,
}

/// Servers by whether they share a room with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origins {
    /// They do.
    Members,
    /// They do not.
    Strangers,
}

/// The homeserver's end of the port.
#[derive(Debug, Clone)]
pub struct Peers {
    tx: mpsc::Sender<Outbound>,
    live: Arc<Live>,
}

impl Peers {
    /// Makes the port: our end, and the end for the transport.
    pub fn pair(capacity: usize) -> (Self, mpsc::Receiver<Outbound>) {
        let (tx, rx) = mpsc::channel(capacity);
        (Self { tx, live: Arc::default() }, rx)
    }

    /// The servers that can be reached without dialing, in the order of their names.
    pub fn connected(&self) -> Vec<OwnedServerName> {
        self.live.connected()
    }

    /// Whether a server can be reached without dialing.
    pub fn is_connected(&self, server: &ServerName) -> bool {
        self.live.is_connected(server)
    }

    /// The connected server that a peer speaks for.
    pub fn server_of(&self, peer_id: &str) -> Option<OwnedServerName> {
        self.live.server_of(peer_id)
    }

    /// The keys with which frames are sealed.
    pub(crate) fn room_keys(&self) -> &RoomKeys {
        &self.live.room_keys
    }

    /// How fast requests of other servers may come.
    pub(crate) fn request_paces(&self) -> &RequestPaces {
        &self.live.request_paces
    }

    /// Counts a frame, or looks whether one more would be too many.
    pub(crate) fn with_frame_paces<T>(&self, count: impl FnOnce(&mut FramePaces) -> T) -> T {
        count(&mut self.live.frame_paces.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Numbers for the metrics.
    pub fn counters(&self) -> &Counters {
        &self.live.counters
    }

    /// Says, after a commit, that the outbox or the parked events grew, so that the run loop looks.
    pub fn wake(&self) {
        self.live.woken.notify_one();
    }

    /// The time to sign a request with: `now`, or a little later, so that no two requests of ours
    /// carry the same time and the second is taken for a repetition of the first.
    pub(crate) fn signing_time(
        &self,
        now: MilliSecondsSinceUnixEpoch,
    ) -> MilliSecondsSinceUnixEpoch {
        self.live.signing_time(now)
    }

    /// Says that others have something of a room that we lack, so that the run loop compares heads.
    pub(crate) fn note_behind(&self, room_id: &RoomId) {
        self.live.note_behind(room_id);
        self.wake();
    }

    /// Says that a server which is not in a room, as far as we know, sends frames to it: it may
    /// have joined.
    pub(crate) fn note_stranger(&self, room_id: &RoomId, now: MilliSecondsSinceUnixEpoch) {
        if self.live.note_stranger(room_id, now) {
            self.note_behind(room_id);
        }
    }

    /// Says that a server which we have out of a room holds itself to be in it, so that the run loop
    /// looks at what such servers went on from.
    pub(crate) fn note_disputed(&self, room_id: &RoomId, now: MilliSecondsSinceUnixEpoch) {
        if self.live.note_disputed(room_id, now) {
            self.wake();
        }
    }

    /// Whether a server may be told now what sent its users out of a room.
    pub(crate) fn may_tell_departure(
        &self,
        whom: (&RoomId, &ServerName),
        now: MilliSecondsSinceUnixEpoch,
    ) -> bool {
        self.live.may_tell_departure(whom, now)
    }

    /// The disputed rooms noted since the last call.
    pub(crate) fn take_disputed(&self) -> BTreeSet<OwnedRoomId> {
        self.live.take_disputed()
    }

    /// The rooms noted since the last call.
    pub(crate) fn take_behind(&self) -> BTreeSet<OwnedRoomId> {
        self.live.take_behind()
    }

    /// Says that history of a room is wanted, so that the run loop fetches some.
    pub(crate) fn note_history(&self, room_id: &RoomId) {
        self.live.note_history(room_id);
        self.wake();
    }

    /// The rooms whose history is wanted since the last call.
    pub(crate) fn take_history(&self) -> BTreeSet<OwnedRoomId> {
        self.live.take_history()
    }

    pub(crate) fn note_compared(&self, server: &ServerName, compared: Compared) {
        self.live.note_compared(server, compared);
    }

    /// How the last comparison of heads with a server ended, if there was one since the start.
    pub fn compared(&self, server: &ServerName) -> Option<Compared> {
        self.live.compared(server)
    }

    /// The places for requests that we carry for others.
    pub(crate) fn carrying(&self) -> &Slots {
        &self.live.carrying
    }

    /// The places for requests that others carried to us.
    pub(crate) fn taking(&self) -> &Slots {
        &self.live.taking
    }

    /// Who carried our last requests to servers without a path.
    pub(crate) fn routes(&self) -> &Routes {
        &self.live.routes
    }

    /// Digests of heads, kept in memory.
    pub(crate) fn digests(&self) -> &Digests {
        &self.live.digests
    }

    /// What is known at this moment about comparing heads.
    pub(crate) fn comparing(&self) -> &Comparing {
        &self.live.comparing
    }

    /// Says that a server named heads of some rooms that we lack, so that the run loop asks it.
    pub(crate) fn note_ahead(
        &self,
        server: &ServerName,
        rooms: impl IntoIterator<Item = OwnedRoomId>,
        now_ms: u64,
    ) {
        if self.live.comparing.note_ahead(server, rooms, now_ms) {
            self.wake();
        }
    }

    /// Who could not be reached, and when to try again.
    pub(crate) fn retries(&self) -> &Retries {
        &self.live.retries
    }

    /// The last attempt to reach a server, if it failed.
    pub fn last_attempt(&self, server: &ServerName) -> Option<Attempt> {
        self.live.retries.last(server)
    }

    /// Says that a server showed life: by a request, a frame, a record, a connection. What waits
    /// for it is tried again at once.
    pub(crate) fn note_alive(&self, server: &ServerName) {
        if self.live.retries.note_alive(server) {
            self.wake();
        }
    }

    /// Up to which change a server was told of address records; 0 when of none.
    pub(crate) fn told(&self, server: &ServerName) -> i64 {
        self.live.told(server)
    }

    pub(crate) fn note_told(&self, server: &ServerName, up_to: i64) {
        self.live.note_told(server, up_to);
    }

    /// Lets every server be told of all address records again: rooms came or went, and with them
    /// whom they are for.
    pub(crate) fn forget_told(&self) {
        self.live.forget_told();
    }

    pub(crate) async fn woken(&self) {
        self.live.woken.notified().await;
    }

    pub(crate) fn note_connected(&self, server: &ServerName, peer_id: &str) {
        self.live.connect(server, peer_id);
    }

    pub(crate) fn note_disconnected(&self, server: &ServerName) {
        self.live.disconnect(server);
    }

    /// Runs `check` on the memory of what was seen from servers of a kind, alone. It holds a
    /// bounded number of origins, so strangers must not be able to fill the members'.
    pub(crate) fn with_replay_filter<T>(
        &self,
        of: Origins,
        check: impl FnOnce(&mut ReplayFilter) -> T,
    ) -> T {
        let filter = match of {
            Origins::Members => &self.live.seen_of_members,
            Origins::Strangers => &self.live.seen_of_strangers,
        };
        // The filter has no invariant that a panic elsewhere could break.
        check(&mut filter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands over a command that may be lost: heads repair a lost frame.
    /// Gives `false` when the channel is full or the transport is gone.
    pub fn offer(&self, command: Outbound) -> bool {
        match self.tx.try_send(command) {
            Ok(()) => true,
            Err(refused) => {
                debug!(%refused, "the transport took no command");
                false
            }
        }
    }

    /// Hands over a command that must not be lost; waits while the channel is full.
    /// Gives `false` when the transport is gone.
    pub async fn tell(&self, command: Outbound) -> bool {
        self.tx.send(command).await.is_ok()
    }

    /// Carries one request to a server, within `timeout`.
    ///
    /// Dropping the future gives the request up.
    ///
    /// # Errors
    /// Whatever kept the response away; a response of any status is `Ok`.
    pub async fn request(
        &self,
        destination: OwnedServerName,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Result<http::Response<Bytes>, RequestError> {
        let (reply, answer) = oneshot::channel();
        let whole = async {
            let command = Outbound::Request { destination, request, reply };
            if !self.tell(command).await {
                return Err(RequestError::Unreachable);
            }
            answer.await.unwrap_or(Err(RequestError::Unreachable))
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(RequestError::TimedOut))
    }

    /// The verified keys of those who advertise a rendezvous string.
    pub async fn find(&self, key: String) -> Vec<ServerKeys> {
        let (reply, answer) = oneshot::channel();
        let whole = async {
            if !self.tell(Outbound::Find { key, reply }).await {
                return Vec::new();
            }
            answer.await.unwrap_or_default()
        };
        tokio::time::timeout(FIND_TIMEOUT, whole).await.unwrap_or_default()
    }

    /// The state of the network; `None` when there is no transport.
    pub async fn status(&self) -> Option<NetStatus> {
        let (reply, answer) = oneshot::channel();
        if !self.tell(Outbound::Status { reply }).await {
            return None;
        }
        answer.await.ok()
    }
}
