//! A token is revoked on one node: when do the others refuse it, and does any node let it in once the bound has passed?

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

use super::apply_file;
use crate::{
    Cluster,
    cluster::{Member, until},
    issuer::{AUDIENCE, ISSUER, Issuer},
    load::{Answer, Connection},
    origin::Origin,
};

const HOST: &str = "guarded.test";
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);
/// Clocks may run apart by this much: parts per million.
const DRIFT_PPM: u32 = 500;
/// How far a wall clock steps.
const CLOCK_STEP_S: i64 = 600;
/// How long a request may be on its way before its client gives it up.
const GIVEN_UP: Duration = Duration::from_secs(2);
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub struct Propagation {
    /// From the call to the last node's first refusal, sorted; the commit lies within.
    pub took: Vec<Duration>,
}

impl Propagation {
    pub fn p50(&self) -> Duration {
        self.took[self.took.len() / 2]
    }

    pub fn p99(&self) -> Duration {
        self.took[(self.took.len() * 99).div_ceil(100) - 1]
    }
}

/// A route that wants a JWT of the issuer, on every node.
pub async fn guard(cluster: &Cluster, issuer: &Issuer, origin: SocketAddr) -> anyhow::Result<()> {
    let config = json!({
        "upstreams": [{ "name": "guarded", "targets": [origin.to_string()] }],
        "auth": [{ "name": "idp", "jwt": {
            "issuer": ISSUER, "audience": [AUDIENCE], "algorithms": ["ES256"], "jwks_inline": issuer.jwks(),
        } }],
        "routes": [{ "name": "guarded", "match": { "hosts": [HOST] }, "upstream": "guarded", "auth": { "any_of": ["idp"] } }],
    });
    apply_file(cluster, &config).await
}

pub async fn propagation(cluster: &Cluster, rounds: usize) -> anyhow::Result<Propagation> {
    let origin = Origin::start("origin").await?;
    let issuer = Issuer::new()?;
    guard(cluster, &issuer, origin.address).await?;
    let mut took = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let jti = format!("jti-{round}");
        let token = issuer.token("alice", &jti, TOKEN_LIFE)?;
        let hammers = Hammers::start(cluster, &token);
        hammers.wait_let_in().await?;
        let asked = cluster.members.get(round % cluster.members.len()).context("a node")?;
        let start = Instant::now();
        let receipt = revoke(asked, &jti)?;
        let receipted = Instant::now();
        took.push(hammers.wait_refused().await?.duration_since(start));
        let log = hammers.stop().await?;
        log.check_no_way_back()?;
        // The receipt names who enforces it: nobody there lets in what was sent after.
        check_receipt(cluster, &receipt)?;
        let late = log.seen.iter().find(|seen| seen.let_in && seen.sent > receipted);
        ensure!(late.is_none(), "round {round}: a node of the receipt let in a request sent after it");
    }
    took.sort();
    Ok(Propagation { took })
}

/// The receipt.
fn revoke(member: &Member, jti: &str) -> anyhow::Result<Value> {
    let told =
        member.cli(&["token", "revoke", "--issuer", ISSUER, "--jti", jti, "--expires-in", "2h", "-o", "json"])?;
    Ok(serde_json::from_str(&told)?)
}

fn check_receipt(cluster: &Cluster, receipt: &Value) -> anyhow::Result<()> {
    let nodes = receipt["nodes"].as_array().context("nodes")?;
    ensure!(nodes.len() == cluster.members.len(), "not every node is in the receipt: {receipt}");
    for node in nodes {
        ensure!(node["applied_revision"].as_u64() >= receipt["revision"].as_u64(), "a node lags: {receipt}");
    }
    Ok(())
}

/// What is done to a cluster while a token is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A follower is cut off from its peers, both ways.
    Isolated,
    /// A follower hears nothing, yet is heard.
    Deaf,
    /// A follower is heard by nobody, yet hears.
    Mute,
    /// A follower's process stands still.
    Stopped,
    LeaderKilled,
    LeaderIsolated,
    /// A follower's wall clock steps. It decides about tokens' own times, never about revocations.
    ClockAhead,
    ClockBehind,
    LeaderClockAhead,
}

impl Fault {
    pub const ALL: [Fault; 10] = [
        Fault::None,
        Fault::Isolated,
        Fault::Deaf,
        Fault::Mute,
        Fault::Stopped,
        Fault::LeaderKilled,
        Fault::LeaderIsolated,
        Fault::ClockAhead,
        Fault::ClockBehind,
        Fault::LeaderClockAhead,
    ];

    /// Wants a cluster whose clocks can be set.
    pub fn is_of_clock(self) -> bool {
        matches!(self, Fault::ClockAhead | Fault::ClockBehind | Fault::LeaderClockAhead)
    }
}

#[derive(Debug, Default)]
pub struct Bound {
    pub requests: usize,
    /// The latest admission after the acknowledgement of a revocation, of all rounds.
    pub latest: Duration,
    pub max_staleness: Duration,
}

/// One revocation a round, each under the next of the faults; no request that was sent after the bound may be let in.
/// Wants a cluster with a relay on its peers' path.
pub async fn bound(cluster: &mut Cluster, faults: &[Fault], rounds: usize, seed: u64) -> anyhow::Result<Bound> {
    let origin = Origin::start("origin").await?;
    let issuer = Issuer::new()?;
    guard(cluster, &issuer, origin.address).await?;
    let max_staleness = cluster.members[0].client().await?.status().await?.max_staleness.context("max_staleness")?;
    let max_staleness = Duration::try_from(max_staleness)?;
    let bound = bound_of(max_staleness);
    let mut result = Bound { max_staleness, ..Bound::default() };
    let mut dice = seed | 1;
    for round in 0..rounds {
        let fault = faults[round % faults.len()];
        let jti = format!("bound-{seed}-{round}");
        let token = issuer.token("bob", &jti, TOKEN_LIFE)?;
        let leader = cluster.leader().await?;
        let victim = match fault {
            Fault::LeaderKilled | Fault::LeaderIsolated | Fault::LeaderClockAhead => leader,
            _ => (leader + 1 + roll(&mut dice, cluster.members.len() as u64 - 1) as usize) % cluster.members.len(),
        };
        let hammers = Hammers::start(cluster, &token);
        hammers.wait_let_in().await?;
        break_it(cluster, &issuer, fault, victim).await?;
        // At any point of the probes' and the heartbeats' round.
        tokio::time::sleep(Duration::from_millis(roll(&mut dice, 700))).await;
        let acknowledged = revoked_somewhere(cluster, victim, &jti).await?;
        tokio::time::sleep(bound + Duration::from_secs(1)).await;
        mend(cluster, &issuer, fault, victim).await?;
        hammers.wait_refused_by_all(cluster).await?;
        let log = hammers.stop().await?;
        result.requests += log.requests();
        let latest = log.check(acknowledged, bound).with_context(|| format!("round {round}, {fault:?}"))?;
        result.latest = result.latest.max(latest);
    }
    Ok(result)
}

/// By the clocks of whoever looks on, which may run apart from the nodes'.
pub(super) fn bound_of(max_staleness: Duration) -> Duration {
    max_staleness + max_staleness * DRIFT_PPM / 1_000_000
}

/// xorshift64*: a seed replays the choice of victims and pauses.
fn roll(dice: &mut u64, sides: u64) -> u64 {
    *dice ^= *dice >> 12;
    *dice ^= *dice << 25;
    *dice ^= *dice >> 27;
    dice.wrapping_mul(0x2545_F491_4F6C_DD1D) % sides.max(1)
}

async fn revoked_somewhere(cluster: &Cluster, victim: usize, jti: &str) -> anyhow::Result<Instant> {
    let mut acknowledged = None;
    until("a revocation to be acknowledged", async || {
        let able = cluster.members.iter().enumerate().find(|(at, member)| *at != victim && member.is_running());
        drop(revoke(able.context("another node")?.1, jti)?);
        acknowledged = Some(Instant::now());
        Ok(())
    })
    .await?;
    acknowledged.context("it was acknowledged")
}

async fn break_it(cluster: &mut Cluster, issuer: &Issuer, fault: Fault, victim: usize) -> anyhow::Result<()> {
    match fault {
        Fault::None => {}
        Fault::Isolated | Fault::LeaderIsolated => cut(cluster, victim, true, true)?,
        Fault::Deaf => cut(cluster, victim, true, false)?,
        Fault::Mute => cut(cluster, victim, false, true)?,
        Fault::Stopped => cluster.members[victim].signal(Signal::SIGSTOP)?,
        Fault::LeaderKilled => cluster.members[victim].kill(),
        Fault::ClockAhead | Fault::LeaderClockAhead => {
            step_clock(&cluster.members[victim], issuer, CLOCK_STEP_S).await?;
        }
        Fault::ClockBehind => step_clock(&cluster.members[victim], issuer, -CLOCK_STEP_S).await?,
    }
    Ok(())
}

async fn mend(cluster: &mut Cluster, issuer: &Issuer, fault: Fault, victim: usize) -> anyhow::Result<()> {
    match fault {
        Fault::None => {}
        Fault::Isolated | Fault::LeaderIsolated | Fault::Deaf | Fault::Mute => cut(cluster, victim, false, false)?,
        Fault::Stopped => cluster.members[victim].signal(Signal::SIGCONT)?,
        Fault::ClockAhead | Fault::ClockBehind | Fault::LeaderClockAhead => {
            step_clock(&cluster.members[victim], issuer, 0).await?;
        }
        Fault::LeaderKilled => {
            cluster.members[victim].run()?;
            cluster.members[victim].wait_ready().await?;
        }
    }
    Ok(())
}

/// And sees that the node goes by it: for it one token is about to end, and another has ended a moment ago.
async fn step_clock(member: &Member, issuer: &Issuer, ahead_s: i64) -> anyhow::Result<()> {
    member.set_clock(ahead_s)?;
    until("the node's clock to step", async || {
        for (ends_s, status) in [(ahead_s + CLOCK_STEP_S / 4, 200), (ahead_s - CLOCK_STEP_S / 4, 401)] {
            let token = format!("Bearer {}", issuer.token_until("clock", "clock", ends_s)?);
            let answer = ask(&mut None, member.proxy, &token).await?;
            ensure!(answer.status == status, "{ahead_s} {ends_s}: {} {}", answer.status, answer.body);
        }
        Ok(())
    })
    .await
}

pub(super) fn cut(cluster: &Cluster, victim: usize, inbound: bool, outbound: bool) -> anyhow::Result<()> {
    let relay = cluster.relay.as_ref().context("a cluster with a relay")?;
    for other in (0..cluster.members.len()).filter(|other| *other != victim) {
        for (from, to, cut) in [(other, victim, inbound), (victim, other, outbound)] {
            let mut link = relay.link(from, to);
            link.cut = cut;
            relay.set(from, to, link);
        }
    }
    Ok(())
}

/// What became of one request.
struct Seen {
    node: usize,
    sent: Instant,
    done: Instant,
    let_in: bool,
}

#[derive(Default)]
pub(super) struct Log {
    seen: Vec<Seen>,
    /// The first answer that is neither a yes nor a refusal of this token or of stale state.
    strange: Option<String>,
}

impl Log {
    pub fn requests(&self) -> usize {
        self.seen.len()
    }

    /// How long after the acknowledgement the latest request was sent that was let in: not past the bound.
    pub fn check(&self, acknowledged: Instant, bound: Duration) -> anyhow::Result<Duration> {
        let let_in = self.seen.iter().filter(|seen| seen.let_in && seen.sent > acknowledged);
        let Some(last) = let_in.max_by_key(|seen| seen.sent) else { return Ok(Duration::ZERO) };
        let late = last.sent - acknowledged;
        ensure!(late <= bound, "node {} let in a request sent {late:?} after the revocation", last.node + 1);
        Ok(late)
    }

    /// On each node: no request that was sent after a refusal was let in.
    fn check_no_way_back(&self) -> anyhow::Result<()> {
        for refusal in self.seen.iter().filter(|seen| !seen.let_in) {
            let after = self.seen.iter().find(|it| it.let_in && it.node == refusal.node && it.sent > refusal.done);
            ensure!(after.is_none(), "node {} let a revoked token in again", refusal.node);
        }
        Ok(())
    }
}

/// One client a node that asks again as soon as it is answered, all with the same token.
pub(super) struct Hammers {
    log: Arc<Mutex<Log>>,
    changed: watch::Receiver<()>,
    nodes: usize,
    running: JoinSet<()>,
}

impl Hammers {
    fn start(cluster: &Cluster, token: &str) -> Self {
        Self::with_pause(cluster, token, PAUSE)
    }

    pub fn with_pause(cluster: &Cluster, token: &str, pause: Duration) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let (note, changed) = watch::channel(());
        let note = Arc::new(note);
        let mut running = JoinSet::new();
        for (node, member) in cluster.members.iter().enumerate() {
            let (address, token, log, note) = (member.proxy, format!("Bearer {token}"), log.clone(), note.clone());
            running.spawn(async move {
                let mut connection = None;
                loop {
                    let sent = Instant::now();
                    let asked = ask(&mut connection, address, &token);
                    let Ok(Ok(answer)) = tokio::time::timeout(GIVEN_UP, asked).await else {
                        // A connection that is refused or lost lets nobody in.
                        connection = None;
                        tokio::time::sleep(pause).await;
                        continue;
                    };
                    let seen = Seen { node, sent, done: Instant::now(), let_in: answer.status == 200 };
                    {
                        let mut log = log.lock().expect("no panic while it is held");
                        log.seen.push(seen);
                        log.strange = log.strange.take().or_else(|| strange(&answer));
                    }
                    note.send_replace(());
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { log, changed, nodes: cluster.members.len(), running }
    }

    pub async fn wait_let_in(&self) -> anyhow::Result<()> {
        self.wait("every node lets the token in", |log, node| {
            log.seen.iter().find(|seen| seen.node == node && seen.let_in).map(|seen| seen.done)
        })
        .await
        .map(drop)
    }

    /// When the last node refused for the first time.
    async fn wait_refused(&self) -> anyhow::Result<Instant> {
        self.wait("every node refuses the token", |log, node| {
            log.seen.iter().find(|seen| seen.node == node && !seen.let_in).map(|seen| seen.done)
        })
        .await
    }

    /// After the fault is mended: every node answers, with a refusal.
    async fn wait_refused_by_all(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let mended = Instant::now();
        ensure!(cluster.running().count() == self.nodes, "some node does not run");
        self.wait_refused_since(mended, &(0..self.nodes).collect::<Vec<_>>()).await
    }

    /// Each of these nodes has refused a request that was sent since.
    pub async fn wait_refused_since(&self, mended: Instant, nodes: &[usize]) -> anyhow::Result<()> {
        self.wait("every node refuses the token once the fault is mended", |log, node| {
            let refusal = |seen: &&Seen| seen.node == node && !seen.let_in && seen.sent > mended;
            let refused = log.seen.iter().rev().find(refusal).map(|seen| seen.done);
            refused.or_else(|| (!nodes.contains(&node)).then_some(mended))
        })
        .await
        .map(drop)
    }

    async fn wait(&self, what: &str, find: impl Fn(&Log, usize) -> Option<Instant>) -> anyhow::Result<Instant> {
        let mut changed = self.changed.clone();
        let all = async {
            loop {
                let found = {
                    let log = self.log.lock().expect("no panic while it is held");
                    (0..self.nodes).map(|node| find(&log, node)).collect::<Option<Vec<_>>>()
                };
                if let Some(last) = found.and_then(|found| found.into_iter().max()) {
                    return anyhow::Ok(last);
                }
                changed.changed().await?;
            }
        };
        tokio::time::timeout(crate::cluster::PATIENCE, all).await.with_context(|| what.to_owned())?
    }

    pub async fn stop(mut self) -> anyhow::Result<Log> {
        self.running.shutdown().await;
        let log = std::mem::take(&mut *self.log.lock().expect("no panic while it is held"));
        match &log.strange {
            None => Ok(log),
            Some(answer) => bail!("an unexpected answer: {answer}"),
        }
    }
}

async fn ask(connection: &mut Option<Connection>, address: SocketAddr, token: &str) -> anyhow::Result<Answer> {
    let open = match connection.take() {
        Some(open) => open,
        None => Connection::open(address).await?,
    };
    let open = connection.insert(open);
    open.get_with(HOST, "/", &[("authorization", token)]).await
}

fn strange(answer: &Answer) -> Option<String> {
    let known = match answer.status {
        200 => true,
        401 => answer.body.contains("token_revoked"),
        503 => ["state_stale", "not_ready"].iter().any(|code| answer.body.contains(code)),
        _ => false,
    };
    (!known).then(|| format!("{} {}", answer.status, answer.body))
}
