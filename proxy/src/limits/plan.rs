//! A limit as this node carries it out, with the keys that were seen of it. Both outlive an edit that keeps the limit's
//! number in the ledger.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use foldhash::quality::RandomState;
use http::HeaderValue;
use quorumgate_model::{
    ledger::{bucket::SLOTS_MAX, command::LimitId},
    resource::{Every, Key, Kind, Limit, LimitKind, LimitMode, Name, Resource, bucket_window_us},
    state::State,
    units::Span,
};

use super::{
    Limits,
    count::{Handle, LocalTerms},
};

/// All of them by name.
pub(super) type Plans = HashMap<Name, Arc<Plan>, RandomState>;

pub(super) struct Plan {
    pub(super) limit: Arc<Limit>,
    /// Its number in the ledger; None: each node for itself.
    pub(super) id: Option<LimitId>,
    /// The most that is admitted, and in which window.
    pub(super) slots: u64,
    pub(super) window_us: u64,
    /// Why this node cannot carry it out.
    pub(super) broken: Option<&'static str>,
    pub(super) keys: Arc<Keys>,
    /// What keys have in common that each node counts for itself.
    pub(super) local: Arc<LocalTerms>,
    /// `"free-tier";q=100;w=60`
    pub(super) policy: HeaderValue,
}

/// What was seen of a limit on this node.
pub(super) struct Keys {
    /// Clients choose their names, so that each process hashes in its own way.
    pub(super) handles: papaya::HashMap<Handle, (), RandomState>,
    pub(super) tally: Tally,
    /// Where those are counted that this node counts for itself.
    local: Arc<AtomicUsize>,
}

/// With the limit, or because an edit made its keys others.
impl Drop for Keys {
    fn drop(&mut self) {
        let local = self.handles.pin().keys().filter(|it| it.lease().is_none()).count();
        self.local.fetch_sub(local, Ordering::Relaxed);
    }
}

impl Keys {
    fn new(local: Arc<AtomicUsize>) -> Self {
        Self { handles: papaya::HashMap::default(), tally: Tally::default(), local }
    }

    pub(super) fn found(&self, who: &str) -> Option<Handle> {
        self.handles.pin().get_key_value(who).map(|(handle, ())| handle.clone())
    }
}

/// Counted by all workers, each time in memory that no other has then: apart from what they only read, by which they find keys.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Tally {
    pub(super) admitted: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Over a soft limit.
    pub(super) let_through: AtomicU64,
    pub(super) unavailable: AtomicU64,
    pub(super) waited: AtomicU64,
    /// Keys that came to 80 and to 100 hundredths, as this node found.
    pub(super) warned_80: AtomicU64,
    pub(super) warned_100: AtomicU64,
}

impl Plan {
    fn new(limit: &Arc<Limit>, id: Option<LimitId>, before: Option<&Arc<Plan>>, local_keys: &Arc<AtomicUsize>) -> Self {
        let micros = |span: &Span| u64::try_from(span.0.as_micros()).unwrap_or(u64::MAX).max(1);
        // As the ledger has it.
        let most = |amount: u64| amount.min(u64::from(SLOTS_MAX));
        let (slots, window_us) = match &limit.kind {
            LimitKind::Sliding { limit, window } => (most(*limit), micros(window)),
            LimitKind::Concurrency { limit, max_hold } => (most(*limit), micros(max_hold)),
            LimitKind::Bucket { rate, window, burst } => {
                (most(*burst), bucket_window_us(*rate, micros(window), most(*burst)))
            }
            LimitKind::Calendar { limit, every, .. } => (*limit, nominal_s(*every) * 1_000_000),
        };
        let is_lost = id.is_none() && limit.mode != LimitMode::Local;
        let broken = is_lost.then_some("the ledger does not have it");
        // The ledger gives another number to what usage so far says nothing about.
        let is_like = |it: &&Arc<Plan>| it.id == id && (id.is_some() || (it.slots, it.window_us) == (slots, window_us));
        let kept = before.filter(is_like).map(|it| it.keys.clone());
        let fresh = || Arc::new(Keys::new(local_keys.clone()));
        let local = Arc::new(LocalTerms::new(slots.min(u64::from(SLOTS_MAX)) as u32, window_us));
        let policy = super::answer::policy(limit, slots, window_us);
        Self { limit: limit.clone(), id, slots, window_us, broken, keys: kept.unwrap_or_else(fresh), local, policy }
    }

    /// What a node certainly may have at a time.
    pub(super) fn slots_u32(&self) -> u32 {
        self.slots.min(u64::from(SLOTS_MAX)) as u32
    }

    /// Slots are lent one by one, or prepaid a little ahead.
    pub(super) fn is_on_demand(&self, divisor: u64) -> bool {
        let tiny = self.limit.mode == LimitMode::Exact || self.slots < 8 * divisor;
        self.id.is_some() && (tiny || self.is_calendar())
    }

    pub(super) fn is_calendar(&self) -> bool {
        matches!(self.limit.kind, LimitKind::Calendar { .. })
    }
}

/// How long a period is where no clock is put forward or back; the longest month.
fn nominal_s(every: Every) -> u64 {
    match every {
        Every::Minute => 60,
        Every::Hour => 3_600,
        Every::Day => 86_400,
        Every::Month => 31 * 86_400,
    }
}

impl Limits {
    /// Takes over the limits of a state, before the rules that name them are served. Those that are gone stay until
    /// `prune`: the rules before still name them.
    pub fn publish(&self, state: &State) {
        let before = self.plans.load_full();
        // No name is less than this one.
        let Ok(first) = "0".parse() else { return };
        let from = Key { kind: Kind::Limit, name: first };
        let limits = state.resources.range(from..).map_while(|(_, stored)| match &stored.resource {
            Resource::Limit(limit) => Some(limit),
            _ => None,
        });
        let mut plans = Plans::clone(&before);
        for limit in limits {
            let id = state.ledger.names.get(&limit.name).copied().filter(|_| limit.mode != LimitMode::Local);
            let known = before.get(&limit.name);
            if !known.is_some_and(|it| Arc::ptr_eq(&it.limit, limit) && it.id == id) {
                plans.insert(limit.name.clone(), Arc::new(Plan::new(limit, id, known, &self.local_keys)));
            }
        }
        self.plans.store(Arc::new(plans));
    }

    /// Lets go of limits that are gone, after the rules that do not name them any more are served.
    pub fn prune(&self, state: &State) {
        let is_there = |name: &Name| state.resources.contains_key(&Key { kind: Kind::Limit, name: name.clone() });
        let plans = self.plans.load();
        if !plans.keys().all(is_there) {
            let kept = plans.iter().filter(|(name, _)| is_there(name)).map(|(name, plan)| (name.clone(), plan.clone()));
            self.plans.store(Arc::new(kept.collect()));
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use quorumgate_model::change;

    use super::*;

    #[test]
    fn keys_of_a_definition_that_is_gone_are_counted_no_more() {
        let limits = Limits::default();
        let name: Name = "l".parse().unwrap();
        for most in 1..=3 {
            let words =
                serde_json::json!({"name": "l", "per": "global", "limit": most, "window": "60s", "mode": "local"});
            let limit = Kind::Limit.parse(words).unwrap();
            let mut state = State::default();
            state.resources.insert(limit.key(), change::stored(limit));
            limits.publish(&state);
            for who in ["a", "b"] {
                assert_eq!(limits.decide(&name, who, 1), Some(true));
            }
            assert_eq!(limits.local_keys.load(Ordering::Relaxed), 2, "after {most} definitions");
        }
        limits.prune(&State::default());
        assert_eq!(limits.local_keys.load(Ordering::Relaxed), 0);
    }
}
