//! The stable JSON shapes (docs/OPERATING.md) of what the API answers: RFC 3339 times, lower-case words, null for unknown.

use prost_types::{Duration, Timestamp};
use quorumgate_model::units::Span;
use quorumgate_proto::admin::v1::{self as admin, change::Action};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// `2026-11-23T10:00:00.123Z`, or null.
pub fn time(at: Option<&Timestamp>) -> Value {
    at.and_then(instant).and_then(|at| at.format(&Rfc3339).ok()).map_or(Value::Null, Value::String)
}

fn instant(at: &Timestamp) -> Option<OffsetDateTime> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().filter(|_| nanos != 0)
}

/// As operators write it, `250ms`, or null.
pub fn span(length: Option<&Duration>) -> Value {
    length.map_or(Value::Null, |it| Value::String(words(it)))
}

pub fn words(length: &Duration) -> String {
    let length = std::time::Duration::try_from(*length).unwrap_or_default();
    // Microseconds mean nothing to a reader of seconds, nor milliseconds to one of minutes, nor seconds to one of days.
    let shown = match length.as_millis() {
        0 => length,
        millis @ 1..60_000 => std::time::Duration::from_millis(millis as u64),
        60_000..86_400_000 => std::time::Duration::from_secs(length.as_secs()),
        _ => std::time::Duration::from_secs(length.as_secs() / 3600 * 3600),
    };
    Span(shown).to_string()
}

pub fn to_proto(length: std::time::Duration) -> Duration {
    Duration { seconds: length.as_secs() as i64, nanos: length.subsec_nanos() as i32 }
}

/// The text, or null when it is empty.
pub fn known(text: &str) -> Value {
    match text {
        "" => Value::Null,
        text => Value::String(text.to_owned()),
    }
}

pub fn kind(kind: i32) -> &'static str {
    match admin::Kind::try_from(kind) {
        Ok(admin::Kind::Upstream) => "upstream",
        Ok(admin::Kind::Route) => "route",
        Ok(admin::Kind::Consumer) => "consumer",
        Ok(admin::Kind::Auth) => "auth",
        Ok(admin::Kind::CertificateAuthority) => "certificate_authority",
        Ok(admin::Kind::Limit) => "limit",
        Ok(admin::Kind::Certificate) => "certificate",
        Ok(admin::Kind::Listener) => "listener",
        Ok(admin::Kind::Policy) => "policy",
        Ok(admin::Kind::Tenant) => "tenant",
        Ok(admin::Kind::Guardrail) => "guardrail",
        _ => "unknown",
    }
}

pub fn action(action: i32) -> &'static str {
    match Action::try_from(action) {
        Ok(Action::Created) => "created",
        Ok(Action::Updated) => "updated",
        Ok(Action::Deleted) => "deleted",
        _ => "unknown",
    }
}

pub fn counts(counts: Option<&admin::ChangeCounts>) -> Value {
    let counts = counts.cloned().unwrap_or_default();
    json!({ "created": counts.created, "updated": counts.updated, "deleted": counts.deleted })
}

/// `+3 ~1 -0`
pub fn counts_text(counts: Option<&admin::ChangeCounts>) -> String {
    let counts = counts.cloned().unwrap_or_default();
    format!("+{} ~{} -{}", counts.created, counts.updated, counts.deleted)
}

pub fn write(answer: &admin::WriteResponse) -> Value {
    let mut changes = counts(answer.counts.as_ref());
    changes["objects"] = answer
        .changes
        .iter()
        .map(|it| json!({ "kind": kind(it.kind), "name": it.name, "action": action(it.action) }))
        .collect();
    let nodes: Vec<Value> = answer.nodes.iter().map(receipt).collect();
    json!({
        "revision": answer.revision,
        "noop": answer.noop,
        "changes": changes,
        "nodes": nodes,
        "warnings": answer.warnings,
        "request_id": known(&answer.request_id),
        "trial_until": time(answer.trial_until.as_ref()),
    })
}

fn receipt(node: &admin::NodeReceipt) -> Value {
    json!({
        "name": node.name,
        "applied_revision": node.applied_revision,
        "applied_at": time(node.applied_at.as_ref()),
        "unreachable": node.unreachable,
    })
}

pub fn node(node: &admin::NodeStatus) -> Value {
    json!({
        "name": node.name,
        "id": node.id,
        "region": node.region,
        "role": node.role,
        "state": node.state,
        "raft": known(&node.raft),
        "lag": node.lag,
        // A node that gives no answer is at no revision that is known here.
        "revision": node.applied_index.map(|_| node.revision),
        "version": known(&node.version),
        "peer_address": known(&node.peer_address),
        "certificate_not_after": time(node.certificate_not_after.as_ref()),
        "applied_index": node.applied_index,
        "problems": node.problems,
    })
}

pub fn cluster(status: &admin::GetStatusResponse) -> Value {
    json!({
        "cluster": status.cluster,
        "leader": known(&status.leader),
        "term": status.term,
        "voters": status.voters,
        "failure_tolerance": status.failure_tolerance,
        "revision": status.revision,
        "healthy": status.healthy,
        "max_rtt": span(status.max_rtt.as_ref()),
        "max_staleness": span(status.max_staleness.as_ref()),
        "findings": status.findings,
        "under_way": status.under_way,
    })
}

pub fn revision(revision: &admin::Revision) -> Value {
    json!({
        "revision": revision.revision,
        "time": time(revision.time.as_ref()),
        "actor": revision.actor,
        "message": revision.message,
        "changes": counts(revision.changes.as_ref()),
        "hash": known(&revision.hash),
        "trial": known(&revision.trial),
        "rollback_of": match revision.rollback_of { 0 => Value::Null, it => it.into() },
    })
}

pub fn explanation(answer: &admin::ExplainMatchResponse) -> Value {
    let named = |all: &[admin::explain_match_response::Beaten]| -> Vec<Value> {
        all.iter().map(|it| json!({ "route": it.route, "why": it.why })).collect()
    };
    let phases: Vec<Value> = answer
        .phases
        .iter()
        .map(|it| json!({ "phase": it.phase, "decision": it.decision, "rule": known(&it.rule) }))
        .collect();
    json!({
        "status": match answer.status { 0 => Value::Null, it => it.into() },
        "code": known(&answer.code),
        "route": known(&answer.route),
        "upstream": known(&answer.upstream),
        "beaten": named(&answer.beaten),
        "phases": phases,
        "near_misses": named(&answer.near_misses),
    })
}

pub fn audit(entry: &admin::AuditEntry) -> Value {
    json!({
        "index": match entry.index { 0 => Value::Null, it => it.into() },
        "revision": match entry.revision { 0 => Value::Null, it => it.into() },
        "time": time(entry.time.as_ref()),
        "actor": entry.actor,
        "source": entry.source,
        "rpc": entry.rpc,
        "message": entry.message,
        "summary": entry.summary,
        "hash": known(&entry.hash),
        "sequence": entry.sequence,
        "result": entry.result,
        "node": known(&entry.node),
        "count": entry.count,
    })
}

/// A value of a JSON object as a table cell: text in one line, null as a dash.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    }
}

/// In one line, as a terminal shows it: what moves its cursor, or the order of letters, is shown and not done.
pub fn visible(text: &str) -> String {
    let acts = |it: char| {
        it.is_control()
            || matches!(it, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown = |out: String, it: char| {
        if acts(it) { out + &it.escape_unicode().to_string() } else { out + it.encode_utf8(&mut [0; 4]) }
    };
    text.chars().fold(String::with_capacity(text.len()), shown)
}

/// The cells of an object's fields, in the given order.
pub fn cells(object: &Value, fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| cell(&object[*field])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_do_is_shown() {
        let (acts, shown) = ("a\u{1b}[2J\nb\u{202e}é", "a\\u{1b}[2J\\u{a}b\\u{202e}é");
        assert_eq!(visible(acts), shown);
        assert_eq!(cells(&json!({ "message": acts }), &["message"]), [shown]);
    }

    #[test]
    fn times_and_spans_are_words() {
        let at = Timestamp { seconds: 1_700_000_000, nanos: 123_000_000 };
        assert_eq!(time(Some(&at)), json!("2023-11-14T22:13:20.123Z"));
        assert_eq!(time(Some(&Timestamp::default())), Value::Null);
        assert_eq!(time(None), Value::Null);
        for (millis, text) in [(250, "250ms"), (1_500, "1500ms"), (61_001, "61s"), (3_600_000, "1h"), (0, "0s")] {
            assert_eq!(words(&to_proto(std::time::Duration::from_millis(millis))), text);
        }
        for (micros, text) in [(18_216, "18ms"), (250, "250us")] {
            assert_eq!(words(&to_proto(std::time::Duration::from_micros(micros))), text);
        }
    }

    #[test]
    fn a_write_has_every_field() {
        let answer = admin::WriteResponse {
            revision: 43,
            counts: Some(admin::ChangeCounts { created: 1, updated: 0, deleted: 0 }),
            changes: vec![admin::Change { kind: 2, name: "orders".into(), action: 1, ..Default::default() }],
            nodes: vec![admin::NodeReceipt { name: "n1".into(), applied_revision: 43, ..Default::default() }],
            ..Default::default()
        };
        let expected = json!({
            "revision": 43,
            "noop": false,
            "changes": { "created": 1, "updated": 0, "deleted": 0,
                "objects": [{ "kind": "route", "name": "orders", "action": "created" }] },
            "nodes": [{ "name": "n1", "applied_revision": 43, "applied_at": null, "unreachable": false }],
            "warnings": [], "request_id": null, "trial_until": null,
        });
        assert_eq!(write(&answer), expected);
    }

    #[test]
    fn a_node_that_gives_no_answer_is_at_no_revision() {
        let of = |applied_index| node(&admin::NodeStatus { applied_index, ..Default::default() })["revision"].clone();
        assert_eq!((of(None), of(Some(7))), (Value::Null, json!(0)));
    }

    #[test]
    fn an_unknown_leader_is_null() {
        let json = cluster(&admin::GetStatusResponse { cluster: "c".into(), voters: 3, ..Default::default() });
        assert_eq!(json["leader"], Value::Null);
        for field in ["cluster", "term", "voters", "failure_tolerance", "revision", "healthy"] {
            assert!(!json[field].is_null(), "{field}");
        }
    }
}
