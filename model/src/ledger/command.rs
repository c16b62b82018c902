//! What the log says to the ledger, and what the ledger tells the nodes in return. Pure data.

use std::sync::Arc;

use crate::{
    NodeId,
    resource::{Every, Name},
};

/// The ledger's version at the command that defined the limit. A limit keeps it through every edit but that of its
/// kind.
pub type LimitId = u64;
/// The ledger's version at the command that opened the session.
pub type SessionId = u64;
/// 16 random bytes, made anew by every process.
pub type Boot = [u8; 16];

/// Who a budget belongs to: a limit, and the values that its key template took.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub limit: LimitId,
    pub who: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub name: Name,
    pub kind: Kind,
    pub mode: Mode,
    pub on_no_quorum: NoQuorum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// At most `limit` in any window.
    Sliding { limit: u64, window_us: u64 },
    /// At most `limit` in flight, each for at most `max_hold_us`.
    Concurrency { limit: u64, max_hold_us: u64 },
    /// At most `limit` in a period of the calendar; the periods come with `RollPeriod`.
    Calendar { limit: u64, every: Every },
    /// `rate` per window, and at most `burst` at once.
    Bucket { rate: u64, window_us: u64, burst: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mode {
    #[default]
    Leased,
    /// No node has a share beforehand.
    Exact,
}

/// What a node does for a limit when its session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum NoQuorum {
    #[default]
    Deny,
    Reserve,
    Allow,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerCommand {
    DefineLimit(Rule),
    RemoveLimit {
        name: Name,
    },
    OpenSession(OpenSession),
    /// Every batch that the leader gathered, in the order of arrival.
    Batches(Arc<[LeaseBatch]>),
    Tick,
    ShareEpoch {
        divisor: u64,
    },
    RetireNode {
        node: NodeId,
    },
    /// A period of a calendar limit begins.
    RollPeriod {
        limit: LimitId,
        /// When it begins, in seconds of Unix time: no period has the number of another, and none comes back.
        period: u64,
        /// When it ends, in microseconds of Unix time.
        ends_us: u64,
    },
    /// The state came out of a backup: whatever was lent is void.
    Restore {
        incarnation: [u8; 16],
        /// Calendar periods that have begun count as unspent, and not as spent.
        reset_budgets: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenSession {
    pub node: NodeId,
    pub boot: Boot,
    /// Counted up by the process; of each attempt to open it remembers when it was sent.
    pub open: u64,
    pub length_us: u64,
}

/// What one node sends: at most one is under way, and its attempts differ in `attempt` and reports alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseBatch {
    pub node: NodeId,
    pub session: SessionId,
    /// 1, 2, 3, …; each is applied once.
    pub seq: u64,
    pub attempt: u32,
    /// The ledger's version that the node had applied when it built this attempt.
    pub applied: u64,
    pub items: Vec<LeaseItem>,
    /// The node's Unix time less the log clock; 0: it did not say.
    pub wall_ahead_us: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseItem {
    pub key: Key,
    /// Thousandths of slots per window that the node's clients ask for.
    pub demand: u64,
    /// Slots it could use at once.
    pub want: u64,
    /// Slots that are out of the node already.
    pub release_free: u64,
    /// The same, with the time until they have rested.
    pub release_used: Vec<Dated>,
    /// Slots in use that rest at least as long as the session, as of this attempt.
    pub report: Vec<Dated>,
    /// What was prepaid of this period and not used (calendar).
    pub chunk_unused: u64,
    pub period: u64,
    /// What was spent of it since it was last said, and what was said to be spent and was not after all.
    pub settle: u64,
    pub refund: u64,
    /// Of what is held, what it keeps for a time without a quorum (`NoQuorum::Reserve`).
    pub reserve: u64,
    /// What answers cost beyond what it holds: nothing is lent to anybody before that.
    pub owed: u64,
}

/// `count` slots that may be used `in_us` from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    pub in_us: u64,
    pub count: u64,
}

/// What an entry did. The same on every node; a holder learns from this, never from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Opened {
        session: SessionId,
        node: NodeId,
        boot: Boot,
        open: u64,
    },
    Renewed {
        session: SessionId,
        seq: u64,
        attempt: u32,
    },
    /// Late, repeated or of a session that is over: nothing was done.
    Fenced {
        session: SessionId,
        seq: u64,
    },
    /// Shares of the key that went without saying are leases from here on.
    Materialised {
        key: Key,
        held: Arc<[(SessionId, u64)]>,
    },
    Granted {
        session: SessionId,
        key: Key,
        free: u64,
        dated: Vec<Dated>,
    },
    /// A period of a calendar limit has begun: whatever was lent of earlier ones is void.
    Rolled {
        limit: LimitId,
        period: u64,
    },
    Recalled {
        session: SessionId,
        key: Key,
        keep: u64,
    },
    /// Every slot is home: shares go without saying again.
    Gone {
        key: Key,
    },
    /// What was used until here no longer rests; of the key, or of every key.
    Reset {
        limit: LimitId,
        who: Option<Arc<str>>,
    },
    /// An assertion failed: the limit is broken until it is edited.
    Broken {
        limit: LimitId,
        what: String,
    },
}

impl LeaseItem {
    pub fn of(key: Key) -> Self {
        Self {
            key,
            demand: 0,
            want: 0,
            release_free: 0,
            release_used: Vec::new(),
            report: Vec::new(),
            chunk_unused: 0,
            period: 0,
            settle: 0,
            refund: 0,
            reserve: 0,
            owed: 0,
        }
    }
}

impl Kind {
    /// The most that may be out at a time.
    pub fn limit(&self) -> u64 {
        match *self {
            Kind::Sliding { limit, .. } | Kind::Concurrency { limit, .. } | Kind::Calendar { limit, .. } => limit,
            Kind::Bucket { burst, .. } => burst,
        }
    }

    /// Whether both count the same thing, over whatever time.
    pub fn is_same(&self, other: &Kind) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Whether usage under the one is usage under the other. Of builds below level 6 this decides which limits go on.
    pub fn is_like(&self, other: &Kind) -> bool {
        match (self, other) {
            (Kind::Sliding { window_us: a, .. }, Kind::Sliding { window_us: b, .. }) => a == b,
            (Kind::Concurrency { max_hold_us: a, .. }, Kind::Concurrency { max_hold_us: b, .. }) => a == b,
            (Kind::Calendar { every: a, .. }, Kind::Calendar { every: b, .. }) => a == b,
            (Kind::Bucket { .. }, Kind::Bucket { .. }) => true,
            _ => false,
        }
    }
}
