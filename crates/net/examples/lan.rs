//! probe
use bytes::Bytes;
use http_body_util::Full;
use messagehub_homeserver::{clock::*, peers::*};
use messagehub_net::*;
use messagehub_protocol::{keys::*, server_keys::*};
use std::{convert::Infallible, time::Instant};
#[tokio::main]
async fn main() {
    let n: u8 = std::env::args().nth(1).unwrap().parse().unwrap();
    tracing_subscriber::fmt()
        .with_env_filter("messagehub_net=debug,libp2p_mdns=info,libp2p_swarm=info")
        .with_ansi(false)
        .init();
    let seed = Seed::new([n ^ 0x55; 32]);
    let clock = ManualClock::at(1_900_000_000_000).clock();
    let keys = ServerKeys::make(
        &IdentityKey::from_seed(&[n; 32]),
        &VerifyKey::from_seed(&[n ^ 255; 32]),
        ServerKeysTerms {
            old_verify_keys: vec![],
            peer_ids: vec![seed.peer_id()],
            issued_ts: clock.now(),
        },
    );
    let (_peers, outbound) = Peers::pair(100);
    let (tx, mut rx) = tokio::sync::mpsc::channel(100);
    let mut registry = Default::default();
    let mut config = NetConfig::new(seed, clock);
    config.port_file = Some(format!("/tmp/lanport{n}").into());
    let svc = tower::service_fn(move |_r: http::Request<RequestBody>| {
        let k = keys.clone();
        async move {
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(
                k.json().get().to_owned(),
            ))))
        }
    });
    let start = Instant::now();
    let secs: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let host = messagehub_net::start(&config, svc, outbound, tx, &mut registry).await.unwrap();
    let mut set = tokio::task::JoinSet::new();
    set.spawn(
        host.run(async move { tokio::time::sleep(std::time::Duration::from_secs(secs)).await }),
    );
    while let Some(r) = rx.recv().await {
        if let Inbound::Connected { server_keys, addresses, .. } = &r {
            let _ = _peers
                .tell(Outbound::Learn {
                    server_keys: server_keys.clone(),
                    addresses: addresses.clone(),
                })
                .await;
        }
        eprintln!("node {n} {:?} {r:?}", start.elapsed());
    }
}
