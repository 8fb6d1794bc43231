//! The state of a room at an event.
//!
//! Spec: Server-Server API, "Room State Resolution" and the state endpoints.

use std::{collections::BTreeMap, sync::Arc};

use messagehub_protocol::{pdu::Pdu, server_keys::ServerKeys};
use messagehub_store::{Snapshot, StateNid, StoreError, edges, events, room_state};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, events::StateEventType};
use serde_json::value::RawValue;

use super::{
    access::{AccessError, raw},
    events::event_in,
};
use crate::{Homeserver, federation::keys, view::state_event};

/// A state with everything it rests on.
#[derive(Debug, Default)]
pub struct State {
    /// The state events.
    pub state: Vec<Box<RawValue>>,
    /// Their auth chains.
    pub auth_chain: Vec<Box<RawValue>>,
    /// One `server_keys` object for each signer.
    pub server_keys: Vec<Box<RawValue>>,
}

/// The same by ids.
#[derive(Debug, Default)]
pub struct StateIds {
    /// The state events.
    pub state: Vec<OwnedEventId>,
    /// Their auth chains.
    pub auth_chain: Vec<OwnedEventId>,
}

/// The state before an event.
///
/// # Errors
/// Why the asker may not have it.
pub async fn before(
    hs: &Homeserver,
    origin: OwnedServerName,
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
) -> Result<State, AccessError> {
    let own = hs.identity.server_keys();
    hs.store
        .read(move |snap| {
            let event = event_in(snap, &room_id, &origin, &event_id)?;
            let root = event.state_before.ok_or(AccessError::UnknownState)?;
            Ok(whole(snap, root, &own)?)
        })
        .await
}

/// The ids of the state before an event.
///
/// # Errors
/// Why the asker may not have them.
pub async fn ids_before(
    hs: &Homeserver,
    origin: OwnedServerName,
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
) -> Result<StateIds, AccessError> {
    hs.store
        .read(move |snap| {
            let event = event_in(snap, &room_id, &origin, &event_id)?;
            let root = event.state_before.ok_or(AccessError::UnknownState)?;
            let (state, chain) = gather(snap, root)?;
            Ok(StateIds {
                state: state.iter().map(|pdu| pdu.event_id().to_owned()).collect(),
                auth_chain: chain.into_keys().collect(),
            })
        })
        .await
}

/// A whole state for another server.
pub(super) fn whole(
    snap: &Snapshot<'_>,
    root: StateNid,
    own: &ServerKeys,
) -> Result<State, StoreError> {
    let (state, chain) = gather(snap, root)?;
    let all = state.iter().chain(chain.values()).map(|pdu| &**pdu);
    let server_keys = keys::for_events(snap, own, all)?;
    let json = |pdu: &Arc<Pdu>| raw(pdu.json());
    Ok(State {
        state: state.iter().filter_map(json).collect(),
        auth_chain: chain.values().filter_map(json).collect(),
        server_keys,
    })
}

/// Events by id.
type Chain = BTreeMap<OwnedEventId, Arc<Pdu>>;

/// The events of a state, and what they rest on. From room version 12 on no event names the
/// create event, and so it is put into the chain by hand.
fn gather(snap: &Snapshot<'_>, root: StateNid) -> Result<(Vec<Arc<Pdu>>, Chain), StoreError> {
    let state = room_state::all(snap, root)?
        .into_iter()
        .map(|(_, _, nid)| events::pdu(snap, nid))
        .collect::<Result<Vec<_>, _>>()?;
    let mut chain: Chain = edges::auth_chain(snap, &state)?.events.into_iter().collect();
    if let Some(create) = state_event(snap, root, &StateEventType::RoomCreate, "")? {
        chain.insert(create.event_id().to_owned(), create);
    }
    Ok((state, chain))
}
