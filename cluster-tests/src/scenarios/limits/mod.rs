//! The promise of the limits on real clusters: no window over the limit, whatever happens, and little of it unused.

pub mod auditor;
mod calendar;
mod crowd;
mod entries;
mod exact;
mod faults;
mod operator;
mod shapes;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

pub use self::{
    calendar::{Counted, calendar},
    crowd::Crowd,
    entries::{Entries, entries},
    exact::{Begun, Edits, Flights, Restored, Tiny, begun_period, concurrency, edits, restored, tiny},
    faults::{Cut, Killed, SESSION, cut_off, kill},
    operator::{Operated, operator},
    shapes::{Shape, Used, shape},
};
use crate::{
    Cluster,
    cluster::until,
    load::{Answer, Connection},
};

/// Every route here answers by itself: what is measured is the limit.
pub fn config(name: &'static str, limit: Value) -> Value {
    let mut words = json!({ "name": name, "per": "global" });
    let fields = limit.as_object().into_iter().flatten();
    fields.for_each(|(field, value)| words[field] = value.clone());
    json!({
        "limits": [words],
        "routes": [{
            "name": name, "match": { "hosts": [format!("{name}.test")] }, "limits": [name],
            "respond": { "status": 200, "body": "admitted" },
        }],
    })
}

/// Applies words through a follower and waits until every node serves them.
pub async fn apply(cluster: &Cluster, words: &Value) -> anyhow::Result<()> {
    let file = cluster.dir.path().join("limits.json");
    std::fs::write(&file, words.to_string())?;
    let file = file.to_str().context("a path in UTF-8")?;
    let asked = cluster.running().next().context("a node that runs")?;
    asked.cli(&["apply", "-f", file]).map(drop)
}

/// Until every running node has a session, and budgets are cut into as many shares as there are nodes.
pub async fn wait_sessions(cluster: &Cluster) -> anyhow::Result<()> {
    let nodes = cluster.running().count() as f64;
    until("a session on every node", async || {
        for member in cluster.running() {
            let metrics = Metrics::of(member.telemetry).await?;
            let left = metrics.sum("quorumgate_ratelimit_session_seconds");
            ensure!(left > 0.0, "{} has no session", member.name);
            let divisor = metrics.sum("quorumgate_ratelimit_divisor");
            ensure!(divisor >= nodes, "{} cuts budgets into {divisor}", member.name);
        }
        Ok(())
    })
    .await
}

/// One scrape of a node.
pub struct Metrics(String);

impl Metrics {
    pub async fn of(telemetry: SocketAddr) -> anyhow::Result<Self> {
        let answer = crate::load::get(telemetry, "/metrics").await?;
        ensure!(answer.status == 200, "/metrics answers {}", answer.status);
        Ok(Self(answer.body))
    }

    /// Over all labels.
    pub fn sum(&self, family: &str) -> f64 {
        self.lines(family).map(|(_, value)| value).sum()
    }

    /// Where the labels have these words.
    pub fn sum_where(&self, family: &str, words: &[&str]) -> f64 {
        let fits = |labels: &str| words.iter().all(|word| labels.contains(word));
        self.lines(family).filter(|(labels, _)| fits(labels)).map(|(_, value)| value).sum()
    }

    fn lines<'a>(&'a self, family: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(family)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let ends = labels.is_empty() || labels.starts_with('{');
            ends.then_some((labels, value.parse().ok()?))
        })
    }
}

/// One request on a connection that is kept; opened if there is none.
pub(super) async fn get_on(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    host: &str,
) -> anyhow::Result<Answer> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(address).await?,
    };
    let answer = open.get_with(host, "/", &[]).await?;
    *connection = Some(open);
    Ok(answer)
}

/// One request on a connection of its own, with when it began and ended.
async fn once(address: SocketAddr, host: &str, since: Instant) -> anyhow::Result<(Answer, auditor::Admission)> {
    let first_us = since.elapsed().as_micros() as u64;
    let answer = crate::load::get_host(address, host, "/").await?;
    Ok((answer, auditor::Admission { first_us, answer_us: since.elapsed().as_micros() as u64 }))
}

fn micros(length: Duration) -> u64 {
    length.as_micros() as u64
}

fn ok(holds: bool) -> &'static str {
    if holds { "√" } else { "×" }
}
