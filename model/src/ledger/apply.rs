//! One entry of the ledger: time first, then the command, then the keys whose time has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    DUE_MAX, KEYS_MAX, Ledger, Limit, Pool,
    command::{Effect, Key, Kind, LeaseBatch, LeaseItem, LedgerCommand, LimitId, SessionId},
    pool::Wrong,
    time,
};
use crate::{
    invalid::Invalid,
    mutants::{self, Mutant},
};

impl Ledger {
    /// Applies a command that the leader stamped with `at_us` of the log clock. Total: what cannot be done is left
    /// undone, and the effects say so. A failed assertion marks its limit broken and the rest stands.
    pub fn apply(&mut self, at_us: u64, command: &LedgerCommand) -> Arc<[Effect]> {
        let mut effects = self.begin(at_us);
        match command {
            LedgerCommand::DefineLimit(rule) => self.define_limit(rule),
            LedgerCommand::RemoveLimit { name } => self.remove_limit(name),
            LedgerCommand::OpenSession(it) => self.open_session(it, &mut effects),
            LedgerCommand::Batches(batches) => self.take_batches(batches, &mut effects),
            LedgerCommand::ShareEpoch { divisor } => self.share_epoch(*divisor),
            LedgerCommand::RetireNode { node } => self.retire_node(*node),
            LedgerCommand::Restore { reset_budgets, .. } => self.restore(*reset_budgets),
            LedgerCommand::RollPeriod { limit, period, ends_us } => {
                self.roll_period(*limit, *period, *ends_us, &mut effects);
            }
            LedgerCommand::Tick => {}
        }
        self.end(effects)
    }

    /// Every entry begins with this and ends with `end`.
    pub(super) fn begin(&mut self, at_us: u64) -> Vec<Effect> {
        self.version += 1;
        self.now_us = self.now_us.max(at_us);
        self.settle();
        Vec::new()
    }

    pub(super) fn end(&mut self, mut effects: Vec<Effect>) -> Arc<[Effect]> {
        self.purge_limits();
        self.look_at_due(&mut effects);
        let effects: Arc<[Effect]> = effects.into();
        self.recent.push(self.version, effects.clone());
        effects
    }

    /// What the commands after `version` did, in order. None: that is too long ago, or a snapshot lies between; then a
    /// holder compares (`Holder::resync`).
    pub fn effects_since(&self, version: u64) -> Option<Vec<Effect>> {
        self.recent.since(version, self.version)
    }

    fn take_batches(&mut self, batches: &[LeaseBatch], effects: &mut Vec<Effect>) {
        let mut touched = BTreeSet::new();
        for batch in batches {
            self.take_batch(batch, &mut touched, effects);
        }
        self.settle();
        self.keep_calendar();
        for key in touched {
            self.look_at(&key, effects);
        }
    }

    /// I7: a batch is applied once, whichever of its attempts comes first.
    fn take_batch(&mut self, batch: &LeaseBatch, touched: &mut BTreeSet<Key>, effects: &mut Vec<Effect>) {
        let now = self.now_us;
        let fits = |it: &&mut super::Session| {
            let next = batch.seq == it.seq + 1 || mutants::is(Mutant::NoDeduplication);
            it.node == batch.node && it.lasts(now) && next
        };
        let Some(session) = self.sessions.get_mut(&batch.session).filter(fits) else {
            effects.push(Effect::Fenced { session: batch.session, seq: batch.seq });
            return;
        };
        session.seq = batch.seq;
        session.attempt = batch.attempt;
        session.renewed_us = now;
        session.acked = session.acked.max(batch.applied);
        session.note_wall(batch.wall_ahead_us);
        effects.push(Effect::Renewed { session: batch.session, seq: batch.seq, attempt: batch.attempt });
        for item in &batch.items {
            self.take_item(batch.session, batch.seq, item, effects);
            touched.insert(item.key.clone());
        }
    }

    fn take_item(&mut self, session: SessionId, seq: u64, item: &LeaseItem, effects: &mut Vec<Effect>) {
        let Some(limit) = self.limits.get(&item.key.limit).cloned() else { return };
        if limit.broken.is_some() || !limit.has_slots() && limit.period.is_none() {
            return;
        }
        let asks = item.owed > 0 || item.demand + item.want > 0;
        let known = self.keys.get(&item.key).map(|pool| Pool::clone(pool));
        let mut pool = match known {
            Some(pool) => pool,
            // A key that is not in the ledger has lent nothing that could be given back.
            None if !asks || self.keys.len() >= KEYS_MAX || item.key.who.len() > super::KEY_BYTES_MAX => return,
            None => self.materialise(&item.key, &limit, effects),
        };
        pool.advance(self.now_us, &limit, &self.sessions);
        self.renew_chunks(&mut pool, &limit);
        match self.take_into(&mut pool, session, seq, item, &limit) {
            Ok(()) => self.store(&item.key, pool),
            Err(wrong) => self.break_limit(limit.id, wrong, effects),
        }
    }

    fn take_into(
        &self,
        pool: &mut Pool,
        session: SessionId,
        seq: u64,
        item: &LeaseItem,
        limit: &Limit,
    ) -> Result<(), Wrong> {
        let now = self.now_us;
        let used = item.release_used.iter().fold(0, |sum: u64, it| sum.saturating_add(it.count));
        let back = item.release_free.saturating_add(used);
        let (length_us, acked) = self.sessions.get(&session).map_or((0, 0), |it| (it.length_us, it.acked));
        // Of permits a report says nothing: they come back when exchanges end, and are used again.
        let permits = matches!(limit.rule.kind, Kind::Concurrency { .. });
        let (budget, outdated) = (pool.budget(limit), permits || pool.outdates(acked));
        if limit.is_calendar() {
            pool.take_chunks(session, item, pool.outdates(acked))?;
        }
        let is_of_period =
            !limit.is_calendar() || item.period == pool.period || mutants::is(Mutant::DebtOutlivesPeriod);
        let owes = !pool.outdates(acked) && is_of_period && !mutants::is(Mutant::OwedUnheard);
        let held = pool.held_mut(session);
        let Some(kept) = held.slots.checked_sub(back) else {
            return Err(format!("I4: {back} slots given back of {} held", held.slots));
        };
        held.slots = kept;
        held.reserve = item.reserve.min(kept);
        held.demand = item.demand.min(budget.saturating_mul(1_000));
        held.want = item.want.min(budget);
        // What is owed to another period is owed no more.
        let owed_max = if mutants::is(Mutant::OwedUncapped) { u64::MAX } else { budget };
        held.owed = if owes { item.owed.min(owed_max) } else { 0 };
        if !mutants::is(Mutant::StaleReport) || !item.report.is_empty() {
            held.report = super::Schedule::default();
        }
        held.report_seq = seq;
        for it in item.report.iter().filter(|it| it.in_us >= time::certain_in(length_us) && !outdated) {
            held.report.add(now.saturating_add(it.in_us), it.count.min(kept), limit.window_us());
        }
        if held.report.total() > kept {
            return Err(format!("I5: {} slots reported of {kept} held", held.report.total()));
        }
        pool.come_home(item.release_free);
        for it in &item.release_used {
            pool.recycle(now.saturating_add(it.in_us), it.count, limit);
        }
        if item.owed > 0 || item.demand + item.want > 0 {
            pool.active_us = now;
        }
        Ok(())
    }

    /// I9: a key enters the ledger with every share that may be spent counted as lent, or in quarantine.
    pub(super) fn materialise(&mut self, key: &Key, limit: &Limit, effects: &mut Vec<Effect>) -> Pool {
        let mut pool = Pool { active_us: self.now_us, ..Pool::default() };
        if limit.is_calendar() {
            self.renew_chunks(&mut pool, limit);
            effects.push(Effect::Materialised { key: key.clone(), held: Arc::default() });
            return pool;
        }
        let share = self.share_counted(limit);
        let mut held = Vec::new();
        for seat in self.seats.values().filter(|_| share > 0) {
            let session = self.sessions.get(&seat.session).expect("a session is kept while a seat refers to it");
            if self.has_share(seat.session, limit) {
                held.push((seat.session, share));
                continue;
            }
            let spent_us = if session.lasts(self.now_us) { seat.spent_us } else { session.end_us().max(seat.spent_us) };
            let mine = seat.since_us != u64::MAX || session.lasts(self.now_us);
            if mine && spent_us > 0 && !self.is_past(spent_us, limit) {
                pool.quarantine.add(spent_us + limit.rest_at_us(spent_us), share, limit.window_us());
            }
        }
        held.sort_unstable();
        for (session, slots) in &held {
            pool.held_mut(*session).slots = *slots;
        }
        let out = pool.total();
        if !self.is_past(self.void_us, limit) {
            let left = limit.budget().saturating_sub(out);
            pool.quarantine.add(self.void_us + limit.rest_at_us(self.void_us), left, limit.window_us());
        }
        pool.free = limit.budget().saturating_sub(pool.total());
        pool.excess = pool.total() - limit.budget();
        effects.push(Effect::Materialised { key: key.clone(), held: held.into() });
        pool
    }

    /// Lends what can be lent, and forgets the key if it is idle.
    pub(super) fn look_at(&mut self, key: &Key, effects: &mut Vec<Effect>) {
        let (Some(pool), Some(limit)) = (self.keys.get(key), self.limits.get(&key.limit).cloned()) else { return };
        let mut pool = Pool::clone(pool);
        if limit.broken.is_some() {
            self.due.remove(&(pool.due_us, key.clone()));
            return;
        }
        pool.advance(self.now_us, &limit, &self.sessions);
        self.renew_chunks(&mut pool, &limit);
        if pool.is_idle(self.now_us, &limit) {
            self.forget(key);
            effects.push(Effect::Gone { key: key.clone() });
            return;
        }
        let on_demand = limit.is_on_demand(self.epoch.divisor);
        let (given, hungry) = pool.rebalance(self.now_us, &limit, on_demand, &self.sessions);
        let next = match self.period_end_us(&limit).filter(|end| !hungry && *end > self.now_us && !pool.is_whole()) {
            Some(end_us) => end_us,
            None => pool.next_us(self.now_us, &limit, hungry),
        };
        if let Err(wrong) = pool.check(&limit) {
            self.break_limit(limit.id, wrong, effects);
            return;
        }
        self.due.remove(&(pool.due_us, key.clone()));
        pool.due_us = next;
        self.due.insert((next, key.clone()));
        self.store(key, pool);
        for (session, it) in given {
            if it.free > 0 || !it.dated.is_empty() {
                effects.push(Effect::Granted { session, key: key.clone(), free: it.free, dated: it.dated });
            }
            if let Some(keep) = it.keep {
                effects.push(Effect::Recalled { session, key: key.clone(), keep });
            }
        }
    }

    fn look_at_due(&mut self, effects: &mut Vec<Effect>) {
        let due: Vec<Key> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= self.now_us)
            .take(DUE_MAX)
            .map(|(_, key)| key.clone())
            .collect();
        for key in due {
            self.look_at(&key, effects);
        }
    }

    /// Puts a pool back, and keeps count of the keys of each session.
    pub(super) fn store(&mut self, key: &Key, pool: Pool) {
        let mut counts: BTreeMap<SessionId, bool> = pool.holders.iter().map(|(id, _)| (*id, true)).collect();
        let before = self.keys.get(key).cloned();
        for (id, _) in before.iter().flat_map(|pool| &pool.holders) {
            if counts.remove(id).is_none() {
                counts.insert(*id, false);
            }
        }
        for (id, more) in counts {
            let session = self.session_mut(id);
            session.keys = if more { session.keys + 1 } else { session.keys - 1 };
        }
        self.keys.insert(key.clone(), Arc::new(pool));
    }

    fn forget(&mut self, key: &Key) {
        self.store(key, Pool { due_us: self.keys.get(key).map_or(0, |it| it.due_us), ..Pool::default() });
        if let Some(pool) = self.keys.remove(key) {
            self.due.remove(&(pool.due_us, key.clone()));
        }
    }

    /// As it was read from a snapshot: what follows from it is made anew.
    pub(crate) fn rebuilt(mut self) -> Result<Self, Invalid> {
        self.due = self.keys.iter().map(|(key, pool)| (pool.due_us, key.clone())).collect();
        self.names = self.limits.values().map(|limit| (limit.rule.name.clone(), limit.id)).collect();
        let unknown = |id: &SessionId| Invalid::field("session").found(id).allowed("one that has a record");
        for (id, _) in self.keys.values().flat_map(|pool| &pool.holders) {
            self.sessions.get_mut(id).ok_or_else(|| unknown(id))?.keys += 1;
        }
        if let Some(seat) = self.seats.values().find(|seat| !self.sessions.contains_key(&seat.session)) {
            return Err(unknown(&seat.session));
        }
        Ok(self)
    }

    pub(super) fn keys_of(&self, id: LimitId) -> Vec<Key> {
        self.pools_of(id).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn drop_limit(&mut self, id: LimitId) {
        for key in self.keys_of(id) {
            self.forget(&key);
        }
        self.limits.remove(&id);
    }

    pub(super) fn resize_pools(&mut self, id: LimitId, before: u64, after: u64) {
        let limit = self.limits.get(&id).cloned();
        for key in self.keys_of(id) {
            let mut pool = Pool::clone(&self.keys[&key]);
            pool.resize(before, after);
            if limit.as_ref().is_some_and(|it| self.is_void(it)) {
                // What is more by this edit is not known to be unspent either; a bonus is.
                let made = pool.free.min(after.saturating_sub(before));
                pool.free -= made;
                pool.burnt += made;
            }
            // Soon: holders above their new target are to hear of it.
            self.due.remove(&(pool.due_us, key.clone()));
            pool.due_us = self.now_us;
            self.due.insert((pool.due_us, key.clone()));
            self.store(&key, pool);
        }
    }

    fn break_limit(&mut self, id: LimitId, what: Wrong, effects: &mut Vec<Effect>) {
        self.limit_mut(id).broken = Some(what.clone());
        effects.push(Effect::Broken { limit: id, what });
    }

    /// What is newer than the backup is unknown: every session is over, every key is forgotten, and nothing of what was
    /// defined before is lent until whatever could be in use has rested. The old nodes are stopped by now.
    fn restore(&mut self, reset_budgets: bool) {
        let length_us = self.sessions.values().map(|it| it.length_us).max().unwrap_or(0);
        // Later than the definition of any limit that the backup has, also of one that was defined at that instant.
        self.void_us = time::session_end(self.now_us, length_us) + 1;
        let keys: Vec<Key> = self.keys.keys().cloned().collect();
        for key in keys {
            self.forget(&key);
        }
        self.wall = None;
        self.void_wall_us = if reset_budgets { 0 } else { u64::MAX };
        self.sessions.clear();
        self.seats.clear();
        self.epoch = super::Epoch::default();
    }
}
