//! How fast requests of other servers may come. Looked at in two steps: whoever is at the other
//! end of a connection before anything is read, and the origin before its signature is verified.

use std::sync::{Mutex, PoisonError};

use ruma::{OwnedServerName, ServerName};

use crate::{
    buckets::{Buckets, Pace},
    peers::{Origins, PeerIdentity},
    rate::Limited,
};

/// Requests over the connections of one peer, before we know for whom it speaks: three times what
/// a member may ask, since it may carry requests of others.
const OF_PEER: Pace = Pace { per_second: 600.0, burst: 6_000.0 };

/// Signed requests of one server that shares a room with us. Catching up with 10,000 events takes
/// some 200; comparing heads one a minute.
const OF_MEMBER: Pace = Pace { per_second: 200.0, burst: 2_000.0 };

/// Signed requests of one server that shares no room with us: an invite with what belongs to it,
/// a join, a search.
const OF_STRANGER: Pace = Pace { per_second: 2.0, burst: 60.0 };

/// The same of all of them together, since their identities cost nothing: a tenth of a core.
const OF_STRANGERS: Pace = Pace { per_second: 100.0, burst: 1_000.0 };

/// Of each kind at once: more than there are connections, or servers that ask within the seconds
/// after which a bucket is full again.
const MAX_BUCKETS: usize = 6_000;

/// How fast requests come.
#[derive(Debug)]
pub(crate) struct RequestPaces(Mutex<Paces>);

#[derive(Debug)]
struct Paces {
    peers: Buckets<String>,
    members: Buckets<OwnedServerName>,
    strangers: Buckets<OwnedServerName>,
    all_strangers: Buckets<()>,
}

impl RequestPaces {
    /// Counts a request of whoever is at the other end.
    ///
    /// # Errors
    /// [`Limited`] when that peer asks too much.
    pub(crate) fn take_of_peer(&self, peer: &PeerIdentity, now_ms: u64) -> Result<(), Limited> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paces.peers.check(&peer.peer_id, now_ms)
    }

    /// Counts a request of a server whose peer brought it: nobody else can use up its share.
    ///
    /// # Errors
    /// [`Limited`] when that server, or all strangers together, ask too much.
    pub(crate) fn take_of_origin(
        &self,
        (origin, origins): (&ServerName, Origins),
        now_ms: u64,
    ) -> Result<(), Limited> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = origin.to_owned();
        match origins {
            Origins::Members => paces.members.check(&origin, now_ms),
            Origins::Strangers => {
                paces.strangers.check(&origin, now_ms)?;
                paces.all_strangers.check(&(), now_ms)
            }
        }
    }
}

impl Default for RequestPaces {
    fn default() -> Self {
        Self(Mutex::new(Paces {
            peers: Buckets::new(OF_PEER, MAX_BUCKETS),
            members: Buckets::new(OF_MEMBER, MAX_BUCKETS),
            strangers: Buckets::new(OF_STRANGER, MAX_BUCKETS),
            all_strangers: Buckets::new(OF_STRANGERS, 1),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(n: u32) -> OwnedServerName {
        OwnedServerName::try_from(format!("s{n}.example.org")).unwrap()
    }

    fn asked(paces: &RequestPaces, server: &ServerName, origins: Origins) -> u32 {
        (0..10_000).take_while(|_| paces.take_of_origin((server, origins), 0).is_ok()).count()
            as u32
    }

    #[test]
    fn a_member_may_ask_more_than_a_stranger() {
        let paces = RequestPaces::default();
        assert_eq!(asked(&paces, &server(1), Origins::Strangers), 60);
        assert_eq!(asked(&paces, &server(2), Origins::Members), 2_000);
        let limited = paces.take_of_origin((&server(1), Origins::Strangers), 0).unwrap_err();
        assert_eq!(limited.retry_after_ms, 500);
    }

    #[test]
    fn strangers_share_what_strangers_may_ask_and_take_nothing_from_members() {
        let paces = RequestPaces::default();
        let all: u32 = (0..100).map(|n| asked(&paces, &server(n), Origins::Strangers)).sum();
        assert_eq!(all, 1_000);
        assert_eq!(asked(&paces, &server(200), Origins::Members), 2_000);
    }

    #[test]
    fn a_peer_is_counted_whoever_it_says_it_is() {
        let paces = RequestPaces::default();
        let peer = PeerIdentity { peer_id: "12D3KooW".to_owned() };
        assert!((0..6_000).all(|_| paces.take_of_peer(&peer, 0).is_ok()));
        assert!(paces.take_of_peer(&peer, 0).is_err());
    }
}
