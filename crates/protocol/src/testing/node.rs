//! One server's view of one room: gather, decide, apply, with maps for a store.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{OwnedEventId, events::StateEventType, room_version_rules::RoomVersionRules};

use crate::{
    auth::{AuthState, StateMap, needed_state_of},
    pdu::{Pdu, SignedPdu},
    receive::{Judged, RoomView, Standing, Verdict, check},
    resolve::resolve,
};

pub(crate) struct Node {
    pub(crate) rules: &'static RoomVersionRules,
    pub(crate) pdus: HashMap<OwnedEventId, Arc<Pdu>>,
    pub(crate) verdicts: HashMap<OwnedEventId, Verdict>,
    standings: HashMap<OwnedEventId, Standing>,
    after: HashMap<OwnedEventId, StateMap<OwnedEventId>>,
    extremities: BTreeSet<OwnedEventId>,
    waiting: Vec<SignedPdu>,
}

impl Node {
    pub(crate) fn new(rules: &'static RoomVersionRules) -> Self {
        Self {
            rules,
            pdus: HashMap::new(),
            verdicts: HashMap::new(),
            standings: HashMap::new(),
            after: HashMap::new(),
            extremities: BTreeSet::new(),
            waiting: vec![],
        }
    }

    /// Takes an event, at once or when its ancestors have come.
    pub(crate) fn receive(&mut self, pdu: SignedPdu) {
        self.waiting.push(pdu);
        while let Some(at) = self.waiting.iter().position(|pdu| self.has_ancestors(pdu.pdu())) {
            let pdu = self.waiting.swap_remove(at);
            let view = self.gather(pdu.pdu());
            self.apply(check(pdu, &view));
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn has_ancestors(&self, pdu: &Pdu) -> bool {
        pdu.prev_events().iter().chain(pdu.auth_events()).all(|id| self.pdus.contains_key(id))
    }

    fn gather(&self, pdu: &Pdu) -> RoomView {
        let known = |id: &OwnedEventId| (Arc::clone(&self.pdus[id]), self.standings[id]);
        RoomView {
            rules: self.rules,
            auth_events: pdu.auth_events().iter().map(known).collect(),
            state_before: self.part(&self.after(pdu.prev_events()), pdu),
            current_state: Some(self.part(&self.current(), pdu)),
        }
    }

    fn part(&self, state: &StateMap<OwnedEventId>, pdu: &Pdu) -> AuthState {
        let keys = needed_state_of(pdu, self.rules).unwrap_or_default();
        keys.into_iter()
            .filter_map(|key| state.get(&key).map(|id| (key, Arc::clone(&self.pdus[id]))))
            .collect()
    }

    fn apply(&mut self, judged: Judged) {
        let pdu = judged.pdu();
        let id = pdu.event_id().to_owned();
        let mut state = self.after(pdu.prev_events());
        if judged.standing() != Standing::Rejected
            && let Some(key) = pdu.state_key()
        {
            let key = (StateEventType::from(pdu.kind().to_string()), key.to_owned());
            state.insert(key, id.clone());
        }
        if judged.standing() == Standing::Accepted {
            self.extremities.retain(|id| !pdu.prev_events().contains(id));
            self.extremities.insert(id.clone());
        }
        self.after.insert(id.clone(), state);
        self.standings.insert(id.clone(), judged.standing());
        self.verdicts.insert(id.clone(), judged.verdict().clone());
        self.pdus.insert(id, Arc::clone(pdu));
    }

    /// The state after several events.
    pub(crate) fn after(&self, ids: &[OwnedEventId]) -> StateMap<OwnedEventId> {
        let states: Vec<_> = ids.iter().map(|id| self.after[id].clone()).collect();
        resolve(self.rules, &states, &self.pdus).unwrap()
    }

    /// The state after everything that was accepted.
    pub(crate) fn current(&self) -> StateMap<OwnedEventId> {
        self.after(&self.extremities.iter().cloned().collect::<Vec<_>>())
    }

    /// The state after everything that was not rejected, whenever it came.
    pub(crate) fn state_of_all(&self) -> StateMap<OwnedEventId> {
        let kept = |id: &&OwnedEventId| self.standings[*id] != Standing::Rejected;
        let kept: Vec<_> = self.pdus.keys().filter(kept).collect();
        let followed: BTreeSet<_> =
            kept.iter().flat_map(|id| self.pdus[*id].prev_events()).collect();
        let mut tips: Vec<_> = kept.into_iter().filter(|id| !followed.contains(id)).collect();
        tips.sort();
        self.after(&tips.into_iter().cloned().collect::<Vec<_>>())
    }
}
