//! Shares of policies over targets that are there, out, new, far or full.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use quorumgate_model::{
    resource::{Kind, Resource, Upstream},
    units::Span,
};
use serde_json::json;

use super::*;
use crate::upstream::{counters::Gauge, maglev, pool::Pool, registry::Book};

/// Targets `127.0.0.1:9000`, `9001` … of these weights.
fn config(policy: BalancePolicy, weights: &[u32]) -> Upstream {
    let target = |(i, weight): (usize, &u32)| json!({ "address": format!("127.0.0.1:{}", 9000 + i), "weight": weight });
    let targets: Vec<_> = weights.iter().enumerate().map(target).collect();
    let words = json!({ "name": "u", "targets": targets, "balance": { "policy": policy.word() } });
    match Kind::Upstream.parse(words).unwrap() {
        Resource::Upstream(it) => Upstream::clone(&it),
        _ => unreachable!("an upstream was asked for"),
    }
}

struct World {
    origin: Arc<Origin>,
    slots: Vec<Slot>,
    balancer: Balancer,
    random: Random,
    now: Instant,
}

impl World {
    fn new(config: Upstream) -> Self {
        let origin = Origin::build(&Arc::new(config), None, &Book::in_region("eu"));
        let slot = |member: &crate::upstream::origin::Member| {
            let gauge = Gauge::new(Arc::default(), 0);
            let pool = Rc::new(Pool::new(member.endpoint.clone(), origin.dialer.clone(), gauge));
            Slot { endpoint: member.endpoint.clone(), weight: member.weight, pool }
        };
        let slots: Vec<Slot> = origin.members.iter().map(slot).collect();
        let balancer = Balancer::new(&origin, &slots);
        Self { origin, slots, balancer, random: Random::new(), now: Instant::now() }
    }

    fn plain(policy: BalancePolicy, weights: &[u32]) -> Self {
        Self::new(config(policy, weights))
    }

    fn choose(&self, tried: &[usize], key: Option<u64>) -> Option<usize> {
        let (slots, origin, random, now) = (&self.slots, &self.origin, &self.random, self.now);
        self.balancer.choose(&Choice { slots, origin, tried, now, key, random })
    }

    /// In percent.
    fn shares(&self, tried: &[usize]) -> Vec<usize> {
        const ROUNDS: usize = 10_000;
        let mut counts = vec![0; self.slots.len()];
        (0..ROUNDS).for_each(|_| counts[self.choose(tried, None).unwrap()] += 1);
        counts.iter().map(|count| (count * 100 + ROUNDS / 2) / ROUNDS).collect()
    }

    fn answers_in(&self, i: usize, ms: u64) {
        self.slots[i].endpoint.answered(self.now, Duration::from_millis(ms));
    }

    fn eject(&self, i: usize) {
        for _ in 0..5 {
            self.origin.failed(&self.slots[i].endpoint, self.now);
        }
        assert!(self.slots[i].endpoint.is_ejected(nanos(self.now)));
    }
}

fn near(shares: &[usize], expected: &[usize]) -> bool {
    shares.iter().zip(expected).all(|(share, expected)| share.abs_diff(*expected) <= 3)
}

#[test]
fn equally_fast_targets_share_by_weight() {
    for policy in [BalancePolicy::P2cEwma, BalancePolicy::RoundRobin, BalancePolicy::Random, BalancePolicy::Maglev] {
        let world = World::plain(policy, &[6, 3, 1]);
        (0..3).for_each(|i| world.answers_in(i, 10));
        let shares = world.shares(&[]);
        assert!(near(&shares, &[60, 30, 10]), "{policy:?}: {shares:?}");
    }
}

#[test]
fn two_choices_take_the_clearly_faster_one() {
    let world = World::plain(BalancePolicy::P2cEwma, &[1, 1]);
    world.answers_in(0, 10);
    world.answers_in(1, 100);
    assert_eq!(world.shares(&[]), [100, 0]);
    // Until so many wait for it that the slower one would be done first.
    (0..20).for_each(|_| world.slots[0].endpoint.begin());
    assert_eq!(world.shares(&[]), [0, 100]);
}

#[test]
fn least_requests_counts_by_weight() {
    let world = World::plain(BalancePolicy::LeastRequests, &[4, 1]);
    (0..2).for_each(|_| world.slots[0].endpoint.begin());
    world.slots[1].endpoint.begin();
    assert_eq!(world.shares(&[]), [100, 0]);
}

#[test]
fn neither_the_unhealthy_nor_the_tried_are_chosen() {
    for policy in BalancePolicy::ALL {
        let world = World::plain(policy, &[1, 1000, 1]);
        world.slots[1].endpoint.set_healthy(false);
        assert_eq!(world.shares(&[0]), [0, 0, 100], "{policy:?}");
        assert_eq!(world.choose(&[0, 2], None), None, "{policy:?}");
    }
}

#[test]
fn an_ejected_target_gets_nothing_and_then_little_and_then_its_share() {
    for policy in
        [BalancePolicy::P2cEwma, BalancePolicy::RoundRobin, BalancePolicy::LeastRequests, BalancePolicy::Random]
    {
        let mut world = World::plain(policy, &[1, 1]);
        (0..2).for_each(|i| world.answers_in(i, 10));
        world.eject(0);
        assert_eq!(world.shares(&[]), [0, 100], "{policy:?}");
        world.now += Duration::from_secs(30);
        let first = world.shares(&[])[0];
        assert!((2..=16).contains(&first), "{policy:?}: {first} % at first");
        world.now += Duration::from_secs(30);
        let shares = world.shares(&[]);
        assert!(near(&shares, &[50, 50]), "{policy:?}: {shares:?}");
    }
}

#[test]
fn without_slow_start_it_gets_its_whole_share_at_once() {
    let mut config = config(BalancePolicy::RoundRobin, &[1, 1]);
    config.slow_start = Span::default();
    let mut world = World::new(config);
    world.eject(0);
    world.now += Duration::from_secs(30);
    assert_eq!(world.shares(&[]), [50, 50]);
}

#[test]
fn a_target_that_is_the_only_one_is_asked_although_it_is_ejected() {
    for policy in BalancePolicy::ALL {
        let world = World::plain(policy, &[1]);
        world.eject(0);
        assert_eq!(world.choose(&[], None), Some(0), "{policy:?}: less than half is left");
        world.slots[0].endpoint.set_healthy(false);
        assert_eq!(world.choose(&[], None), None, "{policy:?}: a failed check is never ignored");
    }
}

#[test]
fn the_first_priority_serves_while_any_of_it_can() {
    for policy in BalancePolicy::ALL {
        let mut config = config(policy, &[1, 1, 1]);
        config.targets[2].priority = 1;
        let world = World::new(config);
        assert_eq!(world.shares(&[])[2], 0, "{policy:?}");
        world.slots[0].endpoint.set_healthy(false);
        assert_eq!(world.shares(&[]), [0, 100, 0], "{policy:?}");
        assert_eq!(world.shares(&[1]), [0, 0, 100], "{policy:?}: a retry fails over");
        world.slots[1].endpoint.set_healthy(false);
        assert_eq!(world.shares(&[]), [0, 0, 100], "{policy:?}");
        world.slots[0].endpoint.set_healthy(true);
        assert_eq!(world.shares(&[]), [100, 0, 0], "{policy:?}: and back");
    }
}

#[test]
fn its_own_region_comes_first_and_spills_over() {
    let mut config = config(BalancePolicy::Random, &[1, 1, 1]);
    config.targets[0].zone = Some("us".into());
    config.targets[1].zone = Some("eu".into());
    config.targets[2].priority = 1;
    config.targets[2].zone = Some("eu".into());
    config.breaker = Some(quorumgate_model::resource::Breaker { max_in_flight: 2, ..Default::default() });
    let world = World::new(config);
    assert_eq!(world.shares(&[]), [0, 100, 0], "the node is in eu");
    (0..2).for_each(|_| world.slots[1].endpoint.begin());
    assert_eq!(world.shares(&[]), [100, 0, 0], "full: then the other region, before the next priority");
    (0..2).for_each(|_| world.slots[0].endpoint.begin());
    assert_eq!(world.shares(&[]), [0, 0, 100]);
    (0..2).for_each(|_| world.slots[2].endpoint.begin());
    assert_eq!(world.choose(&[], None), None, "all are full");
}

#[test]
fn a_target_without_a_zone_is_near_to_all() {
    let mut config = config(BalancePolicy::Random, &[1, 1]);
    config.targets[1].zone = Some("eu".into());
    assert!(near(&World::new(config).shares(&[]), &[50, 50]));
}

#[test]
fn with_maglev_a_key_stays_with_its_target_and_comes_back_to_it() {
    let world = World::plain(BalancePolicy::Maglev, &[1, 1, 1]);
    let keys: Vec<u64> = (0..300u64).map(|word| maglev::key(&word.to_le_bytes())).collect();
    let homes: BTreeMap<u64, usize> = keys.iter().map(|key| (*key, world.choose(&[], Some(*key)).unwrap())).collect();
    assert!((0..3).all(|i| homes.values().filter(|home| **home == i).count() > 60), "they spread");
    world.eject(1);
    for (key, home) in &homes {
        let now = world.choose(&[], Some(*key)).unwrap();
        assert!(now != 1 && (now == *home || *home == 1), "only the keys of the ejected one move");
    }
}

#[test]
fn with_p2c_a_key_has_two_targets_and_takes_the_faster() {
    let mut config = config(BalancePolicy::P2cEwma, &[1; 5]);
    config.balance.hash_on = Some(quorumgate_model::resource::HashOn::Ip);
    let world = World::new(config);
    (0..5).for_each(|i| world.answers_in(i, 10));
    let key = maglev::key(b"ada");
    let first = world.choose(&[], Some(key)).unwrap();
    assert!((0..100).all(|_| world.choose(&[], Some(key)) == Some(first)));
    world.answers_in(first, 500);
    let second = world.choose(&[], Some(key)).unwrap();
    assert_ne!(first, second);
    assert!((0..100).all(|_| world.choose(&[], Some(key)) == Some(second)));
}
