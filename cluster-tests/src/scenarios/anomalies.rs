//! Four attacks, each spread over all nodes so that no node sees too much of it, beside a client that is only busy: what all have
//! seen together bans the attackers on every node, and nobody else.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::apply_file;
use crate::{Cluster, cluster::until, load::Connection, origin::Origin};

const HOST: &str = "watched.test";
const HOOK_SECRET: &str = "plain:0123456789abcdef0123456789abcdef";
/// 4 KiB.
const PAGE: &str = match std::str::from_utf8(&[b'x'; 4 << 10]) {
    Ok(page) => page,
    Err(_) => panic!("it is ASCII"),
};
/// More than that of anything is unusual; each node sees half of it of an attack.
const OVER: u64 = 60;
const OF_A_NODE: u64 = OVER / 2;

#[derive(Debug)]
pub struct Found {
    /// Who, and how long after the last request of the attack no node let it in any more.
    pub banned: Vec<(String, Duration)>,
    pub busy_requests: u64,
}

/// Somebody at an address of his own, with a key or none.
struct Client {
    at: IpAddr,
    key: String,
}

impl Client {
    fn new(at: u8, key: &str) -> Self {
        Self { at: Ipv4Addr::new(127, 0, 0, at).into(), key: key.to_owned() }
    }

    /// The same number of requests at each node, each in its turn: the places that `path` says, counted over all.
    async fn spread(&self, cluster: &Cluster, of_a_node: u64, path: impl Fn(u64) -> String) -> anyhow::Result<u64> {
        let mut connections = Vec::new();
        for member in &cluster.members {
            connections.push(Connection::open_from(self.at, member.proxy).await?);
        }
        let nodes = connections.len() as u64;
        for number in 0..of_a_node * nodes {
            let connection = &mut connections[(number % nodes) as usize];
            // Guesses are another one each time.
            let key = self.key.replace("{}", &number.to_string());
            connection.get_with(HOST, &path(number), &[("x-api-key", &key)]).await?;
        }
        Ok(of_a_node * nodes)
    }

    async fn status(&self, cluster: &Cluster, at: usize, path: &str) -> anyhow::Result<(u16, String)> {
        let mut connection = Connection::open_from(self.at, cluster.members[at].proxy).await?;
        let answer = connection.get_with(HOST, path, &[("x-api-key", &self.key)]).await?;
        Ok((answer.status, answer.body))
    }

    async fn banned_everywhere(&self, cluster: &Cluster, path: &str) -> anyhow::Result<()> {
        for at in 0..cluster.members.len() {
            let (status, body) = self.status(cluster, at, path).await?;
            ensure!(status == 403 && body.contains("\"code\":\"banned\""), "{path} at {at}: {status} {body}");
        }
        Ok(())
    }
}

/// Wants a cluster of three.
pub async fn find(cluster: &Cluster) -> anyhow::Result<Found> {
    let origin = Origin::start(PAGE).await?;
    // A window that outlasts the slowest machine.
    let hook = Origin::start("thanks").await?;
    let webhook =
        json!({ "url": format!("http://{}/hook", hook.address), "secret": HOOK_SECRET, "allow_private": true });
    let watch = |name: &str, per: &str, over: Value| {
        let words = json!({
            "per": per, "window": "30m", "over": over, "action": "ban", "hold": "1h", "webhook": webhook.clone(),
        });
        json!({ "name": name, "anomaly": words })
    };
    let route = |name: &str, policies: &[&str]| {
        let matches = json!({ "hosts": [HOST], "path_prefix": format!("/{name}") });
        json!({ "name": name, "match": matches, "upstream": "pages", "policies": policies })
    };
    let guarded = |name: &str, policies: &[&str]| {
        let mut route = route(name, policies);
        route["auth"] = json!({ "any_of": ["keys"] });
        route
    };
    apply_file(
        cluster,
        &json!({
            "consumers": [{ "name": "walker" }, { "name": "leak" }, { "name": "busy" }],
            "auth": [{ "name": "keys", "api_key": {} }],
            "upstreams": [{ "name": "pages", "targets": [origin.address.to_string()] }],
            "policies": [
                watch("bola", "consumer", json!({ "objects": OVER })),
                watch("stuffing", "ip", json!({ "credentials": OVER })),
                watch("scraping", "ip", json!({ "sequential": OVER })),
                watch("exfiltration", "consumer", json!({ "bytes_out": OVER * PAGE.len() as u64 })),
            ],
            "routes": [
                guarded("orders", &["bola", "stuffing"]),
                route("items", &["scraping"]),
                guarded("export", &["exfiltration"]),
            ],
        }),
    )
    .await?;
    let follower = cluster.follower(cluster.leader().await?);
    let key = |consumer: &str| follower.cli(&["key", "create", consumer, "-q"]).map(|it| it.trim().to_owned());
    let (walker, leak, busy) =
        (Client::new(11, &key("walker")?), Client::new(12, &key("leak")?), Client::new(13, &key("busy")?));
    let (stuffer, scraper) = (Client::new(14, "qg_guess_{}"), Client::new(15, ""));
    for at in 0..cluster.members.len() {
        let (status, body) = busy.status(cluster, at, "/orders/1").await?;
        ensure!(status == 200, "the key is not known at {at}: {status} {body}");
    }

    // Busy: more requests than any of them, for few things of its own, and fewer bytes.
    let busy_requests = busy.spread(cluster, 3 * OF_A_NODE, |number| format!("/orders/{}", number % 20)).await?
        + busy.spread(cluster, 3 * OF_A_NODE, |number| format!("/items/{}", number % 20)).await?;
    let mut banned = Vec::new();
    for (client, who, path) in [
        (&walker, "consumer:walker", "/orders/900{}"),
        (&stuffer, "127.0.0.14", "/orders/1"),
        (&scraper, "127.0.0.15", "/items/{}"),
        (&leak, "consumer:leak", "/export/all"),
    ] {
        client.spread(cluster, OF_A_NODE, |number| path.replace("{}", &number.to_string())).await?;
        let begun = Instant::now();
        until(&format!("{who} is banned"), async || client.banned_everywhere(cluster, &path.replace("{}", "1")).await)
            .await?;
        banned.push((who.to_owned(), begun.elapsed()));
    }
    for at in 0..cluster.members.len() {
        for path in ["/orders/1", "/items/1", "/export/all"] {
            let (status, body) = busy.status(cluster, at, path).await?;
            ensure!(status == 200, "a busy client is let in at {at}: {status} {body}");
        }
    }

    // The list says by whom, and why; every node knows who was found.
    let listed: Value = serde_json::from_str(&follower.cli(&["ban", "ls", "-o", "json"])?)?;
    let bans = listed["bans"].as_array().context("no bans")?;
    ensure!(bans.len() == banned.len(), "{listed}");
    for (subject, actor, reason) in [
        ("consumer:walker", "anomaly/bola", "objects "),
        ("127.0.0.14", "anomaly/stuffing", "credentials "),
        ("127.0.0.15", "anomaly/scraping", "sequential "),
        ("consumer:leak", "anomaly/exfiltration", "bytes_out "),
    ] {
        let ban = bans.iter().find(|it| it["subject"] == subject).with_context(|| format!("{subject} in {listed}"))?;
        let why = ban["reason"].as_str().unwrap_or_default();
        ensure!(ban["actor"] == actor && why.contains(reason) && why.contains("on 3 nodes"), "{ban}");
    }
    until("every node knows who was found", async || {
        for member in &cluster.members {
            let known: Value = serde_json::from_str(&member.cli(&["anomaly", "ls", "-o", "json"])?)?;
            let found = known["anomalies"].as_array().context("no anomalies")?;
            let states = found.iter().filter(|it| it["state"] == "banned").count();
            ensure!(states == banned.len(), "{} knows {known}", member.name);
            ensure!(!found.iter().any(|it| it["key"] == "busy" && it["state"] != "watched"), "{known}");
        }
        Ok(())
    })
    .await?;
    // Each was told of once, by the leader alone.
    until("the webhook was told of each", async || {
        let told = hook.asked.load(SeqCst);
        ensure!(told == banned.len(), "{told} messages");
        Ok(())
    })
    .await?;
    let audit = follower.cli(&["audit", "ls", "-o", "json"])?;
    ensure!(audit.contains("anomaly/bola") && audit.contains("banned consumer:walker"), "{audit}");
    // Whom an operator lets in again is not found for the same a second time.
    follower.cli(&["ban", "rm", "consumer:walker"])?;
    for at in 0..cluster.members.len() {
        let (status, body) = walker.status(cluster, at, "/orders/1").await?;
        ensure!(status == 200, "{status} {body}");
    }
    let told = hook.asked.load(SeqCst);
    ensure!(told == banned.len(), "{told} messages to the webhook of {} callers", banned.len());
    Ok(Found { banned, busy_requests })
}
