//! Logs on standard error: sentences for people, or one JSON object a line for machines.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Config, LogFormat};

/// Dependencies whose warnings are ordinary life here: a node that is alone on its network, peers
/// that cannot be dialed back, and events that a room's rules refuse.
const QUIET: &str = "libp2p_autonat=error,libp2p_dcutr=error,libp2p_kad=error,libp2p_mdns=error,\
                     libp2p_relay=error,libp2p_upnp=error,ruma_state_res=error";

/// The crates of this project.
const OURS: [&str; 5] =
    ["messagehub", "messagehub_api", "messagehub_homeserver", "messagehub_net", "messagehub_store"];

/// Starts logging. Dependencies speak at `warn` only, unless the level names them.
pub(crate) fn start(config: &Config) {
    let level = &config.log_level;
    let filter = if level.contains('=') {
        level.clone()
    } else {
        let ours = OURS.map(|name| format!("{name}={level}")).join(",");
        format!("warn,{QUIET},{ours}")
    };
    let registry = tracing_subscriber::registry().with(EnvFilter::new(filter));
    let layer = fmt::layer().with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Human => registry.with(layer.with_target(false)).init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
}
