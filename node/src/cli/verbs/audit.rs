//! `audit`: who changed what, who was refused, and whether the trail is what was written.

use std::time::SystemTime;

use quorumgate_model::units::Span;
use quorumgate_proto::admin::v1::{
    AuditEntry, EraseActorRequest, ListAuditRequest, VerifyAuditRequest, VerifyAuditResponse, WatchAuditRequest,
    verify_audit_response,
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::audit_export;
use crate::cli::{
    args::{Audit, AuditLs, Form, Global},
    client::Client,
    diff,
    failure::{Failure, Outcome},
    input,
    output::{self, Answer},
    shape, status,
    write::{self, Wrote},
};

const COLUMNS: [&str; 9] = ["index", "revision", "time", "actor", "rpc", "summary", "message", "source", "hash"];
const DENIAL_COLUMNS: [&str; 8] = ["sequence", "time", "actor", "source", "rpc", "summary", "count", "message"];

const ACCESS_COLUMNS: [&str; 7] = ["sequence", "time", "actor", "source", "rpc", "count", "result"];

pub async fn run(global: &Global, verb: Audit) -> Outcome {
    let client = Client::connect(global).await?;
    match verb {
        Audit::Ls(verb) => ls(global, &client, verb).await,
        Audit::Verify => verify(global, &client).await,
        Audit::Erase { actor } => {
            input::confirm(global, &format!("makes unknowable who {actor} was in the trails of accesses, for good"))?;
            let answer = client
                .observe()
                .erase_actor(client.ask(EraseActorRequest { actor }))
                .await
                .map_err(status::or_look("repeating it is safe"))?
                .into_inner();
            write::print(global.output, Wrote::Other("actor erased"), &answer)
        }
        Audit::Export(verb) => audit_export::run(global, &client, &verb).await,
    }
}

async fn ls(global: &Global, client: &Client, verb: AuditLs) -> Outcome {
    let follow = verb.follow.then_some(verb.denials);
    let request = ListAuditRequest {
        limit: verb.limit,
        actor: verb.actor.unwrap_or_default(),
        rpc: verb.rpc.unwrap_or_default(),
        object: verb.object.unwrap_or_default(),
        since: verb.since.as_deref().map(|text| instant("--since", text)).transpose()?,
        until: verb.until.as_deref().map(|text| instant("--until", text)).transpose()?,
        denials: verb.denials,
        changes: verb.diff,
        access: verb.access,
    };
    let asked = request.clone();
    let entries = client.observe().list_audit(client.ask(request)).await?.into_inner().entries;
    let Some(denials) = follow else { return print(global, &entries, &asked) };
    for entry in entries.iter().rev() {
        line(global, entry)?;
    }
    // What is made between the two calls is not lost.
    let since = entries.first().map(|it| it.sequence).filter(|_| is_unfiltered(&asked));
    let request = client.stream(WatchAuditRequest { since, denials });
    let mut made = client.observe().watch_audit(request).await?.into_inner();
    while let Some(entry) = made.message().await.map_err(status::ended)? {
        if entry.actor.ends_with(&asked.actor) && entry.rpc.contains(&asked.rpc) {
            line(global, &entry)?;
        }
    }
    Ok(())
}

fn is_unfiltered(asked: &ListAuditRequest) -> bool {
    let ListAuditRequest { actor, rpc, object, since, until, .. } = asked;
    actor.is_empty() && rpc.is_empty() && object.is_empty() && since.is_none() && until.is_none()
}

fn print(global: &Global, entries: &[AuditEntry], asked: &ListAuditRequest) -> Outcome {
    let columns = match (asked.denials, asked.access) {
        (true, _) => DENIAL_COLUMNS.to_vec(),
        (_, true) => ACCESS_COLUMNS.to_vec(),
        _ => COLUMNS.to_vec(),
    };
    let shapes = entries.iter().map(|it| shaped(it, asked)).collect::<Outcome<Vec<_>>>()?;
    let mut text = None;
    if asked.changes {
        let mut told = String::new();
        for (entry, shape) in entries.iter().zip(&shapes) {
            told += &format!("{}\n{}", words(shape), diff::text(&entry.changes)?);
        }
        text = Some(told);
    }
    Answer {
        text,
        wide_columns: if asked.denials || asked.access { 1 } else { 2 },
        rows: shapes.iter().map(|it| shape::cells(it, &columns)).collect(),
        header: columns,
        names: entries.iter().map(|it| if it.index > 0 { it.index } else { it.sequence }.to_string()).collect(),
        json: json!({ "entries": shapes }),
        list: Some("entries"),
        ..Answer::default()
    }
    .print(global.output)
}

fn shaped(entry: &AuditEntry, asked: &ListAuditRequest) -> Outcome<Value> {
    let mut json = shape::audit(entry);
    if asked.changes {
        json["changes"] = entry.changes.iter().map(diff::json).collect::<Outcome<Vec<_>>>()?.into();
    }
    Ok(json)
}

/// One entry on a line.
fn words(json: &Value) -> String {
    let fields = ["time", "actor", "source", "rpc", "summary", "message"];
    let cells: Vec<_> = shape::cells(json, &fields).into_iter().filter(|it| !it.is_empty()).collect();
    let number = if json["index"].is_null() { &json["sequence"] } else { &json["index"] };
    format!("{number} {}", cells.join(" "))
}

fn line(global: &Global, entry: &AuditEntry) -> Outcome {
    let json = shape::audit(entry);
    match global.output {
        Form::Table | Form::Wide => output::stdout(&format!("{}\n", words(&json))),
        Form::Name => output::stdout(&format!("{}\n", entry.sequence)),
        _ => output::stdout(&format!("{json}\n")),
    }
}

/// `1h` ago, or a time.
fn instant(flag: &str, text: &str) -> Outcome<prost_types::Timestamp> {
    if let Ok(ago) = text.parse::<Span>() {
        return Ok(SystemTime::now().checked_sub(ago.0).unwrap_or(SystemTime::UNIX_EPOCH).into());
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        Failure::usage(format!("{flag}: found {text:?}"))
            .help("write a span, such as 1h, or a time, such as 2026-01-31T12:00:00Z")
    })?;
    Ok(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: at.nanosecond() as i32 })
}

async fn verify(global: &Global, client: &Client) -> Outcome {
    let answer = client.observe().verify_audit(client.ask(VerifyAuditRequest {})).await?.into_inner();
    let json = verified(&answer);
    let node = answer.header.map(|it| it.node).unwrap_or_default();
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    for chain in &answer.chains {
        for it in &chain.altered {
            let entries = match it.until > it.sequence {
                true => format!("entries {} to {}", it.sequence, it.until),
                false => format!("entry {}", it.sequence),
            };
            notes.push(format!("{}: {entries} {}: {}", chain.name, it.what, it.why));
        }
        let first = chain.altered.first().map_or_else(|| "-".to_owned(), |it| it.sequence.to_string());
        let (checked, range) = (chain.checked.to_string(), format!("{}..{}", chain.first, chain.last));
        rows.push(vec![chain.name.clone(), checked, range, chain.altered.len().to_string(), first]);
    }
    notes.push(format!("{} on {node}", answer.verdict));
    Answer {
        header: vec!["chain", "checked", "entries", "flaws", "first"],
        rows,
        names: answer.chains.iter().flat_map(|it| &it.altered).map(|it| it.sequence.to_string()).collect(),
        notes,
        json,
        list: Some("chains"),
        ..Answer::default()
    }
    .print(global.output)?;
    if answer.verdict == "whole" { Ok(()) } else { Err(Failure::negative()) }
}

/// The stable JSON of both chains.
pub fn verified(answer: &VerifyAuditResponse) -> Value {
    let altered = |it: &verify_audit_response::Altered| json!({ "sequence": it.sequence, "until": it.until, "what": it.what, "why": it.why });
    let chain = |it: &verify_audit_response::Chain| {
        json!({
            "name": it.name,
            "checked": it.checked,
            "first": it.first,
            "last": it.last,
            "first_altered": it.altered.first().map(|it| it.sequence),
            "altered": it.altered.iter().map(altered).collect::<Vec<_>>(),
        })
    };
    let node = answer.header.as_ref().map_or("", |it| it.node.as_str());
    let chains: Vec<Value> = answer.chains.iter().map(chain).collect();
    json!({ "verdict": answer.verdict, "node": node, "chains": chains })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ago_or_as_they_are() {
        assert_eq!(instant("--since", "1970-01-01T00:01:00.5Z").unwrap().seconds, 60);
        let hour_ago = instant("--since", "1h").unwrap().seconds;
        let now = prost_types::Timestamp::from(SystemTime::now()).seconds;
        assert!((now - hour_ago - 3_600).abs() < 5);
        assert!(instant("--since", "yesterday").is_err());
    }
}
