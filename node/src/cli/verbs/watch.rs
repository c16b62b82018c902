//! `watch`: each new revision as it arrives, until Ctrl-C.

use quorumgate_proto::admin::v1::{WatchConfigRequest, watch_config_response::Event};
use serde_json::{Value, json};

use crate::cli::{
    args::{Form, Global, Watch},
    client::Client,
    diff,
    failure::Outcome,
    output::stdout,
    shape, status,
};

pub async fn run(global: &Global, verb: Watch) -> Outcome {
    let client = Client::connect(global).await?;
    let mut events =
        client.config().watch_config(client.stream(WatchConfigRequest { since: verb.since })).await?.into_inner();
    while let Some(message) = events.message().await.map_err(status::ended)? {
        let Some(event) = message.event else { continue };
        match global.output {
            Form::Table | Form::Wide | Form::Name => people(&event)?,
            _ => stdout(&format!("{}\n", json_of(&event)))?,
        }
    }
    Ok(())
}

/// Notes of progress are for programs alone.
fn people(event: &Event) -> Outcome {
    match event {
        Event::Changed(it) => {
            let revision = it.revision.clone().unwrap_or_default();
            let json = shape::revision(&revision);
            let cells = shape::cells(&json, &["time", "actor", "message"]);
            stdout(&format!("revision {} {}\n{}", revision.revision, cells.join(" "), diff::text(&it.changes)?))
        }
        Event::Compacted(it) => {
            eprintln!("what is older than revision {} is no longer kept; begin with `quorumgate export`", it.oldest);
            Ok(())
        }
        Event::Progress(_) => Ok(()),
    }
}

pub fn json_of(event: &Event) -> Value {
    match event {
        Event::Changed(it) => {
            let objects: Vec<Value> = it
                .changes
                .iter()
                .map(|it| json!({ "kind": shape::kind(it.kind), "name": it.name, "action": shape::action(it.action) }))
                .collect();
            let revision = it.revision.as_ref().map_or(Value::Null, shape::revision);
            json!({ "event": "changed", "revision": revision, "objects": objects })
        }
        Event::Compacted(it) => json!({ "event": "compacted", "oldest": it.oldest }),
        Event::Progress(it) => json!({ "event": "progress", "revision": it.revision }),
    }
}
