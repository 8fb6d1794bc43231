use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    server_keys::{ServerKeys, ServerKeysTerms},
};
use ruma::{MilliSecondsSinceUnixEpoch, UInt};
use tokio::time::{Duration, Instant};

use super::{Book, Connection, Gone, Standing, Way, relay_of};
use crate::{
    config::Switch,
    scope::{Network, Scope},
};

/// Keys of server `number`, made at `ms`, that name these peers.
fn keys(number: u8, ms: u32, peers: &[PeerId]) -> ServerKeys {
    let identity = IdentityKey::from_seed(&[number; 32]);
    let verify = VerifyKey::from_seed(&[number ^ 0xff; 32]);
    let peer_ids = peers.iter().map(ToString::to_string).collect();
    let issued_ts = MilliSecondsSinceUnixEpoch(UInt::from(ms));
    ServerKeys::make(
        &identity,
        &verify,
        ServerKeysTerms { old_verify_keys: vec![], peer_ids, issued_ts },
    )
}

fn book() -> Book {
    Book::new(PeerId::random(), Scope { network: Network::Public, loopback: Switch::Off })
}

fn connection(number: usize, at: &str) -> Connection {
    let address = address(at);
    let way = relay_of(&address).map_or(Way::Direct, |relay| Way::Relayed(Some(relay)));
    Connection::new(id(number), address, way, true)
}

/// A clock that gives the time after some seconds, and connections that others made by it.
fn connections_of_theirs()
-> (impl Fn(u64) -> Instant + Copy, impl Fn(usize, &str, u64) -> Connection) {
    let start = Instant::now();
    let at = move |after: u64| start + Duration::from_secs(after);
    let theirs = move |number, place: &str, after| Connection {
        is_ours: false,
        since: at(after),
        ..connection(number, place)
    };
    (at, theirs)
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn id(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

const HERE: &str = "/ip4/192.168.1.2/tcp/1";
const THROUGH_RELAY: &str =
    "/ip4/192.168.1.3/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit";

#[test]
fn who_dials_again_has_lost_its_connection() {
    let (at, theirs) = connections_of_theirs();
    let mut book = book();
    let again = PeerId::random();
    book.connected(again, theirs(1, HERE, 0));
    book.connected(again, theirs(2, "/ip4/192.168.1.2/udp/1/quic-v1", 10));
    assert_eq!(book.confused(at(12)), [], "it may be AutoNAT's");
    assert_eq!(book.confused(at(13)), [again]);
    assert_eq!(book.confused(at(60)), [], "once");
    // AutoNAT dials back, from another port, whoever asks for it, and the asker hears the result.
    let asked = PeerId::random();
    book.connected(asked, theirs(3, HERE, 0));
    book.connected(asked, theirs(4, "/ip4/192.168.1.2/tcp/50000", 10));
    book.peer_mut(&asked).unwrap().has_tested_us();
    assert_eq!(book.confused(at(60)), []);
    // It asked us, and so it tests us over our own connection.
    let tester = PeerId::random();
    book.connected(tester, connection(5, HERE));
    book.connected(tester, theirs(6, "/ip4/192.168.1.2/tcp/50000", 10));
    assert_eq!(book.confused(at(60)), []);
    book.connected(tester, theirs(7, HERE, 60));
    assert_eq!(book.confused(at(63)), [tester]);
}

#[test]
fn a_peer_may_have_several_connections() {
    let (at, theirs) = connections_of_theirs();
    let mut book = book();
    let (at_once, relayed, replaced) = (PeerId::random(), PeerId::random(), PeerId::random());
    book.connected(at_once, theirs(1, HERE, 0));
    book.connected(at_once, theirs(2, HERE, 1));
    book.connected(relayed, connection(3, THROUGH_RELAY));
    book.connected(relayed, theirs(4, HERE, 10));
    book.connected(relayed, theirs(5, HERE, 20));
    book.connected(replaced, theirs(6, HERE, 0));
    book.connected(replaced, theirs(7, HERE, 10));
    assert_eq!(book.disconnected(replaced, id(6), at(11)), Gone::NotYet);
    assert_eq!(book.confused(at(60)), []);
}

#[test]
fn who_had_topics_and_tells_none_is_mute() {
    let start = Instant::now();
    let at = |after: u64| start + Duration::from_secs(after);
    let mut book = book();
    let peer = PeerId::random();
    let arrives = |book: &mut Book, number, after| {
        book.connected(peer, Connection { since: at(after), ..connection(number, HERE) });
    };
    arrives(&mut book, 1, 0);
    assert_eq!(book.confused(at(60)), [], "it may have no rooms");
    book.peer_mut(&peer).unwrap().told_topic();
    assert_eq!(book.confused(at(60)), []);
    book.disconnected(peer, id(1), at(60));
    arrives(&mut book, 2, 100);
    assert_eq!(book.confused(at(105)), [], "it is just telling them");
    assert_eq!(book.confused(at(110)), [peer]);
    assert_eq!(book.confused(at(200)), [], "once: it may have left its last room");
}

#[test]
fn a_server_is_reachable_through_a_verified_peer_only() {
    let mut book = book();
    let (peer, other) = (PeerId::random(), PeerId::random());
    let told = keys(1, 1_000, &[peer]);
    let name = told.server_name();
    assert!(book.connected(peer, connection(1, HERE)));
    assert_eq!(book.reachable(name), None);
    book.verified(peer, &told).unwrap();
    assert_eq!(book.reachable(name), Some(peer));
    assert!(book.connected(other, connection(2, HERE)));
    assert!(book.verified(other, &told).is_none(), "the keys do not list this peer");
    assert_eq!(book.peer(&other).unwrap().standing, Standing::Refused);
}

#[test]
fn newer_keys_remove_a_peer() {
    let mut book = book();
    let (old, new) = (PeerId::random(), PeerId::random());
    assert!(book.learn(&keys(1, 2_000, &[new])));
    assert!(book.connected(old, connection(1, HERE)));
    assert!(book.verified(old, &keys(1, 1_000, &[old])).is_none());
    assert_eq!(book.peers_of(keys(1, 1_000, &[]).server_name()), [new]);
}

#[test]
fn a_direct_peer_comes_before_a_relayed_one() {
    let mut book = book();
    let (relayed, direct) = (PeerId::random(), PeerId::random());
    let told = keys(1, 1_000, &[relayed, direct]);
    book.connected(relayed, connection(1, THROUGH_RELAY));
    book.verified(relayed, &told).unwrap();
    assert_eq!(book.reachable(told.server_name()), Some(relayed));
    book.connected(direct, connection(2, HERE));
    book.verified(direct, &told).unwrap();
    assert_eq!(book.reachable(told.server_name()), Some(direct));
}

#[test]
fn a_server_is_gone_with_the_last_connection_of_its_last_peer() {
    let mut book = book();
    let (one, two) = (PeerId::random(), PeerId::random());
    let told = keys(1, 1_000, &[one, two]);
    let now = Instant::now();
    for (peer, number) in [(one, 1), (two, 2)] {
        book.connected(peer, connection(number, HERE));
        book.verified(peer, &told).unwrap();
        book.peer_mut(&peer).unwrap().announced = true;
    }
    assert!(!book.connected(one, connection(3, HERE)));
    assert_eq!(book.disconnected(one, id(1), now), Gone::NotYet);
    assert_eq!(book.disconnected(one, id(3), now), Gone::Peer);
    assert_eq!(book.disconnected(two, id(2), now), Gone::Server(told.server_name().to_owned()));
}

#[test]
fn a_wanted_peer_is_dialed_again_ever_more_rarely() {
    let mut book = book();
    let peer = PeerId::random();
    book.learn(&keys(1, 1_000, &[peer]));
    let mut now = Instant::now();
    book.alive(peer, now);
    let mut waits = Vec::new();
    for _ in 0..28 {
        let before = now;
        while book.due_dials(now, 9, false).is_empty() {
            now += Duration::from_secs(1);
        }
        waits.push((now - before).as_secs());
    }
    assert_eq!(waits[..7], [0, 2, 4, 8, 16, 30, 30]);
    assert_eq!(waits[24..], [30, 300, 300, 300]);
    book.alive(peer, now);
    assert_eq!(book.due_dials(now, 9, false), [peer], "a sign of life ends the wait");
    book.network_changed(now);
    assert_eq!(book.due_dials(now, 9, false), [peer], "so does a change of our own network");
}

#[test]
fn a_stranger_is_not_dialed_for_ever() {
    let mut book = book();
    let peer = PeerId::random();
    let mut now = Instant::now();
    book.alive(peer, now);
    let mut dials = 0;
    for _ in 0..1_000 {
        dials += book.due_dials(now, 9, false).len();
        now += Duration::from_secs(1);
    }
    assert_eq!(dials, 4);
}

#[test]
fn an_unreachable_server_is_left_alone_until_it_shows_life() {
    let mut book = book();
    let peer = PeerId::random();
    let told = keys(1, 1_000, &[peer]);
    let now = Instant::now();
    book.learn(&told);
    book.unreachable(told.server_name(), now);
    assert!(book.is_unreachable(told.server_name(), now));
    book.alive(peer, now);
    assert!(!book.is_unreachable(told.server_name(), now));
}

#[test]
fn a_silent_peer_is_asked_again_and_then_left() {
    let now = Instant::now();
    let mut standing = Standing::default();
    let mut questions = 0;
    loop {
        standing.asked();
        questions += 1;
        standing.silent(now);
        if standing == Standing::Refused {
            break;
        }
        assert!(!standing.is_due(now));
        assert!(standing.is_due(now + Duration::from_secs(300)));
    }
    assert_eq!(questions, 6);
}

#[test]
fn nothing_grows_without_bound() {
    let mut book = book();
    let connected = PeerId::random();
    book.connected(connected, connection(1, HERE));
    for number in 0..super::MAX_PEERS + 100 {
        let at = format!("/ip4/10.0.{}.{}/tcp/1", number / 250 % 250, number % 250);
        book.add_addresses(PeerId::random(), [address(&at)]);
        book.add_addresses(connected, [address(&at)]);
    }
    assert!((1..=super::MAX_PEERS).contains(&book.peers().count()));
    assert_eq!(book.peer(&connected).unwrap().addresses().len(), super::peer::MAX_ADDRESSES);
}

#[test]
fn only_trusted_servers_are_dialed_by_themselves() {
    let mut book = book();
    let (friend, stranger, configured) = (PeerId::random(), PeerId::random(), PeerId::random());
    let (ours, theirs) = (keys(1, 1_000, &[friend]), keys(2, 1_000, &[stranger]));
    book.learn(&ours);
    book.learn(&theirs);
    book.configure(configured, address("/dns4/example.org/tcp/1"));
    assert!(book.peer(&stranger).unwrap().wanted, "until it is known whom we trust");
    book.trust([ours.server_name().to_owned()].into());
    assert!(book.peer(&friend).unwrap().wanted && book.peer(&configured).unwrap().wanted);
    assert!(!book.peer(&stranger).unwrap().wanted);
    assert_eq!(book.trusted_peers(), [friend].into());
    let now = Instant::now();
    for peer in [friend, stranger, configured] {
        book.alive(peer, now);
    }
    assert_eq!(book.due_dials(now, 9, true), [configured]);
    book.trust([].into());
    assert!(!book.peer(&friend).unwrap().wanted);
}

#[test]
fn a_record_counts_once_and_only_of_a_listed_peer() {
    let mut book = book();
    let peer = PeerId::random();
    let told = keys(1, 1_000, &[peer]);
    let here = || vec![address(HERE), address("/dns4/example.org/tcp/1")];
    assert_eq!(book.take_record(peer, 5, here()), None, "nobody lists the peer");
    book.learn(&told);
    let taken = book.take_record(peer, 5, here());
    assert_eq!(taken, Some((told.server_name().to_owned(), vec![address(HERE)])));
    assert_eq!(book.take_record(peer, 5, here()), None);
    assert_eq!(book.take_record(peer, 4, here()), None);
    assert_eq!(book.peer(&peer).unwrap().addresses(), [address(HERE)]);
}

#[test]
fn a_relayed_peer_is_tried_directly_ever_more_rarely() {
    let mut book = book();
    let peer = PeerId::random();
    book.connected(peer, connection(1, THROUGH_RELAY));
    let mut now = Instant::now();
    book.peer_mut(&peer).unwrap().plan_upgrade(now);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let before = now;
        while book.due_upgrades(now, 9).is_empty() {
            now += Duration::from_secs(1);
        }
        waits.push((now - before).as_secs());
    }
    assert_eq!(waits, [0, 5, 30, 300]);
    book.connected(peer, connection(2, HERE));
    assert!(book.due_upgrades(now + Duration::from_secs(9_999), 9).is_empty());
}

#[test]
fn a_replaced_circuit_does_not_begin_the_direct_tries_anew() {
    let (mut book, peer, now) = (book(), PeerId::random(), Instant::now());
    book.connected(peer, connection(1, THROUGH_RELAY));
    book.peer_mut(&peer).unwrap().plan_upgrade(now);
    assert_eq!(book.due_upgrades(now, 9), [peer]);
    book.connected(peer, connection(2, THROUGH_RELAY));
    assert_eq!(book.disconnected(peer, id(1), now), Gone::NotYet);
    assert!(book.due_upgrades(now, 9).is_empty(), "relayed before and after");

    book.connected(peer, connection(3, "/ip4/203.0.113.7/tcp/1"));
    assert_eq!(book.disconnected(peer, id(3), now), Gone::NotYet);
    assert_eq!(book.due_upgrades(now, 9), [peer], "the direct connection ended");
}

#[test]
fn an_address_of_somebody_else_is_forgotten_once() {
    let (mut book, peer) = (book(), PeerId::random());
    let [here, there] = ["/ip4/192.168.1.2/tcp/1", "/ip4/203.0.113.7/tcp/1"].map(address);
    book.add_addresses(peer, [here.clone(), there.clone()]);
    assert!(book.forget_address(&peer, &here));
    assert!(!book.forget_address(&peer, &here));
    assert_eq!(book.peer(&peer).unwrap().addresses(), [there]);
}
