//! `cluster rotate-sealing-key`: the cluster's secrets are sealed under a new key, while it serves.

use std::time::{Duration, Instant};

use quorumgate_proto::admin::v1::{
    RotateSealingKeyRequest, RotateSealingKeyResponse, rotate_sealing_key_request::Step,
};
use serde_json::json;

use crate::cli::{
    args::{Global, RotateSealingKey},
    client::Client,
    failure::{Exit, Failure, Outcome},
    input,
    output::Answer,
    shape,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const COLUMNS: [&str; 4] = ["name", "holds", "alone", "unreachable"];

pub async fn run(global: &Global, client: &Client, verb: &RotateSealingKey) -> Outcome {
    if verb.status {
        return print(global, &ask(client, Step::Look).await?, Vec::new());
    }
    if verb.abandon {
        input::confirm(global, "gives up the new key, which nothing is sealed under")?;
        return print(global, &ask(client, Step::Abandon).await?, Vec::new());
    }
    input::confirm(
        global,
        "seals the cluster's secrets under a new key; backups of before need the old one, which is in them",
    )?;
    let ends = Instant::now() + verb.within.0;
    let first = ask(client, Step::Begin).await?;
    let mut answer = first.clone();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let next = ask(client, Step::Look).await?;
        if next.stage != answer.stage {
            eprintln!("{}: {}", next.stage, task(&next.stage));
        }
        answer = next;
        if is_over(&answer) {
            break;
        }
        if Instant::now() >= ends {
            let found = format!("not over yet ({}), and goes on by itself; {}", answer.stage, waits_for(&answer));
            return Err(Failure::new(Exit::Deadline, found)
                .help("look with --status; a node that is gone for good holds it up until: quorumgate node rm NAME"));
        }
    }
    let note = "the old key is gone from every node; it opens backups and copies of disks of before still".to_owned();
    print(global, &RotateSealingKeyResponse { revision: first.revision, ..answer }, vec![note])
}

/// Every node has carried out the end.
fn is_over(answer: &RotateSealingKeyResponse) -> bool {
    answer.stage == "none" && answer.nodes.iter().all(|it| it.alone)
}

fn waits_for(answer: &RotateSealingKeyResponse) -> String {
    let is_behind = |it: &&quorumgate_proto::admin::v1::rotate_sealing_key_response::Node| match &*answer.stage {
        "none" => !it.alone,
        _ => !it.holds,
    };
    let behind: Vec<_> = answer.nodes.iter().filter(is_behind).map(|it| it.name.as_str()).collect();
    match behind.is_empty() {
        true => format!("{} secrets are left", answer.left),
        false => format!("waits for {}", behind.join(", ")),
    }
}

fn task(stage: &str) -> &'static str {
    match stage {
        "introduced" => "every node writes the new key down",
        "replaced" => "it seals, and what is there is sealed anew",
        _ => "every node forgets the old key",
    }
}

async fn ask(client: &Client, step: Step) -> Result<RotateSealingKeyResponse, tonic::Status> {
    let request = client.ask(RotateSealingKeyRequest { step: step.into() });
    Ok(client.maintenance().rotate_sealing_key(request).await?.into_inner())
}

fn print(global: &Global, answer: &RotateSealingKeyResponse, notes: Vec<String>) -> Outcome {
    let nodes: Vec<_> = answer
        .nodes
        .iter()
        .map(|it| json!({ "name": it.name, "holds": it.holds, "alone": it.alone, "unreachable": it.unreachable }))
        .collect();
    Answer {
        header: COLUMNS.to_vec(),
        rows: nodes.iter().map(|it| shape::cells(it, &COLUMNS)).collect(),
        names: vec![answer.number.to_string()],
        notes,
        json: json!({
            "stage": answer.stage,
            "number": answer.number,
            "left": answer.left,
            "revision": match answer.revision { 0 => serde_json::Value::Null, it => it.into() },
            "nodes": nodes,
        }),
        list: Some("nodes"),
        ..Answer::default()
    }
    .print(global.output)
}
