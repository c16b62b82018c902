//! Numbers that must be right to the last one: tiny limits, what is in flight, limits that are edited, rolled back and
//! restored.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use super::{Metrics, apply, auditor, auditor::Admission, config, faults::SESSION, micros, once, wait_sessions};
use crate::{Cluster, cluster::until, load};

/// Between two requests of a client that uses a limit up.
const PAUSE: Duration = Duration::from_millis(20);
/// Nothing was admitted for this long, and every node has refused it so often meanwhile: nothing is left.
const QUIET: Duration = Duration::from_millis(1_500);
const REFUSALS: u32 = 45;

/// Asks one node after another until nothing is left.
pub async fn use_up(
    cluster: &Cluster,
    host: &str,
    fields: &[(&str, &str)],
    since: Instant,
) -> anyhow::Result<Vec<Admission>> {
    let mut admissions = Vec::new();
    let (mut last, mut refusals) = (Instant::now(), 0);
    let mut connections: Vec<Option<load::Connection>> = cluster.members.iter().map(|_| None).collect();
    while last.elapsed() < QUIET || refusals < REFUSALS {
        for (member, connection) in cluster.members.iter().zip(&mut connections).filter(|(it, _)| it.is_running()) {
            let mut open = match connection.take() {
                Some(open) => open,
                None => load::Connection::open(member.proxy).await?,
            };
            let first_us = micros(since.elapsed());
            let answer = open.get_with(host, "/", fields).await?;
            match answer.status {
                200 => {
                    admissions.push(Admission { first_us, answer_us: micros(since.elapsed()) });
                    (last, refusals) = (Instant::now(), 0);
                }
                429 => {
                    refusals += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                // A node that has just started has no session yet.
                503 if answer.body.contains("limit_unavailable") => tokio::time::sleep(PAUSE).await,
                status => anyhow::bail!("{} answers {status}: {}", member.name, answer.body),
            }
            *connection = Some(open);
        }
    }
    Ok(admissions)
}

#[derive(Debug)]
pub struct Tiny {
    pub admitted: usize,
    pub asked: usize,
    /// Of the first that was admitted.
    pub first: Duration,
    pub overshoot: u64,
}

/// A client goes from node to node with a limit of a few: exactly so many are admitted.
pub async fn tiny(cluster: &Cluster, limit: usize, window: Duration) -> anyhow::Result<Tiny> {
    let words = json!({ "limit": limit, "window": format!("{}ms", window.as_millis()) });
    apply(cluster, &config("tiny", words)).await?;
    wait_sessions(cluster).await?;
    let since = Instant::now();
    let mut admissions = Vec::new();
    let mut asked = 0;
    while since.elapsed() < window * 4 / 5 {
        let member = &cluster.members[asked % cluster.members.len()];
        let (answer, admission) = once(member.proxy, "tiny.test", since).await?;
        asked += 1;
        match answer.status {
            200 => admissions.push(admission),
            429 => tokio::time::sleep(window / 100).await,
            // No grant in time: an election, or a slow disk.
            503 if answer.body.contains("limit_unavailable") => {}
            status => anyhow::bail!("{} answers {status}: {}", member.name, answer.body),
        }
    }
    let first = admissions.first().context("nothing was admitted")?;
    Ok(Tiny {
        admitted: admissions.len(),
        asked,
        first: Duration::from_micros(first.answer_us - first.first_us),
        overshoot: auditor::audit(&admissions, micros(window), limit).overshoot,
    })
}

#[derive(Debug)]
pub struct Flights {
    pub limit: usize,
    /// The most that the upstream ever saw at once.
    pub most: usize,
    pub answered: usize,
    /// By the node that dies, as the ledger knew.
    pub held: usize,
    /// In flight at most while its permits were out.
    pub meanwhile: usize,
    /// From the kill of a node until as many as the limit were in flight again through the others.
    pub back_after: Duration,
    /// h + max_hold, both as the ledger reckons them.
    pub back_max: Duration,
}

/// Many clients of a slow upstream through every node; then one node dies with its permits.
pub async fn concurrency(cluster: &mut Cluster, limit: usize, max_hold: Duration) -> anyhow::Result<Flights> {
    let origin = Slow::start(Duration::from_millis(200)).await?;
    let words = json!({
        "limits": [{ "name": "flights", "per": "global", "kind": "concurrency", "limit": limit,
            "max_hold": format!("{}ms", max_hold.as_millis()) }],
        "upstreams": [{ "name": "slow", "targets": [origin.address.to_string()] }],
        "routes": [{ "name": "flights", "match": { "hosts": ["flights.test"] }, "upstream": "slow", "limits": ["flights"] }],
    });
    apply(cluster, &words).await?;
    wait_sessions(cluster).await?;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for member in &cluster.members {
        for _ in 0..limit {
            clients.spawn(hurry(member.proxy, answered.clone()));
        }
    }
    until("the limit to be in flight", async || {
        ensure!(origin.most() >= limit, "{} at most", origin.most());
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut held = Vec::new();
    for member in &cluster.members {
        let metrics = Metrics::of(member.telemetry).await?;
        held.push(metrics.sum_where("quorumgate_ratelimit_node_held_slots", &["flights"]) as usize);
    }
    let victim = (0..held.len()).max_by_key(|at| held[*at]).context("a node")?;
    cluster.members[victim].kill();
    let killed = Instant::now();
    // What the dead node had under way ends at the upstream now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    origin.forget();
    // Nothing of it comes back before its session could be over.
    tokio::time::sleep(SESSION / 2).await;
    let meanwhile = origin.most();
    origin.forget();
    until("the permits of the dead node to come back", async || {
        ensure!(origin.most() >= limit, "{} in flight at most", origin.most());
        Ok(())
    })
    .await?;
    let back_after = killed.elapsed();
    clients.shutdown().await;
    let most = origin.most_ever.load(Ordering::Relaxed);
    cluster.members[victim].run()?;
    cluster.members[victim].wait_ready().await?;
    let answered = answered.load(Ordering::Relaxed);
    let held = held[victim];
    Ok(Flights { limit, most, answered, held, meanwhile, back_after, back_max: (SESSION + max_hold) * 1_001 / 1_000 })
}

async fn hurry(address: SocketAddr, answered: Arc<AtomicUsize>) {
    let mut connection = None;
    loop {
        match super::get_on(&mut connection, address, "flights.test").await {
            Ok(answer) if answer.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// An upstream that takes its time, and knows how many requests it has at once.
struct Slow {
    address: SocketAddr,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    most_ever: Arc<AtomicUsize>,
    accepting: JoinSet<()>,
}

impl Slow {
    async fn start(takes: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (now, most, most_ever) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let mut accepting = JoinSet::new();
        let counters = (now.clone(), most.clone(), most_ever.clone());
        accepting.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counters = counters.clone();
                let answer = service_fn(move |_: Request<Incoming>| {
                    let (now, most, most_ever) = counters.clone();
                    async move {
                        let flight = Flight::begin(now, &most, &most_ever);
                        tokio::time::sleep(takes).await;
                        drop(flight);
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"slow"))))
                    }
                });
                serving.spawn(async move {
                    // A client that goes away ends its connection and nothing else.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Ok(Self { address, now, most, most_ever, accepting })
    }

    /// The most at once since it was last forgotten.
    fn most(&self) -> usize {
        assert!(!self.accepting.is_empty(), "the upstream ended");
        self.most.load(Ordering::Relaxed)
    }

    fn forget(&self) {
        self.most.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Counts while it lives, also where its client goes away.
struct Flight(Arc<AtomicUsize>);

impl Flight {
    fn begin(now: Arc<AtomicUsize>, most: &AtomicUsize, most_ever: &AtomicUsize) -> Self {
        let at_once = now.fetch_add(1, Ordering::Relaxed) + 1;
        most.fetch_max(at_once, Ordering::Relaxed);
        most_ever.fetch_max(at_once, Ordering::Relaxed);
        Self(now)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Edits {
    /// Admitted within one window: at 50, raised to 80, lowered to 40, rolled back to 80.
    pub admitted: [usize; 4],
    pub took: Duration,
}

/// A limit is edited up, down and rolled back within one window: what was used stays used.
pub async fn edits(cluster: &Cluster, window: Duration) -> anyhow::Result<Edits> {
    let limit =
        |limit: usize| config("edits", json!({ "limit": limit, "window": format!("{}ms", window.as_millis()) }));
    apply(cluster, &limit(50)).await?;
    wait_sessions(cluster).await?;
    let since = Instant::now();
    let mut admitted = [0; 4];
    admitted[0] = use_up(cluster, "edits.test", &[], since).await?.len();
    apply(cluster, &limit(80)).await?;
    admitted[1] = use_up(cluster, "edits.test", &[], since).await?.len();
    apply(cluster, &limit(40)).await?;
    admitted[2] = use_up(cluster, "edits.test", &[], since).await?.len();
    let asked = cluster.running().next().context("a node that runs")?;
    asked.cli(&["rollback", "--previous"])?;
    admitted[3] = use_up(cluster, "edits.test", &[], since).await?.len();
    let took = since.elapsed();
    ensure!(took < window, "the machine was too slow for a window of {window:?}: {took:?}");
    Ok(Edits { admitted, took })
}

#[derive(Debug)]
pub struct Restored {
    pub limit: usize,
    pub before: usize,
    pub after: usize,
    pub overshoot: u64,
    /// From the last admission of the old cluster to the first of the new one.
    pub first_after: Duration,
}

/// A backup of a cluster whose limit is used up becomes a new cluster while the old one is stopped.
pub async fn restored(cluster: &mut Cluster, limit: usize, window: Duration) -> anyhow::Result<Restored> {
    let words = json!({ "limit": limit, "window": format!("{}ms", window.as_millis()) });
    apply(cluster, &config("restored", words)).await?;
    wait_sessions(cluster).await?;
    let file = cluster.dir.path().join("limits.backup");
    let path = file.to_str().context("a path in UTF-8")?.to_owned();
    // The backup knows nothing of what is used after it.
    cluster.running().next().context("a node that runs")?.cli(&["cluster", "backup", "save", &path])?;
    let since = Instant::now();
    let mut admissions = use_up(cluster, "restored.test", &[], since).await?;
    let before = admissions.len();
    let last = admissions.last().context("nothing was admitted")?.answer_us;
    for member in &mut cluster.members {
        member.kill();
    }
    cluster.restore(&path, &[]).await?;
    while since.elapsed() < 3 * window {
        let again = use_up(cluster, "restored.test", &[], since).await?;
        admissions.extend(again);
    }
    let first = admissions.get(before).context("the new cluster admits nothing")?.answer_us;
    Ok(Restored {
        limit,
        before,
        after: admissions.len() - before,
        overshoot: auditor::audit(&admissions, micros(window), limit).overshoot,
        first_after: Duration::from_micros(first - last),
    })
}

/// Of a quota that was used up after a backup: what was admitted of it, then by a cluster that was restored from that, and
/// by another for which periods that have begun are unspent.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    pub before: usize,
    pub spent: usize,
    pub unspent: usize,
}

/// One backup is restored twice; the cluster before is stopped each time.
pub async fn begun_period(cluster: &mut Cluster, limit: usize) -> anyhow::Result<Begun> {
    let host = "begun.test";
    // The longest there is, so that none ends meanwhile.
    let words = json!({ "kind": "calendar", "limit": limit, "every": "month", "zone": "UTC" });
    apply(cluster, &config("begun", words)).await?;
    wait_sessions(cluster).await?;
    let since = Instant::now();
    let first = cluster.running().next().context("a node that runs")?;
    until("the period to begin", async || {
        let (answer, _) = once(first.proxy, host, since).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        Ok(())
    })
    .await?;
    let file = cluster.dir.path().join("begun.backup");
    let path = file.to_str().context("a path in UTF-8")?.to_owned();
    first.cli(&["cluster", "backup", "save", &path])?;
    let before = 1 + use_up(cluster, host, &[], since).await?.len();
    let mut admitted = Vec::new();
    for budgets in ["spent", "reset"] {
        for member in &mut cluster.members {
            member.kill();
        }
        cluster.restore(&path, &["--budgets", budgets]).await?;
        wait_sessions(cluster).await?;
        admitted.push(use_up(cluster, host, &[], since).await?.len());
    }
    Ok(Begun { before, spent: admitted[0], unspent: admitted[1] })
}
