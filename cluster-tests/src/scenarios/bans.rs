//! Bans: one command through one node shuts somebody out on all of them, and no rollback lets him in again.

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use quorumgate_proto::admin::v1::{self as admin, selector::By};
use serde_json::{Value, json};

use super::apply_file;
use crate::{Cluster, cluster::until, load::Connection};

const HOST: &str = "banned.test";

/// Wants a cluster of three.
pub async fn shut_out(cluster: &Cluster) -> anyhow::Result<usize> {
    let route = |name: &str, path: &str| json!({ "name": name, "match": { "hosts": [HOST], "path_exact": path }, "respond": { "status": 200 } });
    let mut guarded = route("guarded", "/guarded");
    guarded["auth"] = json!({ "any_of": ["keys"] });
    let words = json!({
        "consumers": [{ "name": "acme" }, { "name": "other" }],
        "auth": [{ "name": "keys", "api_key": {} }],
        "routes": [route("open", "/open"), guarded],
    });
    apply_file(cluster, &words).await?;
    let follower = cluster.follower(cluster.leader().await?);
    let key = |consumer: &str| follower.cli(&["key", "create", consumer, "-q"]).map(|it| it.trim().to_owned());
    let (acme, other) = (key("acme")?, key("other")?);
    everywhere(cluster, "/guarded", &acme, 200).await?;

    let told: Value = serde_json::from_str(&follower.cli(&[
        "ban",
        "add",
        "consumer:acme",
        "--for",
        "1h",
        "--reason",
        "a walk",
        "-o",
        "json",
    ])?)?;
    let receipts = told["nodes"].as_array().context("no receipts")?;
    let done = receipts.iter().filter(|it| it["applied_revision"].as_u64() >= told["revision"].as_u64()).count();
    ensure!(done == 3, "not enforced by all: {told}");
    everywhere(cluster, "/guarded", &acme, 403).await?;
    everywhere(cluster, "/guarded", &other, 200).await?;
    everywhere(cluster, "/open", &acme, 200).await?;
    let url = format!("http://{HOST}/guarded");
    let explained = follower.cli(&["route", "match", "GET", &url, "--consumer", "acme"])?;
    ensure!(explained.contains("a walk") && explained.contains("consumer:acme"), "{explained}");

    let mut more = words;
    more["upstreams"] = json!([{ "name": "later", "targets": ["127.0.0.1:9"] }]);
    apply_file(cluster, &more).await?;
    follower.cli(&["rollback", "--previous", "--yes"])?;
    everywhere(cluster, "/guarded", &acme, 403).await?;
    let listed = cluster.members[0].cli(&["ban", "ls", "-o", "name"])?;
    ensure!(listed.trim() == "consumer:acme", "{listed}");
    follower.cli(&["ban", "rm", "consumer:acme"])?;
    everywhere(cluster, "/guarded", &acme, 200).await?;
    let again = follower.cli_output(&["ban", "rm", "consumer:acme"])?;
    ensure!(again.status.code() == Some(4), "{again:?}");

    // An address, before anybody is asked who he is; it ends by itself, and goes from the state.
    follower.cli(&["ban", "add", "127.0.0.0/8", "--for", "3s"])?;
    everywhere(cluster, "/open", "", 403).await?;
    until("the ban to end", async || everywhere(cluster, "/open", "", 200).await).await?;
    let gone = async || {
        let listed = cluster.members[1].cli(&["ban", "ls", "-o", "json"])?;
        ensure!(serde_json::from_str::<Value>(&listed)?["total"] == 0, "{listed}");
        Ok(())
    };
    until("the ban to be forgotten", gone).await?;
    let audit = cluster.members[2].cli(&["audit", "ls", "-o", "json"])?;
    for mention in ["Bans/AddBans", "banned consumer:acme", "a walk", "ban lifted: consumer:acme"] {
        ensure!(audit.contains(mention), "{mention} is not in {audit}");
    }
    Ok(done)
}

/// How long nobody leads in `hold_after_an_outage`: twice what its ban lasts.
const OUTAGE: Duration = Duration::from_secs(6);
/// Before it, so that a write is under way when it begins.
const WRITES: usize = 200;

/// An outage in the midst of writes, behind which another leads. If that one learns only then that the last write was
/// committed, its stamps lag by the whole outage. What is banned for less than that is shut out all the same.
pub async fn hold_after_an_outage(cluster: &Cluster) -> anyhow::Result<()> {
    let open =
        json!({ "name": "open", "match": { "hosts": [HOST], "path_exact": "/open" }, "respond": { "status": 200 } });
    apply_file(cluster, &json!({ "routes": [open] })).await?;
    everywhere(cluster, "/open", "", 200).await?;
    let leader = &cluster.members[cluster.leader().await?];
    let followers: Vec<_> = cluster.members.iter().filter(|it| it.name != leader.name).collect();
    let client = leader.client().await?;
    let (written, enough) = tokio::sync::oneshot::channel();
    let writing = tokio::spawn(async move {
        let mut written = Some(written);
        for n in 0.. {
            let selector =
                Some(admin::Selector { by: Some(By::Jti(format!("busy-{n}"))), issuer: "https://idp.test".into() });
            let revocation = Some(admin::NewRevocation { selector, ..Default::default() });
            let request = admin::RevokeTokenRequest { revocation, ..Default::default() };
            if client.revocations().revoke_token(request).await.is_err() {
                return;
            }
            if n == WRITES {
                let _ = written.take().map(|it| it.send(()));
            }
        }
    });
    enough.await.context("the writes failed")?;
    for follower in &followers {
        follower.signal(Signal::SIGSTOP)?;
    }
    // What is tested is the length of it.
    tokio::time::sleep(OUTAGE).await;
    leader.signal(Signal::SIGSTOP)?;
    for follower in &followers {
        follower.signal(Signal::SIGCONT)?;
    }
    until("another leader", async || {
        let status = followers[0].client().await?.status().await?;
        ensure!(!status.leader.is_empty() && status.leader != leader.name, "{}", status.leader);
        Ok(())
    })
    .await?;
    leader.signal(Signal::SIGCONT)?;
    writing.abort();
    cluster.wait_voters(cluster.members.len()).await?;
    followers[0].cli(&["ban", "add", "127.0.0.0/8", "--for", "3s"])?;
    everywhere(cluster, "/open", "", 403).await?;
    until("the ban to end", async || everywhere(cluster, "/open", "", 200).await).await
}

async fn everywhere(cluster: &Cluster, path: &str, key: &str, expected: u16) -> anyhow::Result<()> {
    for member in &cluster.members {
        let answer = Connection::open(member.proxy).await?.get_with(HOST, path, &[("x-api-key", key)]).await?;
        ensure!(answer.status == expected, "{path}: {} instead of {expected}: {}", answer.status, answer.body);
        ensure!(expected != 403 || answer.body.contains("\"code\":\"banned\""), "{}", answer.body);
    }
    Ok(())
}
