//! Edits of a limit while it is in use, over several nodes: of the window, the hold, the cycle, and of what it does without a quorum.

use std::iter;

use quorumgate_model::{
    ledger::{
        command::{LedgerCommand, Mode, NoQuorum, Rule},
        holder::Ask,
        lease::Denied,
    },
    resource::Every,
};

use crate::{
    cluster::{Cluster, NODES, RESERVE, UNIX_US, calendar, permits, rule, sliding},
    plan::{MS, S},
};

const ALL: [usize; NODES] = [0, 1, 2];

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

/// As operators and clients are told it, before anybody has asked again and after.
#[test]
fn what_is_in_use_under_the_definition_before_is_told_as_used() {
    let reserve = Rule { on_no_quorum: NoQuorum::Reserve, ..rule(sliding(100, 60)) };
    for edited in [rule(sliding(100, 10)), rule(sliding(100, 90)), reserve] {
        let mut cluster = Cluster::of(sliding(100, 60));
        assert_eq!(cluster.exhaust(&[0], 2 * S), 100);
        let used = |cluster: &Cluster| cluster.holders[0].known(&cluster.key).unwrap().counts(cluster.now).used;
        let before = used(&cluster);
        assert!(before >= 90, "{before} of 100 are in use here");
        cluster.edit_to(edited.clone());
        assert_eq!(used(&cluster), before, "{edited:?}");
        assert!(!cluster.take(0, 1));
        assert_eq!(used(&cluster), before, "{edited:?}");
        cluster.edit_to(rule(sliding(100, 5)));
        assert_eq!(used(&cluster), before, "and again after {edited:?}");
    }
}

/// A worker refuses at once by that, and says when to come again.
#[test]
fn a_refusal_after_an_edit_knows_when_what_was_used_before_comes_back() {
    let mut cluster = Cluster::of(sliding(100, 60));
    let began = cluster.now;
    assert_eq!(cluster.exhaust(&[0], 2 * S), 100);
    cluster.edit(sliding(100, 10));
    assert!(!cluster.take(0, 1));
    let denied = cluster.leases[0].take(1, cluster.now).unwrap_err();
    let Denied::Short { next_us: Some(next_us) } = denied else { panic!("{denied:?}") };
    assert!((began + 60 * S..=began + 64 * S).contains(&next_us), "{} s on", (next_us - began) / S);
}

/// As after a restore: nobody is there from whom it could be had sooner.
#[test]
fn slots_in_quarantine_that_no_other_node_has_are_told_when_they_come_back() {
    let mut cluster = Cluster::of(sliding(100, 60));
    assert_eq!(cluster.exhaust(&[0], 2 * S), 100);
    cluster.cut[0] = true;
    cluster.run(10 * S);
    let pool = cluster.ledger.pool(&cluster.key).unwrap();
    assert_eq!((pool.free, pool.quarantine.total() + pool.recycling.total()), (0, 100), "{pool:?}");
    let asked = cluster.holders[1].ask(&cluster.key, cluster.now);
    let Some(Ask::DenyUntil(until_us)) = asked else { panic!("{asked:?}") };
    assert!((40 * S..=70 * S).contains(&(until_us - cluster.now)), "{} s", (until_us - cluster.now) / S);
}

#[test]
fn permits_in_flight_count_on_under_another_hold() {
    let mut cluster = Cluster::of(permits(30, 20));
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
    cluster.edit(permits(30, 30));
    assert_eq!(take_all(&mut cluster).0, 0);
    first.into_iter().for_each(|(lease, taken)| lease.put_back(taken));
    cluster.run(S);
    assert_eq!(take_all(&mut cluster).0, 30);
}

/// Whether it rests on the node where it was used or is on its way home from there.
#[test]
fn what_was_used_before_a_longer_window_rests_as_long_as_what_is_used_in_it() {
    for is_given_back in [false, true] {
        let mut cluster = Cluster::of(sliding(45, 10));
        let began = cluster.now;
        // Of what is given back nothing is lent on before the edit: nobody else has asked yet.
        let (using, asking): (&[usize], &[usize]) = if is_given_back { (&[0], &[1, 2]) } else { (&ALL, &ALL) };
        assert_eq!(cluster.exhaust(using, 2 * S), 45);
        if is_given_back {
            cluster.holders[0].drain();
            cluster.run(500 * MS);
            assert_eq!(cluster.held(0), 0);
        }
        cluster.edit(sliding(45, 30));
        let until_us = began + 29 * S - cluster.now;
        assert_eq!(cluster.exhaust(asking, until_us), 0, "given back: {is_given_back}");
        cluster.run(5 * S);
        assert_eq!(cluster.exhaust(asking, S), 45, "given back: {is_given_back}");
    }
}

/// A node hears of a grant and of a shorter window at once: the ledger has lent what no node had then.
#[test]
fn what_was_lent_for_later_than_the_edited_window_reaches_is_not_lost() {
    let mut cluster = Cluster::of(sliding(100, 60));
    assert_eq!(cluster.exhaust(&[0], 2 * S), 100);
    cluster.exhaust(&[1], 2 * S);
    cluster.cut[1] = true;
    cluster.holders[0].drain();
    cluster.run(500 * MS);
    let lent = cluster.held(1);
    assert!(lent > 0, "{:?}", cluster.ledger.pool(&cluster.key));
    cluster.edit(sliding(100, 2));
    cluster.cut[1] = false;
    cluster.learn();
    assert_eq!(cluster.exhaust(&[1], 30 * S), 0, "they rest as they would have");
    assert!(cluster.exhaust(&[1], 33 * S) >= lent);
    let counts = cluster.leases[1].counts(cluster.now);
    assert_eq!(counts.free + counts.used, cluster.held(1));
}

#[test]
fn a_node_that_stops_gives_back_what_rests_in_the_window_before() {
    let mut cluster = Cluster::of(sliding(100, 60));
    assert_eq!(cluster.exhaust(&[0], 2 * S), 100);
    cluster.edit(sliding(100, 5));
    cluster.run(S);
    cluster.holders[0].drain();
    cluster.run(S);
    assert!(cluster.holders[0].has_given_back(), "{} held", cluster.held(0));
}

/// Its exchanges end by the hold that it knew, which is up to a session after the edit and a hold later.
#[test]
fn permits_of_a_node_that_has_not_heard_of_a_shorter_hold_count_on() {
    for is_in_the_ledger in [false, true] {
        let mut cluster = Cluster::of(permits(30, 20));
        // Until every seat has its share.
        cluster.run(25 * S);
        cluster.ask_of("implicit");
        for _ in 0..40 * usize::from(is_in_the_ledger) {
            let lease = cluster.leases[0].clone();
            let taken: Vec<_> = iter::from_fn(|| lease.take(1, cluster.now).ok()).take(15).collect();
            cluster.holders[0].signal(&cluster.key);
            cluster.run(50 * MS);
            taken.into_iter().for_each(|it| lease.put_back(it));
        }
        assert_eq!(cluster.ledger.pool(&cluster.key).is_some(), is_in_the_ledger);
        cluster.cut[0] = true;
        cluster.run(S);
        cluster.edit(permits(30, 2));
        cluster.run(2 * S);
        let in_flight: u64 = iter::from_fn(|| cluster.take(0, 1).then_some(1)).sum();
        assert!(in_flight >= 9, "{in_flight}");
        // Its session is over, and a rest by the new hold.
        cluster.run(7 * S);
        let others = cluster.exhaust(&[1, 2], S);
        let all = in_flight + others;
        assert!((20..=30).contains(&all), "{in_flight} and {others} in flight, in the ledger: {is_in_the_ledger}");
    }
}

#[test]
fn shares_that_an_edit_ends_count_as_spent() {
    let modes = [(Mode::Exact, NoQuorum::Deny), (Mode::Leased, NoQuorum::Reserve)];
    for (mode, on_no_quorum) in modes {
        let mut cluster = Cluster::of(sliding(300, 10));
        cluster.run(15 * S);
        cluster.ask_of("implicit");
        let mut sum: u64 = ALL.iter().map(|n| (0..80).filter(|_| cluster.take(*n, 1)).count() as u64).sum();
        assert!(cluster.ledger.pool(&cluster.key).is_none() && sum == 240);
        cluster.edit_to(Rule { mode, on_no_quorum, ..rule(sliding(300, 10)) });
        sum += cluster.exhaust(&ALL, 2 * S);
        assert!((260..=300).contains(&sum), "{sum} of 300 with {mode:?} {on_no_quorum:?}");
    }
}

/// Also of keys that are asked for all the time.
#[test]
fn what_a_limit_does_without_a_quorum_is_edited() {
    for (from, to) in [(NoQuorum::Deny, NoQuorum::Reserve), (NoQuorum::Reserve, NoQuorum::Deny)] {
        for kind in [sliding(100, 10), calendar(100_000, Every::Hour)] {
            let of = |on_no_quorum| Rule { on_no_quorum, ..rule(kind) };
            let mut cluster = Cluster::with(of(from));
            for round in 0..80 {
                if round == 20 {
                    cluster.edit_to(of(to));
                }
                while round % 10 < 5 && cluster.take(0, 7) {}
                assert!(cluster.leases[0].wait(7, 8));
                cluster.holders[0].signal(&cluster.key);
                cluster.run(100 * MS);
                cluster.leases[0].wait_over(7);
            }
            cluster.cut = [true; NODES];
            cluster.run(15 * S);
            let beyond = iter::from_fn(|| cluster.take(0, 1).then_some(1)).sum::<u64>();
            assert_eq!(beyond > 0, to == NoQuorum::Reserve, "{beyond} from {from:?} to {to:?} of {kind:?}");
        }
    }
}

#[test]
fn another_cycle_does_not_begin_the_period_again() {
    let mut cluster = Cluster::of(calendar(300, Every::Minute));
    let mut sum = 0;
    let mut ask = |cluster: &mut Cluster| {
        sum += u64::from(RESERVE) * u64::from(cluster.ask(0, RESERVE.into()));
        cluster.roll();
        sum
    };
    for _ in 0..30 {
        ask(&mut cluster);
    }
    cluster.edit(calendar(300, Every::Hour));
    for _ in 0..10 {
        ask(&mut cluster);
    }
    assert_eq!(ask(&mut cluster), 300);
    let ends_us = cluster.ledger.limit(1).and_then(|it| it.period).map(|it| it.ends_us);
    assert_eq!(ends_us, Some(UNIX_US + 3_600 * S), "and it ends with the hour");
}

/// A node that is cut off spends what it has prepaid by the end that it knew.
#[test]
fn a_period_ends_no_sooner_than_every_session_that_has_not_heard() {
    let mut cluster = Cluster::of(calendar(300, Every::Hour));
    cluster.run(2 * S);
    assert!(cluster.leases[0].wait(50, 8));
    cluster.holders[0].signal(&cluster.key);
    cluster.run(200 * MS);
    cluster.leases[0].wait_over(50);
    assert!(cluster.leases[0].counts(cluster.now).free >= 50);
    cluster.cut[0] = true;
    cluster.edit(calendar(300, Every::Minute));
    let ends_s = cluster.now / S + 2;
    let roll = |begins_s: u64, ends_s: u64| {
        let begins = UNIX_US / S + begins_s;
        LedgerCommand::RollPeriod { limit: 1, period: begins, ends_us: UNIX_US + ends_s * S }
    };
    cluster.say(roll(ends_s - 1, ends_s));
    cluster.run(ends_s * S - cluster.now);
    cluster.say(roll(ends_s, ends_s + 60));
    cluster.run(100 * MS);
    let mut sum = iter::from_fn(|| cluster.take(0, 1).then_some(1)).sum::<u64>();
    assert!(sum >= 50, "its session lasts");
    for n in [1, 2] {
        assert!(cluster.leases[n].wait(140, 8));
        cluster.holders[n].signal(&cluster.key);
        cluster.run(300 * MS);
        cluster.leases[n].wait_over(140);
        sum += iter::from_fn(|| cluster.take(n, 1).then_some(1)).sum::<u64>();
    }
    assert!((200..=300).contains(&sum), "{sum} within some seconds");
}

#[test]
fn what_is_owed_when_a_window_is_edited_is_owed_after_it() {
    for late in [false, true] {
        let mut cluster = Cluster::of(sliding(100, 10));
        assert!(cluster.ask(0, RESERVE.into()));
        let old = cluster.leases[0].clone();
        let owe = |cluster: &mut Cluster| {
            old.owe(90, 100);
            cluster.holders[0].signal(&cluster.key);
        };
        // The answer may come before or after it.
        if !late {
            owe(&mut cluster);
        }
        cluster.edit(sliding(100, 20));
        if late {
            owe(&mut cluster);
        }
        cluster.run(150 * MS);
        let sum = 100 + cluster.exhaust(&ALL, 5 * S);
        assert_eq!(sum, 100, "late: {late}");
    }
}

/// Each of them heard, and in all no more than there ever is.
#[test]
fn answers_to_what_was_taken_before_an_edit_are_settled() {
    let mut cluster = Cluster::of(sliding(300, 10));
    cluster.run(15 * S);
    cluster.ask_of("implicit");
    assert!(cluster.take(0, 1));
    let old = cluster.leases[0].clone();
    cluster.edit(sliding(300, 20));
    for _ in 0..3 {
        old.owe(200, 300);
        assert!(old.signal(), "it is heard");
        cluster.holders[0].signal(&cluster.key);
        cluster.run(100 * MS);
    }
    cluster.take(0, 1);
    let counts = cluster.leases[0].counts(cluster.now);
    let owed = cluster.leases[0].owed();
    assert!(owed <= 300 && counts.used + owed >= 300, "{owed} owed, {counts:?}");
}
