//! Which server a request comes from (D9).

use std::sync::atomic::AtomicU64;

use messagehub_protocol::{
    server_keys::ServerKeys,
    wire::request::{self, RequestParts, RequestSignature},
};
use messagehub_store::{StoreError, memberships, server_keys};
use ruma::{OwnedServerName, ServerName};

use crate::{
    Homeserver,
    federation::keys,
    peers::{Counters, Origins, PeerIdentity},
    rate::Limited,
    server::relay::Relayed,
};

/// What a request brings to prove its origin.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// Method, target and body, which are signed.
    pub parts: RequestParts<'a>,
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The `X-Matrix-Server-Keys` header.
    pub server_keys: Option<&'a str>,
    /// Who is at the other end of the connection.
    pub peer: Option<&'a PeerIdentity>,
    /// Set where the request came through another server; then `peer` says nothing.
    pub relayed: Option<&'a Relayed>,
}

/// Why a request is not taken as the server's that it names.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// There is no signature.
    #[error("the request is not signed")]
    Unsigned,
    /// The signature or what belongs to it is wrong.
    #[error(transparent)]
    Request(#[from] request::RequestError),
    /// We know no keys of that server, and it sent none.
    #[error("no server_keys of the origin are known")]
    UnknownServer,
    /// The peer at the other end may not speak for that server.
    #[error("the peer does not speak for the origin")]
    WrongPeer,
    /// That peer, that server, or all servers that share no room with us, ask too much.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finds who signed a request: signature, destination and freshness, whether the connection's
/// peer speaks for that server, and that the request did not come before. New `server_keys` are
/// remembered only when all of this holds.
///
/// # Errors
/// The first check that fails; each refusal is counted.
pub async fn authenticate(
    hs: &Homeserver,
    credentials: Credentials<'_>,
) -> Result<OwnedServerName, OriginError> {
    let checked = check(hs, credentials).await;
    if checked.is_err() {
        let refused: &AtomicU64 = &hs.peers.counters().requests_refused;
        Counters::add(refused, 1);
    }
    checked
}

async fn check(
    hs: &Homeserver,
    credentials: Credentials<'_>,
) -> Result<OwnedServerName, OriginError> {
    if let Some(peer) = credentials.peer {
        hs.peers.request_paces().take_of_peer(peer, hs.clock.now_ms())?;
    }
    let header = credentials.authorization.ok_or(OriginError::Unsigned)?;
    let signature = RequestSignature::parse(header)?;
    let (known, origins) = known_of(hs, signature.origin()).await?;
    let read =
        |header| request::read_server_keys_header(header, signature.origin(), known.as_ref());
    let brought = credentials.server_keys.map(read).transpose()?;
    let (keys, is_news) = match (brought, known) {
        (Some(brought), Some(known)) if !brought.is_newer_than(&known) => (known, false),
        (Some(brought), _) => (brought, true),
        (None, Some(known)) => (known, false),
        (None, None) => return Err(OriginError::UnknownServer),
    };
    let speaks = match (credentials.relayed, credentials.peer) {
        // Sealed to us, signed and fresh: who brought it is of no account.
        (Some(_), _) => true,
        (None, peer) => peer.is_some_and(|peer| keys.peer_ids().contains(&peer.peer_id)),
    };
    if !speaks {
        return Err(OriginError::WrongPeer);
    }
    let now = hs.clock.now();
    let origin = (signature.origin(), origins);
    hs.peers.request_paces().take_of_origin(origin, hs.clock.now_ms())?;
    let verified = signature.verify(credentials.parts, hs.server_name(), &keys, now)?;
    hs.peers.with_replay_filter(origins, |filter| filter.check(&verified, now))?;
    if is_news {
        keys::remember(hs, vec![keys]).await?;
    }
    hs.peers.note_alive(verified.server_name());
    Ok(verified.server_name().to_owned())
}

/// The keys of a server as far as we know them, and what it is to us.
async fn known_of(
    hs: &Homeserver,
    server: &ServerName,
) -> Result<(Option<ServerKeys>, Origins), StoreError> {
    let (us, server) = (hs.server_name().to_owned(), server.to_owned());
    hs.store
        .read(move |snap| {
            let origins = match memberships::share_a_room(snap, &us, &server)? {
                true => Origins::Members,
                false => Origins::Strangers,
            };
            Ok((server_keys::find(snap, &server)?, origins))
        })
        .await
}
