//! Nodes die at the worst moment: what was acknowledged must be there, and clients of the others must not notice.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use quorumgate_proto::admin::v1::ConfigSet;
use tokio::task::JoinSet;

use super::{config, route};
use crate::{Admin, Cluster, cluster::until, load::Load, origin::Origin};

#[derive(Debug, Default)]
pub struct Failover {
    /// From the kill to a leader that the survivors agree on, a figure a round.
    pub elections: Vec<Duration>,
    pub requests: u64,
    pub acked: usize,
}

/// Kills the leader under load and under writes, `rounds` times; each time the killed node comes back and catches up.
pub async fn kill_leader(cluster: &mut Cluster, rounds: usize, rate: u32) -> anyhow::Result<Failover> {
    let origin = Origin::start("origin").await?;
    let leader = cluster.leader().await?;
    cluster.follower(leader).client().await?.apply(config(10, origin.address)).await?;

    let mut result = Failover::default();
    let mut acked = BTreeMap::new();
    for round in 0..rounds {
        let leader = cluster.leader().await?;
        let addresses: Vec<_> = cluster.members.iter().map(|member| member.proxy).collect();
        let load = Load::start(&addresses, "load.test", "/", rate);
        let writer = Writer::start(cluster.follower(leader).client().await?, round);
        until("load on every node", async || {
            let quiet = load.tallies.iter().find(|tally| tally.good.load(Ordering::Relaxed) < 50);
            ensure!(quiet.is_none(), "some node has answered nothing yet");
            Ok(())
        })
        .await?;

        let start = Instant::now();
        cluster.members[leader].kill();
        cluster.leader().await?;
        result.elections.push(start.elapsed());

        // The survivors take writes again while the load goes on.
        let survivor = cluster.follower(leader).client().await?;
        let late = format!("late-{round}");
        let written = survivor
            .apply(ConfigSet { routes: vec![route(&late, &format!("{late}.test"), "/")], ..Default::default() });
        acked.insert(late, written.await.context("a write after the election")?.revision);
        acked.extend(writer.stop().await);

        for (at, tally) in load.tallies.iter().enumerate().filter(|(at, _)| *at != leader) {
            let failed = tally.failed.load(Ordering::Relaxed);
            let failures = tally.failures.lock().expect("no panic while it is held").clone();
            ensure!(failed == 0, "round {round}: {failed} failed on {}: {failures:?}", cluster.members[at].name);
        }
        result.requests += load.total();
        drop(load);

        cluster.members[leader].run()?;
        cluster.members[leader].wait_ready().await?;
        check_acked(cluster, &acked).await?;
        cluster.check_same_state().await?;
    }
    result.acked = acked.len();
    Ok(result)
}

/// Kills every node at once under writes and starts them all again, `rounds` times.
pub async fn kill_all(cluster: &mut Cluster, rounds: usize) -> anyhow::Result<usize> {
    let origin = Origin::start("origin").await?;
    let leader = cluster.leader().await?;
    cluster.follower(leader).client().await?.apply(config(10, origin.address)).await?;
    let mut acked = BTreeMap::new();
    for round in 0..rounds {
        let leader = cluster.leader().await?;
        let writer = Writer::start(cluster.follower(leader).client().await?, 1_000 + round);
        until("writes under way", async || {
            ensure!(writer.acked() >= 5, "{} writes so far", writer.acked());
            Ok(())
        })
        .await?;
        for member in &mut cluster.members {
            member.kill();
        }
        acked.extend(writer.stop().await);
        for member in &mut cluster.members {
            member.run()?;
        }
        for member in cluster.running() {
            member.wait_ready().await?;
        }
        cluster.leader().await?;
        check_acked(cluster, &acked).await?;
        cluster.check_same_state().await?;
    }
    Ok(acked.len())
}

/// Every acknowledged route is in every node's own state.
async fn check_acked(cluster: &Cluster, acked: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    let newest = acked.values().max().copied().unwrap_or_default();
    for member in cluster.running() {
        until(&format!("{} to catch up", member.name), async || {
            let held = member.client().await?.get_config(true).await?;
            ensure!(held.revision >= newest, "{} is at {} of {newest}", member.name, held.revision);
            let names: std::collections::BTreeSet<_> =
                held.config.unwrap_or_default().routes.into_iter().map(|route| route.name).collect();
            let lost: Vec<_> = acked.keys().filter(|name| !names.contains(*name)).collect();
            assert!(lost.is_empty(), "{} lost acknowledged routes {lost:?}", member.name);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Writes one route after another and remembers which were acknowledged.
struct Writer {
    acked: std::sync::Arc<std::sync::Mutex<BTreeMap<String, u64>>>,
    writing: JoinSet<()>,
}

impl Writer {
    fn start(client: Admin, round: usize) -> Self {
        let acked = std::sync::Arc::new(std::sync::Mutex::new(BTreeMap::new()));
        let mut writing = JoinSet::new();
        let noted = acked.clone();
        writing.spawn(async move {
            for n in 0.. {
                let name = format!("w{round}-{n}");
                let routes = vec![route(&name, &format!("{name}.test"), "/")];
                match client.apply(ConfigSet { routes, ..Default::default() }).await {
                    Ok(written) => {
                        noted.lock().expect("no panic while it is held").insert(name, written.revision);
                    }
                    // The node is gone, or the outcome is unknown: neither is an acknowledgement.
                    Err(status) if status.code() == tonic::Code::Unavailable => {
                        tokio::time::sleep(Duration::from_millis(20)).await
                    }
                    Err(_) => {}
                }
            }
        });
        Self { acked, writing }
    }

    fn acked(&self) -> usize {
        self.acked.lock().expect("no panic while it is held").len()
    }

    async fn stop(mut self) -> BTreeMap<String, u64> {
        self.writing.shutdown().await;
        self.acked.lock().expect("no panic while it is held").clone()
    }
}
