//! Who may see which events of a room.
//!
//! Spec: Client-Server API, "Room History Visibility".

use std::collections::HashMap;

use messagehub_protocol::{pdu::Pdu, receive::Standing};
use messagehub_store::{
    EventNid, Room, RoomNid, Snapshot, StateNid, StoreError, StreamPos,
    events::{self, StoredEvent},
    memberships, room_state, rooms,
};
use ruma::{
    OwnedUserId, UserId,
    events::{
        StateEventType, TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
};
use serde::Deserialize;

/// Member events that are followed into the past to learn when somebody was in the room last: a
/// ban after a kick after a leave is three.
const MAX_MEMBER_STEPS: usize = 20;

/// One user's eyes on one room. Remembers what it found, so one of them should look at many events.
pub struct Viewer<'s, 'c> {
    snap: &'s Snapshot<'c>,
    room: RoomNid,
    user_id: OwnedUserId,
    membership: Presence,
    by_state: HashMap<StateNid, AtState>,
}

/// Whether somebody is in a room, in terms of what they may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Joined.
    Joined,
    /// Was joined, until the event at this position.
    Until {
        /// Where the departure stands.
        pos: StreamPos,
        /// The state after the departure.
        state: StateNid,
    },
    /// Never was joined.
    Never,
}

/// What decides about the events that stand in one state.
#[derive(Debug, Clone)]
struct AtState {
    visibility: HistoryVisibility,
    membership: Option<MembershipState>,
}

impl<'s, 'c> Viewer<'s, 'c> {
    /// Looks at a room as a user.
    ///
    /// # Errors
    ///
    /// The store's.
    pub fn new(
        snap: &'s Snapshot<'c>,
        room: RoomNid,
        user_id: &UserId,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            snap,
            room,
            user_id: user_id.to_owned(),
            membership: presence(snap, room, user_id)?,
            by_state: HashMap::new(),
        })
    }

    /// Whether the user is in the room.
    pub fn presence(&self) -> Presence {
        self.membership
    }

    /// Whether the user may see an event of the room.
    ///
    /// # Errors
    ///
    /// The store's.
    pub fn can_see(&mut self, event: &StoredEvent) -> Result<bool, StoreError> {
        let before = match (event.standing, event.state_before) {
            (Standing::Accepted, Some(before)) => before,
            (Standing::Outlier, None) if event.pos.is_some() => return self.can_see_history(),
            _ => return Ok(false),
        };
        let at = self.at_state(before)?;
        let visibility = more_open(at.visibility, visibility_in(&event.pdu));
        let membership = closest(at.membership, self.own_membership_in(&event.pdu));
        Ok(match visibility {
            _ if membership == Some(MembershipState::Join) => true,
            HistoryVisibility::WorldReadable => true,
            HistoryVisibility::Invited => membership == Some(MembershipState::Invite),
            HistoryVisibility::Joined => false,
            // Shared, which is also what an unknown value counts as.
            _ => self.shares(event) || self.is_invite_to_self(&event.pdu),
        })
    }

    /// Whether the user may see history whose state is not known here. Whoever gave it to us let
    /// this server see it; its members share it where the room shares history today.
    fn can_see_history(&mut self) -> Result<bool, StoreError> {
        let state = match self.membership {
            Presence::Joined => rooms::get_by_nid(self.snap, self.room)?.state,
            Presence::Until { state, .. } => state,
            Presence::Never => return Ok(false),
        };
        let visibility = self.at_state(state)?.visibility;
        Ok(!matches!(visibility, HistoryVisibility::Invited | HistoryVisibility::Joined))
    }

    /// Whether shared history up to an event is the user's.
    fn shares(&self, event: &StoredEvent) -> bool {
        match self.membership {
            Presence::Joined => true,
            Presence::Until { pos, .. } => event.pos.is_some_and(|at| at <= pos),
            Presence::Never => false,
        }
    }

    fn at_state(&mut self, state: StateNid) -> Result<AtState, StoreError> {
        if let Some(known) = self.by_state.get(&state) {
            return Ok(known.clone());
        }
        let membership = get(self.snap, state, &StateEventType::RoomMember, self.user_id.as_str())?
            .and_then(|event| membership_in(&event.pdu));
        let found = AtState { visibility: history_visibility(self.snap, state)?, membership };
        self.by_state.insert(state, found.clone());
        Ok(found)
    }

    fn is_invite_to_self(&self, pdu: &Pdu) -> bool {
        self.own_membership_in(pdu) == Some(MembershipState::Invite)
    }

    fn is_own_membership(&self, pdu: &Pdu) -> bool {
        *pdu.kind() == TimelineEventType::RoomMember
            && pdu.state_key() == Some(self.user_id.as_str())
    }

    fn own_membership_in(&self, pdu: &Pdu) -> Option<MembershipState> {
        if self.is_own_membership(pdu) { membership_in(pdu) } else { None }
    }
}

/// Whether a user is in a room, as far as seeing goes.
///
/// # Errors
///
/// The store's.
pub fn presence(
    snap: &Snapshot<'_>,
    room: RoomNid,
    user_id: &UserId,
) -> Result<Presence, StoreError> {
    let Some(member) = memberships::find(snap, room, user_id)? else {
        return Ok(Presence::Never);
    };
    if member.membership == MembershipState::Join {
        return Ok(Presence::Joined);
    }
    Ok(match departure(snap, user_id, member.event)? {
        Some((pos, state)) => Presence::Until { pos, state },
        None => Presence::Never,
    })
}

/// Whether a user had been joined to a room before their member event `last`, a departure or what
/// followed one.
///
/// # Errors
///
/// The store's.
pub fn was_joined_before(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    last: Option<EventNid>,
) -> Result<bool, StoreError> {
    Ok(departure(snap, user_id, last)?.is_some())
}

/// Where a user was joined last before their member event `last`: the position of the event that
/// ended it, and the state after that.
fn departure(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    last: Option<EventNid>,
) -> Result<Option<(StreamPos, StateNid)>, StoreError> {
    let mut next = last;
    for _ in 0..MAX_MEMBER_STEPS {
        let Some(nid) = next else { break };
        let event = events::get(snap, nid)?;
        let (Some(before), Some(after)) = (event.state_before, event.state_after) else { break };
        next = room_state::get(snap, before, &StateEventType::RoomMember, user_id.as_str())?;
        let Some(previous) = next else { break };
        let was = membership_in(&events::get(snap, previous)?.pdu);
        if was == Some(MembershipState::Join) {
            return Ok(Some((event.pos.unwrap_or(StreamPos::ZERO), after)));
        }
    }
    Ok(None)
}

/// The state of a room that a user may read: the current one in the room or where the world may,
/// else the one they left; `None` for strangers.
///
/// # Errors
///
/// The store's.
pub fn readable_state(
    snap: &Snapshot<'_>,
    room: &Room,
    user_id: &UserId,
) -> Result<Option<StateNid>, StoreError> {
    let open = || -> Result<bool, StoreError> {
        Ok(history_visibility(snap, room.state)? == HistoryVisibility::WorldReadable)
    };
    Ok(match presence(snap, room.nid, user_id)? {
        Presence::Joined => Some(room.state),
        Presence::Until { state, .. } => Some(state),
        Presence::Never if open()? => Some(room.state),
        Presence::Never => None,
    })
}

/// The history visibility that a state sets; `shared` where it sets none.
///
/// # Errors
///
/// The store's.
pub fn history_visibility(
    snap: &Snapshot<'_>,
    state: StateNid,
) -> Result<HistoryVisibility, StoreError> {
    let event = get(snap, state, &StateEventType::RoomHistoryVisibility, "")?;
    Ok(event.and_then(|event| visibility_in(&event.pdu)).unwrap_or(HistoryVisibility::Shared))
}

/// The membership that a member event gives.
pub fn membership_in(pdu: &Pdu) -> Option<MembershipState> {
    #[derive(Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    serde_json::from_str::<Content>(pdu.content().get()).ok().map(|content| content.membership)
}

fn visibility_in(pdu: &Pdu) -> Option<HistoryVisibility> {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    if *pdu.kind() != TimelineEventType::RoomHistoryVisibility || pdu.state_key() != Some("") {
        return None;
    }
    let content = serde_json::from_str::<Content>(pdu.content().get()).ok()?;
    Some(content.history_visibility)
}

fn get(
    snap: &Snapshot<'_>,
    state: StateNid,
    kind: &StateEventType,
    state_key: &str,
) -> Result<Option<StoredEvent>, StoreError> {
    room_state::get(snap, state, kind, state_key)?.map(|nid| events::get(snap, nid)).transpose()
}

/// An event that changes the visibility is seen by whoever sees what is before or after it.
fn more_open(before: HistoryVisibility, set: Option<HistoryVisibility>) -> HistoryVisibility {
    let openness = |visibility: &HistoryVisibility| match visibility {
        HistoryVisibility::WorldReadable => 3,
        HistoryVisibility::Invited => 1,
        HistoryVisibility::Joined => 0,
        _ => 2,
    };
    match set {
        Some(set) if openness(&set) > openness(&before) => set,
        _ => before,
    }
}

/// A user's own membership event is seen by whoever they were before or are after it.
fn closest(
    before: Option<MembershipState>,
    set: Option<MembershipState>,
) -> Option<MembershipState> {
    let closeness = |membership: &Option<MembershipState>| match membership {
        Some(MembershipState::Join) => 3,
        Some(MembershipState::Invite) => 2,
        Some(MembershipState::Knock) => 1,
        _ => 0,
    };
    if closeness(&set) > closeness(&before) { set } else { before }
}
