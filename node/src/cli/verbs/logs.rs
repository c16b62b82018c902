//! `logs`: what the asked node says, and how much.

use quorumgate_proto::admin::v1::{SetLogLevelRequest, WatchLogsRequest};
use serde_json::{Value, json};

use crate::cli::{
    args::{Form, Global, Logs, LogsWhat},
    client::Client,
    failure::Outcome,
    output::{self, Answer},
    shape, status,
};

pub async fn run(global: &Global, verb: Logs) -> Outcome {
    let client = Client::connect(global).await?;
    if let Some(LogsWhat::Level { filter, hold }) = verb.what {
        let (filter, r#for) = (filter.unwrap_or_default(), hold.map(|it| shape::to_proto(it.0)));
        let answer =
            client.observe().set_log_level(client.ask(SetLogLevelRequest { filter, r#for })).await?.into_inner();
        return Answer {
            text: Some(format!("{}\n", answer.filter)),
            names: vec![answer.filter.clone()],
            json: json!({ "filter": answer.filter, "before": answer.before, "for": shape::span(r#for.as_ref()) }),
            ..Answer::default()
        }
        .print(global.output);
    }
    let request = WatchLogsRequest { lines: verb.lines, follow: verb.follow };
    let mut lines = client.observe().watch_logs(client.stream(request)).await?.into_inner();
    let mut dropped = 0;
    while let Some(message) = lines.message().await.map_err(status::ended)? {
        if message.dropped > dropped {
            eprintln!("{} lines came too fast and are not shown", message.dropped - dropped);
            dropped = message.dropped;
        }
        match global.output {
            Form::Table | Form::Wide | Form::Name => output::stdout(&format!("{}\n", people(&message.line)))?,
            _ => output::stdout(&format!("{}\n", message.line))?,
        }
    }
    Ok(())
}

/// `time LEVEL target message field=value`, as on a terminal.
fn people(line: &str) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else { return line.to_owned() };
    let mut word = |name: &str| fields.shift_remove(name).map(|it| shape::cell(&it)).unwrap_or_default();
    let head = format!("{} {:5} {} {}", word("timestamp"), word("level"), word("target"), word("message"));
    let rest: Vec<_> = fields.iter().map(|(name, value)| format!(" {name}={}", shape::cell(value))).collect();
    format!("{}{}", head.trim_end(), rest.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_as_on_a_terminal() {
        let line = r#"{"timestamp":"T","level":"INFO","message":"ready","index":7,"target":"quorumgate_node"}"#;
        assert_eq!(people(line), "T INFO  quorumgate_node ready index=7");
        assert_eq!(people("no json"), "no json");
    }
}
