//! The transport as the node sees it.

use std::{convert::Infallible, future::Future};

use bytes::Bytes;
use hyper::body::Body;
use libp2p::multiaddr::Protocol;
use messagehub_homeserver::peers::{Inbound, Outbound};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tower::Service;

use crate::{
    config::{NetConfig, StartError},
    event_loop::{EventLoop, Port},
    metrics::Metrics,
    requests::{self, BoxError, RequestBody},
};

/// A transport that listens. Nothing happens until it is run.
pub struct Host {
    event_loop: EventLoop,
}

/// Sets up the transport and listens.
///
/// `service` answers the Server-Server requests of peers; each carries a
/// [`PeerIdentity`](messagehub_homeserver::peers::PeerIdentity) in its extensions. Metrics are
/// entered in `registry`.
///
/// # Errors
/// The configuration is wrong, or nothing could be listened on.
pub async fn start<S, B>(
    config: &NetConfig,
    service: S,
    outbound: mpsc::Receiver<Outbound>,
    inbound: mpsc::Sender<Inbound>,
    registry: &mut Registry,
) -> Result<Host, StartError>
where
    S: Service<http::Request<RequestBody>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let metrics = Metrics::register(registry);
    let service = requests::boxed(service);
    let mut event_loop = EventLoop::new(config, service, Port { outbound, inbound }, metrics)?;
    event_loop.listen(config.listen_on()?).await?;
    event_loop.bootstrap(config.bootstrap()?);
    event_loop.configure_relays(config.relays()?);
    Ok(Host { event_loop })
}

impl Host {
    /// Our PeerId in its text form.
    pub fn peer_id(&self) -> String {
        self.event_loop.swarm.local_peer_id().to_string()
    }

    /// The multiaddrs that this node listens on, with its PeerId: what another node's
    /// `bootstrap_peers` take.
    pub fn addresses(&self) -> Vec<String> {
        let peer = *self.event_loop.swarm.local_peer_id();
        let listening = self.event_loop.addresses().into_iter();
        listening.map(|at| at.with(Protocol::P2p(peer)).to_string()).collect()
    }

    /// Runs the transport until `stop` is done, or every [`Peers`] handle is dropped. All its
    /// tasks end with this future; dropping it is safe and only less polite to neighbours.
    ///
    /// [`Peers`]: messagehub_homeserver::peers::Peers
    pub async fn run(self, stop: impl Future<Output = ()>) {
        self.event_loop.run(stop).await;
    }
}
