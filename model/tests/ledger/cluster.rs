//! A few nodes and a log without faults, in one thread: what a directed test says happens, at once and in that order. A node may be
//! cut off, and hears afterwards of everything together.

use std::sync::Arc;

use quorumgate_model::{
    ledger::{
        Ledger,
        command::{Key, Kind, LedgerCommand, Mode, NoQuorum, Rule},
        holder::{Holder, Outgoing},
        lease::Lease,
    },
    resource::Every,
};

use crate::plan::{MS, S};

/// Unix time when all clocks show 0: a multiple of all lengths of periods.
pub const UNIX_US: u64 = 1_728_000_000 * S;
pub const NODES: usize = 3;
/// From a node's word until all nodes have applied it.
const ROUND_US: u64 = 40 * MS;
const STEP_US: u64 = 10 * MS;
pub const RESERVE: u32 = 10;

pub struct Cluster {
    pub ledger: Ledger,
    pub holders: Vec<Holder>,
    pub leases: Vec<Arc<Lease>>,
    pub key: Key,
    pub now: u64,
    /// Says nothing and hears nothing.
    pub cut: [bool; NODES],
    /// The ledger's version that each has applied.
    heard: [u64; NODES],
    /// When it is applied.
    under_way: Vec<(u64, LedgerCommand)>,
}

impl Cluster {
    pub fn of(kind: Kind) -> Self {
        Self::with(rule(kind))
    }

    pub fn with(rule: Rule) -> Self {
        let kind = rule.kind;
        let mut ledger = Ledger::default();
        ledger.edit_limit(0, &rule);
        let holders: Vec<_> = (1..=NODES as u64).map(|n| Holder::start(n, [n as u8; 16], 5 * S, &ledger, 0)).collect();
        let key = Key { limit: 1, who: "k".into() };
        let heard = [ledger.version; NODES];
        let (leases, under_way) = (Vec::new(), Vec::new());
        let mut cluster = Self { ledger, holders, leases, key, now: S, cut: [false; NODES], heard, under_way };
        cluster.run(S);
        cluster.say(LedgerCommand::ShareEpoch { divisor: NODES as u64 });
        cluster.run(2 * S);
        if matches!(kind, Kind::Calendar { .. }) {
            let begins = (UNIX_US + cluster.now) / S;
            cluster.say(LedgerCommand::RollPeriod { limit: 1, period: begins, ends_us: begins * S + 60 * S });
            cluster.run(S);
        }
        cluster.ask_of("k");
        cluster
    }

    /// From here on it is about this key, of which each node has its share if it may have one.
    pub fn ask_of(&mut self, who: &str) {
        self.key = Key { limit: 1, who: who.into() };
        self.leases = self.holders.iter_mut().map(|it| it.lease(&self.key, self.now).unwrap()).collect();
    }

    pub fn say(&mut self, command: LedgerCommand) {
        self.under_way.push((self.now + ROUND_US, command));
    }

    pub fn edit(&mut self, kind: Kind) {
        self.edit_to(rule(kind));
    }

    pub fn edit_to(&mut self, rule: Rule) {
        self.ledger.edit_limit(self.now, &rule);
        self.learn();
    }

    /// What each has not heard yet, all of it together.
    pub fn learn(&mut self) {
        for n in (0..NODES).filter(|n| !self.cut[*n]) {
            if self.heard[n] < self.ledger.version {
                let effects = self.ledger.effects_since(self.heard[n]).expect("they are recent");
                self.holders[n].applied(&self.ledger, &effects, self.now);
                self.heard[n] = self.ledger.version;
            }
        }
    }

    pub fn run(&mut self, for_us: u64) {
        let until = self.now + for_us;
        while self.now < until {
            self.now += STEP_US;
            let (due, later) = std::mem::take(&mut self.under_way).into_iter().partition(|(at, _)| *at <= self.now);
            self.under_way = later;
            let due: Vec<(u64, LedgerCommand)> = due;
            due.iter().for_each(|(_, command)| drop(self.ledger.apply(self.now, command)));
            if self.ledger.due_us().is_some_and(|at| at <= self.now) {
                self.ledger.apply(self.now, &LedgerCommand::Tick);
            }
            self.learn();
            for n in (0..NODES).filter(|n| !self.cut[*n]) {
                self.holders[n].tell_wall(UNIX_US + self.now, self.now);
                match self.holders[n].poll(self.now) {
                    Some(Outgoing::Open(it)) => {
                        self.under_way.push((self.now + ROUND_US, LedgerCommand::OpenSession(it)))
                    }
                    Some(Outgoing::Batch(it)) => {
                        self.under_way.push((self.now + ROUND_US, LedgerCommand::Batches([it].into())));
                    }
                    None => {}
                }
            }
        }
        assert!(self.ledger.limits.values().all(|it| it.broken.is_none()), "{:?}", self.ledger.limits);
    }

    /// As the leader does: periods whose time has come, of a minute or an hour.
    pub fn roll(&mut self) {
        let wall_us = UNIX_US + self.now;
        let mut rolls = Vec::new();
        for limit in self.ledger.ended_periods(wall_us) {
            let Kind::Calendar { every, .. } = limit.rule.kind else { continue };
            let length_us = if every == Every::Hour { 3_600 * S } else { 60 * S };
            let ends_us = (wall_us / length_us + 1) * length_us;
            if limit.period.is_none_or(|it| it.ends_us <= wall_us) || self.ledger.may_recycle(limit, ends_us) {
                rolls.push((wall_us / length_us * length_us / S, ends_us));
            }
        }
        for (period, ends_us) in rolls {
            self.say(LedgerCommand::RollPeriod { limit: 1, period, ends_us });
        }
    }

    /// As a worker does: a lease that has given way is looked up anew, and what is owed is paid first.
    pub fn take(&mut self, n: usize, cost: u32) -> bool {
        if self.leases[n].is_retired() {
            self.leases[n] = self.holders[n].lease(&self.key, self.now).unwrap();
        }
        let lease = &self.leases[n];
        lease.pay(self.now) == 0 && lease.take(cost, self.now).is_ok()
    }

    /// Waits up to 2 s; its answer then costs `cost` in all. Whether it was let in.
    pub fn ask(&mut self, n: usize, cost: u64) -> bool {
        let mut is_in = self.take(n, RESERVE);
        if !is_in {
            self.holders[n].signal(&self.key);
            let lease = self.leases[n].clone();
            assert!(lease.wait(RESERVE, 8));
            for _ in 0..200 {
                self.run(STEP_US);
                is_in = self.take(n, RESERVE);
                if is_in {
                    break;
                }
            }
            lease.wait_over(RESERVE);
        }
        if is_in {
            self.leases[n].owe(cost - u64::from(RESERVE), u64::MAX);
            if self.leases[n].pay(self.now) > 0 {
                self.holders[n].signal(&self.key);
            }
        }
        is_in
    }

    /// All that these nodes get within that time, asked for one by one and again and again.
    pub fn exhaust(&mut self, nodes: &[usize], for_us: u64) -> u64 {
        let (until, mut sum) = (self.now + for_us, 0);
        while self.now < until {
            for n in nodes {
                while self.take(*n, 1) {
                    sum += 1;
                }
                let waits = self.leases[*n].wait(1, 8);
                self.holders[*n].signal(&self.key);
                self.run(STEP_US);
                if waits {
                    self.leases[*n].wait_over(1);
                }
            }
        }
        sum
    }

    /// What the ledger says that a node holds.
    pub fn held(&self, n: usize) -> u64 {
        let session = self.holders[n].session().unwrap_or(0);
        self.ledger.pool(&self.key).and_then(|it| it.held(session)).map_or(0, |it| it.slots)
    }

    pub fn owed(&self) -> u64 {
        self.ledger.pool(&self.key).map_or(0, |it| it.owed())
    }
}

pub fn rule(kind: Kind) -> Rule {
    let name = "limit".parse().expect("it is a name");
    Rule { name, kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Deny }
}

pub fn sliding(limit: u64, window_s: u64) -> Kind {
    Kind::Sliding { limit, window_us: window_s * S }
}

pub fn permits(limit: u64, hold_s: u64) -> Kind {
    Kind::Concurrency { limit, max_hold_us: hold_s * S }
}

pub fn calendar(limit: u64, every: Every) -> Kind {
    Kind::Calendar { limit, every }
}
