//! History and changes as the API shows them.

use std::time::Duration;

use prost::Message;
use quorumgate_model::{
    change::Changed,
    command::ChangeCounts,
    convert,
    digest::Digest,
    resource::{Key, Resource, Resources},
    state::{RevisionFacts, TrialStatus},
};
use quorumgate_proto::admin::v1 as admin;

/// With more changes than this, or more bytes of them, their bodies are left out; GetConfig has them.
pub const BODIES_MAX: usize = 1_000;
const BODIES_BYTES_MAX: usize = 16 << 20;

pub fn timestamp_ms(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: (ms / 1_000) as i64, nanos: (ms % 1_000) as i32 * 1_000_000 }
}

pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: span.as_secs() as i64, nanos: span.subsec_nanos() as i32 }
}

pub fn counts(counts: ChangeCounts) -> admin::ChangeCounts {
    admin::ChangeCounts { created: counts.created, updated: counts.updated, deleted: counts.deleted }
}

pub fn changes(changed: &[Changed]) -> Vec<admin::Change> {
    let with_bodies = changed.len() <= BODIES_MAX;
    let body = |resource: &Option<Resource>| resource.as_ref().filter(|_| with_bodies).map(convert::resource_shown);
    let change = |it: &Changed| admin::Change {
        kind: convert::kind_to(it.key.kind).into(),
        name: it.key.name.to_string(),
        action: action(it).into(),
        before: body(&it.before),
        after: body(&it.after),
    };
    let mut changes: Vec<_> = changed.iter().map(change).collect();
    if changes.iter().map(Message::encoded_len).sum::<usize>() > BODIES_BYTES_MAX {
        for change in &mut changes {
            (change.before, change.after) = (None, None);
        }
    }
    changes
}

/// For whoever decides: all that is to be, and what was as far as it fits into one answer.
pub fn decided(changed: &[Changed]) -> Vec<admin::Change> {
    let mut left = BODIES_BYTES_MAX;
    let change = |it: &Changed| {
        let before = it.before.as_ref().map(convert::resource_shown);
        let bytes = before.as_ref().map_or(0, Message::encoded_len);
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        admin::Change {
            kind: convert::kind_to(it.key.kind).into(),
            name: it.key.name.to_string(),
            action: action(it).into(),
            before: before.filter(|_| fits),
            after: it.after.as_ref().map(convert::resource_shown),
        }
    };
    changed.iter().map(change).collect()
}

pub fn revision(facts: &RevisionFacts) -> admin::Revision {
    admin::Revision {
        revision: facts.revision,
        time: Some(timestamp_ms(facts.wall_ms)),
        actor: facts.actor.clone(),
        message: facts.message.clone(),
        changes: Some(counts(facts.counts)),
        hash: facts.hash.to_string(),
        trial: trial(facts.trial).to_owned(),
        rollback_of: facts.rollback_of.unwrap_or_default(),
    }
}

pub fn config(resources: &Resources) -> admin::ConfigSet {
    convert::config_shown(resources.values().map(|stored| &stored.resource))
}

pub fn etag(key: &Key, etag: Digest) -> admin::Etag {
    admin::Etag { kind: convert::kind_to(key.kind).into(), name: key.name.to_string(), etag: etag.to_string() }
}

fn action(changed: &Changed) -> admin::change::Action {
    match (&changed.before, &changed.after) {
        (None, Some(_)) => admin::change::Action::Created,
        (Some(_), None) => admin::change::Action::Deleted,
        _ => admin::change::Action::Updated,
    }
}

fn trial(status: TrialStatus) -> &'static str {
    match status {
        TrialStatus::None => "",
        TrialStatus::Open => "open",
        TrialStatus::Confirmed => "confirmed",
        TrialStatus::Aborted => "aborted",
        TrialStatus::Expired => "expired",
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::resource::Kind;
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_decides_sees_all_that_is_to_be() {
        // Of a megabyte and more each.
        let nets: Vec<String> =
            (0..70_000u32).map(|n| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect();
        let policy = |deny: &[String]| Kind::Policy.parse(json!({ "name": "p", "ip": { "deny": deny } })).unwrap();
        let (before, after) = (policy(&nets), policy(&nets[1..2]));
        let one = Changed { key: after.key(), before: Some(before), after: Some(after) };
        let many = vec![one; 20];
        let bytes: usize = changes(&many[..1]).iter().map(Message::encoded_len).sum();
        assert!(bytes * many.len() > BODIES_BYTES_MAX, "{bytes}");
        assert!(changes(&many).iter().all(|it| it.after.is_none()));
        let decided = decided(&many);
        assert!(decided.iter().all(|it| it.after.is_some()));
        assert!(decided[0].before.is_some() && decided[19].before.is_none());
    }
}
