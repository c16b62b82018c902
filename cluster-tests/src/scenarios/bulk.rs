//! A million keys and a million revocations through the API, then one more revocation: how fast they are taken, and
//! whether what is there already slows the next one down.

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
use tokio::task::JoinSet;

use crate::{Cluster, admin::Admin};

/// The most that one call may bring.
const BATCH: usize = 1_000;
/// Calls at a time.
const IN_FLIGHT: usize = 8;
const CONSUMER: &str = "bulk";
/// The single ones that are measured after the load.
const SINGLE: usize = 50;

#[derive(Debug)]
pub struct Bulk {
    pub keys: usize,
    pub keys_took: Duration,
    pub revocations: usize,
    pub revocations_took: Duration,
    /// One revocation each, until every node has it, sorted.
    pub single: Vec<Duration>,
}

impl fmt::Display for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [self.single.len() / 2, self.single.len() - 1].map(|at| self.single[at]);
        write!(
            f,
            "{} keys in {:.1?}, {} revocations in {:.1?}; one more revocation is on every node after p50 {p50:.1?}, p99 {p99:.1?}",
            self.keys, self.keys_took, self.revocations, self.revocations_took
        )
    }
}

pub async fn run(cluster: &Cluster, keys: usize, revocations: usize) -> anyhow::Result<Bulk> {
    let leader = cluster.leader().await?;
    let client = cluster.follower(leader).client().await?;
    let consumers = vec![admin::Consumer { name: CONSUMER.into(), ..Default::default() }];
    client.apply(admin::ConfigSet { consumers, ..Default::default() }).await?;
    let began = Instant::now();
    at_once(&client, keys.div_ceil(BATCH), create).await?;
    let keys_took = began.elapsed();
    let began = Instant::now();
    at_once(&client, revocations.div_ceil(BATCH), revoke).await?;
    let revocations_took = began.elapsed();
    let mut single = Vec::new();
    for n in 0..SINGLE {
        let began = Instant::now();
        let revocation = Some(jti(format!("single-{n}")));
        let request = admin::RevokeTokenRequest { revocation, ..Default::default() };
        let told = client.revocations().revoke_token(request).await?.into_inner();
        let served = |node: &admin::NodeReceipt| node.applied_revision >= told.revision;
        ensure!(told.nodes.iter().all(served), "a node does not serve it: {:?}", told.nodes);
        single.push(began.elapsed());
    }
    single.sort();
    cluster.check_same_state().await?;
    Ok(Bulk { keys, keys_took, revocations, revocations_took, single })
}

/// `count` batches, some at a time.
async fn at_once<F>(client: &Admin, count: usize, call: fn(Admin, usize) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, client) = (next.clone(), client.clone());
        workers.spawn(async move {
            loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    n if n < count => call(client.clone(), n).await?,
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
