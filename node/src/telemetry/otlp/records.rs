//! Audit entries as log records. `log.record.uid` is the entry's hash: the same from every node that sends it, so that a
//! collector can drop what it has already.

use quorumgate_model::state::{AuditEntry, RevisionDiff};
use quorumgate_proto::telemetry::v1 as otlp;

use super::{now_ns, number, text, words};
use crate::denials::Denial;

const INFO: (i32, &str) = (9, "INFO");
const WARN: (i32, &str) = (13, "WARN");
/// Objects that a record names; there may be more.
const OBJECTS_MAX: usize = 64;

/// An entry of the cluster's trail, and what its revision changed as far as that is known.
pub fn mutation(entry: &AuditEntry, diff: Option<&RevisionDiff>) -> otlp::LogRecord {
    let actor = &entry.actor;
    let hash = entry.hash().to_string();
    let mut attributes = vec![
        text("log.record.uid", &hash),
        text("quorumgate.audit.chain", "mutations"),
        number("quorumgate.audit.sequence", entry.sequence),
        text("quorumgate.audit.hash", &hash),
        text("quorumgate.audit.previous", &entry.previous.to_string()),
        text("quorumgate.audit.actor", &actor.name),
        text("quorumgate.audit.source", &actor.source),
        text("quorumgate.audit.action", &actor.rpc),
        text("quorumgate.audit.result", "ok"),
        number("quorumgate.audit.index", entry.index),
    ];
    if entry.revision > 0 {
        attributes.push(number("quorumgate.audit.revision", entry.revision));
    }
    if !entry.message.is_empty() {
        attributes.push(text("quorumgate.audit.message", &entry.message));
    }
    if let Some(diff) = diff {
        let objects = diff.changes.iter().take(OBJECTS_MAX).map(|it| it.key.to_string());
        attributes.push(words("quorumgate.audit.objects", objects));
        attributes.push(number("quorumgate.audit.objects_count", diff.changes.len() as u64));
    }
    record("quorumgate.audit.mutation", INFO, entry.wall_ms, &entry.summary, attributes)
}

/// An entry of this node's own trail of calls that it refused.
pub fn denial(denial: &Denial, node: &str) -> otlp::LogRecord {
    let record = &denial.record;
    let actor = record.actor.clone().unwrap_or_default();
    let attributes = vec![
        text("log.record.uid", &denial.hash),
        text("quorumgate.audit.chain", "denials"),
        text("quorumgate.audit.node", node),
        number("quorumgate.audit.sequence", denial.sequence),
        text("quorumgate.audit.hash", &denial.hash),
        text("quorumgate.audit.previous", &denial.previous),
        text("quorumgate.audit.actor", &actor.name),
        text("quorumgate.audit.source", &actor.source),
        text("quorumgate.audit.action", &actor.rpc),
        text("quorumgate.audit.result", "denied"),
        text("quorumgate.audit.reason", &record.reason.to_ascii_lowercase()),
        // How many calls it stands for.
        number("quorumgate.audit.count", record.count),
    ];
    self::record("quorumgate.audit.denial", WARN, record.wall_ms, &record.message, attributes)
}

fn record(
    event: &str,
    (severity, severity_text): (i32, &str),
    wall_ms: u64,
    body: &str,
    attributes: Vec<otlp::KeyValue>,
) -> otlp::LogRecord {
    let body = otlp::AnyValue { value: Some(otlp::any_value::Value::StringValue(body.to_owned())) };
    otlp::LogRecord {
        time_unix_nano: wall_ms.saturating_mul(1_000_000),
        severity_number: severity,
        severity_text: severity_text.to_owned(),
        body: Some(body),
        attributes,
        observed_time_unix_nano: now_ns(),
        event_name: event.to_owned(),
    }
}
