//! Whose devices changed: telling other servers of ours, and following theirs.
//!
//! Every change of a local list has a number. It goes to every server that shares a room with the
//! user, with the number before it; whoever misses one fetches the whole list. What we have of
//! another server's user is kept, so that clients can encrypt for somebody who is off.
//!
//! Spec: Server-Server API, "Device Management".

use std::time::Duration;

use messagehub_store::{
    Room, Snapshot, StoreError, Txn, cross_signing, device_keys,
    device_lists::{self as rows, DeviceList, Standing},
    devices, memberships, one_time_keys, sharing, to_device,
};
use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UInt, UserId,
    api::{
        client::sync::sync_events::DeviceLists,
        federation::{
            device::get_devices,
            transactions::edu::{DeviceListUpdateContent, Edu, SigningKeyUpdateContent},
        },
    },
    encryption,
    events::room::member::MembershipState,
    serde::Raw,
};

use super::{MAX_KEY_BYTES, cross_signing as signing, merge};
use crate::{
    Homeserver,
    append::{Appended, TopicChange},
    edus,
    federation::{self, FederationError},
    sync::{devices as sync, token},
    to_device::scope,
};

/// Devices kept of a user of another server: more than people have, and few enough that a server
/// that makes them up does not fill the disk.
const MAX_REMOTE_DEVICES: usize = 250;

/// Servers told of a device when a user joins a room: a join of a crowd must not wait for thousands of
/// entries in the outbox. Further ones learn of the user by the join and ask when a client does.
const MAX_INTRODUCED: usize = 256;

/// What became of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// It is new, or its keys are, or a signature on them.
    Updated(&'a DeviceId),
    /// It is gone.
    Removed(&'a DeviceId),
}

/// Notes that the list of a local user changed, and queues the news for other servers. The names of
/// devices are for their own users and are not told.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn changed(
    txn: &mut Txn<'_>,
    us: &ServerName,
    (user_id, change): (&UserId, Change<'_>),
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let before = rows::find(txn, user_id)?;
    let pos = txn.next_pos();
    let list = DeviceList { standing: Standing::Current, stream_id: pos.0, seen_id: pos.0 };
    rows::set(txn, user_id, list, pos)?;
    let mut update = content(txn, user_id, (change, pos.0))?;
    if before.stream_id > 0 {
        update.prev_id = vec![number(before.stream_id)];
    }
    let slot = format!("m.device_list_update {user_id} {}", update.device_id);
    let servers = others(txn, us, user_id)?;
    edus::queue(txn, &servers, (Some(&slot), &Edu::DeviceListUpdate(update)), now)
}

/// Notes that the cross-signing keys of a local user changed, and queues them for other servers.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn signing_keys_changed(
    txn: &mut Txn<'_>,
    us: &ServerName,
    user_id: &UserId,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let list = rows::find(txn, user_id)?;
    let pos = txn.next_pos();
    rows::set(txn, user_id, DeviceList { standing: Standing::Current, ..list }, pos)?;
    let mut update = SigningKeyUpdateContent::new(user_id.to_owned());
    update.master_key = signing::shown(txn, user_id, cross_signing::Usage::Master, None)?;
    update.self_signing_key =
        signing::shown(txn, user_id, cross_signing::Usage::SelfSigning, None)?;
    let slot = format!("m.signing_key_update {user_id}");
    let servers = others(txn, us, user_id)?;
    edus::queue(txn, &servers, (Some(&slot), &Edu::SigningKeyUpdate(update)), now)
}

/// Removes a local device and everything that was kept for it, and notes the change.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn remove_device(
    txn: &mut Txn<'_>,
    us: &ServerName,
    (user_id, device_id): (&UserId, &DeviceId),
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    if !devices::remove(txn, user_id, device_id)? {
        return Ok(());
    }
    device_keys::remove(txn, user_id, device_id)?;
    one_time_keys::remove_all(txn, (user_id, device_id))?;
    cross_signing::remove_signatures(txn, (user_id, device_id.as_str()))?;
    to_device::remove_until(txn, (user_id, device_id), messagehub_store::StreamPos(i64::MAX))?;
    to_device::forget_seen(txn, &scope(user_id, device_id))?;
    changed(txn, us, (user_id, Change::Removed(device_id)), now)
}

/// What follows from a change of who is in a room: servers that did not follow a local user before
/// are told of a device, and lists that nobody will tell us of any more are not kept.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn members_changed(
    txn: &mut Txn<'_>,
    us: &ServerName,
    room: &Room,
    appended: &Appended,
) -> Result<(), StoreError> {
    for change in &appended.members {
        let was_in = change.before == Some(MembershipState::Join);
        let is_in = change.now == MembershipState::Join;
        let is_ours = change.user_id.server_name() == us;
        if is_ours && is_in && !was_in {
            let now = appended.pdu.origin_server_ts();
            introduce(txn, us, (&change.user_id, room), now)?;
        } else if !is_ours && was_in && !is_in {
            forget_strangers(txn, us, std::slice::from_ref(&change.user_id))?;
        }
    }
    if appended.topic == Some(TopicChange::Leave) {
        let left = memberships::list_joined(txn, room.nid)?;
        forget_strangers(txn, us, &left)?;
    }
    Ok(())
}

/// Tells the servers of a room of a user who joined it, as far as they shared no room before. One
/// device will do: a server that does not know the list fetches it.
fn introduce(
    txn: &mut Txn<'_>,
    us: &ServerName,
    (user_id, room): (&UserId, &Room),
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let list = rows::find(txn, user_id)?;
    let devices = device_keys::list(txn, user_id)?;
    let Some(device) = devices.iter().find(|device| device.keys.is_some()) else { return Ok(()) };
    let mut newcomers = Vec::new();
    for server in memberships::servers_in(txn, room.nid)? {
        if newcomers.len() >= MAX_INTRODUCED {
            break;
        }
        if server != us && !sharing::does_user_with_server(txn, (user_id, &server), Some(room.nid))?
        {
            newcomers.push(server);
        }
    }
    let update = content(txn, user_id, (Change::Updated(&device.device_id), list.stream_id))?;
    let slot = format!("m.device_list_update {user_id} {}", device.device_id);
    edus::queue(txn, &newcomers, (Some(&slot), &Edu::DeviceListUpdate(update)), now)
}

/// Forgets the lists of those users of other servers who share no room with us any more.
fn forget_strangers(
    txn: &mut Txn<'_>,
    us: &ServerName,
    users: &[ruma::OwnedUserId],
) -> Result<(), StoreError> {
    for user_id in users.iter().filter(|user_id| user_id.server_name() != us) {
        let list = rows::find(txn, user_id)?;
        if list.standing == Standing::Unknown
            || sharing::does_user_with_server(txn, (user_id, us), None)?
        {
            continue;
        }
        device_keys::remove_all(txn, user_id)?;
        cross_signing::remove_all(txn, user_id)?;
        let pos = rows::changed_at(txn, user_id)?;
        rows::set(txn, user_id, DeviceList::NONE, pos)?;
    }
    Ok(())
}

/// Takes the news of one device of another server's user. Gives whether a list is to be fetched.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn ingest(
    txn: &mut Txn<'_>,
    (us, origin): (&ServerName, &ServerName),
    update: &DeviceListUpdateContent,
) -> Result<bool, StoreError> {
    let user_id = &update.user_id;
    if user_id.server_name() != origin || !sharing::does_user_with_server(txn, (user_id, us), None)?
    {
        return Ok(false);
    }
    let list = rows::find(txn, user_id)?;
    let id = i64::from(update.stream_id);
    if list.standing == Standing::Current && id == list.stream_id {
        return Ok(false);
    }
    let follows = list.standing == Standing::Current
        && !update.prev_id.is_empty()
        && update.prev_id.iter().all(|before| i64::from(*before) == list.stream_id);
    let applied = follows && apply(txn, update)?;
    let pos = txn.next_pos();
    let seen_id = list.seen_id.max(id);
    let list = match applied {
        true => DeviceList { standing: Standing::Current, stream_id: id, seen_id },
        false => DeviceList { standing: Standing::Stale, stream_id: list.stream_id, seen_id },
    };
    rows::set(txn, user_id, list, pos)?;
    Ok(!applied)
}

/// Writes one device; gives `false` for what cannot be taken as it is said.
fn apply(txn: &mut Txn<'_>, update: &DeviceListUpdateContent) -> Result<bool, StoreError> {
    let (user_id, device_id) = (&update.user_id, &update.device_id);
    if update.deleted == Some(true) {
        device_keys::remove(txn, user_id, device_id)?;
        cross_signing::remove_signatures(txn, (user_id, device_id.as_str()))?;
        return Ok(true);
    }
    if device_keys::count(txn, user_id)? >= MAX_REMOTE_DEVICES {
        return Ok(false);
    }
    if update.keys.as_ref().is_some_and(|keys| !are_of(keys, user_id, device_id)) {
        return Ok(false);
    }
    device_keys::set(txn, user_id, device_id, update.keys.as_ref().map(Raw::json))?;
    Ok(true)
}

/// Takes the cross-signing keys of another server's user. Gives whether a list is to be fetched.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn ingest_signing_keys(
    txn: &mut Txn<'_>,
    (us, origin): (&ServerName, &ServerName),
    update: &SigningKeyUpdateContent,
) -> Result<bool, StoreError> {
    let user_id = &update.user_id;
    if user_id.server_name() != origin || !sharing::does_user_with_server(txn, (user_id, us), None)?
    {
        return Ok(false);
    }
    let list = rows::find(txn, user_id)?;
    if list.standing == Standing::Current {
        signing::set_remote(
            txn,
            user_id,
            update.master_key.as_ref(),
            update.self_signing_key.as_ref(),
        )?;
    }
    let standing = match list.standing {
        Standing::Current => Standing::Current,
        Standing::Stale | Standing::Unknown => Standing::Stale,
    };
    let pos = txn.next_pos();
    rows::set(txn, user_id, DeviceList { standing, ..list }, pos)?;
    Ok(standing == Standing::Stale)
}

/// The devices of a local user, for another server that has to do with the user.
///
/// Spec: Server-Server API, "GET /user/devices/{userId}".
///
/// # Errors
/// The store failed. `None`: there is no such user for that server.
pub async fn for_server(
    hs: &Homeserver,
    origin: OwnedServerName,
    user_id: &UserId,
) -> Result<Option<get_devices::v1::Response>, StoreError> {
    if !hs.identity.is_local(user_id) {
        return Ok(None);
    }
    let user_id = user_id.to_owned();
    hs.store
        .read(move |snap| {
            if !sharing::is_user_known_to(snap, &user_id, &origin)? {
                return Ok(None);
            }
            let list = rows::find(snap, &user_id)?;
            let mut answer =
                get_devices::v1::Response::new(user_id.clone(), number(list.stream_id));
            for device in device_keys::list(snap, &user_id)? {
                let Some(keys) = device.keys else { continue };
                let name = device.device_id.as_str();
                let keys = merge::shown(snap, (&user_id, name, &keys), None, None)?;
                answer.devices.push(get_devices::v1::UserDevice::new(device.device_id, keys));
            }
            answer.master_key = signing::shown(snap, &user_id, cross_signing::Usage::Master, None)?;
            answer.self_signing_key =
                signing::shown(snap, &user_id, cross_signing::Usage::SelfSigning, None)?;
            Ok(Some(answer))
        })
        .await
}

/// Fetches the list of a user of another server and follows it from then on, if the user still
/// shares a room with us.
///
/// # Errors
/// The other server gave no usable answer, or the store failed.
pub(crate) async fn fetch(
    hs: &Homeserver,
    user_id: &UserId,
    wait: Duration,
) -> Result<(), FederationError> {
    let wanted = user_id.to_owned();
    let before = hs.store.read(move |snap| rows::find(snap, &wanted)).await?;
    let request = get_devices::v1::Request::new(user_id.to_owned());
    let answer = federation::ask(hs, user_id.server_name(), request, wait).await?;
    if answer.user_id != user_id {
        return Err(FederationError::BadAnswer("the devices of another user".to_owned()));
    }
    let us = hs.server_name().to_owned();
    Ok(hs.store.write(move |txn| replace(txn, &us, (&answer, before))).await?)
}

fn replace(
    txn: &mut Txn<'_>,
    us: &ServerName,
    (answer, before): (&get_devices::v1::Response, DeviceList),
) -> Result<(), StoreError> {
    let user_id = &answer.user_id;
    if !sharing::does_user_with_server(txn, (user_id, us), None)? {
        return Ok(());
    }
    device_keys::remove_all(txn, user_id)?;
    let devices = answer.devices.iter().filter(|it| are_of(&it.keys, user_id, &it.device_id));
    for device in devices.take(MAX_REMOTE_DEVICES) {
        device_keys::set(txn, user_id, &device.device_id, Some(device.keys.json()))?;
    }
    cross_signing::remove_all(txn, user_id)?;
    let (master, own) = (answer.master_key.as_ref(), answer.self_signing_key.as_ref());
    signing::set_remote(txn, user_id, master, own)?;
    let list = rows::find(txn, user_id)?;
    let stream_id = i64::from(answer.stream_id);
    // What was heard of before we asked is in the answer, whatever number it came under.
    let is_behind = list.seen_id != before.seen_id && list.seen_id > stream_id;
    let standing = if is_behind { Standing::Stale } else { Standing::Current };
    let pos = match list.standing {
        // Clients asked for it, or know that it changed, and may have been answered from the old one.
        Standing::Stale => txn.next_pos(),
        Standing::Unknown | Standing::Current => rows::changed_at(txn, user_id)?,
    };
    let seen_id = if is_behind { list.seen_id } else { stream_id };
    rows::set(txn, user_id, DeviceList { standing, stream_id, seen_id }, pos)
}

/// Fetches a list in the background. A server that will never give it is not asked again.
///
/// # Errors
/// The store failed.
pub(crate) async fn refresh(hs: &Homeserver, user_id: &UserId) -> Result<(), StoreError> {
    match fetch(hs, user_id, federation::ASK_TIMEOUT).await {
        Ok(()) => Ok(()),
        Err(FederationError::Store(error)) => Err(error),
        Err(error) if error.is_transient() => {
            tracing::debug!(%user_id, %error, "a device list has to wait");
            Ok(())
        }
        Err(error) => {
            tracing::info!(%user_id, %error, "a device list cannot be had");
            let user_id = user_id.to_owned();
            hs.store
                .write(move |txn| {
                    let list = rows::find(txn, &user_id)?;
                    let pos = rows::changed_at(txn, &user_id)?;
                    rows::set(
                        txn,
                        &user_id,
                        DeviceList { standing: Standing::Unknown, ..list },
                        pos,
                    )
                })
                .await
        }
    }
}

/// Whether keys say that they are of this device, and are no larger than keys are.
pub(super) fn are_of(
    keys: &Raw<encryption::DeviceKeys>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> bool {
    keys.json().get().len() <= MAX_KEY_BYTES
        && keys
            .deserialize()
            .is_ok_and(|keys| keys.user_id == user_id && keys.device_id == device_id)
}

fn content(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    (change, stream_id): (Change<'_>, i64),
) -> Result<DeviceListUpdateContent, StoreError> {
    let (Change::Updated(device_id) | Change::Removed(device_id)) = change;
    let mut update =
        DeviceListUpdateContent::new(user_id.to_owned(), device_id.to_owned(), number(stream_id));
    match change {
        Change::Removed(_) => update.deleted = Some(true),
        Change::Updated(_) => {
            if let Some(keys) = device_keys::find(snap, user_id, device_id)? {
                let keys = (user_id, device_id.as_str(), &*keys);
                update.keys = Some(merge::shown(snap, keys, None, None)?);
            }
        }
    }
    Ok(update)
}

/// The other servers that share a room with a local user.
fn others(
    snap: &Snapshot<'_>,
    us: &ServerName,
    user_id: &UserId,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let mut servers = sharing::list_servers_of(snap, user_id)?;
    servers.retain(|server| server != us);
    Ok(servers)
}

/// A stream id is a position, and so never negative.
fn number(id: i64) -> UInt {
    UInt::try_from(id).unwrap_or_default()
}

/// Why changes were not told.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// A token is none of this server.
    #[error("a token is invalid")]
    InvalidToken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whose devices a user has to look at again since a sync, and whose no longer. What changed after
/// `to` is told too: whoever looks once more than needed misses nothing.
///
/// Spec: Client-Server API, "GET /keys/changes".
///
/// # Errors
/// See [`ChangesError`].
pub async fn changes(
    hs: &Homeserver,
    user_id: &UserId,
    (from, to): (&str, &str),
) -> Result<DeviceLists, ChangesError> {
    let from = token::parse(from).ok_or(ChangesError::InvalidToken)?;
    token::parse(to).ok_or(ChangesError::InvalidToken)?;
    let user_id = user_id.to_owned();
    hs.store
        .read(move |snap| {
            let met = sync::met(snap, &user_id, from)?;
            Ok(sync::lists(snap, &user_id, (from, &met))?)
        })
        .await
}
