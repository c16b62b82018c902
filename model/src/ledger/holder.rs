//! A node's half of the ledger, without clock or network: it learns by applying the log, and says what to send.
//!
//! The driver calls `applied` after each entry, `poll` every `POLL_EVERY_US` and after a signal, sends what `poll` says
//! to the leader, and hands `Lease`s to workers. Time is this process's own CLOCK_BOOTTIME in microseconds throughout.

mod accounts;
mod batch;
mod chunks;
mod edit;
mod evict;
mod reserve;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use accounts::Accounts;
pub use batch::Outgoing;
use batch::{Flight, Why};
use chunks::Seen;

use super::{
    Ledger, Limit, RESERVE_US,
    bucket::{Rest, SLOTS_MAX},
    command::{Boot, Dated, Effect, Key, Kind, LimitId, NoQuorum, OpenSession, SessionId},
    demand::Demand,
    lease::{Hot, Lease, Tenure, Terms},
    time,
};
use crate::{
    NodeId,
    mutants::{self, Mutant},
};

/// How often the driver polls without a signal.
pub const POLL_EVERY_US: u64 = 50_000;
/// How many keys a node may keep accounts of; the idle ones go first.
pub const ACCOUNTS_MAX: usize = 2_000_000;
/// After this long a slot may have been recalled from another node.
const RECALLED_US: u64 = 300_000;
/// How many attempts to open a session are remembered.
const OPENS_MAX: usize = 64;

#[derive(Debug)]
pub struct Holder {
    node: NodeId,
    boot: Boot,
    /// The replica, as of the last entry that was applied, and when that was.
    ledger: Ledger,
    applied_us: u64,
    tenure: Arc<Tenure>,
    /// Until when what is kept for a time without a quorum may be spent.
    reserve_tenure: Arc<Tenure>,
    session: Option<Tenant>,
    /// When each attempt to open a session was sent.
    opens: BTreeMap<u64, u64>,
    length_us: u64,
    /// How many workers take from leases, and from when on they do so each from a part.
    workers: usize,
    hot: Hot,
    accounts: Accounts,
    /// Of each limit, what the leases of its keys have in common.
    terms: BTreeMap<LimitId, Arc<Terms>>,
    /// Keys that are lent to us in the ledger.
    lent: BTreeSet<Key>,
    /// Keys without a lease whose share was too small.
    outgrown: BTreeSet<Key>,
    flight: Option<Flight>,
    sent_us: u64,
    draining: bool,
    /// No more is held than is used: others are to have it.
    yielding: bool,
    last_sent: Option<(u64, u64)>,
    /// Where the last look for idle accounts ended.
    looked_at: Option<Key>,
    /// Until when the period of each calendar limit is spent.
    periods: BTreeMap<LimitId, Seen>,
    /// When the renewal was sent that was applied last, and how the log stamped it.
    synced: Option<(u64, u64)>,
    /// This process's Unix time less its clock, if it was told.
    wall_ahead_us: Option<u64>,
}

#[derive(Debug)]
struct Tenant {
    id: SessionId,
    length_us: u64,
    /// The last batch that was applied.
    seq: u64,
}

/// One key here.
#[derive(Debug)]
struct Account {
    lease: Arc<Lease>,
    /// Once it is spoken of to the ledger.
    books: Option<Box<Books>>,
    /// What the buckets hold, free and resting.
    slots: u64,
    /// Whether `slots` is a share that goes without saying.
    implicit: bool,
    /// Resting slots were dropped when the share shrank: what is given back for them has to rest first.
    shrunk: bool,
    /// When its demand was read last, and when there was some.
    noted_us: u64,
    active_us: u64,
}

/// What is known of a key that the ledger hears of.
#[derive(Debug)]
struct Books {
    /// How many slots are put aside for a time without a quorum.
    reserved: u64,
    demand: Demand,
    /// Refused since it was last told.
    short: u64,
    keep: Option<u64>,
    /// How many of the slots a lowered budget has too many.
    surplus: u64,
    /// What is free and others ask for, and when some of that was given last.
    spare: u64,
    gave_us: u64,
    told_demand: u64,
    told_want: u64,
    /// Of a chunk: what is to be prepaid next.
    want: u64,
    told_owed: u64,
    /// Out of use, and given back with the next batch.
    withdrawn: u64,
    /// Of a window before the limit was edited: what is in use there comes to the lease as it comes free.
    before: Vec<Arc<Lease>>,
}

/// What to do with an exchange that found too few slots of a limit without shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// There may be some: `Lease::wait`, signal, try again when woken.
    Wait,
    /// There are none before this instant of the local clock.
    DenyUntil(u64),
}

impl Holder {
    /// A process that has just started, with the replica that it read from its disk.
    pub fn start(node: NodeId, boot: Boot, length_us: u64, ledger: &Ledger, now_us: u64) -> Self {
        let mut holder = Self {
            node,
            boot,
            ledger: ledger.clone(),
            applied_us: now_us,
            tenure: Arc::default(),
            reserve_tenure: Arc::default(),
            session: None,
            opens: BTreeMap::new(),
            length_us,
            workers: 1,
            hot: Hot::default(),
            accounts: Accounts::default(),
            terms: BTreeMap::new(),
            lent: BTreeSet::new(),
            outgrown: BTreeSet::new(),
            flight: None,
            sent_us: 0,
            draining: false,
            yielding: false,
            last_sent: None,
            looked_at: None,
            periods: BTreeMap::new(),
            synced: None,
            wall_ahead_us: None,
        };
        if mutants::is(Mutant::StaleLedgerAfterRestart) {
            holder.take_over_stale(now_us);
        }
        holder
    }

    /// So many workers take from leases: those of hot keys are split.
    pub fn for_workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Which keys are hot.
    pub fn hot_from(self, hot: Hot) -> Self {
        Self { hot, ..self }
    }

    pub fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|it| it.id)
    }

    pub fn spends_until_us(&self) -> u64 {
        self.tenure.spends_until_us()
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The handle that workers take from. None: the limit is unknown, broken, or there are too many keys.
    pub fn lease(&mut self, key: &Key, now_us: u64) -> Option<Arc<Lease>> {
        if let Some(account) = self.accounts.of(key) {
            return Some(account.lease.clone());
        }
        let limit = self.ledger.limit(key.limit).filter(|it| it.broken.is_none() && it.removed_us.is_none())?.clone();
        if !limit.has_slots() && !limit.is_calendar() || self.accounts.len() >= ACCOUNTS_MAX {
            return None;
        }
        let account = self.account(key, &limit, now_us);
        let lease = account.lease.clone();
        if limit.is_calendar() {
            self.keep_periods();
        }
        if !self.ledger.keys.contains_key(key) {
            self.fit_share(key, &limit, now_us);
        }
        Some(lease)
    }

    /// The handle of a key that is known already.
    pub fn known(&self, key: &Key) -> Option<&Arc<Lease>> {
        self.accounts.of(key).map(|account| &account.lease)
    }

    /// A take of this key was refused, or its slots run low: `poll` soon.
    pub fn signal(&mut self, key: &Key) {
        let account = self.accounts.of(key);
        if let Some(account) = account {
            account.lease.signal_seen();
        }
        match account {
            Some(account) if account.implicit => drop(self.outgrown.insert(key.clone())),
            // It was idle for a while.
            Some(account) if account.is_chunk() => drop(self.lent.insert(key.clone())),
            _ => {}
        }
    }

    /// What an exchange does that found too few slots of a limit whose slots are lent one by one, or none at all where
    /// this node has no share yet; None for others.
    pub fn ask(&self, key: &Key, now_us: u64) -> Option<Ask> {
        let limit = self.ledger.limit(key.limit)?;
        let on_demand = limit.is_on_demand(self.ledger.epoch.divisor);
        if !on_demand && self.accounts.of(key).is_some_and(|it| it.slots > 0) {
            return None;
        }
        let Some(pool) = self.ledger.pool(key) else { return Some(Ask::Wait) };
        if limit.is_calendar() {
            return Some(self.ask_chunk(pool, limit, now_us));
        }
        let log_us = self.ledger.now_us + now_us.saturating_sub(self.applied_us);
        let home = [pool.recycling.first_us(), pool.quarantine.first_us()].into_iter().flatten().min();
        let mut others = pool.holders.iter().filter(|(session, _)| !self.is_mine(*session));
        let somebody = others.any(|(_, held)| held.slots > 0) || mutants::is(Mutant::NobodyRecalledFrom);
        let may_be_recalled = !on_demand && (home.is_none() || somebody);
        Some(match home {
            _ if pool.free > 0 => Ask::Wait,
            Some(at) if at <= log_us => Ask::Wait,
            // Others may have to give some up.
            _ if may_be_recalled => Ask::DenyUntil(now_us + RECALLED_US),
            Some(at) => Ask::DenyUntil(now_us + (at - log_us)),
            None => Ask::DenyUntil(now_us + time::rested(limit.window_us())),
        })
    }

    /// Gives everything back with the next batches, and spends no more.
    pub fn drain(&mut self) {
        self.draining = true;
        self.tenure.end();
        self.reserve_tenure.end();
    }

    /// Whether the ledger has nothing of this node's any more, and no batch of it is under way.
    pub fn has_given_back(&self) -> bool {
        let Some(tenant) = &self.session else { return true };
        let holds = |key: &Key| {
            let mut holders = self.ledger.pool(key).into_iter().flat_map(|pool| &pool.holders);
            holders.any(|(session, held)| *session == tenant.id && held.slots > 0)
        };
        self.flight.is_none() && !self.lent.iter().any(holds)
    }

    /// Gives back what is free, and asks for no more than is used here, until told otherwise.
    pub fn set_yielding(&mut self, yielding: bool) {
        self.yielding = yielding;
    }

    /// One more entry was applied; `ledger` is the replica after it, `effects` what it did.
    pub fn applied(&mut self, ledger: &Ledger, effects: &[Effect], now_us: u64) {
        let shares_changed = ledger.shares_version != self.ledger.shares_version;
        self.ledger = ledger.clone();
        self.applied_us = now_us;
        if shares_changed {
            // First: what is lent from here on is lent under the new terms.
            self.renew_terms(now_us);
        }
        for effect in effects {
            self.learn(effect, now_us);
        }
        self.check_session();
        self.keep_periods();
        if shares_changed {
            let implicit: Vec<Key> = self.accounts.all().filter(|it| it.implicit).map(|it| it.lease.key()).collect();
            for key in implicit {
                if let Some(limit) = self.ledger.limit(key.limit).cloned() {
                    self.fit_share(&key, &limit, now_us);
                }
            }
        }
    }

    /// The replica was replaced by a snapshot, and entries were skipped: what they lent is found by comparison.
    pub fn resync(&mut self, ledger: &Ledger, now_us: u64) {
        let seen = self.ledger.version;
        self.ledger = ledger.clone();
        self.applied_us = now_us;
        self.renew_terms(now_us);
        self.check_session();
        let Some(tenant) = &self.session else { return };
        let (id, session) = (tenant.id, self.ledger.sessions[&tenant.id].clone());
        if session.seq > tenant.seq {
            self.renewed(session.seq, session.attempt, now_us);
        }
        self.roll_skipped();
        self.reset_skipped(seen);
        let under_way: BTreeMap<Key, u64> = self.flight.iter().flat_map(Flight::released).collect();
        let known: BTreeSet<Key> = self.accounts.keys().collect();
        let pools: Vec<(Key, u64)> =
            self.ledger.keys.iter().map(|(key, pool)| (key.clone(), pool.held(id).map_or(0, |it| it.slots))).collect();
        for (key, held) in pools.into_iter().filter(|(key, held)| *held > 0 || known.contains(key)) {
            let Some(limit) = self.ledger.limit(key.limit).cloned() else { continue };
            let withdrawn = self.accounts.of(&key).and_then(|it| it.books.as_ref()).map_or(0, |it| it.withdrawn);
            let coming = under_way.get(&key).copied().unwrap_or(0) + withdrawn;
            if limit.is_calendar() {
                self.resync_chunk(&key, &limit, held.saturating_sub(coming), now_us);
                continue;
            }
            let account = self.account(&key, &limit, now_us);
            let ours = held.saturating_sub(coming);
            account.implicit = false;
            account.drop_slots(account.slots.saturating_sub(ours), now_us);
            account.add_dated(ours.saturating_sub(account.slots), now_us + limit.rest_us(), now_us);
            self.lent.insert(key);
        }
        for key in known {
            if !self.ledger.keys.contains_key(&key) {
                self.go_implicit(&key, now_us);
            }
        }
        self.keep_periods();
    }

    fn learn(&mut self, effect: &Effect, now_us: u64) {
        match effect {
            Effect::Opened { session, node, boot, open } if *node == self.node && *boot == self.boot => {
                self.opened(*session, *open, now_us);
            }
            Effect::Renewed { session, seq, attempt } if self.is_mine(*session) => self.renewed(*seq, *attempt, now_us),
            Effect::Fenced { session, seq } if self.is_mine(*session) && mutants::is(Mutant::DuplicateAckRenews) => {
                if let Some((last, sent_us)) = self.last_sent.filter(|(last, _)| last == seq) {
                    self.last_sent = Some((last, sent_us));
                    self.tenure
                        .extend(sent_us + time::spends_for(self.length_us), sent_us + time::reuses_for(self.length_us));
                }
            }
            Effect::Materialised { key, held } => self.materialised(key, held, now_us),
            Effect::Granted { session, key, free, dated } if self.is_mine(*session) => {
                self.granted(key, *free, dated, now_us);
            }
            Effect::Granted { key, .. } => self.granted_to_another(key),
            Effect::Recalled { session, key, keep } if self.is_mine(*session) => {
                let is_owed = self.ledger.pool(key).is_some_and(|pool| pool.owed() > 0);
                if let Some(account) = self.accounts.of_mut(key) {
                    account.books().keep = Some(*keep);
                    if is_owed {
                        account.withdraw(*keep, now_us);
                    }
                }
            }
            Effect::Rolled { limit, period } => self.rolled(*limit, *period),
            Effect::Gone { key } => self.go_implicit(key, now_us),
            Effect::Reset { limit, who } => self.reset(*limit, who.as_deref(), now_us),
            _ => {}
        }
    }

    fn is_mine(&self, session: SessionId) -> bool {
        self.session.as_ref().is_some_and(|it| it.id == session)
    }

    fn opened(&mut self, id: SessionId, open: u64, now_us: u64) {
        self.lose_session();
        let Some(sent_us) = self.opens.get(&open).copied() else { return };
        self.session = Some(Tenant { id, length_us: self.length_us, seq: 0 });
        self.extend(sent_us, now_us);
        let keys: Vec<Key> = self.accounts.keys().collect();
        for key in keys {
            match self.ledger.keys.contains_key(&key) {
                // Nothing of it is ours yet; what is asked for here has to be told all the same.
                true => drop(self.lent.insert(key)),
                false => self.go_implicit(&key, now_us),
            }
        }
    }

    /// I3: from when the attempt that was applied was sent.
    fn extend(&mut self, sent_us: u64, now_us: u64) {
        self.synced =
            self.session.as_ref().and_then(|it| self.ledger.sessions.get(&it.id)).map(|it| (sent_us, it.renewed_us));
        let length_us = self.session.as_ref().map_or(0, |it| it.length_us);
        let from_us = if mutants::is(Mutant::TtlFromReceipt) { now_us } else { sent_us };
        if !self.draining {
            self.tenure.extend(from_us + time::spends_for(length_us), from_us + time::reuses_for(length_us));
            self.reserve_tenure.extend(from_us + time::spends_for(RESERVE_US), 0);
        }
    }

    fn renewed(&mut self, seq: u64, attempt: u32, now_us: u64) {
        if let Some(tenant) = &mut self.session {
            tenant.seq = tenant.seq.max(seq);
        }
        let Some(flight) = self.flight.take_if(|it| it.seq == seq) else { return };
        if mutants::is(Mutant::ReleaseBeforeRemove) {
            for (key, count) in flight.released() {
                if let Some(account) = self.accounts.of_mut(&key) {
                    account.drop_slots(count, now_us);
                }
            }
        }
        if let Some(sent_us) = flight.sent.get(attempt as usize) {
            self.extend(*sent_us, now_us);
        }
        for (key, count) in flight.reserves() {
            if let Some(account) = self.accounts.of_mut(&key) {
                account.fill_reserve(count, now_us);
            }
        }
    }

    fn check_session(&mut self) {
        let lasts = |id: &SessionId| self.ledger.sessions.get(id).is_some_and(|it| it.lasts(self.ledger.now_us));
        if self.session.as_ref().is_some_and(|it| !lasts(&it.id)) {
            self.lose_session();
        }
    }

    /// Whatever was held is the ledger's to bury.
    fn lose_session(&mut self) {
        if !mutants::is(Mutant::ExpiryIgnored) {
            self.tenure.end();
            self.reserve_tenure.end();
        }
        self.session = None;
        self.flight = None;
        self.lent.clear();
        self.outgrown.clear();
        for account in self.accounts.all_mut() {
            if !mutants::is(Mutant::ExpiryIgnored) {
                account.void();
            }
            account.slots = 0;
            account.implicit = false;
            account.shrunk = false;
            if let Some(books) = &mut account.books {
                books.untell();
            }
        }
    }

    /// The account of a key, made if need be: lent, with nothing in it.
    fn account(&mut self, key: &Key, limit: &Limit, now_us: u64) -> &mut Account {
        if self.ledger.keys.contains_key(key) {
            self.lent.insert(key.clone());
        }
        let lease = match self.accounts.of(key) {
            Some(account) => account.lease.clone(),
            None => Arc::new(Lease::new(key.who.clone(), self.terms_of(limit))),
        };
        self.accounts.open(lease, now_us)
    }

    fn terms_of(&mut self, limit: &Limit) -> Arc<Terms> {
        let window_us = limit.window_us();
        let longer = (limit.rule.on_no_quorum == NoQuorum::Reserve).then(|| self.reserve_tenure.clone());
        let number = limit.period.map_or(0, |it| it.number);
        let seen = || Seen { number, ..Seen::default() };
        let ends = limit.is_calendar().then(|| self.periods.entry(limit.id).or_insert_with(seen).ends.clone());
        // Of a shorter window all has rested by then, and a reserve outlasts the session.
        let slides = matches!(limit.rule.kind, Kind::Sliding { .. }) && longer.is_none();
        let fresh = Terms {
            limit: limit.id,
            rest: if ends.is_some() { Rest::spent() } else { Rest::of_window(window_us) },
            window_us,
            tenure: self.tenure.clone(),
            longer,
            ends,
            is_certain: slides && window_us > self.length_us,
            parts: if slides { self.workers } else { 1 },
            hot: self.hot,
        };
        let known = self.terms.get(&limit.id).filter(|known| known.is_like(&fresh));
        let terms = known.cloned().unwrap_or_else(|| Arc::new(fresh));
        self.terms.insert(limit.id, terms.clone());
        terms
    }

    /// The key is not in the ledger: a share goes without saying.
    fn go_implicit(&mut self, key: &Key, now_us: u64) {
        self.lent.remove(key);
        let Some(account) = self.accounts.of_mut(key) else { return };
        account.implicit = true;
        if let Some(books) = &mut account.books {
            books.untell();
        }
        if let Some(limit) = self.ledger.limit(key.limit).cloned() {
            self.fit_share(key, &limit, now_us);
        }
    }

    /// Makes a share that goes without saying as large as the replica says.
    fn fit_share(&mut self, key: &Key, limit: &Limit, now_us: u64) {
        // Of a key in the ledger there is what was lent, and nothing else.
        if self.ledger.keys.contains_key(key) {
            return;
        }
        let share = match self.session.as_ref().filter(|_| !self.draining) {
            Some(tenant) => self.ledger.share(tenant.id, limit),
            None => 0,
        };
        let Some(account) = self.accounts.of_mut(key) else { return };
        account.implicit = true;
        if account.slots > share {
            account.drop_slots(account.slots - share, now_us);
            account.shrunk = true;
        } else if account.slots < share {
            account.give_back_share(share, limit, now_us);
        }
    }

    /// From here on the ledger counts what we hold.
    fn materialised(&mut self, key: &Key, held: &[(SessionId, u64)], now_us: u64) {
        let Some(tenant) = &self.session else { return };
        let held = held.iter().find(|(id, _)| *id == tenant.id).map_or(0, |(_, slots)| *slots);
        if held == 0 && !self.accounts.has(key) {
            return;
        }
        let Some(limit) = self.ledger.limit(key.limit).cloned() else { return };
        let account = self.account(key, &limit, now_us);
        account.implicit = false;
        account.active_us = now_us;
        account.drop_slots(account.slots.saturating_sub(held), now_us);
        account.give_back_share(held, &limit, now_us);
        account.shrunk = false;
        self.outgrown.remove(key);
        self.lent.insert(key.clone());
    }

    fn granted(&mut self, key: &Key, free: u64, dated: &[Dated], now_us: u64) {
        let Some(limit) = self.ledger.limit(key.limit).cloned() else { return };
        let on_demand = limit.is_on_demand(self.ledger.epoch.divisor);
        let beside = self.ledger.pool(key).map_or(0, |pool| pool.free);
        let account = self.account(key, &limit, now_us);
        if let Some(books) = &mut account.books {
            books.keep = None;
            books.told_want = books.told_want.saturating_sub(if on_demand { free } else { 0 });
            books.told_owed = books.told_owed.saturating_sub(free);
        }
        if account.is_chunk() || on_demand {
            // Before a client is let in by it: it is told what is left.
            account.lease.tell(account.lease.low(), beside);
        }
        account.add_free(free, now_us);
        for it in dated {
            account.add_dated(it.count, now_us + it.in_us, now_us);
        }
        account.lease.pay(now_us);
    }

    /// Where slots are lent one by one, clients are told what is left in the pool.
    fn granted_to_another(&mut self, key: &Key) {
        let Some(pool) = self.ledger.pool(key) else { return };
        let divisor = self.ledger.epoch.divisor;
        if self.ledger.limit(key.limit).is_some_and(|it| it.is_on_demand(divisor))
            && let Some(account) = self.accounts.of(key)
        {
            account.lease.tell(account.lease.low(), pool.free);
        }
    }

    /// What a restarted process must not do: believe that its predecessor's slots are unused and its own.
    fn take_over_stale(&mut self, now_us: u64) {
        let mine = self.ledger.sessions.iter().filter(|(_, it)| it.node == self.node);
        let Some((id, session)) = mine.max_by_key(|(id, _)| **id).map(|(id, it)| (*id, it.clone())) else { return };
        self.session = Some(Tenant { id, length_us: session.length_us, seq: session.seq });
        self.tenure.extend(now_us + time::spends_for(session.length_us), now_us + time::reuses_for(session.length_us));
        let keys: Vec<(Key, u64)> =
            self.ledger.keys.iter().filter_map(|(key, pool)| Some((key.clone(), pool.held(id)?.slots))).collect();
        for (key, slots) in keys {
            self.granted(&key, slots, &[], now_us);
            self.lent.insert(key);
        }
    }

    fn open(&mut self, now_us: u64) -> OpenSession {
        let open = self.opens.last_key_value().map_or(0, |(open, _)| *open) + 1;
        self.opens.insert(open, now_us);
        while self.opens.len() > OPENS_MAX {
            self.opens.pop_first();
        }
        OpenSession { node: self.node, boot: self.boot, open, length_us: self.length_us }
    }
}

impl Account {
    /// What there is no room for is used up.
    fn add_free(&mut self, count: u64, now_us: u64) {
        self.lease.grant(small(count), now_us);
        self.slots += count;
    }

    /// How many more free slots one key may have on a node.
    fn room(&self, now_us: u64) -> u64 {
        u64::from(SLOTS_MAX).saturating_sub(self.lease.free_count(now_us))
    }

    fn add_dated(&mut self, count: u64, at_us: u64, now_us: u64) {
        if count == 0 {
            return;
        }
        // Lent before the window was edited, which this node heard of at the same time.
        if !self.lease.grant_at(small(count), at_us, now_us) {
            if mutants::is(Mutant::BeyondReachLost) {
                return;
            }
            self.add_beyond(small(count), at_us, now_us);
        }
        self.slots += count;
    }

    /// Up to `share` again: what was dropped in use has to rest.
    fn give_back_share(&mut self, share: u64, limit: &Limit, now_us: u64) {
        let more = share.saturating_sub(self.slots);
        match self.shrunk {
            true => self.add_dated(more, now_us + limit.rest_us(), now_us),
            false => self.add_free(more, now_us),
        }
    }

    /// Out of use for good, free ones first.
    fn drop_slots(&mut self, count: u64, now_us: u64) {
        if count > 0 {
            self.empty_reserve(now_us);
            for old in self.books.iter().flat_map(|it| &it.before) {
                self.lease.grant(old.release_free(small(u64::MAX), now_us), now_us);
            }
        }
        let free = u64::from(self.lease.release_free(small(count), now_us));
        let used = self.lease.release_used(small(count - free), now_us);
        let mut gone = free + used.iter().map(|it| u64::from(it.count)).sum::<u64>();
        for old in self.books.iter().flat_map(|it| &it.before) {
            let used = old.release_used(small(count - gone), now_us);
            gone += used.iter().map(|it| u64::from(it.count)).sum::<u64>();
        }
        self.slots -= gone;
    }
}

/// Budgets are at most `SLOTS_MAX`.
fn small(count: u64) -> u32 {
    count.min(u64::from(SLOTS_MAX)) as u32
}
