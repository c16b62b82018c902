//! `ai`: what models were asked, and what it cost.

use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use crate::cli::{
    args::{AiUsage, AiVerb, Global},
    client::Client,
    failure::Outcome,
    output::Answer,
    shape,
};

const MICROS: u64 = 1_000_000;

pub async fn run(global: &Global, verb: AiVerb) -> Outcome {
    match verb {
        AiVerb::Usage(it) => usage(global, it).await,
    }
}

async fn usage(global: &Global, it: AiUsage) -> Outcome {
    let client = Client::connect(global).await?;
    let request = admin::ListAiUsageRequest { consumer: it.consumer, model: it.model, day: it.day, top: it.top };
    let answer = client.ai().list_ai_usage(client.ask(request)).await?.into_inner();
    let mut notes = Vec::new();
    if answer.left_out > 0 {
        notes.push(format!("{} more rows: ask for them with --top, or for one day", answer.left_out));
    }
    if !answer.unanswered.is_empty() {
        notes.push(format!("no answer from {}: what was asked there is missing", answer.unanswered.join(", ")));
    }
    let json = known(&answer);
    let fields =
        ["day", "consumer", "model", "requests", "input_tokens", "output_tokens", "cost", "target", "estimated"];
    let rows = json["usage"].as_array().into_iter().flatten();
    Answer {
        header: fields.to_vec(),
        wide_columns: 2,
        rows: rows.map(|it| shape::cells(it, &fields)).collect(),
        names: answer.usage.iter().map(|it| it.consumer.clone()).filter(|it| !it.is_empty()).collect(),
        notes,
        list: Some("usage"),
        json,
        ..Answer::default()
    }
    .print(global.output)
}

pub fn known(answer: &admin::ListAiUsageResponse) -> Value {
    let usage = |it: &admin::AiUsage| {
        json!({
            "day": it.day,
            "consumer": shape::known(&it.consumer),
            "model": it.model,
            "target": shape::known(&it.target),
            "requests": it.requests,
            "estimated": it.estimated,
            "input_tokens": it.input_tokens,
            "output_tokens": it.output_tokens,
            "cost": format!("{}.{:06}", it.cost_micros / MICROS, it.cost_micros % MICROS),
            "cost_micros": it.cost_micros,
        })
    };
    json!({
        "usage": answer.usage.iter().map(usage).collect::<Vec<_>>(),
        "left_out": answer.left_out,
        "unanswered": answer.unanswered,
    })
}
