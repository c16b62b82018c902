//! The agreed state and the one function that changes it. `apply` is in a file of its own, and so is what it does to
//! each keyspace: resources, credentials, revocations, secrets, tokens, nodes.

mod apply;
mod approvals;
mod authority;
mod bans;
mod chains;
mod credentials;
mod limits;
mod nodes;
mod purges;
mod resources;
mod revocations;
mod sealing;
mod secrets;
mod tokens;

use std::{sync::Arc, time::Duration};

use imbl::{OrdMap, Vector};

pub use approvals::{
    PENDING_BYTES_MAX, PENDING_CHANGES_MAX, PENDING_MAX, PENDING_OF_ONE_MAX, PendingChange, PendingChanges,
};
pub use authority::{CaStage, OtherCa};
pub use chains::ChainKind;
pub use credentials::{CREDENTIAL_REMEMBERED, Credentials, LABEL_BYTES_MAX};
pub use revocations::{REVOCATION_REMEMBERED, Revocations};
pub use sealing::{RESEALED_MAX, SECRETIVE, Sealing, SealingRotation, SealingStage};
pub use secrets::{JWKS_BYTES_MAX, SECRETS_MAX, TICKET_KEY_EVERY_US, TICKET_KEYS_MAX};

use crate::{
    NodeId,
    ban::Bans,
    change::{Changed, Lookups},
    command::{Actor, AdminRole, Applied, ChangeCounts, NodeRecord, Reason, Rejected, RequestId, Role},
    credential::CredentialId,
    digest::Digest,
    ledger::Ledger,
    mutants::{self, Mutant},
    purge::Purges,
    resource::{Name, Resources},
    revocation::SelectorKey,
};

/// How many resource revisions the state remembers.
pub const HISTORY_MAX: usize = 1_000;
/// How many answered request ids the state remembers.
pub const DEDUP_MAX: usize = 10_000;
/// How many join tokens and how many admin tokens may exist.
pub const TOKENS_MAX: usize = 10_000;
/// How many nodes a cluster may have.
pub const NODES_MAX: usize = 1_000;
/// How many removed nodes the state remembers; certificates of older ones have expired long since.
pub const REMOVED_MAX: usize = 10_000;
/// How many credentials and how many revocations may be remembered, and how many of either one command may bring.
pub const CREDENTIALS_MAX: usize = 4_000_000;
pub const REVOCATIONS_MAX: usize = 20_000_000;
pub const BATCH_MAX: usize = 1_000;
/// How long the message of a change may be, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4_096;
/// How many erased actors the state remembers: for nodes that were not there.
pub const ERASED_MAX: usize = 10_000;

/// Everything the cluster agrees on. A clone costs O(1) and is a frozen view.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// The last entry applied.
    pub index: u64,
    /// The index of the last command that changed resources; 0 before the first.
    pub revision: u64,
    /// The log clock, microseconds.
    pub clock_us: u64,
    pub wall_ms: u64,
    /// None before `Bootstrap`.
    pub cluster: Option<Arc<ClusterFacts>>,
    pub resources: Resources,
    /// Sum of the resources' etags (`Digest::plus`).
    pub resources_hash: Digest,
    /// Oldest first, at most `HISTORY_MAX`.
    pub history: Vector<Arc<RevisionFacts>>,
    pub trial: Option<Trial>,
    pub nodes: OrdMap<NodeId, Arc<NodeRecord>>,
    /// Nodes that were removed: their certificates are shut out.
    pub removed: OrdMap<NodeId, RemovedNode>,
    pub join_tokens: OrdMap<String, JoinToken>,
    pub admin_tokens: OrdMap<Name, AdminToken>,
    /// Answers by request id, and their order of arrival by index.
    pub dedup: OrdMap<RequestId, Answered>,
    pub dedup_order: OrdMap<u64, RequestId>,
    pub audit: AuditHead,
    /// What nodes hold of the limits. It follows the resources and is not rolled back with them.
    pub ledger: Ledger,
    /// Sealed under the cluster's key, written once.
    pub secrets: Secrets,
    pub credentials: Credentials,
    pub revocations: Revocations,
    pub bans: Bans,
    /// By the auth that they are for.
    pub jwks: OrdMap<Name, Arc<Jwks>>,
    /// Of session tickets, oldest first, at most `TICKET_KEYS_MAX`.
    pub ticket_keys: TicketKeys,
    /// Of the nodes' caches.
    pub purges: Purges,
    pub sweep: Sweep,
    /// While the cluster's CA is being replaced.
    pub other_ca: Option<Arc<OtherCa>>,
    /// Changes that wait for an approval.
    pub pending: PendingChanges,
    /// Which key secrets are sealed under.
    pub sealing: Sealing,
    /// The heads of nodes' own chains, as they were noted last.
    pub chains: OrdMap<(NodeId, ChainKind), AuditHead>,
    /// Actors that nodes are to forget in their trails of accesses, and what they did until when.
    pub erased: Erased,
    /// Follows from `resources`; neither stored nor hashed.
    pub lookups: Lookups,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFacts {
    pub id: [u8; 16],
    pub name: String,
    pub max_rtt: Duration,
    /// DER.
    pub ca_certificate: Vec<u8>,
    pub sealed_ca_key: Vec<u8>,
    pub level: u32,
}

/// One resource revision, as `history` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionFacts {
    pub revision: u64,
    /// The revision before it, 0 if none.
    pub previous: u64,
    pub wall_ms: u64,
    pub actor: String,
    pub message: String,
    pub counts: ChangeCounts,
    /// `State::resources_hash` after it.
    pub hash: Digest,
    pub trial: TrialStatus,
    pub rollback_of: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrialStatus {
    #[default]
    None,
    Open,
    Confirmed,
    Aborted,
    Expired,
}

/// The one trial that may be open: while it is, other resource changes are refused with `TrialOpen`.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    pub revision: u64,
    /// Log-clock instant, microseconds.
    pub ends_at_us: u64,
    /// What an abort restores.
    pub prior_revision: u64,
    pub prior: Resources,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedNode {
    pub name: Name,
    pub spki_sha256: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub secret_hash: Digest,
    pub role: Role,
    pub expires_at_us: u64,
    pub uses_left: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    pub secret_hash: Digest,
    pub role: AdminRole,
    pub owner: String,
    pub expires_at_us: u64,
}

/// What a request id was used for, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// None in snapshots that are older than this field: any repeat passes.
    pub asked: Option<Digest>,
    pub applied: Applied,
}

/// The head of the chain of audit entries; the entries themselves lie in each node's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditHead {
    pub count: u64,
    pub hash: Digest,
}

/// The last good key set of an auth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwks {
    pub body: Arc<[u8]>,
    pub fetched_wall_ms: u64,
    /// Of the entry that stored it.
    pub index: u64,
}

/// A key that session tickets are made with, sealed under the cluster's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// Of the entry that brought it.
    pub index: u64,
    /// On the log clock, microseconds.
    pub made_at_us: u64,
    pub sealed: Arc<[u8]>,
}

/// Where the search for what has ended goes on: a bit at a time, by the log clock, the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sweep {
    pub clock_us: u64,
    /// The last that was looked at.
    pub credential: Option<CredentialId>,
    pub revocation: Option<SelectorKey>,
}

pub type Secrets = OrdMap<Name, Arc<[u8]>>;
pub type TicketKeys = Vector<Arc<TicketKey>>;

/// By the hash of an actor's name: until when what it did is nobody's, in wall-clock milliseconds.
pub type Erased = OrdMap<Digest, u64>;

/// What one applied entry leaves for the journal and the watchers; the same on every node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Effects {
    /// With a new revision: what it changed, in key order.
    pub diff: Option<RevisionDiff>,
    pub audit: Option<AuditEntry>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RevisionDiff {
    pub revision: u64,
    pub previous: u64,
    pub changes: Arc<[Changed]>,
}

/// One mutation. Its hash is BLAKE3 over the previous hash and the stored form; `AuditHead` holds the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub sequence: u64,
    pub index: u64,
    /// 0 where no revision was made.
    pub revision: u64,
    pub wall_ms: u64,
    pub actor: Arc<Actor>,
    pub message: String,
    pub summary: String,
    pub previous: Digest,
}

impl State {
    /// BLAKE3 over the snapshot records: equal on all nodes at one index.
    pub fn hash(&self) -> Digest {
        crate::snapshot::hash(self)
    }

    /// What that request id was answered, if it was used. Refused where it was used for something else.
    pub fn answered(&self, id: &RequestId, asked: Digest) -> Option<Result<&Applied, Rejected>> {
        let first = self.dedup.get(id)?;
        Some(match first.asked.is_none_or(|first| first == asked || mutants::is(Mutant::OtherRequestAnswered)) {
            true => Ok(&first.applied),
            false => Err(Reason::RequestIdReused.because(format!(
                "this request id has been used for another request, at index {}; take a new one",
                first.applied.index
            ))),
        })
    }

    pub fn timing(&self) -> crate::timing::Timing {
        let max_rtt = self.cluster.as_ref().map_or(crate::timing::MAX_RTT_DEFAULT, |facts| facts.max_rtt);
        crate::timing::Timing::from_max_rtt(max_rtt)
    }

    /// What every node understands: the lowest level of all.
    pub fn common_level(&self) -> u32 {
        self.nodes.values().map(|node| node.level).min().unwrap_or(crate::LEVEL)
    }

    pub fn node_named(&self, name: &str) -> Option<&Arc<NodeRecord>> {
        self.nodes.values().find(|node| &*node.name == name)
    }
}
