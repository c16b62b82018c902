//! What a holder sends, and when: at most one batch is under way, sent again until the log shows it.

use std::cmp::Reverse;

use super::{Account, Holder, chunks::Ahead, small};
use crate::{
    ledger::{
        Limit,
        command::{Dated, Key, Kind, LeaseBatch, LeaseItem, LimitId, OpenSession},
    },
    mutants::{self, Mutant},
};

/// Of how many keys a batch speaks.
pub const ITEMS_MAX: usize = 1_024;
/// How long an answer is waited for.
const RETRY_US: u64 = 700_000;
/// An urgent batch follows the last one no sooner than this, another no sooner than that.
const URGENT_US: u64 = 20_000;
const CHANGED_US: u64 = 100_000;
/// Demand is told again when it has moved by this part of itself.
const DEMAND_MOVED: u64 = 8;

/// A share is low when less than this part of it is free.
const LOW_PART: u64 = 4;
/// What lies idle is given to those who ask for more than they have no more often than this.
const GIVE_EVERY_US: u64 = 300_000;
/// But for what clients here will ask for within this part of the window, and no longer than that.
const KEPT_OF_WINDOW: u64 = 50;
const KEPT_US_MAX: u64 = 2_000_000;

/// For the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    Open(OpenSession),
    Batch(LeaseBatch),
}

/// The batch that is under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub seq: u64,
    /// When each attempt was sent.
    pub sent: Vec<u64>,
    items: Vec<LeaseItem>,
}

/// Why a key is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Renewal,
    Changed,
    Urgent,
}

impl Flight {
    /// What is out of the node and not yet in the ledger.
    pub fn released(&self) -> impl Iterator<Item = (Key, u64)> + '_ {
        let chunk = |item: &LeaseItem| (item.settle + item.chunk_unused).saturating_sub(item.refund);
        self.items.iter().map(move |item| (item.key.clone(), item.release_free + used(item) + chunk(item)))
    }

    /// Of that, what is in use.
    pub fn released_used(&self) -> impl Iterator<Item = (Key, u64)> + '_ {
        self.items.iter().map(|item| (item.key.clone(), used(item))).filter(|(_, count)| *count > 0)
    }

    /// Attempts from here on are of a node that knows that its chunks are void.
    pub fn forget_chunks(&mut self, of: impl Fn(&Key) -> bool) {
        for item in self.items.iter_mut().filter(|item| of(&item.key)) {
            (item.settle, item.refund, item.chunk_unused) = (0, 0, 0);
        }
    }

    /// What was put aside of the limit's keys is with the others again.
    pub fn forget_reserves(&mut self, limit: LimitId) {
        for item in self.items.iter_mut().filter(|item| item.key.limit == limit) {
            item.reserve = 0;
        }
    }

    /// What of each key the ledger knows to be kept for a time without a quorum, once this is applied.
    pub fn reserves(&self) -> impl Iterator<Item = (Key, u64)> + '_ {
        self.items.iter().filter(|item| item.reserve > 0).map(|item| (item.key.clone(), item.reserve))
    }
}

impl Holder {
    /// What to send now, if anything.
    pub fn poll(&mut self, now_us: u64) -> Option<Outgoing> {
        if self.session.is_none() {
            if self.draining || now_us < self.sent_us + RETRY_US {
                return None;
            }
            self.sent_us = now_us;
            return Some(Outgoing::Open(self.open(now_us)));
        }
        if let Some(flight) = &mut self.flight {
            if now_us < flight.sent.last().copied().unwrap_or(0) + RETRY_US {
                return None;
            }
            flight.sent.push(now_us);
            return self.attempt(now_us);
        }
        let mut spoken = self.observe(now_us);
        let since_us = now_us.saturating_sub(self.sent_us);
        let awaited = if self.is_awaited() { Why::Changed } else { Why::Renewal };
        let most = spoken.iter().map(|(why, _)| *why).max().unwrap_or(Why::Renewal).max(awaited);
        let wait_us = match most {
            Why::Urgent => URGENT_US,
            Why::Changed => CHANGED_US,
            Why::Renewal => self.length_us / 4,
        };
        spoken.sort_by_key(|(why, _)| Reverse(*why));
        let now = if since_us < wait_us { 0 } else { ITEMS_MAX.min(spoken.len()) };
        // What is not said now must be said later: nobody signals it again.
        for (_, key) in spoken.split_off(now) {
            if self.accounts.of(&key).is_some_and(|it| it.implicit) {
                self.outgrown.insert(key);
            }
        }
        if since_us < wait_us {
            return None;
        }
        let items = spoken.into_iter().filter_map(|(_, key)| self.item(&key, now_us)).collect();
        let seq = self.session.as_ref().map_or(0, |it| it.seq) + 1;
        self.flight = Some(Flight { seq, sent: vec![now_us], items });
        self.attempt(now_us)
    }

    /// A change of shares or budgets counts once every session has acknowledged it: better soon than with the renewal.
    fn is_awaited(&self) -> bool {
        let acked = self.session.as_ref().and_then(|it| self.ledger.sessions.get(&it.id)).map_or(0, |it| it.acked);
        let session = self.session.as_ref().and_then(|it| self.ledger.sessions.get(&it.id));
        let no_wall = self.ledger.wall.is_none() && self.wall_ahead_us.is_some();
        if no_wall && session.is_some_and(|it| it.wall_ahead_us == 0) {
            return true;
        }
        let epoch = &self.ledger.epoch;
        epoch.complete_us.is_none() && epoch.divisor > 0 && acked < epoch.version
    }

    /// Reads what clients asked for, and says which keys to speak of.
    fn observe(&mut self, now_us: u64) -> Vec<(Why, Key)> {
        let mut spoken = Vec::new();
        for key in std::mem::take(&mut self.outgrown) {
            let Some(limit) = self.ledger.limit(key.limit).cloned() else { continue };
            self.fit_share(&key, &limit, now_us);
            let Some(account) = self.accounts.of_mut(&key).filter(|it| it.implicit) else { continue };
            account.books();
            account.gather_before(&limit, now_us);
            account.note_demand(now_us);
            let short = account.books().short;
            if short + account.lease.owed() > 0 || account.lease.waiting() > 0 || account.is_low(now_us) {
                let least = (account.slots + short) * 1_000;
                account.books().demand.at_least(least);
                spoken.push((Why::Urgent, key));
            }
        }
        for key in &self.lent {
            let (Some(account), Some(limit)) = (self.accounts.of_mut(key), self.ledger.limit(key.limit)) else {
                continue;
            };
            account.books();
            account.gather_before(limit, now_us);
            account.note_demand(now_us);
            let divisor = self.ledger.epoch.divisor;
            if let Some(pool) = self.ledger.pool(key).filter(|_| limit.is_calendar()) {
                let ahead = if self.draining || self.yielding { Ahead::Nothing } else { Ahead::AsUsed };
                spoken.push((account.chunk_why(limit, pool, divisor, ahead, self.draining, now_us), key.clone()));
                continue;
            }
            let on_demand = limit.is_on_demand(divisor);
            let may_give = !on_demand && account.books().gave_us + GIVE_EVERY_US <= now_us;
            let mine = self.session.as_ref().map(|it| it.id);
            let spare = match may_give && self.ledger.pool(key).is_some_and(|it| it.is_short_beside(mine)) {
                true => account.spare(limit, now_us),
                false => 0,
            };
            account.books().spare = spare;
            let lean = on_demand || self.yielding;
            spoken.push((account.why(limit, on_demand, lean, self.draining, now_us), key.clone()));
        }
        spoken
    }

    /// What to say of one key. What is given back is out of use before this returns (I4).
    fn item(&mut self, key: &Key, now_us: u64) -> Option<LeaseItem> {
        let limit = self.ledger.limit(key.limit)?.clone();
        let on_demand = limit.is_on_demand(self.ledger.epoch.divisor);
        let (draining, number) = (self.draining, self.seen_period(key.limit));
        let (lean, yielding) = (on_demand || self.yielding, self.yielding);
        let (excess, owed) = self.ledger.pool(key).map_or((0, 0), |pool| (pool.excess, pool.owed()));
        let account = self.accounts.of_mut(key)?;
        let mut item = LeaseItem::of(key.clone());
        item.want = account.want(on_demand);
        item.owed = if draining { 0 } else { account.lease.pay(now_us) };
        account.books().told_owed = item.owed;
        let slots = account.slots;
        let books = account.books();
        item.demand = if draining || yielding { 0 } else { books.demand.milli() };
        (books.told_demand, books.told_want, books.short) = (item.demand, item.want, 0);
        if account.implicit {
            return Some(item);
        }
        let books = account.books();
        let keep = books.keep.take().unwrap_or(u64::MAX);
        // What others owe is taken from what rests here as well.
        let asked_back = if keep < u64::MAX { owed } else { 0 };
        books.surplus = if draining { 0 } else { excess.max(asked_back).min(slots) };
        let withdrawn = std::mem::take(&mut books.withdrawn);
        if limit.is_calendar() {
            item.want = books.want;
            books.told_want = item.want;
            // The rest of it is asked for when that has been spent.
            let room = account.room(now_us);
            item.owed = item.owed.min(room);
            item.want = item.want.min(room - item.owed);
            let waits = account.lease.waiting() + item.owed > 0;
            let idle = draining || yielding && !waits || account.is_idle(&limit, now_us);
            account.chunk_item(idle || keep == 0, number, now_us, &mut item);
            item.chunk_unused += withdrawn;
            if idle {
                item.demand = 0;
                account.books().told_demand = 0;
                self.lent.remove(key);
            }
            return Some(item);
        }
        let fewer = account.reserve() < account.reserved();
        let spare = std::mem::take(&mut account.books().spare);
        if draining || lean || fewer || keep < u64::MAX || spare > 0 || account.is_idle(&limit, now_us) {
            account.empty_reserve(now_us);
        }
        match draining || account.is_idle(&limit, now_us) {
            true => {
                item.demand = 0;
                account.release(&limit, 0, 0, true, now_us, &mut item);
            }
            // Used slots go home at once: whoever asks next gets them.
            false if lean => {
                let kept = account.lease.waiting().min(keep);
                // What an answer may give back is looked for where it was taken.
                let used_too = !account.lease.is_unsettled();
                account.release(&limit, kept, 0, used_too, now_us, &mut item);
            }
            false => {
                let kept = keep.min(account.slots.saturating_sub(spare));
                account.release(&limit, 0, kept, false, now_us, &mut item);
                if spare > 0 {
                    account.books().gave_us = now_us;
                }
            }
        }
        item.release_free += withdrawn;
        item.reserve = if draining || lean { 0 } else { account.reserve() };
        Some(item)
    }

    fn attempt(&mut self, now_us: u64) -> Option<Outgoing> {
        self.sent_us = now_us;
        let (flight, tenant) = (self.flight.as_ref()?, self.session.as_ref()?);
        self.last_sent = Some((flight.seq, now_us));
        let mut items = flight.items.clone();
        for item in &mut items {
            // What was given back before is on its way home all the while: at worst it comes late. What is reported
            // must be as of this attempt, since the session is renewed from its sending.
            let stale = mutants::is(Mutant::StaleReport) && !flight.seq.is_multiple_of(4);
            // A permit comes back when its exchange ends, and is used again: what it does now says nothing.
            let permits = self.ledger.limit(item.key.limit).is_some_and(|it| is_permits(it));
            if let Some(account) = self.accounts.of(&item.key).filter(|it| !it.implicit && !stale && !permits) {
                // Those that are put aside once this is applied are not spoken of: they are used again after the session.
                let aside = item.reserve.saturating_sub(account.reserved());
                item.report = account.report(tenant.length_us, aside, now_us);
            }
        }
        Some(Outgoing::Batch(LeaseBatch {
            node: self.node,
            session: tenant.id,
            seq: flight.seq,
            attempt: flight.sent.len() as u32 - 1,
            applied: self.ledger.version,
            items,
            wall_ahead_us: self.wall_ahead_of_log(now_us),
        }))
    }
}

fn used(item: &LeaseItem) -> u64 {
    item.release_used.iter().map(|it| it.count).sum()
}

fn is_permits(limit: &Limit) -> bool {
    matches!(limit.rule.kind, Kind::Concurrency { .. })
}

impl Account {
    pub(super) fn note_demand(&mut self, now_us: u64) {
        let (asked, short) = (u64::from(self.lease.demand()), self.lease.short());
        if short > 0 {
            // From when it was read last: what was asked for was asked for since.
            self.books();
        }
        let past_us = now_us.saturating_sub(std::mem::replace(&mut self.noted_us, now_us)).max(1);
        let (parts, hot) = (self.lease.terms().parts, self.lease.terms().hot);
        let is_hot = asked.saturating_mul(1_000_000) / past_us >= hot.per_s && self.slots >= hot.slots;
        if parts > 1 && is_hot && !self.lease.is_split() {
            self.lease.split(parts);
        }
        if asked > 0 {
            self.active_us = now_us;
        }
        self.lease.pay(now_us);
        if let Some(books) = &mut self.books {
            books.demand.add(asked, now_us);
            books.short += short;
        }
    }

    fn want(&self, on_demand: bool) -> u64 {
        if on_demand { self.lease.waiting() } else { self.books.as_ref().map_or(0, |books| books.short) }
    }

    /// Better asked for more before somebody is refused.
    fn is_low(&self, now_us: u64) -> bool {
        self.lease.free_count(now_us) < self.slots / LOW_PART
    }

    pub(super) fn is_idle(&self, limit: &Limit, now_us: u64) -> bool {
        self.lease.waiting() + self.lease.owed() == 0 && self.active_us + limit.rest_us() <= now_us
    }

    fn why(&mut self, limit: &Limit, on_demand: bool, lean: bool, draining: bool, now_us: u64) -> Why {
        let (want, owed) = (self.want(on_demand), self.lease.owed());
        let books = self.books();
        if owed > books.told_owed || books.withdrawn > 0 {
            return Why::Urgent;
        }
        let moved = lean == on_demand
            && books.demand.milli().abs_diff(books.told_demand) > books.told_demand.max(1_000) / DEMAND_MOVED;
        if want > 0 && (on_demand && want != books.told_want || books.told_want == 0) {
            return Why::Urgent;
        }
        let changed = books.keep.is_some()
            || books.spare > 0
            || moved
            || want == 0 && books.told_want > 0
            || owed < books.told_owed;
        let idle = self.slots > 0 && (draining || self.is_idle(limit, now_us));
        let goes_home = !is_permits(limit) && !self.lease.is_unsettled();
        let spare = lean
            && self.slots > 0
            && (self.lease.free_count(now_us) > want || goes_home && !self.lease.used(now_us).is_empty());
        match changed || idle || spare {
            true => Why::Changed,
            false => Why::Renewal,
        }
    }

    /// What is free here and not needed soon. What rests stays where it was used until it is free: each move makes it rest
    /// longer, by rounding and by its time under way, and by then clients may be back.
    fn spare(&mut self, limit: &Limit, now_us: u64) -> u64 {
        if is_permits(limit) {
            return 0;
        }
        let kept_us = (limit.window_us() / KEPT_OF_WINDOW).min(KEPT_US_MAX);
        let ahead = self.books().demand.milli().saturating_mul(kept_us) / limit.window_us();
        // Two standard deviations more than on average.
        let kept = (ahead + 2 * ahead.saturating_mul(1_000).isqrt()).div_ceil(1_000);
        self.lease.free_count(now_us).saturating_sub(kept)
    }

    /// Gives back what is free beyond `free_kept`, as long as `kept` are left; and of what is in use the rest beyond `kept`
    /// if it is `used_too`, or as far as a lowered budget has too many: what rests helps nobody before it is free.
    fn release(&mut self, limit: &Limit, free_kept: u64, kept: u64, used_too: bool, now_us: u64, item: &mut LeaseItem) {
        let free = self.lease.free_count(now_us);
        let beyond = self.slots.saturating_sub(kept);
        let from_free = beyond.min(free.saturating_sub(free_kept));
        if mutants::is(Mutant::ReleaseBeforeRemove) {
            item.release_free = from_free;
            return;
        }
        item.release_free = u64::from(self.lease.release_free(small(from_free), now_us));
        // A permit in use comes free when its exchange ends, which is sooner than it rests: it goes home from there.
        let from_used = match used_too && !is_permits(limit) {
            true => beyond - item.release_free,
            false => self.books().surplus.min(beyond).saturating_sub(item.release_free),
        };
        let is_kept = is_permits(limit) || mutants::is(Mutant::OldLeasesKept);
        let before = self.books.iter().flat_map(|it| it.before.iter().cloned()).filter(|_| !is_kept);
        let leases: Vec<_> = std::iter::once(self.lease.clone()).chain(before).collect();
        let mut left = from_used;
        for lease in leases {
            for it in lease.release_used(small(left), now_us) {
                let in_us = it.reusable_at_us.saturating_sub(now_us);
                item.release_used.push(Dated { in_us, count: u64::from(it.count) });
                left -= u64::from(it.count);
            }
        }
        self.slots -= item.release_free + item.release_used.iter().map(|it| it.count).sum::<u64>();
    }

    /// Slots in use that rest for so long that they are not used again before the session ends, or is renewed.
    fn report(&self, length_us: u64, aside: u64, now_us: u64) -> Vec<Dated> {
        if self.lease.is_unsettled() {
            return Vec::new();
        }
        // What is told as certain must stay so: from here on nothing of it is undone.
        self.lease.seal(now_us);
        let mut used = self.lease.used(now_us);
        let mut aside = small(aside);
        while let Some(last) = used.last_mut().filter(|_| aside > 0) {
            let part = aside.min(last.count);
            (aside, last.count) = (aside - part, last.count - part);
            if last.count == 0 {
                used.pop();
            }
        }
        let dated =
            used.iter().map(|it| Dated { in_us: it.reusable_at_us.saturating_sub(now_us), count: u64::from(it.count) });
        dated.filter(|it| it.in_us >= self.lease.certain_in_us(length_us)).collect()
    }
}
