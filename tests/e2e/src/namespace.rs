//! Network namespaces joined by a bridge: machines of one LAN, without any path to the world.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A LAN: a namespace that holds a bridge.
pub struct Lan {
    bridge: String,
    number: u32,
    machines: AtomicU32,
}

/// A machine on a LAN: a namespace with a loopback interface and one network card.
pub struct Machine {
    name: String,
    address: String,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.expect("the command `ip` is needed (Debian: apt-get install iproute2)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said} (network namespaces need root)");
}

impl Lan {
    /// A LAN without machines.
    pub fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let bridge = format!("mh{}-{number}", std::process::id());
        ip(&format!("netns add {bridge}"));
        ip(&format!("-n {bridge} link add br0 type bridge"));
        ip(&format!("-n {bridge} link set br0 up"));
        Self { bridge, number, machines: AtomicU32::new(0) }
    }

    /// One more machine on this LAN.
    pub fn machine(&self) -> Machine {
        let number = self.machines.fetch_add(1, Ordering::SeqCst) + 1;
        let name = format!("{}-{number}", self.bridge);
        let address = format!("10.{}.{}.{number}", 64 + self.number / 256, self.number % 256);
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link add eth0 type veth peer name m{number} netns {}", self.bridge));
        ip(&format!("-n {} link set m{number} master br0 up", self.bridge));
        ip(&format!("-n {name} addr add {address}/24 brd + dev eth0"));
        ip(&format!("-n {name} link set eth0 up multicast on"));
        // Multicast DNS needs a route for its group.
        ip(&format!("-n {name} route add 224.0.0.0/4 dev eth0"));
        Machine { name, address }
    }
}

impl Default for Lan {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.bridge]).status();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

impl Machine {
    /// Its address on the LAN.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A command that runs on this machine.
    pub fn command(&self, program: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Pulls the network cable, or puts it back: `up` or `down`.
    pub fn link(&self, state: &str) {
        ip(&format!("-n {} link set eth0 {state}", self.name));
        if state == "up" {
            ip(&format!("-n {} route replace 224.0.0.0/4 dev eth0", self.name));
        }
    }

    /// An address of the test's own loopback behind which `target`, as this machine sees it, is
    /// reached. A client in the test process so sits on this machine.
    pub fn door(&self, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let door = listener.local_addr().expect("a bound address");
        let namespace = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        thread::spawn(move || {
            // A socket belongs to the namespace in which its thread made it; the listener was
            // made outside and stays there.
            let inside = LinkNameSpaceType::Network;
            move_into_link_name_space(namespace.as_fd(), Some(inside)).expect("the right to enter");
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
