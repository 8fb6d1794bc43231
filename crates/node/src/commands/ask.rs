//! Asking: the running node over its admin address, the user for a password.

use std::io::{self, BufRead, IsTerminal};

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;

use crate::{AnyError, data_dir::DataDir, listen};

/// Shortest password, in characters: the floor that NIST SP 800-63B sets for chosen secrets.
const MIN_PASSWORD_CHARS: usize = 8;

/// A node that runs on the data directory.
pub(crate) struct Running {
    stream: TcpStream,
    token: String,
}

impl Running {
    /// Connects to the node that runs on this directory, if one does.
    pub(crate) async fn find(data: &DataDir) -> Option<Self> {
        let address = listen::ADMIN.remembered(data)?;
        let token = data.admin_token()?;
        let stream = TcpStream::connect(address).await.ok()?;
        Some(Self { stream, token })
    }

    /// The text at `path`.
    pub(crate) async fn get(self, path: &str) -> Result<String, AnyError> {
        self.request(Method::GET, path, Body::empty()).await
    }

    /// Sends `body` as JSON to `path`.
    pub(crate) async fn put(self, path: &str, body: &impl Serialize) -> Result<String, AnyError> {
        self.request(Method::PUT, path, Body::from(serde_json::to_vec(body)?)).await
    }

    async fn request(self, method: Method, path: &str, body: Body) -> Result<String, AnyError> {
        let io = TokioIo::new(self.stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "messagehub")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(body)?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let bytes = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, String::from_utf8_lossy(&bytes).into_owned()))
        };
        // The connection is driven beside the request and ends with it.
        let (status, text) = tokio::select! {
            answer = answer => answer?,
            ended = connection => { ended?; return Err("the node closed the connection".into()) }
        };
        match status {
            StatusCode::UNAUTHORIZED => Err("the running node uses another data directory".into()),
            status if status.is_success() => Ok(text),
            _ => Err(text.trim().to_owned().into()),
        }
    }
}

/// A new password: typed twice without being shown, or a line of standard input.
pub(crate) fn new_password() -> Result<String, AnyError> {
    let password = if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("New password: ")?;
        if rpassword::prompt_password("Once more: ")? != password {
            return Err("the two passwords differ".into());
        }
        password
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return Err(format!("a password has at least {MIN_PASSWORD_CHARS} characters").into());
    }
    Ok(password)
}
