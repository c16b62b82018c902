//! The parts of the state between model and the records of a snapshot.

use std::{sync::Arc, time::Duration};

use quorumgate_proto::store::v1 as store;

use super::{super::sealing, applied_from, applied_to, words::*};
use crate::{
    NodeId,
    command::{ChangeCounts, NoteChain, RequestId, RotateCa},
    credential::CredentialId,
    digest::Digest,
    invalid::Invalid,
    resource::Name,
    revocation::SelectorKey,
    state::{
        AdminToken, Answered, AuditHead, CaStage, ChainKind, ClusterFacts, JoinToken, Jwks, OtherCa, RemovedNode,
        RevisionFacts, State, Sweep, TicketKey, Trial, TrialStatus,
    },
};

pub(crate) fn head_to(state: &State) -> store::StateHead {
    let head = store::StateHead {
        applied_index: state.index,
        revision: state.revision,
        clock_us: state.clock_us,
        wall_ms: state.wall_ms,
        audit_head: state.audit.hash.0.into(),
        audit_count: state.audit.count,
        resources_hash: state.resources_hash.0.into(),
        credentials_hash: sum_to(state.credentials.hash()),
        revocations_hash: sum_to(state.revocations.hash()),
        sweep_clock_us: state.sweep.clock_us,
        sweep_credential: state.sweep.credential.map_or(0, |id| id.number()),
        sweep_revocation: state.sweep.revocation.map(|key| key.0.to_vec()).unwrap_or_default(),
        ..Default::default()
    };
    let head = match state.other_ca.as_deref() {
        None => head,
        Some(other) => store::StateHead {
            other_ca_certificate: other.certificate.clone(),
            other_sealed_ca_key: other.sealed_key.clone(),
            other_ca_replaced: other.stage == CaStage::Replaced,
            ..head
        },
    };
    let head = sealing::into_head(&state.sealing, head);
    let Some(cluster) = &state.cluster else { return head };
    store::StateHead {
        cluster_id: cluster.id.into(),
        cluster_name: cluster.name.clone(),
        max_rtt_us: micros(cluster.max_rtt),
        ca_certificate: cluster.ca_certificate.clone(),
        sealed_ca_key: cluster.sealed_ca_key.clone(),
        level: cluster.level,
        ..head
    }
}

/// The sums that the head gives for the credentials and the revocations that follow it.
pub(crate) fn sums_from(head: &store::StateHead) -> Result<[Digest; 2], Invalid> {
    let sum = |field: &str, bytes: &[u8]| match bytes.is_empty() {
        true => Ok(Digest::default()),
        false => digest(field, bytes),
    };
    Ok([sum("credentials_hash", &head.credentials_hash)?, sum("revocations_hash", &head.revocations_hash)?])
}

/// Empty keyspaces leave the head as it was before there were any.
fn sum_to(sum: Digest) -> Vec<u8> {
    if sum == Digest::default() { Vec::new() } else { sum.0.into() }
}

/// A state with the head's fields and nothing else.
pub(crate) fn head_from(head: store::StateHead) -> Result<State, Invalid> {
    let sealing = sealing::from_head(&head);
    let cluster = match head.cluster_id.is_empty() {
        true => None,
        false => Some(Arc::new(ClusterFacts {
            id: array("cluster_id", &head.cluster_id)?,
            name: head.cluster_name,
            max_rtt: Duration::from_micros(head.max_rtt_us),
            ca_certificate: head.ca_certificate,
            sealed_ca_key: head.sealed_ca_key,
            level: head.level,
        })),
    };
    let other_ca = (!head.other_ca_certificate.is_empty()).then_some(OtherCa {
        stage: if head.other_ca_replaced { CaStage::Replaced } else { CaStage::Introduced },
        certificate: head.other_ca_certificate,
        sealed_key: head.other_sealed_ca_key,
    });
    let audit = AuditHead { count: head.audit_count, hash: digest("audit_head", &head.audit_head)? };
    if (audit.count == 0) != (audit == AuditHead::default()) {
        return Err(Invalid::field("audit_head").found(audit.hash).allowed("zeros with no entry"));
    }
    Ok(State {
        index: head.applied_index,
        revision: head.revision,
        clock_us: head.clock_us,
        wall_ms: head.wall_ms,
        cluster,
        resources_hash: digest("resources_hash", &head.resources_hash)?,
        audit,
        other_ca: other_ca.map(Arc::new),
        sealing,
        sweep: Sweep {
            clock_us: head.sweep_clock_us,
            credential: CredentialId::new(head.sweep_credential),
            revocation: match head.sweep_revocation.is_empty() {
                true => None,
                false => Some(SelectorKey(array("sweep_revocation", &head.sweep_revocation)?)),
            },
        },
        ..State::default()
    })
}

pub(crate) fn rotate_ca_to(it: &RotateCa) -> store::RotateCa {
    use store::rotate_ca::Step;
    match it {
        RotateCa::Introduce { certificate, sealed_key } => store::RotateCa {
            step: Step::Introduce.into(),
            certificate: certificate.to_vec(),
            sealed_key: sealed_key.to_vec(),
        },
        RotateCa::Replace => store::RotateCa { step: Step::Replace.into(), ..Default::default() },
        RotateCa::End => store::RotateCa { step: Step::End.into(), ..Default::default() },
    }
}

pub(crate) fn rotate_ca_from(it: store::RotateCa) -> Result<RotateCa, Invalid> {
    use store::rotate_ca::Step;
    Ok(match it.step() {
        Step::Introduce => RotateCa::Introduce { certificate: it.certificate.into(), sealed_key: it.sealed_key.into() },
        Step::Replace => RotateCa::Replace,
        Step::End => RotateCa::End,
        Step::Unspecified => return Err(Invalid::field("step").found(it.step).allowed("a known step")),
    })
}

/// In a command and in a snapshot.
pub(crate) fn note_chain_to(it: &NoteChain) -> store::NoteChain {
    let NoteChain { node, kind, head } = it;
    store::NoteChain { node: *node, kind: kind.word().into(), count: head.count, hash: head.hash.0.into() }
}

pub(crate) fn note_chain_from(it: store::NoteChain) -> Result<NoteChain, Invalid> {
    let unknown = || Invalid::field("kind").found(format!("{:?}", it.kind)).allowed("denials or access");
    let kind = ChainKind::from_word(&it.kind).ok_or_else(unknown)?;
    Ok(NoteChain { node: it.node, kind, head: AuditHead { count: it.count, hash: digest("hash", &it.hash)? } })
}

pub(crate) fn secret_to(name: &Name, sealed: &[u8]) -> store::SetSecret {
    store::SetSecret { name: name.to_string(), sealed: sealed.to_vec() }
}

pub(crate) fn secret_from(it: store::SetSecret) -> Result<(Name, Arc<[u8]>), Invalid> {
    Ok((name("secret.name", &it.name)?, it.sealed.into()))
}

pub(crate) fn ticket_key_to(it: &TicketKey) -> store::TicketKeyRecord {
    store::TicketKeyRecord { index: it.index, made_at_us: it.made_at_us, sealed: it.sealed.to_vec() }
}

pub(crate) fn ticket_key_from(it: store::TicketKeyRecord) -> TicketKey {
    TicketKey { index: it.index, made_at_us: it.made_at_us, sealed: it.sealed.into() }
}

pub(crate) fn jwks_to(auth: &Name, it: &Jwks) -> store::JwksRecord {
    store::JwksRecord {
        auth: auth.to_string(),
        body: it.body.to_vec(),
        fetched_wall_ms: it.fetched_wall_ms,
        index: it.index,
    }
}

pub(crate) fn jwks_from(it: store::JwksRecord) -> Result<(Name, Arc<Jwks>), Invalid> {
    let jwks = Jwks { body: it.body.into(), fetched_wall_ms: it.fetched_wall_ms, index: it.index };
    Ok((name("jwks.auth", &it.auth)?, Arc::new(jwks)))
}

pub(crate) fn revision_to(it: &RevisionFacts) -> store::RevisionRecord {
    store::RevisionRecord {
        revision: it.revision,
        previous: it.previous,
        wall_ms: it.wall_ms,
        actor: it.actor.clone(),
        message: it.message.clone(),
        created: it.counts.created,
        updated: it.counts.updated,
        deleted: it.counts.deleted,
        hash: it.hash.0.into(),
        trial: match it.trial {
            TrialStatus::None => 0,
            TrialStatus::Open => 1,
            TrialStatus::Confirmed => 2,
            TrialStatus::Aborted => 3,
            TrialStatus::Expired => 4,
        },
        rollback_of: it.rollback_of.unwrap_or(0),
    }
}

pub(crate) fn revision_from(it: store::RevisionRecord) -> Result<RevisionFacts, Invalid> {
    let trial = match it.trial {
        0 => TrialStatus::None,
        1 => TrialStatus::Open,
        2 => TrialStatus::Confirmed,
        3 => TrialStatus::Aborted,
        4 => TrialStatus::Expired,
        other => return Err(Invalid::field("revision.trial").found(other).allowed("0 to 4")),
    };
    Ok(RevisionFacts {
        revision: it.revision,
        previous: it.previous,
        wall_ms: it.wall_ms,
        actor: it.actor,
        message: it.message,
        counts: ChangeCounts { created: it.created, updated: it.updated, deleted: it.deleted },
        hash: digest("revision.hash", &it.hash)?,
        trial,
        rollback_of: (it.rollback_of != 0).then_some(it.rollback_of),
    })
}

pub(crate) fn removed_to(id: NodeId, it: &RemovedNode) -> store::RemovedNode {
    store::RemovedNode { id, name: it.name.to_string(), spki_sha256: it.spki_sha256.into() }
}

pub(crate) fn removed_from(it: store::RemovedNode) -> Result<(NodeId, RemovedNode), Invalid> {
    let node = RemovedNode {
        name: name("removed_node.name", &it.name)?,
        spki_sha256: array("removed_node.spki_sha256", &it.spki_sha256)?,
    };
    Ok((it.id, node))
}

pub(crate) fn join_token_to(id: &str, it: &JoinToken) -> store::JoinTokenRecord {
    store::JoinTokenRecord {
        id: id.into(),
        secret_hash: it.secret_hash.0.into(),
        role: role_to(it.role).into(),
        expires_at_us: it.expires_at_us,
        uses_left: it.uses_left,
    }
}

pub(crate) fn join_token_from(it: store::JoinTokenRecord) -> Result<(String, JoinToken), Invalid> {
    let token = JoinToken {
        secret_hash: digest("join_token.secret_hash", &it.secret_hash)?,
        role: role_from(it.role)?,
        expires_at_us: it.expires_at_us,
        uses_left: it.uses_left,
    };
    Ok((it.id, token))
}

pub(crate) fn admin_token_to(name: &Name, it: &AdminToken) -> store::AdminTokenRecord {
    store::AdminTokenRecord {
        name: name.to_string(),
        secret_hash: it.secret_hash.0.into(),
        role: it.role.word().into(),
        owner: it.owner.clone(),
        expires_at_us: it.expires_at_us,
    }
}

pub(crate) fn admin_token_from(it: store::AdminTokenRecord) -> Result<(Name, AdminToken), Invalid> {
    let token = AdminToken {
        secret_hash: digest("admin_token.secret_hash", &it.secret_hash)?,
        role: admin_role_from(&it.role)?,
        owner: it.owner,
        expires_at_us: it.expires_at_us,
    };
    Ok((name("admin_token.name", &it.name)?, token))
}

pub(crate) fn dedup_to(id: &RequestId, answered: &Answered) -> store::DedupRecord {
    store::DedupRecord {
        request_id: id.to_vec(),
        index: answered.applied.index,
        outcome: Some(applied_to(&answered.applied)),
        asked: answered.asked.map(|asked| asked.0.into()).unwrap_or_default(),
    }
}

pub(crate) fn dedup_from(it: store::DedupRecord) -> Result<(RequestId, Answered), Invalid> {
    let applied = applied_from(present("dedup.outcome", it.outcome)?)?;
    let asked = match it.asked.is_empty() {
        true => None,
        false => Some(digest("dedup.asked", &it.asked)?),
    };
    match applied.index == it.index {
        true => Ok((array("dedup.request_id", &it.request_id)?, Answered { asked, applied })),
        false => Err(Invalid::field("dedup.index").found(it.index).allowed(applied.index)),
    }
}

pub(crate) fn trial_to(it: &Trial) -> store::TrialRecord {
    store::TrialRecord { revision: it.revision, ends_at_us: it.ends_at_us, prior_revision: it.prior_revision }
}
