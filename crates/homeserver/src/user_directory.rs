//! Finding people: on this node, in shared rooms, and on the network.
//!
//! On the network nobody can be listed, only asked for: by `Name:1234567`, the display name
//! and the last characters of the server name, by the full user id, or by `/p2p/<PeerId>`
//! (D14). Whoever answers is shown only when their keys verified and they are what was asked for.
//!
//! Spec: Client-Server API, "User Directory".

mod address;
mod rooms;

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use messagehub_protocol::server_keys::ServerKeys;
use messagehub_store::{StoreError, profiles, users};
use ruma::{OwnedMxcUri, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    Homeserver,
    federation::{self, Call},
    peers::Outbound,
    profiles as profile_uses,
};

use address::Address;

/// Most results of one search.
pub const MAX_RESULTS: usize = 50;
/// Longest search term, in bytes: a user id has at most 255.
const MAX_TERM_BYTES: usize = 512;
/// Servers asked after one search on the network. A name with seven characters of the server
/// name belongs to one; more are somebody's attempt to look like it.
const MAX_ASKED: usize = 8;
/// Users that one server may list as discoverable; a node serves a household.
const MAX_DISCOVERABLE: usize = 50;
/// The suffixes of the server name that are advertised with a display name (D14).
const SUFFIXES: std::ops::RangeInclusive<usize> = 7..=10;
/// Where a node lists its discoverable users; an operation of ours.
pub const DISCOVERABLE_PATH: &str = "/_matrix/federation/unstable/net.messagehub/discoverable";

/// Somebody who was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundUser {
    /// The user id.
    pub user_id: OwnedUserId,
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub displayname: Option<String>,
    /// The avatar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<OwnedMxcUri>,
}

/// The answer of [`DISCOVERABLE_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discoverable {
    /// The users of the node that want to be found.
    pub users: Vec<FoundUser>,
}

/// The outcome of a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Who was found, best first.
    pub users: Vec<FoundUser>,
    /// Whether there are more.
    pub limited: bool,
}

/// Searches for people.
///
/// # Errors
/// The store failed. A network that does not answer is no error.
pub async fn search(
    hs: &Homeserver,
    caller: &UserId,
    term: &str,
    limit: usize,
) -> Result<Found, StoreError> {
    let term = term.trim();
    if term.is_empty() || term.len() > MAX_TERM_BYTES {
        return Ok(Found::default());
    }
    let limit = limit.clamp(1, MAX_RESULTS);
    let mut found: BTreeMap<OwnedUserId, FoundUser> = BTreeMap::new();
    for user in nearby(hs, caller, term).await? {
        found.entry(user.user_id.clone()).or_insert(user);
    }
    if let Some(address) = Address::parse(term) {
        for user in on_network(hs, &address).await {
            // What the user's own node says now is newer than what a room remembers.
            found.insert(user.user_id.clone(), user);
        }
    }
    found.remove(caller);
    let mut users: Vec<FoundUser> = found.into_values().collect();
    users.sort_by_key(|user| rank(user, term));
    let limited = users.len() > limit;
    users.truncate(limit);
    Ok(Found { users, limited })
}

/// The users of this node that want to be found, for another node that asks.
///
/// # Errors
/// The store failed.
pub async fn discoverable(hs: &Homeserver) -> Result<Vec<FoundUser>, StoreError> {
    if !hs.limits.discoverable {
        return Ok(Vec::new());
    }
    let mut users = local_users(hs).await?;
    users.retain(|user| user.displayname.is_some());
    users.truncate(MAX_DISCOVERABLE);
    Ok(users)
}

/// What people type into their clients to find the users of this node: `Name:1234567`.
///
/// # Errors
/// The store failed.
pub async fn names(hs: &Homeserver) -> Result<Vec<String>, StoreError> {
    let suffix = suffix(hs.server_name(), *SUFFIXES.start());
    let users = discoverable(hs).await?;
    Ok(users
        .into_iter()
        .filter_map(|user| user.displayname)
        .map(|name| format!("{name}:{suffix}"))
        .collect())
}

/// Tells the network under which strings this node can be found: its server name always, the
/// names of its users when they want to be found.
///
/// # Errors
/// The store failed. A network that is not there is no error.
pub async fn advertise(hs: &Homeserver) -> Result<(), StoreError> {
    let names = discoverable(hs).await?.into_iter().filter_map(|user| user.displayname);
    let keys = rendezvous(hs.server_name(), names);
    hs.peers.tell(Outbound::Advertise { keys }).await;
    Ok(())
}

/// The rendezvous strings of a node (D14).
fn rendezvous(server_name: &ServerName, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut keys = vec![server_key(server_name)];
    for name in names {
        keys.extend(SUFFIXES.map(|length| format!("{name}:{}", suffix(server_name, length))));
    }
    keys
}

fn server_key(server_name: &ServerName) -> String {
    format!("p2p:{server_name}")
}

/// The last `length` characters of a server name.
fn suffix(server_name: &ServerName, length: usize) -> &str {
    let name = server_name.as_str();
    // A server name is ASCII.
    name.get(name.len().saturating_sub(length)..).unwrap_or(name)
}

async fn local_users(hs: &Homeserver) -> Result<Vec<FoundUser>, StoreError> {
    hs.store
        .read(|snap| {
            let mut found = Vec::new();
            for user in users::list(snap)?.into_iter().filter(|user| !user.is_deactivated) {
                let profile = profiles::get(snap, &user.user_id)?;
                found.push(FoundUser {
                    user_id: user.user_id,
                    displayname: profile.displayname,
                    avatar_url: profile.avatar_url,
                });
            }
            Ok(found)
        })
        .await
}

/// Who matches among the users of this node and the members of the caller's rooms.
async fn nearby(
    hs: &Homeserver,
    caller: &UserId,
    term: &str,
) -> Result<Vec<FoundUser>, StoreError> {
    let mut users = local_users(hs).await?;
    let caller = caller.to_owned();
    users.extend(hs.store.read(move |snap| rooms::members(snap, &caller)).await?);
    let term = term.to_lowercase();
    users.retain(|user| matches(user, &term));
    Ok(users)
}

fn matches(user: &FoundUser, term: &str) -> bool {
    let in_name = user.displayname.as_ref().is_some_and(|name| name.to_lowercase().contains(term));
    // The server name is long and random: only a whole user id or its beginning means anything.
    in_name
        || user.user_id.localpart().to_lowercase().contains(term)
        || user.user_id.as_str().to_lowercase().starts_with(term)
}

/// Exact matches first, then names that begin with the term, then those with a name at all.
fn rank(user: &FoundUser, term: &str) -> (u8, String) {
    let term = term.to_lowercase();
    let name = user.displayname.as_deref().unwrap_or_default().to_lowercase();
    let class = if user.user_id.as_str() == term || name == term {
        0
    } else if name.starts_with(&term) || user.user_id.localpart().starts_with(&term) {
        1
    } else if name.is_empty() {
        3
    } else {
        2
    };
    (class, name)
}

async fn on_network(hs: &Homeserver, address: &Address) -> Vec<FoundUser> {
    match address {
        Address::User(user_id) => by_user_id(hs, user_id).await.into_iter().collect(),
        Address::Name { name, suffix } => {
            let servers = hs.peers.find(address::rendezvous_key(name, suffix)).await;
            let servers = servers.into_iter().filter(|keys| is_suffix(keys.server_name(), suffix));
            let mut users = ask_all(hs, servers).await;
            users.retain(|user| user.displayname.as_deref() == Some(name.as_str()));
            users
        }
        Address::Peer(peer_id) => {
            let servers = hs.peers.find(format!("/p2p/{peer_id}")).await;
            let servers = servers.into_iter().filter(|keys| keys.peer_ids().contains(peer_id));
            ask_all(hs, servers).await
        }
    }
}

fn is_suffix(server_name: &ServerName, suffix: &str) -> bool {
    server_name.as_str().ends_with(suffix)
}

/// Whoever asks for a full user id gets whoever has it, discoverable or not.
async fn by_user_id(hs: &Homeserver, user_id: &UserId) -> Option<FoundUser> {
    if hs.identity.is_local(user_id) {
        return None;
    }
    let profile = match profile_uses::get(hs, user_id).await {
        Ok(profile) => profile,
        Err(profile_uses::ProfileError::Unreachable) => {
            // Looking the server up makes the transport know its peers.
            hs.peers.find(server_key(user_id.server_name())).await;
            profile_uses::get(hs, user_id).await.ok()?
        }
        Err(_) => return None,
    };
    Some(FoundUser {
        user_id: user_id.to_owned(),
        displayname: profile.displayname,
        avatar_url: profile.avatar_url,
    })
}

/// Asks servers for their discoverable users, all at once.
async fn ask_all(hs: &Homeserver, servers: impl Iterator<Item = ServerKeys>) -> Vec<FoundUser> {
    let servers: BTreeMap<_, _> = servers
        .filter(|keys| keys.server_name() != hs.server_name())
        .map(|keys| (keys.server_name().to_owned(), ()))
        .take(MAX_ASKED)
        .collect();
    stream::iter(servers.into_keys())
        .map(|server| async move { ask_one(hs, &server).await })
        .buffer_unordered(MAX_ASKED)
        .collect::<Vec<_>>()
        .await
        .concat()
}

/// The discoverable users of one server. A server can only speak for its own users.
async fn ask_one(hs: &Homeserver, server: &ServerName) -> Vec<FoundUser> {
    let call =
        Call { method: http::Method::GET, uri: DISCOVERABLE_PATH.to_owned(), body: Vec::new() };
    let answer =
        federation::ask_json::<Discoverable>(hs, server, call, federation::ASK_TIMEOUT).await;
    match answer {
        Ok(answer) => answer
            .users
            .into_iter()
            .filter(|user| user.user_id.server_name() == server)
            .take(MAX_DISCOVERABLE)
            .collect(),
        Err(error) => {
            tracing::debug!(%server, %error, "a server that was found told nothing of its users");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
