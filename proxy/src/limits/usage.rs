//! What this node has used of limits, for those who ask: operators, and the node that adds up what all have used.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::HeaderMap;
use quorumgate_model::resource::{LimitPart, Name};

use super::{
    Asked, Limits,
    admit::now_us,
    count::Handle,
    key,
    plan::{Plan, Tally, count},
};
use crate::identity::authorize::Callers;

/// One limit on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitUse {
    /// Those of which most is used, first.
    pub keys: Vec<KeyUse>,
    /// How many keys were seen lately.
    pub keys_known: u64,
    pub decisions: Decisions,
}

/// One key on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    pub key: Arc<str>,
    pub used: u64,
    pub free: u64,
    /// Used, out of this node, and not yet in the ledger.
    pub on_their_way: u64,
    /// Until all that is used here has come free.
    pub whole_in_us: u64,
}

/// What was decided since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decisions {
    pub admitted: u64,
    pub refused: u64,
    /// Over a soft limit.
    pub let_through: u64,
    pub unavailable: u64,
    pub waited: u64,
}

/// Which keys of a limit are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Keys<'a> {
    These(&'a [String]),
    /// As many of which most is used.
    Top(usize),
}

impl Tally {
    pub(super) fn decisions(&self) -> Decisions {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Decisions {
            admitted: read(&self.admitted),
            refused: read(&self.refused),
            let_through: read(&self.let_through),
            unavailable: read(&self.unavailable),
            waited: read(&self.waited),
        }
    }
}

impl Limits {
    /// None: this node does not know the limit. Looks at every key that was seen of it: not for a thread that others
    /// wait for.
    pub fn usage(&self, name: &str, keys: Keys<'_>) -> Option<LimitUse> {
        let plans = self.plans.load();
        let plan = plans.get(name)?;
        let way = match (plan.id, self.holder().as_ref()) {
            (Some(id), Some(holder)) => holder.on_their_way(id),
            _ => BTreeMap::new(),
        };
        let found = match keys {
            Keys::These(keys) => keys.iter().filter_map(|key| self.these(plan, key, &way)).collect(),
            Keys::Top(top) => self.most_used(plan, top, &way),
        };
        Some(LimitUse {
            keys: found,
            keys_known: plan.keys.handles.len() as u64,
            decisions: plan.keys.tally.decisions(),
        })
    }

    /// The session, and the number of the batch that is under way in it; 0: none is.
    pub fn flight(&self) -> (u64, u64) {
        self.holder().as_ref().map_or((0, 0), |holder| holder.flight())
    }

    /// The version of the ledger that what is spent here follows.
    pub fn version(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Until what is spent here follows at least that version.
    pub async fn wait_applied(&self, version: u64) {
        // The sender lives as long as this.
        let _ = self.applied.subscribe().wait_for(|applied| *applied >= version).await;
    }

    /// A key of the limit has come to 80 (or 100) hundredths of it, as the node found that adds up.
    pub fn warned(&self, name: &Name, percent: u8) {
        if let Some(plan) = self.plans.load().get(name) {
            let tally = &plan.keys.tally;
            count(if percent >= 100 { &tally.warned_100 } else { &tally.warned_80 });
        }
    }

    /// One more message to the ledger was sent.
    pub fn proposed(&self) {
        count(&self.proposals);
    }
}

impl Limits {
    fn these(&self, plan: &Plan, key: &str, way: &BTreeMap<Arc<str>, u64>) -> Option<KeyUse> {
        let handle = plan.keys.found(key)?;
        Some(of(&self.fresh(&handle).unwrap_or(handle), way))
    }

    /// What goes on in the place of one that gave way in an edit: no request has asked for it yet.
    fn fresh(&self, handle: &Handle) -> Option<Handle> {
        let lease = handle.lease().filter(|it| it.is_retired())?;
        self.holder().as_ref()?.known(&lease.key()).cloned().map(Handle::Leased)
    }

    /// Bounded by `top`, however many keys there are.
    fn most_used(&self, plan: &Plan, top: usize, way: &BTreeMap<Arc<str>, u64>) -> Vec<KeyUse> {
        let handles = plan.keys.handles.pin();
        let mut most = BinaryHeap::with_capacity(top + 1);
        for handle in handles.keys() {
            let fresh = self.fresh(handle);
            let (key, counts) = (handle.who(), fresh.as_ref().unwrap_or(handle).counts(now_us()));
            let used = counts.used + way.get(key).copied().unwrap_or(0);
            most.push(Reverse((used, key)));
            if most.len() > top {
                most.pop();
            }
        }
        // Ascending by `Reverse`: most first.
        let most = most.into_sorted_vec();
        most.into_iter().filter_map(|Reverse((_, key))| self.these(plan, key, way)).collect()
    }
}

/// How a limit's key is written for a request that is only imagined.
pub fn key_text(
    parts: &[LimitPart],
    route: &Name,
    callers: Callers<'_>,
    client_ip: IpAddr,
    headers: &HeaderMap,
) -> String {
    let mut text = String::new();
    key::write(parts, &Asked { route, callers, client_ip, headers }, &mut text);
    text
}

fn of(handle: &Handle, way: &BTreeMap<Arc<str>, u64>) -> KeyUse {
    let now_us = now_us();
    let counts = handle.counts(now_us);
    KeyUse {
        key: handle.who().clone(),
        used: counts.used,
        free: counts.free,
        on_their_way: way.get(handle.who()).copied().unwrap_or(0),
        whole_in_us: counts.whole_us.map_or(0, |at| at.saturating_sub(now_us)),
    }
}
