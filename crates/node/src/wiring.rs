//! Building one node from its parts.

use std::time::SystemTime;

use messagehub_homeserver::{
    Homeserver, Identity, IdentityParts, Limits, Parts,
    clock::{Clock, timestamp},
    peers::{OUTBOUND_CAPACITY, Outbound, Peers},
    rate::RateLimiter,
    rng::Rng,
};
use messagehub_net::{NetConfig, Seed, Switch};
use messagehub_protocol::keys::{IdentityKey, VerifyKey};
use messagehub_store::{Mode, Store, server_keys};
use rand::{TryRng, rngs::SysRng};
use tokio::sync::mpsc;

use crate::{
    AnyError,
    config::Config,
    data_dir::{DataDir, Seeds},
};

/// The system's clock.
pub(crate) fn clock() -> Clock {
    Clock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "the node is where the time comes from")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    })
}

/// What the configuration allows, as the use-cases read it.
pub(crate) fn limits(config: &Config) -> Limits {
    Limits {
        registration: config.registration.clone(),
        discoverable: config.discoverable,
        rates: RateLimiter::new(config.rate_limits),
        max_upload_bytes: config.max_upload_bytes,
        public_base_url: None,
        default_room_version: config.default_room_version.clone(),
    }
}

/// The homeserver on a data directory, and the far end of its port to the transport.
pub(crate) async fn homeserver(
    data: &DataDir,
    seeds: &Seeds,
    limits: Limits,
) -> Result<(Homeserver, mpsc::Receiver<Outbound>), AnyError> {
    let store = Store::open(data.path(), Mode::Threaded)?;
    let identity_key = IdentityKey::from_seed(&seeds.identity);
    let server_name = identity_key.server_name().to_owned();
    let remembered = store.read(move |snap| server_keys::find(snap, &server_name)).await?;
    let clock = clock();
    let parts = IdentityParts {
        identity_key,
        verify_key: VerifyKey::from_seed(&seeds.verify),
        peer_ids: vec![Seed::new(seeds.libp2p).peer_id()],
    };
    let identity = Identity::new(parts, remembered, clock.now());
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed)?;
    let (peers, outbound) = Peers::pair(OUTBOUND_CAPACITY);
    let parts = Parts { store, identity, peers, clock, rng: Rng::from_seed(seed), limits };
    let hs = Homeserver::new(parts);
    let own = hs.identity.server_keys();
    hs.store.write(move |txn| server_keys::put_if_newer(txn, &own)).await?;
    Ok((hs, outbound))
}

/// The settings of the transport.
pub(crate) fn net_config(config: &Config, data: &DataDir, seeds: &Seeds) -> NetConfig {
    NetConfig {
        listen_addresses: config.libp2p_listen.clone(),
        port_file: Some(data.path().join("libp2p.port")),
        mdns: if config.mdns { Switch::On } else { Switch::Off },
        bootstrap_peers: config.bootstrap_peers.clone(),
        loopback: loopback(config),
        ..NetConfig::new(Seed::new(seeds.libp2p), clock())
    }
}

/// Loopback addresses that peers tell are believed by an owner who named a peer on this machine; on
/// a LAN they would point at ourselves.
fn loopback(config: &Config) -> Switch {
    let here =
        |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    if config.bootstrap_peers.iter().any(here) { Switch::On } else { Switch::Off }
}
