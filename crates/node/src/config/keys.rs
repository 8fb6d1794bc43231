//! The table of keys: name, what is allowed, and how a value is taken over.

use std::net::SocketAddr;

use messagehub_net::{NetConfig, PrivateNetwork, RelayService};
use ruma::RoomVersionId;
use serde_json::Value;

use super::{Config, ListenAddress, LogFormat, RateLimits, Registration};

/// One key of the configuration.
pub(crate) struct Key {
    /// As written in `config.json`.
    pub(crate) name: &'static str,
    /// What is allowed, in the words of an error line.
    pub(crate) allowed: &'static str,
    /// Whether a value of the environment is text as it stands; otherwise it is read as JSON.
    pub(super) text: Text,
    /// Takes a value over; `None` = not allowed.
    pub(super) apply: fn(&mut Config, &Value) -> Option<()>,
}

/// How a value is written where there is no JSON around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// The text is the value.
    Plain,
    /// Comma-separated texts.
    List,
    /// JSON: `true`, `7`, `null`, `{…}`.
    Json,
}

impl Key {
    /// The environment variable: `libp2p.listenAddresses` → `MESSAGEHUB_LIBP2P_LISTEN_ADDRESSES`.
    pub(crate) fn variable(&self) -> String {
        let mut variable = "MESSAGEHUB_".to_owned();
        for c in self.name.chars() {
            match c {
                '.' => variable.push('_'),
                c if c.is_ascii_uppercase() => {
                    variable.push('_');
                    variable.push(c);
                }
                c => variable.push(c.to_ascii_uppercase()),
            }
        }
        variable
    }
}

/// All keys.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "listenAddress",
        allowed: "an address and a port, such as \"127.0.0.1:8008\"",
        text: Text::Plain,
        apply: |config, value| {
            config.listen = ListenAddress::Asked(address(value)?);
            Some(())
        },
    },
    Key {
        name: "admin.listenAddress",
        allowed: "a loopback address and a port, such as \"127.0.0.1:9100\"",
        text: Text::Plain,
        apply: |config, value| {
            let address = address(value).filter(|address| address.ip().is_loopback())?;
            config.admin_listen = ListenAddress::Asked(address);
            Some(())
        },
    },
    Key {
        name: "libp2p.listenAddresses",
        allowed: "a list of multiaddresses, such as [\"/ip4/0.0.0.0/tcp/4001\"]",
        text: Text::List,
        apply: |config, value| {
            config.libp2p_listen = multiaddresses(value, NetConfig::is_listen_address)?;
            Some(())
        },
    },
    Key {
        name: "libp2p.dht.bootstrapPeers",
        allowed: "a list of multiaddresses with a PeerId, such as [\"/ip4/192.168.1.7/tcp/4001/p2p/12D3Koo…\"]",
        text: Text::List,
        apply: |config, value| {
            config.bootstrap_peers = Some(multiaddresses(value, NetConfig::is_peer_address)?);
            Some(())
        },
    },
    Key {
        name: "libp2p.privateNetworkSecret",
        allowed: "a text that is not empty, the same on all nodes of the network; remove the key to be in the public network",
        text: Text::Plain,
        apply: |config, value| {
            config.private_network = Some(PrivateNetwork::from_secret(value.as_str()?)?);
            Some(())
        },
    },
    Key {
        name: "libp2p.staticRelays",
        allowed: "a list of multiaddresses with a PeerId, such as [\"/dns4/relay.example.org/tcp/4001/p2p/12D3Koo…\"]",
        text: Text::List,
        apply: |config, value| {
            config.static_relays = multiaddresses(value, NetConfig::is_relay_address)?;
            Some(())
        },
    },
    Key {
        name: "libp2p.relayService",
        allowed: "\"members\", \"anyone\" or \"off\"",
        text: Text::Plain,
        apply: |config, value| {
            config.relay_service = match value.as_str()? {
                "members" => RelayService::Members,
                "anyone" => RelayService::Anyone,
                "off" => RelayService::Off,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "libp2p.upnp",
        allowed: "true or false",
        text: Text::Json,
        apply: |config, value| {
            config.upnp = value.as_bool()?;
            Some(())
        },
    },
    Key {
        name: "libp2p.mdns",
        allowed: "true or false",
        text: Text::Json,
        apply: |config, value| {
            config.mdns = value.as_bool()?;
            Some(())
        },
    },
    Key {
        name: "registration",
        allowed: "\"closed\", \"open\", or \"token:\" and a token of 8 to 64 letters, digits, '-', '_', '.' or '~'",
        text: Text::Plain,
        apply: |config, value| {
            config.registration = registration(value.as_str()?)?;
            Some(())
        },
    },
    Key {
        name: "discoverable",
        allowed: "true or false",
        text: Text::Json,
        apply: |config, value| {
            config.discoverable = value.as_bool()?;
            Some(())
        },
    },
    Key {
        name: "defaultRoomVersion",
        allowed: "a room version from \"2\" to \"12\"",
        text: Text::Plain,
        apply: |config, value| {
            let version = RoomVersionId::try_from(value.as_str()?).ok()?;
            messagehub_protocol::rules::rules_of(&version)?;
            config.default_room_version = version;
            Some(())
        },
    },
    Key {
        name: "rateLimits",
        allowed: "null, or {\"loginsPerMinute\": 10, \"messagesPerSecond\": 100} with numbers from 1 to 1000000",
        text: Text::Json,
        apply: |config, value| {
            config.rate_limits = rate_limits(value)?;
            Some(())
        },
    },
    Key {
        name: "maxUploadBytes",
        allowed: "a number of bytes from 1 to 1073741824",
        text: Text::Json,
        apply: |config, value| {
            let bytes = value.as_u64().filter(|bytes| (1..=1 << 30).contains(bytes))?;
            config.max_upload_bytes = bytes;
            Some(())
        },
    },
    Key {
        name: "firstUser",
        allowed: "1 to 64 of the characters a-z, 0-9, '.', '_', '=', '-', '/' and '+'",
        text: Text::Plain,
        apply: |config, value| {
            let localpart = value.as_str().filter(|text| is_localpart(text))?;
            config.first_user = localpart.to_owned();
            Some(())
        },
    },
    Key {
        name: "log.format",
        allowed: "\"human\" or \"json\"",
        text: Text::Plain,
        apply: |config, value| {
            config.log_format = match value.as_str()? {
                "human" => LogFormat::Human,
                "json" => LogFormat::Json,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "log.level",
        allowed: "a level such as \"info\", or targets and levels such as \"info,libp2p=debug\"",
        text: Text::Plain,
        apply: |config, value| {
            let level = value.as_str()?;
            tracing_subscriber::EnvFilter::builder().parse(level).ok()?;
            config.log_level = level.to_owned();
            Some(())
        },
    },
];

fn address(value: &Value) -> Option<SocketAddr> {
    value.as_str()?.parse().ok()
}

fn multiaddresses(value: &Value, is_right: fn(&str) -> bool) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter().map(|item| item.as_str().filter(|text| is_right(text)));
    texts.map(|text| text.map(str::to_owned)).collect()
}

/// Grammar of tokens: Client-Server API, "Token-authenticated registration".
fn registration(text: &str) -> Option<Registration> {
    match text {
        "closed" => Some(Registration::Closed),
        "open" => Some(Registration::Open),
        text => {
            let token = text.strip_prefix("token:")?;
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
            ((8..=64).contains(&token.len()) && token.chars().all(allowed))
                .then(|| Registration::Token(token.to_owned()))
        }
    }
}

fn is_localpart(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._=-/+".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

fn rate_limits(value: &Value) -> Option<Option<RateLimits>> {
    if value.is_null() {
        return Some(None);
    }
    let mut limits = RateLimits::default();
    for (name, value) in value.as_object()? {
        match name.as_str() {
            "loginsPerMinute" => limits.logins_per_minute = rate(value)?,
            "messagesPerSecond" => limits.messages_per_second = rate(value)?,
            _ => return None,
        }
    }
    Some(Some(limits))
}

fn rate(value: &Value) -> Option<u32> {
    let rate = value.as_u64().filter(|rate| (1..=1_000_000).contains(rate))?;
    u32::try_from(rate).ok()
}
