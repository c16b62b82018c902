//! A bonus is never more than was given, and a reset never lets a slot be used twice within its rest after it.

use std::sync::Arc;

use super::*;
use crate::ledger::{
    Lease,
    command::{Dated, LeaseBatch, LeaseItem, LedgerCommand, Mode, NoQuorum, OpenSession, Rule},
    holder::{Holder, Outgoing},
};

const S: u64 = 1_000_000;
const WINDOW: u64 = 60 * S;

/// One node and its holder; the log's clock is the node's.
struct World {
    ledger: Ledger,
    holder: Holder,
    key: Key,
    lease: Arc<Lease>,
}

impl World {
    fn new(limit: u64) -> Self {
        let mut ledger = Ledger::default();
        let kind = Kind::Sliding { limit, window_us: WINDOW };
        let name = "free".parse().unwrap();
        let rule = Rule { name, kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Deny };
        ledger.apply(0, &LedgerCommand::DefineLimit(rule));
        ledger.apply(0, &LedgerCommand::ShareEpoch { divisor: 1 });
        let mut holder = Holder::start(1, [1; 16], 5 * S, &ledger, 0);
        let key = Key { limit: 1, who: "acme".into() };
        let Some(Outgoing::Open(open)) = holder.poll(S) else { panic!("a session first") };
        let effects = ledger.apply(S, &LedgerCommand::OpenSession(open));
        holder.applied(&ledger, &effects, S);
        let lease = holder.lease(&key, S).unwrap();
        Self { ledger, holder, key, lease }
    }

    /// Sends and applies what there is, twenty times a second.
    fn run(&mut self, from: u64, until: u64) {
        for now in (from..until).step_by(50_000) {
            let command = match self.holder.poll(now) {
                Some(Outgoing::Batch(batch)) => LedgerCommand::Batches([batch].into()),
                Some(Outgoing::Open(open)) => LedgerCommand::OpenSession(open),
                None => LedgerCommand::Tick,
            };
            let effects = self.ledger.apply(now, &command);
            self.holder.applied(&self.ledger, &effects, now);
        }
    }

    fn learn(&mut self, now: u64) {
        let effects = self.ledger.effects_since(self.ledger.version - 1).unwrap();
        self.holder.applied(&self.ledger, &effects, now);
    }

    /// As many as there are, asking for more until nothing comes.
    fn take_all(&mut self, now: u64) -> u64 {
        let mut taken = 0;
        for step in 0..40 {
            let now = now + step * 50_000;
            while self.lease.take(1, now).is_ok() {
                taken += 1;
            }
            // Where slots are lent one by one, to somebody who waits.
            assert!(self.lease.wait(1, 8));
            self.holder.signal(&self.key);
            self.run(now, now + 50_000);
            self.lease.wait_over(1);
        }
        taken
    }

    fn pool(&self) -> &Pool {
        self.ledger.pool(&self.key).unwrap()
    }
}

#[test]
fn a_bonus_is_admitted_once_and_the_budget_falls_back() {
    let mut world = World::new(100);
    assert_eq!(world.take_all(2 * S), 100);
    world.ledger.grant_bonus(5 * S, &world.key, 30, WINDOW).unwrap();
    world.learn(5 * S);
    assert_eq!(world.take_all(5 * S), 30);
    // The bonus ends after a window; what comes home beyond the budget is destroyed.
    world.run(7 * S, 70 * S);
    assert_eq!(world.pool().bonus(), 0);
    let after = world.take_all(70 * S);
    assert!(after <= 100, "{after}");
    world.run(72 * S, 140 * S);
    let later = world.take_all(140 * S);
    assert_eq!(later, 100);
}

#[test]
fn after_a_reset_the_whole_budget_is_there_and_not_one_slot_more() {
    for limit in [4, 100] {
        let mut world = World::new(limit);
        assert_eq!(world.take_all(2 * S), limit);
        world.run(4 * S, 10 * S);
        world.ledger.reset_usage(10 * S, 1, Some(&"acme".into())).unwrap();
        world.learn(10 * S);
        assert_eq!(world.take_all(10 * S), limit);
        assert_eq!(world.pool().total(), limit, "a reset makes no slots");
        world.run(12 * S, 66 * S);
        assert_eq!(world.take_all(66 * S), 0, "all were used within the window that began after the reset");
    }
}

#[test]
fn a_key_that_no_node_has_outgrown_is_reset_where_it_was_used() {
    let mut world = World::new(100);
    for _ in 0..40 {
        let _ = world.lease.take(1, 2 * S).unwrap();
    }
    assert!(world.ledger.pool(&world.key).is_none());
    world.ledger.reset_usage(3 * S, 1, None).unwrap();
    world.learn(3 * S);
    let counts = world.lease.counts(3 * S);
    assert_eq!((counts.free, counts.used), (90, 0));
}

/// A node reports what rests, hears of the reset, uses it again and dies: the report must not bring it back too soon.
#[test]
fn a_report_from_before_a_reset_is_not_believed_after_it() {
    let mut world = World::new(100);
    world.take_all(2 * S);
    world.run(4 * S, 9 * S);
    assert!(world.pool().held(3).unwrap().reported() > 0, "{:?}", world.pool());
    let Some(Outgoing::Batch(late)) = (9 * S..12 * S).step_by(50_000).find_map(|now| world.holder.poll(now)) else {
        panic!("a renewal is due")
    };
    assert!(!late.items[0].report.is_empty());
    world.ledger.reset_usage(12 * S, 1, None).unwrap();
    world.learn(12 * S);
    assert!(world.lease.take(100, 12 * S).is_ok());
    let late = LeaseBatch { session: late.session, ..late };
    world.ledger.apply(12 * S + 1, &LedgerCommand::Batches([late].into()));
    assert_eq!(world.pool().held(3).unwrap().reported(), 0);
    // It is never heard of again: nothing of it is lent before a window after its end.
    world.ledger.apply(75 * S, &LedgerCommand::Tick);
    assert_eq!((world.pool().free, world.pool().quarantine.total()), (0, 100));
}

/// Seen on a real cluster: a node that was cut off for longer than its session admitted nobody afterwards.
#[test]
fn a_node_that_has_lost_its_session_asks_for_its_keys_again() {
    let mut world = World::new(100);
    assert_eq!(world.take_all(2 * S), 100);
    let effects = world.ledger.apply(20 * S, &LedgerCommand::Tick);
    world.holder.applied(&world.ledger, &effects, 20 * S);
    assert_eq!(world.holder.session(), None);
    world.run(20 * S, 22 * S);
    world.ledger.grant_bonus(22 * S, &world.key, 30, WINDOW).unwrap();
    world.learn(22 * S);
    assert_eq!(world.take_all(22 * S), 30);
}

/// Seen on a real cluster: the permits of a dead node came back a session too soon, while a node that is only cut off may
/// have lent them to other exchanges since.
#[test]
fn permits_of_a_dead_node_come_back_a_hold_after_its_session() {
    let mut ledger = Ledger::default();
    let kind = Kind::Concurrency { limit: 9, max_hold_us: 5 * S };
    let rule = Rule { name: "busy".parse().unwrap(), kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Deny };
    ledger.apply(0, &LedgerCommand::DefineLimit(rule));
    let open = OpenSession { node: 1, boot: [1; 16], open: 1, length_us: 5 * S };
    ledger.apply(0, &LedgerCommand::OpenSession(open));
    let key = Key { limit: 1, who: "".into() };
    let batch = |seq, item| LeaseBatch {
        node: 1,
        session: 2,
        seq,
        attempt: 0,
        applied: u64::MAX,
        wall_ahead_us: 0,
        items: vec![item],
    };
    let asks = LeaseItem { want: 9, demand: 9_000, ..LeaseItem::of(key.clone()) };
    ledger.apply(S, &LedgerCommand::Batches([batch(1, asks.clone())].into()));
    let report = vec![Dated { in_us: 5_010_000, count: 9 }];
    ledger.apply(2 * S, &LedgerCommand::Batches([batch(2, LeaseItem { report, ..asks })].into()));
    for at in 8..12 {
        ledger.apply(at * S, &LedgerCommand::Tick);
        let pool = ledger.pool(&key).unwrap();
        let out = pool.quarantine.total() + pool.holders.iter().map(|(_, held)| held.slots).sum::<u64>();
        assert_eq!((pool.free, out), (0, 9), "{at} s: {pool:?}");
    }
}

#[test]
fn permits_in_flight_and_unknown_limits_are_left_alone() {
    let mut ledger = Ledger::default();
    let kind = Kind::Concurrency { limit: 9, max_hold_us: S };
    let rule = Rule { name: "busy".parse().unwrap(), kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Deny };
    ledger.apply(0, &LedgerCommand::DefineLimit(rule));
    let key = |limit, who: &str| Key { limit, who: who.into() };
    assert_eq!(ledger.reset_usage(1, 1, None), Err(Refused::InFlight));
    assert_eq!(ledger.reset_usage(1, 7, None), Err(Refused::NoLimit));
    assert_eq!(ledger.grant_bonus(1, &key(1, &"x".repeat(2_000)), 1, S), Err(Refused::KeyTooLong));
    assert_eq!(ledger.grant_bonus(1, &key(1, "a"), u64::MAX, S), Err(Refused::TooMuch));
    let before = ledger.version;
    for n in 0..BONUSES_MAX as u64 {
        ledger.grant_bonus(1, &key(1, "a"), 1, S * (n + 1)).unwrap();
    }
    assert_eq!(ledger.grant_bonus(1, &key(1, "a"), 1, S), Err(Refused::TooManyBonuses));
    assert_eq!(ledger.version, before + BONUSES_MAX as u64, "what is refused leaves no trace");
}
