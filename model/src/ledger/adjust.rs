//! What an operator gives or forgives: a bonus on top of one key's budget for a while, and a reset of what was used.
//!
//! Both keep I1: a bonus is slots that are made now and destroyed as they come home once it ends, as if the budget had
//! been raised and lowered; a reset makes no slots at all. It lets those rest no longer that were used before it, so a
//! window that begins after it holds at most the budget, and one that lies across it the same once before and once after.

use std::sync::Arc;

use super::{
    Held, KEY_BYTES_MAX, KEYS_MAX, Ledger, Limit, Pool, Schedule,
    bucket::SLOTS_MAX,
    command::{Effect, Key, Kind, LimitId},
};
use crate::mutants::{self, Mutant};

/// How many bonuses of one key may last at a time.
pub const BONUSES_MAX: usize = 16;

/// What was given and forgiven of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Relief {
    /// Slots beyond the budget, by when they end.
    pub bonus: Schedule,
    /// What was used up to here on the log clock no longer rests. 0: nothing was forgiven.
    pub reset_us: u64,
    /// The ledger's version at that command: what a node reports that had not applied it is not true any more.
    pub reset_version: u64,
}

/// Why nothing was given or forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    NoLimit,
    /// The limit is broken until it is edited.
    Broken,
    /// What is in use comes back when it ends, not by decree.
    InFlight,
    /// The kind of limit has no slots.
    NoSlots,
    /// No period of the calendar has begun yet.
    NoPeriod,
    KeyTooLong,
    TooManyKeys,
    TooManyBonuses,
    /// More than a key may hold.
    TooMuch,
}

impl Ledger {
    /// `amount` more of the key than the limit says, for `lasts_us` from now on.
    pub fn grant_bonus(&mut self, at_us: u64, key: &Key, amount: u64, lasts_us: u64) -> Result<(), Refused> {
        let limit = self.adjustable(key.limit)?;
        let known = self.keys.get(key).map(|pool| Pool::clone(pool));
        if key.who.len() > KEY_BYTES_MAX {
            return Err(Refused::KeyTooLong);
        }
        if known.is_none() && self.keys.len() >= KEYS_MAX {
            return Err(Refused::TooManyKeys);
        }
        let before = known.as_ref();
        if before.is_some_and(|it| it.relief.as_ref().is_some_and(|it| it.bonus.entries().len() >= BONUSES_MAX)) {
            return Err(Refused::TooManyBonuses);
        }
        let most = before.map_or(limit.budget(), |it| it.total().max(it.budget(&limit)));
        if amount.saturating_add(most) > u64::from(SLOTS_MAX) {
            return Err(Refused::TooMuch);
        }
        let mut effects = self.begin(at_us);
        let mut pool = match known {
            Some(pool) => pool,
            None => self.materialise(key, &limit, &mut effects),
        };
        pool.advance(self.now_us, &limit, &self.sessions);
        self.renew_chunks(&mut pool, &limit);
        let budget = pool.budget(&limit);
        pool.resize(budget, budget + amount);
        pool.relief_mut().bonus.push(self.now_us.saturating_add(lasts_us), amount);
        pool.active_us = self.now_us;
        self.store(key, pool);
        self.look_at(key, &mut effects);
        self.end(effects);
        Ok(())
    }

    /// What was used of the key, or of every key of the limit, counts no more.
    pub fn reset_usage(&mut self, at_us: u64, id: LimitId, who: Option<&Arc<str>>) -> Result<(), Refused> {
        let limit = self.adjustable(id)?;
        if matches!(limit.rule.kind, Kind::Concurrency { .. }) {
            return Err(Refused::InFlight);
        }
        let mut effects = self.begin(at_us);
        // Before the grants that follow from it: a holder learns in this order.
        effects.push(Effect::Reset { limit: id, who: who.cloned() });
        let keys = match who {
            Some(who) => vec![Key { limit: id, who: who.clone() }],
            None => self.keys_of(id),
        };
        let is_void = self.is_void(&limit);
        if who.is_none() && limit.is_calendar() {
            // Also of keys that are not in the ledger.
            self.limit_mut(id).forgiven_period = limit.period.map_or(0, |it| it.number);
        }
        for key in keys {
            let room = self.keys.len() < KEYS_MAX && key.who.len() <= KEY_BYTES_MAX;
            let mut pool = match self.keys.get(&key) {
                Some(pool) => Pool::clone(pool),
                // It would enter the ledger spent.
                None if is_void && room => self.materialise(&key, &limit, &mut effects),
                None => continue,
            };
            pool.advance(self.now_us, &limit, &self.sessions);
            self.renew_chunks(&mut pool, &limit);
            pool.forgive(self.now_us, self.version, &limit);
            self.store(&key, pool);
            self.look_at(&key, &mut effects);
        }
        self.end(effects);
        Ok(())
    }

    fn adjustable(&self, id: LimitId) -> Result<Arc<Limit>, Refused> {
        let limit = self.limit(id).filter(|it| it.removed_us.is_none()).ok_or(Refused::NoLimit)?;
        match limit.broken {
            Some(_) => Err(Refused::Broken),
            None if !limit.has_slots() && !limit.is_calendar() => Err(Refused::NoSlots),
            None if limit.is_calendar() && limit.period.is_none() => Err(Refused::NoPeriod),
            None => Ok(limit.clone()),
        }
    }
}

impl Pool {
    /// What may be out at a time, but for what is beyond a budget that was lowered.
    pub fn budget(&self, limit: &Limit) -> u64 {
        limit.budget() + self.bonus()
    }

    pub fn bonus(&self) -> u64 {
        self.relief.as_ref().map_or(0, |it| it.bonus.total())
    }

    fn relief_mut(&mut self) -> &mut Relief {
        self.relief.get_or_insert_default()
    }

    /// Bonuses whose time is over, and a reset before which nothing is in use any more.
    pub(super) fn end_relief(&mut self, now_us: u64, limit: &Limit) {
        let budget = self.budget(limit);
        let Some(relief) = &mut self.relief else { return };
        let over = relief.bonus.take_due(now_us);
        // Of a calendar limit it counts until the period ends, for whoever hears of it late.
        let past =
            relief.reset_us == 0 || !limit.is_calendar() && relief.reset_us.saturating_add(limit.rest_us()) <= now_us;
        if relief.bonus.is_empty() && past {
            self.relief = None;
        }
        if over > 0 {
            self.resize(budget, budget - over);
        }
    }

    /// When the next bonus ends, on the log clock.
    pub fn bonus_ends_us(&self) -> Option<u64> {
        self.relief.as_ref()?.bonus.first_us()
    }

    fn forgive(&mut self, now_us: u64, version: u64, limit: &Limit) {
        if limit.is_calendar() {
            self.start_over(limit);
        }
        let rested_us = now_us.saturating_add(limit.rest_us());
        // Under a longer window than now what was used before may rest for longer than that.
        let all_us = if limit.rests.is_empty() { rested_us } else { u64::MAX };
        let home = self.recycling.take_due(all_us) + self.quarantine.take_due(rested_us);
        self.destroyed.take_due(all_us);
        self.come_home(home);
        for (_, held) in &mut self.holders {
            held.report = Schedule::default();
            held.owed = if mutants::is(Mutant::ResetKeepsDebt) { held.owed } else { 0 };
        }
        let relief = self.relief_mut();
        (relief.reset_us, relief.reset_version) = (now_us, version);
    }

    /// A new period: what was forgiven of the one before is past.
    pub(super) fn end_reset(&mut self) {
        if let Some(relief) = &mut self.relief {
            (relief.reset_us, relief.reset_version) = (0, 0);
        }
        self.relief.take_if(|it| it.bonus.is_empty());
    }

    /// Whether what has rested at that instant was used before the last reset, whichever window its node had heard of.
    pub(super) fn is_forgiven(&self, rested_us: u64, limit: &Limit) -> bool {
        let reset_us = self.relief.as_ref().map_or(0, |it| it.reset_us);
        let rest_us = match mutants::is(Mutant::ForgivenByLongerWindow) {
            true => limit.rest_longest_us(),
            false => limit.rest_shortest_since_us(reset_us),
        };
        reset_us > 0 && rested_us <= reset_us.saturating_add(rest_us)
    }

    /// Whether a report of a session that had applied up to `acked` says nothing about uses since the last reset.
    pub(super) fn outdates(&self, acked: u64) -> bool {
        self.relief.as_ref().is_some_and(|it| acked < it.reset_version)
    }
}

impl Held {
    /// Slots that are known to rest until later than the session lasts.
    pub fn reported(&self) -> u64 {
        self.report.total()
    }
}

#[cfg(test)]
mod tests;
