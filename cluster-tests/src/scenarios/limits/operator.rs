//! What an operator sees and does: usage over all nodes, a reset, a bonus, and a node that does not answer.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{apply, auditor, config, exact::use_up, micros, wait_sessions};
use crate::{Cluster, cluster::until};

const LIMIT: usize = 60;
const BONUS: usize = 7;
const HOST: &str = "operator.test";
const WHO: [(&str, &str); 1] = [("x-who", "acme")];

#[derive(Debug)]
pub struct Operated {
    /// As the node that was asked said, after a few requests at each: shares go without saying.
    pub few: usize,
    pub used_up: usize,
    pub after_reset: usize,
    pub bonus: usize,
    /// Until a reset and a bonus were answered.
    pub reset_took: Duration,
    pub grant_took: Duration,
}

/// Wants a cluster of three; one of them is dead in the end.
pub async fn operator(cluster: &mut Cluster, window: Duration) -> anyhow::Result<Operated> {
    let words = json!({ "per": { "header": "x-who" }, "limit": LIMIT, "window": format!("{}ms", window.as_millis()) });
    apply(cluster, &config("operator", words)).await?;
    wait_sessions(cluster).await?;
    let since = Instant::now();
    let mut sent = 0;
    for (member, count) in cluster.members.iter().zip([3, 2, 4]) {
        for _ in 0..count {
            let mut connection = crate::load::Connection::open(member.proxy).await?;
            let answer = connection.get_with(HOST, "/", &WHO).await?;
            ensure!(answer.status == 200, "{} answers {}: {}", member.name, answer.status, answer.body);
            sent += 1;
        }
    }
    let few = used(cluster, 1, "acme")?;
    ensure!(few == sent, "{few} used of {sent} that were admitted: {}", usage(cluster, 1)?);
    let key = key(&usage(cluster, 2)?, "acme")?;
    ensure!(key["held"].as_object().is_some_and(|held| held.len() == 3), "not held by three: {key}");
    ensure!(key["limit"] == LIMIT && key["resets_in"].is_string(), "{key}");
    let by = ask(cluster, 0, &["limit", "usage", "operator", "--by", "region"])?;
    ensure!(by["groups"].as_array().is_some_and(|it| it.len() == 3), "{by}");

    let first = use_up(cluster, HOST, &WHO, since).await?;
    let used_up = used(cluster, 0, "acme")?;
    ensure!(used_up == LIMIT && first.len() + sent == LIMIT, "{used_up} used, {} admitted", first.len() + sent);
    until("a warning that the key is used up", async || {
        let told = |at: usize| std::fs::read_to_string(cluster.members[at].log_file()).unwrap_or_default();
        let lines = (0..cluster.members.len()).map(|at| told(at).matches("a key has come near its limit").count());
        ensure!(lines.sum::<usize>() > 0, "nobody has told it");
        Ok(())
    })
    .await?;
    let told = explained(cluster)?;
    ensure!(told.contains(&format!("{LIMIT} of {LIMIT} used")), "route match says: {told}");

    let reset = Instant::now();
    cluster.members[1].cli(&["limit", "reset", "operator", "--key", "acme", "-m", "an outage of ours"])?;
    let reset_took = reset.elapsed();
    ensure!(used(cluster, 2, "acme")? == 0, "not forgotten: {}", usage(cluster, 2)?);
    let again = use_up(cluster, HOST, &WHO, since).await?;
    let grant = Instant::now();
    let amount = BONUS.to_string();
    cluster.members[2].cli(&["limit", "grant", "operator", "--key", "acme", "--amount", &amount])?;
    let grant_took = grant.elapsed();
    let more = use_up(cluster, HOST, &WHO, since).await?;
    ensure!(since.elapsed() < window, "the machine was too slow for a window of {window:?}");
    let after = [again.clone(), more.clone()].concat();
    let overshoot = auditor::audit(&after, micros(window), LIMIT + BONUS).overshoot;
    ensure!(overshoot == 0, "{overshoot} more than limit and bonus since the reset");

    let audit = cluster.members[0].cli(&["audit", "ls", "-o", "json"])?;
    for words in ["an outage of ours", "LimitUsage/ResetUsage", "LimitUsage/GrantBonus"] {
        ensure!(audit.contains(words), "the audit trail has no {words:?}");
    }
    let wrong = cluster.members[0].cli_output(&["limit", "usage", "nothing"])?;
    ensure!(wrong.status.code() == Some(4), "an unknown limit exits {:?}", wrong.status.code());

    cluster.members[2].kill();
    until("the dead node to be named", async || {
        let json = usage(cluster, 0)?;
        ensure!(json["unanswered"] == json!(["n3"]), "{}", json["unanswered"]);
        Ok(())
    })
    .await?;
    Ok(Operated { few, used_up, after_reset: again.len(), bonus: more.len(), reset_took, grant_took })
}

fn ask(cluster: &Cluster, at: usize, args: &[&str]) -> anyhow::Result<Value> {
    let text = cluster.members[at].cli(&[args, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| text)
}

fn usage(cluster: &Cluster, at: usize) -> anyhow::Result<Value> {
    ask(cluster, at, &["limit", "usage", "operator"])
}

fn used(cluster: &Cluster, at: usize, who: &str) -> anyhow::Result<usize> {
    let key = key(&usage(cluster, at)?, who)?;
    Ok(key["used"].as_u64().context("a number")? as usize)
}

fn key(usage: &Value, who: &str) -> anyhow::Result<Value> {
    let keys = usage["keys"].as_array().context("keys")?;
    keys.iter().find(|it| it["key"] == who).cloned().with_context(|| format!("no key {who}: {usage}"))
}

fn explained(cluster: &Cluster) -> anyhow::Result<String> {
    let url = format!("http://{HOST}/");
    cluster.members[0].cli(&["route", "match", "GET", &url, "-H", "x-who:acme"])
}
