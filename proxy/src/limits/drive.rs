//! What the control plane does with the limits: it brings the holder, shows it every applied entry, and carries what it
//! says to the leader.

use std::{
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::SystemTime,
};

use quorumgate_model::{
    ledger::{
        Ledger,
        command::{Key, LimitId},
        holder::{Holder, Outgoing},
    },
    resource::LimitMode,
};

use super::{
    Limits,
    admit::{forget, now_us},
    count::Handle,
    plan::Plan,
};

impl Limits {
    /// From here on slots are lent. `holder` is one that was just started.
    pub fn attach(&self, holder: Holder) {
        self.told(holder.ledger());
        *self.holder() = Some(holder);
    }

    /// This node has just started. Until `until_us` (of `boottime_ns`) requests wait for its first session, each no longer than
    /// for a grant.
    pub fn expect_session(&self, until_us: u64) {
        self.expected_until_us.store(until_us, Ordering::Relaxed);
    }

    /// The state machine has gone on to `ledger`.
    pub fn applied(&self, ledger: &Ledger) {
        {
            let mut held = self.holder();
            let Some(holder) = held.as_mut() else { return };
            let now_us = now_us();
            match ledger.effects_since(holder.ledger().version) {
                Some(effects) => holder.applied(ledger, &effects, now_us),
                None => holder.resync(ledger, now_us),
            }
        }
        self.told(ledger);
    }

    fn told(&self, ledger: &Ledger) {
        self.divisor.store(ledger.epoch.divisor, Ordering::Relaxed);
        self.applied.send_if_modified(|version| std::mem::replace(version, ledger.version) != ledger.version);
    }

    /// What to send to the leader now, if anything.
    pub fn poll(&self) -> Option<Outgoing> {
        let signalled = self.take_signals();
        let mut held = self.holder();
        let holder = held.as_mut()?;
        holder.tell_wall(wall_us(), now_us());
        for key in &signalled {
            holder.signal(key);
        }
        holder.poll(now_us())
    }

    fn take_signals(&self) -> Vec<Key> {
        let mut queue = self.signalled.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| queue.try_recv().ok()).take(super::SIGNALS_MAX).collect()
    }

    /// Until a worker has a signal for the holder.
    pub async fn signalled(&self) {
        self.wake.notified().await;
    }

    /// Lets go of some keys that nobody uses. To be called now and then.
    pub fn evict(&self) {
        let now_us = now_us();
        let gone = match self.holder().as_mut() {
            Some(holder) => holder.evict(now_us),
            None => Vec::new(),
        };
        let plans = self.plans.load();
        let by_id = |id: LimitId| plans.values().find(|plan| plan.id == Some(id));
        for lease in gone {
            let Some(plan) = by_id(lease.limit()) else { continue };
            forget(plan, &Handle::Leased(lease));
        }
        plans
            .values()
            .filter(|plan| plan.limit.mode == LimitMode::Local)
            .for_each(|plan| self.evict_local(plan, now_us));
    }

    fn evict_local(&self, plan: &Plan, now_us: u64) {
        plan.keys.handles.pin().retain(|handle, ()| {
            let gone = handle.retire_local(now_us);
            self.local_keys.fetch_sub(usize::from(gone), Ordering::Relaxed);
            !gone
        });
    }

    /// Gives everything back with the next batches, and spends no more.
    pub fn drain(&self) {
        if let Some(holder) = self.holder().as_mut() {
            holder.drain();
        }
    }

    /// Whether nothing of what was lent to this node is left with it, as far as the log was applied here.
    pub fn has_given_back(&self) -> bool {
        self.holder().as_ref().is_none_or(Holder::has_given_back)
    }

    /// An operator drains this node: others are to have what it does not use.
    pub fn set_yielding(&self, yielding: bool) {
        if let Some(holder) = self.holder().as_mut() {
            holder.set_yielding(yielding);
        }
    }

    /// Until when this node may spend, on CLOCK_BOOTTIME; 0 without a session.
    pub fn spends_until_us(&self) -> u64 {
        self.holder().as_ref().map_or(0, Holder::spends_until_us)
    }

    pub(super) fn divisor(&self) -> u64 {
        self.divisor.load(Ordering::Relaxed)
    }

    pub(super) fn holder(&self) -> MutexGuard<'_, Option<Holder>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the families `quorumgate_ratelimit_*` of this node.
    pub fn metrics(&self, region: &str, out: &mut String) {
        super::tally::write(self, region, out);
    }
}

/// Unix time, for what the cluster agrees on of the calendar; a clock before 1970 says nothing.
fn wall_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_micros() as u64)
}
