//! Ejection: a target whose answers fail several times in a row is left alone for a while, each time a little longer.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quorumgate_model::resource::Outlier;

use super::{endpoint::Endpoint, origin::Member};

/// An ejection is at most so many times the first one's length.
pub(super) const EJECTION_FACTOR_MAX: u64 = 10;
/// Ejections are ignored once they leave less than this share of the targets that active checks leave.
const PANIC_PERCENT: usize = 50;

#[derive(Debug, Default)]
pub(super) struct Outliers {
    /// Taken to eject, which is rare, so that two workers do not eject more than are allowed together.
    deciding: Mutex<()>,
    /// When the last of them is back: until then targets are looked at one by one.
    until_ns: AtomicU64,
}

impl Outliers {
    /// An answer of the target failed. How long it is left alone, if that was one too many.
    pub fn erred(&self, rules: &Outlier, members: &[Member], endpoint: &Endpoint, now_ns: u64) -> Option<Duration> {
        let in_a_row = endpoint.erred();
        if rules.consecutive_errors == 0 || in_a_row < rules.consecutive_errors {
            return None;
        }
        let allowed = (members.len() * rules.max_ejected_percent as usize / 100).max(1);
        let may = || !endpoint.is_ejected(now_ns) && ejected(members, now_ns) < allowed;
        if !may() {
            return None;
        }
        let _alone = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        if !may() {
            return None;
        }
        let length_ns = endpoint.eject(now_ns, rules.ejection.0.as_nanos() as u64);
        self.until_ns.fetch_max(now_ns + length_ns, Relaxed);
        Some(Duration::from_nanos(length_ns))
    }

    /// Whether ejected targets are to be passed over. Active checks are never ignored: they do not come here.
    pub fn count(&self, members: &[Member], now_ns: u64) -> bool {
        if self.until_ns.load(Relaxed) <= now_ns {
            return false;
        }
        let healthy = || members.iter().filter(|member| member.endpoint.is_healthy());
        let left = healthy().filter(|member| !member.endpoint.is_ejected(now_ns)).count();
        left * 100 >= healthy().count() * PANIC_PERCENT
    }
}

fn ejected(members: &[Member], now_ns: u64) -> usize {
    members.iter().filter(|member| member.endpoint.is_ejected(now_ns)).count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorumgate_model::units::Span;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn members(count: usize) -> Vec<Member> {
        let member = |i: usize| {
            let address = ([127, 0, 0, 1], 9000 + i as u16).into();
            Member::plain(Arc::new(Endpoint::new(address, "a:1".into())))
        };
        (0..count).map(member).collect()
    }

    fn err(outliers: &Outliers, members: &[Member], which: usize, times: u32, now_ns: u64) -> Option<Duration> {
        let rules = Outlier { ejection: Span::secs(30), ..Outlier::default() };
        (0..times).map(|_| outliers.erred(&rules, members, &members[which].endpoint, now_ns)).last().flatten()
    }

    #[test]
    fn five_errors_in_a_row_eject_and_four_or_a_success_between_do_not() {
        let (it, members) = (Outliers::default(), members(3));
        assert_eq!(err(&it, &members, 0, 4, S), None);
        members[0].endpoint.went_well();
        assert_eq!(err(&it, &members, 0, 4, S), None);
        assert_eq!(err(&it, &members, 0, 1, S), Some(Duration::from_secs(30)));
        assert!(members[0].endpoint.is_ejected(31 * S - 1) && !members[0].endpoint.is_ejected(31 * S));
        assert!(it.count(&members, S) && !it.count(&members, 31 * S));
    }

    #[test]
    fn one_may_always_be_ejected_and_a_tenth_of_many() {
        for (count, allowed) in [(1, 1), (3, 1), (19, 1), (20, 2), (50, 5)] {
            let (it, members) = (Outliers::default(), members(count));
            for i in 0..count {
                err(&it, &members, i, 5, S);
            }
            assert_eq!(ejected(&members, S), allowed, "of {count}");
        }
    }

    #[test]
    fn each_further_ejection_is_longer_and_good_times_are_remembered() {
        let (it, members) = (Outliers::default(), members(3));
        let mut now = S;
        for expected in [30, 60, 90] {
            let length = err(&it, &members, 0, 5, now).unwrap();
            assert_eq!(length.as_secs(), expected);
            now += length.as_nanos() as u64;
        }
        now += 60 * S;
        assert_eq!(err(&it, &members, 0, 5, now).unwrap().as_secs(), 60, "two good stretches undo two");
        for _ in 0..20 {
            now += 10 * 30 * S;
            members[0].endpoint.eject(now, 30 * S);
        }
        assert!(!members[0].endpoint.is_ejected(now + 300 * S), "it has a bound");
    }

    #[test]
    fn below_half_of_the_targets_ejections_are_ignored() {
        let (it, members) = (Outliers::default(), members(4));
        let rules = Outlier { consecutive_errors: 1, max_ejected_percent: 100, ..Outlier::default() };
        for (i, counts) in [(0, true), (1, true), (2, false)] {
            it.erred(&rules, &members, &members[i].endpoint, S);
            assert_eq!(it.count(&members, S), counts, "{} of 4 are out", i + 1);
        }
        // Half of those that active checks leave.
        members[1].endpoint.set_healthy(false);
        members[2].endpoint.set_healthy(false);
        assert!(it.count(&members, S), "one of two");
    }
}
