//! Budgets of the whole cluster: what nodes hold of a limit and spend without asking.
//!
//! `apply` is the agreed half: pools, sessions, shares. `holder` is a node's half: what it holds, when it asks for more
//! and what it gives back. `bucket` is the admission core of a holder, used as it is by the proxy's workers and by the
//! simulation. The invariants I1 … I9 that comments name: docs/RATE-LIMITS.md.

mod adjust;
mod apply;
pub mod bucket;
mod calendar;
pub mod command;
mod dated;
mod demand;
mod divisor;
mod edit;
pub mod holder;
pub mod lease;
mod limits;
mod pool;
mod recent;
mod session;
mod share;
#[cfg(test)]
mod tests;
pub mod time;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

pub use adjust::{BONUSES_MAX, Refused, Relief};
pub use calendar::{Period, Wall};
pub use dated::Schedule;
pub use lease::Lease;
pub use limits::{Limit, Lowered, RestBefore};
pub use pool::{Held, Pool};
pub use session::{Epoch, Seat, Session};

use self::{
    command::{Key, LimitId, SessionId},
    recent::Recent,
};
use crate::{NodeId, resource::Name};

/// How many limits may be defined.
pub const LIMITS_MAX: usize = 10_000;
/// How many sessions may be remembered, those included whose slots are still in quarantine.
pub const SESSIONS_MAX: usize = 10_000;
/// How many keys may be in the ledger at a time; further ones are answered as if nothing were free.
pub const KEYS_MAX: usize = 4_000_000;
/// How long a session may last.
pub const SESSION_US: std::ops::RangeInclusive<u64> = 1_000_000..=60_000_000;
/// How many keys one entry looks at because their time has come; the rest waits for the next entry.
pub const DUE_MAX: usize = 1_000;
/// Without a quorum a node with a reserve spends a part of what it holds for so long after it sent its last renewal.
pub const RESERVE_US: u64 = 60_000_000;
/// How long the text of a key may be, in bytes.
pub const KEY_BYTES_MAX: usize = 1_024;

/// What is lent to whom. Ordered maps and integers; a clone costs O(1) and is a frozen view.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ledger {
    /// Commands applied. Every number that the ledger gives out is one of these.
    pub version: u64,
    /// The log clock.
    pub now_us: u64,
    pub limits: OrdMap<LimitId, Arc<Limit>>,
    pub names: OrdMap<Name, LimitId>,
    pub sessions: OrdMap<SessionId, Session>,
    pub seats: OrdMap<NodeId, Seat>,
    pub epoch: Epoch,
    pub keys: OrdMap<Key, Arc<Pool>>,
    /// When to look at a key next; follows from `keys`.
    pub(crate) due: OrdSet<(u64, Key)>,
    /// After a restore: until then what the backup does not know of may be in use, for limits defined before it.
    pub void_us: u64,
    /// Unix time as the cluster reckons it; None until a majority of the nodes has said what time it is.
    pub wall: Option<Wall>,
    /// After a restore: of calendar periods that had begun by then it is unknown what was spent. 0: there was none;
    /// `u64::MAX`: what time it is is not known yet.
    pub void_wall_us: u64,
    /// The last change of what a share is.
    pub shares_version: u64,
    /// What the last commands did, for holders; neither stored nor hashed.
    pub(crate) recent: Recent,
}

impl Ledger {
    pub fn limit(&self, id: LimitId) -> Option<&Arc<Limit>> {
        self.limits.get(&id)
    }

    pub fn limit_named(&self, name: &str) -> Option<&Arc<Limit>> {
        let (_, id) = self.names.iter().find(|(it, _)| &***it == name)?;
        self.limits.get(id)
    }

    pub fn pool(&self, key: &Key) -> Option<&Arc<Pool>> {
        self.keys.get(key)
    }

    /// The keys of a limit that are in the ledger.
    pub fn pools_of(&self, id: LimitId) -> impl Iterator<Item = (&Key, &Arc<Pool>)> {
        let from = Key { limit: id, who: "".into() };
        self.keys.range(from..).take_while(move |(key, _)| key.limit == id)
    }

    /// When a `Tick` would do something, on the log clock; None: there is nothing to wait for.
    pub fn due_us(&self) -> Option<u64> {
        let key = self.due.get_min().map(|(at, _)| *at);
        let open = self.epoch.complete_us.is_none() && !self.sessions.is_empty();
        let ends = self.sessions.values().map(Session::end_us).filter(|end| open && *end > self.now_us).min();
        key.into_iter().chain(ends).min()
    }

    /// The divisor to propose where it differs from the epoch's: one seat for each node that has a session or a seat.
    pub fn wanted_divisor(&self) -> u64 {
        let seatless = self.sessions.values().filter(|it| it.lasts(self.now_us) && !self.seats.contains_key(&it.node));
        let nodes: std::collections::BTreeSet<_> = seatless.map(|it| it.node).collect();
        (nodes.len() + self.seats.len()) as u64
    }
}
