//! Five nodes in three regions: commit times at the leader, and the loss of a whole region.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use quorumgate_proto::admin::v1::ConfigSet;

use super::{config, route};
use crate::{Cluster, Plan, cluster::until, load, origin::Origin};

#[derive(Debug)]
pub struct Wan {
    /// To the second-nearest other voter, with whom the leader has three of five.
    pub quorum_rtt: Duration,
    pub commit_p50: Duration,
    pub commit_p99: Duration,
    /// At the nearest follower of another region: the leader's own time and the way there and back.
    pub follower_rtt: Duration,
    pub follower_p50: Duration,
    /// From the death of the leader's region to the first write that is acknowledged.
    pub region_loss: Duration,
    /// Terms that this took: one, and one more for each vote that the survivors split.
    pub elections: u32,
}

/// 2 · election_max + 4 · max_rtt at 200 ms, and a receipt of one write.
const REGION_LOSS_MAX: Duration = Duration::from_millis(4_800 + 1_200);

/// What a split vote adds: election_max until the next candidate, and its pre-vote and vote.
const SPLIT_VOTE_MAX: Duration = Duration::from_millis(2_000 + 2 * 200);

impl Wan {
    /// How long writes may have been away. With all three survivors needed, a split vote is no rarity.
    pub fn region_loss_max(&self) -> Duration {
        REGION_LOSS_MAX + SPLIT_VOTE_MAX * (self.elections - 1)
    }
}

impl fmt::Display for Wan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "five nodes, 80–200 ms apart: round trip to the quorum {:?}, commit at the leader p50 {:?}, p99 {:?}, at a follower {:?} away p50 {:?}; region lost, writing again after {:?} and {} elections",
            self.quorum_rtt,
            self.commit_p50,
            self.commit_p99,
            self.follower_rtt,
            self.follower_p50,
            self.region_loss,
            self.elections
        )
    }
}

/// eu, eu, us, us, ap.
const REGIONS: [&str; 5] = ["eu", "eu", "us", "us", "ap"];

fn round_trip(a: usize, b: usize) -> Duration {
    let millis = match [REGIONS[a.min(b)], REGIONS[a.max(b)]] {
        [x, y] if x == y => 2,
        ["eu", "us"] => 80,
        ["us", "ap"] => 160,
        _ => 200,
    };
    Duration::from_millis(millis)
}

pub async fn run(writes: usize) -> anyhow::Result<Wan> {
    let regions = REGIONS.map(String::from).to_vec();
    let plan = Plan { regions, max_rtt: "200ms", round_trip: Some(round_trip), ..Plan::of(0) };
    let mut cluster = Cluster::start(plan).await?;
    let origin = Origin::start("origin").await?;
    let leader = cluster.leader().await?;
    let client = cluster.members[leader].client().await?;
    client.apply(config(10, origin.address)).await?;

    let mut took = commits(&cluster, leader, writes).await?;
    took.sort();
    let mut distances: Vec<_> =
        (0..REGIONS.len()).filter(|at| *at != leader).map(|at| round_trip(leader, at)).collect();
    distances.sort();

    // In another region: the nearest may be beside the leader.
    let away = (0..REGIONS.len()).filter(|at| REGIONS[*at] != REGIONS[leader]);
    let follower = away.min_by_key(|at| round_trip(leader, *at)).context("another region")?;
    let mut at_follower = commits(&cluster, follower, writes).await?;
    at_follower.sort();

    let term = client.status().await?.term;
    let lost_region = cluster.members[leader].region.clone();
    let start = Instant::now();
    for member in cluster.members.iter_mut().filter(|member| member.region == lost_region) {
        member.kill();
    }
    let mut n = 0;
    until("writes after the loss of a region", async || {
        n += 1;
        let survivor = cluster.running().next().context("a survivor")?.client().await?;
        let name = format!("after-{n}");
        survivor
            .apply(ConfigSet { routes: vec![route(&name, &format!("{name}.test"), "/")], ..Default::default() })
            .await?;
        Ok(())
    })
    .await?;
    let region_loss = start.elapsed();
    let survivor = cluster.running().next().context("a survivor")?;
    let terms = survivor.client().await?.status().await?.term.saturating_sub(term);
    ensure!(terms > 0, "writing again in the term of the leader that was killed");
    for member in cluster.running() {
        let answer = load::get_host(member.proxy, "load.test", "/").await?;
        ensure!(answer.status == 200, "{}: {}", member.name, answer.status);
    }
    Ok(Wan {
        quorum_rtt: distances[1],
        commit_p50: took[took.len() / 2],
        commit_p99: took[(took.len() * 99).div_ceil(100) - 1],
        follower_rtt: round_trip(leader, follower),
        follower_p50: at_follower[at_follower.len() / 2],
        region_loss,
        elections: u32::try_from(terms)?,
    })
}

/// Tokens are written without a receipt from every node: what is measured is the commit alone.
async fn commits(cluster: &Cluster, at: usize, writes: usize) -> anyhow::Result<Vec<Duration>> {
    let client = cluster.members[at].client().await?;
    let mut took = Vec::with_capacity(writes);
    for _ in 0..writes {
        let start = Instant::now();
        client.create_join_token().await?;
        took.push(start.elapsed());
    }
    Ok(took)
}
