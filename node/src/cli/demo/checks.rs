//! The demo's claims, each checked on the running cluster and printed with what was measured.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use quorumgate_proto::admin::v1::{
    ApplyConfigRequest, GetConfigRequest, GetStatusRequest, GetStatusResponse, ListNodesRequest, NewRevocation,
    RevokeTokenRequest, RollbackRequest, Selector, StateHashRequest, WriteResponse, rollback_request::Target, selector,
};
use tokio::time::Instant;

use super::{
    Report, figure,
    issuer::{self, Issuer},
    load::{self, Load},
    nodes::{Fleet, Node, SETTLE_MAX},
};
use crate::cli::config::{Config, source::Source};

const EXAMPLE: &str = include_str!("../../../../examples/demo.yaml");
/// The addresses in the example, which stand for the demo's upstreams.
const EXAMPLE_ADDRESSES: [&str; 3] = ["127.0.0.1:9101", "127.0.0.1:9102", "127.0.0.1:9103"];
/// The public key in the example, which stands for that of the demo's own issuer.
const EXAMPLE_KEY: [&str; 2] =
    ["wQRGtnqhORyIim8plFt4dl6ot1GD7A5FQWX15iaA-4Y", "Duq8-LBF9ACbj36dBu3tEkGYcOyBI6And1ZbypBQYtw"];
const ACCOUNT: &str = "/account";
const HOST: &str = "shop.test";
const PATH: &str = "/orders/1";
/// The example's limit is 20 in 10 s.
const LIMIT_PATH: &str = "/window";
const LIMIT: usize = 20;
const LIMIT_REQUESTS: usize = 60;
/// Requests a second over all nodes.
const LOAD_RATE: u32 = 300;
const LOAD_BEFORE: Duration = Duration::from_millis(500);
const LOAD_AFTER: Duration = Duration::from_millis(1_500);
/// What is promised is 2 s; a slow build machine that runs everything at once gets more.
const NEW_LEADER_MAX: Duration = Duration::from_secs(10);
const LATER: &str = "routes:\n- {name: later, match: {path_prefix: /later}, upstream: shop}\n";

pub async fn run(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    start(fleet, report).await?;
    let issuer = Issuer::new()?;
    apply_example(fleet, &issuer, report).await?;
    through_every_node(fleet, report).await?;
    revoke_a_token(fleet, &issuer, report).await?;
    global_limit(fleet, report).await?;
    change_and_roll_back(fleet, report).await?;
    let killed = kill_the_leader(fleet, report).await?;
    bring_back(fleet, killed, report).await?;
    same_state(fleet, report).await
}

async fn start(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    let began = Instant::now();
    fleet.nodes[0].init().await?;
    fleet.nodes[0].start()?;
    wait_leader(fleet, 0, "").await?;
    let token_file = fleet.root.join("join-token");
    std::fs::write(&token_file, fleet.nodes[0].join_token(fleet.nodes.len() - 1).await?)?;
    for at in 1..fleet.nodes.len() {
        fleet.nodes[at].join(&fleet.nodes[0], &token_file).await?;
        fleet.nodes[at].start()?;
    }
    let leader = settle(fleet).await?;
    report.holds(&format!("{} nodes up, leader {leader}", fleet.nodes.len()), figure(began.elapsed()));
    Ok(())
}

/// Until the node knows a leader other than `not`; returns its name.
async fn wait_leader(fleet: &Fleet, at: usize, not: &str) -> anyhow::Result<String> {
    fleet
        .until("a leader", SETTLE_MAX, async || {
            let status = status(fleet, &fleet.nodes[at]).await?;
            ensure!(!status.leader.is_empty() && status.leader != not, "{} knows no leader", fleet.nodes[at].name);
            Ok(status.leader)
        })
        .await
}

/// Until every running node sees the same leader, all the voters, and everybody ready.
async fn settle(fleet: &Fleet) -> anyhow::Result<String> {
    fleet
        .until("a settled cluster", SETTLE_MAX, async || {
            let mut leader = String::new();
            for node in fleet.running() {
                let seen = status(fleet, node).await?;
                ensure!(seen.voters == fleet.voters(), "{} sees {} voters", node.name, seen.voters);
                ensure!(!seen.leader.is_empty(), "{} knows no leader", node.name);
                ensure!(leader.is_empty() || leader == seen.leader, "the nodes see different leaders");
                leader = seen.leader;
                let client = fleet.client(node).await?;
                let nodes = client.cluster().list_nodes(client.ask(ListNodesRequest {})).await?.into_inner().nodes;
                let ready = nodes.iter().filter(|it| it.state == "ready").count();
                ensure!(ready == fleet.nodes.len(), "{} sees {ready} ready nodes", node.name);
            }
            Ok(leader)
        })
        .await
}

async fn status(fleet: &Fleet, node: &Node) -> anyhow::Result<GetStatusResponse> {
    let client = fleet.client(node).await?;
    Ok(client.cluster().get_status(client.ask(GetStatusRequest {})).await?.into_inner())
}

async fn apply_example(fleet: &Fleet, issuer: &Issuer, report: &mut Report) -> anyhow::Result<()> {
    let mut text = EXAMPLE.to_owned();
    let addresses = fleet.origins.addresses.iter().map(ToString::to_string);
    let real = addresses.chain(issuer.coordinates());
    for (written, real) in EXAMPLE_ADDRESSES.iter().chain(&EXAMPLE_KEY).zip(real) {
        ensure!(text.contains(written), "examples/demo.yaml has no {written}");
        text = text.replace(written, &real);
    }
    // Through a follower: any node takes a write.
    let (answer, took) = apply(fleet, 1, "examples/demo.yaml", text, "the demo's routes").await?;
    let active = active_everywhere(fleet, &answer)?;
    report.holds(&format!("examples/demo.yaml → revision {}, active on {active}", answer.revision), figure(took));
    Ok(())
}

async fn apply(
    fleet: &Fleet,
    through: usize,
    name: &str,
    text: String,
    message: &str,
) -> anyhow::Result<(WriteResponse, Duration)> {
    let source = Source { name: name.to_owned(), path: None, text };
    let config = Config::parse(vec![source]).map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let client = fleet.client(&fleet.nodes[through]).await?;
    let request = client.ask(ApplyConfigRequest {
        config: Some(config.message()),
        request_id: uuid::Uuid::new_v4().to_string(),
        message: message.to_owned(),
        ..ApplyConfigRequest::default()
    });
    let began = Instant::now();
    let answer = client.config().apply_config(request).await.context("applying")?.into_inner();
    Ok((answer, began.elapsed()))
}

/// `3/3`, or an error that names who is behind.
fn active_everywhere(fleet: &Fleet, answer: &WriteResponse) -> anyhow::Result<String> {
    let all = fleet.running().count();
    let behind: Vec<&str> = fleet
        .running()
        .map(|it| it.name.as_str())
        .filter(|name| !answer.nodes.iter().any(|it| it.name == *name && it.applied_revision >= answer.revision))
        .collect();
    ensure!(behind.is_empty(), "revision {} is not active on {}", answer.revision, behind.join(", "));
    Ok(format!("{all}/{all}"))
}

async fn through_every_node(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    let mut good = 0;
    for node in fleet.running() {
        let answer = load::get(node.proxy, HOST, PATH).await.with_context(|| format!("asking {}", node.name))?;
        ensure!(answer.status == 200, "{} answered {}: {}", node.name, answer.status, answer.body.trim_end());
        ensure!(answer.body.starts_with("orders-"), "{} went elsewhere: {}", node.name, answer.body.trim_end());
        good += 1;
    }
    report.holds("200 through every node", format!("{good}/{}", fleet.nodes.len()));
    Ok(())
}

/// A token that every node takes is revoked through the second one; the others are asked all the while.
async fn revoke_a_token(fleet: &Fleet, issuer: &Issuer, report: &mut Report) -> anyhow::Result<()> {
    let token = issuer.token("ann", "demo-1")?;
    for node in fleet.running() {
        let answer = load::get_with(node.proxy, HOST, ACCOUNT, &token).await?;
        ensure!(answer.status == 200, "{} refuses a good token: {}", node.name, answer.body.trim_end());
        let bare = load::get(node.proxy, HOST, ACCOUNT).await?;
        ensure!(bare.status == 401, "{} lets anybody in: {}", node.name, bare.status);
    }
    let through = 1;
    let others = || fleet.nodes.iter().enumerate().filter(|(at, _)| *at != through).map(|(_, node)| node);
    let refused = others().map(|node| load::get_until_refused(node.proxy, HOST, ACCOUNT, &token));
    let revoking = async {
        let client = fleet.client(&fleet.nodes[through]).await?;
        let by = selector::By::Jti("demo-1".into());
        let selector = Selector { by: Some(by), issuer: issuer::ISSUER.into() };
        let request = client.ask(RevokeTokenRequest {
            revocation: Some(NewRevocation { selector: Some(selector), ..NewRevocation::default() }),
            reason: "the demo".into(),
            request_id: uuid::Uuid::new_v4().to_string(),
            ..RevokeTokenRequest::default()
        });
        let began = Instant::now();
        client.revocations().revoke_token(request).await.context("revoking")?;
        anyhow::Ok(began)
    };
    let (began, refused) = tokio::try_join!(revoking, timeout_all(refused))?;
    let took = refused.into_iter().max().map_or(Duration::ZERO, |last| last.saturating_duration_since(began));
    let names: Vec<&str> = others().map(|node| node.name.as_str()).collect();
    let names = names.join(" and ");
    let through = &fleet.nodes[through];
    let here = load::get_with(through.proxy, HOST, ACCOUNT, &token).await?;
    ensure!(here.status == 401, "{} still takes the token", through.name);
    let fresh = load::get_with(through.proxy, HOST, ACCOUNT, &issuer.token("ann", "demo-2")?).await?;
    ensure!(fresh.status == 200, "{} refuses another token too: {}", through.name, fresh.status);
    report.holds(&format!("JWT revoked on {}, rejected on {names} after", through.name), figure(took));
    Ok(())
}

async fn timeout_all<T>(all: impl Iterator<Item = impl Future<Output = anyhow::Result<T>>>) -> anyhow::Result<Vec<T>> {
    let all = futures_util::future::try_join_all(all);
    tokio::time::timeout(SETTLE_MAX, all).await.context("a node went on taking the revoked token")?
}

/// A route is added through one node, serves on all, and a rollback takes it away again.
/// As many from everywhere at once as one limit admits, and not one more.
async fn global_limit(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    let began = Instant::now();
    let asked = (0..LIMIT_REQUESTS).map(|at| {
        let node = &fleet.nodes[at % fleet.nodes.len()];
        load::get(node.proxy, HOST, LIMIT_PATH)
    });
    let answers = futures_util::future::try_join_all(asked).await?;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    let (admitted, refused, nodes) = (count(200), count(429), fleet.nodes.len());
    ensure!(
        admitted == LIMIT && refused == LIMIT_REQUESTS - LIMIT,
        "a limit of {LIMIT}: {admitted} × 200, {refused} × 429 of {LIMIT_REQUESTS}"
    );
    let took = figure(began.elapsed());
    let told = format!("{LIMIT_REQUESTS} requests over {nodes} nodes → {admitted} × 200, {refused} × 429");
    report.holds(&format!("global limit {LIMIT}/10s: {told}"), took);
    Ok(())
}

async fn change_and_roll_back(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    let last = fleet.nodes.len() - 1;
    let before = export(fleet, 0).await?;
    let (answer, took) = apply(fleet, last, "later.yaml", LATER.to_owned(), "one more route").await?;
    let active = active_everywhere(fleet, &answer)?;
    for node in fleet.running() {
        let later = load::get(node.proxy, HOST, "/later").await?;
        ensure!(later.status == 200, "{} does not serve the new route: {}", node.name, later.status);
    }
    report.holds(&format!("one more route through {}, active on {active}", fleet.nodes[last].name), figure(took));

    let client = fleet.client(&fleet.nodes[last]).await?;
    let request = client.ask(RollbackRequest {
        target: Some(Target::Previous(true)),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..RollbackRequest::default()
    });
    let began = Instant::now();
    let answer = client.config().rollback(request).await.context("rolling back")?.into_inner();
    let took = began.elapsed();
    let active = active_everywhere(fleet, &answer)?;
    for at in 0..fleet.nodes.len() {
        ensure!(export(fleet, at).await? == before, "{} does not have what was before", fleet.nodes[at].name);
    }
    report.holds(&format!("rollback --previous restores byte for byte on {active}"), figure(took));
    Ok(())
}

async fn export(fleet: &Fleet, at: usize) -> anyhow::Result<Vec<u8>> {
    let client = fleet.client(&fleet.nodes[at]).await?;
    let answer = client.config().get_config(client.ask(GetConfigRequest::default())).await?.into_inner();
    Ok(prost::Message::encode_to_vec(&answer.config.unwrap_or_default()))
}

/// Returns the killed node's position.
async fn kill_the_leader(fleet: &Fleet, report: &mut Report) -> anyhow::Result<usize> {
    let leader = settle(fleet).await?;
    let killed = fleet.nodes.iter().position(|it| it.name == leader).context("the leader is one of ours")?;
    let survivors: Vec<usize> = (0..fleet.nodes.len()).filter(|at| *at != killed).collect();
    let proxies: Vec<_> = survivors.iter().map(|at| fleet.nodes[*at].proxy).collect();
    let load = Load::start(&proxies, HOST, PATH, LOAD_RATE);
    tokio::time::sleep(LOAD_BEFORE).await;

    fleet.nodes[killed].kill().await?;
    let began = Instant::now();
    let new = fleet
        .until("a new leader", NEW_LEADER_MAX, async || {
            for at in &survivors {
                let seen = status(fleet, &fleet.nodes[*at]).await?.leader;
                if !seen.is_empty() && seen != leader {
                    return Ok(seen);
                }
            }
            bail!("the others know none")
        })
        .await?;
    let took = began.elapsed();
    tokio::time::sleep(LOAD_AFTER).await;

    let (mut good, mut failed) = (0, 0);
    for (at, tally) in survivors.iter().zip(&load.tallies) {
        let counts = tally.counts();
        (good, failed) = (good + counts.0, failed + counts.1);
        if let Some(why) = tally.first_failure.lock().expect("no panic while it is held").as_ref() {
            report.fails(&format!("killed {leader}: a request through {} failed: {why}", fleet.nodes[*at].name));
        }
    }
    ensure!(failed == 0, "{failed} of {} requests through the surviving nodes failed", good + failed);
    ensure!(good > 0, "no request was answered");
    report.holds(&format!("killed the leader: 0 proxy errors, new leader {new} in"), figure(took));
    Ok(killed)
}

/// The killed node starts again and serves a revision that was written while it was away.
async fn bring_back(fleet: &Fleet, killed: usize, report: &mut Report) -> anyhow::Result<()> {
    let other = (killed + 1) % fleet.nodes.len();
    let (answer, _) = apply(fleet, other, "later.yaml", LATER.to_owned(), "written while a node is away").await?;
    let began = Instant::now();
    fleet.nodes[killed].start()?;
    let node = &fleet.nodes[killed];
    fleet
        .until(&format!("{} caught up", node.name), SETTLE_MAX, async || {
            let client = fleet.client(node).await?;
            let nodes = client.cluster().list_nodes(client.ask(ListNodesRequest {})).await?.into_inner().nodes;
            let own = nodes.into_iter().find(|it| it.name == node.name).context("it does not know itself")?;
            ensure!(own.revision >= answer.revision, "it serves revision {}", own.revision);
            let served = load::get(node.proxy, HOST, "/later").await?;
            ensure!(served.status == 200, "it answers {}", served.status);
            Ok(())
        })
        .await?;
    report.holds(
        &format!("started {} again, it serves revision {} after", node.name, answer.revision),
        figure(began.elapsed()),
    );
    Ok(())
}

async fn same_state(fleet: &Fleet, report: &mut Report) -> anyhow::Result<()> {
    settle(fleet).await?;
    let hashes = fleet
        .until("equal states", SETTLE_MAX, async || {
            let mut index = 0;
            let mut hashes = Vec::new();
            for node in fleet.running() {
                let client = fleet.client(node).await?;
                let answer = client.observe().state_hash(client.ask(StateHashRequest { index })).await?.into_inner();
                index = index.max(answer.index);
                hashes.push((answer.index, answer.hash));
            }
            ensure!(hashes.iter().all(|it| it == &hashes[0]), "state hashes differ: {hashes:?}");
            Ok(hashes.len())
        })
        .await?;
    report.holds("equal state hashes", format!("{hashes}/{}", fleet.nodes.len()));
    Ok(())
}
