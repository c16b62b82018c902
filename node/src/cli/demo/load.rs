//! Requests through the gateway: single ones, and a constant load whose every answer is counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, timeout},
};

const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between two requests that wait for a refusal: a figure is this exact.
const BETWEEN_TRIES: Duration = Duration::from_micros(500);
/// Connections a node.
const LANES: u32 = 4;

pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// One request on a connection of its own.
pub async fn get(node: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    Connection::open(node).await?.get(host, path, None).await
}

/// The same with a token.
pub async fn get_with(node: SocketAddr, host: &str, path: &str, token: &str) -> anyhow::Result<Answer> {
    Connection::open(node).await?.get(host, path, Some(token)).await
}

/// Shows the token again and again on one connection until it is refused with 401; returns when that was heard.
pub async fn get_until_refused(node: SocketAddr, host: &str, path: &str, token: &str) -> anyhow::Result<Instant> {
    let mut connection = Connection::open(node).await?;
    loop {
        let answer = connection.get(host, path, Some(token)).await?;
        match answer.status {
            200 => tokio::time::sleep(BETWEEN_TRIES).await,
            401 if answer.body.contains("token_revoked") => return Ok(Instant::now()),
            _ => anyhow::bail!("{node} answered {}: {}", answer.status, answer.body.trim_end()),
        }
    }
}

struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// Ends with this.
    _running: JoinSet<()>,
}

impl Connection {
    async fn open(node: SocketAddr) -> anyhow::Result<Self> {
        let opening = async {
            let stream = TcpStream::connect(node).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let mut running = JoinSet::new();
            running.spawn(async {
                // Its end shows in the answers.
                let _ = connection.await;
            });
            anyhow::Ok(Self { sender, _running: running })
        };
        timeout(ANSWER_MAX, opening).await.context("connecting took too long")?
    }

    async fn get(&mut self, host: &str, path: &str, token: Option<&str>) -> anyhow::Result<Answer> {
        let mut request = Request::get(path).header("host", host);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Empty::new())?;
        let asking = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        timeout(ANSWER_MAX, asking).await.context("no answer in time")?
    }
}

/// What one node answered.
#[derive(Debug, Default)]
pub struct Tally {
    pub good: AtomicU64,
    pub failed: AtomicU64,
    pub first_failure: Mutex<Option<String>>,
}

impl Tally {
    fn fail(&self, why: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.first_failure.lock().expect("no panic while it is held").get_or_insert(why);
    }

    pub fn counts(&self) -> (u64, u64) {
        (self.good.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// Load that runs until it is dropped.
pub struct Load {
    /// By node, in the order given.
    pub tallies: Vec<Arc<Tally>>,
    _lanes: JoinSet<()>,
}

impl Load {
    /// `rate` requests a second over all nodes together.
    pub fn start(nodes: &[SocketAddr], host: &'static str, path: &'static str, rate: u32) -> Self {
        let pause = Duration::from_secs(1) * (nodes.len() as u32 * LANES) / rate;
        let mut lanes = JoinSet::new();
        let mut tallies = Vec::new();
        for node in nodes {
            let tally = Arc::new(Tally::default());
            for _ in 0..LANES {
                lanes.spawn(lane(*node, host, path, pause, tally.clone()));
            }
            tallies.push(tally);
        }
        Self { tallies, _lanes: lanes }
    }
}

async fn lane(node: SocketAddr, host: &'static str, path: &'static str, pause: Duration, tally: Arc<Tally>) {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        ticks.tick().await;
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open(node).await,
        };
        let mut open = match open {
            Ok(open) => open,
            Err(error) => {
                tally.fail(format!("{error:#}"));
                continue;
            }
        };
        match open.get(host, path, None).await {
            Ok(answer) if answer.status == 200 => {
                tally.good.fetch_add(1, Ordering::Relaxed);
                connection = Some(open).filter(|it| !it.sender.is_closed());
            }
            Ok(answer) => tally.fail(format!("{} {}", answer.status, answer.body.trim_end())),
            Err(error) => tally.fail(format!("{error:#}")),
        }
    }
}
