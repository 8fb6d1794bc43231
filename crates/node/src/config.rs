//! The configuration (design D18): flat keys in `config.json`, each also an environment
//! variable, all with defaults. A mistake is one line that says which key, what was wrong and
//! what is allowed.

mod keys;
mod read;

use std::{fmt, net::SocketAddr, path::Path};

use messagehub_homeserver::{DEFAULT_MAX_UPLOAD_BYTES, RateLimits, Registration};
use messagehub_net::{PrivateNetwork, RelayService};
use ruma::RoomVersionId;

pub(crate) use keys::KEYS;

/// Everything an owner can decide.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Where clients reach the Client-Server API.
    pub(crate) listen: ListenAddress,
    /// Where `/health`, `/metrics` and the commands of this binary reach the running node.
    pub(crate) admin_listen: ListenAddress,
    /// Multiaddresses libp2p listens on; empty = every interface, one remembered port.
    pub(crate) libp2p_listen: Vec<String>,
    /// Peers to keep connected and to enter the public DHT through, as multiaddresses with their
    /// PeerId; `None` = those of the public DHT, unless the node keeps to itself.
    pub(crate) bootstrap_peers: Option<Vec<String>>,
    /// Those who share this secret are the network.
    pub(crate) private_network: Option<PrivateNetwork>,
    /// Relays to use while nobody can dial this node, as multiaddresses with their PeerId.
    pub(crate) static_relays: Vec<String>,
    /// Whom this node relays for.
    pub(crate) relay_service: RelayService,
    /// Whether the router is asked to forward our port.
    pub(crate) upnp: bool,
    /// Whether nodes of the same LAN are looked for by multicast DNS.
    pub(crate) mdns: bool,
    /// Who may create an account.
    pub(crate) registration: Registration,
    /// Whether display names are advertised, so that strangers find users by name.
    pub(crate) discoverable: bool,
    /// The version of rooms whose creator asks for none.
    pub(crate) default_room_version: RoomVersionId,
    /// How fast clients may act; `None` = off.
    pub(crate) rate_limits: Option<RateLimits>,
    /// Largest media file, in bytes.
    pub(crate) max_upload_bytes: u64,
    /// Localpart of the user that the first start creates.
    pub(crate) first_user: String,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub(crate) log_level: String,
}

/// An address, and whether somebody asked for it: one that was asked for is used or is an
/// error, a default falls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// Nobody asked.
    Default,
    /// Named in the configuration, the environment or a flag.
    Asked(SocketAddr),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// For machines.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenAddress::Default,
            admin_listen: ListenAddress::Default,
            libp2p_listen: Vec::new(),
            bootstrap_peers: None,
            private_network: None,
            static_relays: Vec::new(),
            relay_service: RelayService::default(),
            upnp: true,
            mdns: true,
            registration: Registration::Closed,
            discoverable: true,
            default_room_version: RoomVersionId::V12,
            rate_limits: Some(RateLimits::default()),
            max_upload_bytes: DEFAULT_MAX_UPLOAD_BYTES,
            first_user: "p2p".to_owned(),
            log_format: LogFormat::Human,
            log_level: "info".to_owned(),
        }
    }
}

/// One line: which key, what was wrong, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError(pub(super) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the file, if there is one, then the environment, then the flags; later wins.
    ///
    /// # Errors
    ///
    /// The first mistake found.
    pub(crate) fn load(
        file: &ConfigFile<'_>,
        environment: &[(String, String)],
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(text) = file.read()? {
            read::from_json(&mut config, file.path(), &text)?;
        }
        read::from_environment(&mut config, environment)?;
        read::from_flags(&mut config, flags)?;
        Ok(config)
    }
}

/// The file named on the command line must be there; the usual one may be absent.
pub(crate) enum ConfigFile<'a> {
    /// `--config FILE`.
    Named(&'a Path),
    /// `config.json` in the data directory.
    Usual(&'a Path),
}

impl ConfigFile<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Named(path) | Self::Usual(path) => path,
        }
    }

    fn read(&self) -> Result<Option<String>, ConfigError> {
        match (std::fs::read_to_string(self.path()), self) {
            (Ok(text), _) => Ok(Some(text)),
            (Err(error), Self::Usual(_)) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            (Err(error), _) => {
                Err(ConfigError(format!("{}: cannot be read: {error}", self.path().display())))
            }
        }
    }
}

#[cfg(test)]
mod tests;
