//! A client of the API server: HTTP/1.1 and JSON, one connection for calls and one for each watch.

mod access;

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};

pub use self::access::Access;

/// Bytes of one answer: a page of a list, or what a write gives back.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Bytes of one line of a watch: one object.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Bytes of what an error says that are repeated.
const ERROR_BYTES_MAX: usize = 512;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Client {
    access: Access,
    /// For calls, one after another.
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// What the server said in the place of what was asked for.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the API server says {}: {}", self.status, self.message)
    }
}

impl std::error::Error for Refused {}

impl Client {
    pub fn new(access: Access) -> Self {
        Self { access, connection: Mutex::default() }
    }

    pub fn server(&self) -> &str {
        self.access.server()
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// A JSON Merge Patch (RFC 7396).
    pub async fn patch(&self, path: &str, patch: &Value) -> anyhow::Result<Value> {
        self.call(Method::PATCH, path, Some(patch)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let what = || format!("{method} {path}");
        let called = timeout(CALL_TIMEOUT, self.called(&method, path, body)).await;
        called.map_err(|_| anyhow::anyhow!("no answer within {CALL_TIMEOUT:?}")).flatten().with_context(what)
    }

    async fn called(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut held = self.connection.lock().await;
        let usable = match held.take() {
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut connection = match usable {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let request = self.request(method, path, body).await?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        *held = Some(connection);
        if !status.is_success() {
            return Err(refused(status, &body).into());
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Lines of JSON for as long as the server goes on.
    pub async fn watch(&self, path: &str) -> anyhow::Result<Lines> {
        let opened = timeout(CALL_TIMEOUT, async {
            let mut connection = self.connect().await?;
            let answer = connection.send_request(self.request(&Method::GET, path, None).await?).await?;
            let status = answer.status();
            if status.is_success() {
                return anyhow::Ok(Lines { body: answer.into_body(), read: BytesMut::new(), _connection: connection });
            }
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            Err(refused(status, &body).into())
        });
        opened
            .await
            .map_err(|_| anyhow::anyhow!("no answer within {CALL_TIMEOUT:?}"))
            .flatten()
            .with_context(|| format!("GET {path}"))
    }

    async fn request(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.access.prefix()));
        request = request.header(header::HOST, self.access.authority()).header(header::ACCEPT, "application/json");
        request = request.header(header::USER_AGENT, concat!("quorumgate/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = self.access.authorization().await? {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/merge-patch+json");
        }
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        Ok(request.body(Full::new(body.into()))?)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let opened = timeout(CONNECT_TIMEOUT, self.open()).await;
        let stream = opened
            .map_err(|_| anyhow::anyhow!("no connection within {CONNECT_TIMEOUT:?}"))
            .flatten()
            .with_context(|| self.access.server().to_owned())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its sender, or with the connection; what went wrong, the sender is told.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn open(&self) -> anyhow::Result<Box<dyn Stream>> {
        let (host, port) = self.access.host_and_port();
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        Ok(match self.access.tls() {
            Some((name, tls)) => Box::new(tls.connect(name, tcp).await?),
            None => Box::new(tcp),
        })
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Refused {
    let message = match serde_json::from_slice::<Value>(body) {
        Ok(told) if told["message"].is_string() => told["message"].as_str().unwrap_or_default().to_owned(),
        _ => String::from_utf8_lossy(&body[..body.len().min(ERROR_BYTES_MAX)]).into_owned(),
    };
    Refused { status, message }
}

/// The status by which the server refused, if that is what went wrong.
pub fn refusal(error: &anyhow::Error) -> Option<StatusCode> {
    error.downcast_ref::<Refused>().map(|it| it.status)
}

/// The lines of a watch.
pub struct Lines {
    body: Incoming,
    read: BytesMut,
    _connection: SendRequest<Full<Bytes>>,
}

impl Lines {
    /// None: the server has ended it.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.read[searched..].iter().position(|b| *b == b'\n') {
                let line = self.read.split_to(searched + at + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    searched = 0;
                    continue;
                }
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            searched = self.read.len();
            if searched > LINE_BYTES_MAX {
                bail!("one line of a watch is longer than {LINE_BYTES_MAX} bytes");
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(chunk) = frame?.into_data() {
                        self.read.extend_from_slice(&chunk);
                    }
                }
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
