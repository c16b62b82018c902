//! `api`: versions of APIs, and who calls those that are on their way out.

use quorumgate_model::units::Moment;
use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use crate::cli::{
    args::{ApiCallers, ApiVerb, Global},
    client::Client,
    failure::Outcome,
    output::Answer,
    shape,
};

pub async fn run(global: &Global, verb: ApiVerb) -> Outcome {
    match verb {
        ApiVerb::Ls => list(global, String::new()).await,
        ApiVerb::Get { name } => list(global, name.to_string()).await,
        ApiVerb::Callers(it) => callers(global, it).await,
    }
}

async fn list(global: &Global, api: String) -> Outcome {
    let client = Client::connect(global).await?;
    let answer = client.apis().list_apis(client.ask(admin::ListApisRequest { api })).await?.into_inner();
    let json = known(&answer);
    let fields = ["api", "version", "now", "deprecated_at", "sunset", "successor", "policy", "routes", "brownouts"];
    let rows = json["versions"].as_array().into_iter().flatten();
    Answer {
        header: fields.to_vec(),
        wide_columns: 3,
        rows: rows.map(|it| shape::cells(&with_texts(it), &fields)).collect(),
        names: answer.versions.iter().map(|it| it.policy.clone()).collect(),
        list: Some("versions"),
        json,
        ..Answer::default()
    }
    .print(global.output)
}

/// Lists as one cell each.
fn with_texts(it: &Value) -> Value {
    let mut it = it.clone();
    let routes = it["routes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    it["routes"] = json!(routes);
    let windows = it["brownouts"].as_array().into_iter().flatten();
    let windows = windows.map(|it| format!("{} to {}", shape::cell(&it["start"]), shape::cell(&it["end"])));
    it["brownouts"] = json!(windows.collect::<Vec<_>>().join(", "));
    it
}

async fn callers(global: &Global, it: ApiCallers) -> Outcome {
    let client = Client::connect(global).await?;
    let api = it.name.map(|name| name.to_string()).unwrap_or_default();
    let request = admin::ListCallersRequest { api, version: it.version, consumer: it.consumer, top: it.top };
    let answer = client.apis().list_callers(client.ask(request)).await?.into_inner();
    let mut notes = Vec::new();
    if answer.left_out > 0 {
        notes.push(format!("{} more: ask for them with --top, or for one API", answer.left_out));
    }
    if !answer.unanswered.is_empty() {
        notes.push(format!("no answer from {}: what was called there is missing", answer.unanswered.join(", ")));
    }
    let json = known_callers(&answer);
    let fields = ["api", "version", "method", "path", "consumer", "count", "last_call", "route"];
    let rows = json["callers"].as_array().into_iter().flatten();
    Answer {
        header: fields.to_vec(),
        wide_columns: 1,
        rows: rows.map(|it| shape::cells(it, &fields)).collect(),
        names: answer.callers.iter().map(|it| it.consumer.clone()).filter(|it| !it.is_empty()).collect(),
        notes,
        list: Some("callers"),
        json,
        ..Answer::default()
    }
    .print(global.output)
}

pub fn known(answer: &admin::ListApisResponse) -> Value {
    let moment = |ms: Option<u64>| ms.map(|ms| Moment(ms).to_string());
    let version = |it: &admin::ApiVersion| {
        let words = it.version.clone().unwrap_or_default();
        let brownout = |it: &admin::Brownout| json!({ "start": moment(Some(it.start_ms)), "end": moment(Some(it.end_ms)), "status": it.status });
        json!({
            "api": words.api,
            "version": words.version,
            "state": words.state,
            "now": it.now,
            "deprecated_at": moment(words.deprecated_at_ms),
            "sunset": moment(words.sunset_ms),
            "successor": shape::known(&words.successor),
            "successor_url": shape::known(&words.successor_url),
            "preview_groups": words.preview_groups,
            "brownouts": words.brownouts.iter().map(brownout).collect::<Vec<_>>(),
            "policy": it.policy,
            "routes": it.routes,
        })
    };
    json!({ "versions": answer.versions.iter().map(version).collect::<Vec<_>>() })
}

pub fn known_callers(answer: &admin::ListCallersResponse) -> Value {
    let caller = |it: &admin::ApiCaller| {
        json!({
            "api": it.api,
            "version": it.version,
            "route": it.route,
            "method": it.method,
            "path": shape::known(&it.path),
            "consumer": shape::known(&it.consumer),
            "count": it.count,
            "last_call": shape::time(it.last_call.as_ref()),
        })
    };
    json!({
        "callers": answer.callers.iter().map(caller).collect::<Vec<_>>(),
        "left_out": answer.left_out,
        "unanswered": answer.unanswered,
    })
}
