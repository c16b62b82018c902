//! `anomaly`: who behaves unlike others, and who is near it.

use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use crate::cli::{
    args::{AnomalyVerb, Global},
    client::Client,
    failure::Outcome,
    output::Answer,
    shape,
};

const FIELDS: [&str; 10] =
    ["policy", "key", "state", "feature", "value", "over", "action", "nodes", "since", "ends_in"];

pub async fn run(global: &Global, verb: AnomalyVerb) -> Outcome {
    let AnomalyVerb::Ls { policy, top } = verb;
    let client = Client::connect(global).await?;
    let request = client.ask(admin::ListAnomaliesRequest { policy, top });
    let answer = client.anomalies().list_anomalies(request).await?.into_inner();
    let mut notes = Vec::new();
    if answer.left_out > 0 {
        notes.push(format!("{} more: ask for them with --top, or for one policy", answer.left_out));
    }
    if !answer.unanswered.is_empty() {
        notes.push(format!("no answer from {}: what was seen there is missing", answer.unanswered.join(", ")));
    }
    let json = known(&answer);
    let rows = json["anomalies"].as_array().into_iter().flatten();
    Answer {
        header: FIELDS.to_vec(),
        rows: rows.map(|it| shape::cells(it, &FIELDS)).collect(),
        names: answer.anomalies.iter().map(|it| it.key.clone()).collect(),
        notes,
        list: Some("anomalies"),
        json,
        ..Answer::default()
    }
    .print(global.output)
}

/// The stable JSON.
pub fn known(answer: &admin::ListAnomaliesResponse) -> Value {
    let anomaly = |it: &admin::Anomaly| {
        json!({
            "policy": it.policy,
            "key": it.key,
            "feature": it.feature,
            "value": it.value,
            "over": it.over,
            "action": it.action,
            "state": it.state,
            "nodes": it.nodes,
            "since": shape::time(it.since.as_ref()),
            "ends_in": shape::span(it.ends_in.as_ref()),
        })
    };
    json!({
        "anomalies": answer.anomalies.iter().map(anomaly).collect::<Vec<_>>(),
        "left_out": answer.left_out,
        "unanswered": answer.unanswered,
    })
}
