//! The rules of the ledger, each broken on purpose (`mutants`): a simulation that does not notice proves
//! nothing. Each mistake has schedules that are made for it, and the same schedules pass without it.

use std::sync::Arc;

use quorumgate_model::{
    ledger::{
        Ledger,
        command::{Effect, Key, Kind, LedgerCommand, Mode, NoQuorum, Rule},
        holder::{Holder, Outgoing},
        lease::Lease,
    },
    mutants::{Mutant, choose},
    resource::Every,
};

use super::*;
use crate::audit::{Admission, Allowed, Budget, audit, audit_periods};

/// Of each mistake's schedules this many are tried; one has to notice.
const TRIES: u64 = 100;

fn schedule(mutant: Mutant, seed: u64) -> Plan {
    match mutant {
        Mutant::RegrantAtExpiry | Mutant::ExpiryIgnored => Plan::cut_off(seed, 2 * S),
        Mutant::StaleReport | Mutant::ReusesTooLate => Plan::cut_off(seed, 20 * S),
        Mutant::RestartedKeepsShare => Plan::crash_loop(seed),
        Mutant::EpochWithoutAck => Plan::join_unheard(seed),
        Mutant::BurntRegranted => Plan::calendar(seed),
        Mutant::ReserveForgotten => Plan::cut_off_with_reserve(seed),
        Mutant::RestsForgotten => Plan::shares_edited(seed),
        Mutant::SharesEndUnheard => Plan::shares_ended(seed),
        Mutant::BuriedByTheNewRest => Plan::hold_edited(seed),
        _ => Plan::of(seed),
    }
}

fn first_to_notice(mutant: Mutant, chosen: Option<Mutant>, tries: u64) -> Option<(u64, Outcome)> {
    first_failure(0, tries, |seed| {
        choose(chosen);
        World::run(schedule(mutant, seed))
    })
}

fn check(mutant: Mutant) {
    let (seed, outcome) = first_to_notice(mutant, Some(mutant), TRIES).expect("no schedule noticed the mistake");
    println!("{}: seed {seed}, {:?} {:?}", mutant.word(), outcome.excess, outcome.broken);
    let sound = first_to_notice(mutant, None, seed + 1);
    assert!(sound.is_none(), "fails without the mistake: {:?}", sound.map(|(seed, it)| (seed, it.excess, it.broken)));
}

#[test]
fn slots_lent_again_at_expiry_are_noticed() {
    check(Mutant::RegrantAtExpiry);
}

#[test]
fn wall_clock_stamps_are_noticed() {
    check(Mutant::WallClockStamps);
}

#[test]
fn a_log_clock_that_jumps_ahead_is_noticed() {
    check(Mutant::ClockJumpsAhead);
}

#[test]
fn a_batch_applied_twice_is_noticed() {
    check(Mutant::NoDeduplication);
}

#[test]
fn a_predecessors_slots_taken_over_are_noticed() {
    check(Mutant::StaleLedgerAfterRestart);
}

#[test]
fn a_holder_that_ignores_its_end_is_noticed() {
    check(Mutant::ExpiryIgnored);
}

#[test]
fn a_report_older_than_the_renewal_is_noticed() {
    check(Mutant::StaleReport);
}

#[test]
fn a_restarted_node_that_keeps_its_share_is_noticed() {
    check(Mutant::RestartedKeepsShare);
}

#[test]
fn a_divisor_that_counts_unheard_is_noticed() {
    check(Mutant::EpochWithoutAck);
}

#[test]
fn slots_released_before_they_are_out_of_use_are_noticed() {
    check(Mutant::ReleaseBeforeRemove);
}

#[test]
fn a_burnt_chunk_that_is_lent_again_is_noticed() {
    check(Mutant::BurntRegranted);
}

#[test]
fn a_reserve_that_is_lent_to_others_is_noticed() {
    check(Mutant::ReserveForgotten);
}

#[test]
fn a_slot_that_is_used_again_though_it_was_told_to_rest_is_noticed() {
    check(Mutant::ReusesTooLate);
}

#[test]
fn a_share_that_goes_with_an_edit_is_noticed() {
    check(Mutant::RestsForgotten);
}

#[test]
fn permits_that_come_back_by_a_hold_that_was_not_heard_of_are_noticed() {
    check(Mutant::BuriedByTheNewRest);
}

#[test]
fn a_share_that_an_edit_ends_uncounted_is_noticed() {
    check(Mutant::SharesEndUnheard);
}

#[test]
fn slots_in_use_that_an_edit_makes_free_are_noticed() {
    check(Mutant::UsedUnderTheOldFree);
}

#[test]
fn slots_asked_back_for_debts_that_stay_in_use_are_noticed() {
    check(Mutant::WithdrawnInUse);
}

#[test]
fn a_reset_that_does_not_void_what_was_said_before_is_noticed() {
    check_directed(Mutant::StaleChunk, said_before_a_reset);
}

#[test]
fn a_chunk_that_is_spent_after_its_period_is_noticed() {
    check_directed(Mutant::SpendsPastPeriod, cut_off_over_midnight);
}

const WINDOW: u64 = 5 * S;

fn deliver(
    ledger: &mut Ledger,
    holders: &mut [Holder],
    log_us: u64,
    command: LedgerCommand,
    heard: &[usize],
    now: u64,
) {
    let effects = ledger.apply(log_us, &command);
    for n in heard {
        holders[*n].applied(ledger, &effects, now);
    }
}

fn command_of(outgoing: Option<Outgoing>) -> LedgerCommand {
    match outgoing.expect("there is something to send") {
        Outgoing::Open(it) => LedgerCommand::OpenSession(it),
        Outgoing::Batch(it) => LedgerCommand::Batches(Arc::new([it])),
    }
}

/// Node 1 repeats a batch four times before it hears of it; the ledger took the first attempt, and says of the others
/// that they are repeats. Then node 1 is cut off and spends until what it takes for its end; node 2 gets the slots when
/// the ledger thinks they have rested. Random schedules miss this.
fn repeated_and_cut_off() -> Option<String> {
    let (mut ledger, key) = (Ledger::default(), Key { limit: 1, who: "k".into() });
    let mut holders: Vec<Holder> = (1..=2).map(|n| Holder::start(n, [n as u8; 16], 5 * S, &ledger, 0)).collect();
    let rule = Rule {
        name: "limit".parse().expect("it is a name"),
        kind: Kind::Sliding { limit: 100, window_us: WINDOW },
        mode: Mode::Leased,
        on_no_quorum: NoQuorum::Deny,
    };
    // Both clocks and the log's read the same here, from 10 s on.
    let t = |ms: u64| 10 * S + ms * 1_000;
    deliver(&mut ledger, &mut holders, t(0), LedgerCommand::DefineLimit(rule), &[0, 1], t(0));
    for n in 0..2 {
        let open = command_of(holders[n].poll(t(0)));
        deliver(&mut ledger, &mut holders, t(0), open, &[0, 1], t(0));
    }
    // Without a divisor there are no shares: every slot is lent by the ledger.
    let lease = holders[0].lease(&key, t(0)).expect("the limit is known");
    let mut admissions = Vec::new();
    let spend = |lease: &Lease, now: u64, admissions: &mut Vec<Admission>| {
        while lease.take(1, now).is_ok() {
            admissions.push(Admission { first_us: now, answer_us: now, said_us: now, cost: 1, node: 0 });
        }
    };
    spend(&lease, t(10), &mut admissions);
    holders[0].signal(&key);
    let first = command_of(holders[0].poll(t(100)));
    let mut repeats = Vec::new();
    for ms in [900, 1_700, 2_500, 3_300] {
        spend(&lease, t(ms - 10), &mut admissions);
        repeats.push(command_of(holders[0].poll(t(ms))));
    }
    let before = ledger.version;
    ledger.apply(t(200), &first);
    for repeat in repeats {
        ledger.apply(t(3_400), &repeat);
    }
    let effects = ledger.effects_since(before).expect("they are recent");
    for holder in &mut holders {
        holder.applied(&ledger, &effects, t(3_500));
    }
    // Cut off from here on.
    for ms in (6_000..9_000).step_by(50) {
        spend(&lease, t(ms), &mut admissions);
    }
    let other = holders[1].lease(&key, t(5_000)).expect("the limit is known");
    for ms in (5_000..18_000).step_by(50) {
        spend(&other, t(ms), &mut admissions);
        if let Some(outgoing) = holders[1].poll(t(ms)) {
            let command = command_of(Some(outgoing));
            deliver(&mut ledger, &mut holders, t(ms), command, &[1], t(ms));
        } else if ms % 200 == 0 {
            deliver(&mut ledger, &mut holders, t(ms), LedgerCommand::Tick, &[1], t(ms));
        }
    }
    assert!(admissions.iter().any(|it| it.first_us > t(10_000)), "node 2 never got any");
    let budgets = vec![Budget { from_us: 0, budget: 100 }];
    audit(&admissions, WINDOW, &Allowed { budgets, ..Allowed::default() }).map(|it| format!("{it:?}"))
}

/// Calendar time when the log clock and the nodes' clocks show 0: a multiple of all lengths of periods.
const UNIX_US: u64 = 1_728_000_000 * S;
const PERIOD: u64 = 10 * S;

/// Two nodes with a calendar limit of 100, and a first period that began at 10 s of all clocks.
struct Calendar {
    ledger: Ledger,
    holders: Vec<Holder>,
    key: Key,
}

impl Calendar {
    fn begun() -> Self {
        let mut ledger = Ledger::default();
        let holders = (1..=2).map(|n| Holder::start(n, [n as u8; 16], 5 * S, &ledger, 0)).collect();
        let kind = Kind::Calendar { limit: 100, every: Every::Minute };
        let name = "limit".parse().expect("it is a name");
        let rule = Rule { name, kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Deny };
        ledger.apply(PERIOD, &LedgerCommand::DefineLimit(rule));
        let mut world = Self { ledger, holders, key: Key { limit: 1, who: "k".into() } };
        for now in (PERIOD..PERIOD + S).step_by(100_000) {
            world.turn(now, &[0, 1]);
        }
        world.roll(PERIOD, PERIOD + S, &[0, 1]);
        world
    }

    /// Each of them sends what it has to say, and all of them hear of it.
    fn turn(&mut self, now: u64, which: &[usize]) {
        for n in which {
            self.holders[*n].tell_wall(UNIX_US + now, now);
            if let Some(outgoing) = self.holders[*n].poll(now) {
                deliver(&mut self.ledger, &mut self.holders, now, command_of(Some(outgoing)), which, now);
            }
        }
    }

    fn roll(&mut self, begins: u64, now: u64, heard: &[usize]) {
        let unix_us = UNIX_US + begins;
        let roll = LedgerCommand::RollPeriod { limit: 1, period: unix_us / S, ends_us: unix_us + PERIOD };
        deliver(&mut self.ledger, &mut self.holders, now, roll, heard, now);
        assert_eq!(self.ledger.limit(1).and_then(|it| it.period).map(|it| it.number), Some(unix_us / S));
    }

    fn lease(&mut self, n: usize, now: u64) -> Arc<Lease> {
        self.holders[n].lease(&self.key, now).expect("the limit is known")
    }

    /// Node `n` gets at least `count` of the period.
    fn prepay(&mut self, n: usize, count: u32, now: u64) -> Arc<Lease> {
        let lease = self.lease(n, now);
        assert!(lease.wait(count, 8));
        self.holders[n].signal(&self.key);
        self.turn(now, &[n]);
        lease.wait_over(count);
        lease
    }
}

/// Node 1 has prepaid half of a period, and is cut off when the next begins; node 2 uses all of that.
fn cut_off_over_midnight() -> Option<String> {
    let mut world = Calendar::begun();
    for now in (11 * S..16 * S).step_by(250_000) {
        world.turn(now, &[0, 1]);
    }
    let first = world.prepay(0, 50, 16 * S);
    assert!(first.counts(16 * S).free >= 50, "{:?}", first.counts(16 * S));
    let (begins, mut admissions) = (2 * PERIOD, Vec::new());
    let mut spend = |lease: &Lease, now: u64| {
        while lease.take(1, now).is_ok() {
            admissions.push(Admission { first_us: now, answer_us: now, said_us: now, cost: 1, node: 0 });
        }
    };
    for now in (17 * S..begins).step_by(250_000) {
        world.turn(now, &[1]);
    }
    world.roll(begins, begins, &[1]);
    for now in (begins + 100_000..begins + 4 * S).step_by(50_000) {
        let second = world.prepay(1, 5, now);
        spend(&second, now);
        spend(&first, now);
    }
    assert!(admissions.len() >= 100, "node 2 got only {} of a period", admissions.len());
    let allowed = Allowed { budgets: vec![Budget { from_us: 0, budget: 100 }], ..Allowed::default() };
    audit_periods(&admissions, PERIOD, 50_000, &allowed).map(|it| format!("{it:?}"))
}

/// A node says what it has spent, and a reset comes before it in the log.
fn said_before_a_reset() -> Option<String> {
    let mut world = Calendar::begun();
    let lease = world.prepay(0, 40, 12 * S);
    assert!(lease.take(10, 12 * S).is_ok());
    let said = command_of((12 * S..15 * S).step_by(100_000).find_map(|now| world.holders[0].poll(now)));
    world.ledger.reset_usage(15 * S, 1, None).expect("a period has begun");
    let effects = world.ledger.apply(15 * S, &said);
    effects.iter().find(|it| matches!(it, Effect::Broken { .. })).map(|it| format!("{it:?}"))
}

fn check_directed(mutant: Mutant, schedule: fn() -> Option<String>) {
    assert_eq!(schedule(), None);
    choose(Some(mutant));
    let noticed = schedule();
    choose(None);
    println!("{}: {noticed:?}", mutant.word());
    assert!(noticed.is_some());
}

#[test]
fn an_answer_to_a_repeat_that_renews_is_noticed() {
    check_directed(Mutant::DuplicateAckRenews, repeated_and_cut_off);
}

#[test]
fn a_session_counted_from_receipt_is_noticed() {
    check_directed(Mutant::TtlFromReceipt, repeated_and_cut_off);
}
