//! Four threads on one bucket: whatever the interleaving, a slot is not used twice within its rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorumgate_model::ledger::{
    Ledger,
    bucket::{Bucket, Rest},
    command::{Key, Kind, LedgerCommand, Mode, NoQuorum, Rule},
    holder::{Holder, Outgoing},
};

/// The most admissions in any half-open window.
fn densest(mut at: Vec<(u64, u32)>, window: u64) -> u64 {
    at.sort();
    let (mut most, mut sum, mut first) = (0, 0, 0);
    for next in 0..at.len() {
        sum += u64::from(at[next].1);
        while at[next].0 - at[first].0 >= window {
            sum -= u64::from(at[first].1);
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

#[test]
fn workers_together_never_use_a_slot_twice_within_its_rest() {
    for (window, slots) in [(20_000, 7), (2_000, 50), (300, 3)] {
        let (rest, bucket) = (Rest::of_window(window), Bucket::default());
        let (clock, done, admitted) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        bucket.grant(slots, 0);
        let used = std::thread::scope(|scope| {
            let work = |worker| {
                let (bucket, rest, clock, done, admitted) = (&bucket, &rest, &clock, &done, &admitted);
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let now = clock.load(Ordering::SeqCst);
                        match bucket.take(rest, 1, now) {
                            Ok(taken) if worker == 0 && now % 5 == 0 => bucket.put_back(rest, taken),
                            Ok(taken) => {
                                mine.push((taken.at_us, 1));
                                admitted.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(_) => std::thread::yield_now(),
                        }
                    }
                    mine
                })
            };
            let workers = [0, 1, 2, 3].map(work);
            for _ in 0..200_000 {
                clock.fetch_add(1, Ordering::SeqCst);
                std::hint::spin_loop();
            }
            // On a busy machine the workers may not have begun by then.
            while admitted.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            done.store(true, Ordering::Relaxed);
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(!used.is_empty());
        assert!(densest(used, window) <= u64::from(slots), "window {window}");
        assert_eq!(bucket.free_count(&rest, 10_000_000), u64::from(slots), "window {window}");
    }
}

/// The same of a hot key, whose slots lie in a part for each worker: they fetch slots at a time, and gather the last ones.
#[test]
fn workers_with_parts_of_their_own_never_use_a_slot_twice_within_its_rest() {
    let (window_us, limit) = (20_000, 6_000);
    let mut ledger = Ledger::default();
    let kind = Kind::Sliding { limit, window_us };
    let rule = Rule { name: "hot".parse().unwrap(), kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Deny };
    ledger.apply(0, &LedgerCommand::DefineLimit(rule));
    ledger.apply(0, &LedgerCommand::ShareEpoch { divisor: 1 });
    let begins_us = 1_000_000;
    let mut holder = Holder::start(1, [1; 16], 1_000_000_000, &ledger, begins_us).for_workers(4);
    let Some(Outgoing::Open(open)) = holder.poll(begins_us) else { panic!("a session first") };
    let effects = ledger.apply(1, &LedgerCommand::OpenSession(open));
    holder.applied(&ledger, &effects, begins_us);
    let lease = holder.lease(&Key { limit: 1, who: "k".into() }, begins_us).unwrap();
    for _ in 0..5_000 {
        let _ = lease.take(1, begins_us).unwrap();
    }
    holder.evict(begins_us + 100_000);
    assert!(lease.is_split());

    let begins_us = begins_us + 200_000;
    let (clock, done) = (AtomicU64::new(begins_us), AtomicBool::new(false));
    let used = std::thread::scope(|scope| {
        let work = |worker| {
            let (lease, clock, done) = (&lease, &clock, &done);
            scope.spawn(move || {
                let mut mine = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let now = clock.load(Ordering::SeqCst);
                    match lease.take_on(worker, 1, now) {
                        Ok(taken) if worker == 0 && now % 5 == 0 => lease.put_back(taken),
                        Ok(taken) => mine.push((taken.at_us, 1)),
                        Err(_) => std::thread::yield_now(),
                    }
                }
                mine
            })
        };
        let workers = [0, 1, 2, 3].map(work);
        for _ in 0..200_000 {
            clock.fetch_add(1, Ordering::SeqCst);
            std::hint::spin_loop();
        }
        done.store(true, Ordering::Relaxed);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let counts = lease.counts(begins_us + 10_000_000);
    assert_eq!((counts.free, counts.used), (5_400, 0));
    assert!(densest(used, window_us) <= 5_400);
}
