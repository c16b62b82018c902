//! What never may be: a slot used twice within its rest, whatever the order of calls and wherever threads stop.

use proptest::prelude::*;

use super::*;

const WINDOW: u64 = 1_000_000;

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
fn a_slot_comes_back_after_its_rest_and_at_most_a_grain_late() {
    let (rest, bucket) = (Rest::of_window(WINDOW), Bucket::default());
    bucket.grant(1, 0);
    let _ = bucket.take(&rest, 1, 0).unwrap();
    let due = bucket.take(&rest, 1, 1).unwrap_err().next_us.unwrap();
    assert!((WINDOW..=WINDOW + WINDOW / GRAINS * 2).contains(&due), "{due}");
    assert!(bucket.take(&rest, 1, due - 1).is_err());
    assert!(bucket.take(&rest, 1, due).is_ok());
}

/// Nobody has to take anything for that.
#[test]
fn counts_see_what_has_rested_since() {
    let (rest, bucket) = (Rest::of_window(WINDOW), Bucket::default());
    bucket.grant(3, 0);
    let taken = bucket.take(&rest, 2, 0).unwrap();
    let due = bucket.counts(&rest, 0).whole_us.unwrap();
    assert!((WINDOW..=WINDOW + WINDOW / GRAINS * 2).contains(&due), "{due}");
    for (at_us, free, used, whole_us) in [(0, 1, 2, Some(due)), (due - 1, 1, 2, Some(due)), (due, 3, 0, None)] {
        assert_eq!(bucket.counts(&rest, at_us), Counts { free, used, whole_us }, "at {at_us}, of {taken:?}");
    }
}

/// A thread reads its clock, stops, and takes a slot that has come free since.
#[test]
fn a_take_that_was_held_up_counts_from_when_its_slot_came_free() {
    let stale = WINDOW / 2;
    let (rest, granted) = (Rest::of_window(WINDOW), Bucket::default());
    granted.grant(1, WINDOW);
    assert_eq!(granted.take(&rest, 1, stale).unwrap().at_us, WINDOW);
    assert!(granted.take(&rest, 1, 2 * WINDOW).is_err());

    let swept = Bucket::default();
    swept.grant(1, 0);
    let _ = swept.take(&rest, 1, 0).unwrap();
    assert_eq!(swept.free_count(&rest, 2 * WINDOW), 1);
    let at_us = swept.take(&rest, 1, stale).unwrap().at_us;
    assert!((WINDOW..=2 * WINDOW).contains(&at_us), "{at_us}");
    assert!(swept.take(&rest, 1, at_us + WINDOW).is_err());
    assert!(swept.take(&rest, 1, at_us + WINDOW + WINDOW / GRAINS * 2).is_ok());
}

#[test]
fn what_was_put_back_is_free_at_once_and_only_once() {
    let (rest, bucket) = (Rest::of_window(WINDOW), Bucket::default());
    bucket.grant(2, 0);
    let taken = bucket.take(&rest, 2, 0).unwrap();
    bucket.put_back(&rest, taken);
    assert_eq!(bucket.free_count(&rest, 0), 2);
    assert_eq!(bucket.free_count(&rest, 3 * WINDOW), 2);
}

/// What the ledger was told to rest must not be used again before: it would be lent to another at that instant.
#[test]
fn what_was_reported_is_not_undone() {
    let (rest, bucket) = (Rest::of_window(WINDOW), Bucket::default());
    bucket.grant(3, 0);
    let mut reported = bucket.take(&rest, 2, 5).unwrap();
    bucket.seal(6);
    bucket.put_back(&rest, reported.part(1));
    assert_eq!(bucket.free_count(&rest, 7), 1);
    let later = bucket.take(&rest, 1, 7).unwrap();
    bucket.put_back(&rest, later);
    assert_eq!(bucket.free_count(&rest, 7), 1, "taken after it");
    assert_eq!(bucket.free_count(&rest, 3 * WINDOW), 3, "nothing is lost");
}

#[test]
fn nothing_of_an_old_lease_comes_back_in_a_new_one() {
    let (rest, bucket) = (Rest::of_window(WINDOW), Bucket::default());
    bucket.grant(5, 0);
    let taken = bucket.take(&rest, 3, 0).unwrap();
    bucket.void();
    bucket.put_back(&rest, taken);
    assert_eq!(bucket.free_count(&rest, 9 * WINDOW), 0);
    bucket.grant(1, 0);
    assert_eq!(bucket.free_count(&rest, 20 * WINDOW), 1);
}

#[test]
fn a_cold_key_is_small_and_a_hot_one_at_most_two_kibibytes() {
    let (rest, bucket) = (Rest::of_window(WINDOW), Bucket::default());
    bucket.grant(10_000, 0);
    for n in 0..4 {
        let _ = bucket.take(&rest, 1, n * WINDOW / GRAINS).unwrap();
    }
    assert!(bucket.bytes() <= 128, "{}", bucket.bytes());
    for n in 0..1_000 {
        let _ = bucket.take(&rest, 1, n * WINDOW / 100).unwrap();
    }
    assert!(bucket.bytes() <= 2_048, "{}", bucket.bytes());
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Take(u32),
    TakeAndPutBack(u32),
    ReleaseFree(u32),
    ReleaseUsed(u32),
    Void,
    Grant(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..WINDOW / 4).prop_map(Step::Wait),
        1 => (WINDOW..200 * WINDOW).prop_map(Step::Wait),
        8 => (1..4u32).prop_map(Step::Take),
        2 => (1..4u32).prop_map(Step::TakeAndPutBack),
        1 => (1..9u32).prop_map(Step::ReleaseFree),
        1 => (1..9u32).prop_map(Step::ReleaseUsed),
        1 => Just(Step::Void),
        1 => (1..9u32).prop_map(Step::Grant),
    ]
}

proptest! {
    /// Slots that were released or voided are granted again only after a rest, as the ledger would.
    #[test]
    fn no_window_holds_more_than_was_granted(window in prop_oneof![Just(WINDOW), Just(64), Just(1), Just(7_777)], steps in prop::collection::vec(step(), 1..200)) {
        let (rest, bucket) = (Rest::of_window(window), Bucket::default());
        let (mut now, mut held, mut used) = (0, 20, Vec::new());
        let mut all = 20;
        bucket.grant(20, 0);
        for step in steps {
            match step {
                Step::Wait(us) => now += us * window / WINDOW,
                Step::Take(cost) => if bucket.take(&rest, cost, now).is_ok() { used.push((now, cost)) },
                Step::TakeAndPutBack(cost) => if let Ok(taken) = bucket.take(&rest, cost, now) { bucket.put_back(&rest, taken) },
                Step::ReleaseFree(count) => held -= bucket.release_free(&rest, count, now),
                Step::ReleaseUsed(count) => held -= bucket.release_used(&rest, count, now).iter().map(|it| it.count).sum::<u32>(),
                Step::Void => { bucket.void(); held = 0 }
                Step::Grant(count) => { bucket.grant(count, now); held += count; all += count }
            }
            let counted = bucket.free_count(&rest, now) + bucket.used(&rest, now).iter().map(|it| u64::from(it.count)).sum::<u64>();
            prop_assert_eq!(counted, u64::from(held), "slots are neither lost nor made");
        }
        prop_assert!(densest(used, window) <= u64::from(all));
    }
}

#[test]
fn what_there_is_no_room_for_is_lost_and_nothing_else_of_it_breaks() {
    let (bucket, rest) = (Bucket::default(), Rest::spent());
    bucket.grant(SLOTS_MAX, 1);
    let taken = bucket.take(&rest, 7, 2).unwrap();
    bucket.grant(5, 3);
    bucket.put_back(&rest, taken);
    assert_eq!(bucket.free_count(&rest, 4), u64::from(SLOTS_MAX));
    assert!(bucket.take(&rest, SLOTS_MAX, 5).is_ok());
    assert!(bucket.take(&rest, 1, 6).is_err());
}

#[test]
fn what_a_grain_cannot_hold_is_lost_and_nothing_else_of_it_breaks() {
    let (bucket, rest) = (Bucket::default(), Rest::of_window(WINDOW));
    for _ in 0..2 {
        bucket.grant(SLOTS_MAX, 1);
        assert!(bucket.take(&rest, SLOTS_MAX, 2).is_ok());
    }
    let home_us = 2 + rest.us() + WINDOW / GRAINS;
    assert_eq!(bucket.free_count(&rest, home_us), u64::from(SLOTS_MAX));
    assert_eq!(bucket.used(&rest, home_us), []);
}
