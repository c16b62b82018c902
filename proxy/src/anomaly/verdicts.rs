//! Who was found to behave unlike others, as requests meet it: one atomic load while there is nobody. Whoever owns the process
//! keeps it as the cluster's leader has it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use quorumgate_model::{
    anomaly::Finding,
    mutants::{self, Mutant},
    resource::{AnomalyFeature, Name},
};

use crate::recent::now_ms;

/// How many may be in force at a time.
pub const VERDICTS_MAX: usize = 2_000;
/// Of a key, in bytes: a longer one is not watched.
pub const KEY_BYTES_MAX: usize = 256;

/// One caller, by one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub policy: Name,
    /// A consumer's name, a credential's id, an address or a network.
    pub key: Arc<str>,
    pub finding: Finding,
    /// How many nodes had seen a part of it.
    pub nodes: u32,
    /// Milliseconds since 1970.
    pub since_ms: u64,
    pub ends_ms: u64,
    /// Until then it is not found for the same again: what was seen of it is still in the window.
    pub known_ms: u64,
    /// What the policy said (`AnomalyPolicy::spec`): another one has not found it.
    pub spec: u64,
    pub outcome: Outcome,
}

/// What came of it, where more is asked than that requests are held against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    #[default]
    InForce,
    /// An entry of the cluster's bans.
    Banned,
    /// Too many were banned lately, or the cluster did not agree.
    HeldBack,
    /// It would have shut out somebody who is exempt.
    Exempt,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::InForce, Self::Banned, Self::HeldBack, Self::Exempt];

    pub fn word(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Banned => "banned",
            Self::HeldBack => "held_back",
            Self::Exempt => "exempt",
        }
    }
}

impl Verdict {
    /// `objects 214 over 200`
    pub fn words(&self) -> String {
        format!("{} {} over {}", self.finding.feature.word(), self.finding.value, self.finding.over)
    }

    /// Until it is over; at least one.
    pub(crate) fn left_s(&self) -> u64 {
        self.ends_ms.saturating_sub(now_ms()).div_ceil(1_000).max(1)
    }

    /// Since it was found.
    pub(crate) fn age_s(&self) -> u64 {
        now_ms().saturating_sub(self.since_ms) / 1_000
    }
}

#[derive(Debug, Default)]
pub struct Verdicts {
    hasher: RandomState,
    count: AtomicUsize,
    table: ArcSwap<HashMap<u64, Arc<Verdict>>>,
    /// How often each policy has found something, as far as this node led.
    found: Mutex<BTreeMap<(Name, &'static str), u64>>,
}

impl Verdicts {
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// In force, of the policy as it is.
    pub(crate) fn of(&self, policy: &Name, spec: impl Fn() -> u64, key: &str) -> Option<Arc<Verdict>> {
        if self.is_empty() {
            return None;
        }
        let found = self.table.load().get(&self.place(policy, key)).cloned()?;
        let is_its = found.spec == spec() || mutants::is(Mutant::VerdictOutlivesPolicy);
        (found.ends_ms > now_ms() && is_its).then_some(found)
    }

    /// Whether it was found already.
    pub(super) fn knows(&self, policy: &Name, key: &str) -> bool {
        let table = self.table.load();
        !self.is_empty() && table.get(&self.place(policy, key)).is_some_and(|it| it.known_ms > now_ms())
    }

    /// Those that are known still, in force or not, by policy and key.
    pub fn all(&self) -> Vec<Arc<Verdict>> {
        let now_ms = now_ms();
        let is_known = |it: &&Arc<Verdict>| it.ends_ms.max(it.known_ms) > now_ms;
        let mut all: Vec<_> = self.table.load().values().filter(is_known).cloned().collect();
        all.sort_by(|a, b| (&a.policy, &a.key).cmp(&(&b.policy, &b.key)));
        all
    }

    /// From now on there are these and no others.
    pub fn replace(&self, all: impl IntoIterator<Item = Verdict>) {
        let placed = |it: Verdict| (self.place(&it.policy, &it.key), Arc::new(it));
        let table: HashMap<_, _> = all.into_iter().take(VERDICTS_MAX).map(placed).collect();
        if table.is_empty() && self.is_empty() {
            return;
        }
        let count = table.len();
        self.table.store(Arc::new(table));
        self.count.store(count, Ordering::Release);
    }

    /// A policy has found something.
    pub fn found(&self, policy: &Name, feature: AnomalyFeature) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        *found.entry((policy.clone(), feature.word())).or_default() += 1;
    }

    /// Policies that are gone have found nothing.
    pub(crate) fn keep_only(&self, is_there: impl Fn(&Name) -> bool) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).retain(|(policy, _), _| is_there(policy));
    }

    /// By policy and feature.
    pub(super) fn counts(&self) -> BTreeMap<(Name, &'static str), u64> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn place(&self, policy: &Name, key: &str) -> u64 {
        self.hasher.hash_one((&**policy, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(policy: &str, key: &str, ends_ms: u64) -> Verdict {
        Verdict {
            policy: policy.parse().unwrap(),
            key: key.into(),
            finding: Finding { feature: AnomalyFeature::Objects, value: 214, over: 200 },
            nodes: 3,
            since_ms: 0,
            ends_ms,
            known_ms: ends_ms,
            spec: 7,
            outcome: Outcome::InForce,
        }
    }

    #[test]
    fn a_verdict_is_of_one_policy_and_one_key_until_it_is_over() {
        let verdicts = Verdicts::default();
        assert!(verdicts.is_empty());
        let later = now_ms() + 3_600_000;
        verdicts.replace([verdict("walks", "acme", later), verdict("walks", "gone", 1), verdict("other", "b", later)]);
        let of = |policy: &str, key: &str| verdicts.of(&policy.parse().unwrap(), || 7, key).map(|it| it.words());
        assert_eq!(of("walks", "acme").as_deref(), Some("objects 214 over 200"));
        for (policy, key) in [("walks", "b"), ("other", "acme"), ("walks", "gone"), ("walks", "")] {
            assert_eq!(of(policy, key), None, "{policy} {key}");
        }
        let walks = "walks".parse().unwrap();
        assert!(verdicts.of(&walks, || 8, "acme").is_none(), "the policy says something else now");
        assert!(verdicts.knows(&walks, "acme") && !verdicts.knows(&walks, "gone"));
        assert_eq!(verdicts.all().iter().map(|it| &*it.key).collect::<Vec<_>>(), ["b", "acme"]);
        verdicts.replace([]);
        assert!(verdicts.is_empty() && of("walks", "acme").is_none());
    }
}
