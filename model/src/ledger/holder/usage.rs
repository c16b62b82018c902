//! What a node has used of a limit as far as only its holder knows, and how it forgets it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Account, Flight, Holder, small};
use crate::ledger::command::{LimitId, SessionId};

impl Holder {
    /// Slots of the limit's keys that are in use, out of this node, and not yet in the ledger.
    pub fn on_their_way(&self, limit: LimitId) -> BTreeMap<Arc<str>, u64> {
        let under_way = self.flight.iter().flat_map(Flight::released_used);
        under_way.filter(|(key, _)| key.limit == limit).map(|(key, count)| (key.who, count)).collect()
    }

    /// The session, and the number of the batch that is under way in it; 0: none is.
    pub fn flight(&self) -> (SessionId, u64) {
        (self.session().unwrap_or(0), self.flight.as_ref().map_or(0, |it| it.seq))
    }

    /// What was used before the operator's word no longer rests here.
    pub(super) fn reset(&mut self, limit: LimitId, who: Option<&str>, now_us: u64) {
        if self.ledger.limit(limit).is_some_and(|it| it.is_calendar()) {
            return self.start_over(limit, who);
        }
        self.accounts.of_limit_mut(limit, who).for_each(|account| account.forgive(now_us));
    }
}

impl Account {
    fn forgive(&mut self, now_us: u64) {
        // Of what is kept for a time without a quorum nothing rests either: it is put aside anew.
        self.empty_reserve(now_us);
        let before = self.books.iter().flat_map(|it| &it.before).cloned();
        let leases: Vec<_> = before.chain([self.lease.clone()]).collect();
        let used = leases.iter().flat_map(|it| it.release_used(small(self.slots), now_us));
        let count: u64 = used.map(|it| u64::from(it.count)).sum();
        leases.iter().for_each(|it| it.owe_less(u64::MAX));
        self.lease.grant(small(count), now_us);
        self.shrunk = false;
    }
}
