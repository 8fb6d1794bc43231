//! Learns which server a connected peer speaks for: asks it for its `server_keys` and believes
//! only what the signatures prove.

use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use messagehub_homeserver::{clock::Clock, peers::RequestError};
use messagehub_protocol::server_keys::{ServerKeys, ServerKeysError};
use tokio::sync::{mpsc, oneshot};

use super::Job;

/// Spec: Server-Server API, "Publishing keys".
const KEYS_PATH: &str = "/_matrix/key/v2/server";

/// How long a peer may take to tell its keys.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a peer speaks for no server that we could verify.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// No answer came.
    #[error("the peer did not tell its keys: {0}")]
    NoAnswer(#[from] RequestError),
    /// The answer is not 200.
    #[error("the peer answered {0} when asked for its keys")]
    Status(http::StatusCode),
    /// The answer is no valid `server_keys`.
    #[error("the peer's keys are not valid: {0}")]
    Invalid(#[from] ServerKeysError),
    /// The answer is not text.
    #[error("the peer's keys are not text")]
    NotText,
    /// The keys expired, or come from the future.
    #[error("the peer's keys are not valid now")]
    Untimely,
    /// The keys name other peers, and not this one.
    #[error("the keys of {0} do not list this peer")]
    NotListed(ruma::OwnedServerName),
}

impl KeysError {
    /// Whether the peer gave proof that it is not who it says: asking again changes nothing.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::Status(_) | Self::Untimely => false,
            Self::Invalid(_) | Self::NotText | Self::NotListed(_) => true,
        }
    }
}

/// Asks the peer behind `jobs` for its keys and checks that they are valid now and list it.
pub(crate) async fn fetch(
    jobs: mpsc::Sender<Job>,
    peer: PeerId,
    clock: Clock,
) -> Result<ServerKeys, KeysError> {
    let asking = async {
        let (reply, answer) = oneshot::channel();
        let mut request = http::Request::new(Bytes::new());
        *request.uri_mut() = http::Uri::from_static(KEYS_PATH);
        jobs.send(Job::new(request, reply)).await.map_err(|_| RequestError::Unreachable)?;
        answer.await.unwrap_or(Err(RequestError::Unreachable))
    };
    let response =
        tokio::time::timeout(KEYS_TIMEOUT, asking).await.unwrap_or(Err(RequestError::TimedOut))?;
    if response.status() != http::StatusCode::OK {
        return Err(KeysError::Status(response.status()));
    }
    let json = std::str::from_utf8(response.body()).map_err(|_| KeysError::NotText)?;
    check(json, peer, &clock)
}

/// Checks the keys that a peer told: signatures, time, and that they list the peer.
pub(crate) fn check(json: &str, peer: PeerId, clock: &Clock) -> Result<ServerKeys, KeysError> {
    let keys = ServerKeys::verify(json)?;
    let now = clock.now();
    if keys.is_expired_at(now) || keys.is_from_the_future_at(now) {
        return Err(KeysError::Untimely);
    }
    if !lists(&keys, peer) {
        return Err(KeysError::NotListed(keys.server_name().to_owned()));
    }
    Ok(keys)
}

/// Whether the keys name the peer. Compared as PeerIds: one PeerId has several spellings.
pub(crate) fn lists(keys: &ServerKeys, peer: PeerId) -> bool {
    keys.peer_ids().iter().any(|listed| listed.parse::<PeerId>().is_ok_and(|id| id == peer))
}
