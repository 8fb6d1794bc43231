//! Which operations of the specification this server has: each is asked of the real routers, and
//! the answers are compared with `docs/coverage.md`. `cargo xtask coverage` writes that file.

#![expect(clippy::unwrap_used, reason = "a test, whose helpers clippy does not take for one")]

use std::{fmt::Write, path::Path};

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use messagehub_homeserver::testing::TestServer;
use tower::ServiceExt;

/// Chapter, method and path of each operation of specification v1.19, a line each.
const CLIENT: &str = include_str!("coverage/client-server.txt");
const SERVER: &str = include_str!("coverage/server-server.txt");

/// A value for any path parameter that gets past routing. The server is our own, so that nothing is
/// asked of others.
fn fill(path: &str, server_name: &str) -> String {
    let segments = path.split('/').map(|segment| match segment.starts_with('{') {
        true => match segment.trim_matches(['{', '}']) {
            "roomId" | "roomIdOrAlias" => "%21r:x",
            "userId" => "%40u:x",
            "eventId" => "%24e",
            "roomAlias" => "%23a:x",
            "serverName" => server_name,
            _ => "x",
        },
        false => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

/// A router, and the server it belongs to.
struct Routes<'a> {
    router: Router,
    server_name: &'a str,
}

async fn is_there(routes: &Routes<'_>, method: &str, path: &str) -> bool {
    let uri = fill(path, routes.server_name);
    let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
    let response = routes.router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let unrecognized = String::from_utf8_lossy(&body).contains("M_UNRECOGNIZED");
    !(unrecognized && (status == StatusCode::NOT_FOUND || status == StatusCode::METHOD_NOT_ALLOWED))
}

async fn table(title: &str, routes: Routes<'_>, operations: &str) -> String {
    let mut rows = String::new();
    let (mut present, mut all) = (0, 0);
    for line in operations.lines() {
        let [chapter, method, path] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let there = is_there(&routes, method, path).await;
        all += 1;
        present += usize::from(there);
        let mark = if there { "yes" } else { "absent" };
        writeln!(rows, "| {chapter} | {method} | `{path}` | {mark} |").unwrap();
    }
    format!(
        "## {title}: {present} of {all}\n\n| chapter | method | path | |\n|---|---|---|---|\n{rows}"
    )
}

#[tokio::test]
async fn the_table_of_operations_is_true() {
    let server = TestServer::new(1);
    let server_name = server.hs.server_name().as_str();
    let client = Routes { router: messagehub_api::client::router(server.hs.clone()), server_name };
    let federation =
        Routes { router: messagehub_api::server::router(server.hs.clone()), server_name };
    let text = format!(
        "# Operations of the Matrix specification v1.19\n\n\
         Made by `cargo xtask coverage`, which asks the routers. What is absent answers 404\n\
         `M_UNRECOGNIZED`.\n\n{}\n{}",
        table("Client-Server API", client, CLIENT).await,
        table("Server-Server API", federation, SERVER).await,
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/coverage.md");
    if std::env::var_os("UPDATE_COVERAGE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "docs/coverage.md is not true; run: cargo xtask coverage");
}
