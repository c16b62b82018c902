//! One key's slots: free, coming home, lent, in quarantine. Every slot is in exactly one of these places.

use imbl::OrdMap;

use super::{
    Limit, RESERVE_US, Relief, Schedule, Session,
    command::{Dated, Kind, SessionId},
    share::{self, Target},
    time,
};
use crate::mutants::{self, Mutant};

/// At most one recall per key in this time.
pub(super) const RECALL_EVERY_US: u64 = 300_000;
/// And where answers have cost more than there was.
const RECALL_OWED_EVERY_US: u64 = 50_000;
/// How much further ahead than a rest slots come free by rounding: a part of the window that nodes still reckon.
const REACH_PART: u64 = 32;
/// A key that somebody waits for is looked at no more and no less often than this.
const HUNGRY_US: std::ops::RangeInclusive<u64> = 20_000..=1_000_000;

/// What a holder may keep beyond its target where it has use for it. Demands are guesses, and move by a tenth by
/// themselves: slots that went to and fro with them would rest longer than they must, and 3 % of a limit lie idle.
const BAND_PERCENT: u64 = 25;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    pub free: u64,
    /// Slots beyond the budget, since it was lowered: as many are destroyed as they come home.
    pub excess: u64,
    /// Slots that were given up in use.
    pub recycling: Schedule,
    /// Slots of sessions that are over and said nothing of them.
    pub quarantine: Schedule,
    /// Slots that were destroyed before they had rested: where the budget is raised again, they come back resting.
    pub destroyed: Schedule,
    /// Of the period of a calendar limit: what was spent, and what was lost with sessions that may have spent it.
    pub spent: u64,
    pub burnt: u64,
    pub period: u64,
    /// By session, ascending.
    pub holders: Vec<(SessionId, Held)>,
    /// What an operator gave or forgave; of most keys nothing.
    pub relief: Option<Box<Relief>>,
    pub recalled_us: u64,
    /// When somebody last asked for any.
    pub active_us: u64,
    /// Where it stands in `Ledger::due`.
    pub due_us: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    pub slots: u64,
    /// Thousandths of slots.
    pub demand: u64,
    pub want: u64,
    /// Slots in use that rest longer than the session lasts, and with which batch that was said.
    pub report: Schedule,
    pub report_seq: u64,
    /// Slots that the node may use for `RESERVE_US` after its last renewal.
    pub reserve: u64,
    /// What answers cost beyond what it held, and was not lent for that yet.
    pub owed: u64,
}

/// What a rebalance gives to one holder, or asks of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Given {
    pub free: u64,
    pub dated: Vec<Dated>,
    pub keep: Option<u64>,
}

/// An assertion that failed, in words.
pub(super) type Wrong = String;

/// Up to this many slots nothing is recalled; `demand` is in thousandths.
fn left_alone(target: u64, demand: u64) -> u64 {
    (target + target.saturating_mul(BAND_PERCENT) / 100).min(demand / 1_000).max(target)
}

impl Pool {
    pub fn held(&self, session: SessionId) -> Option<&Held> {
        self.position(session).ok().map(|n| &self.holders[n].1)
    }

    pub fn held_mut(&mut self, session: SessionId) -> &mut Held {
        let n = self.position(session).unwrap_or_else(|n| {
            self.holders.insert(n, (session, Held::default()));
            n
        });
        &mut self.holders[n].1
    }

    fn position(&self, session: SessionId) -> Result<usize, usize> {
        self.holders.binary_search_by_key(&session, |(id, _)| *id)
    }

    /// Whether others ask for more than they have, and nothing is free for them.
    pub(super) fn is_short_beside(&self, mine: Option<SessionId>) -> bool {
        let short = |held: &Held| held.want > 0 || held.demand > held.slots.saturating_mul(1_000);
        self.free == 0 && self.holders.iter().any(|(id, held)| Some(*id) != mine && short(held))
    }

    /// Everything, wherever it is.
    pub fn total(&self) -> u64 {
        let held: u64 = self.holders.iter().map(|(_, held)| held.slots).sum();
        self.free + self.recycling.total() + self.quarantine.total() + held + self.spent + self.burnt
    }

    /// I1: a slot is never lost and never made.
    pub(super) fn check(&self, limit: &Limit) -> Result<(), Wrong> {
        let budget = self.budget(limit);
        match self.total() == budget + self.excess {
            true => Ok(()),
            false => Err(format!("{} slots, {budget} + {} expected", self.total(), self.excess)),
        }
    }

    /// Slots that are free at once, less those that are beyond the budget.
    pub(super) fn come_home(&mut self, count: u64) {
        let destroyed = count.min(self.excess);
        self.excess -= destroyed;
        self.free += count - destroyed;
    }

    /// Slots that were given up in use.
    pub(super) fn recycle(&mut self, at_us: u64, count: u64, limit: &Limit) {
        if self.is_forgiven(at_us, limit) {
            return self.come_home(count);
        }
        let destroyed = self.destroy(at_us, count, limit);
        self.recycling.add(at_us, count - destroyed, limit.window_us());
    }

    /// Of `count` slots that will have rested at `at_us`, those that are beyond the budget.
    fn destroy(&mut self, at_us: u64, count: u64, limit: &Limit) -> u64 {
        let destroyed = count.min(self.excess);
        self.excess -= destroyed;
        self.destroyed.add(at_us, destroyed, limit.window_us());
        destroyed
    }

    /// The budget was changed from `before` to `after`.
    pub(super) fn resize(&mut self, before: u64, after: u64) {
        if after >= before {
            let made = after - before;
            let kept = made.min(self.excess);
            self.excess -= kept;
            let mut left = made - kept;
            for (at_us, count) in self.destroyed.take_latest(left) {
                left -= count;
                self.quarantine.push(at_us, count);
            }
            self.free += left;
            return;
        }
        self.excess += before - after;
        let gone = self.excess.min(self.free);
        self.free -= gone;
        self.excess -= gone;
        for from in [&mut self.recycling, &mut self.quarantine] {
            for (at_us, count) in from.take_latest(self.excess) {
                self.excess -= count;
                self.destroyed.push(at_us, count);
            }
        }
    }

    /// Brings home what has come free, and settles sessions that are over.
    pub(super) fn advance(&mut self, now_us: u64, limit: &Limit, sessions: &OrdMap<SessionId, Session>) {
        for n in (0..self.holders.len()).rev() {
            let (id, held) = &self.holders[n];
            let session = sessions.get(id).expect("a session is kept while a key refers to it");
            if session.end_us() <= now_us {
                let held = held.clone();
                self.holders.remove(n);
                self.bury(&held, session, limit);
            } else if held.slots == 0 && (session.fenced || held.demand + held.want + held.owed == 0) {
                self.holders.remove(n);
            } else if session.fenced {
                // Nothing is lent to it any more, and nobody waits for that.
                self.holders[n].1.owed = 0;
            }
        }
        let home = self.recycling.take_due(now_us) + self.quarantine.take_due(now_us);
        self.come_home(home);
        self.destroyed.take_due(now_us);
        self.end_relief(now_us, limit);
    }

    /// I5: what was reported to rest beyond the session returns on schedule, everything else a rest after its end. The
    /// report is good only if it came with the last renewal: an older one knows nothing of uses since.
    fn bury(&mut self, held: &Held, session: &Session, limit: &Limit) {
        if limit.is_calendar() {
            return self.burn(held.slots);
        }
        let reserve = held.reserve.min(held.slots);
        if reserve > 0 && !mutants::is(Mutant::ReserveForgotten) {
            let at_us = time::session_end(session.renewed_us, RESERVE_US) + limit.rest_longest_us();
            let destroyed = self.destroy(at_us, reserve, limit);
            self.quarantine.add(at_us, reserve - destroyed, limit.window_us());
        }
        let mut left = if mutants::is(Mutant::ReserveForgotten) { held.slots } else { held.slots - reserve };
        if held.report_seq == session.seq {
            for (at_us, count) in held.report.entries() {
                let count = left.min(*count);
                left -= count;
                self.recycle(*at_us, count, limit);
            }
        }
        let rest_us = match mutants::is(Mutant::RegrantAtExpiry) {
            true => 0,
            false if mutants::is(Mutant::BuriedByTheNewRest) => limit.rest_us(),
            false => limit.rest_longest_us(),
        };
        let at_us = session.end_us() + rest_us;
        let destroyed = self.destroy(at_us, left, limit);
        self.quarantine.add(at_us, left - destroyed, limit.window_us());
    }

    /// Nobody asks, and every slot is home.
    pub(super) fn is_idle(&self, now_us: u64, limit: &Limit) -> bool {
        let home = self.holders.is_empty() && self.recycling.is_empty() && self.quarantine.is_empty();
        let settled = self.destroyed.is_empty() && self.excess == 0 && self.relief.is_none();
        home && settled && self.is_whole() && self.active_us + limit.rest_us() <= now_us
    }

    /// Lends by demand: what is free, then what comes free, then by recalling from those above their target. Answers
    /// what each holder gets, in their order, and whether somebody still waits.
    pub(super) fn rebalance(
        &mut self,
        now_us: u64,
        limit: &Limit,
        on_demand: bool,
        sessions: &OrdMap<SessionId, Session>,
    ) -> (Vec<(SessionId, Given)>, bool) {
        let lasts = |id: &SessionId| sessions.get(id).is_some_and(|it| it.lasts(now_us));
        let live: Vec<usize> = (0..self.holders.len()).filter(|n| lasts(&self.holders[*n].0)).collect();
        let mut given: Vec<Given> = vec![Given::default(); live.len()];
        if limit.broken.is_some() || limit.removed_us.is_some() {
            return (Vec::new(), false);
        }
        self.lend_owed(&live, &mut given);
        if limit.is_calendar() {
            let hungry = self.lend_chunks(now_us, &live, &mut given);
            let ids = live.iter().map(|n| self.holders[*n].0);
            return (ids.zip(given).filter(|(_, it)| *it != Given::default()).collect(), hungry);
        }
        if on_demand {
            let wants: Vec<u64> = live.iter().map(|n| self.holders[*n].1.want).collect();
            let before: Vec<u64> = given.iter().map(|it| it.free).collect();
            self.lend_free(&live, &wants, &mut given);
            for ((n, given), before) in live.iter().zip(&given).zip(before) {
                let want = &mut self.holders[*n].1.want;
                *want = want.saturating_sub(given.free - before);
            }
            self.recall_owed(now_us, &live, &mut given);
        } else {
            self.lend_by_demand(now_us, limit, &live, &mut given);
        }
        let wants = live.iter().any(|n| self.holders[*n].1.want > 0);
        let short = |(n, it): (&usize, &Given)| {
            it.keep.is_none() && self.holders[*n].1.demand > self.holders[*n].1.slots * 1_000
        };
        let hungry = wants || self.excess + self.owed() > 0 || (!on_demand && live.iter().zip(&given).any(short));
        let ids = live.iter().map(|n| self.holders[*n].0);
        (ids.zip(given).filter(|(_, it)| *it != Given::default()).collect(), hungry)
    }

    /// What nodes owe that are there.
    pub fn owed(&self) -> u64 {
        self.holders.iter().map(|(_, held)| held.owed).sum()
    }

    /// Before anything is lent to anybody: what answers have cost is spent already.
    fn lend_owed(&mut self, live: &[usize], given: &mut [Given]) {
        let owed: Vec<u64> = live.iter().map(|n| self.holders[*n].1.owed).collect();
        if owed.iter().any(|it| *it > 0) {
            self.lend_free(live, &owed, given);
            for (n, given) in live.iter().zip(given) {
                let owed = &mut self.holders[*n].1.owed;
                *owed = owed.saturating_sub(given.free);
            }
        }
    }

    pub(super) fn lend_free(&mut self, live: &[usize], wanted: &[u64], given: &mut [Given]) {
        for ((n, count), given) in live.iter().zip(share::split(self.free, wanted)).zip(given) {
            self.free -= count;
            self.holders[*n].1.slots += count;
            given.free += count;
        }
    }

    fn lend_by_demand(&mut self, now_us: u64, limit: &Limit, live: &[usize], given: &mut [Given]) {
        let held = |pool: &Self, n: &usize| pool.holders[*n].1.slots;
        let out_of_reach: u64 =
            self.total() - self.free - self.recycling.total() - live.iter().map(|n| held(self, n)).sum::<u64>();
        let capacity = self.budget(limit).saturating_sub(out_of_reach);
        let demands: Vec<u64> = live.iter().map(|n| self.holders[*n].1.demand).collect();
        let targets = share::targets(&demands, capacity);
        let asks = |pool: &Self, n: &usize| pool.holders[*n].1.demand + pool.holders[*n].1.want > 0;
        let short_of = |pool: &Self, goal: fn(&Target) -> u64| -> Vec<u64> {
            let short = |(n, target): (&usize, &Target)| match asks(pool, n) {
                true => goal(target).saturating_sub(held(pool, n)),
                false => 0,
            };
            live.iter().zip(&targets).map(short).collect()
        };
        if self.owed() > 0 && !mutants::is(Mutant::LentWhileOwed) {
            // Nor is what is coming home anybody's before that.
            return self.recall_owed(now_us, live, given);
        }
        let needs = short_of(self, |it| it.need);
        self.lend_free(live, &needs, given);
        let beside = short_of(self, |it| it.target);
        self.lend_free(live, &beside, given);
        self.lend_coming(now_us, limit, live, &short_of(self, |it| it.need), given);
        // Work-conserving: better lent beyond its target to who could use it than idle.
        let wants: Vec<u64> = live.iter().map(|n| self.holders[*n].1.want).collect();
        self.lend_free(live, &wants, given);
        // What is free with those who do not need it they give back by themselves (`Holder`); a permit that is recalled
        // comes when its exchange ends.
        let unmet = match limit.rule.kind {
            Kind::Concurrency { .. } => short_of(self, |it| it.need).iter().sum::<u64>() + self.excess,
            _ => self.excess,
        };
        if unmet > 0 && now_us >= self.recalled_us + RECALL_EVERY_US {
            let above = |((n, target), demand): ((&usize, &Target), &u64)| {
                let held = held(self, n);
                if held > left_alone(target.target, *demand) { held.saturating_sub(target.target) } else { 0 }
            };
            let surplus: Vec<u64> = live.iter().zip(&targets).zip(&demands).map(above).collect();
            // Targets are rounded up: what is beyond the budget has to come from somewhere all the same.
            let (surplus, unmet) = match surplus.iter().sum::<u64>() < self.excess {
                true => (live.iter().map(|n| held(self, n)).collect(), self.excess),
                false => (surplus, unmet),
            };
            if surplus.iter().any(|it| *it > 0) {
                self.recalled_us = now_us;
            }
            for ((n, back), given) in live.iter().zip(share::split(unmet, &surplus)).zip(given) {
                given.keep = (back > 0).then(|| held(self, n) - back);
            }
        }
    }

    /// Slots that are coming home, the soonest first, dated.
    fn lend_coming(&mut self, now_us: u64, limit: &Limit, live: &[usize], needs: &[u64], given: &mut [Given]) {
        // What was used under a longer window is further ahead than nodes reckon.
        let coming = match limit.rests.is_empty() {
            true => self.recycling.total(),
            false => self.recycling.count_until(now_us + limit.rest_us() + limit.window_us() / REACH_PART),
        };
        let parts = share::split(coming, needs);
        for ((n, count), given) in live.iter().zip(parts).zip(given) {
            given.dated = self.recycling.take_soonest(count, now_us);
            self.holders[*n].1.slots += count;
        }
    }

    /// What is still owed is asked of those who owe nothing.
    pub(super) fn recall_owed(&mut self, now_us: u64, live: &[usize], given: &mut [Given]) {
        let unmet = self.owed();
        let has = |pool: &Self, n: &usize| if pool.holders[*n].1.owed > 0 { 0 } else { pool.holders[*n].1.slots };
        let surplus: Vec<u64> = live.iter().map(|n| has(self, n)).collect();
        let early = now_us < self.recalled_us + RECALL_OWED_EVERY_US;
        if unmet == 0 || early || surplus.iter().all(|it| *it == 0) || mutants::is(Mutant::OwedNotRecalled) {
            return;
        }
        self.recalled_us = now_us;
        for ((n, back), given) in live.iter().zip(share::split(unmet, &surplus)).zip(given) {
            given.keep = (back > 0).then(|| self.holders[*n].1.slots - back);
        }
    }

    /// When to look at it next, if nobody does before.
    pub(super) fn next_us(&self, now_us: u64, limit: &Limit, hungry: bool) -> u64 {
        let ends = self.bonus_ends_us();
        let coming = [self.recycling.first_us(), self.quarantine.first_us(), ends].into_iter().flatten().min();
        if hungry {
            let (soonest, latest) = (now_us + HUNGRY_US.start(), now_us + HUNGRY_US.end());
            // It was too soon to ask others again.
            let again = Some(self.recalled_us + RECALL_OWED_EVERY_US);
            let again = again.filter(|at| self.owed() > 0 && self.recalled_us < now_us && now_us < *at);
            return coming.into_iter().chain(again).min().unwrap_or(latest).clamp(soonest, latest);
        }
        let home = [self.recycling.last_us(), self.quarantine.last_us(), self.destroyed.last_us()]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(0);
        let idle = (self.active_us + limit.rest_us()).max(home);
        let next = if idle > now_us { idle } else { now_us + limit.rest_us().max(*HUNGRY_US.end()) };
        ends.map_or(next, |ends| next.min(ends.max(now_us + 1)))
    }
}
