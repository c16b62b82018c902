//! `explain request` and `tap`: exchanges that have ended. `explain CODE`: what a refusal means, without asking anybody.

use quorumgate_proto::admin::v1::{Exchange, ExplainRequestRequest, ExplainRequestResponse, TapRequest};
use quorumgate_proxy::codes::{self, Code};
use serde_json::{Value, json};

use crate::cli::{
    args::{Explain, ExplainWhat, Form, Global, Tap},
    client::Client,
    failure::{Exit, Failure, Outcome},
    output::{self, Answer},
    shape, status,
};

pub async fn explain(global: &Global, verb: Explain) -> Outcome {
    let Some(ExplainWhat::Request { id }) = verb.what else { return code(global, verb.code.as_deref()) };
    let client = Client::connect(global).await?;
    let request = client.ask(ExplainRequestRequest { request_id: id.to_string() });
    let answer = client.observe().explain_request(request).await?.into_inner();
    let exchange = answer.exchange.clone().unwrap_or_default();
    let json = explained(&answer);
    Answer { text: Some(text(&answer, &exchange)), names: vec![exchange.request_id], json, ..Answer::default() }
        .print(global.output)
}

/// The stable JSON of an exchange that is asked for, with what its code means.
pub fn explained(answer: &ExplainRequestResponse) -> Value {
    let mut json = shape_of(&answer.exchange.clone().unwrap_or_default());
    json["when"] = shape::known(&answer.when);
    json["help"] = shape::known(&answer.help);
    json
}

/// One code, or all of them.
pub fn code(global: &Global, asked: Option<&str>) -> Outcome {
    let json = |it: &Code| {
        json!({
            "code": it.code,
            "status": match it.status { 0 => Value::Null, status => status.into() },
            "grpc_status": match it.status { 0 => Value::Null, _ => it.grpc_status.into() },
            "phase": it.phase,
            "given": it.is_given(),
            "when": it.when,
            "help": it.help,
        })
    };
    let Some(asked) = asked else {
        const COLUMNS: [&str; 4] = ["code", "status", "phase", "when"];
        let all: Vec<Value> = codes::ALL.iter().map(json).collect();
        return Answer {
            header: COLUMNS.to_vec(),
            rows: all.iter().map(|it| shape::cells(it, &COLUMNS)).collect(),
            names: codes::ALL.iter().map(|it| it.code.to_owned()).collect(),
            json: json!({ "codes": all }),
            list: Some("codes"),
            ..Answer::default()
        }
        .print(global.output);
    };
    let found = codes::find(&asked.to_ascii_lowercase()).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no code {asked:?}"))
            .help("`quorumgate explain` lists all; for one request: `quorumgate explain request ID`")
    })?;
    let status = if found.status == 0 { "no answer".to_owned() } else { found.status.to_string() };
    let unused = if found.is_given() { "" } else { "  this version answers it nowhere yet\n" };
    let (code, phase, when, help) = (found.code, found.phase, found.when, found.help);
    let text = format!("{code} ({status}), decided by {phase}\n{unused}  when: {when}\n  help: {help}\n");
    Answer { text: Some(text), names: vec![code.to_owned()], json: json(found), ..Answer::default() }
        .print(global.output)
}

pub async fn tap(global: &Global, verb: Tap) -> Outcome {
    let client = Client::connect(global).await?;
    let request = TapRequest {
        route: verb.route.unwrap_or_default(),
        status: verb.status.unwrap_or_default(),
        code: verb.code.unwrap_or_default(),
        consumer: verb.consumer.unwrap_or_default(),
        one_in: verb.one_in,
    };
    let mut shown = client.observe().tap(client.stream(request)).await?.into_inner();
    let (mut count, mut dropped) = (0, 0);
    while verb.count.is_none_or(|max| count < max) {
        let Some(message) = shown.message().await.map_err(status::ended)? else { break };
        let exchange = message.exchange.unwrap_or_default();
        match global.output {
            Form::Table | Form::Wide => output::stdout(&line(&exchange))?,
            Form::Name => output::stdout(&format!("{}\n", exchange.request_id))?,
            _ => output::stdout(&format!("{}\n", shape_of(&exchange)))?,
        }
        if message.dropped > dropped {
            eprintln!(
                "{} came too fast and are not shown; ask for one in so many (--one-in)",
                message.dropped - dropped
            );
            dropped = message.dropped;
        }
        count += 1;
    }
    Ok(())
}

/// The stable JSON of one exchange.
pub fn shape_of(it: &Exchange) -> Value {
    let timings = it.timings.unwrap_or_default();
    let span = |it: &Option<prost_types::Duration>| match it {
        None => Value::Null,
        Some(it) => json!(it.seconds * 1_000_000 + i64::from(it.nanos) / 1_000),
    };
    let numbers: serde_json::Map<String, Value> =
        it.numbers.iter().map(|(name, it)| (name.clone(), json!(it))).collect();
    json!({
        "request_id": it.request_id,
        "trace_id": shape::known(&it.trace_id),
        "time": shape::time(it.time.as_ref()),
        "node": it.node,
        "region": it.region,
        "revision": it.revision,
        "route": shape::known(&it.route),
        "consumer": shape::known(&it.consumer),
        "credential": shape::known(&it.credential),
        "auth_method": shape::known(&it.auth_method),
        "client_ip": it.client_ip,
        "method": it.method,
        "host": shape::known(&it.host),
        "path": shape::known(&it.path),
        "protocol": it.protocol,
        "tls": it.tls,
        "status": it.status,
        "code": shape::known(&it.code),
        "detail": shape::known(&it.detail),
        "decision": {
            "phase": shape::known(&it.phase),
            "policy": shape::known(&it.policy),
            "rule": shape::known(&it.rule),
            "shadow": it.shadow,
            "numbers": numbers,
        },
        "received_bytes": it.received_bytes,
        "sent_bytes": it.sent_bytes,
        "timings_us": {
            "gateway": span(&timings.gateway),
            "connect": span(&timings.connect),
            "ttfb": span(&timings.ttfb),
            "total": span(&timings.total),
        },
        "upstream": { "address": shape::known(&it.upstream), "attempts": it.attempts },
    })
}

fn micros(json: &Value) -> String {
    match json.as_i64() {
        None => "-".into(),
        Some(micros) => format!("{:.2} ms", micros as f64 / 1e3),
    }
}

fn line(it: &Exchange) -> String {
    let json = shape_of(it);
    let code = if it.code.is_empty() { String::new() } else { format!(" {}", it.code) };
    let (time, route, total) =
        (shape::cell(&json["time"]), shape::cell(&json["route"]), micros(&json["timings_us"]["total"]));
    let (status, method, host, path, id) = (it.status, &it.method, &it.host, &it.path, &it.request_id);
    format!("{time} {status}{code} {method} {host}{path} route={route} {total} {id}\n")
}

fn text(answer: &ExplainRequestResponse, it: &Exchange) -> String {
    let json = shape_of(it);
    let cell = |name: &str| shape::cell(&json[name]);
    let code = if it.code.is_empty() { String::new() } else { format!(" {}", it.code) };
    let scheme = if it.tls { "https" } else { "http" };
    let mut text = format!("{}{code}\n", it.status);
    text += &format!("  {} {scheme}://{}{} ({}) from {}\n", it.method, it.host, it.path, it.protocol, it.client_ip);
    text += &format!(
        "  at {} on {} ({}), revision {}, route {}\n",
        cell("time"),
        it.node,
        it.region,
        it.revision,
        cell("route")
    );
    if !it.consumer.is_empty() || !it.auth_method.is_empty() {
        text += &format!(
            "  consumer {}, credential {}, by {}\n",
            cell("consumer"),
            cell("credential"),
            cell("auth_method")
        );
    }
    if !it.phase.is_empty() {
        let decision = &json["decision"];
        let (policy, rule) = (shape::cell(&decision["policy"]), shape::cell(&decision["rule"]));
        text += &format!("  decided by {}: policy {policy}, rule {rule}\n", it.phase);
    }
    let numbers: Vec<_> = it.numbers.iter().map(|(name, number)| format!("{name} {number}")).collect();
    if !numbers.is_empty() {
        text += &format!("  {}\n", numbers.join(", "));
    }
    let timing = |name: &str| micros(&json["timings_us"][name]);
    let (gateway, connect, ttfb, total) = (timing("gateway"), timing("connect"), timing("ttfb"), timing("total"));
    text += &format!("  gateway {gateway}, connect {connect}, first byte {ttfb}, total {total}\n");
    if it.attempts > 0 {
        text += &format!("  upstream {} after {} attempts\n", shape::cell(&json["upstream"]["address"]), it.attempts);
    }
    for (name, words) in [("detail", &it.detail), ("when", &answer.when), ("help", &answer.help)] {
        if !words.is_empty() {
            text += &format!("  {name}: {words}\n");
        }
    }
    text
}
