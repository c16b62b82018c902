//! `history` and `rollback`: the revisions so far, and back to one of them.

use quorumgate_proto::admin::v1::{
    DiffRevisionsRequest, DiffRevisionsResponse, ListRevisionsRequest, RollbackRequest, rollback_request::Target,
};
use serde_json::json;

use super::files::of_write;
use crate::cli::{
    args::{Global, History, HistoryList, HistoryVerb, Rollback},
    client::Client,
    diff,
    failure::{Failure, Outcome},
    output::Answer,
    shape,
    write::{self, Wrote},
};

pub async fn run(global: &Global, verb: History) -> Outcome {
    let client = Client::connect(global).await?;
    match verb.verb {
        None => ls(global, &client, &verb.list).await,
        Some(HistoryVerb::Ls(list)) => ls(global, &client, &list).await,
        Some(HistoryVerb::Show { revision }) => {
            let from = previous(&client, revision).await?;
            differences(global, &client, from, Some(revision)).await
        }
        Some(HistoryVerb::Diff { from, to }) => differences(global, &client, from, to).await,
    }
}

async fn ls(global: &Global, client: &Client, list: &HistoryList) -> Outcome {
    let request = client.ask(ListRevisionsRequest { stale: list.stale, limit: list.limit });
    let revisions = client.config().list_revisions(request).await?.into_inner().revisions;
    let shapes: Vec<_> = revisions.iter().map(shape::revision).collect();
    let rows = revisions.iter().zip(&shapes).map(|(it, json)| {
        let mut row = shape::cells(json, &["revision", "time", "actor"]);
        row.push(shape::counts_text(it.changes.as_ref()));
        row.extend(shape::cells(json, &["message", "trial", "rollback_of", "hash"]));
        row
    });
    Answer {
        header: vec!["revision", "time", "actor", "changes", "message", "trial", "rollback_of", "hash"],
        wide_columns: 3,
        rows: rows.collect(),
        names: revisions.iter().map(|it| it.revision.to_string()).collect(),
        json: json!({ "revisions": shapes }),
        list: Some("revisions"),
        ..Answer::default()
    }
    .print(global.output)
}

/// The revision before this one; 0 before the first.
async fn previous(client: &Client, revision: u64) -> Outcome<u64> {
    let request = client.ask(ListRevisionsRequest { stale: false, limit: 0 });
    let revisions = client.config().list_revisions(request).await?.into_inner().revisions;
    Ok(revisions.iter().map(|it| it.revision).filter(|it| *it < revision).max().unwrap_or_default())
}

async fn differences(global: &Global, client: &Client, from: u64, to: Option<u64>) -> Outcome {
    let request = client.ask(DiffRevisionsRequest { from, to });
    let answer = client.config().diff_revisions(request).await?.into_inner();
    let objects: Vec<_> = answer
        .changes
        .iter()
        .map(|it| json!({ "kind": shape::kind(it.kind), "name": it.name, "action": shape::action(it.action) }))
        .collect();
    let DiffRevisionsResponse { from, to, changes, .. } = &answer;
    Answer {
        text: Some(diff::text(changes)?),
        names: changes.iter().map(|it| format!("{}/{}", shape::kind(it.kind), it.name)).collect(),
        json: json!({ "from": from, "to": to, "objects": objects }),
        list: Some("objects"),
        ..Answer::default()
    }
    .print(global.output)
}

pub async fn rollback(global: &Global, verb: Rollback) -> Outcome {
    let client = Client::connect(global).await?;
    let request_id = verb.note.request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
    let target = match verb.target.revision {
        Some(revision) => Target::Revision(revision),
        None => Target::Previous(true),
    };
    let request = client.ask(RollbackRequest {
        target: Some(target),
        request_id: request_id.clone(),
        message: verb.note.message,
        validate_only: verb.dry_run,
        expected_revision: verb.note.if_revision,
    });
    let sent = client.config().rollback(request).await;
    let answer = sent.map_err(|status| of_write(Failure::from(status), &request_id))?.into_inner();
    let wrote = if verb.dry_run { Wrote::Nothing } else { Wrote::Resources };
    write::print(global.output, wrote, &answer)
}
