//! Commands, answers and journal records between model and prost. An unknown body or level is an error that stops
//! consensus on this node.

mod credential;
mod record;
mod revocation;
pub(super) mod words;

use std::{sync::Arc, time::Duration};

use prost::Message;
use quorumgate_proto::store::v1 as store;
use store::command::Body as Wire;

pub(crate) use credential::*;
pub(crate) use record::*;
pub(crate) use revocation::*;
use words::*;

use crate::{
    LEVEL,
    change::Changed,
    command::{
        Actor, AdmitNode, Applied, Body, Bootstrap, ChangeCounts, ChangeResources, Command, CreateAdminToken,
        CreateJoinToken, Expect, NodeRecord, Outcome, Reason, Refound, RefoundCause, Rejected, ResourceChange,
        RotateTicketKeys, SetSecret, Stamp, StoreJwks, UpdateNode,
    },
    convert::{approvals, ban, key_from, kind_to, ledger, purge, resource_to, sealing, stored_resource_from},
    digest::Digest,
    invalid::Invalid,
    resource::{Key, Resource},
    state::{AuditEntry, RevisionDiff},
};

pub fn command_from(message: store::Command) -> Result<Command, Invalid> {
    if message.min_level > LEVEL {
        let allowed = format!("at most {LEVEL}: a newer build is needed here");
        return Err(Invalid::field("min_level").found(message.min_level).allowed(allowed));
    }
    let request_id = match message.request_id.is_empty() {
        true => None,
        false => Some(array("request_id", &message.request_id)?),
    };
    let body =
        message.body.ok_or_else(|| Invalid::field("body").found("an unknown kind").allowed("a known command"))?;
    Ok(Command {
        min_level: message.min_level,
        request_id,
        asked: match message.asked.is_empty() {
            true => None,
            false => Some(digest("asked", &message.asked)?),
        },
        stamp: Stamp { clock_us: message.clock_us, wall_ms: message.wall_ms },
        actor: Arc::new(actor_from(message.actor.unwrap_or_default())),
        body: body_from(body)?,
    })
}

pub fn command_to(command: &Command) -> store::Command {
    store::Command {
        min_level: command.min_level,
        request_id: command.request_id.map(Vec::from).unwrap_or_default(),
        asked: command.asked.map(|asked| asked.0.into()).unwrap_or_default(),
        clock_us: command.stamp.clock_us,
        wall_ms: command.stamp.wall_ms,
        actor: Some(actor_to(&command.actor)),
        body: Some(body_to(&command.body)),
    }
}

/// Of a body alone, without who sent it and when.
pub(crate) fn body_digest(body: &Body) -> Digest {
    Digest::of(&store::Command { body: Some(body_to(body)), ..Default::default() }.encode_to_vec())
}

/// How long the stored form of a change is.
pub(crate) fn change_bytes(change: &ChangeResources) -> usize {
    change_resources_to(change).encoded_len()
}

/// How long the stored form of a body is.
pub fn body_bytes(body: &Body) -> usize {
    store::Command { body: Some(body_to(body)), ..Default::default() }.encoded_len()
}

fn body_from(body: Wire) -> Result<Body, Invalid> {
    Ok(match body {
        Wire::Bootstrap(it) => Body::Bootstrap(Arc::new(bootstrap_from(it)?)),
        Wire::Refound(it) => Body::Refound(Arc::new(refound_from(it)?)),
        Wire::ChangeResources(it) => Body::ChangeResources(change_resources_from(it)?),
        Wire::EndTrial(it) => Body::EndTrial { revision: it.revision, end: trial_end_from(it.end)? },
        Wire::CreateJoinToken(it) => Body::CreateJoinToken(CreateJoinToken {
            secret_hash: digest("secret_hash", &it.secret_hash)?,
            role: role_from(it.role)?,
            ttl: Duration::from_micros(it.ttl_us),
            uses: it.uses,
            id: it.id,
        }),
        Wire::RemoveJoinToken(it) => Body::RemoveJoinToken { id: it.id },
        Wire::AdmitNode(it) => Body::AdmitNode(AdmitNode {
            token_id: it.token_id,
            token_secret_hash: digest("token_secret_hash", &it.token_secret_hash)?,
            node: node_from(present("node", it.node)?)?,
        }),
        Wire::UpdateNode(it) => Body::UpdateNode(UpdateNode {
            id: it.id,
            standing: it.standing.map(standing_from).transpose()?,
            wanted_role: it.wanted_role.map(role_from).transpose()?,
            peer_address: it.peer_address,
            level: it.level,
            version: it.version,
        }),
        Wire::RemoveNode(it) => Body::RemoveNode { id: it.id },
        Wire::CreateAdminToken(it) => Body::CreateAdminToken(CreateAdminToken {
            name: name("name", &it.name)?,
            secret_hash: digest("secret_hash", &it.secret_hash)?,
            role: admin_role_from(&it.role)?,
            owner: it.owner,
            ttl: Duration::from_micros(it.ttl_us),
        }),
        Wire::RemoveAdminToken(it) => Body::RemoveAdminToken { name: name("name", &it.name)? },
        Wire::SetMaxRtt(it) => Body::SetMaxRtt { max_rtt: Duration::from_micros(it.max_rtt_us) },
        Wire::SetSecret(it) => Body::SetSecret(SetSecret { name: name("name", &it.name)?, sealed: it.sealed.into() }),
        Wire::CreateCredentials(it) => Body::CreateCredentials(new_credentials_from(it)?),
        Wire::RotateCredential(it) => Body::RotateCredential(rotate_from(it)?),
        Wire::SetCredentialState(it) => {
            Body::SetCredentialState { id: credential_id("id", it.id)?, to: decided_from(it.state)? }
        }
        Wire::Revoke(it) => Body::Revoke(revoke_from(it)?),
        Wire::StoreJwks(it) => Body::StoreJwks(StoreJwks {
            auth: name("auth", &it.auth)?,
            body: it.body.into(),
            fetched_wall_ms: it.fetched_wall_ms,
        }),
        Wire::ResetLimit(it) => Body::ResetLimit(ledger::reset_from(it)?),
        Wire::GrantBonus(it) => Body::GrantBonus(ledger::bonus_from(it)?),
        Wire::PurgeCache(it) => Body::PurgeCache(purge::command_from(it)?),
        Wire::AddBans(it) => Body::AddBans(ban::add_from(it)?),
        Wire::LiftBans(it) => Body::LiftBans(ban::lift_from(it)?),
        Wire::RotateTicketKeys(it) => {
            Body::RotateTicketKeys(RotateTicketKeys { sealed: it.sealed.into(), newest: it.newest })
        }
        Wire::RotateCa(it) => Body::RotateCa(rotate_ca_from(it)?),
        Wire::NoteChain(it) => Body::NoteChain(note_chain_from(it)?),
        Wire::EraseActor(it) => Body::EraseActor(digest("actor_hash", &it.actor_hash)?),
        Wire::Tick(store::Tick {}) => Body::Tick,
        Wire::Ledger(it) => Body::Ledger(ledger::command_from(it)?),
        Wire::RotateSealingKey(it) => Body::RotateSealingKey(sealing::command_from(it)?),
        Wire::HoldChange(it) => Body::HoldChange(approvals::hold_from(it)?),
        Wire::DecideChange(it) => Body::DecideChange(approvals::decide_from(it)?),
    })
}

fn body_to(body: &Body) -> Wire {
    match body {
        Body::Bootstrap(it) => Wire::Bootstrap(bootstrap_to(it)),
        Body::Refound(it) => Wire::Refound(refound_to(it)),
        Body::ChangeResources(it) => Wire::ChangeResources(change_resources_to(it)),
        Body::EndTrial { revision, end } => {
            Wire::EndTrial(store::EndTrial { revision: *revision, end: trial_end_to(*end).into() })
        }
        Body::CreateJoinToken(it) => Wire::CreateJoinToken(store::CreateJoinToken {
            id: it.id.clone(),
            secret_hash: it.secret_hash.0.into(),
            role: role_to(it.role).into(),
            ttl_us: micros(it.ttl),
            uses: it.uses,
        }),
        Body::RemoveJoinToken { id } => Wire::RemoveJoinToken(store::RemoveJoinToken { id: id.clone() }),
        Body::AdmitNode(it) => Wire::AdmitNode(store::AdmitNode {
            token_id: it.token_id.clone(),
            token_secret_hash: it.token_secret_hash.0.into(),
            node: Some(node_to(&it.node)),
        }),
        Body::UpdateNode(it) => Wire::UpdateNode(store::UpdateNode {
            id: it.id,
            standing: it.standing.map(|it| standing_to(it).into()),
            wanted_role: it.wanted_role.map(|it| role_to(it).into()),
            peer_address: it.peer_address.clone(),
            level: it.level,
            version: it.version.clone(),
        }),
        Body::RemoveNode { id } => Wire::RemoveNode(store::RemoveNode { id: *id }),
        Body::CreateAdminToken(it) => Wire::CreateAdminToken(store::CreateAdminToken {
            name: it.name.to_string(),
            secret_hash: it.secret_hash.0.into(),
            role: it.role.word().into(),
            owner: it.owner.clone(),
            ttl_us: micros(it.ttl),
        }),
        Body::RemoveAdminToken { name } => Wire::RemoveAdminToken(store::RemoveAdminToken { name: name.to_string() }),
        Body::SetMaxRtt { max_rtt } => Wire::SetMaxRtt(store::SetMaxRtt { max_rtt_us: micros(*max_rtt) }),
        Body::SetSecret(it) => {
            Wire::SetSecret(store::SetSecret { name: it.name.to_string(), sealed: it.sealed.to_vec() })
        }
        Body::CreateCredentials(all) => Wire::CreateCredentials(new_credentials_to(all)),
        Body::RotateCredential(it) => Wire::RotateCredential(rotate_to(it)),
        Body::SetCredentialState { id, to } => {
            Wire::SetCredentialState(store::SetCredentialState { id: id.number(), state: decided_to(*to).into() })
        }
        Body::Revoke(it) => Wire::Revoke(revoke_to(it)),
        Body::StoreJwks(it) => Wire::StoreJwks(store::StoreJwks {
            auth: it.auth.to_string(),
            body: it.body.to_vec(),
            fetched_wall_ms: it.fetched_wall_ms,
        }),
        Body::ResetLimit(it) => Wire::ResetLimit(ledger::reset_to(it)),
        Body::GrantBonus(it) => Wire::GrantBonus(ledger::bonus_to(it)),
        Body::PurgeCache(it) => Wire::PurgeCache(purge::command_to(it)),
        Body::AddBans(it) => Wire::AddBans(ban::add_to(it)),
        Body::LiftBans(it) => Wire::LiftBans(ban::lift_to(it)),
        Body::RotateTicketKeys(it) => {
            Wire::RotateTicketKeys(store::RotateTicketKeys { sealed: it.sealed.to_vec(), newest: it.newest })
        }
        Body::RotateCa(it) => Wire::RotateCa(rotate_ca_to(it)),
        Body::NoteChain(it) => Wire::NoteChain(note_chain_to(it)),
        Body::EraseActor(actor) => Wire::EraseActor(store::EraseActor { actor_hash: actor.0.into() }),
        Body::Tick => Wire::Tick(store::Tick {}),
        Body::Ledger(it) => Wire::Ledger(ledger::command_to(it)),
        Body::RotateSealingKey(it) => Wire::RotateSealingKey(sealing::command_to(it)),
        Body::HoldChange(it) => Wire::HoldChange(approvals::hold_to(it)),
        Body::DecideChange(it) => Wire::DecideChange(approvals::decide_to(it)),
    }
}

fn bootstrap_from(it: store::Bootstrap) -> Result<Bootstrap, Invalid> {
    Ok(Bootstrap {
        cluster_id: array("cluster_id", &it.cluster_id)?,
        cluster_name: it.cluster_name,
        max_rtt: Duration::from_micros(it.max_rtt_us),
        ca_certificate: it.ca_certificate,
        sealed_ca_key: it.sealed_ca_key,
        node: node_from(present("node", it.node)?)?,
    })
}

fn bootstrap_to(it: &Bootstrap) -> store::Bootstrap {
    store::Bootstrap {
        cluster_id: it.cluster_id.into(),
        cluster_name: it.cluster_name.clone(),
        max_rtt_us: micros(it.max_rtt),
        ca_certificate: it.ca_certificate.clone(),
        sealed_ca_key: it.sealed_ca_key.clone(),
        node: Some(node_to(&it.node)),
    }
}

pub fn refound_from(it: store::Refound) -> Result<Refound, Invalid> {
    Ok(Refound {
        cluster_id: array("cluster_id", &it.cluster_id)?,
        node: node_from(present("node", it.node)?)?,
        cause: if it.recovered { RefoundCause::Recovered } else { RefoundCause::Restored },
        reset_budgets: it.reset_budgets,
    })
}

pub fn refound_to(it: &Refound) -> store::Refound {
    store::Refound {
        cluster_id: it.cluster_id.into(),
        node: Some(node_to(&it.node)),
        recovered: it.cause == RefoundCause::Recovered,
        reset_budgets: it.reset_budgets,
    }
}

pub(super) fn change_resources_from(it: store::ChangeResources) -> Result<ChangeResources, Invalid> {
    let changes = it.changes.into_iter().enumerate();
    let change = |(i, change)| resource_change_from(change).map_err(|invalid| invalid.under(format!("changes[{i}]")));
    Ok(ChangeResources {
        changes: changes.map(change).collect::<Result<_, _>>()?,
        expected_revision: it.expected_revision,
        message: it.message,
        trial: (it.trial_us != 0).then(|| Duration::from_micros(it.trial_us)),
        rollback_of: (it.rollback_of != 0).then_some(it.rollback_of),
        bounded: it.bounded,
        guardrails: match it.guardrails.is_empty() {
            true => None,
            false => Some(digest("guardrails", &it.guardrails)?),
        },
        findings: it.findings.into(),
        keeps_counters: it.keeps_counters,
    })
}

pub(super) fn change_resources_to(it: &ChangeResources) -> store::ChangeResources {
    store::ChangeResources {
        changes: it.changes.iter().map(resource_change_to).collect(),
        expected_revision: it.expected_revision,
        message: it.message.clone(),
        trial_us: it.trial.map_or(0, micros),
        rollback_of: it.rollback_of.unwrap_or(0),
        bounded: it.bounded,
        guardrails: it.guardrails.map(|digest| digest.0.into()).unwrap_or_default(),
        findings: it.findings.to_vec(),
        keeps_counters: it.keeps_counters,
    }
}

fn resource_change_from(it: store::ResourceChange) -> Result<ResourceChange, Invalid> {
    let key = stored_key(it.kind, it.name)?;
    let expect = match it.expected_etag {
        None => Expect::Anything,
        Some(etag) if etag.is_empty() => Expect::Missing,
        Some(etag) => Expect::Etag(digest("expected_etag", &etag)?),
    };
    Ok(ResourceChange { after: side("after", &key, it.after)?, key, expect })
}

fn resource_change_to(it: &ResourceChange) -> store::ResourceChange {
    store::ResourceChange {
        kind: kind_to(it.key.kind).into(),
        name: it.key.name.to_string(),
        after: it.after.as_ref().map(resource_to),
        expected_etag: match it.expect {
            Expect::Anything => None,
            Expect::Missing => Some(Vec::new()),
            Expect::Etag(etag) => Some(etag.0.into()),
        },
    }
}

fn stored_key(kind: i32, name: String) -> Result<Key, Invalid> {
    key_from(&quorumgate_proto::admin::v1::ResourceRef { kind, name })
}

/// One side of a change, which must be the object that the change names.
fn side(
    field: &str,
    key: &Key,
    resource: Option<quorumgate_proto::admin::v1::Resource>,
) -> Result<Option<Resource>, Invalid> {
    let Some(resource) = resource else { return Ok(None) };
    let resource = stored_resource_from(resource).map_err(|invalid| invalid.under(field))?;
    match resource.key() == *key {
        true => Ok(Some(resource)),
        false => Err(Invalid::field(field).found(resource.key()).allowed(key)),
    }
}

pub fn applied_from(message: store::ApplyOutcome) -> Result<Applied, Invalid> {
    let outcome = match message.rejection {
        Some(rejection) => Err(rejected_from(rejection)?),
        None => Ok(Outcome {
            noop: message.noop,
            counts: ChangeCounts { created: message.created, updated: message.updated, deleted: message.deleted },
            node_id: (message.node_id != 0).then_some(message.node_id),
        }),
    };
    Ok(Applied { index: message.index, revision: message.revision, outcome })
}

pub fn applied_to(applied: &Applied) -> store::ApplyOutcome {
    let head = store::ApplyOutcome { index: applied.index, revision: applied.revision, ..Default::default() };
    match &applied.outcome {
        Ok(Outcome { noop, counts, node_id }) => store::ApplyOutcome {
            noop: *noop,
            created: counts.created,
            updated: counts.updated,
            deleted: counts.deleted,
            node_id: node_id.unwrap_or(0),
            ..head
        },
        Err(rejected) => store::ApplyOutcome { rejection: Some(rejected_to(rejected)), ..head },
    }
}

fn rejected_from(it: store::Rejection) -> Result<Rejected, Invalid> {
    let unknown = || Invalid::field("rejection.code").found(&it.code).allowed("a known reason");
    let reason = Reason::from_word(&it.code).ok_or_else(unknown)?;
    Ok(Rejected { reason, field: it.field, message: it.message })
}

fn rejected_to(it: &Rejected) -> store::Rejection {
    store::Rejection { code: it.reason.word().into(), field: it.field.clone(), message: it.message.clone() }
}

pub fn node_from(message: store::Node) -> Result<NodeRecord, Invalid> {
    Ok(NodeRecord {
        id: message.id,
        name: name("node.name", &message.name)?,
        region: message.region,
        peer_address: message.peer_address,
        incarnation: array("node.incarnation", &message.incarnation)?,
        spki_sha256: array("node.spki_sha256", &message.spki_sha256)?,
        wanted_role: role_from(message.wanted_role)?,
        standing: standing_from(message.standing)?,
        level: message.level,
        version: message.version,
    })
}

pub fn node_to(node: &NodeRecord) -> store::Node {
    store::Node {
        id: node.id,
        name: node.name.to_string(),
        region: node.region.clone(),
        peer_address: node.peer_address.clone(),
        incarnation: node.incarnation.into(),
        spki_sha256: node.spki_sha256.into(),
        wanted_role: role_to(node.wanted_role).into(),
        standing: standing_to(node.standing).into(),
        level: node.level,
        version: node.version.clone(),
    }
}

pub fn diff_from(message: store::RevisionDiff) -> Result<RevisionDiff, Invalid> {
    let changed = |(i, it): (usize, store::ChangedResource)| {
        let key = stored_key(it.kind, it.name)?;
        let [before, after] = [("before", it.before), ("after", it.after)]
            .map(|(field, it)| side(field, &key, it).map_err(|invalid| invalid.under(format!("changes[{i}]"))));
        Ok(Changed { before: before?, after: after?, key })
    };
    Ok(RevisionDiff {
        revision: message.revision,
        previous: message.previous,
        changes: message.changes.into_iter().enumerate().map(changed).collect::<Result<_, Invalid>>()?,
    })
}

pub fn diff_to(diff: &RevisionDiff) -> store::RevisionDiff {
    let changed = |it: &Changed| store::ChangedResource {
        kind: kind_to(it.key.kind).into(),
        name: it.key.name.to_string(),
        before: it.before.as_ref().map(resource_to),
        after: it.after.as_ref().map(resource_to),
    };
    store::RevisionDiff {
        revision: diff.revision,
        previous: diff.previous,
        changes: diff.changes.iter().map(changed).collect(),
    }
}

pub fn audit_from(message: store::AuditRecord) -> Result<AuditEntry, Invalid> {
    Ok(AuditEntry {
        sequence: message.sequence,
        index: message.index,
        revision: message.revision,
        wall_ms: message.wall_ms,
        actor: Arc::new(actor_from(message.actor.unwrap_or_default())),
        message: message.message,
        summary: message.summary,
        previous: digest("previous_hash", &message.previous_hash)?,
    })
}

pub fn audit_to(entry: &AuditEntry) -> store::AuditRecord {
    store::AuditRecord {
        sequence: entry.sequence,
        index: entry.index,
        revision: entry.revision,
        wall_ms: entry.wall_ms,
        actor: Some(actor_to(&entry.actor)),
        message: entry.message.clone(),
        summary: entry.summary.clone(),
        previous_hash: entry.previous.0.into(),
    }
}

pub(super) fn actor_from(it: store::Actor) -> Actor {
    Actor { name: it.name, source: it.source, rpc: it.rpc, owner_scope: it.owner_scope }
}

pub fn actor_to(it: &Actor) -> store::Actor {
    let Actor { name, source, rpc, owner_scope } = it.clone();
    store::Actor { name, source, rpc, owner_scope }
}
