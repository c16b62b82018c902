//! Costs that answers tell, over several nodes and without faults: what a limit is over by is what was in flight when an answer came,
//! and what was let in within one round of the log.

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

/// Unix time when all clocks show 0.
const UNIX_US: u64 = 1_728_000_000 * S;
const NODES: usize = 3;
/// From a node's word until all nodes have applied it.
const ROUND_US: u64 = 40 * MS;
const STEP_US: u64 = 10 * MS;
const RESERVE: u32 = 10;

struct Cluster {
    ledger: Ledger,
    holders: Vec<Holder>,
    leases: Vec<Arc<Lease>>,
    key: Key,
    now: u64,
    /// When it is applied.
    under_way: Vec<(u64, LedgerCommand)>,
}

impl Cluster {
    fn of(kind: Kind) -> Self {
        let mut ledger = Ledger::default();
        ledger.edit_limit(0, &rule(kind));
        let holders: Vec<_> = (1..=NODES as u64).map(|n| Holder::start(n, [n as u8; 16], 5 * S, &ledger, 0)).collect();
        let key = Key { limit: 1, who: "k".into() };
        let mut cluster = Self { ledger, holders, leases: Vec::new(), key, now: S, under_way: Vec::new() };
        cluster.run(S);
        cluster.say(LedgerCommand::ShareEpoch { divisor: NODES as u64 });
        cluster.run(2 * S);
        if matches!(kind, Kind::Calendar { .. }) {
            let begins = (UNIX_US + cluster.now) / S;
            cluster.say(LedgerCommand::RollPeriod { limit: 1, period: begins, ends_us: begins * S + 60 * S });
            cluster.run(S);
        }
        let (key, now) = (cluster.key.clone(), cluster.now);
        cluster.leases = cluster.holders.iter_mut().map(|it| it.lease(&key, now).unwrap()).collect();
        cluster
    }

    fn say(&mut self, command: LedgerCommand) {
        self.under_way.push((self.now + ROUND_US, command));
    }

    fn edit(&mut self, kind: Kind) {
        self.ledger.edit_limit(self.now, &rule(kind));
        self.learn(self.ledger.version - 1);
    }

    fn learn(&mut self, since: u64) {
        let effects = self.ledger.effects_since(since).expect("they are recent");
        self.holders.iter_mut().for_each(|it| it.applied(&self.ledger, &effects, self.now));
    }

    fn run(&mut self, for_us: u64) {
        let until = self.now + for_us;
        while self.now < until {
            self.now += STEP_US;
            let since = self.ledger.version;
            let (due, later) = std::mem::take(&mut self.under_way).into_iter().partition(|(at, _)| *at <= self.now);
            self.under_way = later;
            let due: Vec<(u64, LedgerCommand)> = due;
            due.iter().for_each(|(_, command)| drop(self.ledger.apply(self.now, command)));
            if self.ledger.due_us().is_some_and(|at| at <= self.now) {
                self.ledger.apply(self.now, &LedgerCommand::Tick);
            }
            if self.ledger.version > since {
                self.learn(since);
            }
            for n in 0..NODES {
                self.holders[n].tell_wall(UNIX_US + self.now, self.now);
                match self.holders[n].poll(self.now) {
                    Some(Outgoing::Open(it)) => self.say(LedgerCommand::OpenSession(it)),
                    Some(Outgoing::Batch(it)) => self.say(LedgerCommand::Batches([it].into())),
                    None => {}
                }
            }
        }
        assert!(self.ledger.limits.values().all(|it| it.broken.is_none()), "{:?}", self.ledger.limits);
    }

    /// As a worker does: a lease that has given way is looked up anew, and what is owed is paid first.
    fn take(&mut self, n: usize, cost: u32) -> bool {
        if self.leases[n].is_retired() {
            self.leases[n] = self.holders[n].lease(&self.key, self.now).unwrap();
        }
        let lease = &self.leases[n];
        lease.pay(self.now) == 0 && lease.take(cost, self.now).is_ok()
    }

    /// Waits up to 2 s; its answer then costs `cost` in all. Whether it was let in.
    fn ask(&mut self, n: usize, cost: u64) -> bool {
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
}

fn rule(kind: Kind) -> Rule {
    let name = "limit".parse().expect("it is a name");
    Rule { name, kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Deny }
}

fn sliding(limit: u64, window_s: u64) -> Kind {
    Kind::Sliding { limit, window_us: window_s * S }
}

#[test]
fn one_request_at_a_time_is_over_a_period_by_one_answer_at_most() {
    for nodes in 1..=NODES {
        let mut cluster = Cluster::of(Kind::Calendar { limit: 300, every: Every::Minute });
        let mut sum = 0;
        for n in 0..15 {
            sum += 60 * u64::from(cluster.ask(n % nodes, 60));
            cluster.run(100 * MS);
        }
        println!("{nodes} nodes: {sum} of 300");
        assert!((240..=300 + 60).contains(&sum), "{nodes} nodes: {sum} of 300");
    }
}

#[test]
fn a_dear_answer_leaves_nothing_for_other_nodes() {
    for gap_us in [100 * MS, S] {
        let mut cluster = Cluster::of(sliding(100, 10));
        assert!(cluster.ask(0, 100));
        cluster.run(gap_us);
        let mut sum = 100;
        for n in 0..20 {
            sum += u64::from(RESERVE) * u64::from(cluster.take(1 + n % 2, RESERVE));
            cluster.run(100 * MS);
        }
        assert_eq!(sum, 100, "{gap_us} us between them");
    }
}

/// What was in flight at once is over the limit at once, and is paid back in the windows after it.
#[test]
fn what_was_in_flight_at_once_is_paid_back() {
    let mut cluster = Cluster::of(sliding(100, 10));
    let mut sum = 0;
    for _ in 0..450 {
        for n in 0..NODES {
            if cluster.take(n, RESERVE) {
                sum += 100;
                cluster.leases[n].owe(90, u64::MAX);
                cluster.leases[n].pay(cluster.now);
            }
            cluster.holders[n].signal(&cluster.key);
        }
        cluster.run(100 * MS);
    }
    println!("{sum} in 45 s");
    assert!((300..=100 * 5 + 200).contains(&sum), "{sum} in 45 s");
}

#[test]
fn a_window_that_is_edited_again_and_again_admits_its_number_once() {
    for other_s in [30, 19, 10] {
        let mut cluster = Cluster::of(sliding(45, 20));
        let mut sum = 0;
        for round in 0..40 {
            for n in 0..NODES {
                while cluster.take(n, 1) {
                    sum += 1;
                }
                cluster.holders[n].signal(&cluster.key);
            }
            cluster.edit(sliding(45, if round % 2 == 0 { other_s } else { 20 }));
            cluster.run(100 * MS);
        }
        assert!((30..=45).contains(&sum), "{sum} of 45 with {other_s} s");
        // What was used under either comes back.
        cluster.run(40 * S);
        let again: u64 = (0..40).map(|n| u64::from(cluster.take(n % NODES, 1))).sum();
        assert!(again >= 30, "{again} of 45 after both windows");
    }
}

#[test]
fn permits_in_flight_count_on_under_another_hold() {
    let permits = |hold_s| Kind::Concurrency { limit: 30, max_hold_us: hold_s * S };
    let mut cluster = Cluster::of(permits(20));
    let mut held = Vec::new();
    let mut take_all = |cluster: &mut Cluster| {
        let before = held.len();
        for _ in 0..20 {
            for n in 0..NODES {
                let lease = cluster.holders[n].lease(&cluster.key, cluster.now).unwrap();
                while let Ok(taken) = lease.take(1, cluster.now) {
                    held.push((lease.clone(), taken));
                }
                cluster.holders[n].signal(&cluster.key);
            }
            cluster.run(50 * MS);
        }
        (held.len() - before, std::mem::take(&mut held))
    };
    let (count, first) = take_all(&mut cluster);
    assert_eq!(count, 30);
    cluster.edit(permits(30));
    assert_eq!(take_all(&mut cluster).0, 0);
    first.into_iter().for_each(|(lease, taken)| lease.put_back(taken));
    cluster.run(S);
    assert_eq!(take_all(&mut cluster).0, 30);
}

#[test]
fn a_node_that_yields_keeps_nothing_that_it_does_not_use() {
    for kind in [sliding(100, 10), Kind::Calendar { limit: 100_000, every: Every::Minute }] {
        let mut cluster = Cluster::of(kind);
        for _ in 0..30 {
            for n in 0..NODES {
                for _ in 0..20 {
                    cluster.take(n, 1);
                }
                cluster.holders[n].signal(&cluster.key);
            }
            cluster.run(100 * MS);
        }
        let held = |cluster: &Cluster| {
            let session = cluster.holders[0].session().unwrap();
            cluster.ledger.pool(&cluster.key).and_then(|it| it.held(session)).map_or(0, |it| it.slots)
        };
        assert!(held(&cluster) > 0, "{kind:?}");
        cluster.holders[0].set_yielding(true);
        cluster.run(2 * S);
        assert_eq!(held(&cluster), 0, "{kind:?}");
    }
}
