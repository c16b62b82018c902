//! Changes that wait for an approval, between prost and model.

use std::{sync::Arc, time::Duration};

use quorumgate_proto::store::v1 as store;

use super::command::{
    actor_from, actor_to, change_resources_from, change_resources_to,
    words::{array, micros, present},
};
use crate::{
    command::{DecideChange, HoldChange, Verdict},
    digest::Digest,
    invalid::Invalid,
    state::PendingChange,
};

pub(crate) fn hold_to(it: &HoldChange) -> store::HoldChange {
    store::HoldChange { change: Some(change_resources_to(&it.change)), ttl_us: micros(it.ttl) }
}

pub(crate) fn hold_from(it: store::HoldChange) -> Result<HoldChange, Invalid> {
    let change = change_resources_from(present("change", it.change)?)?;
    Ok(HoldChange { change, ttl: Duration::from_micros(it.ttl_us) })
}

pub(crate) fn decide_to(it: &DecideChange) -> store::DecideChange {
    let message = store::DecideChange { id: it.id, reason: it.reason.clone(), ..Default::default() };
    match &it.verdict {
        Verdict::Rejected => message,
        Verdict::Approved { guardrails, findings } => store::DecideChange {
            approved: true,
            guardrails: guardrails.map(|it| it.0.into()).unwrap_or_default(),
            findings: findings.to_vec(),
            ..message
        },
    }
}

pub(crate) fn decide_from(it: store::DecideChange) -> Result<DecideChange, Invalid> {
    let guardrails = match it.guardrails.is_empty() {
        true => None,
        false => Some(Digest(array("guardrails", &it.guardrails)?)),
    };
    let verdict = match it.approved {
        true => Verdict::Approved { guardrails, findings: it.findings.into() },
        false => Verdict::Rejected,
    };
    Ok(DecideChange { id: it.id, verdict, reason: it.reason })
}

pub(crate) fn pending_to(it: &PendingChange) -> store::PendingRecord {
    store::PendingRecord {
        id: it.id,
        actor: Some(actor_to(&it.actor)),
        change: Some(change_resources_to(&it.change)),
        revision: it.revision,
        wall_ms: it.wall_ms,
        expires_at_us: it.expires_at_us,
        token_hash: it.token.map(|it| it.0.into()).unwrap_or_default(),
    }
}

pub(crate) fn pending_from(it: store::PendingRecord) -> Result<PendingChange, Invalid> {
    let token = match it.token_hash.is_empty() {
        true => None,
        false => Some(Digest(array("pending.token_hash", &it.token_hash)?)),
    };
    Ok(PendingChange {
        id: it.id,
        actor: Arc::new(actor_from(it.actor.unwrap_or_default())),
        change: change_resources_from(present("pending.change", it.change)?)?,
        revision: it.revision,
        wall_ms: it.wall_ms,
        expires_at_us: it.expires_at_us,
        token,
    })
}
