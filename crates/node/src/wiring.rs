//! Building one node from its parts.

use std::time::SystemTime;

use messagehub_homeserver::{
    Homeserver, Identity, IdentityParts, Limits, Parts,
    clock::{Clock, timestamp},
    peers::{OUTBOUND_CAPACITY, Outbound, Peers},
    rate::RateLimiter,
    rng::Rng,
};
use messagehub_net::{NetConfig, PUBLIC_BOOTSTRAP_PEERS, Seed, Switch};
use messagehub_protocol::keys::{IdentityKey, VerifyKey};
use messagehub_store::{Mode, Store, server_keys};
use rand::{TryRng, rngs::SysRng};
use ruma::ServerName;
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
pub(crate) fn net_config(
    config: &Config,
    data: &DataDir,
    seeds: &Seeds,
    server: &ServerName,
) -> NetConfig {
    let switch = |on: bool| if on { Switch::On } else { Switch::Off };
    NetConfig {
        listen_addresses: config.libp2p_listen.clone(),
        port_file: Some(data.path().join("libp2p.port")),
        mdns: switch(config.mdns),
        server: Some(server.to_owned()),
        bootstrap_peers: config.bootstrap_peers.clone().unwrap_or_default(),
        public_dht: public_dht(config),
        static_relays: config.static_relays.clone(),
        relay_service: config.relay_service,
        upnp: switch(config.upnp && !keeps_to_this_machine(config)),
        private_network: config.private_network,
        loopback: loopback(config),
        ..NetConfig::new(Seed::new(seeds.libp2p), clock())
    }
}

/// Where the public DHT is entered: where the owner says, else where everybody does, unless the node
/// keeps to a private network or to this machine.
fn public_dht(config: &Config) -> Option<Vec<String>> {
    if config.private_network.is_some() {
        return None;
    }
    match &config.bootstrap_peers {
        Some(peers) if peers.is_empty() => None,
        Some(peers) => Some(peers.clone()),
        None if keeps_to_this_machine(config) => None,
        None => Some(PUBLIC_BOOTSTRAP_PEERS.map(str::to_owned).to_vec()),
    }
}

/// Whether nobody but this machine can reach the node, as its owner decided.
fn keeps_to_this_machine(config: &Config) -> bool {
    let mut addresses = config.libp2p_listen.iter();
    !config.libp2p_listen.is_empty() && addresses.all(|at| NetConfig::is_loopback_address(at))
}

/// Loopback addresses that peers tell are believed by an owner who named a peer on this machine, or
/// who keeps the node to it; on a LAN they would point at ourselves.
fn loopback(config: &Config) -> Switch {
    let named = config.bootstrap_peers.iter().flatten().chain(&config.static_relays);
    let is_here = named.into_iter().any(|at| NetConfig::is_loopback_address(at));
    if is_here || keeps_to_this_machine(config) { Switch::On } else { Switch::Off }
}

#[cfg(test)]
mod tests {
    use messagehub_net::PrivateNetwork;

    use super::*;

    fn listening(addresses: &[&str]) -> Config {
        let libp2p_listen = addresses.iter().map(|text| (*text).to_owned()).collect();
        Config { libp2p_listen, ..Config::default() }
    }

    #[test]
    fn who_keeps_to_this_machine_or_a_private_network_stays_out_of_the_public_dht() {
        assert_eq!(public_dht(&Config::default()).unwrap().len(), PUBLIC_BOOTSTRAP_PEERS.len());
        assert_eq!(public_dht(&listening(&["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"])), None);
        assert!(public_dht(&listening(&["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"])).is_some());
        let private_network = PrivateNetwork::from_secret("secret");
        let peers = Some(vec!["/ip4/10.0.0.1/tcp/1/p2p/x".to_owned()]);
        let private = Config { private_network, bootstrap_peers: peers, ..Config::default() };
        assert_eq!(public_dht(&private), None);
        let none = Config { bootstrap_peers: Some(vec![]), ..Config::default() };
        assert_eq!(public_dht(&none), None);
    }

    #[test]
    fn loopback_is_believed_where_the_owner_means_it() {
        assert_eq!(loopback(&Config::default()), Switch::Off);
        assert_eq!(loopback(&listening(&["/ip4/127.0.0.1/tcp/0"])), Switch::On);
        let static_relays = vec!["/ip4/127.0.0.1/tcp/1/p2p/x".to_owned()];
        // A text that is no multiaddress is none of this machine.
        assert_eq!(loopback(&Config { static_relays, ..Config::default() }), Switch::Off);
    }
}
