//! Edits of a limit's window, hold or cycle: what was used under the old one goes on to count.
//!
//! A slot in use rests as long as it had to when it was used, or longer where the new window is longer. A node that has not heard
//! of the edit goes by the old window until its session ends. So while an edit spreads no window of the shorter length is
//! over its limit, and once it has spread none of the new length.

use super::{
    Ledger, Limit, Pool, RESERVE_US, RestBefore, SESSION_US,
    calendar::Period,
    command::{Kind, LimitId, Rule},
    time,
};
use crate::mutants::{self, Mutant};

/// How many edits of a window are told apart while slots of before may rest.
const RESTS_MAX: usize = 64;

impl Ledger {
    /// Takes over a limit as an operator changed it: it keeps its number and its counters as long as it counts the same
    /// thing. Of another kind it begins anew. For entries that builds below level 6 do not read (`DefineLimit` is for theirs).
    pub fn edit_limit(&mut self, at_us: u64, rule: &Rule) {
        let effects = self.begin(at_us);
        self.shares_version = self.version;
        let known = self.names.get(&rule.name).and_then(|id| self.limits.get(id)).cloned();
        match known.filter(|it| it.rule.kind.is_same(&rule.kind) && it.broken.is_none()) {
            Some(known) => self.edit_known(&known, rule),
            None if self.limits.len() < super::LIMITS_MAX => self.new_limit(rule),
            None => {}
        }
        self.end(effects);
    }

    fn edit_known(&mut self, known: &Limit, rule: &Rule) {
        let mut edited = known.clone();
        let after = Limit { rule: rule.clone(), ..known.clone() };
        if let (Kind::Calendar { every: before, .. }, Kind::Calendar { every: after, .. }) =
            (known.rule.kind, rule.kind)
        {
            edited.recycled = known.period.is_some() && (known.recycled || before != after);
            edited.period = known.period.filter(|_| before == after || !mutants::is(Mutant::PeriodBegunAnew));
        }
        let (before_us, after_us) = (known.rest_us(), after.rest_us());
        if before_us != after_us {
            if !mutants::is(Mutant::RestsForgotten) {
                edited.note_rest(RestBefore { until_us: self.now_us, rest_us: before_us });
            }
            self.lengthen(known, after_us.saturating_sub(before_us), after_us);
        }
        self.go_on(&edited, rule);
    }

    /// Forgets how long slots rested before edits that nothing is in use of, also on a node that heard as late as its session
    /// allows, and by which nothing is past that would not be by the rest of now.
    pub(super) fn forget_rests(&mut self) {
        let longest_us = self.sessions.values().map(|it| it.length_us).max().unwrap_or(0);
        let is_over = |limit: &Limit, it: &RestBefore| {
            time::session_end(it.until_us, longest_us).saturating_add(limit.rest_longest_us()) <= self.now_us
        };
        let due = self.limits.values().filter(|limit| limit.rests.iter().any(|it| is_over(limit, it)));
        let kept = due.map(|limit| (limit.id, limit.rests.iter().filter(|it| !is_over(limit, it)).copied().collect()));
        let kept: Vec<(LimitId, Vec<RestBefore>)> = kept.collect();
        for (id, rests) in kept {
            self.limit_mut(id).rests = rests;
        }
    }

    /// What is in use rests so much longer: as long as what is used now.
    fn lengthen(&mut self, limit: &Limit, by_us: u64, rest_us: u64) {
        let is_longer = by_us > 0 && !mutants::is(Mutant::RestNotLengthened);
        for key in self.keys_of(limit.id).into_iter().filter(|_| is_longer) {
            let mut pool = Pool::clone(&self.keys[&key]);
            pool.lengthen(by_us, self.now_us, rest_us);
            self.store(&key, pool);
        }
    }

    /// Whether the period, which was begun under another cycle, may end with this one: a node that has not heard of that
    /// spends by the old end until its session ends.
    pub fn may_recycle(&self, limit: &Limit, ends_us: u64) -> bool {
        let Some(wall) = self.wall else { return false };
        let longest_us = self.sessions.values().map(|it| it.length_us).max().unwrap_or(0);
        let heard_us = wall.ahead_us.saturating_add(time::session_end(self.now_us, longest_us));
        let runs = limit.period.is_some_and(|it| it.ends_us > wall.ahead_us.saturating_add(self.now_us));
        limit.recycled && runs && (ends_us >= heard_us || mutants::is(Mutant::PeriodCutUnheard))
    }

    /// The running period goes on with all that was spent of it, and ends as the new cycle says.
    pub(super) fn recycle_period(&mut self, limit: &Limit, ends_us: u64) {
        if self.may_recycle(limit, ends_us) {
            let limit = self.limit_mut(limit.id);
            limit.recycled = false;
            limit.period = limit.period.map(|it| Period { ends_us, ..it });
        }
    }
}

impl Limit {
    /// Where there are too many the two oldest become one: of permits, which may be in flight, by the longer hold.
    fn note_rest(&mut self, rest: RestBefore) {
        self.rests.push(rest);
        if self.rests.len() > RESTS_MAX {
            let oldest = self.rests.remove(0);
            let rest_us = match self.rule.kind {
                Kind::Concurrency { .. } => oldest.rest_us.max(self.rests[0].rest_us),
                _ => oldest.rest_us.min(self.rests[0].rest_us),
            };
            self.rests[0].rest_us = rest_us;
        }
    }
}

impl Pool {
    /// What came back, or was told to rest, was used before now, and has rested by then under the longer window. What is in
    /// quarantine may be used as long as a session may last, or what is kept for a time without a quorum.
    fn lengthen(&mut self, by_us: u64, now_us: u64, rest_us: u64) {
        let latest_us = now_us.saturating_add(rest_us);
        let reports = self.holders.iter_mut().map(|(_, held)| &mut held.report);
        for schedule in [&mut self.recycling, &mut self.destroyed].into_iter().chain(reports) {
            schedule.delay(by_us, latest_us);
        }
        let unheard_us = RESERVE_US.max(*SESSION_US.end());
        self.quarantine.delay(by_us, time::session_end(now_us, unheard_us).saturating_add(rest_us));
    }
}
