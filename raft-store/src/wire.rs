//! Between openraft's types and our own prost messages; openraft's serde forms never leave the process.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use openraft::{EntryPayload, impls::leader_id_std::LeaderId};
use quorumgate_model::{NodeId, convert};
use quorumgate_proto::store::v1::{self as store, raft_entry::Payload};

use crate::{Entry, LogId, RaftNode, SnapshotMeta, StoredMembership, Vote};

type Membership = openraft::Membership<NodeId, RaftNode>;

pub fn log_id_to(id: &LogId) -> store::LogId {
    store::LogId { term: id.leader_id.term, index: id.index }
}

pub fn log_id_from(id: &store::LogId) -> LogId {
    LogId { leader_id: id.term.into(), index: id.index }
}

pub fn vote_to(vote: &Vote) -> store::Vote {
    store::Vote { term: vote.leader_id.term, voted_for: Some(vote.leader_id.voted_for), committed: vote.committed }
}

/// A vote always names a node in this raft; one that names none is refused.
pub fn vote_from(vote: &store::Vote) -> Result<Vote> {
    let voted_for = vote.voted_for.context("a vote that names no node")?;
    Ok(Vote { leader_id: LeaderId { term: vote.term, voted_for }, committed: vote.committed })
}

pub fn entry_to(entry: &Entry) -> store::RaftEntry {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(store::Blank {}),
        EntryPayload::Normal(command) => Payload::Command(convert::command_to(command)),
        EntryPayload::Membership(membership) => Payload::Membership(membership_to(membership)),
    };
    store::RaftEntry { log_id: Some(log_id_to(&entry.log_id)), payload: Some(payload) }
}

/// Errors when the payload is of a kind that this build does not know: such an entry must stop consensus here.
pub fn entry_from(entry: store::RaftEntry) -> Result<Entry> {
    let log_id = log_id_from(&entry.log_id.context("an entry without its log id")?);
    let payload = match entry.payload.with_context(|| format!("entry {log_id} has a payload of an unknown kind"))? {
        Payload::Blank(store::Blank {}) => EntryPayload::Blank,
        Payload::Command(command) => EntryPayload::Normal(
            convert::command_from(command).with_context(|| format!("entry {log_id} holds a bad command"))?,
        ),
        Payload::Membership(membership) => EntryPayload::Membership(membership_from(&membership)?),
    };
    Ok(Entry { log_id, payload })
}

pub fn stored_membership_to(membership: &StoredMembership) -> store::StoredMembership {
    store::StoredMembership {
        log_id: membership.log_id().as_ref().map(log_id_to),
        membership: Some(membership_to(membership.membership())),
    }
}

pub fn stored_membership_from(membership: &store::StoredMembership) -> Result<StoredMembership> {
    let inner = membership.membership.as_ref().context("a stored membership without members")?;
    Ok(StoredMembership::new(membership.log_id.as_ref().map(log_id_from), membership_from(inner)?))
}

pub fn snapshot_meta_to(meta: &SnapshotMeta) -> store::SnapshotMeta {
    store::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to),
        membership: Some(stored_membership_to(&meta.last_membership)),
        snapshot_id: String::new(),
    }
}

pub fn snapshot_meta_from(meta: &store::SnapshotMeta) -> Result<SnapshotMeta> {
    let membership = meta.membership.as_ref().context("a snapshot without its membership")?;
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_from),
        last_membership: stored_membership_from(membership)?,
    })
}

fn membership_to(membership: &Membership) -> store::Membership {
    let configs = membership.get_joint_config().iter();
    store::Membership {
        configs: configs.map(|voters| store::VoterSet { voters: voters.iter().copied().collect() }).collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| store::RaftNode {
                id: *id,
                name: node.name.clone(),
                address: node.address.clone(),
                incarnation: node.incarnation.to_vec(),
            })
            .collect(),
    }
}

fn membership_from(membership: &store::Membership) -> Result<Membership> {
    let configs: Vec<BTreeSet<NodeId>> =
        membership.configs.iter().map(|set| set.voters.iter().copied().collect()).collect();
    let mut nodes = BTreeMap::new();
    for node in &membership.nodes {
        let incarnation = node.incarnation.as_slice().try_into();
        let incarnation =
            incarnation.with_context(|| format!("the incarnation of node {} is not 16 bytes", node.id))?;
        let known = RaftNode { name: node.name.clone(), address: node.address.clone(), incarnation };
        if nodes.insert(node.id, known).is_some() {
            bail!("node {} is there twice in a membership", node.id);
        }
    }
    Membership::new(configs, nodes).context("a membership that does not hold together")
}
