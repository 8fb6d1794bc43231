//! Peers that take their time.

use std::{convert::Infallible, future::Future, time::Duration};

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use libp2p::{PeerId, Swarm, swarm::SwarmEvent};
use messagehub_homeserver::clock::ManualClock;
use tokio::task::JoinSet;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::{
    BoxError, RequestBody, boxed,
    server::{Patience, Server},
};
use crate::{
    behaviour::{self, Behaviour},
    config::{NetConfig, Seed},
    metrics::Metrics,
    relaying::Clients,
    streams::{self, InboundStream, Opener, PeerStream, StreamLimits},
};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}

/// A server with the given patience, and a peer that can open streams to it.
struct Pair {
    opener: Opener,
    server: PeerId,
    metrics: Metrics,
    _tasks: JoinSet<()>,
}

fn node(number: u8) -> (Swarm<Behaviour>, Opener, tokio::sync::mpsc::Receiver<InboundStream>) {
    let (behaviour, opener, streams) =
        streams::Behaviour::new(StreamLimits::default(), Metrics::default().streams);
    let config = NetConfig::loopback(Seed::new([number; 32]), ManualClock::at(0).clock());
    let clients = Clients::new(config.relay_service);
    (behaviour::swarm(&config, behaviour, &clients).unwrap(), opener, streams)
}

fn run(tasks: &mut JoinSet<()>, mut swarm: Swarm<Behaviour>) {
    tasks.spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
}

async fn pair(patience: Patience) -> Pair {
    let (mut a, opener, _) = node(1);
    let (mut b, _, mut streams) = node(2);
    let server = *b.local_peer_id();
    b.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let mut tasks = JoinSet::new();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = b.select_next_some().await {
            break address;
        }
    };
    run(&mut tasks, b);
    a.dial(address).unwrap();
    while !matches!(a.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    run(&mut tasks, a);
    let metrics = Metrics::default();
    let serving = Server::new(boxed(tower::service_fn(answer)), metrics.clone(), patience);
    tasks.spawn(async move {
        let mut served = JoinSet::new();
        while let Some(stream) = streams.recv().await {
            served.spawn(serving.clone().serve(stream));
        }
    });
    Pair { opener, server, metrics, _tasks: tasks }
}

/// Reads the body, and says how that went.
async fn answer(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/endless" {
        return Ok(Response::new(Full::new(Bytes::from(vec![0; 32 * 1024 * 1024]))));
    }
    let text = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => Bytes::from(error.to_string()),
    };
    Ok(Response::new(Full::new(text)))
}

fn short() -> Patience {
    let short = Duration::from_millis(200);
    let long = Duration::from_secs(60);
    let look = Duration::from_millis(20);
    Patience { first_request: long, idle: long, body_piece: long, request: short, look }
}

/// Reads until the other side ends the stream.
async fn ends(mut stream: PeerStream) {
    let mut read = Vec::new();
    // Either kind of end will do: a reset is an error.
    let _ = within(stream.read_to_end(&mut read)).await;
}

#[tokio::test]
async fn a_stream_on_which_nothing_is_asked_is_reset() {
    let patience = Patience { first_request: Duration::from_millis(200), ..short() };
    let pair = pair(patience).await;
    for start in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = within(pair.opener.open(pair.server)).await.unwrap();
        stream.write_all(start).await.unwrap();
        stream.flush().await.unwrap();
        ends(stream).await;
    }
    assert_eq!(pair.metrics.served.get(), 0);
}

#[tokio::test]
async fn what_is_no_http_is_reset() {
    let pair = pair(short()).await;
    let mut stream = within(pair.opener.open(pair.server)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    ends(stream).await;
    assert_eq!(pair.metrics.served.get(), 0);
}

type SlowBody = http_body_util::combinators::BoxBody<Bytes, BoxError>;

async fn ask(pair: &Pair, request: Request<SlowBody>) -> Bytes {
    let stream = within(pair.opener.open(pair.server)).await.unwrap();
    let io = TokioIo::new(stream.compat());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.unwrap();
    let asking = async {
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    tokio::select! {
        text = asking => text,
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

#[tokio::test]
async fn a_body_that_stops_is_an_error_for_the_router() {
    let patience = Patience {
        body_piece: Duration::from_millis(200),
        request: Duration::from_secs(60),
        ..short()
    };
    let pair = pair(patience).await;
    let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"begin")))]);
    let body = StreamBody::new(first.chain(futures::stream::pending()));
    let request = Request::put("http://peer/slow").body(BodyExt::boxed(body)).unwrap();
    let said = within(ask(&pair, request)).await;
    assert_eq!(said, "the body comes too slowly");
}

/// Asks for 32 MiB and reads nothing of it.
async fn ask_and_not_read(pair: &Pair) -> PeerStream {
    let mut stream = within(pair.opener.open(pair.server)).await.unwrap();
    // Preface, settings, and a request by literal headers; no window is ever given back.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut headers = vec![0x82, 0x86, 0x01, 4, b'p', b'e', b'e', b'r', 0x04, 8];
    headers.extend_from_slice(b"/endless");
    let length = u8::try_from(headers.len()).unwrap();
    stream.write_all(&[0, 0, length, 1, 0x05, 0, 0, 0, 1]).await.unwrap();
    stream.write_all(&headers).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn a_response_that_is_not_read_ends_the_stream() {
    let pair = pair(short()).await;
    let stream = ask_and_not_read(&pair).await;
    ends(stream).await;
    assert_eq!(pair.metrics.served.get(), 1);
    let slow = crate::metrics::Refusal::Slow;
    assert_eq!(pair.metrics.refused(slow), 1);
}

#[tokio::test]
async fn responses_that_are_not_read_take_bounded_memory() {
    let long = Duration::from_secs(60);
    let pair = pair(Patience { request: long, ..short() }).await;
    let mut unread = Vec::new();
    for asked in 1..=8 {
        unread.push(ask_and_not_read(&pair).await);
        within(async {
            while pair.metrics.served.get() < asked {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let body = BodyExt::boxed(http_body_util::Empty::new().map_err(|never| match never {}));
    let request = Request::get("http://peer/endless").body(body).unwrap();
    assert_eq!(within(ask(&pair, request)).await, "");
    assert_eq!(pair.metrics.refused(crate::metrics::Refusal::Busy), 1);
}
