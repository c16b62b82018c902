//! Constant load over all nodes, one connection and one task a lane, every answer counted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Connections a node.
const LANES: u32 = 4;
/// Failures that are kept with their words.
const FAILURES_KEPT: usize = 20;

pub struct Answer {
    pub status: u16,
    /// The Location header, if any.
    pub location: String,
    pub body: String,
}

/// One request on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let mut connection = Connection::open(address).await?;
    connection.get("gateway.test", path).await
}

pub async fn get_host(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let mut connection = Connection::open(address).await?;
    connection.get(host, path).await
}

pub struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let opening = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            anyhow::Ok(Self { sender })
        };
        tokio::time::timeout(ANSWER_MAX, opening).await.context("connecting")?
    }

    /// As somebody at that address of this machine.
    pub async fn open_from(source: IpAddr, address: SocketAddr) -> anyhow::Result<Self> {
        let opening = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            let (sender, connection) = http1::handshake(TokioIo::new(socket.connect(address).await?)).await?;
            tokio::spawn(connection);
            anyhow::Ok(Self { sender })
        };
        tokio::time::timeout(ANSWER_MAX, opening).await.context("connecting")?
    }

    async fn get(&mut self, host: &str, path: &str) -> anyhow::Result<Answer> {
        self.get_with(host, path, &[]).await
    }

    pub async fn get_with(&mut self, host: &str, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let request = Request::get(path).header("host", host);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Empty::new())?;
        let asking = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status().as_u16();
            let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let location = location.to_owned();
            let body = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok(Answer { status, location, body: String::from_utf8_lossy(&body).into_owned() })
        };
        tokio::time::timeout(ANSWER_MAX, asking).await.context("no answer in time")?
    }
}

/// What one node answered.
#[derive(Debug, Default)]
pub struct Tally {
    pub good: AtomicU64,
    /// An accepted connection's request without a complete good answer.
    pub failed: AtomicU64,
    /// Connections refused: the client goes to another node.
    pub refused: AtomicU64,
    pub failures: Mutex<Vec<String>>,
}

impl Tally {
    pub fn fail(&self, reason: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().expect("no panic while it is held");
        if failures.len() < FAILURES_KEPT {
            failures.push(reason);
        }
    }
}

/// Load that runs until it is dropped.
pub struct Load {
    pub tallies: Vec<Arc<Tally>>,
    _lanes: JoinSet<()>,
}

impl Load {
    /// `rate` requests a second over all `nodes` together.
    pub fn start(nodes: &[SocketAddr], host: &'static str, path: &'static str, rate: u32) -> Self {
        let pause = Duration::from_secs(1) * (nodes.len() as u32 * LANES) / rate;
        let mut lanes = JoinSet::new();
        let tallies = nodes.iter().map(|_| Arc::new(Tally::default())).collect::<Vec<_>>();
        for (address, tally) in nodes.iter().zip(&tallies) {
            for _ in 0..LANES {
                lanes.spawn(lane(*address, host, path, pause, tally.clone()));
            }
        }
        Self { tallies, _lanes: lanes }
    }

    pub fn total(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.good.load(Ordering::Relaxed)).sum()
    }
}

/// How long requests take, sorted, while something else is done: `rate` a second over all `nodes`, each counted from when
/// it was due, so that one that waits for a slow one before it counts in full.
pub async fn latencies<T>(
    nodes: &[SocketAddr],
    host: &'static str,
    key: &str,
    rate: u32,
    meanwhile: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Vec<Duration>)> {
    let stop = CancellationToken::new();
    let pause = Duration::from_secs(1) * (nodes.len() as u32 * LANES) / rate;
    let mut lanes = JoinSet::new();
    for address in nodes {
        for _ in 0..LANES {
            lanes.spawn(timed_lane(*address, host, key.to_owned(), pause, stop.clone()));
        }
    }
    let done = meanwhile.await;
    stop.cancel();
    let mut took = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        took.extend(lane??);
    }
    took.sort();
    Ok((done?, took))
}

async fn timed_lane(
    address: SocketAddr,
    host: &'static str,
    key: String,
    pause: Duration,
    stop: CancellationToken,
) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Connection::open(address).await?;
    let mut ticks = tokio::time::interval(pause);
    let mut took = Vec::new();
    while let Some(due) = stop.run_until_cancelled(ticks.tick()).await {
        let answer = connection.get_with(host, "/", &[("x-api-key", &key)]).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        took.push(due.elapsed());
    }
    Ok(took)
}

async fn lane(address: SocketAddr, host: &'static str, path: &'static str, pause: Duration, tally: Arc<Tally>) {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Ok(mut connection) = Connection::open(address).await else {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            ticks.tick().await;
            continue;
        };
        loop {
            ticks.tick().await;
            match connection.get(host, path).await {
                Ok(answer) if answer.status == 200 => {
                    tally.good.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => tally.fail(format!("{}: {}", answer.status, answer.body)),
                Err(error) => {
                    tally.fail(format!("{error:#}"));
                    break;
                }
            }
            if connection.sender.is_closed() {
                break;
            }
        }
    }
}
