//! Nodes change their build one by one, under load: nobody's request fails, and both builds lead and follow each other.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use quorumgate_proto::admin::v1::ConfigSet;

use super::{config, route};
use crate::{Cluster, Plan, cluster::until, load::Load, origin::Origin};

/// Answers of every node before the next step.
const WARM: u64 = 50;

#[derive(Debug, Default)]
pub struct Upgraded {
    pub requests: u64,
    /// What a client found closed while a node was between its builds, and went elsewhere.
    pub refused: u64,
    /// Writes that were acknowledged and are there at the end.
    pub writes: usize,
    pub took: Duration,
    /// Which build led while which followed.
    pub seen: Vec<&'static str>,
}

/// From `old` to `new`: a follower, back again, and forth; the other follower; then a new leader with an old follower; then
/// the last. After each step a write through every node, and equal states.
pub async fn roll(old: &Path, new: &Path, rate: u32) -> anyhow::Result<Upgraded> {
    let mut cluster = Cluster::start(Plan { binary: Some(old.to_owned()), ..Plan::of(3) }).await?;
    let origin = Origin::start("origin").await?;
    let first = cluster.leader().await?;
    cluster.follower(first).client().await?.apply(config(10, origin.address)).await?;
    let addresses: Vec<_> = cluster.members.iter().map(|member| member.proxy).collect();
    let load = Load::start(&addresses, "load.test", "/", rate);
    let mut rolled = Rolled { load, routes: Vec::new(), result: Upgraded::default() };
    let started = Instant::now();
    rolled.is_served(&mut cluster, "before anything").await?;

    let leader = cluster.leader().await?;
    let followers: Vec<usize> = (0..cluster.members.len()).filter(|at| *at != leader).collect();
    for (at, build, what) in [
        (followers[0], new, "an old leader, a new follower"),
        (followers[0], old, "a follower goes back"),
        (followers[0], new, "and forth"),
        (followers[1], new, "an old leader, two new followers"),
    ] {
        rolled.restart(&mut cluster, at, build).await?;
        rolled.is_served(&mut cluster, what).await?;
    }
    let heir = cluster.members[followers[0]].name.clone();
    cluster.members[leader].cli(&["cluster", "transfer-leader", "--to", &heir])?;
    until("a new leader", async || {
        let leads = cluster.leader().await?;
        ensure!(leads == followers[0], "{} leads", cluster.members[leads].name);
        Ok(())
    })
    .await?;
    rolled.is_served(&mut cluster, "a new leader, an old follower").await?;
    rolled.restart(&mut cluster, leader, new).await?;
    rolled.is_served(&mut cluster, "all are new").await?;

    let Rolled { load, routes, mut result } = rolled;
    for (at, tally) in load.tallies.iter().enumerate() {
        let failed = tally.failed.load(Ordering::Relaxed);
        let failures = tally.failures.lock().expect("no panic while it is held").clone();
        ensure!(failed == 0, "{failed} failed on {}: {failures:?}", cluster.members[at].name);
        result.refused += tally.refused.load(Ordering::Relaxed);
    }
    result.requests = load.total();
    result.writes = routes.len();
    result.took = started.elapsed();
    Ok(result)
}

struct Rolled {
    load: Load,
    /// The names of the routes that were written.
    routes: Vec<String>,
    result: Upgraded,
}

impl Rolled {
    async fn restart(&self, cluster: &mut Cluster, at: usize, build: &Path) -> anyhow::Result<()> {
        let member = &mut cluster.members[at];
        let code = member.terminate().await?;
        ensure!(code == 0, "{} left with {code}\n{}", member.name, member.log_tail());
        member.binary = Some(PathBuf::from(build));
        member.run()?;
        member.wait_ready().await
    }

    /// Every node answers clients and takes writes, and all have the same state.
    async fn is_served(&mut self, cluster: &mut Cluster, what: &'static str) -> anyhow::Result<()> {
        cluster.wait_voters(3).await.context(what)?;
        let before: Vec<u64> = self.load.tallies.iter().map(|tally| tally.good.load(Ordering::Relaxed)).collect();
        until("load on every node", async || {
            for (tally, before) in self.load.tallies.iter().zip(&before) {
                let good = tally.good.load(Ordering::Relaxed);
                ensure!(good >= before + WARM, "some node has answered {} only", good - before);
            }
            Ok(())
        })
        .await
        .context(what)?;
        for member in &cluster.members {
            let name = format!("written-{}", self.routes.len());
            let routes = vec![route(&name, &format!("{name}.test"), "/")];
            let written = member.client().await?.apply(ConfigSet { routes, ..Default::default() }).await;
            let written = written.with_context(|| format!("{what}: a write through {}", member.name))?;
            ensure!(written.nodes.iter().all(|node| node.applied_revision >= written.revision), "{what}: {written:?}");
            self.routes.push(name);
        }
        for member in &cluster.members {
            let shown = member.cli(&["route", "ls", "-o", "name"])?;
            let lost = self.routes.iter().find(|name| !shown.lines().any(|line| line == name.as_str()));
            ensure!(lost.is_none(), "{what}: {} has lost {lost:?}", member.name);
        }
        cluster.check_same_state().await.context(what)?;
        self.result.seen.push(what);
        Ok(())
    }
}

impl fmt::Display for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seen
            .iter()
            .try_for_each(|what| writeln!(f, "√ {what}: served, written through all three, states equal"))?;
        write!(
            f,
            "{} requests while the nodes changed their build, 0 failed ({} connections went elsewhere), {} writes kept, {:.1?}",
            self.requests, self.refused, self.writes, self.took
        )
    }
}
