//! Sessions, and the seats that standing shares belong to.

use super::{
    Ledger, Limit,
    command::{Boot, Effect, OpenSession, SessionId},
    time,
};
use crate::{
    NodeId,
    mutants::{self, Mutant},
};

/// A node's right to hold leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub node: NodeId,
    pub boot: Boot,
    pub open: u64,
    pub length_us: u64,
    /// The stamp of the last renewal.
    pub renewed_us: u64,
    /// The last batch that was applied, and which attempt of it.
    pub seq: u64,
    pub attempt: u32,
    /// The ledger's version that the node had applied at its last renewal.
    pub acked: u64,
    /// A later session of the node has taken over, or the node was retired: no batch is taken, but it may spend until
    /// its end.
    pub fenced: bool,
    /// The node's Unix time less the log clock, as it last said it; 0: it never did.
    pub wall_ahead_us: u64,
    /// Keys that it holds something of.
    pub keys: u64,
}

impl Session {
    pub fn end_us(&self) -> u64 {
        time::session_end(self.renewed_us, self.length_us)
    }

    /// Whether batches are taken and slots are lent.
    pub fn lasts(&self, now_us: u64) -> bool {
        !self.fenced && now_us < self.end_us()
    }
}

/// A node's place in the divisor. It is kept across restarts, so that a restarted node need not change the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub session: SessionId,
    /// A share of a limit goes with the seat from a rest after this on. `u64::MAX`: the epoch has to complete first.
    pub since_us: u64,
    /// Earlier sessions may have spent a share until then; 0: there was none.
    pub spent_us: u64,
    pub retired: bool,
}

/// Into how many shares 0.9 · B is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epoch {
    pub version: u64,
    pub divisor: u64,
    /// What it was before: counted until a rest after `complete_us`.
    pub before: u64,
    /// Since when every session has acknowledged it.
    pub complete_us: Option<u64>,
}

impl Ledger {
    pub(super) fn open_session(&mut self, it: &OpenSession, effects: &mut Vec<Effect>) {
        let earlier = || self.sessions.values().filter(|session| session.node == it.node);
        // A late copy of an attempt to open must not shut out a later one of the same process.
        if earlier().any(|session| session.boot == it.boot && session.open >= it.open) {
            return;
        }
        if self.seats.get(&it.node).is_some_and(|seat| seat.retired) || self.sessions.len() >= super::SESSIONS_MAX {
            return;
        }
        let spent_us = earlier().map(Session::end_us).max().unwrap_or(0);
        let fenced: Vec<_> = self.sessions.iter().filter(|(_, it2)| it2.node == it.node).map(|(id, _)| *id).collect();
        for id in fenced {
            self.session_mut(id).fenced = true;
        }
        let id = self.version;
        let session = Session {
            node: it.node,
            boot: it.boot,
            open: it.open,
            length_us: it.length_us,
            renewed_us: self.now_us,
            seq: 0,
            attempt: 0,
            // Its holder has applied all up to here when it learns of it.
            acked: self.version,
            fenced: false,
            wall_ahead_us: 0,
            keys: 0,
        };
        self.sessions.insert(id, session);
        self.seat(it.node, id, spent_us);
        effects.push(Effect::Opened { session: id, node: it.node, boot: it.boot, open: it.open });
    }

    /// Gives the session its node's seat, or a vacant one, or none.
    fn seat(&mut self, node: NodeId, session: SessionId, spent_us: u64) {
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.session = session;
            if !mutants::is(Mutant::RestartedKeepsShare) {
                seat.since_us = seat.since_us.max(spent_us);
                seat.spent_us = seat.spent_us.max(spent_us);
            }
        } else if (self.seats.len() as u64) < self.epoch.divisor {
            let since_us = self.epoch.complete_us.unwrap_or(u64::MAX);
            self.seats.insert(node, Seat { session, since_us, spent_us: 0, retired: false });
        }
    }

    /// One change at a time: refused, without a trace, until the one before has come to rest for every limit.
    pub(super) fn share_epoch(&mut self, divisor: u64) {
        let rested = |at: u64| at.saturating_add(self.rest_us_max()) <= self.now_us;
        let settled = self.epoch.before == 0 || self.epoch.complete_us.is_some_and(rested);
        if divisor == self.epoch.divisor || !settled || (self.seats.len() as u64) > divisor {
            return;
        }
        // Larger shares are safe at once: every seat that is gone was spent from a rest ago at the latest.
        let (before, complete_us) = match divisor > self.epoch.divisor {
            true if self.epoch.divisor == 0 => (0, Some(self.now_us)),
            true => (self.epoch.divisor, None),
            false => (divisor, Some(self.now_us)),
        };
        self.epoch = Epoch { version: self.version, divisor, before, complete_us };
        self.shares_version = self.version;
        let seatless = self.sessions.iter().filter(|(_, it)| it.lasts(self.now_us));
        let seatless: Vec<_> = seatless.map(|(id, it)| (it.node, *id)).collect();
        for (node, id) in seatless {
            if !self.seats.contains_key(&node) {
                self.seat(node, id, 0);
            }
        }
        assert!(self.seats.len() as u64 <= divisor, "I9: more seats than shares");
    }

    pub(super) fn retire_node(&mut self, node: NodeId) {
        let ids: Vec<_> = self.sessions.iter().filter(|(_, it)| it.node == node).map(|(id, _)| *id).collect();
        for id in ids {
            self.session_mut(id).fenced = true;
        }
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.retired = true;
        }
    }

    /// What follows from time and acknowledgements alone.
    pub(super) fn settle(&mut self) {
        self.settle_barriers();
        self.vacate_seats();
        let (now, seats) = (self.now_us, &self.seats);
        let over = self.sessions.iter().filter(|(id, it)| {
            it.end_us() <= now && it.keys == 0 && seats.get(&it.node).is_none_or(|seat| seat.session != **id)
        });
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.sessions.remove(&id);
        }
    }

    fn settle_barriers(&mut self) {
        let open = self.epoch.complete_us.is_none() && self.epoch.divisor > 0;
        let lowered = |limit: &Limit| limit.lowered.is_some_and(|it| it.complete_us.is_none());
        let limits: Vec<_> = self.limits.values().filter(|limit| lowered(limit)).map(|limit| limit.id).collect();
        if !open && limits.is_empty() {
            return;
        }
        // A session that is over by now ended before now.
        let spending = self.sessions.values().filter(|it| self.now_us < it.end_us());
        let acked = spending.map(|it| it.acked).min().unwrap_or(u64::MAX);
        if open && (acked >= self.epoch.version || mutants::is(Mutant::EpochWithoutAck)) {
            self.epoch.complete_us = Some(self.now_us);
            let waiting: Vec<_> = self.seats.iter().filter(|(_, it)| it.since_us == u64::MAX).map(|it| *it.0).collect();
            for node in waiting {
                self.seats.get_mut(&node).expect("it was just listed").since_us = self.now_us;
            }
        }
        for id in limits {
            let now = self.now_us;
            let lowered = self.limit_mut(id).lowered.as_mut().expect("it was just listed");
            if acked >= lowered.version {
                lowered.complete_us = Some(now);
            }
        }
    }

    fn vacate_seats(&mut self) {
        let retired: Vec<_> = self.seats.iter().filter(|(_, it)| it.retired).map(|(node, _)| *node).collect();
        for node in retired {
            let seat = &self.seats[&node];
            let end_us = self.sessions.get(&seat.session).map_or(0, Session::end_us).max(seat.spent_us);
            if end_us + self.rest_us_max() <= self.now_us {
                self.seats.remove(&node);
            }
        }
    }

    /// The longest rest of any limit.
    pub fn rest_us_max(&self) -> u64 {
        self.limits.values().map(|limit| limit.rest_longest_us()).max().unwrap_or(0)
    }

    /// Whether the session has its share of keys of the limit that are not in the ledger.
    pub fn has_share(&self, id: SessionId, limit: &Limit) -> bool {
        let Some(session) = self.sessions.get(&id).filter(|it| it.lasts(self.now_us)) else { return false };
        let seat = self.seats.get(&session.node).filter(|seat| seat.session == id);
        seat.is_some_and(|seat| self.is_past(seat.since_us, limit)) && self.is_past(self.void_us, limit)
    }

    /// Whether what was spent up to `at_us` no longer counts for the limit.
    pub(super) fn is_past(&self, at_us: u64, limit: &Limit) -> bool {
        at_us <= limit.defined_us || at_us.saturating_add(limit.rest_at_us(at_us)) <= self.now_us
    }

    /// The share that the session may spend of a key of the limit that is not in the ledger.
    pub fn share(&self, id: SessionId, limit: &Limit) -> u64 {
        match self.has_share(id, limit) {
            true => self.shares(limit).min().unwrap_or(0),
            false => 0,
        }
    }

    /// The share that each seat must be taken to have spent.
    pub(super) fn share_counted(&self, limit: &Limit) -> u64 {
        self.shares(limit).max().unwrap_or(0)
    }

    /// While a change spreads a share may be seen either way.
    fn shares<'a>(&'a self, limit: &'a Limit) -> impl Iterator<Item = u64> + 'a {
        let epoch = &self.epoch;
        let settled = epoch.before == 0 || epoch.complete_us.is_some_and(|at| self.is_past(at, limit));
        let before = (!settled).then_some(epoch.before);
        let lowered = limit.lowered.filter(|it| it.complete_us.is_none_or(|at| !self.is_past(at, limit)));
        let budget = if limit.has_shares() { limit.budget() } else { 0 };
        let budgets = [Some(budget), lowered.filter(|_| limit.has_slots()).map(|it| it.from)];
        let divisors = [Some(epoch.divisor), before];
        budgets
            .into_iter()
            .flatten()
            .flat_map(move |budget| divisors.into_iter().flatten().map(move |divisor| limit.share_of(budget, divisor)))
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> &mut Session {
        self.sessions.get_mut(&id).expect("a session is kept while anything refers to it")
    }
}
