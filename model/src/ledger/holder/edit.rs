//! A limit's window or hold was edited, or what it does without a quorum: a holder's leases go on with the new one, and
//! with what was used under the old.

use std::sync::Arc;

use super::{Account, Holder, small};
use crate::{
    ledger::{
        Lease, Limit,
        command::{Key, Kind, LimitId},
        lease::Terms,
    },
    mutants::{self, Mutant},
};

/// How many earlier windows of a key may have slots in use; of older ones they come back when the session ends.
const BEFORE_MAX: usize = 64;

impl Holder {
    /// Leases whose terms are those of an earlier definition give way to new ones.
    pub(super) fn renew_terms(&mut self, now_us: u64) {
        let known: Vec<(LimitId, Arc<Terms>)> = self.terms.iter().map(|(id, terms)| (*id, terms.clone())).collect();
        for (id, known) in known {
            let Some(limit) = self.ledger.limit(id).cloned() else { continue };
            let terms = self.terms_of(&limit);
            let is_unheard = mutants::is(Mutant::OnNoQuorumUnheard) && terms.window_us == known.window_us;
            if Arc::ptr_eq(&terms, &known) || is_unheard {
                continue;
            }
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
                    if mutants::is(Mutant::UsedUnderTheOldFree) {
                        old.retire();
                        fresh.grant(old.release_used(small(u64::MAX), now_us).iter().map(|it| it.count).sum(), now_us);
                    }
                    books.before.push(old);
                    books.demand = books.demand.over(limit.window_us());
                    books.told_demand = 0;
                    self.accounts.replace(fresh);
                    let account = self.accounts.of_mut(&key).expect("it was just replaced");
                    account.gather_before(&limit, now_us);
                    if let Some(books) = &account.books {
                        account.lease.follow(&books.before, now_us);
                    }
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
            old.give_way(&self.lease, limit.budget());
            self.lease.grant(old.release_free(small(u64::MAX), now_us), now_us);
            let longer_us = self.lease.window_us().saturating_sub(old.window_us());
            // What was told as certain is kept to where it was used.
            let is_certain = old.terms().is_certain && !self.lease.terms().is_certain;
            if longer_us == 0 || is_certain || matches!(limit.rule.kind, Kind::Concurrency { .. }) {
                continue;
            }
            let by_us = match mutants::is(Mutant::MovedAsTheyRest) {
                true => 0,
                false => self.lease.terms().rest.us().saturating_sub(old.terms().rest.us()),
            };
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

    /// Lent for later than the lease's ring reaches: an earlier lease has it until then.
    #[cold]
    pub(super) fn add_beyond(&mut self, count: u32, at_us: u64, now_us: u64) {
        let mut before = self.books.iter().flat_map(|it| &it.before);
        if before.any(|old| old.grant_at(count, at_us, now_us)) {
            return;
        }
        let reaching = self.lease.reaching(at_us.saturating_sub(now_us));
        let _ = reaching.grant_at(count, at_us, now_us);
        self.books().before.push(Arc::new(reaching));
    }

    /// At once out of use, and given back with the next batch.
    pub(super) fn withdraw(&mut self, keep: u64, now_us: u64) {
        let count = small(self.slots.saturating_sub(keep));
        let out = match mutants::is(Mutant::WithdrawnInUse) {
            true => count.min(small(self.lease.free_count(now_us))),
            false => self.lease.release_free(count, now_us),
        };
        self.slots -= u64::from(out);
        self.books().withdrawn += u64::from(out);
    }
}
