//! Whose keys are these: of users here, and of users of other servers.
//!
//! Spec: Client-Server API, "POST /keys/query"; Server-Server API, "POST /user/keys/query".

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use messagehub_store::{
    Snapshot, StoreError,
    cross_signing::Usage,
    device_keys,
    device_lists::{self as rows, Standing},
    devices, sharing,
};
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId,
    api::federation::keys::get_keys,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};

use super::{
    MAX_SERVERS_AT_ONCE, cross_signing,
    device_lists::{self, are_of},
    merge, timeout,
};
use crate::{
    Homeserver,
    federation::{self, FederationError},
};

/// Users asked for in one request: more than any client does at once.
const MAX_USERS: usize = 10_000;

/// Users of one server whose lists are fetched one by one, so that they are followed from then on.
/// Those beyond are asked for in one request, and followed when their devices change.
const MAX_FETCHED_OF_SERVER: usize = 16;

/// For each user, the devices that are wanted; none for all.
pub type Wanted = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;

/// Keys by their users.
#[derive(Debug, Default)]
pub struct Keys {
    /// Those of devices.
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>>,
    /// Master keys.
    pub master_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Self-signing keys.
    pub self_signing_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// The viewer's own user-signing key.
    pub user_signing_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Servers that did not answer, and of whose users we do not know all that was asked for.
    pub unreachable: Vec<OwnedServerName>,
}

/// The keys of users, for a local user. Of users of other servers what we follow is given at once;
/// the rest is asked for. Where a server does not answer, what we had of it is given: when it comes
/// back with something new, clients are told to ask again.
///
/// # Errors
/// The store failed.
pub async fn query(
    hs: &Homeserver,
    viewer: &UserId,
    wanted: Wanted,
    wait: Option<Duration>,
) -> Result<Keys, StoreError> {
    let wanted: Wanted = wanted.into_iter().take(MAX_USERS).collect();
    let (us, asked) = (hs.server_name().to_owned(), wanted.clone());
    let plan = hs.store.read(move |snap| plan(snap, &us, asked)).await?;
    let wait = timeout(wait);
    let asked = stream::iter(plan).map(|(server, errand)| async move {
        let told = run(hs, &server, &errand, wait).await;
        (server, errand, told)
    });
    let answers: Vec<_> = asked.buffer_unordered(MAX_SERVERS_AT_ONCE).collect().await;
    let (viewer, asked) = (viewer.to_owned(), wanted);
    let us = hs.server_name().to_owned();
    let mut keys = hs.store.read(move |snap| known(snap, (&us, &viewer), &asked)).await?;
    for (server, errand, told) in answers {
        match told {
            Ok(told) => add(&mut keys, &errand, told),
            Err(FederationError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::debug!(%server, %error, "keys could not be asked for");
                let mut users = errand.fetch.iter().chain(errand.ask.keys());
                if users.any(|user_id| !keys.device_keys.contains_key(user_id)) {
                    keys.unreachable.push(server);
                }
            }
        }
    }
    keys.unreachable.sort();
    Ok(keys)
}

/// The keys of local users, for another server that has to do with them.
///
/// # Errors
/// The store failed.
pub async fn for_server(
    hs: &Homeserver,
    origin: OwnedServerName,
    mut wanted: Wanted,
) -> Result<Keys, StoreError> {
    wanted.retain(|user_id, _| hs.identity.is_local(user_id));
    hs.store
        .read(move |snap| {
            let mut keys = Keys::default();
            for (user_id, chosen) in wanted.into_iter().take(MAX_USERS) {
                if !sharing::is_user_known_to(snap, &user_id, &origin)? {
                    continue;
                }
                let devices = shown_devices(snap, (&user_id, &chosen), None, Names::Hidden)?;
                keys.device_keys.insert(user_id.clone(), devices);
                add_signing_keys(snap, &user_id, None, &mut keys)?;
            }
            Ok(keys)
        })
        .await
}

/// What to ask one server.
#[derive(Debug, Default)]
struct Errand {
    /// Users whose lists we fetch and follow.
    fetch: BTreeSet<OwnedUserId>,
    /// Others.
    ask: Wanted,
}

fn plan(
    snap: &Snapshot<'_>,
    us: &ServerName,
    wanted: Wanted,
) -> Result<BTreeMap<OwnedServerName, Errand>, StoreError> {
    let mut plan: BTreeMap<OwnedServerName, Errand> = BTreeMap::new();
    for (user_id, devices) in wanted {
        let server = user_id.server_name().to_owned();
        if server == us || rows::find(snap, &user_id)?.standing == Standing::Current {
            continue;
        }
        let shares = sharing::does_user_with_server(snap, (&user_id, us), None)?;
        let errand = plan.entry(server).or_default();
        if shares && errand.fetch.len() < MAX_FETCHED_OF_SERVER {
            errand.fetch.insert(user_id);
        } else {
            errand.ask.insert(user_id, devices);
        }
    }
    Ok(plan)
}

async fn run(
    hs: &Homeserver,
    server: &ServerName,
    errand: &Errand,
    wait: Duration,
) -> Result<get_keys::v1::Response, FederationError> {
    for user_id in &errand.fetch {
        match device_lists::fetch(hs, user_id, wait).await {
            // There is no such user for us; then there are no keys.
            Ok(()) | Err(FederationError::Refused { status: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if errand.ask.is_empty() {
        return Ok(get_keys::v1::Response::default());
    }
    federation::ask(hs, server, get_keys::v1::Request::new(errand.ask.clone()), wait).await
}

/// Takes what was asked for, of what another server says.
fn add(keys: &mut Keys, errand: &Errand, told: get_keys::v1::Response) {
    for (user_id, devices) in told.device_keys {
        let Some(chosen) = errand.ask.get(&user_id) else { continue };
        let devices = devices.into_iter().filter(|(device_id, keys)| {
            is_chosen(chosen, device_id) && are_of(keys, &user_id, device_id)
        });
        keys.device_keys.insert(user_id.clone(), devices.collect());
    }
    for (usage, told, known) in [
        (Usage::Master, told.master_keys, &mut keys.master_keys),
        (Usage::SelfSigning, told.self_signing_keys, &mut keys.self_signing_keys),
    ] {
        known.extend(told.into_iter().filter(|(user_id, key)| {
            errand.ask.contains_key(user_id) && cross_signing::checked(user_id, usage, key).is_ok()
        }));
    }
}

/// What is here.
fn known(
    snap: &Snapshot<'_>,
    (us, viewer): (&ServerName, &UserId),
    wanted: &Wanted,
) -> Result<Keys, StoreError> {
    let mut keys = Keys::default();
    for (user_id, chosen) in wanted {
        let names = if user_id.server_name() == us { Names::Shown } else { Names::Hidden };
        let list = rows::find(snap, user_id)?;
        let is_kept = list.standing == Standing::Current
            || list.standing == Standing::Stale && list.stream_id > 0;
        if names == Names::Hidden && !is_kept {
            continue;
        }
        let devices = shown_devices(snap, (user_id, chosen), Some(viewer), names)?;
        keys.device_keys.insert(user_id.clone(), devices);
        add_signing_keys(snap, user_id, Some(viewer), &mut keys)?;
    }
    Ok(keys)
}

/// Whether the names of devices are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Shown,
    Hidden,
}

fn shown_devices(
    snap: &Snapshot<'_>,
    (user_id, chosen): (&UserId, &[OwnedDeviceId]),
    viewer: Option<&UserId>,
    names: Names,
) -> Result<BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>, StoreError> {
    let mut shown = BTreeMap::new();
    for device in device_keys::list(snap, user_id)? {
        let Some(keys) = device.keys.filter(|_| is_chosen(chosen, &device.device_id)) else {
            continue;
        };
        let name = match names {
            Names::Shown => devices::find(snap, user_id, &device.device_id)?
                .and_then(|device| device.display_name),
            Names::Hidden => None,
        };
        let keys = (user_id, device.device_id.as_str(), &*keys);
        let keys = merge::shown(snap, keys, viewer, name.as_deref())?;
        shown.insert(device.device_id, keys);
    }
    Ok(shown)
}

fn add_signing_keys(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    viewer: Option<&UserId>,
    keys: &mut Keys,
) -> Result<(), StoreError> {
    let key = |usage| cross_signing::shown(snap, user_id, usage, viewer);
    let name = || user_id.to_owned();
    keys.master_keys.extend(key(Usage::Master)?.map(|key| (name(), key)));
    keys.self_signing_keys.extend(key(Usage::SelfSigning)?.map(|key| (name(), key)));
    if viewer == Some(user_id) {
        keys.user_signing_keys.extend(key(Usage::UserSigning)?.map(|key| (name(), key)));
    }
    Ok(())
}

fn is_chosen(chosen: &[OwnedDeviceId], device_id: &OwnedDeviceId) -> bool {
    chosen.is_empty() || chosen.contains(device_id)
}
