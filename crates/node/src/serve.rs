//! HTTP over TCP: accepting connections, bounded in number and patience.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower::ServiceExt;

/// Connections served at once; more wait in the system's queue. A household's clients need tens.
const MAX_CONNECTIONS: usize = 4096;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests under way may go on after the end was asked for. Long polls do not count:
/// their answer would be empty.
const GRACE: Duration = Duration::from_secs(2);

/// After a refused accept (out of descriptors) there is nothing to do but wait for some to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stop` is done, then lets requests under way finish.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accept = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let connection = graceful_connection(&graceful, stream, from, router.clone());
                spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::debug!("requests were still under way when the time was up");
    }
}

fn graceful_connection(
    graceful: &GracefulShutdown,
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
) -> impl Future<Output = ()> + Send + 'static {
    // An answer of two small packets must not wait for the acknowledgement of the first.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let service = router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        request.map(axum::body::Body::new)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let connection = builder
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .into_owned();
    let watched = graceful.watch(connection);
    async move {
        if let Err(error) = watched.await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// Waits for the rest of the node's parts, for as long as requests under way may go on; then they
/// are dropped. Whatever was acknowledged is in the database by then.
pub(crate) async fn finish(mut tasks: tokio::task::JoinSet<()>) {
    let servers_end = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, servers_end).await.is_err() {
        tasks.abort_all();
    }
}

#[expect(clippy::disallowed_methods, reason = "the node is where tasks are spawned")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
