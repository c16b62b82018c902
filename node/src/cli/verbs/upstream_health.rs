//! `upstream health`: what one node knows of an upstream's servers.

use quorumgate_model::resource::Name;
use quorumgate_proto::admin::v1 as admin;
use serde_json::{Value, json};

use crate::cli::{args::Global, client::Client, failure::Outcome, output::Answer, shape};

pub async fn run(global: &Global, name: &Name) -> Outcome {
    let client = Client::connect(global).await?;
    let request = client.ask(admin::GetUpstreamHealthRequest { name: name.to_string() });
    let answer = client.upstreams().get_upstream_health(request).await?.into_inner();
    let targets: Vec<Value> = answer.targets.iter().map(target).collect();
    let fields = ["target", "state", "in_flight", "ejected_for", "priority", "zone", "addresses", "healthy", "ejected"];
    Answer {
        header: fields.to_vec(),
        wide_columns: 3,
        rows: targets.iter().map(|it| shape::cells(it, &fields)).collect(),
        names: answer.targets.iter().map(|it| it.address.clone()).collect(),
        json: json!({
            "upstream": answer.name,
            "breaker": shape::known(&answer.breaker),
            "breaker_opened": answer.breaker_opened,
            "retries_running": answer.retries_running,
            "targets": targets,
        }),
        list: Some("targets"),
        ..Answer::default()
    }
    .print(global.output)
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
