//! When the keys of one issuer are fetched: regularly, and out of turn for a key id that nobody knows, which anybody
//! can make up. Pure: time is an argument.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// Key ids that are remembered as unknown, and that may wait for one fetch.
const ABSENT_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Without a Cache-Control of the provider.
    pub refresh: Duration,
    /// What a Cache-Control may ask for.
    pub refresh_min: Duration,
    pub refresh_max: Duration,
    /// After a failure; doubled with each one that follows.
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// Between two fetches for unknown key ids.
    pub refetch_gap: Duration,
    /// How long a key id that was looked for in vain is not looked for again.
    pub absent: Duration,
    /// How long keys are good while the provider is out of reach.
    pub stale: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(300),
            refresh_min: Duration::from_secs(30),
            refresh_max: Duration::from_secs(3600),
            retry_min: Duration::from_secs(2),
            retry_max: Duration::from_secs(60),
            refetch_gap: Duration::from_secs(30),
            absent: Duration::from_secs(60),
            stale: Duration::from_secs(24 * 3600),
        }
    }
}

/// What to do with a key id that is in no known key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Nothing: it was looked for a moment ago, or something was.
    Refused,
    /// Wait for the fetch that is running, or about to.
    Wait,
}

#[derive(Debug)]
pub(super) struct Schedule {
    timing: Timing,
    due: Instant,
    running: bool,
    failures: u32,
    /// The last fetch that was out of turn.
    refetched: Option<Instant>,
    /// What the next fetch, or the running one, was asked for before it began.
    wanted: Vec<Box<str>>,
    absent: BTreeMap<Box<str>, Instant>,
}

impl Schedule {
    pub(super) fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            due: now,
            running: false,
            failures: 0,
            refetched: None,
            wanted: Vec::new(),
            absent: BTreeMap::new(),
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn unknown(&mut self, kid: &str, now: Instant) -> Unknown {
        if self.absent.get(kid).is_some_and(|until| *until > now) {
            return Unknown::Refused;
        }
        let waiting = self.running || self.due <= now;
        let may = self.refetched.is_none_or(|last| last + self.timing.refetch_gap <= now);
        if !waiting && !may {
            return Unknown::Refused;
        }
        if !waiting {
            self.refetched = Some(now);
            self.due = now;
        }
        // The answer of a fetch that runs may be older than the key.
        if !self.running && self.wanted.len() < ABSENT_MAX && !self.wanted.iter().any(|it| **it == *kid) {
            self.wanted.push(kid.into());
        }
        Unknown::Wait
    }

    pub(super) fn started(&mut self) {
        self.running = true;
    }

    /// `max_age` is what the provider's Cache-Control says. `has` tells whether the new keys have an id.
    pub(super) fn succeeded(&mut self, now: Instant, max_age: Option<Duration>, has: impl Fn(&str) -> bool) {
        let Timing { refresh, refresh_min, refresh_max, absent, .. } = self.timing;
        (self.running, self.failures) = (false, 0);
        self.due = now + max_age.map_or(refresh, |it| it.clamp(refresh_min, refresh_max));
        self.absent.retain(|kid, until| *until > now && !has(kid));
        for kid in self.wanted.drain(..).filter(|kid| !has(kid)) {
            if self.absent.len() < ABSENT_MAX {
                self.absent.insert(kid, now + absent);
            }
        }
    }

    /// Nothing was learnt about the ids that were wanted.
    pub(super) fn failed(&mut self, now: Instant) {
        self.running = false;
        self.wanted.clear();
        let pause = self.timing.retry_min.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        self.due = now + pause.min(self.timing.retry_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        schedule: Schedule,
        now: Instant,
        fetches: u32,
    }

    impl World {
        /// The first fetch has just succeeded.
        fn new() -> Self {
            let now = Instant::now();
            let mut world = Self { schedule: Schedule::new(Timing::default(), now), now, fetches: 0 };
            world.fetch(&["known"]);
            world
        }

        fn fetch(&mut self, keys: &[&str]) {
            self.schedule.started();
            self.fetches += 1;
            self.schedule.succeeded(self.now, None, |kid| keys.contains(&kid));
        }

        /// Asks for the id and fetches if that is to be done.
        fn ask(&mut self, kid: &str, keys: &[&str]) -> Unknown {
            let outcome = self.schedule.unknown(kid, self.now);
            if self.schedule.due() <= self.now {
                self.fetch(keys);
            }
            outcome
        }
    }

    #[test]
    fn a_flood_of_made_up_ids_makes_one_fetch_in_30_seconds() {
        let mut world = World::new();
        for round in 0..600u32 {
            for id in 0..10 {
                world.ask(&format!("{round}-{id}"), &["known"]);
            }
            world.now += SECOND / 10;
        }
        // The first fetch, and one each at 0 and 30 seconds of the minute.
        assert_eq!(world.fetches, 3);
        assert!(world.schedule.absent.len() <= ABSENT_MAX && world.schedule.wanted.len() <= ABSENT_MAX);
    }

    #[test]
    fn one_id_that_nobody_knows_is_looked_for_once_in_60_seconds() {
        let mut world = World::new();
        assert_eq!(world.ask("made-up", &[]), Unknown::Wait);
        world.now += 59 * SECOND;
        assert_eq!(world.ask("made-up", &[]), Unknown::Refused);
        world.now += SECOND;
        assert_eq!(world.ask("made-up", &[]), Unknown::Wait);
    }

    #[test]
    fn a_rotation_right_after_a_regular_fetch_is_followed_at_once() {
        let mut world = World::new();
        assert_eq!(world.ask("new", &["known", "new"]), Unknown::Wait);
        assert_eq!(world.fetches, 2);
        assert!(world.schedule.absent.is_empty());
    }

    #[test]
    fn a_fetch_condemns_only_ids_that_it_was_asked_for_before_it_began() {
        let mut world = World::new();
        world.schedule.unknown("before", world.now);
        world.schedule.started();
        assert_eq!(world.schedule.unknown("during", world.now), Unknown::Wait);
        world.schedule.succeeded(world.now, None, |_| false);
        assert_eq!(world.schedule.absent.keys().map(|it| &**it).collect::<Vec<_>>(), ["before"]);
    }

    #[test]
    fn the_provider_says_how_often_within_bounds() {
        let check = |max_age: Option<u64>, expected: u64| {
            let now = Instant::now();
            let mut schedule = Schedule::new(Timing::default(), now);
            schedule.succeeded(now, max_age.map(Duration::from_secs), |_| true);
            assert_eq!(schedule.due() - now, Duration::from_secs(expected));
        };
        check(None, 300);
        check(Some(600), 600);
        check(Some(0), 30);
        check(Some(86_400), 3600);
    }

    #[test]
    fn failures_are_retried_ever_more_slowly() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(Timing::default(), now);
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                schedule.started();
                schedule.failed(now);
                let pause = schedule.due() - now;
                now = schedule.due();
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(schedule.is_failing());
        schedule.succeeded(now, None, |_| true);
        assert!(!schedule.is_failing());
    }

    #[test]
    fn a_failed_fetch_condemns_no_id() {
        let mut world = World::new();
        assert_eq!(world.schedule.unknown("new", world.now), Unknown::Wait);
        world.schedule.started();
        world.schedule.failed(world.now);
        world.now = world.schedule.due();
        assert_eq!(world.ask("new", &["new"]), Unknown::Wait);
        assert!(world.schedule.absent.is_empty());
    }
}
