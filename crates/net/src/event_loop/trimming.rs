//! Few connections of our own: not a mesh of everybody.

use libp2p::PeerId;
use tokio::time::{Duration, Instant};
use tracing::debug;

use super::EventLoop;
use crate::book::Peer;

/// How often connections are looked at.
const PAUSE: Duration = Duration::from_secs(5);

/// Friends that are kept connected. A room of a hundred is a mesh then; in a larger one each node
/// knows this many others, far more than gossip needs to reach all.
pub(super) const KEPT_FRIENDS: usize = 128;

/// Strangers that are kept connected: those through whom we search the DHT, and who search through
/// us.
const KEPT_STRANGERS: usize = 48;

/// For how long a connection of no use is kept: a search takes seconds, a conversation pauses for
/// minutes.
const STRANGER_IDLE: Duration = Duration::from_secs(60);
const FRIEND_IDLE: Duration = Duration::from_secs(600);

/// Topics that all strangers together are subscribed to, at some 100 bytes each: six that have as many
/// rooms as a node is built for, or many ordinary ones.
const STRANGERS_TOPICS: usize = 30_000;

impl EventLoop {
    /// Closes what was replaced, and of what is of no use the part beyond the limits.
    pub(super) fn trim(&mut self, now: Instant) {
        if now < self.trim_at {
            return;
        }
        self.trim_at = now + PAUSE;
        self.close_replaced(now);
        let (mut friends, mut strangers) = (Vec::new(), Vec::new());
        for (id, peer) in self.book.peers() {
            if peer.is_connected() && !peer.configured && !self.relays.is_in_use(id) {
                let kind = if self.book.is_friend(peer) { &mut friends } else { &mut strangers };
                kind.push((peer.used_at, *id));
            }
        }
        let closed = superfluous(friends, KEPT_FRIENDS, now - FRIEND_IDLE).chain(superfluous(
            strangers,
            KEPT_STRANGERS,
            now - STRANGER_IDLE,
        ));
        let closed: Vec<_> = closed.collect();
        self.close_talkative();
        for peer in closed {
            if !self.is_busy(&peer) {
                debug!(%peer, "closing a connection that is of no use");
                // It may be gone by itself.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    /// Closes connections with strangers that have us remember too many topics, those with the most
    /// first.
    fn close_talkative(&mut self) {
        let is_stranger = |id: &PeerId| {
            let peer = self.book.peer(id);
            peer.is_none_or(|peer| !peer.configured && !self.book.is_friend(peer))
        };
        let gossip = &self.swarm.behaviour().gossip;
        let mut strangers: Vec<(usize, PeerId)> = gossip
            .all_peers()
            .filter(|(id, _)| is_stranger(id))
            .map(|(id, topics)| (topics.len(), *id))
            .collect();
        strangers.sort_unstable();
        let mut topics: usize = strangers.iter().map(|(topics, _)| topics).sum();
        while topics > STRANGERS_TOPICS
            && let Some((most, peer)) = strangers.pop()
        {
            debug!(%peer, topics = most, "closing a connection with a stranger in many topics");
            topics -= most;
            // It may be gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// How many friends are connected.
    pub(super) fn friends(&self) -> usize {
        let is_here = |peer: &&Peer| peer.is_connected() && self.book.is_friend(peer);
        self.book.peers().map(|(_, peer)| peer).filter(is_here).count()
    }

    /// Whether requests run, with a peer that says who it is or is about to.
    fn is_busy(&self, id: &PeerId) -> bool {
        let Some(peer) = self.book.peer(id) else { return false };
        let streams = &self.swarm.behaviour().streams;
        peer.is_pending()
            || peer.connections.iter().any(|connection| streams.is_busy(connection.id))
    }
}

/// Of `peers`, each with when it was last of use, those beyond `kept` that were of none since
/// `then`, the longest idle first.
fn superfluous(
    mut peers: Vec<(Option<Instant>, PeerId)>,
    kept: usize,
    then: Instant,
) -> impl Iterator<Item = PeerId> {
    peers.sort_unstable();
    let excess = peers.len().saturating_sub(kept);
    let idle = move |(used_at, _): &(Option<Instant>, PeerId)| used_at.is_none_or(|at| at <= then);
    peers.into_iter().take(excess).filter(idle).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_go_first_and_the_busy_stay() {
        let now = Instant::now() + Duration::from_secs(1_000);
        let at = |ago: u64| Some(now - Duration::from_secs(ago));
        let ids: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        let peers = vec![(at(70), ids[0]), (at(90), ids[1]), (at(10), ids[2]), (at(80), ids[3])];
        let then = now - Duration::from_secs(60);
        let closed: Vec<_> = superfluous(peers.clone(), 2, then).collect();
        assert_eq!(closed, [ids[1], ids[3]]);
        assert_eq!(superfluous(peers.clone(), 4, then).count(), 0);
        assert_eq!(superfluous(peers, 0, then).count(), 3, "one was just of use");
    }
}
