//! The checks on receipt of an event, the same for local, gossiped, pushed and backfilled ones.
//!
//! | | check | where | else |
//! |-|-|-|-|
//! | 1 | form, identifiers, limits | [`RawPdu::well_formed`](crate::pdu::RawPdu::well_formed) | dropped |
//! | 2 | signatures | [`WellFormedPdu::signed`](crate::pdu::WellFormedPdu::signed) | dropped |
//! | 3 | content hash | the same | redacted, and goes on |
//! | 4 | the rules, by its auth events | [`check`] | rejected |
//! | 5 | the rules, by the state before it | [`check`] | rejected |
//! | 6 | the rules, by the current state | [`check`] | soft failed |
//! | 7 | the policy server's signature, where the room uses one | [`check`] | soft failed |
//! | 8 | how often its server forks the room, for events of others | [`Judged::among`] | soft failed |
//!
//! An event whose ancestors are missing does not come here: there is nothing to judge it by.
//!
//! Spec: Server-Server API, "Checks performed on receipt of a PDU".

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::events::RoomPowerLevelsIntField,
};

use crate::{
    auth::{self, AuthRule, AuthState, AuthViolation, Basis, PowerLevel, PowerLevels},
    limits::MAX_PREV_EVENTS,
    pdu::{Pdu, SignedPdu},
    policy::{POLICY_EVENT, PolicyServer},
};

#[cfg(test)]
mod tests;

/// How an event that is stored was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Passed every check.
    Accepted,
    /// Not allowed by what was the current state when it came: in the graph, not in the timeline.
    SoftFailed,
    /// Not allowed where it stands. Nothing may rest on it.
    Rejected,
    /// Known by its auth events alone; the state before it is not.
    Outlier,
}

/// All that judging an event looks at, gathered before.
#[derive(Debug, Clone)]
pub struct RoomView {
    /// The rules of the room's version.
    pub rules: &'static RoomVersionRules,
    /// Every event that the event names in `auth_events`, and how it was judged.
    pub auth_events: Vec<(Arc<Pdu>, Standing)>,
    /// The state before the event: at least the keys of [`auth::needed_state`].
    pub state_before: AuthState,
    /// The current state, the same keys, and `m.room.policy` where the room uses a policy server;
    /// `None` where soft failing makes no sense, as for history.
    pub current_state: Option<AuthState>,
}

impl RoomView {
    /// The policy server that the room uses.
    pub fn policy(&self) -> Option<PolicyServer> {
        policy_in(self.current_state.as_ref()?)
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// To be stored and shown.
    Accepted,
    /// To be stored, not shown.
    SoftFailed(AuthViolation),
    /// To be stored so that it is not asked for again; nothing may rest on it.
    Rejected(AuthViolation),
}

/// An event with its verdict: the only thing that the store takes.
#[derive(Debug, Clone)]
pub struct Judged {
    pdu: Arc<Pdu>,
    verdict: Verdict,
    extent: Extent,
}

/// How much of the room was there to judge by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Placed,
    Outlier,
}

impl Judged {
    /// The event.
    pub fn pdu(&self) -> &Arc<Pdu> {
        &self.pdu
    }

    /// The verdict.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The verdict as it is stored.
    pub fn standing(&self) -> Standing {
        match (&self.verdict, self.extent) {
            (Verdict::Accepted, Extent::Placed) => Standing::Accepted,
            (Verdict::Accepted, Extent::Outlier) => Standing::Outlier,
            (Verdict::SoftFailed(_), _) => Standing::SoftFailed,
            (Verdict::Rejected(_), _) => Standing::Rejected,
        }
    }

    /// Check 8: the same event, soft failed where it would be one more of many forward extremities
    /// and its server has another one among these already.
    ///
    /// Each append costs a resolution of the states after all of them, and a node that follows the
    /// protocol never leaves a second: what it sends follows what it sent. So only those who fork a
    /// room on purpose meet this, and what they fork is joined by whatever is said next. A server's
    /// first is always let in, since it may be the only one who says something else.
    #[must_use]
    pub fn among(mut self, others: &[Arc<Pdu>]) -> Self {
        let server = self.pdu.sender().server_name();
        let is_crowded = others.len() >= MAX_PREV_EVENTS
            && others.iter().any(|other| other.sender().server_name() == server);
        if is_crowded && self.verdict == Verdict::Accepted {
            self.verdict = Verdict::SoftFailed(AuthViolation {
                basis: Basis::CurrentState,
                rule: AuthRule::Forks,
                reason: format!("{server} forks the room too often"),
            });
        }
        self
    }

    /// The event if it was accepted.
    ///
    /// # Errors
    ///
    /// What `refuse` makes of the violation; for local events, which are not stored then.
    pub fn accepted_or<E>(self, refuse: impl FnOnce(AuthViolation) -> E) -> Result<Self, E> {
        match self.verdict {
            Verdict::Accepted => Ok(self),
            Verdict::SoftFailed(violation) | Verdict::Rejected(violation) => Err(refuse(violation)),
        }
    }
}

/// Checks 4 to 7.
pub fn check(pdu: SignedPdu, view: &RoomView) -> Judged {
    let pdu = pdu.into_pdu();
    let verdict = judge(&pdu, view);
    Judged { pdu, verdict, extent: Extent::Placed }
}

/// Check 4 alone, for an event whose place in the graph is not known: the state and the auth chain
/// that come with a join. From version 12 on `auth_events` must hold the create event too.
pub fn check_outlier(
    pdu: SignedPdu,
    auth_events: &[(Arc<Pdu>, Standing)],
    rules: &'static RoomVersionRules,
) -> Judged {
    let pdu = pdu.into_pdu();
    let verdict = match by_auth_events(&pdu, auth_events, None, rules) {
        Ok(_) => Verdict::Accepted,
        Err(violation) => Verdict::Rejected(violation),
    };
    Judged { pdu, verdict, extent: Extent::Outlier }
}

/// An invite to a room that this server is not in: its signatures were checked, and there is
/// nothing else to judge it by. One made for a third-party invite need not be signed by its
/// sender's server, so it may be taken from that server alone.
pub fn accept_unplaced(pdu: SignedPdu) -> Judged {
    Judged { pdu: pdu.into_pdu(), verdict: Verdict::Accepted, extent: Extent::Outlier }
}

fn judge(pdu: &Arc<Pdu>, view: &RoomView) -> Verdict {
    let create = view.state_before.get(&(StateEventType::RoomCreate, String::new()));
    // 4. By its auth events.
    let auth_state = match by_auth_events(pdu, &view.auth_events, create, view.rules) {
        Ok(state) => state,
        Err(violation) => return Verdict::Rejected(violation),
    };
    let needed = auth::needed_state_of(pdu, view.rules).unwrap_or_default();
    // 5. By the state before it. Where that says nothing else than the auth events did, the answer
    // is the same: the rules are a function of these keys.
    if !agree(&needed, &auth_state, &view.state_before)
        && let Err(violation) =
            auth::check_by_state(pdu, Basis::StateBefore, &view.state_before, view.rules)
    {
        return Verdict::Rejected(violation);
    }
    // 6. By the current state.
    let Some(current) = &view.current_state else {
        return Verdict::Accepted;
    };
    if is_second_create(pdu, current) {
        return Verdict::Rejected(AuthViolation {
            basis: Basis::CurrentState,
            rule: AuthRule::Create,
            reason: "the room has another create event".to_owned(),
        });
    }
    if !agree(&needed, &view.state_before, current)
        && let Err(violation) = auth::check_by_state(pdu, Basis::CurrentState, current, view.rules)
    {
        return Verdict::SoftFailed(violation);
    }
    // 7. By the policy server.
    match policy_in(current) {
        Some(policy) if !policy.recommends(pdu, view.rules) => Verdict::SoftFailed(AuthViolation {
            basis: Basis::CurrentState,
            rule: AuthRule::Policy,
            reason: format!("the policy server {} has not signed it", policy.server()),
        }),
        _ => Verdict::Accepted,
    }
}

fn policy_in(state: &AuthState) -> Option<PolicyServer> {
    let key = (StateEventType::from(POLICY_EVENT.to_owned()), String::new());
    PolicyServer::named_by(state.get(&key)?)
}

fn agree(keys: &[(StateEventType, String)], a: &AuthState, b: &AuthState) -> bool {
    keys.iter().all(|key| {
        a.get(key).map(|event| event.event_id()) == b.get(key).map(|event| event.event_id())
    })
}

/// A create event follows nothing, so no state before it forbids a second one, which would be a
/// second root of the room. Whoever knows the room knows the first.
fn is_second_create(pdu: &Pdu, current: &AuthState) -> bool {
    *pdu.kind() == TimelineEventType::RoomCreate
        && current
            .get(&(StateEventType::RoomCreate, String::new()))
            .is_some_and(|create| create.event_id() != pdu.event_id())
}

/// Check 4; gives the state that the auth events make.
fn by_auth_events(
    pdu: &Pdu,
    auth_events: &[(Arc<Pdu>, Standing)],
    create: Option<&Arc<Pdu>>,
    rules: &RoomVersionRules,
) -> Result<AuthState, AuthViolation> {
    let mut known: HashMap<&EventId, &Arc<Pdu>> =
        auth_events.iter().map(|(event, _)| (event.event_id(), event)).collect();
    let rejected: HashSet<&EventId> = auth_events
        .iter()
        .filter(|(_, standing)| *standing == Standing::Rejected)
        .map(|(event, _)| event.event_id())
        .collect();
    known.extend(create.map(|create| (create.event_id(), create)));
    auth::check_itself(pdu, &known, &rejected, rules)?;

    let mut state: AuthState = pdu
        .auth_events()
        .iter()
        .filter_map(|id| known.get(&**id))
        .filter_map(|event| Some((state_key_of(event)?, Arc::clone(event))))
        .collect();
    // From version 12 on the create event is implied by the room id, and rule 2 found it.
    if rules.authorization.room_create_event_id_as_room_id {
        let create = known.into_values().find(|event| is_create_of(event, pdu));
        state.extend(create.and_then(|event| Some((state_key_of(event)?, Arc::clone(event)))));
    }
    auth::check_by_state(pdu, Basis::AuthEvents, &state, rules)?;
    Ok(state)
}

fn is_create_of(event: &Pdu, pdu: &Pdu) -> bool {
    *event.kind() == TimelineEventType::RoomCreate && event.room_id() == pdu.room_id()
}

fn state_key_of(event: &Pdu) -> Option<(StateEventType, String)> {
    Some((StateEventType::from(event.kind().to_string()), event.state_key()?.to_owned()))
}

/// Whether an accepted redaction takes effect on an event of the same room: the sender has the
/// power to redact, or both come from one server. `state` is the current state and needs the create
/// and the power levels event.
///
/// Until version 2 the authorization rules have judged the redaction itself already.
///
/// Spec: room version 3, "Handling redactions".
pub fn redaction_allowed(
    redaction: &Pdu,
    target: &Pdu,
    state: &AuthState,
    rules: &RoomVersionRules,
) -> bool {
    if redaction.room_id() != target.room_id() || redaction.redacts() != Some(target.event_id()) {
        return false;
    }
    if rules.authorization.special_case_room_redaction
        || redaction.sender().server_name() == target.sender().server_name()
    {
        return true;
    }
    let levels = PowerLevels::of(state, rules);
    let needed = levels.level(RoomPowerLevelsIntField::Redact);
    levels.of_user(redaction.sender()) >= PowerLevel::Int(needed)
}
