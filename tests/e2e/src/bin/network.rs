//! Measures nodes that share a network: two namespaces on one LAN, and the real binary in each. A
//! benchmark, no test; `tests/bench/network.sh` runs it.
//!
//! ```text
//! network catch-up [EVENTS]            what one node missed while it was off
//! network rooms [ROOMS]                many shared rooms: at rest, and after a reconnect
//! network large-room [MEMBERS] [JOINS] joining a room of many members; FILL_ROOM names the
//!                                      program that makes one
//! ```

use std::{
    process::Command,
    time::{Duration, Instant},
};

use e2e::{
    http::{Caller, escape},
    namespace::{Lan, Machine},
    node::Node,
    within,
};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

/// Requests of a client at once.
const AT_ONCE: usize = 8;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long nodes are watched at rest.
const REST: Duration = Duration::from_secs(60);

/// Rooms in which something happens while a node is off.
const ROOMS_WITH_NEWS: usize = 10;

/// A clock tick of `/proc/PID/stat`: a hundredth of a second on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let mut number =
        |usual: usize| arguments.next().map_or(usual, |text| text.parse().expect("a number"));
    match what.as_str() {
        "catch-up" => catch_up(number(10_000)).await,
        "rooms" => rooms(number(1_000)).await,
        "large-room" => large_room(number(10_000), number(5)).await,
        _ => panic!("usage: network catch-up|rooms|large-room …"),
    }
}

/// A node, and the one who uses it.
struct Person<'a> {
    node: Node<'a>,
    caller: Caller,
    server: String,
}

impl<'a> Person<'a> {
    async fn on(machine: &'a Machine, name: &str) -> Self {
        let variables = [("REGISTRATION", "open"), ("RATE_LIMITS", "null")];
        let node = Node::configured(machine, &variables).await;
        let caller = Caller::register(node.client_address(), name).await;
        let server = node.server_name().await;
        Self { node, caller, server }
    }

    async fn returns(&mut self) {
        self.node.start().await;
        self.caller = self.caller.moved(self.node.client_address());
    }

    /// Waits until the node is connected with another one.
    async fn meets(&self, other: &Self) {
        let met = within(PATIENCE, async || {
            let status = self.node.status().await;
            let peers = status["peers"].as_array()?;
            peers.iter().find(|peer| peer["server_name"] == other.server.as_str()).map(drop)
        });
        met.await.expect("the nodes find each other");
    }

    /// Joins a room; again when the other node finds that this one asks too much.
    async fn joins(&self, room: &str, via: &Self) {
        let path = format!("/join/{}?via={}", escape(room), via.server);
        let joined =
            within(PATIENCE, async || self.caller.ask(Method::POST, &path, json!({})).await);
        assert!(joined.await.is_some(), "{room} can be joined, log:\n{}", self.node.log());
    }

    /// Waits until this is the last text of a room.
    async fn has(&self, room: &str, text: &str) {
        let path = format!("/rooms/{}/messages?dir=b&limit=1", escape(room));
        let seen = within(PATIENCE, async || {
            let page = self.caller.ask(Method::GET, &path, Value::Null).await?;
            (page["chunk"][0]["content"]["body"] == text).then_some(())
        });
        seen.await.unwrap_or_else(|| panic!("“{text}” is there, log:\n{}", self.node.log()));
    }

    /// CPU time of the node so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.node.pid()));
        let stat = stat.expect("a running node");
        // The name, in parentheses, may hold spaces.
        let fields = stat.rsplit(") ").next().expect("fields").split(' ');
        let ticks: Vec<f64> = fields.skip(11).take(2).map(|n| n.parse().expect("ticks")).collect();
        ticks.iter().sum::<f64>() / TICKS_A_SECOND
    }

    /// Its share of memory, in MiB.
    fn memory(&self) -> f64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.node.pid()));
        let rollup = rollup.expect("a running node");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a sum");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024.0
    }

    /// Bytes that its network card has sent and received.
    fn bytes(&self) -> u64 {
        let table = std::fs::read_to_string(format!("/proc/{}/net/dev", self.node.pid()));
        let table = table.expect("a running node");
        let card = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let fields: Vec<u64> = card
            .expect("a network card")
            .split_whitespace()
            .map(|field| field.parse().expect("a number"))
            .collect();
        fields[0] + fields[8]
    }
}

/// Runs something for each item, several at once; gives what came of it, in the order of items.
async fn each<I, T, F: Future<Output = T>>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> F,
) -> Vec<T> {
    stream::iter(items).map(work).buffered(AT_ONCE).collect().await
}

async fn catch_up(events: usize) {
    let lan = Lan::new();
    let machines = [lan.machine(), lan.machine()];
    let anna = Person::on(&machines[0], "anna").await;
    let mut bob = Person::on(&machines[1], "bob").await;
    bob.meets(&anna).await;
    let room = anna.caller.create_room(json!({"preset": "public_chat"})).await;
    bob.joins(&room, &anna).await;
    bob.node.stop().await;

    let begun = Instant::now();
    let sent = each(0..events, |number| {
        let (caller, room) = (&anna.caller, &room);
        async move { caller.send(room, &format!("text {number}"), &format!("t{number}")).await }
    })
    .await;
    assert!(sent.iter().all(Option::is_some), "everything is taken");
    println!("{events} messages sent in {:.1?}", begun.elapsed());
    anna.caller.send(&room, "the last one", "last").await.expect("it is taken");

    let (wire, cpu) = (anna.bytes(), anna.cpu());
    let begun = Instant::now();
    bob.returns().await;
    let up = begun.elapsed();
    bob.has(&room, "the last one").await;
    let all = begun.elapsed();
    let wire = (anna.bytes() - wire) as f64 / 1e6;
    println!(
        "catch-up of {events}: {all:.2?} from the start of the process (answers after {up:.2?}), \
         {:.0} events a second, {wire:.1} MB on the wire, CPU {:.1} s here and {:.1} s there",
        events as f64 / all.as_secs_f64(),
        bob.cpu(),
        anna.cpu() - cpu
    );
    let kept = bob.caller.history(&room).await.len();
    assert_eq!(kept, events + 1, "nothing is missing");
}

async fn rooms(count: usize) {
    let lan = Lan::new();
    let machines = [lan.machine(), lan.machine()];
    let anna = Person::on(&machines[0], "anna").await;
    let mut bob = Person::on(&machines[1], "bob").await;
    bob.meets(&anna).await;
    let begun = Instant::now();
    let rooms = each(0..count, |_| anna.caller.create_room(json!({"preset": "public_chat"}))).await;
    each(&rooms, |room| bob.joins(room, &anna)).await;
    println!("{count} rooms made and joined in {:.0?}", begun.elapsed());
    at_rest([&anna, &bob]).await;

    for round in 1..=3 {
        bob.node.kill().await;
        let step = (count / ROOMS_WITH_NEWS).max(1);
        let news: Vec<_> = rooms.iter().step_by(step).take(ROOMS_WITH_NEWS).collect();
        let text = format!("news {round}");
        for room in &news {
            anna.caller.send(room, &text, &text.replace(' ', "")).await.expect("it is taken");
        }
        let wire = anna.bytes();
        let begun = Instant::now();
        bob.returns().await;
        let up = begun.elapsed();
        for room in &news {
            bob.has(room, &text).await;
        }
        println!(
            "{count} rooms, all news {:.2?} after the start of the process (answers after \
             {up:.2?}), {:.0} kB on the wire",
            begun.elapsed(),
            (anna.bytes() - wire) as f64 / 1e3
        );
    }
    at_rest([&anna, &bob]).await;
}

/// What nodes need while nothing happens.
async fn at_rest(people: [&Person<'_>; 2]) {
    // What a join leaves to be done afterwards is done when a second of CPU lasts a minute.
    let quiet = within(PATIENCE, async || {
        let before: f64 = people.iter().map(|person| person.cpu()).sum();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after: f64 = people.iter().map(|person| person.cpu()).sum();
        (after - before < 0.08).then_some(())
    });
    if quiet.await.is_none() {
        println!("the nodes do not come to rest");
    }
    let before = people.map(|person| (person.cpu(), person.bytes()));
    tokio::time::sleep(REST).await;
    for (person, (cpu, bytes)) in people.iter().zip(before) {
        let seconds = REST.as_secs_f64();
        println!(
            "at rest: {:.4} cores, {:.1} MiB, {:.0} kB an hour",
            (person.cpu() - cpu) / seconds,
            person.memory(),
            (person.bytes() - bytes) as f64 / seconds * 3.6
        );
    }
}

async fn large_room(members: usize, joins: usize) {
    let fill = std::env::var_os("FILL_ROOM").expect("FILL_ROOM names the program fill_room");
    let lan = Lan::new();
    let machines: Vec<_> = (0..=joins).map(|_| lan.machine()).collect();
    let mut anna = Person::on(&machines[0], "anna").await;
    let room = anna.caller.create_room(json!({"preset": "public_chat"})).await;
    anna.node.stop().await;
    let mut command = Command::new(fill);
    command.arg(anna.node.data()).args([&anna.server, &room, &members.to_string()]);
    assert!(command.status().expect("fill_room").success());
    anna.returns().await;

    for (join, machine) in machines.iter().enumerate().skip(1) {
        let bob = Person::on(machine, "bob").await;
        bob.meets(&anna).await;
        let cpu = (bob.cpu(), anna.cpu());
        let begun = Instant::now();
        bob.joins(&room, &anna).await;
        let joined = begun.elapsed();
        let text = format!("bob {join}");
        bob.caller.send(&room, &text, &text.replace(' ', "")).await.expect("it is taken");
        let usable = begun.elapsed();
        anna.has(&room, &text).await;
        let heard = begun.elapsed();
        let cpu = (bob.cpu() - cpu.0, anna.cpu() - cpu.1);
        let path = format!("/rooms/{}/joined_members", escape(&room));
        let all = bob.caller.ask(Method::GET, &path, Value::Null).await.expect("members");
        let all = all["joined"].as_object().map_or(0, serde_json::Map::len);
        assert_eq!(all, members + 1 + join, "all of them are known");
        println!(
            "joined {members} members in {joined:.2?}, wrote after {usable:.2?}, read by others \
             after {heard:.2?}; CPU {:.2} s here, {:.2} s there; {:.1} MiB",
            cpu.0,
            cpu.1,
            bob.memory()
        );
    }
}
