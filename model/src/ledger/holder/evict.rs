//! Lets go of accounts that nobody uses, so that a node's memory follows the keys in use and not all there ever were.

use std::sync::Arc;

use super::{Account, Books, Holder, small};
use crate::ledger::{Lease, Limit};

/// How many accounts one call looks at.
pub const LOOKED_AT_MAX: usize = 4_096;

impl Holder {
    /// Looks at some accounts, goes on where the last call ended, and answers the leases that are no more. A key comes
    /// back with whatever a key has that was never used: so nothing of it may be in use, and two windows must have
    /// passed without a request.
    pub fn evict(&mut self, now_us: u64) -> Vec<Arc<Lease>> {
        let next = self.accounts.next(self.looked_at.take().as_ref(), LOOKED_AT_MAX);
        self.looked_at = next.last().cloned().filter(|_| next.len() == LOOKED_AT_MAX);
        let mut gone = Vec::new();
        for key in next {
            let is_chunk = self.accounts.of(&key).is_some_and(Account::is_chunk);
            let is_kept = self.ledger.keys.contains_key(&key) && !is_chunk;
            if is_kept || self.lent.contains(&key) || self.outgrown.contains(&key) {
                continue;
            }
            let limit = self.ledger.limit(key.limit).cloned();
            let Some(account) = self.accounts.of_mut(&key) else { continue };
            if let Some(limit) = &limit {
                account.gather_before(limit, now_us);
            }
            account.note_demand(now_us);
            account.put_books_away();
            if is_chunk && account.lease.free_count(now_us) > 0 {
                // Put back by an exchange that ended long after it had begun.
                self.lent.insert(key);
                continue;
            }
            if account.is_left(limit.as_deref(), now_us) {
                account.lease.retire();
                gone.extend(self.accounts.close(&key));
            }
        }
        if self.looked_at.is_none() {
            self.terms.retain(|limit, _| self.accounts.has_of(*limit));
        }
        gone
    }
}

impl Account {
    /// Of a key that a share suffices for again.
    fn put_books_away(&mut self) {
        let is_calm = |books: &mut Box<Books>| {
            books.demand.milli() == 0 && books.short == 0 && books.reserved == 0 && books.before.is_empty()
        };
        if self.implicit {
            self.books.take_if(is_calm);
        }
    }

    /// Whether nobody uses it; then its bucket is empty for good, and a worker that still has the lease finds it so.
    fn is_left(&mut self, limit: Option<&Limit>, now_us: u64) -> bool {
        let rest_us = limit.map_or(0, Limit::rest_us);
        if self.lease.waiting() > 0 || self.active_us + 2 * rest_us > now_us {
            return false;
        }
        let home = u64::from(self.lease.release_free(small(self.slots), now_us));
        if home < self.slots {
            // Somebody was faster.
            self.lease.grant(small(home), now_us);
            return false;
        }
        self.slots = 0;
        true
    }
}
