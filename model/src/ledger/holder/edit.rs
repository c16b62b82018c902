//! A limit's window or hold was edited: a holder's leases go on with the new one, and with what was used under the old.

use std::{collections::BTreeMap, sync::Arc};

use super::{Account, Holder, small};
use crate::ledger::{
    Lease, Limit,
    command::{Key, Kind, LimitId},
};

/// How many earlier windows of a key may have slots in use; of older ones they come back when the session ends.
const BEFORE_MAX: usize = 64;

impl Holder {
    /// Leases whose terms are those of an earlier definition give way to new ones.
    pub(super) fn renew_terms(&mut self, now_us: u64) {
        let edited = |(id, window_us): (LimitId, u64)| {
            let limit = self.ledger.limit(id).filter(|it| it.has_slots() && it.window_us() != window_us)?;
            Some((id, limit.clone()))
        };
        let known = self.terms.iter().map(|(id, terms)| (*id, terms.window_us));
        let edited: BTreeMap<LimitId, Arc<Limit>> = known.filter_map(edited).collect();
        for (id, limit) in edited {
            let terms = self.terms_of(&limit);
            if let Some(flight) = &mut self.flight {
                flight.forget_reserves(id);
            }
            let leases = self.accounts.of_limit_mut(id, None).map(|it| it.lease.clone());
            for old in leases.collect::<Vec<_>>() {
                let fresh = Arc::new(Lease::new(old.who().clone(), terms.clone()));
                let key = Key { limit: id, who: old.who().clone() };
                if let Some(account) = self.accounts.of_mut(&key) {
                    account.empty_reserve(now_us);
                    let books = account.books();
                    books.before.push(old);
                    books.demand = books.demand.over(limit.window_us());
                    books.told_demand = 0;
                    self.accounts.replace(fresh);
                    self.accounts.of_mut(&key).expect("it was just replaced").gather_before(&limit, now_us);
                }
            }
        }
    }
}

impl Account {
    /// What has come free under earlier windows. What rests there rests as long as it had to; where the window is longer now it
    /// rests longer, here. A permit stays where its exchange gives it back.
    pub(super) fn gather_before(&mut self, limit: &Limit, now_us: u64) {
        let Some(books) = &mut self.books else { return };
        let before = std::mem::take(&mut books.before);
        for old in &before {
            old.give_way(&self.lease);
            self.lease.grant(old.release_free(small(u64::MAX), now_us), now_us);
            let longer_us = self.lease.window_us().saturating_sub(old.window_us());
            if longer_us == 0 || matches!(limit.rule.kind, Kind::Concurrency { .. }) {
                continue;
            }
            let by_us = self.lease.terms().rest.us().saturating_sub(old.terms().rest.us());
            for it in old.release_used(small(u64::MAX), now_us) {
                // It is well within the longer window.
                if !self.lease.grant_at(it.count, it.reusable_at_us + by_us, now_us) {
                    self.slots = self.slots.saturating_sub(u64::from(it.count));
                }
            }
        }
        let books = self.books();
        // A take that began before may still leave its slots there, as long as a worker has it.
        let is_left = |old: &Arc<Lease>| old.is_in_use(now_us) || Arc::strong_count(old) > 1;
        books.before = before.into_iter().filter(is_left).collect();
        let beyond = books.before.len().saturating_sub(BEFORE_MAX);
        books.before.drain(..beyond);
    }

    /// At once out of use, and given back with the next batch.
    pub(super) fn withdraw(&mut self, keep: u64, now_us: u64) {
        let out = self.lease.release_free(small(self.slots.saturating_sub(keep)), now_us);
        self.slots -= u64::from(out);
        self.books().withdrawn += u64::from(out);
    }
}
