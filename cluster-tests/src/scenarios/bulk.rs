//! A million keys and a million revocations through the API, in several runs: how fast they are taken, whether requests are
//! slower meanwhile, and whether what is there already slows the next revocation down.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use quorumgate_proto::admin::v1::{self as admin, WaitFor, new_key::Given, selector::By};
use serde_json::json;
use tokio::task::JoinSet;

use super::apply_file;
use crate::{Cluster, admin::Admin, load::latencies, origin::Origin};

/// The most that one call may bring.
const BATCH: usize = 1_000;
/// Calls at a time.
const IN_FLIGHT: usize = 8;
const CONSUMER: &str = "bulk";
const HOST: &str = "bulk.test";
/// Of the requests that are measured.
const KEY: &str = "the-key-of-those-who-only-measure";
/// The single ones that are measured after the load.
const SINGLE: usize = 50;
/// How long requests are measured while nothing is loaded, in each run.
const QUIET: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    pub keys: usize,
    pub revocations: usize,
    /// In so many runs, each after a quiet time.
    pub runs: usize,
    /// Requests a second over all nodes, all the time.
    pub rate: u32,
}

#[derive(Debug)]
pub struct Bulk {
    pub amounts: Amounts,
    pub keys_took: Duration,
    pub revocations_took: Duration,
    /// The p99 of requests in each run: while nothing is loaded, and while something is.
    pub p99s: Vec<(Duration, Duration)>,
    /// One revocation each, until every node has it, sorted.
    pub single: Vec<Duration>,
}

impl Bulk {
    /// How many times as long the p99 is while something is loaded: the median of the runs.
    pub fn slower(&self) -> f64 {
        median_ratio(&self.p99s)
    }
}

/// Of the second to the first.
pub(super) fn median_ratio(pairs: &[(Duration, Duration)]) -> f64 {
    let mut ratios: Vec<f64> = pairs.iter().map(|(first, second)| second.as_secs_f64() / first.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(1.0)
}

impl fmt::Display for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Amounts { keys, revocations, runs, rate } = self.amounts;
        let [p50, p99] = [self.single.len() / 2, self.single.len() - 1].map(|at| self.single[at]);
        let (keys_took, revocations_took) = (self.keys_took, self.revocations_took);
        writeln!(f, "{keys} keys in {keys_took:.1?}, {revocations} revocations in {revocations_took:.1?}")?;
        writeln!(
            f,
            "{runs} runs under {rate} requests/s, p99 quiet and loaded: {:.1?}; median of the ratios {:.2}",
            self.p99s,
            self.slower()
        )?;
        write!(f, "one more revocation is on every node after p50 {p50:.1?}, p99 {p99:.1?}")
    }
}

pub async fn run(cluster: &Cluster, amounts: Amounts) -> anyhow::Result<Bulk> {
    let origin = Origin::start("origin").await?;
    let leader = cluster.leader().await?;
    let client = cluster.follower(leader).client().await?;
    apply_file(cluster, &json!({
        "upstreams": [{ "name": CONSUMER, "targets": [origin.address.to_string()] }],
        "consumers": [{ "name": CONSUMER }],
        "auth": [{ "name": CONSUMER, "api_key": {} }],
        "routes": [{ "name": CONSUMER, "match": { "hosts": [HOST] }, "upstream": CONSUMER, "auth": { "any_of": [CONSUMER] } }],
    }))
    .await?;
    let key = admin::NewKey { consumer: CONSUMER.into(), given: Some(Given::Text(KEY.into())), ..Default::default() };
    client.keys().create_key(admin::CreateKeyRequest { key: Some(key), ..Default::default() }).await?;
    let nodes: Vec<_> = cluster.members.iter().map(|member| member.proxy).collect();
    let mut bulk = Bulk {
        amounts,
        keys_took: Duration::ZERO,
        revocations_took: Duration::ZERO,
        p99s: Vec::new(),
        single: Vec::new(),
    };
    let batches = |all: usize, run: usize| {
        let all = all.div_ceil(BATCH);
        all * run / amounts.runs..all * (run + 1) / amounts.runs
    };
    for run in 0..amounts.runs {
        let quiet = async {
            tokio::time::sleep(QUIET).await;
            Ok(())
        };
        let ((), quiet) = latencies(&nodes, HOST, KEY, amounts.rate, quiet).await?;
        let load = async {
            let began = Instant::now();
            at_once(&client, batches(amounts.keys, run), create).await?;
            let keys_took = began.elapsed();
            let began = Instant::now();
            at_once(&client, batches(amounts.revocations, run), revoke).await?;
            Ok((keys_took, began.elapsed()))
        };
        let ((keys_took, revocations_took), loaded) = latencies(&nodes, HOST, KEY, amounts.rate, load).await?;
        bulk.keys_took += keys_took;
        bulk.revocations_took += revocations_took;
        bulk.p99s.push((p99(&quiet)?, p99(&loaded)?));
    }
    for n in 0..SINGLE {
        let began = Instant::now();
        let revocation = Some(jti(format!("single-{n}")));
        let request = admin::RevokeTokenRequest { revocation, ..Default::default() };
        let told = client.revocations().revoke_token(request).await?.into_inner();
        let served = |node: &admin::NodeReceipt| node.applied_revision >= told.revision;
        ensure!(told.nodes.iter().all(served), "a node does not serve it: {:?}", told.nodes);
        bulk.single.push(began.elapsed());
    }
    bulk.single.sort();
    cluster.check_same_state().await?;
    Ok(bulk)
}

/// Of sorted times.
pub(super) fn p99(sorted: &[Duration]) -> anyhow::Result<Duration> {
    ensure!(!sorted.is_empty(), "nothing was measured");
    Ok(sorted[(sorted.len() * 99).div_ceil(100) - 1])
}

/// These batches, some at a time.
async fn at_once<F>(client: &Admin, batches: std::ops::Range<usize>, call: fn(Admin, usize) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(batches.start));
    let mut workers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, client) = (next.clone(), client.clone());
        workers.spawn(async move {
            loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    n if n < batches.end => call(client.clone(), n).await?,
                    _ => return anyhow::Ok(()),
                }
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

async fn create(client: Admin, batch: usize) -> anyhow::Result<()> {
    let key = |n: usize| admin::NewKey {
        consumer: CONSUMER.into(),
        given: Some(Given::Text(format!("bulk-key-{batch:08}-{n:04}"))),
        ..Default::default()
    };
    let keys = (0..BATCH).map(key).collect();
    let request = admin::BatchCreateKeysRequest { keys, wait: WaitFor::Committed.into(), ..Default::default() };
    client.keys().batch_create_keys(request).await?;
    Ok(())
}

async fn revoke(client: Admin, batch: usize) -> anyhow::Result<()> {
    let revocations = (0..BATCH).map(|n| jti(format!("bulk-token-{batch:08}-{n:04}"))).collect();
    let request = admin::BatchRevokeRequest {
        revocations,
        reason: "bulk".into(),
        wait: WaitFor::Committed.into(),
        ..Default::default()
    };
    client.revocations().batch_revoke(request).await?;
    Ok(())
}

fn jti(jti: String) -> admin::NewRevocation {
    let selector = Some(admin::Selector { by: Some(By::Jti(jti)), issuer: "https://idp.test".into() });
    admin::NewRevocation { selector, expires_in: None, issued_before: None }
}
