//! The transports: TCP and QUIC, names, relays, and the shared secret of a private network.

mod guarded;

use std::time::Duration;

use libp2p::{
    PeerId, Transport as _,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    noise,
    pnet::PnetConfig,
    quic, relay, tcp, yamux,
};
use tracing::warn;

use crate::{config::StartError, private_network::PrivateNetwork, scope::Scope};
use guarded::Guarded;

/// How long a connection may take from the first packet to the last of its handshakes: five round
/// trips on a bad mobile link, with one lost packet. A peer of another private network is given up
/// after this time, too.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// All ways to other nodes, and the behaviour that belongs to relayed ones.
///
/// # Errors
/// The keys cannot be used for Noise, or names cannot be resolved where the system says they can.
pub(crate) fn build(
    keypair: &Keypair,
    scope: Scope,
    private: Option<&PrivateNetwork>,
) -> Result<(Connections, relay::client::Behaviour), StartError> {
    let direct = match private {
        // A pre-shared key wraps a stream of bytes, which QUIC does not have.
        Some(network) => tcp_with_secret(keypair, scope, network)?,
        None => {
            let quic = Guarded::new(quic::tokio::Transport::new(quic::Config::new(keypair)), scope)
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
            tcp(keypair, scope)?.or_transport(quic).map(|either, _| either.into_inner()).boxed()
        }
    };
    let (relayed, behaviour) = relay::client::new(keypair.public().to_peer_id());
    let relayed = relayed
        .upgrade(Version::V1Lazy)
        .authenticate(noise(keypair)?)
        .multiplex(yamux::Config::default())
        .boxed();
    let all = relayed.or_transport(with_names(direct)?).map(|either, _| either.into_inner());
    Ok((TransportTimeout::new(all, CONNECT_TIMEOUT).boxed(), behaviour))
}

fn tcp(keypair: &Keypair, scope: Scope) -> Result<Connections, StartError> {
    Ok(Guarded::new(tcp::tokio::Transport::new(tcp::Config::default()), scope)
        .upgrade(Version::V1Lazy)
        .authenticate(noise(keypair)?)
        .multiplex(yamux::Config::default())
        .boxed())
}

fn tcp_with_secret(
    keypair: &Keypair,
    scope: Scope,
    network: &PrivateNetwork,
) -> Result<Connections, StartError> {
    let secret = PnetConfig::new(network.key());
    Ok(Guarded::new(tcp::tokio::Transport::new(tcp::Config::default()), scope)
        .and_then(move |socket, _| secret.handshake(socket))
        .upgrade(Version::V1Lazy)
        .authenticate(noise(keypair)?)
        .multiplex(yamux::Config::default())
        .boxed())
}

fn noise(keypair: &Keypair) -> Result<noise::Config, StartError> {
    noise::Config::new(keypair).map_err(|error| StartError::Setup(error.to_string()))
}

/// Resolves names before dialing, where the system says how. What a name leads to is judged like
/// any other address.
fn with_names(direct: Connections) -> Result<Connections, StartError> {
    // Tried with nothing first, since a failure takes what it is given with it.
    if let Err(error) = dns::tokio::Transport::system(()) {
        warn!(%error, "names in addresses do not work here");
        return Ok(direct);
    }
    let named = dns::tokio::Transport::system(direct);
    Ok(named.map_err(|error| StartError::Setup(error.to_string()))?.boxed())
}
