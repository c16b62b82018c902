//! `upstream health`: what the nodes know of an upstream's servers.

use quorumgate_model::resource::Name;
use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use crate::cli::{args::Global, client::Client, failure::Outcome, output::Answer, shape};

pub async fn run(global: &Global, name: &Name) -> Outcome {
    let client = Client::connect(global).await?;
    let request = client.ask(admin::GetUpstreamHealthRequest { name: name.to_string() });
    let answer = client.upstreams().get_upstream_health(request).await?.into_inner();
    let fields =
        ["node", "target", "state", "in_flight", "ejected_for", "priority", "zone", "addresses", "healthy", "ejected"];
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for node in &answer.nodes {
        for it in &node.targets {
            let mut shown = target(it);
            shown["node"] = json!(node.node);
            rows.push(shape::cells(&shown, &fields));
        }
        if node.targets.is_empty() {
            notes.push(format!("{} serves no such upstream", node.node));
        }
        if matches!(node.breaker.as_str(), "open" | "half_open") {
            notes.push(format!("the breaker of {} is {}", node.node, node.breaker.replace('_', " ")));
        }
    }
    if !answer.unanswered.is_empty() {
        notes.push(format!("no answer from {}: what is known there is missing", answer.unanswered.join(", ")));
    }
    Answer {
        header: fields.to_vec(),
        wide_columns: 3,
        rows,
        names: answer.targets.iter().map(|it| it.address.clone()).collect(),
        notes,
        json: known(&answer),
        list: Some("nodes"),
        ..Answer::default()
    }
    .print(global.output)
}

/// What all nodes know of it.
pub fn known(answer: &admin::GetUpstreamHealthResponse) -> Value {
    json!({
        "upstream": answer.name,
        "breaker": shape::known(&answer.breaker),
        "breaker_opened": answer.breaker_opened,
        "retries_running": answer.retries_running,
        "targets": answer.targets.iter().map(target).collect::<Vec<_>>(),
        "nodes": answer.nodes.iter().map(node).collect::<Vec<_>>(),
        "unanswered": answer.unanswered,
    })
}

fn node(it: &admin::NodeUpstreamHealth) -> Value {
    json!({
        "node": it.node,
        "region": shape::known(&it.region),
        "breaker": shape::known(&it.breaker),
        "breaker_opened": it.breaker_opened,
        "retries_running": it.retries_running,
        "targets": it.targets.iter().map(target).collect::<Vec<_>>(),
    })
}

fn target(it: &admin::UpstreamTargetHealth) -> Value {
    let state = match (it.addresses, it.healthy, it.ejected) {
        (0, _, _) => "unresolved",
        (_, 0, _) => "down",
        (all, _, ejected) if ejected == all => "ejected",
        (all, healthy, 0) if healthy == all => "up",
        _ => "partly",
    };
    json!({
        "target": it.address,
        "state": state,
        "addresses": it.addresses,
        "healthy": it.healthy,
        "ejected": it.ejected,
        "ejected_for": shape::span(it.ejected_for.as_ref()),
        "in_flight": it.in_flight,
        "priority": it.priority,
        "zone": shape::known(&it.zone),
    })
}
