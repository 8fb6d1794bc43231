//! Proves that the routers of the lab are what they are called, measured from both sides as RFC
//! 5780 does, before anything is said about MessageHub behind them.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use e2e::{
    DEADLINE,
    namespace::{self, Machine},
    nat::{Home, Internet, Nat},
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

/// How long an attempt to connect may stay unanswered until it counts as dropped. An answer from
/// the next namespace takes microseconds.
const UNANSWERED: Duration = Duration::from_millis(500);

/// What was measured of one home.
#[derive(Debug, PartialEq, Eq)]
struct Behavior {
    /// All destinations see one address and port.
    is_one_port: bool,
    /// Strangers get in.
    is_open_to_strangers: bool,
    /// So does another port of somebody who was written to.
    is_open_to_other_ports: bool,
}

impl Behavior {
    fn of(nat: Nat) -> Self {
        let (is_one_port, is_open) = match nat {
            Nat::None | Nat::EndpointIndependent => (true, true),
            Nat::PortRestricted => (true, false),
            Nat::Symmetric => (false, false),
        };
        Self { is_one_port, is_open_to_strangers: is_open, is_open_to_other_ports: is_open }
    }
}

fn udp(machine: &Machine, port: u16) -> UdpSocket {
    let address = SocketAddr::new(machine.address(), port);
    let socket = machine.namespace().inside(|| UdpSocket::bind(address)).expect("a free port");
    socket.set_read_timeout(Some(DEADLINE)).expect("a UDP socket");
    socket
}

fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).expect("a packet in time");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

/// Sends a packet and gives the source that the receiver sees.
fn source(from: &UdpSocket, to: &UdpSocket) -> SocketAddr {
    from.send_to(b"hello", to.local_addr().expect("bound")).expect("a route");
    receive(to).1
}

fn measure_udp(home: &Home, internet: &Internet) -> Behavior {
    let (one, two) = (internet.home(Nat::None).machine, internet.home(Nat::None).machine);
    let (known, other_port, stranger) = (udp(&one, 1001), udp(&one, 1002), udp(&two, 1001));
    let inner = udp(&home.machine, 4001);
    let seen: BTreeSet<SocketAddr> =
        [&known, &other_port, &stranger].map(|server| source(&inner, server)).into();

    let inner = udp(&home.machine, 4002);
    let outer = source(&inner, &known);
    stranger.send_to(b"stranger", outer).expect("a route");
    other_port.send_to(b"other port", outer).expect("a route");
    let mut got = BTreeSet::new();
    // The second round trip is over after everything sent before the first one has come or is lost.
    for round in ["first", "second"] {
        known.send_to(round.as_bytes(), outer).expect("a route");
        loop {
            let (text, _) = receive(&inner);
            let is_round = text == round;
            got.insert(text);
            if is_round {
                break;
            }
        }
        source(&inner, &known);
    }
    Behavior {
        is_one_port: seen.len() == 1,
        is_open_to_strangers: got.contains("stranger"),
        is_open_to_other_ports: got.contains("other port"),
    }
}

/// A socket on a machine that shares its port with others, as libp2p's do.
fn tcp(machine: &Machine, port: u16) -> TcpSocket {
    let address = SocketAddr::new(machine.address(), port);
    let socket = machine.namespace().inside(TcpSocket::new_v4).expect("a socket");
    socket.set_reuseaddr(true).expect("a TCP socket");
    socket.set_reuseport(true).expect("a TCP socket");
    socket.bind(address).expect("a free port");
    socket
}

fn listen(machine: &Machine, port: u16) -> TcpListener {
    tcp(machine, port).listen(8).expect("a listener")
}

/// Connects, and gives the source that the listener sees. Both ends stay open.
async fn connect(from: TcpSocket, to: &TcpListener) -> (SocketAddr, [TcpStream; 2]) {
    let address = to.local_addr().expect("bound");
    let (out, (accepted, source)) = tokio::try_join!(from.connect(address), to.accept()).unwrap();
    (source, [out, accepted])
}

async fn measure_tcp(home: &Home, internet: &Internet) -> Behavior {
    let (one, two) = (internet.home(Nat::None).machine, internet.home(Nat::None).machine);
    let (known, other_port, stranger) =
        (listen(&one, 1001), listen(&one, 1002), listen(&two, 1001));
    let mut seen = BTreeSet::new();
    let mut open = Vec::new();
    for server in [&known, &other_port, &stranger] {
        let (source, ends) = connect(tcp(&home.machine, 4001), server).await;
        seen.insert(source);
        open.push(ends);
    }

    let inner = listen(&home.machine, 4002);
    let (outer, _ends) = connect(tcp(&home.machine, 4002), &known).await;
    let gets_in = async |machine: &Machine| {
        let attempt = tcp(machine, 1003).connect(outer);
        let made = timeout(UNANSWERED, attempt).await;
        let is_in = matches!(made, Ok(Ok(_)));
        assert!(is_in || made.is_err(), "dropped, not refused: {made:?}");
        is_in
    };
    let (is_open_to_strangers, is_open_to_other_ports) = tokio::join!(gets_in(&two), gets_in(&one));
    drop(inner);
    Behavior { is_one_port: seen.len() == 1, is_open_to_strangers, is_open_to_other_ports }
}

#[tokio::test]
async fn each_router_is_what_it_is_called() {
    if !namespace::are_wanted() {
        return;
    }
    let internet = Internet::public();
    for nat in Nat::ALL {
        let home = internet.home(nat);
        assert_eq!(measure_udp(&home, &internet), Behavior::of(nat), "UDP, {}", nat.name());
        assert_eq!(measure_tcp(&home, &internet).await, Behavior::of(nat), "TCP, {}", nat.name());
    }
}

#[test]
fn direct_paths_are_possible_between_all_but_three_pairs() {
    let pairs = Nat::ALL.into_iter().flat_map(|left| Nat::ALL.map(|right| (left, right)));
    let relayed: Vec<_> = pairs.filter(|(left, right)| !left.allows_direct(*right)).collect();
    let [restricted, symmetric] = [Nat::PortRestricted, Nat::Symmetric];
    let expected = [(restricted, symmetric), (symmetric, restricted), (symmetric, symmetric)];
    assert_eq!(relayed, expected);
}
