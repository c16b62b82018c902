//! What is replicated: one command an entry, and what apply answers.

use std::{borrow::Cow, fmt, num::NonZeroU32, sync::Arc, time::Duration};

use crate::{
    NodeId,
    ban::BanSubject,
    credential::{CredentialId, CredentialKind, Grants},
    digest::Digest,
    ledger::command::{LeaseBatch, LedgerCommand},
    mutants::{self, Mutant},
    purge::PurgeTarget,
    resource::{Key, Kind, Name, Resource},
    revocation::Selector,
    state::{AuditHead, ChainKind},
};

/// 16 random bytes that make a retry safe.
pub type RequestId = [u8; 16];

/// One replicated command. Cheap to clone: the large parts are shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Refused by a build whose `LEVEL` is lower.
    pub min_level: u32,
    /// None for what is never retried.
    pub request_id: Option<RequestId>,
    /// What was asked for, where the body follows from it and from the state, so that a repeat may have another body.
    /// None: the body says it all.
    pub asked: Option<Digest>,
    pub stamp: Stamp,
    pub actor: Arc<Actor>,
    pub body: Body,
}

/// The leader's clocks when it took the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// The log clock, microseconds: what expiry is decided by. It may lag, it never runs fast.
    pub clock_us: u64,
    /// Milliseconds since 1970: for people only.
    pub wall_ms: u64,
}

/// Who asked for it, from where, by which call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    pub name: String,
    pub source: String,
    pub rpc: String,
    /// Only objects of this owner may be written; empty means all.
    pub owner_scope: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Bootstrap(Arc<Bootstrap>),
    Refound(Arc<Refound>),
    ChangeResources(ChangeResources),
    EndTrial {
        revision: u64,
        end: TrialEnd,
    },
    CreateJoinToken(CreateJoinToken),
    RemoveJoinToken {
        id: String,
    },
    AdmitNode(AdmitNode),
    UpdateNode(UpdateNode),
    RemoveNode {
        id: NodeId,
    },
    CreateAdminToken(CreateAdminToken),
    RemoveAdminToken {
        name: Name,
    },
    SetMaxRtt {
        max_rtt: Duration,
    },
    SetSecret(SetSecret),
    CreateCredentials(Arc<[NewCredential]>),
    RotateCredential(RotateCredential),
    SetCredentialState {
        id: CredentialId,
        to: Decided,
    },
    Revoke(Revoke),
    StoreJwks(StoreJwks),
    RotateTicketKeys(RotateTicketKeys),
    RotateCa(RotateCa),
    NoteChain(NoteChain),
    /// The hash of its name, under the cluster's key.
    EraseActor(Digest),
    Tick,
    /// What was used of a limit counts no more.
    ResetLimit(ResetLimit),
    /// One key may use more than its limit for a while.
    GrantBonus(GrantBonus),
    /// Every node lets go of answers that it keeps.
    PurgeCache(PurgeCache),
    AddBans(AddBans),
    LiftBans(LiftBans),
    /// What nodes hold of the cluster's limits. Never retried by its request id: the ledger tells repeats apart.
    Ledger(LedgerCommand),
    RotateSealingKey(RotateSealingKey),
    /// Touches what is protected: it waits for another person.
    HoldChange(HoldChange),
    DecideChange(DecideChange),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    pub cluster_id: [u8; 16],
    pub cluster_name: String,
    pub max_rtt: Duration,
    /// DER.
    pub ca_certificate: Vec<u8>,
    pub sealed_ca_key: Vec<u8>,
    pub node: NodeRecord,
}

/// A new cluster that goes on from the state of an old one, by one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refound {
    pub cluster_id: [u8; 16],
    pub node: NodeRecord,
    pub cause: RefoundCause,
    /// Calendar periods that have begun count as unspent, and not as spent.
    pub reset_budgets: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefoundCause {
    /// From a backup.
    Restored,
    /// After the loss of the quorum, from what this node held.
    Recovered,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChangeResources {
    /// No key twice.
    pub changes: Arc<[ResourceChange]>,
    pub expected_revision: Option<u64>,
    pub message: String,
    pub trial: Option<Duration>,
    /// The revision this one restores.
    pub rollback_of: Option<u64>,
    /// What an actor with an owner may take is held to. Not in entries of builds below level 3, which do not know how:
    /// what they have applied stays as it is.
    pub bounded: bool,
    /// Of the guardrails that a node held the changes against (`state::State::guardrails`).
    pub guardrails: Option<Digest>,
    /// What guardrails found and let pass, for the audit trail: at most `FINDINGS_MAX`.
    pub findings: Arc<[String]>,
    /// Limits keep their counters where their window, hold or period changes. Not in entries of builds below level 6.
    pub keeps_counters: bool,
}

/// A change that is carried out once somebody else has approved it. The index of its entry is its id.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldChange {
    pub change: ChangeResources,
    /// Then it is forgotten.
    pub ttl: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecideChange {
    pub id: u64,
    pub verdict: Verdict,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Carried out at once, as whoever asked for it, and held against the guardrails of now (as in `ChangeResources`).
    Approved {
        guardrails: Option<Digest>,
        findings: Arc<[String]>,
    },
    Rejected,
}

/// How many findings of guardrails go into the audit trail with one change, and how long each may be.
pub const FINDINGS_MAX: usize = 20;
pub const FINDING_BYTES_MAX: usize = 1 << 10;

#[derive(Debug, Clone, PartialEq)]
pub struct ResourceChange {
    pub key: Key,
    /// None deletes.
    pub after: Option<Resource>,
    pub expect: Expect,
}

/// What must be true of the object for the change to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    #[default]
    Anything,
    Missing,
    Etag(Digest),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialEnd {
    Confirm,
    Abort,
    /// Proposed by the leader once the trial's time is up; refused before.
    Expire,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Voter,
    Replica,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateJoinToken {
    pub id: String,
    pub secret_hash: Digest,
    pub role: Role,
    pub ttl: Duration,
    pub uses: u32,
}

/// Consumes one use of the token and admits the node under the entry's own log index as its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmitNode {
    pub token_id: String,
    pub token_secret_hash: Digest,
    /// Its id is 0 here.
    pub node: NodeRecord,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    pub id: NodeId,
    pub name: Name,
    pub region: String,
    pub peer_address: String,
    /// Made anew when a data directory is prepared.
    pub incarnation: [u8; 16],
    /// SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// What the operator asked for; the membership follows.
    pub wanted_role: Role,
    pub standing: Standing,
    pub level: u32,
    pub version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    Active,
    Draining,
    /// Goes away by itself.
    Leaving,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateNode {
    pub id: NodeId,
    pub standing: Option<Standing>,
    pub wanted_role: Option<Role>,
    pub peer_address: Option<String>,
    pub level: Option<u32>,
    pub version: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateAdminToken {
    pub name: Name,
    pub secret_hash: Digest,
    pub role: AdminRole,
    /// Empty: every owner.
    pub owner: String,
    pub ttl: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminRole {
    Viewer,
    Operator,
    Admin,
}

/// A secret of the cluster, sealed under its key. Written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSecret {
    pub name: Name,
    pub sealed: Arc<[u8]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCredential {
    pub id: CredentialId,
    pub consumer: Name,
    pub kind: CredentialKind,
    pub grants: Option<Arc<Grants>>,
    /// None: until it is revoked.
    pub ttl: Option<Duration>,
    /// Good API keys that the consumer may have with it. None: nobody counts.
    pub keys_max: Option<NonZeroU32>,
}

/// A new key beside an old one, with its consumer, grants and end; the old one is good until the overlap is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateCredential {
    pub id: CredentialId,
    pub new_id: CredentialId,
    pub kind: CredentialKind,
    pub overlap: Duration,
    /// As that of a new one; twice as many while the old ones' overlaps last.
    pub keys_max: Option<NonZeroU32>,
}

/// What an operator may decide about a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decided {
    Active,
    Disabled,
    /// For good.
    Revoked,
}

/// All or nothing. An entry that is there already is only ever extended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    pub entries: Arc<[NewRevocation]>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRevocation {
    pub selector: Selector,
    pub ttl: Duration,
    /// Seconds since 1970. Some: what was issued at or after it is spared.
    pub not_before_s: Option<u64>,
}

/// All or nothing. A ban that is there already is only ever made longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddBans {
    pub bans: Arc<[NewBan]>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBan {
    pub subject: BanSubject,
    pub ttl: Duration,
}

/// Before their time is up. All or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiftBans {
    pub subjects: Arc<[BanSubject]>,
    pub reason: String,
}

/// The last good key set of an auth, so that a new node works while the identity provider is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreJwks {
    pub auth: Name,
    pub body: Arc<[u8]>,
    pub fetched_wall_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetLimit {
    pub limit: Name,
    /// None: every key.
    pub key: Option<Arc<str>>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantBonus {
    pub limit: Name,
    pub key: Arc<str>,
    pub amount: u64,
    /// None: one window of the limit.
    pub lasts: Option<Duration>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeCache {
    /// 1 to `PURGE_TARGETS_MAX`.
    pub targets: Arc<[PurgeTarget]>,
    pub reason: String,
}

/// A new key for session tickets, sealed under the cluster's; the oldest goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateTicketKeys {
    pub sealed: Arc<[u8]>,
    /// The index of the newest key that the proposer saw, 0 for none: two leaders do not rotate twice.
    pub newest: u64,
}

/// One step of the replacement of the cluster's CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RotateCa {
    /// DER, and its key sealed under the cluster's.
    Introduce { certificate: Arc<[u8]>, sealed_key: Arc<[u8]> },
    /// The introduced one signs from now on.
    Replace,
    /// The one that does not sign is trusted no more.
    End,
}

/// One step of the replacement of the key that secrets are sealed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RotateSealingKey {
    /// The new key, sealed under the one before. The index of this entry is its number.
    Introduce { sealed_key: Arc<[u8]> },
    /// The introduced one will not seal.
    Abandon,
    /// The introduced one seals from now on.
    Replace { number: u64 },
    /// What is sealed under the one before is replaced; what has become another since is left as it is.
    Reseal { number: u64, resealed: Arc<[Resealed]> },
    /// The one before is gone. Refused while anything is sealed under it, and where a node came after those that were
    /// asked whether they hold the new one.
    End { number: u64, nodes_upto: NodeId },
}

/// The same secret under the key before and the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    pub before: Arc<[u8]>,
    pub after: Arc<[u8]>,
}

/// The head of a chain that a node keeps for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteChain {
    pub node: NodeId,
    pub kind: ChainKind,
    pub head: AuditHead,
}

/// What apply answered; the same on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub index: u64,
    /// The cluster's resource revision after this entry.
    pub revision: u64,
    pub outcome: Result<Outcome, Rejected>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Nothing differed.
    pub noop: bool,
    pub counts: ChangeCounts,
    /// With `AdmitNode`.
    pub node_id: Option<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChangeCounts {
    pub created: u32,
    pub updated: u32,
    pub deleted: u32,
}

/// A well-formed command that the state refuses. The same on every node, and nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub reason: Reason,
    /// The field path, where one is to blame.
    pub field: String,
    pub message: String,
}

/// Why; the words are stable and become the ErrorInfo reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The resources as a whole do not hold together.
    Invalid,
    /// expected_revision or an etag differs.
    Conflict,
    NotFound,
    AlreadyExists,
    TokenUnknown,
    TokenExpired,
    TokenUsed,
    TokenRoleMismatch,
    NameTaken,
    WouldLoseQuorum,
    TrialOpen,
    NoTrial,
    TrialNotOver,
    OwnerForbidden,
    NotBootstrapped,
    LimitReached,
    /// The request id was used before, for something else.
    RequestIdReused,
    /// Nobody approves what he has asked for.
    OwnApproval,
}

impl Reason {
    pub const ALL: [Reason; 18] = [
        Reason::Invalid,
        Reason::Conflict,
        Reason::NotFound,
        Reason::AlreadyExists,
        Reason::TokenUnknown,
        Reason::TokenExpired,
        Reason::TokenUsed,
        Reason::TokenRoleMismatch,
        Reason::NameTaken,
        Reason::WouldLoseQuorum,
        Reason::TrialOpen,
        Reason::NoTrial,
        Reason::TrialNotOver,
        Reason::OwnerForbidden,
        Reason::NotBootstrapped,
        Reason::LimitReached,
        Reason::RequestIdReused,
        Reason::OwnApproval,
    ];

    /// `TRIAL_OPEN`
    pub fn word(self) -> &'static str {
        match self {
            Reason::Invalid => "INVALID",
            Reason::Conflict => "CONFLICT",
            Reason::NotFound => "NOT_FOUND",
            Reason::AlreadyExists => "ALREADY_EXISTS",
            Reason::TokenUnknown => "TOKEN_UNKNOWN",
            Reason::TokenExpired => "TOKEN_EXPIRED",
            Reason::TokenUsed => "TOKEN_USED",
            Reason::TokenRoleMismatch => "TOKEN_ROLE_MISMATCH",
            Reason::NameTaken => "NAME_TAKEN",
            Reason::WouldLoseQuorum => "WOULD_LOSE_QUORUM",
            Reason::TrialOpen => "TRIAL_OPEN",
            Reason::NoTrial => "NO_TRIAL",
            Reason::TrialNotOver => "TRIAL_NOT_OVER",
            Reason::OwnerForbidden => "OWNER_FORBIDDEN",
            Reason::NotBootstrapped => "NOT_BOOTSTRAPPED",
            Reason::LimitReached => "LIMIT_REACHED",
            Reason::RequestIdReused => "REQUEST_ID_REUSED",
            Reason::OwnApproval => "OWN_APPROVAL",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }

    /// A refusal for this reason, without a field to blame.
    pub fn because(self, message: impl Into<String>) -> Rejected {
        Rejected { reason: self, field: String::new(), message: message.into() }
    }
}

impl From<crate::invalid::Invalid> for Rejected {
    fn from(invalid: crate::invalid::Invalid) -> Self {
        Rejected { reason: Reason::Invalid, message: invalid.to_string(), field: invalid.field }
    }
}

impl AdminRole {
    pub const ALL: [AdminRole; 3] = [AdminRole::Viewer, AdminRole::Operator, AdminRole::Admin];

    /// `viewer`
    pub fn word(self) -> &'static str {
        match self {
            AdminRole::Viewer => "viewer",
            AdminRole::Operator => "operator",
            AdminRole::Admin => "admin",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// Builds below it let an edited window begin with fresh counters.
pub const KEEPS_COUNTERS_LEVEL: u32 = 6;
/// Builds below it do not settle what nodes owe before they lend.
pub const OWED_LEVEL: u32 = 6;

fn owes(batches: &[LeaseBatch]) -> bool {
    batches.iter().flat_map(|it| &it.items).any(|it| it.owed > 0)
}

impl Body {
    /// As it is appended where every node understands `level` at least.
    pub fn for_level(&self, level: u32) -> Cow<'_, Self> {
        let level = if mutants::is(Mutant::LevelUnasked) { u32::MAX } else { level };
        match self {
            Body::ChangeResources(it) if level >= KEEPS_COUNTERS_LEVEL && it.edits_limits() => {
                Cow::Owned(Body::ChangeResources(ChangeResources { keeps_counters: true, ..it.clone() }))
            }
            Body::Ledger(LedgerCommand::Batches(batches)) if level < OWED_LEVEL && owes(batches) => {
                let mut batches = batches.to_vec();
                for item in batches.iter_mut().flat_map(|it| &mut it.items) {
                    item.want = item.want.saturating_add(std::mem::take(&mut item.owed));
                }
                Cow::Owned(Body::Ledger(LedgerCommand::Batches(batches.into())))
            }
            _ => Cow::Borrowed(self),
        }
    }
}

impl ChangeResources {
    fn edits_limits(&self) -> bool {
        self.changes.iter().any(|it| it.key.kind == Kind::Limit)
    }

    /// Below it builds would carry it out otherwise, or not at all.
    fn level(&self) -> u32 {
        let governs = self.bounded || self.guardrails.is_some();
        let levels = self.changes.iter().map(|change| match &change.after {
            Some(resource) => resource.level(),
            None if matches!(change.key.kind, Kind::Tenant | Kind::Guardrail) => 3,
            None => 1,
        });
        let level = levels.max().unwrap_or(1).max(if governs { 3 } else { 1 });
        if self.keeps_counters { level.max(KEEPS_COUNTERS_LEVEL) } else { level }
    }
}

impl NewCredential {
    fn is_labelled_or_bounded(&self) -> bool {
        self.keys_max.is_some() || self.grants.as_ref().is_some_and(|grants| !grants.label.is_empty())
    }
}

impl Role {
    /// `voter`
    pub fn word(self) -> &'static str {
        match self {
            Role::Voter => "voter",
            Role::Replica => "replica",
        }
    }
}

impl Decided {
    /// `disabled`
    pub fn word(self) -> &'static str {
        match self {
            Decided::Active => "active",
            Decided::Disabled => "disabled",
            Decided::Revoked => "revoked",
        }
    }
}

impl Standing {
    /// `active`
    pub fn word(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Draining => "draining",
            Standing::Leaving => "leaving",
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejected {}

impl Body {
    /// Which level a node must have to understand it: none of a higher one is proposed while some node is below.
    pub fn min_level(&self) -> u32 {
        match self {
            Body::ChangeResources(it) => it.level(),
            Body::RotateCa(_) | Body::NoteChain(_) | Body::EraseActor(_) | Body::PurgeCache(_) => 2,
            Body::AddBans(_) | Body::LiftBans(_) => 4,
            Body::RotateSealingKey(_) => 5,
            Body::HoldChange(it) => it.change.level().max(6),
            Body::CreateCredentials(all) if all.iter().any(NewCredential::is_labelled_or_bounded) => 6,
            Body::RotateCredential(it) if it.keys_max.is_some() => 6,
            Body::DecideChange(_) => 6,
            Body::Ledger(LedgerCommand::Batches(batches)) if owes(batches) => OWED_LEVEL,
            _ => 1,
        }
    }

    /// For logs and the audit trail: `change_resources`.
    pub fn word(&self) -> &'static str {
        match self {
            Body::Bootstrap(_) => "bootstrap",
            Body::Refound(_) => "refound",
            Body::ChangeResources(_) => "change_resources",
            Body::EndTrial { .. } => "end_trial",
            Body::CreateJoinToken(_) => "create_join_token",
            Body::RemoveJoinToken { .. } => "remove_join_token",
            Body::AdmitNode(_) => "admit_node",
            Body::UpdateNode(_) => "update_node",
            Body::RemoveNode { .. } => "remove_node",
            Body::CreateAdminToken(_) => "create_admin_token",
            Body::RemoveAdminToken { .. } => "remove_admin_token",
            Body::SetMaxRtt { .. } => "set_max_rtt",
            Body::SetSecret(_) => "set_secret",
            Body::CreateCredentials(_) => "create_credentials",
            Body::RotateCredential(_) => "rotate_credential",
            Body::SetCredentialState { .. } => "set_credential_state",
            Body::Revoke(_) => "revoke",
            Body::StoreJwks(_) => "store_jwks",
            Body::ResetLimit(_) => "reset_limit",
            Body::GrantBonus(_) => "grant_bonus",
            Body::PurgeCache(_) => "purge_cache",
            Body::AddBans(_) => "add_bans",
            Body::LiftBans(_) => "lift_bans",
            Body::RotateTicketKeys(_) => "rotate_ticket_keys",
            Body::RotateCa(_) => "rotate_ca",
            Body::NoteChain(_) => "note_chain",
            Body::EraseActor(_) => "erase_actor",
            Body::Tick => "tick",
            Body::Ledger(_) => "ledger",
            Body::RotateSealingKey(_) => "rotate_sealing_key",
            Body::HoldChange(_) => "hold_change",
            Body::DecideChange(_) => "decide_change",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.body.word())
    }
}
