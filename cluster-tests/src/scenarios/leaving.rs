//! A node that is asked to stop gives back what it may spend of the cluster's budgets: nothing of it rests as after a crash.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::apply_file;
use crate::{
    Cluster,
    cluster::until,
    load::{Connection, get_host},
};

const HOST: &str = "leaving.test";
const LIMIT: u64 = 100;
/// More than the share that a node has without the ledger.
const USED: usize = 60;

/// What is had of the budget after the node is gone: all but what it has used.
pub async fn give_back(cluster: &mut Cluster) -> anyhow::Result<u64> {
    let words = json!({
        "limits": [{ "name": "held", "per": "global", "limit": LIMIT, "window": "1h" }],
        "routes": [{ "name": "held", "match": { "hosts": [HOST] }, "respond": { "status": 200 }, "limits": ["held"] }],
    });
    apply_file(cluster, &words).await?;
    let leaving = cluster.leader().await?;
    let staying = (leaving + 1) % cluster.members.len();
    let mut connection = Connection::open(cluster.members[leaving].proxy).await?;
    let mut used = 0;
    let spend = async || {
        while used < USED {
            let answer = connection.get_with(HOST, "/", &[]).await?;
            used += usize::from(answer.status == 200);
            ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
        }
        Ok(())
    };
    until("a share of the budget", spend).await?;
    let name = cluster.members[leaving].name.clone();
    let lent = async || {
        let held = held_by(&key(cluster, staying)?, &name);
        ensure!(held >= USED as u64, "{name} holds {held}");
        Ok(())
    };
    until("most of the budget is with one node", lent).await?;

    let code = cluster.members[leaving].terminate().await?;
    ensure!(code == 0, "it ended with {code}");
    let after = key(cluster, staying)?;
    let (held, quarantined) = (held_by(&after, &name), after["quarantined"].as_u64().context("a number")?);
    ensure!(held == 0 && quarantined == 0, "{name} has left with {held}, {quarantined} rest: {after}");

    let mut admitted = 0;
    let all_but_used = async || {
        while admitted < LIMIT - USED as u64 {
            let answer = get_host(cluster.members[staying].proxy, HOST, "/").await?;
            ensure!(answer.status == 200, "{} after {admitted}: {}", answer.status, answer.body);
            admitted += 1;
        }
        Ok(())
    };
    until("what was given back", all_but_used).await?;
    let over = get_host(cluster.members[staying].proxy, HOST, "/").await?;
    ensure!(over.status == 429, "{} after {admitted}", over.status);
    Ok(admitted)
}

fn key(cluster: &Cluster, at: usize) -> anyhow::Result<Value> {
    let usage: Value = serde_json::from_str(&cluster.members[at].cli(&["limit", "usage", "held", "-o", "json"])?)?;
    usage["keys"].get(0).cloned().with_context(|| format!("no key: {usage}"))
}

fn held_by(key: &Value, name: &str) -> u64 {
    key["held"][name].as_u64().unwrap_or(0)
}
