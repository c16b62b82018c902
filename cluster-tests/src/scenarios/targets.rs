//! One of three targets dies, hangs or resets under load: nobody whose request may be sent again may notice.

use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use quorumgate_proto::admin::v1::{ConfigSet, Target, Upstream, UpstreamTimeouts};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use super::route;
use crate::{
    Cluster,
    cluster::until,
    lanes::{Ask, Lanes, Way},
};

/// The largest body that may be sent again.
const BODY_BYTES_MAX: usize = 64 << 10;
/// So long may a target be silent; short, so that a run shows a hanging one often.
const RESPONSE_HEADER: Duration = Duration::from_millis(500);
const LANES: u32 = 32;
const CAPACITY_TAKES: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Killed,
    /// It takes requests and answers none.
    Hung,
    /// It resets every connection on which it is asked.
    Resetting,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Killed, Self::Hung, Self::Resetting];
}

#[derive(Debug)]
pub struct Suffered {
    pub fault: Fault,
    pub rate: u32,
    pub answers: u64,
    /// Requests that met the fault.
    pub met: u64,
}

impl fmt::Display for Suffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, rate, answers, met } = self;
        write!(
            f,
            "one of three targets {fault:?} at {rate} requests/s: {answers} answers, 0 failed, {met} requests met it"
        )
    }
}

/// Each fault on targets of its own, for `lasts`, at half of what the node does with all it has, or at `rate`.
pub async fn suffer(cluster: &Cluster, rate: Option<u32>, lasts: Duration) -> anyhow::Result<Vec<Suffered>> {
    let mut suffered = Vec::new();
    for fault in Fault::ALL {
        suffered.push(one(cluster, fault, rate, lasts).await?);
    }
    Ok(suffered)
}

async fn one(cluster: &Cluster, fault: Fault, rate: Option<u32>, lasts: Duration) -> anyhow::Result<Suffered> {
    let mut targets = [Fickle::start().await?, Fickle::start().await?, Fickle::start().await?];
    let leader = cluster.leader().await?;
    let node = &cluster.members[leader];
    let upstream = Upstream {
        name: "origin".into(),
        targets: targets
            .iter()
            .map(|it| Target { address: it.address.to_string(), weight: 1, ..Default::default() })
            .collect(),
        timeouts: Some(UpstreamTimeouts { response_header: Some(RESPONSE_HEADER.try_into()?), ..Default::default() }),
        ..Default::default()
    };
    let config =
        ConfigSet { upstreams: vec![upstream], routes: vec![route("load", "load.test", "/")], ..Default::default() };
    node.client().await?.apply(config).await?;

    let rate = match rate {
        Some(rate) => rate,
        None => capacity(node.proxy).await? / 2,
    };
    let pause = Duration::from_secs(1) * LANES / rate.max(1);
    let mut lanes = Lanes::default();
    let ask = |method: Method, bytes: usize| Ask {
        method,
        host: "load.test",
        body: Bytes::from(vec![b'x'; bytes]),
        per_connection: 1_000,
        pause,
    };
    let tallies = [
        lanes.add(LANES / 2, node.proxy, &Way::Http1, &ask(Method::GET, 0)),
        lanes.add(LANES / 4, node.proxy, &Way::Http1, &ask(Method::PUT, 1_000)),
        lanes.add(LANES / 4, node.proxy, &Way::Http2, &ask(Method::PUT, BODY_BYTES_MAX)),
    ];
    let good = |at: usize| tallies[at].good.load(Ordering::Relaxed);
    until("load of every kind", async || {
        ensure!((0..tallies.len()).all(|at| good(at) >= 20), "some kind was answered hardly ever");
        Ok(())
    })
    .await?;
    targets[0].suffer(fault).await;
    let begun = Instant::now();
    tokio::time::sleep(lasts).await;
    // At least so long that some have met it, however slow the machine is.
    let enough = good(0) + 50;
    until("answers beside the fault", async || {
        ensure!(good(0) >= enough, "no answers after {:?}", begun.elapsed());
        Ok(())
    })
    .await?;
    lanes.stop().await;
    for tally in &tallies {
        let failed = tally.failed.load(Ordering::Relaxed);
        let failures = tally.failures.lock().expect("no panic while it is held").clone();
        ensure!(failed == 0, "{fault:?} at {rate}/s: {failed} requests failed: {failures:?}\n{}", node.log_tail());
    }
    let answers = (0..tallies.len()).map(good).sum();
    Ok(Suffered { fault, rate, answers, met: targets[0].met() })
}

/// Requests a second, with all that the client has.
async fn capacity(node: SocketAddr) -> anyhow::Result<u32> {
    let mut lanes = Lanes::default();
    let ask = Ask {
        method: Method::GET,
        host: "load.test",
        body: Bytes::new(),
        per_connection: u32::MAX,
        pause: Duration::from_micros(1),
    };
    let tally = lanes.add(LANES, node, &Way::Http1, &ask);
    tokio::time::sleep(CAPACITY_TAKES).await;
    let answers = tally.good.load(Ordering::Relaxed);
    lanes.stop().await;
    let failed = tally.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} requests failed before any fault");
    Ok((answers as f64 / CAPACITY_TAKES.as_secs_f64()) as u32)
}

const GOOD: u8 = 0;
const HANGS: u8 = 1;
const RESETS: u8 = 2;

/// A server that can be made to misbehave.
struct Fickle {
    address: SocketAddr,
    mood: Arc<AtomicU8>,
    met: Arc<std::sync::atomic::AtomicU64>,
    serving: Option<JoinHandle<()>>,
}

impl Fickle {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mood, met) = (Arc::new(AtomicU8::new(GOOD)), Arc::new(std::sync::atomic::AtomicU64::new(0)));
        let (read, counted) = (mood.clone(), met.clone());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Whatever ends a connection here, the other side sees a reset.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                let (mood, met) = (read.clone(), counted.clone());
                let answer = service_fn(move |request| answer(request, mood.clone(), met.clone()));
                connections.spawn(async move {
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, mood, met, serving: Some(serving) })
    }

    async fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Hung => self.mood.store(HANGS, Ordering::Relaxed),
            Fault::Resetting => self.mood.store(RESETS, Ordering::Relaxed),
            Fault::Killed => {
                if let Some(serving) = self.serving.take() {
                    serving.abort();
                    // With it its listener and its connections are gone.
                    let _ = serving.await;
                }
            }
        }
    }

    fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }
}

impl Drop for Fickle {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    mood: Arc<AtomicU8>,
    met: Arc<std::sync::atomic::AtomicU64>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    // A body that breaks off ends its connection with it.
    let _ = request.into_body().collect().await;
    let mood = mood.load(Ordering::Relaxed);
    if mood != GOOD {
        met.fetch_add(1, Ordering::Relaxed);
    }
    match mood {
        HANGS => match std::future::pending::<Infallible>().await {},
        RESETS => Err(std::io::ErrorKind::ConnectionReset.into()),
        _ => Ok(Response::new(Full::new(Bytes::from_static(b"ok")))),
    }
}
