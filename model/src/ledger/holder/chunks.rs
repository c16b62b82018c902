//! A holder's part in limits by the calendar: chunks of a period's budget, prepaid a little ahead of what clients ask.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Account, Ask, Holder, Why, small};
use crate::ledger::{
    Ledger, Limit, Pool,
    calendar::ACTIVE_US,
    command::{Key, LeaseItem, LimitId, Mode},
    lease::PeriodEnd,
};

/// A chunk lasts this long at the pace of the moment, or is this part of the budget: a lost session burns no more.
const AHEAD_US: u64 = 2_000_000;
const BUDGET_PART: u64 = 50_000;
/// And of what is left each node takes at most this part at a time, so that the end is not in one hand.
const LEFT_PART: u64 = 8;

/// What a node prepays of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// What is asked for and no more.
    Nothing,
    AsUsed,
}

/// The period of one limit, as far as the log has told.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub number: u64,
    pub ends: Arc<PeriodEnd>,
}

impl Holder {
    /// What time it is, so that the cluster can agree on it: this machine's Unix time at `now_us` of its clock.
    pub fn tell_wall(&mut self, wall_us: u64, now_us: u64) {
        self.wall_ahead_us = wall_us.checked_sub(now_us);
    }

    /// By how much this machine's Unix time is ahead of the log clock; 0: it was not told.
    pub(super) fn wall_ahead_of_log(&self, now_us: u64) -> u64 {
        let log_us = self.ledger.now_us + now_us.saturating_sub(self.applied_us);
        self.wall_ahead_us.map_or(0, |ahead| (ahead + now_us).saturating_sub(log_us))
    }

    /// Until when periods are spent moves with every renewal and with the cluster's calendar time.
    pub(super) fn keep_periods(&mut self) {
        let wall = self.ledger.wall;
        for (id, seen) in &self.periods {
            let period = self.ledger.limit(*id).and_then(|limit| limit.period);
            let (until_us, ends_us) = match (period, wall, self.synced) {
                (Some(period), Some(wall), Some((sent_us, renewed_us))) if period.number == seen.number => {
                    let log_us = period.ends_us.saturating_sub(wall.ahead_us);
                    let ends_us = self.applied_us + log_us.saturating_sub(self.ledger.now_us);
                    (wall.spends_until_us(&period, sent_us, renewed_us), ends_us)
                }
                _ => (0, 0),
            };
            seen.ends.set(until_us, ends_us);
        }
    }

    /// Nothing of earlier periods may be spent any more.
    pub(super) fn rolled(&mut self, limit: LimitId, number: u64) {
        if let Some(seen) = self.periods.get_mut(&limit) {
            seen.ends.set(0, 0);
            seen.number = number;
        }
        self.start_over(limit, None);
    }

    /// Nothing of what was lent may be spent any more, nor is anything that was said of it believed: of one key, or of all.
    pub(super) fn start_over(&mut self, limit: LimitId, who: Option<&str>) {
        let is_meant = |key: &Key| key.limit == limit && who.is_none_or(|who| *key.who == *who);
        if let Some(flight) = &mut self.flight {
            flight.forget_chunks(is_meant);
        }
        for account in self.accounts.of_limit_mut(limit, who) {
            if account.implicit && account.lease.waiting() > 0 {
                // It was asked for before there was a period to lend of, and nobody signals it again.
                self.outgrown.insert(account.lease.key());
            }
            account.void();
            account.slots = 0;
            if let Some(books) = &mut account.books {
                books.untell();
            }
        }
    }

    /// The same where entries were skipped.
    pub(super) fn roll_skipped(&mut self) {
        let number = |ledger: &Ledger, id| ledger.limit(id).and_then(|it| it.period).map_or(0, |it| it.number);
        let rolled = self.periods.iter().map(|(id, seen)| (*id, seen.number, number(&self.ledger, *id)));
        let rolled: Vec<_> = rolled.filter(|(_, seen, now)| seen != now).collect();
        for (id, _, now) in rolled {
            self.rolled(id, now);
        }
    }

    /// And where a reset was among them that came after `seen`.
    pub(super) fn reset_skipped(&mut self, seen: u64) {
        let is_chunk = |key: &Key| self.accounts.of(key).is_some_and(Account::is_chunk);
        let keys = self.ledger.keys.iter().filter(|(key, pool)| pool.outdates(seen) && is_chunk(key));
        let keys: Vec<Key> = keys.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.start_over(key.limit, Some(&key.who)));
    }

    /// `ours` of the period's chunk is lent to us in the ledger, after the batch that is under way.
    pub(super) fn resync_chunk(&mut self, key: &Key, limit: &Limit, ours: u64, now_us: u64) {
        let number = limit.period.map_or(0, |it| it.number);
        let ours = if self.ledger.pool(key).is_some_and(|pool| pool.period == number) { ours } else { 0 };
        let account = self.account(key, limit, now_us);
        account.implicit = false;
        account.drop_slots(account.slots.saturating_sub(ours), now_us);
        account.add_free(ours.saturating_sub(account.slots), now_us);
        self.lent.insert(key.clone());
    }

    pub(super) fn ask_chunk(&self, pool: &Pool, limit: &Limit, now_us: u64) -> Ask {
        let Some(seen) = self.periods.get(&limit.id) else { return Ask::Wait };
        let between = seen.ends.spends_until_us() <= now_us || pool.period != seen.number;
        let lasts = |id: &_| self.ledger.sessions.get(id).is_some_and(|it| it.lasts(self.ledger.now_us));
        match between || pool.free > 0 || pool.may_come_home(self.session(), lasts) {
            true => Ask::Wait,
            false => Ask::DenyUntil(seen.ends.ends_us().max(now_us + 1)),
        }
    }

    pub(super) fn seen_period(&self, limit: LimitId) -> u64 {
        self.periods.get(&limit).map_or(0, |seen| seen.number)
    }
}

impl Account {
    pub(super) fn is_chunk(&self) -> bool {
        self.lease.ends_us().is_some()
    }

    /// Why to speak of a chunk, having looked at how much of it is left.
    pub(super) fn chunk_why(
        &mut self,
        limit: &Limit,
        pool: &Pool,
        divisor: u64,
        prepays: Ahead,
        draining: bool,
        now_us: u64,
    ) -> Why {
        let free = self.lease.free_count(now_us);
        let pace = self.books().demand.milli().saturating_mul(AHEAD_US / 1_000) / ACTIVE_US;
        let ahead = match limit.rule.mode {
            _ if prepays == Ahead::Nothing => 0,
            Mode::Exact => 0,
            Mode::Leased => pace.max((limit.budget() / BUDGET_PART).min(pace.saturating_mul(5))),
        };
        let ahead = ahead.min(pool.free / (LEFT_PART * divisor.max(1)));
        let (waiting, owed) = (self.lease.waiting(), self.lease.owed());
        let low = ahead.div_ceil(2);
        self.lease.tell(low, pool.free);
        let want = match draining {
            true => 0,
            false if waiting > 0 || free < low => (waiting + ahead).saturating_sub(free),
            false => 0,
        };
        let yields = prepays == Ahead::Nothing && free > 0 && waiting + owed == 0;
        let idle = draining || yields || self.is_idle(limit, now_us);
        let unsaid = self.slots != free && (pool.free == 0 || idle);
        let books = self.books();
        books.want = want;
        if owed > books.told_owed || books.withdrawn > 0 {
            return Why::Urgent;
        }
        if want > 0 && waiting > 0 && want != books.told_want {
            return Why::Urgent;
        }
        match unsaid || idle || owed < books.told_owed || books.keep.is_some() || (want > 0) != (books.told_want > 0) {
            true => Why::Changed,
            false => Why::Renewal,
        }
    }

    /// What was spent is said, and what is not needed given back: it is out of use before this returns (I4).
    pub(super) fn chunk_item(&mut self, give_back: bool, number: u64, now_us: u64, item: &mut LeaseItem) {
        item.period = number;
        if give_back {
            item.chunk_unused = u64::from(self.lease.release_free(small(u64::MAX), now_us));
        }
        let left = self.lease.free_count(now_us);
        let accounted = left + item.chunk_unused;
        item.settle = self.slots.saturating_sub(accounted);
        item.refund = accounted.saturating_sub(self.slots);
        self.slots = left;
    }
}

impl PeriodEnd {
    fn set(&self, until_us: u64, ends_us: u64) {
        self.until_us.store(until_us, Ordering::Release);
        self.ends_us.store(ends_us, Ordering::Relaxed);
    }

    pub fn spends_until_us(&self) -> u64 {
        self.until_us.load(Ordering::Acquire)
    }

    /// When the period ends, as well as this node can tell.
    pub fn ends_us(&self) -> u64 {
        self.ends_us.load(Ordering::Relaxed)
    }
}

impl Default for PeriodEnd {
    fn default() -> Self {
        Self { until_us: AtomicU64::new(0), ends_us: AtomicU64::new(0) }
    }
}
