//! The real binary, started as a user would start it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Child};

use crate::{eventually, namespace::Machine};

/// The password that tests give to users.
pub const PASSWORD: &str = "correct horse battery";

/// A node with its data directory; killed when dropped.
pub struct Node<'a> {
    machine: Option<&'a Machine>,
    data: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    process: Option<Child>,
}

/// The binary under test: `MESSAGEHUB_BIN`, else the debug build of the tree.
pub fn binary() -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/messagehub");
    let path = std::env::var_os("MESSAGEHUB_BIN").map_or(tree, PathBuf::from);
    let hint = "build it first: cargo build --bin messagehub";
    assert!(path.exists(), "{} is missing; {hint}", path.display());
    path.canonicalize().expect("a path that exists")
}

impl<'a> Node<'a> {
    /// A node on a machine, without any configuration.
    pub async fn on(machine: &'a Machine) -> Self {
        Self::configured(machine, &[]).await
    }

    /// A node on a machine with these environment variables, whose names go on after `MESSAGEHUB_`.
    pub async fn configured(machine: &'a Machine, variables: &[(&str, &str)]) -> Self {
        let mut node = Self::stopped(Some(machine), &[]);
        node.configure(variables);
        node.start().await;
        node
    }

    /// A node on the test's own loopback with these arguments, without rate limits.
    pub async fn local(arguments: &[&str]) -> Self {
        let mut node = Self::stopped(None, arguments);
        node.start().await;
        node
    }

    fn stopped(machine: Option<&'a Machine>, arguments: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        Self { machine, data, arguments, variables: Vec::new(), process: None }
    }

    /// Sets environment variables, for the next start.
    pub fn configure(&mut self, variables: &[(&str, &str)]) {
        let full = variables.iter().map(|(name, value)| (format!("MESSAGEHUB_{name}"), value));
        self.variables.extend(full.map(|(name, value)| (name, (*value).to_owned())));
    }

    /// The id of its process.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().and_then(Child::id).expect("a running node")
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Starts it, or starts it again, and waits until it answers.
    pub async fn start(&mut self) {
        let log = std::fs::File::create(self.data.path().join("log")).expect("a log file");
        let out = std::fs::File::create(self.data.path().join("out")).expect("an output file");
        let _ = std::fs::remove_file(self.data.path().join("admin.address"));
        let mut command = self.command();
        command.args(&self.arguments).stdin(Stdio::null()).stdout(out).stderr(log);
        let mut process = command.kill_on_drop(true).spawn().expect("the binary starts");
        eventually("the node starts", async || {
            let ended = process.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "{ended:?}, log:\n{}", self.log());
            self.data.path().join("admin.address").exists().then_some(())
        })
        .await;
        self.process = Some(process);
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("a running node");
        process.kill().await.expect("a running process");
    }

    /// SIGTERM, and the end of the process.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("a running node");
        let pid = process.id().expect("a running process").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("the command kill");
        assert!(sent.success());
        let ended = tokio::time::timeout(crate::DEADLINE, process.wait()).await;
        let status = ended.expect("an end in time").expect("a child of ours");
        assert!(status.success(), "{status}, log:\n{}", self.log());
    }

    /// What it printed on standard output.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.data.path().join("out")).unwrap_or_default()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Where clients reach it, from the test process.
    pub fn client_address(&self) -> SocketAddr {
        self.address("listen.address")
    }

    /// What the admin address says of the node, as JSON: what `messagehub status --json` prints.
    pub async fn status(&self) -> Value {
        let token = std::fs::read_to_string(self.data.path().join("admin.token"));
        let request = reqwest::Client::new()
            .get(format!("http://{}/status", self.address("admin.address")))
            .bearer_auth(token.expect("a started node"));
        let answer = request.send().await.expect("an answer of the admin address");
        answer.json().await.expect("a status")
    }

    fn address(&self, file: &str) -> SocketAddr {
        let text = std::fs::read_to_string(self.data.path().join(file));
        let address = text.expect("a started node").parse().expect("an address");
        self.machine.map_or(address, |machine| machine.door(address))
    }

    /// Runs one command of the binary with a line of input; gives what it printed.
    pub async fn run(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).await.expect("an open pipe");
        drop(stdin);
        let output = child.wait_with_output().await.expect("a child of ours");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// Its server name.
    pub async fn server_name(&self) -> String {
        let id = self.run(&["id"], "").await;
        id.lines().next().expect("a name").to_owned()
    }

    fn command(&self) -> tokio::process::Command {
        let binary = binary();
        let binary = binary.to_str().expect("a path in UTF-8");
        let mut command = match self.machine {
            Some(machine) => machine.command(binary),
            None => tokio::process::Command::new(binary),
        };
        command.arg("--data").arg(self.data.path());
        // They are ours, and the node refuses variables that it does not know.
        command.env_remove("MESSAGEHUB_BIN").env_remove(crate::namespace::SKIP);
        if self.machine.is_none() {
            command.env("MESSAGEHUB_RATE_LIMITS", "null");
            // Nothing of a test may leave the machine.
            command.env("MESSAGEHUB_LIBP2P_MDNS", "false");
            let loopback = "/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1";
            command.env("MESSAGEHUB_LIBP2P_LISTEN_ADDRESSES", loopback);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}
