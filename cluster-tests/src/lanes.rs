//! Load of several kinds on one address: what is asked, how it is spoken, and what counts as failed. A failure is an
//! accepted connection's request without a complete good answer; who is refused, or told to go, comes again.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_rustls::TlsConnector;

use crate::load::Tally;

const ANSWER_MAX: Duration = Duration::from_secs(20);
/// After a connection that was refused.
const COME_AGAIN: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub enum Way {
    Http1,
    /// Cleartext, by prior knowledge.
    Http2,
    /// HTTP/1.1 over TLS.
    Tls(Arc<rustls::ClientConfig>),
}

/// What a lane asks again and again.
#[derive(Clone)]
pub struct Ask {
    pub method: Method,
    pub host: &'static str,
    pub body: Bytes,
    /// After so many requests it comes by another connection.
    pub per_connection: u32,
    pub pause: Duration,
}

/// Lanes that run until this is dropped.
#[derive(Default)]
pub struct Lanes {
    running: JoinSet<()>,
}

impl Lanes {
    pub fn add(&mut self, count: u32, address: SocketAddr, way: &Way, ask: &Ask) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        for _ in 0..count {
            self.running.spawn(lane(address, way.clone(), ask.clone(), tally.clone()));
        }
        tally
    }

    /// No more requests begin; those under way are waited for by nobody.
    pub async fn stop(mut self) {
        self.running.shutdown().await;
    }
}

async fn lane(address: SocketAddr, way: Way, ask: Ask, tally: Arc<Tally>) {
    let mut ticks = tokio::time::interval(ask.pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Ok(stream) = TcpStream::connect(address).await else {
            count(&tally.refused);
            tokio::time::sleep(COME_AGAIN).await;
            continue;
        };
        let mut sender = match tokio::time::timeout(ANSWER_MAX, Sender::over(stream, &way, ask.host)).await {
            Ok(Ok(sender)) => sender,
            Ok(Err(error)) => {
                tally.fail(format!("no connection: {error:#}"));
                continue;
            }
            Err(_) => {
                tally.fail("no connection in time".into());
                continue;
            }
        };
        for _ in 0..ask.per_connection {
            ticks.tick().await;
            if !sender.stands().await {
                break;
            }
            match tokio::time::timeout(ANSWER_MAX, sender.ask(&ask)).await {
                Ok(Ok(())) => count(&tally.good),
                Ok(Err(Trouble::Unsent)) => {
                    count(&tally.refused);
                    break;
                }
                Ok(Err(Trouble::Failed(why))) => {
                    tally.fail(format!("{why:#}"));
                    break;
                }
                Err(_) => {
                    tally.fail("no answer in time".into());
                    break;
                }
            }
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

enum Trouble {
    /// Nobody acted on it: nothing of it went out, or a GOAWAY leaves it out (RFC 9113, 6.8).
    Unsent,
    Failed(anyhow::Error),
}

impl Sender {
    async fn over(stream: TcpStream, way: &Way, host: &'static str) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        match way {
            Way::Http1 => Self::http1(stream).await,
            Way::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Ok(Self::Http2(sender))
            }
            Way::Tls(config) => {
                let connector = TlsConnector::from(config.clone());
                Self::http1(connector.connect(ServerName::try_from(host)?, stream).await.context("TLS")?).await
            }
        }
    }

    async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end shows in the sender.
        tokio::spawn(connection);
        Ok(Self::Http1(sender))
    }

    /// It can take a request: nobody has closed it, or said that it will be.
    async fn stands(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn ask(&mut self, ask: &Ask) -> Result<(), Trouble> {
        let authority = if matches!(self, Self::Http2(_)) { "http://load.test" } else { "" };
        let request = Request::builder().method(&ask.method).uri(format!("{authority}/"));
        let request = if authority.is_empty() { request.header("host", ask.host) } else { request };
        let request = request.body(Full::new(ask.body.clone())).map_err(|error| Trouble::Failed(error.into()))?;
        let sent = match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        };
        match sent {
            Ok(response) => complete(response).await.map_err(Trouble::Failed),
            Err(mut error) => match error.take_message() {
                Some(_) => Err(Trouble::Unsent),
                // A stream that was to begin when the GOAWAY had just come; those that it takes in end otherwise.
                None if told_to_go(error.error()) => Err(Trouble::Unsent),
                None => Err(Trouble::Failed(error.into_error().into())),
            },
        }
    }
}

fn told_to_go(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|it| it.is_remote() && it.is_go_away() && it.reason() == Some(h2::Reason::NO_ERROR))
}

async fn complete(response: Response<Incoming>) -> anyhow::Result<()> {
    let status = response.status();
    let body = response.into_body().collect().await.context("the body")?.to_bytes();
    ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}
