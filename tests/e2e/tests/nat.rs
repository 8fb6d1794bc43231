//! Two people behind every pair of NATs, over each transport: they meet, talk, and get the best path
//! that the two NATs allow. The tables of `docs/network.md` are made here.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Mutex,
    time::Duration,
};

use e2e::{
    http::Caller,
    namespace,
    nat::{Home, Internet, Nat},
    node::Node,
    within,
};
use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Cells that are being tried at once: the nodes share two cores.
const AT_ONCE: usize = 4;

/// How long each step of a cell may take: a node that cannot find another is patient for a minute.
const STEP: Duration = Duration::from_secs(90);

/// Set to try these kinds alone, such as `none,symmetric`, and compare no table: for looking into a
/// failure.
const ONLY: &str = "NAT_KINDS";

/// Set to write the tables into `docs/network.md` instead of comparing them.
const BLESS: &str = "UPDATE_NETWORK";

/// A network to be tried.
struct Setting {
    /// The name of its table.
    table: &'static str,
    internet: fn() -> Internet,
    /// What comes after the IP address in a multiaddr.
    transport: &'static str,
    /// The secret of a private network.
    secret: Option<&'static str>,
    kinds: &'static [Nat],
}

/// A running node behind a NAT, and somebody who uses it.
struct Seat<'a> {
    nat: Nat,
    node: Node<'a>,
    server: String,
    person: Caller,
}

/// What became of two people.
struct Outcome {
    left: Nat,
    right: Nat,
    /// The path in the end, or what did not happen.
    path: Result<String, String>,
    /// From the invitation until both had heard the other, and until the path was the expected one.
    took: [Duration; 2],
}

impl Outcome {
    fn expected(&self) -> &'static str {
        expected(self.left, self.right)
    }

    fn is_right(&self) -> bool {
        self.path.as_deref() == Ok(self.expected())
    }
}

fn expected(left: Nat, right: Nat) -> &'static str {
    if left.allows_direct(right) { "direct" } else { "relayed" }
}

impl Setting {
    fn kinds(&self) -> Vec<Nat> {
        let only = std::env::var(ONLY).ok();
        let is_wanted =
            |nat: &Nat| only.as_ref().is_none_or(|only| only.split(',').any(|it| it == nat.name()));
        self.kinds.iter().copied().filter(is_wanted).collect()
    }

    fn variables<'a>(&'a self, listen: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut variables = vec![
            ("REGISTRATION", "open"),
            ("RATE_LIMITS", "null"),
            // The bridge between the homes is no LAN.
            ("LIBP2P_MDNS", "false"),
            ("LIBP2P_LISTEN_ADDRESSES", listen),
        ];
        variables.extend(self.secret.map(|secret| ("LIBP2P_PRIVATE_NETWORK_SECRET", secret)));
        variables
    }

    /// A multiaddr of this network.
    fn multiaddr(&self, ip: IpAddr) -> String {
        let family = if ip.is_ipv6() { "ip6" } else { "ip4" };
        format!("/{family}/{ip}/{}", self.transport)
    }

    /// Two nodes that relay for everybody and know the way to everybody, and their addresses. Two:
    /// whether a node can be dialed others must say.
    async fn relays<'a>(&self, homes: &'a [Home; 2]) -> ([Node<'a>; 2], String) {
        let start = async |home: &'a Home, known: &str| {
            let listen = self.multiaddr(home.outside);
            let mut variables = self.variables(&listen);
            variables.extend([
                ("LIBP2P_RELAY_SERVICE", "anyone"),
                ("LIBP2P_DHT_BOOTSTRAP_PEERS", known),
            ]);
            let node = Node::configured(&home.machine, &variables).await;
            let peer_id = text(&node.status().await["peer_id"]);
            (node, format!("{listen}/p2p/{peer_id}"))
        };
        let (one, address) = start(&homes[0], "").await;
        let (two, other) = start(&homes[1], &address).await;
        let nodes = [one, two];
        for node in &nodes {
            settled(node, &["public"]).await;
        }
        (nodes, format!("{address},{other}"))
    }

    /// A node at home with somebody who uses it, as soon as others can reach it.
    async fn seat<'a>(&self, home: &'a Home, relays: &str, name: &str) -> Seat<'a> {
        let any = match home.outside {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listen = self.multiaddr(any);
        let mut variables = self.variables(&listen);
        let ways = [("LIBP2P_STATIC_RELAYS", relays), ("LIBP2P_DHT_BOOTSTRAP_PEERS", relays)];
        variables.extend(ways);
        let node = Node::configured(&home.machine, &variables).await;
        let person = Caller::register(node.client_address(), name).await;
        let server = text(&node.status().await["server_name"]);
        settled(&node, &["public", "relayed"]).await;
        Seat { nat: home.nat, node, server, person }
    }

    /// Tries every pair.
    async fn outcomes(&self) -> Vec<Outcome> {
        let internet = (self.internet)();
        let homes = || self.kinds().into_iter().map(|nat| internet.home(nat)).collect::<Vec<_>>();
        let (lefts, rights) = (homes(), homes());
        let middle = [internet.home(Nat::None), internet.home(Nat::None)];
        let (relays, addresses) = self.relays(&middle).await;
        let (lefts, rights): (Vec<_>, Vec<_>) = tokio::join!(
            join_all(lefts.iter().map(|home| self.seat(home, &addresses, "anna"))),
            join_all(rights.iter().map(|home| self.seat(home, &addresses, "bob"))),
        );
        let pairs = lefts.iter().flat_map(|left| rights.iter().map(move |right| (left, right)));
        let tried = stream::iter(pairs).map(|(left, right)| outcome(left, right));
        let mut outcomes: Vec<_> = tried.buffer_unordered(AT_ONCE).collect().await;
        outcomes.sort_by_key(|outcome| (outcome.left, outcome.right));
        if outcomes.iter().any(|outcome| !outcome.is_right()) {
            let nodes = lefts.iter().chain(&rights).map(|seat| &seat.node).chain(&relays);
            self.keep_logs(nodes);
        }
        outcomes
    }

    /// Keeps the logs of nodes that failed, which end with them; `MESSAGEHUB_LOG_LEVEL` says what
    /// is in there.
    fn keep_logs<'a>(&self, nodes: impl Iterator<Item = &'a Node<'a>>) {
        let directory = std::env::temp_dir().join(format!("messagehub-nat-{}", self.table));
        std::fs::create_dir_all(&directory).expect("a directory");
        for (number, node) in nodes.enumerate() {
            std::fs::write(directory.join(number.to_string()), node.log()).expect("a file");
        }
        println!("logs (left, right, relays) are in {}", directory.display());
    }

    /// Tries every pair, and holds the outcomes against what is expected and what is documented.
    async fn check(&self) {
        if !namespace::are_wanted() {
            return;
        }
        let outcomes = self.outcomes().await;
        for Outcome { left, right, path, took: [talk, settled] } in &outcomes {
            println!(
                "{} {:>21} – {:<21} {path:?}, talked after {talk:.2?}, settled after {settled:.2?}",
                self.table,
                left.name(),
                right.name(),
            );
        }
        let wrong: Vec<_> = outcomes
            .iter()
            .filter(|outcome| !outcome.is_right())
            .map(|it| (it.left, it.right, &it.path))
            .collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.table);
        if std::env::var_os(ONLY).is_none() {
            document(self.table, &table(self.kinds, &outcomes));
        }
    }
}

/// Waits until a node knows how it is reached, and that this is one of these ways.
async fn settled(node: &Node<'_>, kinds: &[&str]) {
    let mut last = Value::Null;
    let done = within(STEP, async || {
        last = node.status().await["reachability"].clone();
        kinds.iter().any(|kind| last["kind"] == *kind).then_some(())
    });
    if done.await.is_none() {
        println!("not reachable as {kinds:?}: {last}");
    }
}

/// Lets two people meet and talk, and waits for the path that is expected.
async fn outcome(left: &Seat<'_>, right: &Seat<'_>) -> Outcome {
    let begun = Instant::now();
    let mut took = [Duration::ZERO; 2];
    let path = async {
        let room = meet(left, right).await?;
        converse(left, right, &room, "first").await?;
        took[0] = begun.elapsed();
        let path = settle(left, right).await?;
        took[1] = begun.elapsed();
        converse(left, right, &room, "then").await?;
        let [ours, theirs] = [&left.person, &right.person].map(|who| who.history(&room));
        let (ours, theirs) = tokio::join!(ours, theirs);
        if ours != theirs || ours.len() != 4 {
            return Err(format!("the two rooms differ: {ours:?} and {theirs:?}"));
        }
        Ok(path)
    };
    let path = path.await;
    Outcome { left: left.nat, right: right.nat, path, took }
}

async fn meet(left: &Seat<'_>, right: &Seat<'_>) -> Result<String, String> {
    let guest = right.person.user_id().await;
    let body = json!({"preset": "trusted_private_chat", "invite": [guest]});
    let room = left.person.create_room(body).await;
    if !right.person.is_invited(&room, STEP).await {
        return Err("the invitation never came".to_owned());
    }
    if !right.person.joins(&room, STEP).await {
        return Err("no way to join".to_owned());
    }
    Ok(room)
}

/// Each says something and hears the other.
async fn converse(left: &Seat<'_>, right: &Seat<'_>, room: &str, when: &str) -> Result<(), String> {
    for (speaker, listener) in [(left, right), (right, left)] {
        let said = format!("{when} from {}", speaker.server);
        let sent = speaker.person.send(room, &said, &format!("{when} in {room}")).await;
        let event_id = sent.ok_or("a message was not taken")?;
        let heard = listener.person.hears(room, &said, STEP).await;
        if heard.as_ref() != Some(&event_id) {
            return Err(format!("{when}: sent {event_id}, heard {heard:?}"));
        }
    }
    Ok(())
}

/// The path on which both sides agree, as soon as it is the expected one.
async fn settle(left: &Seat<'_>, right: &Seat<'_>) -> Result<String, String> {
    let expected = expected(left.nat, right.nat);
    let mut last = [None, None];
    let settled = within(STEP, async || {
        last = [path(left, right).await, path(right, left).await];
        last.iter().all(|path| path.as_deref() == Some(expected)).then_some(())
    });
    match settled.await {
        Some(()) => Ok(expected.to_owned()),
        None => Err(format!("{last:?} instead of {expected}")),
    }
}

/// How one node reaches another, by its own word.
async fn path(from: &Seat<'_>, to: &Seat<'_>) -> Option<String> {
    let status = from.node.status().await;
    let peers = status["peers"].as_array()?;
    let peer = peers.iter().find(|peer| peer["server_name"] == to.server.as_str())?;
    Some(text(&peer["path"]))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The outcomes as a table: who invites on the left, who is invited on top.
fn table(kinds: &[Nat], outcomes: &[Outcome]) -> String {
    let names = kinds.iter().map(|nat| nat.name()).collect::<Vec<_>>();
    let mut lines = vec![
        format!("| inviting \\ invited | {} |", names.join(" | ")),
        format!("|{}", "---|".repeat(kinds.len() + 1)),
    ];
    for (row, name) in outcomes.chunks(kinds.len()).zip(names) {
        let paths: Vec<_> = row.iter().map(|cell| cell.path.as_deref().unwrap_or("none")).collect();
        lines.push(format!("| {name} | {} |", paths.join(" | ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Compares a table with the one in `docs/network.md`, or writes it there.
fn document(name: &str, table: &str) {
    // The tests of this file run side by side.
    static PAGE: Mutex<()> = Mutex::new(());
    let _page = PAGE.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/network.md");
    let page = std::fs::read_to_string(&path).expect("docs/network.md");
    let (begin, end) = (format!("<!-- table {name} -->\n"), "<!-- end -->");
    let (before, rest) = page.split_once(&begin).expect("a mark where the table begins");
    let (old, after) = rest.split_once(end).expect("a mark where the table ends");
    if std::env::var_os(BLESS).is_some() {
        let page = format!("{before}{begin}{table}{end}{after}");
        std::fs::write(&path, page).expect("docs/network.md can be written");
    } else {
        assert_eq!(old, table, "docs/network.md; {BLESS}=1 writes what was measured");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_through_each_pair_of_nats() {
    let (table, transport) = ("quic", "udp/4001/quic-v1");
    let internet = Internet::public;
    Setting { table, internet, transport, secret: None, kinds: &Nat::ALL }.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_through_each_pair_of_nats() {
    let (table, transport) = ("tcp", "tcp/4001");
    let internet = Internet::public;
    Setting { table, internet, transport, secret: None, kinds: &Nat::ALL }.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_network_through_nats() {
    let (table, transport) = ("private", "tcp/4001");
    let internet = Internet::private;
    let kinds = &[Nat::None, Nat::PortRestricted, Nat::Symmetric];
    let secret = Some("correct horse battery staple");
    Setting { table, internet, transport, secret, kinds }.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_through_firewalls() {
    let (table, transport) = ("ipv6", "udp/4001/quic-v1");
    let (internet, kinds) = (Internet::v6, &[Nat::None, Nat::PortRestricted]);
    Setting { table, internet, transport, secret: None, kinds }.check().await;
}
