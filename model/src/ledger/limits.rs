//! The limits that the ledger keeps accounts for. What is spent belongs to the limit's number, never to a version of
//! its definition: an edit keeps it.

use std::sync::Arc;

use super::{
    Ledger, Period, SESSION_US,
    calendar::ACTIVE_US,
    command::{Kind, LimitId, Mode, NoQuorum, Rule},
    time,
};
use crate::{
    mutants::{self, Mutant},
    resource::Name,
};

/// Below this many slots a node there are no standing shares: slots are lent one by one.
const TINY_SLOTS_PER_NODE: u64 = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub id: LimitId,
    pub rule: Rule,
    /// Nothing of it was spent before.
    pub defined_us: u64,
    pub lowered: Option<Lowered>,
    /// Kept for a rest: a limit that comes back within it goes on.
    pub removed_us: Option<u64>,
    /// What was found wrong: the limit lends no more until it is edited.
    pub broken: Option<String>,
    /// Of a calendar limit: the period that has begun, if one has.
    pub period: Option<Period>,
    /// The period whose use an operator has forgiven though it is unknown since a restore; 0: none.
    pub forgiven_period: u64,
    /// How long slots rested before edits of the window, the oldest first: at most `RESTS_MAX`.
    pub rests: Vec<RestBefore>,
    /// The period was begun under another cycle, and ends when one of the new cycle does.
    pub recycled: bool,
}

/// Until that instant of the log clock slots rested so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestBefore {
    pub until_us: u64,
    pub rest_us: u64,
}

/// The budget was larger before, or there were shares where there are none now; nodes that have not acknowledged the change go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lowered {
    pub from: u64,
    pub version: u64,
    pub complete_us: Option<u64>,
}

impl Limit {
    pub fn budget(&self) -> u64 {
        self.rule.kind.limit()
    }

    /// After which time on the log clock a slot that was given up in use may be used again.
    pub fn rest_us(&self) -> u64 {
        match self.rule.kind {
            Kind::Sliding { window_us, .. } => time::rested(window_us),
            // h(1 + 2ρ) in the same words: the exchange is ended by its own node's clock.
            Kind::Concurrency { max_hold_us, .. } => time::session_end(0, max_hold_us),
            // It never may within its period; this long a node keeps what it does not need at the moment.
            Kind::Calendar { .. } => ACTIVE_US,
            Kind::Bucket { .. } => 0,
        }
    }

    /// The same of what was used up to `at_us`: as it was before the edits since. Of permits as it may have been on a node that
    /// had not heard of the last ones: an exchange ends by the hold that it began with.
    pub fn rest_at_us(&self, at_us: u64) -> u64 {
        let rest_us = self.rests.iter().find(|it| at_us <= it.until_us).map_or(self.rest_us(), |it| it.rest_us);
        if !matches!(self.rule.kind, Kind::Concurrency { .. }) || mutants::is(Mutant::HoldTakenForHeard) {
            return rest_us;
        }
        let unheard =
            |it: &&RestBefore| it.until_us < at_us && at_us <= time::session_end(it.until_us, *SESSION_US.end());
        self.rests.iter().filter(unheard).map(|it| it.rest_us).max().unwrap_or(0).max(rest_us)
    }

    /// The shortest that anything has to rest that was used after `at_us`.
    pub(super) fn rest_shortest_since_us(&self, at_us: u64) -> u64 {
        let since = self.rests.iter().filter(|it| at_us <= it.until_us);
        since.map(|it| it.rest_us).fold(self.rest_us(), u64::min)
    }

    /// The longest that anything may have to rest that is in use now.
    pub fn rest_longest_us(&self) -> u64 {
        self.rests.iter().map(|it| it.rest_us).max().unwrap_or(0).max(self.rest_us())
    }

    /// How long slots are reckoned over.
    pub fn window_us(&self) -> u64 {
        match self.rule.kind {
            Kind::Sliding { window_us, .. } => window_us,
            Kind::Concurrency { max_hold_us, .. } => max_hold_us,
            Kind::Bucket { window_us, .. } => window_us,
            Kind::Calendar { .. } => ACTIVE_US,
        }
    }

    /// Whether what is lent comes back of itself, so that a node may have a share beforehand.
    pub fn has_slots(&self) -> bool {
        matches!(self.rule.kind, Kind::Sliding { .. } | Kind::Concurrency { .. })
    }

    /// Whether what is lent is prepaid, of a period of the calendar.
    pub fn is_calendar(&self) -> bool {
        matches!(self.rule.kind, Kind::Calendar { .. })
    }

    /// Slots are lent one by one, and come back to the pool as they are used.
    pub fn is_on_demand(&self, divisor: u64) -> bool {
        self.rule.mode == Mode::Exact || self.is_calendar() || self.budget() < TINY_SLOTS_PER_NODE * divisor
    }

    /// Whether nodes have a share beforehand of a key that is not in the ledger. What is kept for a time without a quorum
    /// is known to the ledger, so there is none of a limit that has that.
    pub fn has_shares(&self) -> bool {
        self.has_slots() && self.rule.mode == Mode::Leased && self.rule.on_no_quorum != NoQuorum::Reserve
    }

    /// By these numbers alone.
    pub(super) fn share_of(&self, budget: u64, divisor: u64) -> u64 {
        match divisor == 0 || budget < TINY_SLOTS_PER_NODE * divisor {
            true => 0,
            false => (u128::from(budget) * 9 / 10 / u128::from(divisor)) as u64,
        }
    }
}

impl Ledger {
    pub(super) fn define_limit(&mut self, rule: &Rule) {
        self.shares_version = self.version;
        let known = self.names.get(&rule.name).and_then(|id| self.limits.get(id)).cloned();
        let Some(known) = known.filter(|it| it.rule.kind.is_like(&rule.kind) && it.broken.is_none()) else {
            if self.limits.len() < super::LIMITS_MAX {
                self.new_limit(rule);
            }
            return;
        };
        self.go_on(&known, rule);
    }

    /// The limit's number, and all that was spent of it, stay.
    pub(super) fn go_on(&mut self, known: &Limit, rule: &Rule) {
        let (before, after) = (known.budget(), rule.kind.limit());
        let mut limit = Limit { rule: rule.clone(), removed_us: None, ..known.clone() };
        // Nodes that have not heard of it go on with the shares that they had.
        let shares_end = known.has_shares() && !limit.has_shares() && !mutants::is(Mutant::SharesEndUnheard);
        if after < before || shares_end {
            let from = before.max(limit.lowered.map_or(0, |it| it.from));
            limit.lowered = Some(Lowered { from, version: self.version, complete_us: None });
        }
        self.limits.insert(limit.id, Arc::new(limit));
        self.resize_pools(known.id, before, after);
    }

    pub(super) fn new_limit(&mut self, rule: &Rule) {
        if let Some(old) = self.names.get(&rule.name).copied() {
            self.drop_limit(old);
        }
        let (id, defined_us) = (self.version, self.now_us);
        let limit = Limit {
            id,
            rule: rule.clone(),
            defined_us,
            lowered: None,
            removed_us: None,
            broken: None,
            period: None,
            forgiven_period: 0,
            rests: Vec::new(),
            recycled: false,
        };
        self.limits.insert(id, Arc::new(limit));
        self.names.insert(rule.name.clone(), id);
    }

    pub(super) fn remove_limit(&mut self, name: &Name) {
        let (now, Some(id)) = (self.now_us, self.names.get(name).copied()) else { return };
        self.limit_mut(id).removed_us = Some(now);
    }

    /// Limits that were removed a rest ago.
    pub(super) fn purge_limits(&mut self) {
        self.forget_rests();
        let over = |limit: &Limit| {
            // A quota that comes back within its period goes on.
            let counts = limit.period.is_some_and(|it| self.wall_us().is_none_or(|now| now < it.ends_us));
            limit.removed_us.is_some_and(|at| at + limit.rest_longest_us() <= self.now_us) && !counts
        };
        let gone: Vec<_> = self.limits.values().filter(|it| over(it)).map(|it| (it.id, it.rule.name.clone())).collect();
        for (id, name) in gone {
            self.drop_limit(id);
            self.names.remove(&name);
        }
    }

    pub(super) fn limit_mut(&mut self, id: LimitId) -> &mut Limit {
        Arc::make_mut(self.limits.get_mut(&id).expect("it was just found"))
    }
}
