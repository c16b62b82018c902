//! How many log entries the limits cost, at a few requests a second and at many.

use std::{fmt, time::Duration};

use anyhow::Context;
use serde_json::json;

use super::{Crowd, Metrics, apply, auditor, config, micros, wait_sessions};
use crate::Cluster;

const HOST: &str = "entries.test";
const NAME: &str = "entries";

#[derive(Debug)]
pub struct Entries {
    pub nodes: usize,
    pub limit: usize,
    pub window: Duration,
    /// Requests a second, and entries a second of the log at that.
    pub at: Vec<(f64, f64)>,
    pub overshoot: u64,
}

impl fmt::Display for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, limit, window, .. } = self;
        write!(f, "{nodes} nodes, {limit} in {window:?}, overshoot {}; log entries a second:", self.overshoot)?;
        self.at.iter().try_for_each(|(requests, entries)| write!(f, " {entries:.1} at {requests:.0} requests/s;"))
    }
}

/// Each rate for `each` long, after as long again for the shares to find their place.
pub async fn entries(
    cluster: &Cluster,
    limit: usize,
    window: Duration,
    rates: &[f64],
    each: Duration,
) -> anyhow::Result<Entries> {
    let words = json!({ "limit": limit, "window": format!("{}ms", window.as_millis()) });
    apply(cluster, &config(NAME, words)).await?;
    wait_sessions(cluster).await?;
    let addresses: Vec<_> = cluster.running().map(|member| member.proxy).collect();
    let nodes = addresses.len();
    let crowd = Crowd::start(&addresses, HOST, &vec![0.0; nodes]);
    let mut at = Vec::new();
    for rate in rates {
        crowd.set_rates(&vec![rate / nodes as f64; nodes]);
        tokio::time::sleep(each).await;
        let (index, asked, began) = (log_index(cluster).await?, crowd.asked(), crowd.now_us());
        tokio::time::sleep(each).await;
        let seconds = (crowd.now_us() - began) as f64 / 1e6;
        let per_second = |count: u64| count as f64 / seconds;
        at.push((per_second(crowd.asked() - asked), per_second(log_index(cluster).await? - index)));
    }
    let admissions = crowd.stop().await?;
    let overshoot = auditor::audit(&admissions, micros(window), limit).overshoot;
    Ok(Entries { nodes, limit, window, at, overshoot })
}

async fn log_index(cluster: &Cluster) -> anyhow::Result<u64> {
    let member = cluster.running().next().context("a node that runs")?;
    let metrics = Metrics::of(member.telemetry).await?;
    Ok(metrics.sum("quorumgate_raft_last_log_index") as u64)
}
