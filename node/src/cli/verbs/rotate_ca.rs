//! `cluster rotate-ca`: the cluster gets a new CA, step by step, while it serves.

use std::time::{Duration, Instant};

use quorumgate_proto::admin::v1::{RotateCaRequest, RotateCaResponse, rotate_ca_request::Step};
use serde_json::json;
use tonic_types::StatusExt;

use crate::cli::{
    args::{Global, RotateCa},
    client::Client,
    failure::Outcome,
    input,
    output::Answer,
    shape,
};

/// Between two looks at nodes that have not carried out a step yet.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub async fn run(global: &Global, client: &Client, verb: &RotateCa) -> Outcome {
    if verb.status {
        return print(global, &ask(client, Step::Look).await?, Vec::new());
    }
    if verb.abandon {
        input::confirm(global, "gives up the new CA, which no node's certificate is by")?;
        return print(global, &ask(client, Step::Abandon).await?, Vec::new());
    }
    input::confirm(
        global,
        "replaces the cluster's CA: join tokens of before are void, clients need the new tls/ca.pem",
    )?;
    let ends = Instant::now() + verb.within.0;
    loop {
        match ask(client, Step::Advance).await {
            Ok(answer) if answer.stage == "none" => {
                let answer = once_alone(client, answer, ends).await?;
                let notes = vec![
                    "the old CA is trusted no more; nodes have the new one in tls/ca.pem, for --ca and QUORUMGATE_CA"
                        .into(),
                    "join tokens of before name the old one: make new ones".into(),
                ];
                return print(global, &answer, notes);
            }
            Ok(answer) => eprintln!("{}: every node is to {}", answer.stage, task(&answer.stage)),
            // Nodes carry it out within moments, if they are there.
            Err(status) if is_behind(&status) && Instant::now() < ends => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(status) => return Err(status.into()),
        }
    }
}

fn is_behind(status: &tonic::Status) -> bool {
    status.get_details_error_info().is_some_and(|it| it.reason == "NODES_BEHIND")
}

/// Every node has heard by then that the old one is gone.
async fn once_alone(client: &Client, first: RotateCaResponse, ends: Instant) -> Outcome<RotateCaResponse> {
    let mut answer = first;
    while !answer.nodes.iter().all(|it| it.trusts && it.holds) && Instant::now() < ends {
        tokio::time::sleep(LOOK_EVERY).await;
        let revision = answer.revision;
        answer = RotateCaResponse { revision, ..ask(client, Step::Look).await? };
    }
    Ok(answer)
}

fn task(stage: &str) -> &'static str {
    match stage {
        "introduced" => "trust both CAs",
        _ => "take a certificate by the new one",
    }
}

async fn ask(client: &Client, step: Step) -> Result<RotateCaResponse, tonic::Status> {
    let request = client.ask(RotateCaRequest { step: step.into() });
    Ok(client.maintenance().rotate_ca(request).await?.into_inner())
}

fn print(global: &Global, answer: &RotateCaResponse, notes: Vec<String>) -> Outcome {
    let nodes: Vec<_> = answer
        .nodes
        .iter()
        .map(|it| json!({ "name": it.name, "trusts": it.trusts, "holds": it.holds, "unreachable": it.unreachable }))
        .collect();
    Answer {
        header: vec!["name", "trusts", "holds", "unreachable"],
        rows: nodes.iter().map(|it| shape::cells(it, &["name", "trusts", "holds", "unreachable"])).collect(),
        names: vec![answer.ca_sha256.clone()],
        notes,
        json: json!({
            "stage": answer.stage,
            "ca_sha256": answer.ca_sha256,
            "other_sha256": shape::known(&answer.other_sha256),
            "revision": match answer.revision { 0 => serde_json::Value::Null, it => it.into() },
            "nodes": nodes,
        }),
        list: Some("nodes"),
        ..Answer::default()
    }
    .print(global.output)
}
