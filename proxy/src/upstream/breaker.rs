//! The breaker of one upstream on this node: too many failures within a window and nothing is sent for a while; then a
//! few calls try, and close it if all of them pass. Shared by the workers without a lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quorumgate_model::resource::Breaker as Rules;

/// Calls that try whether the upstream is back.
const PROBES: u32 = 3;
/// Parts of the window: the oldest is forgotten at once.
const PARTS: usize = 10;
/// The highest count of a part; there it stays.
const COUNT_MAX: u64 = (1 << 20) - 1;
const EPOCH_MASK: u64 = (1 << 24) - 1;

#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// 0: closed. Else nothing is sent until then, and after that probes only.
    until_ns: AtomicU64,
    /// Probes let through since then, and those of them that passed.
    probes: AtomicU32,
    passed: AtomicU32,
    /// Each: which part of time (24 bits), failed calls (20 bits), all calls (20 bits).
    parts: [AtomicU64; PARTS],
    opened: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// One call that was let through; to be told how it went. Dropped without that, it says nothing.
pub(super) struct Passage {
    breaker: Arc<Breaker>,
    rules: Rules,
    /// The `until_ns` that it is a probe of.
    probe: Option<u64>,
    told: bool,
}

/// Nothing is sent for this long.
pub(super) struct IsOpen(pub Duration);

impl Breaker {
    pub fn admit(self: &Arc<Self>, rules: &Rules, now_ns: u64) -> Result<Passage, IsOpen> {
        let until = self.until_ns.load(Relaxed);
        let passage = |probe| Passage { breaker: self.clone(), rules: rules.clone(), probe, told: false };
        if until == 0 {
            return Ok(passage(None));
        }
        if now_ns < until {
            return Err(IsOpen(Duration::from_nanos(until - now_ns)));
        }
        let free = |taken: u32| (taken < PROBES).then_some(taken + 1);
        match self.probes.fetch_update(Relaxed, Relaxed, free) {
            Ok(_) => Ok(passage(Some(until))),
            // Those that try will have told within a moment.
            Err(_) => Err(IsOpen(Duration::from_secs(1))),
        }
    }

    pub fn state(&self, now_ns: u64) -> BreakerState {
        match self.until_ns.load(Relaxed) {
            0 => BreakerState::Closed,
            until if now_ns < until => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    fn record(&self, rules: &Rules, now_ns: u64, failed: bool) {
        let epoch = epoch(rules, now_ns);
        let part = &self.parts[(epoch % PARTS as u64) as usize];
        let counted = |word: u64| {
            let (mut failures, mut all) = (0, 0);
            if word >> 40 == epoch & EPOCH_MASK {
                (failures, all) = (word >> 20 & COUNT_MAX, word & COUNT_MAX);
            }
            let failures = (failures + u64::from(failed)).min(COUNT_MAX);
            Some((epoch & EPOCH_MASK) << 40 | failures << 20 | (all + 1).min(COUNT_MAX))
        };
        let _ = part.fetch_update(Relaxed, Relaxed, counted);
    }

    fn is_over(&self, rules: &Rules, now_ns: u64) -> bool {
        let epoch = epoch(rules, now_ns);
        let (mut failures, mut all) = (0, 0);
        for word in self.parts.iter().map(|part| part.load(Relaxed)) {
            if (epoch.wrapping_sub(word >> 40) & EPOCH_MASK) < PARTS as u64 {
                failures += word >> 20 & COUNT_MAX;
                all += word & COUNT_MAX;
            }
        }
        rules.error_percent > 0
            && all >= u64::from(rules.min_requests)
            && failures * 100 >= all * u64::from(rules.error_percent)
    }

    /// Only from the state that the caller has seen, so that late news of another one change nothing.
    fn turn(&self, from: u64, to: u64) {
        if self.until_ns.compare_exchange(from, to, Relaxed, Relaxed).is_err() {
            return;
        }
        self.parts.iter().for_each(|part| part.store(0, Relaxed));
        self.passed.store(0, Relaxed);
        self.probes.store(0, Relaxed);
        if from == 0 {
            self.opened.fetch_add(1, Relaxed);
        }
    }
}

fn epoch(rules: &Rules, now_ns: u64) -> u64 {
    now_ns / (rules.window.0.as_nanos() as u64 / PARTS as u64).max(1)
}

impl Passage {
    pub fn tell(mut self, now_ns: u64, failed: bool) {
        self.told = true;
        let opens_again = now_ns + self.rules.open.0.as_nanos() as u64;
        let breaker = &self.breaker;
        match self.probe {
            None => {
                breaker.record(&self.rules, now_ns, failed);
                if failed && breaker.is_over(&self.rules, now_ns) {
                    breaker.turn(0, opens_again);
                }
            }
            Some(until) if failed => breaker.turn(until, opens_again),
            Some(until) => {
                if breaker.until_ns.load(Relaxed) == until && breaker.passed.fetch_add(1, Relaxed) + 1 == PROBES {
                    breaker.turn(until, 0);
                }
            }
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let is_open_probe = |until| self.breaker.until_ns.load(Relaxed) == until;
        if !self.told && self.probe.is_some_and(is_open_probe) {
            // Another may try in its place.
            let _ = self.breaker.probes.fetch_update(Relaxed, Relaxed, |taken| taken.checked_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::units::Span;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn rules() -> Rules {
        Rules { window: Span::secs(10), open: Span::secs(10), ..Rules::default() }
    }

    fn tell(it: &Arc<Breaker>, at: u64, failed: bool) {
        let Ok(passage) = it.admit(&rules(), at) else { panic!("open at {at}") };
        passage.tell(at, failed);
    }

    fn open(at: u64) -> Arc<Breaker> {
        let it = Arc::new(Breaker::default());
        (0..20).for_each(|_| tell(&it, at, true));
        assert_eq!(it.state(at), BreakerState::Open);
        it
    }

    #[test]
    fn it_opens_at_the_share_and_not_before_the_least_number() {
        let it = Arc::new(Breaker::default());
        (0..19).for_each(|_| tell(&it, S, true));
        assert_eq!(it.state(S), BreakerState::Closed, "nineteen are too few to conclude anything");
        tell(&it, S, true);
        assert_eq!(it.state(S), BreakerState::Open);
        let it = Arc::new(Breaker::default());
        (0..11).for_each(|_| tell(&it, S, false));
        (0..10).for_each(|_| tell(&it, S, true));
        assert_eq!(it.state(S), BreakerState::Closed, "10 of 21");
        tell(&it, S, true);
        assert_eq!(it.state(S), BreakerState::Open, "11 of 22");
    }

    #[test]
    fn what_was_before_the_window_counts_no_more() {
        let it = Arc::new(Breaker::default());
        (0..19).for_each(|_| tell(&it, S, true));
        tell(&it, 12 * S, true);
        assert_eq!(it.state(12 * S), BreakerState::Closed);
    }

    #[test]
    fn three_probes_that_pass_close_it_and_a_fourth_must_wait() {
        let it = open(S);
        assert!(it.admit(&rules(), 2 * S).is_err_and(|open| open.0 == Duration::from_secs(9)));
        let probes: Vec<_> = (0..3).map(|_| it.admit(&rules(), 11 * S).ok().unwrap()).collect();
        assert_eq!(it.state(11 * S), BreakerState::HalfOpen);
        assert!(it.admit(&rules(), 11 * S).is_err(), "three are enough to see");
        probes.into_iter().for_each(|probe| probe.tell(12 * S, false));
        assert_eq!(it.state(12 * S), BreakerState::Closed);
        (0..19).for_each(|_| tell(&it, 12 * S, true));
        assert_eq!(it.state(12 * S), BreakerState::Closed, "it starts with a clean slate");
    }

    #[test]
    fn a_probe_that_fails_opens_it_again_whatever_the_others_say() {
        let it = open(S);
        let [one, two, three] = [(); 3].map(|()| it.admit(&rules(), 11 * S).ok().unwrap());
        one.tell(11 * S, false);
        two.tell(12 * S, true);
        three.tell(12 * S, false);
        assert_eq!(it.state(21 * S), BreakerState::Open);
        assert_eq!(it.state(22 * S), BreakerState::HalfOpen);
        assert_eq!(it.opened(), 1, "it has not been closed in between");
    }

    #[test]
    fn a_probe_whose_client_leaves_makes_room_for_another() {
        let it = open(S);
        (0..10).for_each(|_| drop(it.admit(&rules(), 11 * S).ok().unwrap()));
        (0..3).for_each(|_| tell(&it, 11 * S, false));
        assert_eq!(it.state(11 * S), BreakerState::Closed);
    }

    #[test]
    fn without_a_share_it_never_opens() {
        let it = Arc::new(Breaker::default());
        let rules = Rules { error_percent: 0, ..rules() };
        for _ in 0..100 {
            it.admit(&rules, S).ok().unwrap().tell(S, true);
        }
        assert_eq!(it.state(S), BreakerState::Closed);
    }
}
