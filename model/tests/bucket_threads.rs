//! Four threads on one bucket: whatever the interleaving, a slot is not used twice within its rest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quorumgate_model::ledger::bucket::{Bucket, Rest};

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
