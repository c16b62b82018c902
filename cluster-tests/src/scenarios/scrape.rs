//! A node with thousands of routes, each of them called, is scraped each second: how long that takes, and whether requests
//! are slower meanwhile.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{bulk::p99, config};
use crate::{
    Cluster,
    load::{self, Connection, latencies},
    origin::Origin,
};

const HOST: &str = "load.test";
/// More often than anybody scrapes: requests meet a scrape far more often than in earnest.
const EVERY: Duration = Duration::from_secs(1);
/// Scrapes of one run; as many seconds without any come before.
const SCRAPES: usize = 10;

#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    pub routes: usize,
    pub runs: usize,
    /// Requests a second.
    pub rate: u32,
}

#[derive(Debug)]
pub struct Scrape {
    pub amounts: Amounts,
    /// Of one answer.
    pub bytes: usize,
    /// Each scrape until its last byte, sorted.
    pub took: Vec<Duration>,
    /// The p99 of requests in each run: while nobody scrapes, and while somebody does.
    pub p99s: Vec<(Duration, Duration)>,
}

impl Scrape {
    pub fn median(&self) -> Duration {
        self.took[self.took.len() / 2]
    }

    /// How many times as long the p99 is while somebody scrapes: the median of the runs.
    pub fn slower(&self) -> f64 {
        super::bulk::median_ratio(&self.p99s)
    }
}

impl fmt::Display for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Amounts { routes, runs, rate } = self.amounts;
        let (median, slowest) = (self.median(), self.took[self.took.len() - 1]);
        writeln!(
            f,
            "{routes} routes: {} scrapes of {} bytes, median {median:.1?}, slowest {slowest:.1?}",
            self.took.len(),
            self.bytes
        )?;
        write!(
            f,
            "{runs} runs under {rate} requests/s, p99 without and with: {:.1?}; median of the ratios {:.2}",
            self.p99s,
            self.slower()
        )
    }
}

pub async fn run(cluster: &Cluster, amounts: Amounts) -> anyhow::Result<Scrape> {
    let origin = Origin::start("origin").await?;
    let node = &cluster.members[0];
    node.client().await?.apply(config(amounts.routes, origin.address)).await?;
    let mut connection = Connection::open(node.proxy).await?;
    for n in 1..amounts.routes {
        let answer = connection.get_with(&format!("h{n}.test"), &format!("/v{n}"), &[]).await?;
        ensure!(answer.status == 200, "route {n}: {}: {}", answer.status, answer.body);
    }
    let mut scrape = Scrape { amounts, bytes: 0, took: Vec::new(), p99s: Vec::new() };
    let nodes = [node.proxy];
    for _ in 0..amounts.runs {
        let nobody = async {
            tokio::time::sleep(EVERY * SCRAPES as u32).await;
            Ok(())
        };
        let ((), without) = latencies(&nodes, HOST, "", amounts.rate, nobody).await?;
        let somebody = async {
            let mut ticks = tokio::time::interval(EVERY);
            for _ in 0..SCRAPES {
                ticks.tick().await;
                let began = Instant::now();
                let answer = load::get(node.telemetry, "/metrics").await?;
                scrape.took.push(began.elapsed());
                let last = format!("route=\"route-{}\"", amounts.routes - 1);
                ensure!(answer.status == 200 && answer.body.contains(&last), "{}: not every route", answer.status);
                scrape.bytes = answer.body.len();
            }
            Ok(())
        };
        let ((), with) = latencies(&nodes, HOST, "", amounts.rate, somebody).await?;
        scrape.p99s.push((p99(&without)?, p99(&with)?));
    }
    scrape.took.sort();
    scrape.took.first().context("no run was asked for")?;
    Ok(scrape)
}
