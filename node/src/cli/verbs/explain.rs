//! `route match`: which route takes a request, which it beats, and what would happen.

use quorumgate_proto::admin::v1::{ExplainMatchRequest, ExplainMatchResponse, HeaderField};

use crate::cli::{
    args::{Global, MatchRequest},
    client::Client,
    failure::{Failure, Outcome},
    output::Answer,
    shape,
};

pub async fn run(global: &Global, verb: MatchRequest) -> Outcome {
    let headers = verb.headers.iter().map(|it| header(it)).collect::<Outcome<Vec<_>>>()?;
    let client = Client::connect(global).await?;
    let request = client.ask(ExplainMatchRequest {
        method: verb.method.to_ascii_uppercase(),
        url: verb.url,
        headers,
        client_ip: verb.client_ip.map(|it| it.to_string()).unwrap_or_default(),
        consumer: verb.consumer.map(|it| it.to_string()).unwrap_or_default(),
        scopes: verb.scopes,
        claims: verb.claims,
        listener: verb.listener.map(|it| it.to_string()).unwrap_or_default(),
    });
    let answer = client.observe().explain_match(request).await?.into_inner();
    Answer {
        text: Some(text(&answer)),
        names: Some(answer.route.clone()).filter(|it| !it.is_empty()).into_iter().collect(),
        json: shape::explanation(&answer),
        ..Answer::default()
    }
    .print(global.output)
}

fn header(text: &str) -> Outcome<HeaderField> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok(HeaderField { name: name.trim().to_ascii_lowercase(), value: value.trim().to_owned() })
        }
        _ => Err(Failure::usage(format!("--header: found {text:?}")).help("write name:value, such as x-beta:1")),
    }
}

fn text(answer: &ExplainMatchResponse) -> String {
    let mut text = match (answer.route.as_str(), answer.status) {
        ("", status) => format!("no route: {status} {}\n", answer.code),
        (route, 0) => format!("route {route} → upstream {}\n", answer.upstream),
        (route, status) => format!("route {route} → {status} {}\n", answer.code),
    };
    for beaten in &answer.beaten {
        text += &format!("  beats {}: {}\n", beaten.route, beaten.why);
    }
    for missed in &answer.near_misses {
        text += &format!("  not {}: {}\n", missed.route, missed.why);
    }
    for phase in &answer.phases {
        let rule = if phase.rule.is_empty() { String::new() } else { format!(" ({})", phase.rule) };
        text += &format!("  {}: {}{rule}\n", phase.phase, phase.decision);
    }
    text
}
