//! Limits by the calendar: what time it is, which period has begun, and the chunks of its budget that nodes prepay.
//!
//! What is spent is counted against a period by its number, whatever any clock shows: no period ever gets back a chunk
//! that a lost session may have spent, so none is over its limit. Clocks decide only when one ends and the next begins.

use super::{
    Ledger, Limit, Pool, Session,
    command::{Effect, LeaseItem, LimitId, SessionId},
    pool::{Given, RECALL_EVERY_US, Wrong},
    time,
};
use crate::mutants::{self, Mutant};

/// How long a node keeps what it does not need at the moment, and over which time its demand is reckoned.
pub(super) const ACTIVE_US: u64 = 10_000_000;
/// Calendar time is further off than this: it is set, not slewed.
const STEP_US: u64 = 250_000;
/// How fast it is slewed, in parts per million.
const SLEW_PPM: u64 = 500;
/// By how much a holder takes calendar time to run faster than its own clock: drift on both sides, and slewing.
const AHEAD_PPM: u64 = 4 * SLEW_PPM;
const MILLION: u64 = 1_000_000;
/// No clock that can be believed reads more: the year 9999.
const WALL_US_MAX: u64 = 253_402_300_800 * MILLION;

/// Unix time as the log clock tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wall {
    /// By how much it is ahead of the log clock.
    pub ahead_us: u64,
    /// When that was last brought up to date, on the log clock.
    pub at_us: u64,
    /// No period begins before this instant of the log clock: until then a node may spend by what it was before.
    pub hold_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// When it began, in seconds of Unix time.
    pub number: u64,
    /// When it ends, in microseconds of Unix time.
    pub ends_us: u64,
}

impl Period {
    pub fn begins_us(&self) -> u64 {
        self.number.saturating_mul(MILLION)
    }
}

impl Wall {
    /// When a holder stops spending of a period at the latest, on its own clock, if at `sent_us` of it a renewal was sent
    /// that the log stamped `renewed_us`. Never after the log clock shows the period's end: the stamp was not yet shown
    /// when the renewal was sent, and time since is taken to run faster than any clock does.
    pub fn spends_until_us(&self, period: &Period, sent_us: u64, renewed_us: u64) -> u64 {
        let left_us = period.ends_us.saturating_sub(self.ahead_us.saturating_add(renewed_us));
        sent_us.saturating_add(left_us - (u128::from(left_us) * u128::from(AHEAD_PPM)).div_ceil(1_000_000) as u64)
    }
}

impl Ledger {
    /// Unix time at the last entry.
    pub fn wall_us(&self) -> Option<u64> {
        self.wall.map(|wall| wall.ahead_us.saturating_add(self.now_us))
    }

    /// Whether nothing may be lent of a limit's period, because it is unknown what was spent of it before a restore.
    pub fn is_void(&self, limit: &Limit) -> bool {
        let Some(period) = limit.period else { return false };
        let forgiven = limit.forgiven_period == period.number;
        period.begins_us() <= self.void_wall_us && self.void_wall_us > 0 && !forgiven
    }

    /// Calendar limits whose next period is to begin at `wall_us` of Unix time; how soon it may, the ledger says.
    pub fn ended_periods(&self, wall_us: u64) -> impl Iterator<Item = &Limit> {
        let held = self.wall.is_none_or(|wall| wall.ahead_us.saturating_add(wall.hold_us) > wall_us);
        let ended = move |it: &Limit| it.period.is_none_or(|period| period.ends_us <= wall_us);
        let due = move |it: &&Limit| !held && it.is_calendar() && it.removed_us.is_none() && (ended(it) || it.recycled);
        self.limits.values().map(|it| &**it).filter(due)
    }

    /// I6: calendar time follows the median of what the nodes say, as long as a majority says something.
    pub(super) fn keep_calendar(&mut self) {
        let live = self.sessions.values().filter(|it| it.lasts(self.now_us));
        let mut said: Vec<u64> = live.map(|it| it.wall_ahead_us).collect();
        let all = (said.len() as u64).max(self.epoch.divisor);
        said.retain(|ahead| *ahead > 0);
        if said.len() as u64 * 2 <= all {
            return;
        }
        let middle = (said.len() - 1) / 2;
        let median = *said.select_nth_unstable(middle).1;
        let longest = self.sessions.values().map(|it| it.length_us).max().unwrap_or(0);
        let now = self.now_us;
        let Some(wall) = &mut self.wall else {
            self.wall = Some(Wall { ahead_us: median, at_us: now, hold_us: 0 });
            if self.void_wall_us == u64::MAX {
                self.void_wall_us = median.saturating_add(now);
            }
            return;
        };
        if wall.ahead_us.abs_diff(median) > STEP_US {
            // Who has not heard of it spends by the time before until its session ends.
            if median > wall.ahead_us {
                wall.hold_us = time::session_end(now, longest);
            }
            (wall.ahead_us, wall.at_us) = (median, now);
            return;
        }
        let most = now.saturating_sub(wall.at_us) * SLEW_PPM / MILLION;
        if most > 0 {
            wall.ahead_us = median.clamp(wall.ahead_us - most, wall.ahead_us + most);
            wall.at_us = now;
        }
    }

    /// Only forward: a period has a higher number than any before it, and begins when the one before has ended.
    pub(super) fn roll_period(&mut self, id: LimitId, period: u64, ends_us: u64, effects: &mut Vec<Effect>) {
        let next = Period { number: period, ends_us };
        let Some(wall_us) = self.wall_us() else { return };
        let held = self.wall.is_some_and(|it| self.now_us < it.hold_us);
        let follows = |it: &Limit| {
            it.period.is_none_or(|now| next.number > now.number && now.ends_us <= next.begins_us().min(wall_us))
        };
        if let Some(limit) =
            self.limits.get(&id).filter(|it| it.recycled && it.period.is_some_and(|it| it.ends_us > wall_us))
        {
            let limit = limit.clone();
            return self.recycle_period(&limit, ends_us);
        }
        let known = self.limits.get(&id).is_some_and(|it| it.is_calendar() && it.removed_us.is_none() && follows(it));
        let runs = next.begins_us() <= wall_us && next.begins_us() < ends_us && ends_us <= WALL_US_MAX;
        if known && runs && !held {
            let limit = self.limit_mut(id);
            (limit.period, limit.recycled) = (Some(next), false);
            effects.push(Effect::Rolled { limit: id, period });
        }
    }

    /// Empties a pool of an earlier period; None: no period has begun, or nothing of it may be lent.
    pub(super) fn renew_chunks(&self, pool: &mut Pool, limit: &Limit) {
        let Some(period) = limit.period else { return };
        if pool.period == period.number {
            return;
        }
        pool.period = period.number;
        pool.end_reset();
        pool.start_over(limit);
        if self.is_void(limit) {
            pool.burnt = limit.budget();
            pool.free -= pool.burnt;
        }
    }

    /// For how long a bonus lasts unless its giver says so: a window, or what is left of the period.
    pub fn bonus_lasts_us(&self, limit: &Limit) -> u64 {
        match self.period_end_us(limit) {
            Some(end_us) => end_us.saturating_sub(self.now_us).max(1),
            None => limit.window_us(),
        }
    }

    /// When the period ends, on the log clock.
    pub fn period_end_us(&self, limit: &Limit) -> Option<u64> {
        Some(limit.period?.ends_us.saturating_sub(self.wall?.ahead_us))
    }
}

impl Pool {
    /// A period's budget, whole: whatever was lent of it is void, and who asks for some asks still.
    pub(super) fn start_over(&mut self, limit: &Limit) {
        self.holders.retain(|(_, held)| held.demand + held.want > 0);
        for (_, held) in &mut self.holders {
            (held.slots, held.owed) = (0, 0);
        }
        (self.spent, self.burnt, self.excess) = (0, 0, 0);
        self.free = self.budget(limit);
    }

    /// What a batch says of a chunk. Of another period, or from before a reset (`outdated`), it says nothing any more.
    pub(super) fn take_chunks(&mut self, session: SessionId, item: &LeaseItem, outdated: bool) -> Result<(), Wrong> {
        let outdated = outdated && !mutants::is(Mutant::StaleChunk);
        if item.period != self.period || outdated {
            return Ok(());
        }
        let held = self.held_mut(session);
        let less = item.settle.saturating_add(item.chunk_unused);
        let Some(kept) = (held.slots + item.refund).checked_sub(less) else {
            return Err(format!("{less} spent and given back of {} held", held.slots));
        };
        held.slots = kept;
        let Some(spent) = (self.spent + item.settle).checked_sub(item.refund) else {
            return Err(format!("{} refunded of {} spent", item.refund, self.spent));
        };
        self.spent = spent;
        self.come_home(item.chunk_unused);
        Ok(())
    }

    /// A session is over: whatever it had not said to be spent may be, and is never lent again.
    pub(super) fn burn(&mut self, slots: u64) {
        match mutants::is(Mutant::BurntRegranted) {
            true => self.free += slots,
            false => self.burnt += slots,
        }
    }

    /// Lends what is asked for, and asks those for theirs who do not need it. Whether there is more to come.
    pub(super) fn lend_chunks(&mut self, now_us: u64, live: &[usize], given: &mut [Given]) -> bool {
        let wants = |pool: &Self| -> Vec<u64> { live.iter().map(|n| pool.holders[*n].1.want).collect() };
        let wanted = wants(self);
        let before: Vec<u64> = given.iter().map(|it| it.free).collect();
        self.lend_free(live, &wanted, given);
        for ((n, given), before) in live.iter().zip(given.iter()).zip(before) {
            let want = &mut self.holders[*n].1.want;
            *want = want.saturating_sub(given.free - before);
        }
        if self.owed() > 0 {
            self.recall_owed(now_us, live, given);
            // Beyond what those hold who owe nothing there is none before the period ends, which may be a month.
            return live.iter().any(|n| self.holders[*n].1.owed == 0 && self.holders[*n].1.slots > 0);
        }
        let unmet: u64 = wants(self).iter().sum::<u64>() + self.excess;
        let idle = |pool: &Self, n: usize| match pool.holders[n].1.want {
            0 => pool.holders[n].1.slots,
            _ => 0,
        };
        let surplus: u64 = live.iter().map(|n| idle(self, *n)).sum();
        if unmet > 0 && surplus > 0 && now_us >= self.recalled_us + RECALL_EVERY_US {
            self.recalled_us = now_us;
            for (n, given) in live.iter().zip(given) {
                given.keep = (idle(self, *n) > 0).then_some(0);
            }
        }
        unmet > 0 && surplus > 0
    }

    /// What a session may have unspent of this pool that could still come home.
    pub(super) fn may_come_home(&self, but: Option<SessionId>, lasts: impl Fn(&SessionId) -> bool) -> bool {
        if self.owed() > 0 {
            // That comes first.
            return false;
        }
        let others = self.holders.iter().filter(|(id, held)| Some(*id) != but && lasts(id) && held.want == 0);
        others.map(|(_, held)| held.slots).sum::<u64>() > 0
    }

    /// Whether there is nothing of a chunk to remember: the same as a key that was never asked for.
    pub(super) fn is_whole(&self) -> bool {
        self.spent + self.burnt == 0
    }
}

impl Session {
    pub(super) fn note_wall(&mut self, ahead_us: u64) {
        if (1..=WALL_US_MAX).contains(&ahead_us) {
            self.wall_ahead_us = ahead_us;
        }
    }
}
