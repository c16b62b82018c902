//! `audit`: who changed what.

use quorumgate_proto::admin::v1::ListAuditRequest;
use serde_json::json;

use crate::cli::{
    args::{Audit, Global},
    client::Client,
    failure::Outcome,
    output::Answer,
    shape,
};

const COLUMNS: [&str; 9] = ["index", "revision", "time", "actor", "rpc", "summary", "message", "source", "hash"];

pub async fn run(global: &Global, verb: Audit) -> Outcome {
    let Audit::Ls { limit } = verb;
    let client = Client::connect(global).await?;
    let entries = client.observe().list_audit(client.ask(ListAuditRequest { limit })).await?.into_inner().entries;
    let shapes: Vec<_> = entries.iter().map(shape::audit).collect();
    Answer {
        header: COLUMNS.to_vec(),
        wide_columns: 2,
        rows: shapes.iter().map(|it| shape::cells(it, &COLUMNS)).collect(),
        names: entries.iter().map(|it| it.index.to_string()).collect(),
        json: json!({ "entries": shapes }),
        list: Some("entries"),
        ..Answer::default()
    }
    .print(global.output)
}
