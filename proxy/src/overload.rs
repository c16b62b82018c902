//! A worker that cannot keep up refuses a part of what is asked, of the lowest route priorities first, so that what it
//! takes it serves in time. Two things tell: its tasks wait for their turn too long (a queue that stands, not a burst:
//! Nichols and Jacobson, "Controlling Queue Delay", 2012), and the bytes that it holds for clients near their bound.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

/// The shortest delay of so many ticks is what stands; half a second.
const TICKS: usize = 5;
/// By how much the refused share grows with each tick of a standing queue, and shrinks with each without one.
const GROWS: f64 = 0.10;
const SHRINKS: f64 = 0.05;
/// Something always gets through, to see whether it is over.
const SHARE_MAX: f64 = 0.95;
/// From this part of the bytes on the refused share grows, up to all of them.
const HELD_FROM: f64 = 0.75;
/// Priorities that are told apart; more count as the lowest of these.
const PRIORITIES_MAX: usize = 256;

#[derive(Default)]
pub(crate) struct Overload {
    delays: Cell<[Duration; TICKS]>,
    /// Of the queue alone.
    queued_share: Cell<f64>,
    /// What part of the requests is refused.
    share: Cell<f64>,
    /// Requests since the last tick by priority; only counted while any are refused.
    asked: RefCell<BTreeMap<i32, u32>>,
    cut: Cell<Option<Cut>>,
    /// What the refused share has added up to since one was refused.
    debt: Cell<f64>,
}

/// Whom the refused share meets.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cut {
    /// All below it, and
    priority: i32,
    /// this part of those at it.
    share: f64,
}

impl Overload {
    /// Ten times a second: how late this tick is, what is too late (zero: nothing is), and which part of the bytes that
    /// may be held for clients is.
    pub(crate) fn tick(&self, late: Duration, late_max: Duration, held: f64) {
        let mut delays = self.delays.get();
        delays.rotate_left(1);
        delays[TICKS - 1] = late;
        self.delays.set(delays);
        let stands = !late_max.is_zero() && delays.iter().all(|delay| *delay > late_max);
        let queued = self.queued_share.get() + if stands { GROWS } else { -SHRINKS };
        self.queued_share.set(queued.clamp(0.0, SHARE_MAX));
        let held = ((held - HELD_FROM) / (1.0 - HELD_FROM)).clamp(0.0, SHARE_MAX);
        self.share.set(self.queued_share.get().max(held));
        let asked = std::mem::take(&mut *self.asked.borrow_mut());
        if self.share.get() == 0.0 {
            self.cut.set(None);
        } else if !asked.is_empty() {
            self.cut.set(Some(cut(&asked, self.share.get())));
        }
    }

    /// Whether a request of a route of this priority is taken, now that this part of the bytes is held.
    pub(crate) fn takes(&self, priority: i32, held: f64) -> bool {
        // What is held may have gone since the tick; a queue is over when a tick says so.
        if self.queued_share.get() == 0.0 && held <= HELD_FROM {
            return true;
        }
        self.count(priority);
        match self.cut.get() {
            None => true,
            Some(cut) if priority == cut.priority => {
                let debt = self.debt.get() + cut.share;
                self.debt.set(debt.fract());
                debt < 1.0
            }
            Some(cut) => priority > cut.priority,
        }
    }

    fn count(&self, priority: i32) {
        let mut asked = self.asked.borrow_mut();
        let full = asked.len() >= PRIORITIES_MAX && !asked.contains_key(&priority);
        let lowest = asked.first_key_value().map_or(priority, |(lowest, _)| *lowest);
        *asked.entry(if full { lowest } else { priority }).or_default() += 1;
    }
}

fn cut(asked: &BTreeMap<i32, u32>, share: f64) -> Cut {
    let all: f64 = asked.values().map(|count| f64::from(*count)).sum();
    let mut left = share * all;
    for (priority, count) in asked {
        let count = f64::from(*count);
        if left < count {
            return Cut { priority: *priority, share: left / count };
        }
        left -= count;
    }
    Cut { priority: i32::MAX, share: SHARE_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(500);
    const LATE: Duration = Duration::from_millis(600);

    /// Of a hundred requests of each priority, how many are taken after each tick that is so late.
    fn taken(it: &Overload, late: Duration, held: f64, priorities: &[i32]) -> Vec<usize> {
        it.tick(late, MAX, held);
        let mut counts = vec![0; priorities.len()];
        for _ in 0..100 {
            for (count, priority) in counts.iter_mut().zip(priorities) {
                *count += usize::from(it.takes(*priority, held));
            }
        }
        counts
    }

    #[test]
    fn a_burst_is_served() {
        let it = Overload::default();
        for _ in 0..20 {
            for late in [LATE, LATE, LATE, LATE, Duration::ZERO] {
                assert_eq!(taken(&it, late, 0.0, &[0]), [100]);
            }
        }
    }

    #[test]
    fn a_queue_that_stands_is_shortened_step_by_step_and_then_all_is_served_again() {
        let it = Overload::default();
        let late: Vec<usize> = (0..10).map(|_| taken(&it, LATE, 0.0, &[0])[0]).collect();
        assert_eq!(late[..5], [100; 5]);
        assert!(late[5..].windows(2).all(|pair| pair[0] > pair[1]) && late[9] <= 60, "{late:?}");
        let after: Vec<usize> = (0..20).map(|_| taken(&it, Duration::ZERO, 0.0, &[0])[0]).collect();
        assert!(after.windows(2).all(|pair| pair[0] <= pair[1]), "{after:?}");
        assert_eq!(after[19], 100);
    }

    #[test]
    fn the_lowest_priorities_go_first() {
        let it = Overload::default();
        (0..8).for_each(|_| drop(taken(&it, LATE, 0.0, &[5, -1, 0])));
        let share = it.share.get();
        assert!((0.35..0.6).contains(&share), "{share}");
        let [high, low, middle] = taken(&it, LATE, 0.0, &[5, -1, 0])[..] else { unreachable!("three were asked for") };
        assert_eq!((high, low), (100, 0));
        assert!((1..100).contains(&middle), "{middle}");
    }

    #[test]
    fn something_always_gets_through() {
        let it = Overload::default();
        (0..50).for_each(|_| drop(taken(&it, LATE, 0.0, &[0])));
        assert_eq!(taken(&it, LATE, 0.0, &[0]), [5]);
    }

    #[test]
    fn bytes_near_their_bound_count_as_well_and_at_once() {
        let it = Overload::default();
        assert_eq!(taken(&it, Duration::ZERO, 0.74, &[0]), [100]);
        drop(taken(&it, Duration::ZERO, 0.9, &[0, 1]));
        let [low, high] = taken(&it, Duration::ZERO, 0.9, &[0, 1])[..] else { unreachable!("two were asked for") };
        assert_eq!((low, high > 50), (0, true));
        assert!(it.takes(0, 0.1), "what was held has gone: no tick is waited for");
        assert_eq!(taken(&it, Duration::ZERO, 0.1, &[0]), [100]);
    }

    #[test]
    fn with_no_bound_no_delay_is_too_long() {
        let it = Overload::default();
        (0..20).for_each(|_| it.tick(Duration::from_secs(9), Duration::ZERO, 0.0));
        assert!(it.takes(0, 0.0) && it.share.get() == 0.0);
    }

    #[test]
    fn more_priorities_than_are_told_apart_count_as_low() {
        let it = Overload::default();
        it.tick(Duration::ZERO, MAX, 0.9);
        let taken = (0..1000).filter(|priority| it.takes(*priority, 0.9)).count();
        assert_eq!(taken, 1000, "nothing is known of them before the next tick");
        assert_eq!(it.asked.borrow().len(), PRIORITIES_MAX);
    }
}
