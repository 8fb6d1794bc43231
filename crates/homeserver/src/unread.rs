//! Unread counts: how many messages of a room a user is to be told of.
//!
//! Counted when somebody asks, not when an event arrives: most users of a room are not looking,
//! and the writer has other work. What was counted is kept in memory, so each event is matched
//! against the rules of each reader once.
//!
//! Spec: Client-Server API, "Push Notifications", "Receiving notifications".

use std::{collections::BTreeMap, sync::Arc};

use futures::FutureExt;
use messagehub_protocol::{pdu::Pdu, rules::rules_of as rules_of_version};
use messagehub_store::{
    Room, Snapshot, StoreError, StreamPos, account_data,
    account_data::Scope,
    events::{self, Direction, StoredEvent},
    memberships, receipts, room_state,
    unread::{Counts, Tally},
};
use ruma::{
    OwnedEventId, UserId,
    events::{
        StateEventType, TimelineEventType,
        receipt::ReceiptThread,
        room::{
            create::RoomCreateEventContent,
            power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent},
        },
    },
    push::{FlattenedJson, PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset},
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::push_rules;

/// Events that are looked at when nothing was counted before. Older ones are not counted: no
/// client shows a larger number than "99+".
const MAX_COUNTED: usize = 500;

/// The unread messages of a user in a room, up to a position.
///
/// # Errors
/// The store failed.
pub fn count(
    snap: &Snapshot<'_>,
    room: &Room,
    user_id: &UserId,
    until: StreamPos,
) -> Result<Arc<Tally>, StoreError> {
    let key = (room.nid, user_id.to_owned());
    let (read, newest) = receipts::list_of_user(snap, room.nid, user_id)?;
    let known = snap
        .unread_cache()
        .tally(&key)
        .filter(|known| known.receipts == newest && known.until <= until);
    let marks = Marks::new(snap, &read)?;
    let (after, mut tally) = match known {
        Some(known) if known.until == until => return Ok(known),
        Some(known) => (known.until, (*known).clone()),
        None => (marks.whole_room, Tally { receipts: newest, until, ..empty() }),
    };
    let mut unread =
        events::page(snap, room.nid, (after, until), Direction::Backward, MAX_COUNTED)?;
    unread.reverse();
    if !unread.is_empty() {
        let mut judge = Judge::new(snap, room, user_id)?;
        for event in &unread {
            judge.add(&mut tally, event, &marks)?;
        }
    }
    tally.until = until;
    let tally = Arc::new(tally);
    snap.unread_cache().keep_tally(key, tally.clone());
    Ok(tally)
}

fn empty() -> Tally {
    Tally {
        receipts: StreamPos::ZERO,
        until: StreamPos::ZERO,
        main: Counts::default(),
        threads: BTreeMap::new(),
    }
}

/// Up to where a user has read.
struct Marks {
    whole_room: StreamPos,
    main: StreamPos,
    threads: BTreeMap<OwnedEventId, StreamPos>,
}

impl Marks {
    fn new(snap: &Snapshot<'_>, read: &[receipts::Receipt]) -> Result<Self, StoreError> {
        let never = StreamPos(i64::MIN);
        let mut marks = Self { whole_room: never, main: never, threads: BTreeMap::new() };
        for receipt in read {
            // A receipt may be ahead of the event it names; it counts when that has come.
            let Some(pos) = events::find(snap, &receipt.event_id)?.and_then(|event| event.pos)
            else {
                continue;
            };
            match &receipt.thread {
                ReceiptThread::Main => marks.main = marks.main.max(pos),
                ReceiptThread::Thread(root) => {
                    let mark = marks.threads.entry(root.clone()).or_insert(pos);
                    *mark = pos.max(*mark);
                }
                _ => marks.whole_room = marks.whole_room.max(pos),
            }
        }
        Ok(marks)
    }

    fn covers(&self, thread: Option<&OwnedEventId>, pos: StreamPos) -> bool {
        let mark = match thread {
            None => Some(self.main),
            Some(root) => self.threads.get(root).copied(),
        };
        pos <= self.whole_room || mark.is_some_and(|mark| pos <= mark)
    }
}

/// Matches events against the push rules of one user in one room.
struct Judge<'a> {
    snap: &'a Snapshot<'a>,
    room: &'a Room,
    user_id: &'a UserId,
    rules: Arc<Ruleset>,
    context: PushConditionRoomCtx,
}

impl<'a> Judge<'a> {
    fn new(
        snap: &'a Snapshot<'a>,
        room: &'a Room,
        user_id: &'a UserId,
    ) -> Result<Self, StoreError> {
        let members = memberships::count_joined(snap, room.nid)?;
        let context = PushConditionRoomCtx::new(
            room.room_id.clone(),
            u32::try_from(members).unwrap_or(u32::MAX).into(),
            user_id.to_owned(),
            display_name(snap, room, user_id)?,
        );
        Ok(Self { snap, room, user_id, rules: rules_of(snap, user_id)?, context })
    }

    /// Counts one event, the next after those counted before.
    fn add(
        &mut self,
        tally: &mut Tally,
        event: &StoredEvent,
        marks: &Marks,
    ) -> Result<(), StoreError> {
        let pdu = &event.pdu;
        let thread = thread_of(pdu);
        if pdu.sender() == self.user_id {
            self.own_event(tally, pdu, thread);
            return Ok(());
        }
        let pos = event.pos.unwrap_or(StreamPos::ZERO);
        if event.redacted_by.is_some() || marks.covers(thread.as_ref(), pos) {
            return Ok(());
        }
        let Some(counts) = self.judge(pdu)? else {
            return Ok(());
        };
        let total = match thread {
            None => &mut tally.main,
            Some(root) => tally.threads.entry(root).or_default(),
        };
        total.notifications = total.notifications.saturating_add(counts.notifications);
        total.highlights = total.highlights.saturating_add(counts.highlights);
        Ok(())
    }

    /// Who writes has read what is above; who joins begins with nothing unread.
    fn own_event(&self, tally: &mut Tally, pdu: &Pdu, thread: Option<OwnedEventId>) {
        match thread {
            Some(root) => {
                tally.threads.remove(&root);
            }
            None => {
                tally.main = Counts::default();
                if *pdu.kind() == TimelineEventType::RoomMember {
                    tally.threads.clear();
                }
            }
        }
    }

    fn judge(&mut self, pdu: &Pdu) -> Result<Option<Counts>, StoreError> {
        let content = pdu.content().get();
        if self.context.power_levels.is_none()
            && (content.contains("@room") || content.contains("\"room\":true"))
        {
            self.context.power_levels = power_levels(self.snap, self.room)?;
        }
        let Some(flat) = flattened(pdu) else {
            return Ok(None);
        };
        for rule in self.rules.iter() {
            // Without thread subscriptions no condition has anything to wait for.
            if rule.applies(&flat, &self.context).now_or_never() != Some(true) {
                continue;
            }
            if !rule.triggers_notification() {
                return Ok(None);
            }
            let highlights = u32::from(rule.triggers_highlight());
            return Ok(Some(Counts { notifications: 1, highlights }));
        }
        Ok(None)
    }
}

/// What push rules may look at, without the parts that only servers need.
fn flattened(pdu: &Pdu) -> Option<FlattenedJson> {
    #[derive(Serialize)]
    struct Judged<'a> {
        #[serde(rename = "type")]
        kind: &'a TimelineEventType,
        sender: &'a UserId,
        room_id: &'a ruma::RoomId,
        #[serde(skip_serializing_if = "Option::is_none")]
        state_key: Option<&'a str>,
        content: &'a RawValue,
    }
    let judged = Judged {
        kind: pdu.kind(),
        sender: pdu.sender(),
        room_id: pdu.room_id(),
        state_key: pdu.state_key(),
        content: pdu.content(),
    };
    let raw: Raw<()> = Raw::from_json(to_raw_value(&judged).ok()?);
    Some(FlattenedJson::from_raw(&raw))
}

/// The root of the thread that an event belongs to.
///
/// Spec: Client-Server API, "Threading".
pub(crate) fn thread_of(pdu: &Pdu) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Relation,
    }
    #[derive(Deserialize)]
    struct Relation {
        rel_type: String,
        event_id: OwnedEventId,
    }
    let content = pdu.content().get();
    if !content.contains("m.thread") {
        return None;
    }
    let relation = serde_json::from_str::<Content>(content).ok()?.relates_to;
    (relation.rel_type == "m.thread").then_some(relation.event_id)
}

fn rules_of(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Arc<Ruleset>, StoreError> {
    let written = account_data::changed_at(snap, user_id, Scope::Global, push_rules::KIND)?;
    let user_id = user_id.to_owned();
    if let Some(rules) = snap.unread_cache().ruleset(&user_id, written) {
        return Ok(rules);
    }
    let rules = Arc::new(push_rules::load(snap, &user_id)?);
    snap.unread_cache().keep_ruleset(user_id, written, rules.clone());
    Ok(rules)
}

fn display_name(snap: &Snapshot<'_>, room: &Room, user_id: &UserId) -> Result<String, StoreError> {
    #[derive(Deserialize)]
    struct Member {
        displayname: Option<String>,
    }
    let member = room_state::get(snap, room.state, &StateEventType::RoomMember, user_id.as_str())?;
    let Some(nid) = member else {
        return Ok(String::new());
    };
    let member = serde_json::from_str::<Member>(events::pdu(snap, nid)?.content().get()).ok();
    Ok(member.and_then(|member| member.displayname).unwrap_or_default())
}

/// The power levels of a room, for rules about who may notify everybody.
fn power_levels(
    snap: &Snapshot<'_>,
    room: &Room,
) -> Result<Option<PushConditionPowerLevelsCtx>, StoreError> {
    let find = |kind| room_state::get(snap, room.state, &kind, "");
    let (Some(rules), Some(create)) =
        (rules_of_version(&room.version), find(StateEventType::RoomCreate)?)
    else {
        return Ok(None);
    };
    let create = events::pdu(snap, create)?;
    let mut creators = vec![create.sender().to_owned()];
    if let Ok(content) = serde_json::from_str::<RoomCreateEventContent>(create.content().get()) {
        creators.extend(content.additional_creators);
    }
    let content = match find(StateEventType::RoomPowerLevels)? {
        None => None,
        Some(nid) => {
            let levels = events::pdu(snap, nid)?;
            serde_json::from_str::<RoomPowerLevelsEventContent>(levels.content().get()).ok()
        }
    };
    Ok(Some(RoomPowerLevels::new(content.into(), &rules.authorization, creators).into()))
}
