//! Credentials and revocations as the API shows them.

use std::time::Duration;

use quorumgate_model::{
    credential::{Credential, CredentialKind},
    revocation::Revocation,
};
use quorumgate_proto::admin::v1 as admin;

use super::selectors;
use crate::admin::config::messages::{duration, timestamp_ms};

pub fn key(it: &Credential, now_us: u64) -> admin::StoredKey {
    let (prefix, username) = match &it.kind {
        CredentialKind::ApiKey { prefix, .. } => {
            (format!("qg_{}_{}", it.env(), String::from_utf8_lossy(prefix)), String::new())
        }
        CredentialKind::Basic(user) => (String::new(), user.name.clone()),
    };
    let standing = it.standing(now_us);
    let ends = it.ends_at_us.filter(|_| standing.is_good());
    admin::StoredKey {
        id: it.id.to_string(),
        consumer: it.consumer.to_string(),
        kind: it.kind.word().to_owned(),
        prefix,
        username,
        scopes: it.scopes().iter().map(|scope| scope.to_string()).collect(),
        cidrs: it.cidrs().iter().map(ToString::to_string).collect(),
        env: it.env().to_owned(),
        state: standing.word().to_owned(),
        created_at: Some(timestamp_ms(it.created.get())),
        expires_in: ends.map(|end| left(now_us, end.get())),
        replaced_by: it.replaced_by.map(|id| id.to_string()).unwrap_or_default(),
        label: it.label().to_owned(),
    }
}

pub fn revocation(it: &Revocation, now_us: u64) -> admin::StoredRevocation {
    let seconds = |at: u64| prost_types::Timestamp { seconds: i64::try_from(at).unwrap_or(i64::MAX), nanos: 0 };
    admin::StoredRevocation {
        selector: Some(selectors::to_message(it.selector.parts())),
        text: it.selector.to_string(),
        reason: it.note.reason.clone(),
        actor: it.note.actor.clone(),
        revision: it.note.index,
        time: Some(timestamp_ms(it.note.wall_ms)),
        issued_before: it.not_before_s.map(seconds),
        expires_in: Some(left(now_us, it.expires_at_us)),
    }
}

fn left(now_us: u64, end_us: u64) -> prost_types::Duration {
    duration(Duration::from_micros(end_us.saturating_sub(now_us)))
}
