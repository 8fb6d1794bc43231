//! Finding rooms across nodes: the public list, aliases of others, spaces, summaries.

use messagehub_homeserver::rooms::{
    aliases::{self, AliasError},
    hierarchy::{self, HierarchyError, Part, Wanted},
    public::{self, PublicError, Query},
    summary::{self, SummaryError},
    upgrade::{self, Upgrade, UpgradeError},
};
use ruma::{
    RoomAliasId, UInt,
    api::client::room::{Visibility, create_room::v3::CreationContent},
    directory::RoomTypeFilter,
    room::RoomType,
    serde::Raw,
};

use super::*;

async fn published(net: &mut Net, node: &Node, by: &Session, name: &str) -> OwnedRoomId {
    let mut new = NewRoom::new();
    new.name = Some(name.to_owned());
    new.visibility = Visibility::Public;
    net.drive(create::room(&node.hs, &by.user_id, new)).await.unwrap()
}

fn names(page: &public::Page) -> Vec<&str> {
    page.rooms.iter().map(|room| room.name.as_deref().unwrap_or_default()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_list_of_another_server_is_read_in_pages_and_searched() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, anna) = (a.user("alice").await, a.user("anna").await);
    let tea = published(&mut net, &a, &alice, "Tea").await;
    published(&mut net, &a, &alice, "Coffee").await;
    let hidden = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    net.drive(join(&a.hs, &anna, &tea, Vec::new())).await;

    let first = Query { limit: Some(UInt::from(1_u32)), ..Query::default() };
    let page = net.drive(public::list(&b.hs, Some(a.name()), first)).await.unwrap();
    assert_eq!(names(&page), ["Tea"], "two members come before one");
    assert_eq!(page.rooms[0].num_joined_members, UInt::from(2_u32));
    assert_eq!(page.total, Some(UInt::from(2_u32)));
    assert!(page.previous.is_none());
    let next =
        Query { limit: Some(UInt::from(1_u32)), since: page.next.clone(), ..Query::default() };
    let page = net.drive(public::list(&b.hs, Some(a.name()), next)).await.unwrap();
    assert_eq!(names(&page), ["Coffee"]);
    assert!(page.next.is_none() && page.previous.is_some());

    let mut search = Query::default();
    search.filter.generic_search_term = Some("COFF".to_owned());
    let page = net.drive(public::list(&b.hs, Some(a.name()), search)).await.unwrap();
    assert_eq!((names(&page), page.total), (vec!["Coffee"], Some(UInt::from(1_u32))));
    let mut spaces = Query::default();
    spaces.filter.room_types = vec![RoomTypeFilter::Space];
    let page = net.drive(public::list(&b.hs, Some(a.name()), spaces)).await.unwrap();
    assert!(page.rooms.is_empty());

    // The other operation of the two.
    let got = net.drive(ask(
        &b,
        a.name(),
        ("GET", "/_matrix/federation/v1/publicRooms?limit=1"),
        Value::Null,
    ));
    let got = got.await.unwrap();
    assert_eq!(got["chunk"][0]["name"], "Tea");
    assert_eq!(got["next_batch"], "1");

    // What is taken out is gone; only who may name the room puts it in.
    let to = (tea.clone(), Visibility::Private);
    let by_anna = public::set_visibility(&a.hs, &anna.user_id, to.clone()).await;
    assert!(matches!(by_anna, Err(PublicError::Forbidden)), "{by_anna:?}");
    public::set_visibility(&a.hs, &alice.user_id, to).await.unwrap();
    assert_eq!(public::visibility(&a.hs, tea.clone()).await.unwrap(), Visibility::Private);
    assert_eq!(public::visibility(&a.hs, hidden).await.unwrap(), Visibility::Private);
    let page = net.drive(public::list(&b.hs, Some(a.name()), Query::default())).await.unwrap();
    assert_eq!(names(&page), ["Coffee"]);

    let own = net.drive(public::list(&b.hs, None, Query::default())).await.unwrap();
    assert!(own.rooms.is_empty(), "the list of a is not that of b");
    let since = Query { since: Some("x".to_owned()), ..Query::default() };
    let wrong = net.drive(public::list(&b.hs, None, since)).await;
    assert!(matches!(wrong, Err(PublicError::InvalidToken)), "{wrong:?}");
    net.hub.set_link(a.name(), b.name(), Link::Down);
    let cut = net.drive(public::list(&b.hs, Some(a.name()), Query::default())).await;
    assert!(matches!(cut, Err(PublicError::Unreachable(_))), "{cut:?}");
}

#[tokio::test(start_paused = true)]
async fn a_room_is_joined_by_an_alias_of_another_server() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room_id = published(&mut net, &a, &alice, "Tea").await;
    let alias = RoomAliasId::parse(format!("#tea:{}", a.name())).unwrap();
    aliases::create(&a.hs, &alice.user_id, alias.clone(), room_id.clone()).await.unwrap();

    let found = net.drive(aliases::resolve(&b.hs, &alias)).await.unwrap();
    assert_eq!((found.room_id, found.servers), (room_id.clone(), vec![a.owned_name()]));
    let join = Join { target: alias.clone().into(), via: Vec::new(), reason: None };
    let joined = net.drive(join::join(&b.hs, &bob.user_id, join)).await.unwrap();
    assert_eq!(joined, room_id);
    until_membership(&mut net, &a, &room_id, &bob.user_id, MembershipState::Join).await;

    let none = RoomAliasId::parse(format!("#none:{}", a.name())).unwrap();
    let unknown = net.drive(aliases::resolve(&b.hs, &none)).await;
    assert!(matches!(unknown, Err(AliasError::Unknown(_))), "{unknown:?}");
    // A server answers for its own aliases only.
    let uri = format!("/_matrix/federation/v1/query/directory?room_alias={}", enc(&alias));
    let asked = ask(&a, b.name(), ("GET", &uri), Value::Null);
    assert_eq!(net.drive(asked).await, refused(404, "M_NOT_FOUND"));
    net.hub.set_link(a.name(), b.name(), Link::Down);
    let cut = net.drive(aliases::resolve(&b.hs, &alias)).await;
    assert!(matches!(cut, Err(AliasError::Unreachable(_))), "{cut:?}");
}

async fn space(net: &mut Net, node: &Node, by: &Session, name: &str) -> OwnedRoomId {
    let mut content = CreationContent::new();
    content.room_type = Some(RoomType::Space);
    let mut new = NewRoom::new();
    new.creation_content = Some(Raw::new(&content).unwrap());
    new.name = Some(name.to_owned());
    let room_id = net.drive(create::room(&node.hs, &by.user_id, new)).await.unwrap();
    let public = json!({ "join_rule": "public" });
    net.drive(set(&node.hs, by, &room_id, "m.room.join_rules", public)).await;
    room_id
}

async fn child(net: &mut Net, at: (&Node, &Session), parent: &RoomId, of: &RoomId, via: &Node) {
    let content = json!({ "via": [via.name()], "order": "a", "suggested": true });
    net.drive(set_at(&at.0.hs, at.1, parent, ("m.space.child", of.as_str()), content)).await;
}

fn wanted(room_id: &RoomId) -> Wanted {
    Wanted {
        room_id: room_id.to_owned(),
        suggested_only: false,
        max_depth: None,
        limit: None,
        from: None,
    }
}

fn tree(part: &Part) -> Vec<&str> {
    part.rooms.iter().map(|room| room.summary.name.as_deref().unwrap_or("-")).collect()
}

async fn in_pages_of_two(net: &mut Net, node: &Node, by: &Session, root: &RoomId) -> Vec<String> {
    let mut names = Vec::new();
    let mut from = None;
    loop {
        let page = Wanted { limit: Some(UInt::from(2_u32)), from, ..wanted(root) };
        let part = net.drive(hierarchy::hierarchy(&node.hs, &by.user_id, page)).await.unwrap();
        names.extend(tree(&part).into_iter().map(str::to_owned));
        from = part.next;
        if from.is_none() {
            return names;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_followed_across_servers_and_shows_only_what_one_may_see() {
    let mut net = Net::new();
    let (a, b, c) = (net.start(1), net.start(2), net.start(3));
    let (alice, bob, carol) = (a.user("alice").await, b.user("bob").await, c.user("carol").await);
    // top (a) → tea (a), club (a, restricted to top), secret (a), far (b) → den (b)
    let top = space(&mut net, &a, &alice, "top").await;
    let tea = published(&mut net, &a, &alice, "tea").await;
    let club = published(&mut net, &a, &alice, "club").await;
    let rule = json!({
        "join_rule": "restricted",
        "allow": [{ "type": "m.room_membership", "room_id": top }],
    });
    net.drive(set(&a.hs, &alice, &club, "m.room.join_rules", rule)).await;
    let secret = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    let far = space(&mut net, &b, &bob, "far").await;
    let den = published(&mut net, &b, &bob, "den").await;
    for room in [&tea, &club, &secret] {
        child(&mut net, (&a, &alice), &top, room, &a).await;
    }
    let content = json!({ "via": [b.name()], "order": "b" });
    net.drive(set_at(&a.hs, &alice, &top, ("m.space.child", far.as_str()), content)).await;
    child(&mut net, (&b, &bob), &far, &den, &b).await;

    // A stranger sees what is open to all.
    let uri = format!("/_matrix/federation/v1/hierarchy/{}", enc(&top));
    let told = net.drive(ask(&c, a.name(), ("GET", &uri), Value::Null)).await.unwrap();
    assert_eq!(told["room"]["name"], "top");
    assert_eq!(told["room"]["children_state"].as_array().unwrap().len(), 4);
    let named = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|room| room["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(named(&told["children"]), ["tea"]);
    let closed = told["inaccessible_children"].as_array().unwrap();
    assert_eq!(closed.len(), 2, "club and secret: {told}");

    // Her server is not in the space, which is named by its id alone in this version.
    let lost = net.drive(hierarchy::hierarchy(&c.hs, &carol.user_id, wanted(&top))).await;
    assert!(matches!(lost, Err(HierarchyError::Forbidden)), "{lost:?}");
    net.drive(join(&c.hs, &carol, &top, vec![a.owned_name()])).await;
    let all = net.drive(hierarchy::hierarchy(&c.hs, &carol.user_id, wanted(&top))).await.unwrap();
    let mut seen = tree(&all);
    assert_eq!(seen.remove(0), "top");
    seen.sort_unstable();
    assert_eq!(seen, ["club", "den", "far", "tea"], "club lets in who is in top");
    assert!(all.next.is_none());

    // In pages, and not so deep, and only what is suggested.
    let paged = in_pages_of_two(&mut net, &c, &carol, &top).await;
    assert_eq!(paged, tree(&all));
    let shallow = Wanted { max_depth: Some(UInt::from(1_u32)), ..wanted(&top) };
    let part = net.drive(hierarchy::hierarchy(&c.hs, &carol.user_id, shallow)).await.unwrap();
    assert!(!tree(&part).contains(&"den"));
    let suggested = Wanted { suggested_only: true, ..wanted(&top) };
    let part = net.drive(hierarchy::hierarchy(&c.hs, &carol.user_id, suggested)).await.unwrap();
    assert!(!tree(&part).contains(&"far"));

    // The room that is nobody's business.
    let uri = format!("/_matrix/federation/v1/hierarchy/{}", enc(&secret));
    let asked = ask(&c, a.name(), ("GET", &uri), Value::Null);
    assert_eq!(net.drive(asked).await, refused(404, "M_NOT_FOUND"));
}

#[tokio::test(start_paused = true)]
async fn a_room_of_another_server_is_summed_up() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let tea = published(&mut net, &a, &alice, "Tea").await;
    let secret = net.drive(create::room(&a.hs, &alice.user_id, NewRoom::new())).await.unwrap();
    let at = |room: &OwnedRoomId| (room.clone().into(), vec![a.owned_name()]);
    let found = net.drive(summary::summarise(&b.hs, Some(&bob.user_id), at(&tea))).await.unwrap();
    assert_eq!(found.summary.name.as_deref(), Some("Tea"));
    assert_eq!(found.summary.num_joined_members, UInt::from(1_u32));
    assert_eq!(found.summary.room_version, Some(RoomVersionId::V12));
    assert_eq!(found.membership, None);
    for (user, room) in [(Some(&*bob.user_id), &secret), (None, &tea)] {
        let none = net.drive(summary::summarise(&b.hs, user, at(room))).await;
        assert!(matches!(none, Err(SummaryError::NotFound)), "{none:?}");
    }
    let open = summary::summarise(&a.hs, None, at(&tea)).await.unwrap();
    assert_eq!(open.summary.name.as_deref(), Some("Tea"), "its own rooms a shows to all");
}

#[tokio::test(start_paused = true)]
async fn a_room_is_replaced_and_its_members_find_the_new_one() {
    let mut net = Net::new();
    let (a, b) = (net.start(1), net.start(2));
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let mut new = NewRoom::new();
    new.room_version = Some(RoomVersionId::V10);
    new.name = Some("Tea".to_owned());
    new.visibility = Visibility::Public;
    let old = net.drive(create::room(&a.hs, &alice.user_id, new)).await.unwrap();
    net.drive(join(&b.hs, &bob, &old, vec![a.owned_name()])).await;
    until_membership(&mut net, &a, &old, &bob.user_id, MembershipState::Join).await;
    let alias = RoomAliasId::parse(format!("#tea:{}", a.name())).unwrap();
    aliases::create(&a.hs, &alice.user_id, alias.clone(), old.clone()).await.unwrap();

    let to = |version: RoomVersionId| Upgrade {
        room_id: old.clone(),
        version,
        additional_creators: vec![bob.user_id.clone()],
    };
    let refusal = net.drive(upgrade::upgrade(&b.hs, &bob.user_id, to(RoomVersionId::V12))).await;
    assert!(matches!(refusal, Err(UpgradeError::Forbidden)), "{refusal:?}");
    let odd = to(RoomVersionId::try_from("odd").unwrap());
    let refusal = net.drive(upgrade::upgrade(&a.hs, &alice.user_id, odd)).await;
    assert!(matches!(refusal, Err(UpgradeError::Create(_))), "{refusal:?}");

    let upgraded = upgrade::upgrade(&a.hs, &alice.user_id, to(RoomVersionId::V12));
    let replacement = net.drive(upgraded).await.unwrap();
    net.until("bob sees the tombstone", || async {
        let tombstone = state_of(&b.hs, &old, "m.room.tombstone").await;
        tombstone["replacement_room"] == replacement.as_str()
    })
    .await;
    net.drive(join(&b.hs, &bob, &replacement, vec![a.owned_name()])).await;
    let create = state_of(&b.hs, &replacement, "m.room.create").await;
    assert_eq!(create["predecessor"]["room_id"], old.as_str());
    assert_eq!(create["room_version"], "12");
    assert_eq!(create["additional_creators"], json!([bob.user_id]));
    assert_eq!(state_of(&b.hs, &replacement, "m.room.name").await["name"], "Tea");
    let levels = state_of(&b.hs, &old, "m.room.power_levels").await;
    assert_eq!((&levels["events_default"], &levels["invite"]), (&json!(50), &json!(50)));
    let found = net.drive(aliases::resolve(&b.hs, &alias)).await.unwrap();
    assert_eq!(found.room_id, replacement);
    let page = net.drive(public::list(&b.hs, Some(a.name()), Query::default())).await.unwrap();
    let listed: Vec<&OwnedRoomId> = page.rooms.iter().map(|room| &room.room_id).collect();
    assert_eq!(listed, [&replacement]);
}

async fn state_of(hs: &Homeserver, room_id: &OwnedRoomId, kind: &str) -> Value {
    let (room_id, kind) = (room_id.clone(), StateEventType::from(kind));
    read(hs, move |snap| {
        let Some(room) = rooms::find(snap, &room_id)? else { return Ok(Value::Null) };
        let Some(nid) = room_state::get(snap, room.state, &kind, "")? else {
            return Ok(Value::Null);
        };
        Ok(serde_json::from_str(events::pdu(snap, nid)?.content().get()).unwrap())
    })
    .await
}
