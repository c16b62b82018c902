//! `cluster`: how it is, its settings, its leader, and whether all nodes hold the same state.

use quorumgate_proto::admin::v1::{
    GetStatusRequest, GetStatusResponse, SetMaxRttRequest, StateHashRequest, TransferLeaderRequest, VerifyStateRequest,
};
use serde_json::json;

use super::{backup, doctor, rotate_ca, rotate_sealing_key};
use crate::cli::{
    args::{self, Cluster, ClusterSet, Form, Global},
    client::Client,
    failure::{Failure, Outcome},
    output::Answer,
    shape, status,
    write::{self, Wrote},
};

const LOOK: &str = "look with `quorumgate cluster status`; repeating it is safe";

pub async fn run(global: &Global, verb: Cluster) -> Outcome {
    if let (Cluster::Health, Form::Nagios) = (&verb, global.output) {
        let asked = async { ask(&Client::connect(global).await?).await };
        return doctor::nagios(asked.await.map(|status| doctor::of_health(&status)));
    }
    let client = Client::connect(global).await?;
    match verb {
        Cluster::Status => print(global, &ask(&client).await?),
        Cluster::Health => {
            let status = ask(&client).await?;
            print(global, &status)?;
            if status.healthy { Ok(()) } else { Err(Failure::negative()) }
        }
        Cluster::Set(ClusterSet::MaxRtt { max_rtt }) => {
            let request = client.ask(SetMaxRttRequest { max_rtt: Some(shape::to_proto(max_rtt.0)) });
            let answer = client.cluster().set_max_rtt(request).await.map_err(status::or_look(LOOK))?.into_inner();
            write::print(global.output, Wrote::Other("max_rtt set"), &answer)
        }
        Cluster::TransferLeader { to } => transfer(global, &client, to.unwrap_or_default()).await,
        Cluster::Verify { others } if others.is_empty() => {
            let answer = client.maintenance().verify_state(client.ask(VerifyStateRequest {})).await?.into_inner();
            let nodes = answer.nodes.into_iter().map(|it| Held { node: it.node, index: it.index, hash: it.hash });
            verdict(global, &answer.verdict, &nodes.collect::<Vec<_>>())
        }
        Cluster::RotateCa(verb) => rotate_ca::run(global, &client, &verb).await,
        Cluster::RotateSealingKey(verb) => rotate_sealing_key::run(global, &client, &verb).await,
        Cluster::Verify { others } => verify(global, client, &others).await,
        Cluster::Backup(args::Backup::Save { file, passphrase_file, stale }) => {
            backup::save(global, &client, &file, passphrase_file.as_deref(), stale).await
        }
        Cluster::Backup(args::Backup::Inspect { .. }) | Cluster::Restore(_) | Cluster::Recover(_) => {
            unreachable!("dispatch has run what asks no node")
        }
    }
}

async fn ask(client: &Client) -> Outcome<GetStatusResponse> {
    Ok(client.cluster().get_status(client.ask(GetStatusRequest {})).await?.into_inner())
}

fn print(global: &Global, status: &GetStatusResponse) -> Outcome {
    let json = shape::cluster(status);
    let fields =
        ["cluster", "leader", "term", "voters", "failure_tolerance", "revision", "healthy", "max_rtt", "max_staleness"];
    Answer {
        header: vec!["field", "value"],
        rows: fields.iter().map(|field| vec![(*field).to_owned(), shape::cell(&json[*field])]).collect(),
        notes: (status.findings.iter().map(|it| format!("finding: {it}")))
            .chain(status.under_way.iter().map(|it| format!("under way: {it}")))
            .collect(),
        names: vec![status.cluster.clone()],
        json,
        ..Answer::default()
    }
    .print(global.output)
}

async fn transfer(global: &Global, client: &Client, to: String) -> Outcome {
    let moved = client.cluster().transfer_leader(client.ask(TransferLeaderRequest { to })).await;
    let answer = moved.map_err(status::or_look(LOOK))?.into_inner();
    let took = shape::span(answer.took.as_ref());
    Answer {
        text: Some(format!("leader {} in term {} after {}\n", answer.leader, answer.term, shape::cell(&took))),
        names: vec![answer.leader.clone()],
        json: json!({ "leader": answer.leader, "term": answer.term, "took": took }),
        ..Answer::default()
    }
    .print(global.output)
}

/// How often all nodes are asked again while the log moves on.
const VERIFY_ROUNDS_MAX: usize = 20;

/// Every asked node's hash at one index: each waits for the highest that another has named.
async fn verify(global: &Global, first: Client, others: &[String]) -> Outcome {
    let mut clients = vec![(global.endpoint().to_owned(), first)];
    for endpoint in others {
        clients.push((endpoint.clone(), Client::connect_to(global, endpoint).await?));
    }
    let mut index = 0;
    let mut hashes = Vec::new();
    for _ in 0..VERIFY_ROUNDS_MAX {
        hashes.clear();
        for (endpoint, client) in &clients {
            let answer = client.observe().state_hash(client.ask(StateHashRequest { index })).await?.into_inner();
            index = index.max(answer.index);
            let node = answer.header.map(|it| it.node).filter(|it| !it.is_empty()).unwrap_or_else(|| endpoint.clone());
            hashes.push(Held { node, index: answer.index, hash: answer.hash });
        }
        if hashes.iter().all(|it| it.index == index) {
            break;
        }
    }
    let word = match hashes.iter().all(|it| it.index == index) {
        false => "unknown",
        true if hashes.iter().all(|it| it.hash == hashes[0].hash) => "equal",
        true => "different",
    };
    verdict(global, word, &hashes)
}

/// What one node's state is; no hash where it did not answer.
struct Held {
    node: String,
    index: u64,
    hash: String,
}

fn verdict(global: &Global, verdict: &str, hashes: &[Held]) -> Outcome {
    let held = |it: &Held| {
        let index = (!it.hash.is_empty()).then_some(it.index);
        json!({ "name": it.node, "index": index, "hash": shape::known(&it.hash) })
    };
    let nodes: Vec<_> = hashes.iter().map(held).collect();
    Answer {
        header: vec!["name", "index", "hash"],
        rows: nodes.iter().map(|it| shape::cells(it, &["name", "index", "hash"])).collect(),
        names: hashes.iter().map(|it| it.node.clone()).collect(),
        notes: vec![format!("{verdict}: {} nodes asked", nodes.len())],
        json: json!({ "verdict": verdict, "nodes": nodes }),
        list: Some("nodes"),
        ..Answer::default()
    }
    .print(global.output)?;
    if verdict == "equal" { Ok(()) } else { Err(Failure::negative()) }
}
