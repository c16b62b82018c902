//! Load of several shapes on a healthy cluster: how much of the limit is used, and never more.

use std::{fmt, time::Duration};

use anyhow::ensure;
use serde_json::json;

use super::{Crowd, apply, auditor, config, micros, wait_sessions};
use crate::Cluster;

const HOST: &str = "shape.test";
const NAME: &str = "shape";
/// How often the hot node moves.
pub const MOVES_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Even,
    /// Nine of ten requests come in at one node.
    Skewed,
    /// The same, at another node every 15 s.
    Moving,
}

#[derive(Debug)]
pub struct Used {
    pub shape: Shape,
    pub nodes: usize,
    pub limit: usize,
    pub window: Duration,
    pub asked: u64,
    pub overshoot: u64,
    /// Admitted in each window once the shares have found their place.
    pub windows: Vec<usize>,
}

impl Used {
    /// Of what the limit admits.
    pub fn utilisation(&self) -> f64 {
        self.windows.iter().sum::<usize>() as f64 / (self.windows.len() * self.limit).max(1) as f64
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, nodes, limit, window, asked, overshoot, windows } = self;
        write!(
            f,
            "{nodes} nodes, {limit} in {window:?}, {shape:?}: {asked} requests, overshoot {overshoot}, used {:.1} % ({windows:?})",
            self.utilisation() * 100.0
        )
    }
}

/// Offers half as much again as the limit, for `count` windows after a first one.
pub async fn shape(
    cluster: &Cluster,
    shape: Shape,
    limit: usize,
    window: Duration,
    count: usize,
) -> anyhow::Result<Used> {
    let words = json!({ "limit": limit, "window": format!("{}ms", window.as_millis()) });
    apply(cluster, &config(NAME, words)).await?;
    wait_sessions(cluster).await?;
    let addresses: Vec<_> = cluster.running().map(|member| member.proxy).collect();
    let nodes = addresses.len();
    let offered = limit as f64 / window.as_secs_f64() * 1.5;
    let crowd = Crowd::start(&addresses, HOST, &rates(shape, nodes, offered, 0));
    // One window of the first shares, and half of one that nothing may hang on.
    let from = window + window / 2;
    let end = from + window * count as u32;
    while crowd.since.elapsed() < end {
        let turn = (crowd.since.elapsed().as_micros() / MOVES_EVERY.as_micros()) as usize;
        crowd.set_rates(&rates(shape, nodes, offered, turn));
        let next = MOVES_EVERY * (turn as u32 + 1);
        tokio::time::sleep_until((crowd.since + next.min(end)).into()).await;
    }
    let asked = crowd.asked();
    let admissions = crowd.stop().await?;
    ensure!(admissions.len() > limit, "only {} of {asked} requests were admitted", admissions.len());
    Ok(Used {
        shape,
        nodes,
        limit,
        window,
        asked,
        overshoot: auditor::audit(&admissions, micros(window), limit).overshoot,
        windows: auditor::per_window(&admissions, micros(from), micros(window), count),
    })
}

fn rates(shape: Shape, nodes: usize, offered: f64, turn: usize) -> Vec<f64> {
    let hot = match shape {
        Shape::Even => return vec![offered / nodes as f64; nodes],
        Shape::Skewed => 0,
        Shape::Moving => turn % nodes,
    };
    let cold = offered * 0.1 / (nodes - 1) as f64;
    (0..nodes).map(|node| if node == hot { offered * 0.9 } else { cold }).collect()
}
