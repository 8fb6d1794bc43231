//! The `server_keys` of other servers: learned from whatever carries them, supplied with whatever
//! we send (D6).

use std::collections::BTreeSet;

use messagehub_protocol::{
    pdu::Pdu,
    server_keys::{KeyRing, ServerKeys},
};
use messagehub_store::{Snapshot, StoreError, server_keys};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Homeserver, peers::Outbound};

/// The most `server_keys` taken from one answer: a room of 10,000 members on as many servers, and
/// those who have left.
const MAX_LEARNED: usize = 16_384;

/// Servers whose keys are kept although nothing of theirs is here: somebody who was looked for, or
/// asked for something. 8 KiB each at most.
const MAX_STRANGERS: usize = 4_096;

/// Verifies `server_keys` and remembers those that are newer than what is known. Invalid ones are
/// passed over: an event that needs them fails by itself.
///
/// # Errors
/// Fails when the database does.
pub async fn learn(hs: &Homeserver, carried: &[Box<RawValue>]) -> Result<(), StoreError> {
    if carried.is_empty() {
        return Ok(());
    }
    let carried: Vec<Box<RawValue>> = carried.iter().take(MAX_LEARNED).cloned().collect();
    let now = hs.clock.now();
    let news = hs
        .store
        .read(move |snap| {
            let mut news = Vec::new();
            for json in carried {
                news.extend(unknown(snap, &json, now)?);
            }
            Ok::<_, StoreError>(news)
        })
        .await?;
    remember(hs, news).await
}

/// Remembers verified `server_keys` where they are newer, and tells the transport.
///
/// # Errors
/// Fails when the database does.
pub async fn remember(hs: &Homeserver, news: Vec<ServerKeys>) -> Result<(), StoreError> {
    if news.is_empty() {
        return Ok(());
    }
    let now = hs.clock.now();
    let newer = hs
        .store
        .write(move |txn| {
            let mut newer = Vec::new();
            for keys in news {
                if !keys.is_from_the_future_at(now) && server_keys::put_if_newer(txn, &keys)? {
                    newer.push(keys);
                }
            }
            Ok::<_, StoreError>(newer)
        })
        .await?;
    let others = newer.into_iter().filter(|keys| keys.server_name() != hs.server_name());
    for server_keys in others {
        hs.peers.offer(Outbound::Learn { server_keys, addresses: Vec::new() });
    }
    Ok(())
}

/// Forgets the keys of strangers when too many have come: identities cost nothing, and whoever
/// comes again brings its keys with it.
///
/// # Errors
/// Fails when the database does.
pub(crate) async fn forget_strangers(hs: &Homeserver) -> Result<(), StoreError> {
    // Most of the time nothing is written for it.
    if hs.store.read(server_keys::count).await? <= MAX_STRANGERS as u64 {
        return Ok(());
    }
    let forgotten = hs.store.write(|txn| server_keys::forget_strangers(txn, MAX_STRANGERS)).await?;
    if forgotten > 0 {
        tracing::info!(forgotten, "forgot the keys of servers that share nothing with us");
    }
    Ok(())
}

/// The keys that can check signatures of these servers; a server without any is absent.
///
/// # Errors
/// Fails when the database does.
pub fn ring<'a>(
    snap: &Snapshot<'_>,
    servers: impl IntoIterator<Item = &'a OwnedServerName>,
) -> Result<KeyRing, StoreError> {
    let mut ring = KeyRing::new();
    for server in servers {
        if let Some(keys) = server_keys::find(snap, server)? {
            ring.insert(server.clone(), keys);
        }
    }
    Ok(ring)
}

/// The `server_keys` to send with events: one for each signer, as far as they are known.
///
/// # Errors
/// Fails when the database does.
pub fn for_events<'a>(
    snap: &Snapshot<'_>,
    own: &ServerKeys,
    pdus: impl IntoIterator<Item = &'a Pdu>,
) -> Result<Vec<Box<RawValue>>, StoreError> {
    let signers: BTreeSet<OwnedServerName> = pdus.into_iter().flat_map(signers).collect();
    let mut keys = Vec::new();
    for server in signers.iter().filter(|server| *server != own.server_name()) {
        keys.extend(server_keys::find(snap, server)?.map(|keys| keys.json().to_owned()));
    }
    if signers.contains(own.server_name()) {
        keys.push(own.json().to_owned());
    }
    Ok(keys)
}

/// Every server that signed an event.
fn signers(pdu: &Pdu) -> Vec<OwnedServerName> {
    #[derive(Deserialize)]
    struct Signed {
        signatures: std::collections::BTreeMap<OwnedServerName, serde::de::IgnoredAny>,
    }
    match serde_json::from_str::<Signed>(pdu.json()) {
        Ok(signed) => signed.signatures.into_keys().collect(),
        Err(_) => vec![pdu.sender().server_name().to_owned()],
    }
}

/// The keys in `json`, verified, unless that same object is what is known already.
fn unknown(
    snap: &Snapshot<'_>,
    json: &RawValue,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Option<ServerKeys>, StoreError> {
    #[derive(Deserialize)]
    struct Claim<'a> {
        #[serde(borrow)]
        server_name: std::borrow::Cow<'a, str>,
    }
    let Ok(claim) = serde_json::from_str::<Claim<'_>>(json.get()) else {
        return Ok(None);
    };
    let Ok(server) = <&ServerName>::try_from(&*claim.server_name) else {
        return Ok(None);
    };
    if let Some(known) = server_keys::find(snap, server)?
        && known.json().get() == json.get()
    {
        return Ok(None);
    }
    let verified = ServerKeys::verify_for(json.get(), server).ok();
    Ok(verified.filter(|keys| !keys.is_from_the_future_at(now)))
}
