//! The independent auditor: it sees every answer that admitted a request, knows nothing of how that was decided, and asks
//! one question: can each admission be placed between its request's first byte and its answer so that no window of the
//! limit's length holds more than the limit?

use std::{cmp::Reverse, collections::BinaryHeap};

/// One admission as its client saw it, in microseconds of the test's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admission {
    /// Before the request's first byte was sent.
    pub first_us: u64,
    /// After its answer had come.
    pub answer_us: u64,
}

/// How many admissions could not be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    pub overshoot: u64,
    /// Where the first of them was.
    pub at_us: u64,
}

/// The kinder of two orders: each as soon as may be, and, looking back from the end, each as late as may be.
pub fn audit(admissions: &[Admission], window_us: u64, limit: usize) -> Verdict {
    let soon = place(admissions, window_us, limit);
    if soon.overshoot == 0 {
        return soon;
    }
    let end_us = admissions.iter().map(|it| it.answer_us).max().unwrap_or(0);
    let back = |it: &Admission| Admission { first_us: end_us - it.answer_us, answer_us: end_us - it.first_us };
    let mirrored: Vec<_> = admissions.iter().map(back).collect();
    let late = place(&mirrored, window_us, limit);
    match late.overshoot < soon.overshoot {
        true => Verdict { at_us: end_us - late.at_us, ..late },
        false => soon,
    }
}

/// Places admissions one after another: of those that have begun, the one whose answer came first. One that would have to
/// lie behind its answer is one too many, and takes no place.
fn place(admissions: &[Admission], window_us: u64, limit: usize) -> Verdict {
    let mut by_first = admissions.to_vec();
    by_first.sort_unstable();
    let mut coming = by_first.into_iter().peekable();
    let mut begun = BinaryHeap::new();
    let mut placed: Vec<u64> = Vec::new();
    let mut verdict = Verdict::default();
    loop {
        // No two of `limit + 1` neighbours lie within one half-open window.
        let free_us = placed.len().checked_sub(limit).map_or(0, |at| placed[at] + window_us);
        let last_us = placed.last().copied().unwrap_or(0);
        let mut now_us = free_us.max(last_us);
        if begun.is_empty() {
            let Some(next) = coming.peek() else { return verdict };
            now_us = now_us.max(next.first_us);
        }
        while let Some(it) = coming.next_if(|it| it.first_us <= now_us) {
            begun.push(Reverse((it.answer_us, it.first_us)));
        }
        let Reverse((answer_us, _)) = begun.pop().expect("one has begun by now");
        if answer_us < now_us {
            verdict.overshoot += 1;
            verdict.at_us = if verdict.overshoot == 1 { answer_us } else { verdict.at_us };
        } else {
            placed.push(now_us);
        }
    }
}

/// How many of them were answered within each of `count` windows from `from_us` on.
pub fn per_window(admissions: &[Admission], from_us: u64, window_us: u64, count: usize) -> Vec<usize> {
    let mut counts = vec![0; count];
    for it in admissions.iter().filter(|it| it.answer_us >= from_us) {
        if let Some(count) = counts.get_mut(((it.answer_us - from_us) / window_us) as usize) {
            *count += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spans: &[(u64, u64)], limit: usize, overshoot: u64) {
        let admissions: Vec<_> = spans
            .iter()
            .map(|(first_us, answer_us)| Admission { first_us: *first_us, answer_us: *answer_us })
            .collect();
        assert_eq!(audit(&admissions, 10, limit).overshoot, overshoot, "{spans:?}");
    }

    #[test]
    fn a_window_is_half_open_and_every_one_counts() {
        check(&[(0, 0), (5, 5), (10, 10), (15, 15)], 2, 0);
        check(&[(0, 0), (5, 5), (9, 9)], 2, 1);
        check(&[(0, 0), (1, 1), (2, 2), (3, 3), (10, 10)], 2, 2);
    }

    #[test]
    fn an_admission_may_be_anywhere_up_to_its_answer() {
        check(&[(0, 0), (5, 5), (9, 12)], 2, 0);
        check(&[(0, 0), (5, 5), (6, 9), (6, 12)], 2, 1);
    }

    #[test]
    fn the_one_that_has_to_hurry_goes_first() {
        check(&[(0, 30), (1, 1), (1, 1)], 2, 0);
        check(&[(0, 0), (0, 0), (2, 40), (3, 10), (4, 20)], 2, 0);
    }

    #[test]
    fn windows_are_counted_by_answers() {
        let at = |us| Admission { first_us: us, answer_us: us };
        assert_eq!(per_window(&[at(3), at(5), at(14), at(15), at(99)], 5, 10, 2), [2, 1]);
    }
}
