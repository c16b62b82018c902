//! One configuration change, from the call to every node serving it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use quorumgate_proto::admin::v1::{ConfigSet, Consumer, Redirect, WriteResponse, route::Action};

use super::{config, route};
use crate::{Cluster, load, origin::Origin};

/// Their differences fit into one entry of the log.
const CONSUMERS_AT_ONCE: usize = 20_000;

#[derive(Debug)]
pub struct Spread {
    pub first_apply: Duration,
    /// Sorted.
    pub changes: Vec<Duration>,
}

impl Spread {
    pub fn p99(&self) -> Duration {
        let at = (self.changes.len() * 99).div_ceil(100).saturating_sub(1);
        self.changes.get(at).copied().unwrap_or_default()
    }
}

/// A file of `routes` routes applied through a follower, then `changes` single-route changes, each seen through every proxy.
pub async fn spread(cluster: &Cluster, routes: usize, changes: usize) -> anyhow::Result<Spread> {
    let origin = Origin::start("origin").await?;
    let leader = cluster.leader().await?;
    let follower = cluster.follower(leader).client().await?;

    let start = Instant::now();
    let written = follower.apply(config(routes, origin.address)).await?;
    let first_apply = start.elapsed();
    check_receipts(cluster, &written)?;
    let last = routes - 1;
    for member in cluster.running() {
        let answer = load::get_host(member.proxy, &format!("h{last}.test"), &format!("/v{last}")).await?;
        ensure!(answer.status == 200 && answer.body == "origin", "{}: {} {}", member.name, answer.status, answer.body);
    }

    let mut took = Vec::with_capacity(changes);
    for n in 0..changes {
        let mut changed = route("probe", "probe.test", "/");
        let location = format!("/{n}");
        let redirect = Redirect { status: 307, path: location.clone(), ..Default::default() };
        changed.action = Some(Action::Redirect(redirect));
        let start = Instant::now();
        let written = follower.apply(ConfigSet { routes: vec![changed], ..Default::default() }).await?;
        took.push(start.elapsed());
        check_receipts(cluster, &written)?;
        for member in cluster.running() {
            let answer = load::get_host(member.proxy, "probe.test", "/").await?;
            ensure!(answer.status == 307, "{} answers {} to change {n}", member.name, answer.status);
            ensure!(answer.location.ends_with(&location), "{} serves {} at change {n}", member.name, answer.location);
        }
    }
    took.sort();
    Ok(Spread { first_apply, changes: took })
}

/// So many consumers, which a change of a route has nothing to do with. How long it took.
pub async fn consumers(cluster: &Cluster, count: usize) -> anyhow::Result<Duration> {
    let leader = cluster.leader().await?;
    let client = cluster.follower(leader).client().await?;
    let start = Instant::now();
    for from in (0..count).step_by(CONSUMERS_AT_ONCE) {
        let consumer = |n| Consumer { name: format!("consumer-{n}"), ..Default::default() };
        let consumers = (from..count.min(from + CONSUMERS_AT_ONCE)).map(consumer).collect();
        client.apply(ConfigSet { consumers, ..Default::default() }).await?;
    }
    Ok(start.elapsed())
}

/// The receipt names every running node, at the revision that was written.
pub fn check_receipts(cluster: &Cluster, written: &WriteResponse) -> anyhow::Result<()> {
    ensure!(!written.noop && written.revision > 0, "nothing was written: {written:?}");
    for member in cluster.running() {
        let receipt = written.nodes.iter().find(|receipt| receipt.name == member.name);
        let reached = receipt.is_some_and(|receipt| receipt.applied_revision >= written.revision);
        ensure!(reached, "{} does not serve revision {}: {:?}", member.name, written.revision, written.nodes);
    }
    Ok(())
}
