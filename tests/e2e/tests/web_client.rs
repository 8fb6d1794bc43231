//! An ordinary web client: matrix-js-sdk in headless Chromium, in a page of another origin.

use std::{fs, path::Path, process::Stdio};

use e2e::{
    http::Caller,
    node::{Node, PASSWORD},
};
use tokio::process::Command;

/// Runs `web/start_up.mjs`; its output when it fails or does not end.
async fn start_up(base: &str, user: &str, scratch: &Path) -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/start_up.mjs");
    let path = scratch.join("web_client");
    let out = fs::File::create(&path).expect("an output file");
    let err = out.try_clone().expect("an open file");
    let mut command = Command::new("node");
    command.arg(script).args([base, user, PASSWORD]).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let mut process = command.spawn().expect("the command node");
    // The script ends each of its steps after DEADLINE; this is for a browser that hangs.
    let ended = tokio::time::timeout(5 * e2e::DEADLINE, process.wait()).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        how => Err(format!("{how:?}\n{}", fs::read_to_string(&path).unwrap_or_default())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_client_starts_up_and_talks() {
    let node = Node::local(&["--registration", "open"]).await;
    Caller::register(node.client_address(), "webster").await;
    let base = format!("http://{}", node.client_address());
    if let Err(output) = start_up(&base, "webster", node.data()).await {
        let hint = "it needs `npm ci --prefix tests/e2e/web` and Chromium (or CHROMIUM=…)";
        panic!("the web client failed; {hint}\n{output}\nlog of the node:\n{}", node.log());
    }
}
