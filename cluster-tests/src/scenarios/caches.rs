//! What nodes keep of answers: each its own, and all of them let go of it by one command.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::apply_file;
use crate::{Cluster, load::Connection, origin::Origin};

const HOST: &str = "cached.test";

#[derive(Debug)]
pub struct Purged {
    pub receipts: usize,
    /// Until every node in reach had done it.
    pub took: Duration,
}

/// Wants a cluster of three.
pub async fn purge(cluster: &Cluster) -> anyhow::Result<Purged> {
    let origin = Origin::start("kept").await?;
    let route = json!({
        "name": "cached", "match": { "hosts": [HOST] }, "upstream": "cached", "cache": { "default_ttl": "1h" },
    });
    let upstream = json!({ "name": "cached", "targets": [origin.address.to_string()] });
    apply_file(cluster, &json!({ "upstreams": [upstream], "routes": [route] })).await?;
    let paths = ["/a/1", "/a/2", "/b"];
    let all = 0..cluster.members.len();
    for at in all.clone() {
        for path in paths {
            kept(cluster, &origin, at, path).await?;
            ensure!(kept(cluster, &origin, at, path).await?, "{path} is not kept by {at}");
        }
    }
    let begun = std::time::Instant::now();
    let answer =
        cluster.members[1].cli(&["cache", "purge", "--prefix", "cached.test/a/", "-m", "why", "-o", "json"])?;
    let took = begun.elapsed();
    let answer: Value = serde_json::from_str(&answer)?;
    let receipts = answer["nodes"].as_array().context("no receipts")?;
    let done = |it: &&Value| it["applied_revision"].as_u64() >= answer["revision"].as_u64();
    ensure!(receipts.len() == 3 && receipts.iter().filter(done).count() == 3, "not done by all: {answer}");
    for at in all {
        ensure!(
            !kept(cluster, &origin, at, "/a/1").await? && !kept(cluster, &origin, at, "/a/2").await?,
            "node {at} still has it"
        );
        ensure!(kept(cluster, &origin, at, "/b").await?, "node {at} has let go of what was not meant");
    }
    let told = cluster.members[2].cli(&["audit", "ls", "-o", "json"])?;
    ensure!(told.contains("Caches/Purge") && told.contains("prefix cached.test/a/"), "{told}");
    Ok(Purged { receipts: receipts.len(), took })
}

/// Whether the answer came from the node's own memory.
async fn kept(cluster: &Cluster, origin: &Origin, at: usize, path: &str) -> anyhow::Result<bool> {
    let before = origin.asked.load(SeqCst);
    let mut connection = Connection::open(cluster.members[at].proxy).await?;
    let answer = connection.get_with(HOST, path, &[]).await?;
    ensure!(answer.status == 200 && answer.body == "kept", "{}: {}", answer.status, answer.body);
    Ok(origin.asked.load(SeqCst) == before)
}
