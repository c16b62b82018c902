//! `ban`: who is shut out for a while, on every node.

use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use super::files::with_request_id;
use crate::cli::{
    args::{BanVerb, Global, Wait},
    client::Client,
    failure::{Failure, Outcome},
    output::Answer,
    shape,
    write::{self, Wrote},
};

const FIELDS: [&str; 5] = ["subject", "expires_in", "reason", "actor", "time"];

pub async fn run(global: &Global, verb: BanVerb) -> Outcome {
    let client = Client::connect(global).await?;
    match verb {
        BanVerb::Add { subjects, expires_in, reason, wait, request_id } => {
            let request_id = request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
            let request = admin::AddBansRequest {
                subjects,
                expires_in: Some(shape::to_proto(expires_in.0)),
                reason,
                wait: waited(wait).into(),
                request_id: request_id.clone(),
            };
            let sent = client.bans().add_bans(client.ask(request)).await;
            let answer = sent.map_err(|status| with_request_id(Failure::from(status), &request_id))?.into_inner();
            let what = if answer.noop { "it was banned before, for as long" } else { "banned" };
            write::print(global.output, Wrote::Other(what), &answer)
        }
        BanVerb::Rm { subjects, reason, wait, request_id } => {
            let request_id = request_id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
            let wait = waited(wait).into();
            let request = admin::LiftBansRequest { subjects, reason, wait, request_id: request_id.clone() };
            let sent = client.bans().lift_bans(client.ask(request)).await;
            let answer = sent.map_err(|status| with_request_id(Failure::from(status), &request_id))?.into_inner();
            write::print(global.output, Wrote::Other("lifted"), &answer)
        }
        BanVerb::Ls { limit } => {
            let request = client.ask(admin::ListBansRequest { limit, stale: false });
            let answer = client.bans().list_bans(request).await?.into_inner();
            let shapes: Vec<Value> = answer.bans.iter().map(ban).collect();
            Answer {
                header: FIELDS.to_vec(),
                rows: shapes.iter().map(|it| shape::cells(it, &FIELDS)).collect(),
                names: answer.bans.iter().map(|it| it.subject.clone()).collect(),
                notes: vec![format!("{} of {}", shapes.len(), answer.total)],
                json: listed(&answer),
                list: Some("bans"),
                ..Answer::default()
            }
            .print(global.output)
        }
    }
}

fn waited(wait: Wait) -> admin::WaitFor {
    match wait {
        Wait::AllLive => admin::WaitFor::AllLive,
        Wait::Committed => admin::WaitFor::Committed,
    }
}

/// The stable JSON.
pub fn listed(answer: &admin::ListBansResponse) -> Value {
    json!({ "bans": answer.bans.iter().map(ban).collect::<Vec<_>>(), "total": answer.total })
}

fn ban(it: &admin::StoredBan) -> Value {
    json!({
        "subject": it.subject,
        "reason": shape::known(&it.reason),
        "actor": it.actor,
        "revision": it.revision,
        "time": shape::time(it.time.as_ref()),
        "expires_in": shape::span(it.expires_in.as_ref()),
    })
}
