use std::{
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::ConnectedPoint,
    gossipsub::{Event, IdentTopic},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SwarmEvent, THandler, behaviour::ConnectionEstablished,
    },
};
use messagehub_homeserver::clock::ManualClock;
use ruma::OwnedRoomId;

use super::{Gossip, Topics, settings::MAX_TOPICS};
use crate::{
    behaviour::{self, Behaviour, BehaviourEvent},
    config::{NetConfig, Seed},
    metrics::StreamMetrics,
    relaying::Clients,
    streams::{self, StreamLimits},
};

fn node(number: u8) -> Swarm<Behaviour> {
    let (streams, ..) = streams::Behaviour::new(StreamLimits::default(), StreamMetrics::default());
    let clock = ManualClock::at(0).clock();
    let config = NetConfig::loopback(Seed::new([number; 32]), clock);
    behaviour::swarm(&config, streams, &Clients::new(config.relay_service)).unwrap()
}

fn topics(count: usize) -> Vec<IdentTopic> {
    let room = |number| OwnedRoomId::try_from(format!("!room{number}:example.org")).unwrap();
    (0..count).map(|number| Topics::of(&room(number))).collect()
}

/// Connects two nodes after one of them subscribed, and waits until the other saw all of it.
async fn subscriptions_arrive(count: usize) {
    let (mut a, mut b) = (node(1), node(2));
    let topics = topics(count);
    for topic in &topics {
        a.behaviour_mut().gossip.subscribe(topic).unwrap();
    }
    a.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let mut seen = 0;
    let watching = async {
        while seen < count {
            tokio::select! {
                event = a.select_next_some() => {
                    if let SwarmEvent::NewListenAddr { address, .. } = event {
                        b.dial(address).unwrap();
                    }
                }
                event = b.select_next_some() => {
                    let gossip = event.try_into_behaviour_event();
                    if let Ok(BehaviourEvent::Gossip(Event::Subscribed { .. })) = gossip {
                        seen += 1;
                    }
                }
            }
        }
    };
    let all_seen = tokio::time::timeout(Duration::from_secs(60), watching).await;
    assert!(all_seen.is_ok(), "only {seen} of {count} topics were seen");
    let known = b.behaviour().gossip.all_peers().map(|(_, topics)| topics.len()).sum::<usize>();
    assert_eq!(known, count);
}

#[tokio::test]
async fn five_thousand_rooms_are_all_seen_after_a_reconnect() {
    subscriptions_arrive(5_000).await;
}

#[tokio::test]
async fn the_limit_itself_is_still_seen() {
    subscriptions_arrive(MAX_TOPICS).await;
}

#[test]
fn each_connection_opens_its_stream_at_once_and_once() {
    let mut gossip = super::behaviour().unwrap();
    gossip.subscribe(&IdentTopic::new("room")).unwrap();
    let (peer, here) = (PeerId::random(), "/memory/1".parse::<Multiaddr>().unwrap());
    let mut cx = Context::from_waker(Waker::noop());
    let asks = |handler: &mut THandler<Gossip>, cx: &mut Context<'_>| {
        matches!(
            handler.poll(cx),
            Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { .. })
        )
    };
    let [first, further] = [1, 2].map(|number| {
        let id = ConnectionId::new_unchecked(number);
        (id, gossip.handle_established_inbound_connection(id, peer, &here, &here).unwrap())
    });
    // The further one has nothing to send.
    let (_, mut handler) = further;
    assert!(asks(&mut handler, &mut cx));
    assert!(handler.poll(&mut cx).is_pending());
    // The first one has our topics, and the handler wants to send them while the stream is made.
    let (connection_id, mut handler) = first;
    assert!(asks(&mut handler, &mut cx));
    let endpoint =
        ConnectedPoint::Listener { local_addr: here.clone(), send_back_addr: here.clone() };
    gossip.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id: peer,
        connection_id,
        endpoint: &endpoint,
        failed_addresses: &[],
        other_established: 0,
    }));
    assert!(handler.poll(&mut cx).is_pending());
}
