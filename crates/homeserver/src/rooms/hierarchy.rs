//! The tree of rooms below a space, as one user may see it: parts that this server is not in are
//! asked of servers that are.
//!
//! Spec: Client-Server API, "GET /rooms/{roomId}/hierarchy".

use std::collections::{BTreeMap, BTreeSet};

use messagehub_store::{Room, Snapshot, StoreError, events, memberships, room_state, rooms};
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UInt, UserId,
    api::{
        client::space::SpaceHierarchyRoomsChunk, federation::space::get_hierarchy::v1 as ask_space,
    },
    events::{
        StateEventType, room::member::MembershipState, space::child::HierarchySpaceChildEvent,
    },
    room::{RoomSummary, RoomType},
    serde::Raw,
};
use serde_json::json;

use super::{read, summary, ways};
use crate::{
    Homeserver, client_event,
    federation::{self, ASK_TIMEOUT, FederationError, route},
};

/// Children of one space that are looked at: more than anybody scrolls through.
pub(crate) const MAX_CHILDREN: usize = 100;

/// Rooms in one answer, and how many where the client names no number.
const MAX_LIMIT: usize = 100;
const DEFAULT_LIMIT: usize = 50;

/// How deep a tree is followed: deeper than people nest spaces.
const MAX_DEPTH: u64 = 16;

/// Rooms of one tree that are visited for one answer, those of earlier parts included.
const MAX_VISITED: usize = 1_000;

/// Spaces that others are asked about for one answer, and servers asked about each: a person waits.
const MAX_ASKED_SPACES: usize = 10;
const MAX_ASKED_SERVERS: usize = 3;

/// Which part of which tree.
#[derive(Debug)]
pub struct Wanted {
    /// Its root.
    pub room_id: OwnedRoomId,
    /// Only children that their space suggests.
    pub suggested_only: bool,
    /// How deep.
    pub max_depth: Option<UInt>,
    /// The most rooms.
    pub limit: Option<UInt>,
    /// Where an earlier part ended.
    pub from: Option<String>,
}

/// A part of a tree, depth first.
#[derive(Debug, Default)]
pub struct Part {
    /// The rooms.
    pub rooms: Vec<SpaceHierarchyRoomsChunk>,
    /// Where the next part begins; `None` after the last one.
    pub next: Option<String>,
}

/// Why there is no such tree for the user.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// There is no such room, or the user may not know of it.
    #[error("there is no such space, or it is not for the user to see")]
    Forbidden,
    /// The token is none of this tree, or was given for another depth or filter.
    #[error("the token does not belong to this request")]
    InvalidToken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Follows a tree.
///
/// # Errors
/// See [`HierarchyError`].
pub async fn hierarchy(
    hs: &Homeserver,
    user_id: &UserId,
    wanted: Wanted,
) -> Result<Part, HierarchyError> {
    let depth = wanted.max_depth.map_or(MAX_DEPTH, u64::from).min(MAX_DEPTH);
    let skip = match &wanted.from {
        None => 0,
        Some(from) => offset(from, (wanted.suggested_only, depth))?,
    };
    let asked = wanted.limit.and_then(|limit| usize::try_from(u64::from(limit)).ok());
    let limit = asked.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let mut walk = Walk::new(hs, user_id, wanted.suggested_only).await?;
    let mut part = Part::default();
    let mut stack = vec![Visit::of_root(wanted.room_id)];
    let mut seen = BTreeSet::new();
    let mut shown = 0;
    while let Some(visit) = stack.pop() {
        if seen.len() >= MAX_VISITED || !seen.insert(visit.room_id.clone()) {
            continue;
        }
        let is_root = visit.depth == 0;
        let Some(node) = walk.look(&visit, visit.depth < depth).await? else {
            if is_root {
                return Err(HierarchyError::Forbidden);
            }
            continue;
        };
        if shown >= skip {
            if part.rooms.len() == limit {
                part.next = Some(token(shown, (wanted.suggested_only, depth)));
                break;
            }
            part.rooms.push(SpaceHierarchyRoomsChunk::new(
                node.summary,
                node.children.iter().map(|child| child.event.clone()).collect(),
            ));
        }
        shown += 1;
        if visit.depth < depth {
            let mut known = node.known;
            let next = node.children.into_iter().map(|child| Visit {
                depth: visit.depth + 1,
                hint: known.remove(&child.room_id),
                room_id: child.room_id,
                via: child.via,
            });
            let mut next: Vec<Visit> = next.collect();
            next.reverse();
            stack.extend(next);
        }
    }
    Ok(part)
}

fn token(offset: usize, (suggested_only, depth): (bool, u64)) -> String {
    format!("{offset}_{}_{depth}", u8::from(suggested_only))
}

fn offset(from: &str, (suggested_only, depth): (bool, u64)) -> Result<usize, HierarchyError> {
    let offset = from.split('_').next().and_then(|offset| offset.parse().ok());
    let offset: usize = offset.ok_or(HierarchyError::InvalidToken)?;
    match from == token(offset, (suggested_only, depth)) {
        true => Ok(offset),
        false => Err(HierarchyError::InvalidToken),
    }
}

/// A room of the tree that is to be looked at.
struct Visit {
    room_id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    depth: u64,
    /// What another server said of it together with its space.
    hint: Option<Hint>,
}

impl Visit {
    fn of_root(room_id: OwnedRoomId) -> Self {
        Self { via: ways::named(&room_id), room_id, depth: 0, hint: None }
    }
}

/// What the server that told of a space said of one of its children.
enum Hint {
    Summary(Box<RoomSummary>),
    Inaccessible,
}

/// A room of the tree.
struct Node {
    summary: RoomSummary,
    children: Vec<Child>,
    known: BTreeMap<OwnedRoomId, Hint>,
}

/// A child of a space, as the space names it.
pub(crate) struct Child {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) via: Vec<OwnedServerName>,
    pub(crate) event: Raw<HierarchySpaceChildEvent>,
}

/// One user's way through a tree.
struct Walk<'h> {
    hs: &'h Homeserver,
    user_id: OwnedUserId,
    joined: BTreeSet<OwnedRoomId>,
    suggested_only: bool,
    asked: usize,
}

impl<'h> Walk<'h> {
    async fn new(
        hs: &'h Homeserver,
        user_id: &UserId,
        suggested_only: bool,
    ) -> Result<Self, StoreError> {
        let user = user_id.to_owned();
        let joined = hs.store.read(move |snap| read::list_joined(snap, &user)).await?;
        let joined = joined.into_iter().collect();
        Ok(Self { hs, user_id: user_id.to_owned(), joined, suggested_only, asked: 0 })
    }

    /// A room, if the user may know what it is; with its children where these are wanted.
    async fn look(&mut self, visit: &Visit, deeper: bool) -> Result<Option<Node>, StoreError> {
        let (us, user_id) = (self.hs.server_name().to_owned(), self.user_id.clone());
        let (wanted, suggested_only) = (visit.room_id.clone(), self.suggested_only);
        let here =
            self.hs.store.read(move |snap| here(snap, &us, (&wanted, &user_id), suggested_only));
        match here.await? {
            Here::Node(node) => Ok(node.map(|node| *node)),
            Here::Elsewhere(membership) => self.ask(visit, membership, deeper).await,
        }
    }

    async fn ask(
        &mut self,
        visit: &Visit,
        membership: Option<MembershipState>,
        deeper: bool,
    ) -> Result<Option<Node>, StoreError> {
        let is_leaf = |summary: &RoomSummary| summary.room_type != Some(RoomType::Space) || !deeper;
        let hint = match &visit.hint {
            // Nobody else could say more.
            Some(Hint::Inaccessible) => return Ok(None),
            Some(Hint::Summary(summary)) => Some(summary),
            None => None,
        };
        let known = hint.filter(|summary| is_leaf(summary) || self.asked >= MAX_ASKED_SPACES);
        let node = match known {
            Some(summary) => {
                Node { summary: (**summary).clone(), children: Vec::new(), known: BTreeMap::new() }
            }
            None if self.asked >= MAX_ASKED_SPACES => return Ok(None),
            None => {
                self.asked += 1;
                let via = ways::others(self.hs, visit.via.clone());
                match remote(self.hs, &visit.room_id, via).await? {
                    Some(answer) => told(answer, self.suggested_only),
                    None => return Ok(None),
                }
            }
        };
        let is_in = |room_id: &OwnedRoomId| self.joined.contains(room_id);
        let is_open = matches!(membership, Some(MembershipState::Invite | MembershipState::Join))
            || summary::is_open(&node.summary, is_in);
        Ok(is_open.then_some(node))
    }
}

/// What this server itself knows of a room.
enum Here {
    /// It is in the room; `None` where the room is not for the user to know.
    Node(Option<Box<Node>>),
    /// It is not; and this is what the user is there.
    Elsewhere(Option<MembershipState>),
}

fn here(
    snap: &Snapshot<'_>,
    us: &ServerName,
    (room_id, user_id): (&RoomId, &UserId),
    suggested_only: bool,
) -> Result<Here, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(Here::Elsewhere(None)) };
    if !memberships::is_server_in(snap, room.nid, us)? {
        let member = memberships::find(snap, room.nid, user_id)?;
        return Ok(Here::Elsewhere(member.map(|member| member.membership)));
    }
    if !summary::is_open_to(snap, &room, Some(user_id))? {
        return Ok(Here::Node(None));
    }
    let summary = summary::of(snap, &room)?;
    let children = children(snap, &room, &summary, suggested_only)?;
    Ok(Here::Node(Some(Box::new(Node { summary, children, known: BTreeMap::new() }))))
}

/// The children of a room that is a space, in the order of the specification.
///
/// # Errors
/// The store's.
///
/// Spec: Client-Server API, "Ordering of children within a space".
pub(crate) fn children(
    snap: &Snapshot<'_>,
    room: &Room,
    summary: &RoomSummary,
    suggested_only: bool,
) -> Result<Vec<Child>, StoreError> {
    if summary.room_type != Some(RoomType::Space) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (_, nid) in room_state::all_of_type(snap, room.state, &StateEventType::SpaceChild)? {
        let pdu = client_event::shown(snap, &events::get(snap, nid)?)?;
        let event = json!({
            "type": pdu.kind().to_string(),
            "state_key": pdu.state_key(),
            "sender": pdu.sender(),
            "content": pdu.content(),
            "origin_server_ts": pdu.origin_server_ts(),
        });
        found.extend(Raw::new(&event).ok().map(Raw::cast_unchecked));
    }
    Ok(ordered(found, suggested_only))
}

/// Those events that name a child, and a way to it, in order.
fn ordered(events: Vec<Raw<HierarchySpaceChildEvent>>, suggested_only: bool) -> Vec<Child> {
    let readable = events.into_iter().filter_map(|raw| {
        let event = raw.deserialize().ok()?;
        Some((event, raw))
    });
    let mut children: Vec<_> = readable
        .filter(|(event, _)| {
            !event.content.via.is_empty() && (event.content.suggested || !suggested_only)
        })
        .collect();
    children.sort_by(|(one, _), (other, _)| one.cmp(other));
    children.truncate(MAX_CHILDREN);
    let child = |(event, raw): (HierarchySpaceChildEvent, _)| Child {
        room_id: event.state_key,
        via: event.content.via.into_iter().take(ways::MAX_VIA).collect(),
        event: raw,
    };
    children.into_iter().map(child).collect()
}

fn told(answer: ask_space::Response, suggested_only: bool) -> Node {
    let mut known = BTreeMap::new();
    for room_id in answer.inaccessible_children.into_iter().take(MAX_CHILDREN) {
        known.insert(room_id, Hint::Inaccessible);
    }
    for summary in answer.children.into_iter().take(MAX_CHILDREN) {
        known.insert(summary.room_id.clone(), Hint::Summary(Box::new(summary)));
    }
    let mut children_state = answer.room.children_state;
    children_state.truncate(MAX_CHILDREN);
    Node { summary: answer.room.summary, children: ordered(children_state, suggested_only), known }
}

/// What servers that are in a room say of it and its children, until one does.
///
/// # Errors
/// The store's; a network that does not answer is `None`.
pub(crate) async fn remote(
    hs: &Homeserver,
    room_id: &RoomId,
    via: Vec<OwnedServerName>,
) -> Result<Option<ask_space::Response>, StoreError> {
    let first = via.first().cloned();
    for server in route::ordered(hs, via, first.as_ref()).into_iter().take(MAX_ASKED_SERVERS) {
        let request = ask_space::Request::new(room_id.to_owned());
        match federation::ask(hs, &server, request, ASK_TIMEOUT).await {
            Ok(answer) if answer.room.summary.room_id == room_id => return Ok(Some(answer)),
            Ok(_) => tracing::debug!(%server, %room_id, "a summary of another room"),
            Err(FederationError::Store(error)) => return Err(error),
            Err(error) => tracing::debug!(%server, %room_id, %error, "no summary of a room"),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_its_request() {
        let made = token(7, (true, 3));
        assert_eq!(offset(&made, (true, 3)).unwrap(), 7);
        for (from, request) in
            [(&*made, (false, 3)), (&*made, (true, 4)), ("", (true, 3)), ("7", (true, 3))]
        {
            assert!(matches!(offset(from, request), Err(HierarchyError::InvalidToken)), "{from}");
        }
    }

    #[test]
    fn children_come_in_the_order_of_the_specification() {
        let child = |room: &str, order: Option<&str>, ts: u32, via: &[&str], suggested: bool| {
            let mut content = json!({ "via": via, "suggested": suggested });
            if let Some(order) = order {
                content["order"] = order.into();
            }
            let event = json!({
                "type": "m.space.child", "state_key": room, "sender": "@a:x",
                "content": content, "origin_server_ts": ts,
            });
            Raw::new(&event).unwrap().cast_unchecked()
        };
        let events = || {
            vec![
                child("!c:x", None, 1, &["x"], false),
                child("!b:x", None, 1, &["x"], true),
                child("!z:x", Some("b"), 9, &["x"], false),
                child("!y:x", Some("a"), 9, &["x"], true),
                child("!n:x", Some("0"), 0, &[], true),
            ]
        };
        let ids = |suggested| -> Vec<String> {
            let children = ordered(events(), suggested);
            children.iter().map(|child| child.room_id.to_string()).collect()
        };
        assert_eq!(ids(false), ["!y:x", "!z:x", "!b:x", "!c:x"]);
        assert_eq!(ids(true), ["!y:x", "!b:x"]);
    }
}
