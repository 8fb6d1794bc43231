//! Network namespaces joined by a bridge: machines of one LAN, without any path to the world.

use std::{
    fs::File,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Makes every test that needs namespaces pass without being run, where they cannot be made.
pub const SKIP: &str = "MESSAGEHUB_SKIP_NAMESPACES";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Whether tests that need namespaces are to run; says so when they are not.
///
/// They are not looked for first: where they cannot be made, the test fails with what is missing.
pub fn are_wanted() -> bool {
    let is_skipped = std::env::var_os(SKIP).is_some_and(|value| value == "1");
    if is_skipped {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        // Not `eprintln!`, which the test runner shows of failed tests only.
        let said = writeln!(io::stderr(), "SKIPPED: {name} needs network namespaces; {SKIP}=1");
        said.expect("standard error");
    }
    !is_skipped
}

/// A network namespace, removed when dropped.
pub struct Namespace {
    name: String,
}

/// A LAN: a namespace that holds a bridge.
pub struct Lan {
    bridge: Namespace,
    number: u32,
    machines: AtomicU32,
}

/// A machine: a namespace with a loopback interface and one network card.
pub struct Machine {
    namespace: Namespace,
    address: IpAddr,
}

/// Runs a command line of `ip`.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.expect("the command `ip` is needed (Debian: apt-get install iproute2)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "NO NETWORK NAMESPACE COULD BE MADE. ip {arguments}: {said} (this needs root on Linux; \
         {SKIP}=1 skips such tests)"
    );
}

impl Namespace {
    /// A namespace with nothing but a loopback interface.
    pub fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("mh{}-{number}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self { name }
    }

    /// Its name, for `ip -n`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A bridge `br0`, to which [`Self::plug`] connects.
    pub(crate) fn bridge(&self) {
        ip(&format!("-n {} link add br0 type bridge", self.name));
        ip(&format!("-n {} link set br0 up", self.name));
    }

    /// A cable from the new interface `card` of `machine` to a port of this bridge.
    pub(crate) fn plug(&self, machine: &Self, card: &str, port: u32) {
        let (bridge, machine) = (&self.name, &machine.name);
        ip(&format!("-n {machine} link add {card} type veth peer name m{port} netns {bridge}"));
        ip(&format!("-n {bridge} link set m{port} master br0 up"));
        ip(&format!("-n {machine} link set {card} up multicast on"));
    }

    /// Runs something inside, on a thread of its own. A socket belongs to the namespace in which
    /// its thread made it and may leave it.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        let entered = || {
            let kind = LinkNameSpaceType::Network;
            move_into_link_name_space(namespace.as_fd(), Some(kind)).expect("the right to enter");
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join()).expect("the work inside is done")
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

impl Lan {
    /// A LAN without machines.
    pub fn new() -> Self {
        let bridge = Namespace::new();
        bridge.bridge();
        Self { bridge, number: COUNT.fetch_add(1, Ordering::SeqCst), machines: AtomicU32::new(0) }
    }

    /// One more machine on this LAN.
    pub fn machine(&self) -> Machine {
        let number = self.machines.fetch_add(1, Ordering::SeqCst) + 1;
        let namespace = Namespace::new();
        self.bridge.plug(&namespace, "eth0", number);
        let subnet = self.number % 4096;
        let octet = |number: u32| u8::try_from(number).expect("a LAN of at most 254 machines");
        let [high, low] = [64 + subnet / 256, subnet % 256].map(octet);
        Machine::new(namespace, Ipv4Addr::new(10, high, low, octet(number)).into(), 24)
    }
}

impl Default for Lan {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// A machine that is plugged in with its card `eth0` and gets this address.
    pub(crate) fn new(namespace: Namespace, address: IpAddr, prefix: u8) -> Self {
        let name = &namespace.name;
        // An IPv6 address is usable only after a second in which others may object, unless told.
        let how = if address.is_ipv6() { "nodad" } else { "brd +" };
        ip(&format!("-n {name} addr add {address}/{prefix} {how} dev eth0"));
        // Multicast DNS needs a route for its group.
        ip(&format!("-n {name} route add 224.0.0.0/4 dev eth0"));
        Self { namespace, address }
    }

    /// Its address on the LAN.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A command that runs on this machine.
    pub fn command(&self, program: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace.name, program]);
        command
    }

    /// Pulls the network cable, or puts it back: `up` or `down`.
    pub fn link(&self, state: &str) {
        let name = &self.namespace.name;
        ip(&format!("-n {name} link set eth0 {state}"));
        if state == "up" {
            ip(&format!("-n {name} route replace 224.0.0.0/4 dev eth0"));
        }
    }

    /// An address of the test's own loopback behind which `target`, as this machine sees it, is
    /// reached. A client in the test process so sits on this machine.
    pub fn door(&self, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let door = listener.local_addr().expect("a bound address");
        let namespace = format!("/run/netns/{}", self.namespace.name);
        let namespace = File::open(namespace).expect("the namespace");
        thread::spawn(move || {
            // The listener was made outside and stays there.
            let kind = LinkNameSpaceType::Network;
            move_into_link_name_space(namespace.as_fd(), Some(kind)).expect("the right to enter");
            for outer in listener.incoming().flatten() {
                // A refused connection is what a client of a dead server sees.
                if let Ok(inner) = TcpStream::connect(target) {
                    join(outer, inner);
                }
            }
        });
        door
    }
}

/// Copies both ways until both ends are closed.
fn join(outer: TcpStream, inner: TcpStream) {
    for stream in [&outer, &inner] {
        stream.set_nodelay(true).expect("a TCP socket");
    }
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _: io::Result<u64> = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    };
    copy(outer.try_clone().expect("a socket"), inner.try_clone().expect("a socket"));
    copy(inner, outer);
}
