//! `approval`: changes of what is protected, which wait for somebody else.

use quorumgate_proto::admin::v1::{self as admin, DecideRequest, GetPendingRequest, ListPendingRequest};
use serde_json::{Value, json};

use crate::cli::{
    args::{ApprovalVerb, Global},
    client::Client,
    diff,
    failure::{Exit, Failure, Outcome},
    output::Answer,
    shape,
    write::{self, Wrote},
};

const FIELDS: [&str; 6] = ["id", "actor", "message", "time", "expires_in", "revision"];

pub async fn run(global: &Global, verb: ApprovalVerb) -> Outcome {
    let client = Client::connect(global).await?;
    match verb {
        ApprovalVerb::Ls => {
            let answer = client.approvals().list_pending(client.ask(ListPendingRequest {})).await?.into_inner();
            Answer {
                header: FIELDS.to_vec(),
                rows: answer.pending.iter().map(cells).collect(),
                names: answer.pending.iter().map(|it| it.id.to_string()).collect(),
                json: listed(&answer),
                list: Some("pending"),
                ..Answer::default()
            }
            .print(global.output)
        }
        ApprovalVerb::Get { id } => {
            let answer = client.approvals().get_pending(client.ask(GetPendingRequest { id })).await?.into_inner();
            show(global, &answer.pending.unwrap_or_default())
        }
        ApprovalVerb::Approve { id, reason } => {
            let answer = client
                .approvals()
                .approve(client.ask(DecideRequest { id, reason }))
                .await
                .map_err(undecided)?
                .into_inner();
            write::print(global.output, Wrote::Resources, &answer)
        }
        ApprovalVerb::Reject { id, reason } => {
            let answer = client
                .approvals()
                .reject(client.ask(DecideRequest { id, reason }))
                .await
                .map_err(undecided)?
                .into_inner();
            write::print(global.output, Wrote::Other("rejected"), &answer)
        }
    }
}

/// A decision has no request id to repeat it by: what was carried out or rejected waits no more.
fn undecided(status: tonic::Status) -> Failure {
    let failure = Failure::from(status);
    match failure.exit {
        Exit::Deadline => {
            failure.help("look with `quorumgate approval ls` and `quorumgate history`: what was decided waits no more")
        }
        _ => failure,
    }
}

fn show(global: &Global, it: &admin::PendingChange) -> Outcome {
    let said = format!("change {} of {} ({}): {}", it.id, it.actor, it.source, it.message);
    let mut notes = vec![shape::visible(&said)];
    if !it.obstacle.is_empty() {
        notes.push(shape::visible(&format!("it could not be carried out now: {}", it.obstacle)));
    }
    Answer {
        text: Some(diff::text(&it.changes)?),
        notes,
        names: it.changes.iter().map(|it| format!("{}/{}", shape::kind(it.kind), it.name)).collect(),
        json: shown(it),
        list: Some("objects"),
        ..Answer::default()
    }
    .print(global.output)
}

/// The message is whatever somebody wrote who wants an approval.
fn cells(it: &admin::PendingChange) -> Vec<String> {
    shape::cells(&pending(it), &FIELDS).iter().map(|it| shape::visible(it)).collect()
}

pub fn listed(answer: &admin::ListPendingResponse) -> Value {
    json!({ "pending": answer.pending.iter().map(pending).collect::<Vec<_>>() })
}

pub fn shown(it: &admin::PendingChange) -> Value {
    let object = |it: &admin::Change| json!({ "kind": shape::kind(it.kind), "name": it.name, "action": shape::action(it.action) });
    let mut json = pending(it);
    json["objects"] = it.changes.iter().map(object).collect::<Vec<_>>().into();
    json["obstacle"] = shape::known(&it.obstacle);
    json
}

fn pending(it: &admin::PendingChange) -> Value {
    json!({
        "id": it.id,
        "actor": it.actor,
        "source": it.source,
        "message": it.message,
        "time": shape::time(it.time.as_ref()),
        "expires_in": shape::span(it.expires_in.as_ref()),
        "revision": it.revision,
        "rollback_of": match it.rollback_of { 0 => Value::Null, it => it.into() },
        "trial": shape::span(it.trial.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_of_unknown_outcome_is_not_to_be_repeated_by_an_id_that_it_has_not() {
        let told = undecided(tonic::Status::deadline_exceeded("not confirmed")).to_string();
        assert!(told.contains("approval ls") && !told.contains("--request-id"), "{told}");
        let other = undecided(tonic::Status::not_found("no such change")).to_string();
        assert!(!other.contains("approval ls"), "{other}");
    }
}
