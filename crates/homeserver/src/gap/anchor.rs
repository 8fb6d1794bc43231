//! Judging events that wait by the state before them, as members tell it, where nothing else is to
//! be had.

use std::collections::{BTreeMap, BTreeSet};

use messagehub_store::{Room, StateNid, StoreError, pending};
use ruma::{
    EventId, OwnedEventId, OwnedServerName, RoomId,
    api::federation::event::get_room_state_ids::v1::Response as StateIds,
};

use super::{Attempt, MAX_IDS, MAX_MISSING, Waiting, members, ours, waiting};
use crate::{
    Homeserver,
    federation::route,
    ingest::{self, IngestError, verify},
    outliers::{self, StateError},
    peers::Counters,
    view::ViewError,
};

/// Members asked for the state before one event: two that agree are enough, and of four two do if
/// one of them lies and one does not know it.
const MAX_TELLERS: usize = 4;

/// Questions for states that one attempt asks in vain: each answer may hold the ids of a whole state,
/// 1 MB in a room of 10,000 members.
const MAX_IN_VAIN: usize = 64;

/// Of these for events of one server: made-up ones must not use up what others need.
const MAX_IN_VAIN_FOR_ONE: usize = 16;

/// Members who say that between what we have and what waits there is nothing, and all members.
type Sides<'a> = (&'a [OwnedServerName], &'a [OwnedServerName]);

/// The states that one attempt has asked for in vain. What is not asked any more waits for the next
/// sign of life; where a state was told, one event less waits, and so that needs no bound.
#[derive(Default)]
pub(super) struct Untold {
    /// Before which events, and the number of those who were asked.
    events: BTreeMap<OwnedEventId, usize>,
    questions: usize,
    questions_by_maker: BTreeMap<OwnedServerName, usize>,
}

impl Untold {
    /// Whether not to ask these tellers for the state before an event.
    fn is_enough(&self, waiting: &Waiting, tellers: usize) -> bool {
        let asked = self.events.get(&waiting.event.event_id).copied().unwrap_or_default();
        let of_maker = self.questions_by_maker.get(waiting.maker()).copied().unwrap_or_default();
        tellers.min(MAX_TELLERS) <= asked
            || self.questions >= MAX_IN_VAIN
            || of_maker >= MAX_IN_VAIN_FOR_ONE
    }

    fn note(&mut self, waiting: &Waiting, tellers: usize) {
        let questions = tellers.min(MAX_TELLERS);
        self.events.insert(waiting.event.event_id.clone(), questions);
        self.questions += questions;
        *self.questions_by_maker.entry(waiting.maker().to_owned()).or_default() += questions;
    }
}

/// Judges an event that waits only for others that wait by the state before it.
pub(super) async fn later(
    hs: &Homeserver,
    room_id: &RoomId,
    attempt: &mut Attempt,
) -> Result<bool, StoreError> {
    let us = hs.server_name().to_owned();
    let wanted = room_id.to_owned();
    let found = hs
        .store
        .read(move |snap| {
            let room = match verify::room_of_ours(snap, &wanted, &us) {
                Ok(room) => room,
                Err(IngestError::View(ViewError::Store(error))) => return Err(error),
                Err(_) => return Ok(None),
            };
            let missing = pending::list_missing(snap, &wanted, MAX_MISSING)?;
            let mut later = waiting(snap, &wanted)?;
            later.retain(|waiting| !waiting.names_any(&missing));
            later.truncate(MAX_IDS);
            Ok(Some((room, later)))
        })
        .await?;
    let Some((room, later)) = found else { return Ok(false) };
    let members = members(hs, &room).await?;
    let sure = route::ordered(hs, attempt.sure.clone(), None);
    first(hs, (&room, &later), (&sure, &members), &mut attempt.untold).await
}

/// Judges the first of some waiting events by the state before it, where members tell that. Says
/// whether there was one.
async fn first(
    hs: &Homeserver,
    (room, waiting): (&Room, &[Waiting]),
    sides: Sides<'_>,
    untold: &mut Untold,
) -> Result<bool, StoreError> {
    for waiting in waiting {
        if one(hs, (room, waiting), sides, untold).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Judges waiting events for which nobody gives what they lack by the states before them, where
/// members tell these. Gives the number of those that were.
pub(super) async fn each(
    hs: &Homeserver,
    (room, waiting): (&Room, &[Waiting]),
    sides: Sides<'_>,
    untold: &mut Untold,
) -> Result<usize, StoreError> {
    let mut judged = 0;
    for waiting in waiting {
        let event_id = waiting.event.event_id.clone();
        // One that was judged before it may have brought it along.
        if hs.store.read(move |snap| pending::contains(snap, &event_id)).await? {
            judged += usize::from(one(hs, (room, waiting), sides, untold).await?);
        }
    }
    Ok(judged)
}

/// Judges a waiting event by the state before it; says whether members told that.
async fn one(
    hs: &Homeserver,
    (room, waiting): (&Room, &Waiting),
    sides: Sides<'_>,
    untold: &mut Untold,
) -> Result<bool, StoreError> {
    let tellers = tellers(hs, waiting, sides);
    if untold.is_enough(waiting, tellers.len()) {
        return Ok(false);
    }
    let Some((server, state)) =
        ours(told(hs, room, (&waiting.event.event_id, &tellers)).await)?.flatten()
    else {
        untold.note(waiting, tellers.len());
        return Ok(false);
    };
    let us = hs.server_name().to_owned();
    let (room_id, event) = (room.room_id.clone(), waiting.event.clone());
    let admitted = hs.store.write(move |txn| {
        let mut room = verify::room_of_ours(txn, &room_id, &us)?;
        let Some(signed) = ingest::unpark(txn, &room, event)? else { return Ok(None) };
        let admitted = ingest::admit_by_state(txn, &us, &mut room, (&server, signed), state)?;
        Ok::<_, IngestError>(admitted)
    });
    let Some(admitted) = ours(admitted.await.map_err(StateError::from))?.flatten() else {
        return Ok(false);
    };
    Counters::add(&hs.peers.counters().events_repaired, 1);
    ingest::settle(hs, room, admitted);
    Ok(true)
}

/// Whose word is taken about the state before an event: that of the server that made it last, since
/// it could have made it to tell us a state; and by itself only where no other member is there to be
/// asked, since what two say to each other must not wait for a third.
fn tellers(hs: &Homeserver, waiting: &Waiting, (sure, members): Sides<'_>) -> Vec<OwnedServerName> {
    let is_other =
        |server: &&OwnedServerName| *server != waiting.maker() && *server != hs.server_name();
    let is_alone = !members.iter().filter(is_other).any(|server| hs.peers.is_connected(server));
    let mut tellers: Vec<_> = sure.iter().filter(is_other).cloned().collect();
    if is_alone || !tellers.is_empty() {
        tellers.extend(sure.iter().find(|server| *server == waiting.maker()).cloned());
    }
    tellers
}

/// The state before an event, and who told it: what two members tell alike, or what the only one
/// tells who can; `None` where nobody does, or those who would settle it do not answer now.
pub(crate) async fn told(
    hs: &Homeserver,
    room: &Room,
    (event_id, tellers): (&EventId, &[OwnedServerName]),
) -> Result<Option<(OwnedServerName, StateNid)>, StateError> {
    let mut told: Vec<(BTreeSet<OwnedEventId>, OwnedServerName, StateIds)> = Vec::new();
    let (mut agreed, mut is_complete) = (None, true);
    for server in tellers.iter().take(MAX_TELLERS) {
        match outliers::fetch_state_ids(hs, server, room, event_id).await {
            Ok(ids) => {
                let state = ids.pdu_ids.iter().cloned().collect();
                if told.iter().any(|(other, ..)| *other == state) {
                    agreed = Some((server.clone(), ids));
                    break;
                }
                told.push((state, server.clone(), ids));
            }
            Err(StateError::Federation(error)) => {
                tracing::debug!(%server, %error, "a member does not tell a state");
                is_complete &= !error.is_transient();
            }
            Err(error) => return Err(error),
        }
    }
    let first = told.into_iter().next().map(|(_, server, ids)| (server, ids));
    let Some((server, ids)) = agreed.or(first.filter(|_| is_complete)) else { return Ok(None) };
    let state = outliers::fetch_state(hs, &server, room, (event_id, ids)).await?;
    Ok(Some((server, state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gap::Claim;

    fn waiting(n: usize, maker: &str) -> Waiting {
        Waiting {
            event: pending::Pending {
                event_id: OwnedEventId::try_from(format!("$event{n}")).unwrap(),
                room_id: "!room:x".try_into().unwrap(),
                origin: "x".try_into().unwrap(),
                json: String::new(),
            },
            claim: Claim { depth: 1, sender: format!("@user:{maker}").try_into().unwrap() },
        }
    }

    /// Questions that are asked when nobody ever tells, for the events of some makers in turn.
    fn asked(makers: &[&str], tellers: usize) -> BTreeMap<String, usize> {
        let mut untold = Untold::default();
        let mut asked = BTreeMap::new();
        for _round in 0..2 {
            for n in 0..1_000 {
                let maker = makers[n % makers.len()];
                let waiting = waiting(n, maker);
                if !untold.is_enough(&waiting, tellers) {
                    untold.note(&waiting, tellers);
                    *asked.entry(maker.to_owned()).or_default() += tellers;
                }
            }
        }
        asked
    }

    #[test]
    fn one_maker_uses_up_its_own_questions_only() {
        assert_eq!(asked(&["evil"], 4), BTreeMap::from([("evil".to_owned(), 16)]));
        let both = asked(&["evil", "good"], 4);
        assert_eq!(both, BTreeMap::from([("evil".to_owned(), 16), ("good".to_owned(), 16)]));
    }

    #[test]
    fn all_makers_together_have_an_end() {
        let makers = ["a", "b", "c", "d", "e", "f", "g", "h"];
        assert_eq!(asked(&makers, 4).values().sum::<usize>(), MAX_IN_VAIN);
    }

    #[test]
    fn nobody_asked_is_no_question_and_more_tellers_are_a_new_one() {
        let mut untold = Untold::default();
        let waiting = waiting(0, "good");
        assert!(untold.is_enough(&waiting, 0));
        untold.note(&waiting, 1);
        assert!(untold.is_enough(&waiting, 1));
        assert!(!untold.is_enough(&waiting, 2));
    }
}
