//! The budgets' promise under faults: the production `Ledger` and `Holder` in a simulated cluster, watched by an
//! auditor that knows nothing of either. A failing seed prints the command that replays it.

mod audit;
mod chance;
mod cluster;
mod edits;
mod late;
mod plan;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use plan::{Load, Plan, S};
use world::{Outcome, World};

/// What every test run tries; scripts/test tries 10,000, scripts/soak any number.
const SEEDS: u64 = 1_000;

#[expect(clippy::disallowed_methods, reason = "scripts/soak says which seeds; the model itself reads no environment")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn threads() -> u64 {
    std::thread::available_parallelism().map_or(4, |n| n.get() as u64)
}

/// The first seed of `from..from + count` that fails, with what went wrong; runs them on all cores.
fn first_failure(from: u64, count: u64, run: impl Fn(u64) -> Outcome + Sync) -> Option<(u64, Outcome)> {
    let next = AtomicU64::new(from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return None;
            }
            let outcome = run(seed);
            if outcome.failed() {
                next.store(from + count, Ordering::Relaxed);
                return Some((seed, outcome));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads()).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|it| it.join().expect("a schedule panicked")).min_by_key(|it| it.0)
    })
}

#[test]
fn no_window_is_over_its_limit_whatever_goes_wrong() {
    let (from, count) = (setting("SEED").unwrap_or(0), setting("SEEDS").unwrap_or(SEEDS));
    let (offered, admitted) = (AtomicU64::new(0), AtomicU64::new(0));
    let failure = first_failure(from, count, |seed| {
        let outcome = World::run(Plan::of(seed));
        offered.fetch_add(outcome.offered, Ordering::Relaxed);
        admitted.fetch_add(outcome.admitted, Ordering::Relaxed);
        outcome
    });
    if let Some((seed, outcome)) = failure {
        let what = (&outcome.excess, &outcome.broken);
        panic!("seed {seed}: {what:?}\nreplay: scripts/soak --seed {seed}\n{:#?}", Plan::of(seed));
    }
    println!(
        "{count} schedules, {} offered, {} admitted, 0 windows over the limit",
        offered.into_inner(),
        admitted.into_inner()
    );
}

/// Tries `seeds` schedules of one sort.
fn check(name: &str, seeds: u64, schedule: fn(u64) -> Plan) {
    let (from, count) = (setting("SEED").unwrap_or(0), setting("SEEDS").map_or(seeds, |it| it / 4 + 1));
    let admitted = AtomicU64::new(0);
    let failure = first_failure(from, count, |seed| {
        let outcome = World::run(schedule(seed));
        admitted.fetch_add(outcome.admitted, Ordering::Relaxed);
        outcome
    });
    if let Some((seed, outcome)) = failure {
        let from_us = outcome.excess.map_or(0, |it| it.window_start_us);
        for (key, admissions) in outcome.admissions.iter().enumerate() {
            let near = admissions.iter().filter(|it| it.answer_us >= from_us).take(20);
            near.for_each(|it| println!("key {key}: {it:?}"));
        }
        panic!("seed {seed}: {:?} {:?}\n{:#?}", outcome.excess, outcome.broken, schedule(seed));
    }
    println!("{count} schedules of {name}, {} admitted, none over the limit", admitted.into_inner());
}

#[test]
fn no_calendar_period_is_over_its_limit_whatever_goes_wrong() {
    check("calendar", 200, Plan::calendar);
}

/// Whether it is ahead or behind, the others know better.
#[test]
fn no_calendar_period_is_over_its_limit_where_one_clock_jumps() {
    check("calendar with a clock that jumps", 100, Plan::calendar_with_steps);
}

#[test]
fn never_is_one_too_many_in_flight_whatever_goes_wrong() {
    check("concurrency", 200, Plan::concurrency);
}

#[test]
fn no_window_is_over_its_limit_after_a_restore() {
    check("a restore", 200, Plan::restored);
}

/// The budget is used up but for what was lost with nodes that crashed: at most 0.05 % of it.
#[test]
fn a_million_a_day_is_never_over_and_twenty_crashes_burn_next_to_nothing() {
    let outcome = World::run(Plan::day(1));
    assert!(!outcome.failed(), "{:?} {:?}", outcome.excess, outcome.broken);
    println!("{} of 1000000 admitted, {} offered, {} entries", outcome.admitted, outcome.offered, outcome.entries);
    assert!(outcome.admitted <= 1_000_000);
    assert!(1_000_000 - outcome.admitted <= 500, "{} burnt", 1_000_000 - outcome.admitted);
}

/// What nodes say is gathered by the leader: the log grows by the second, not by the request.
#[test]
fn seven_nodes_write_ten_entries_a_second_at_most_whatever_the_load() {
    for percent in [70, 150, 1_000] {
        let plan = Plan::calm(3, 7, 1_000, 60 * S, Load::Skewed, percent);
        let seconds = plan.until_us / S;
        let outcome = World::run(plan);
        println!("{percent} %: {} entries in {seconds} s", outcome.entries);
        assert!(outcome.entries <= 10 * seconds, "{} entries in {seconds} s", outcome.entries);
    }
}

/// Admitted per window against the limit, in thousandths, once the shares have found their place: in windows of the clock,
/// which begin with a burst, and in windows that may begin anywhere.
fn utilisation(nodes: usize, load: Load) -> (u64, u64) {
    let (mut sum, mut places) = (0, 0);
    let seeds = 4;
    for seed in 0..seeds {
        let outcome = World::run(Plan::calm(seed, nodes, 1_000, 60 * S, load, 150));
        assert!(!outcome.failed(), "{:?} {:?}", outcome.excess, outcome.broken);
        let windows = outcome.per_window.len() as u64;
        sum += outcome.per_window.iter().sum::<u64>() * 1_000 / (windows * 1_000);
        println!("{load:?}: {:?}, {} entries, {:?}", outcome.per_window, outcome.entries, outcome.places.parts());
        places += outcome.places.used * 1_000 / outcome.places.budget;
    }
    // Between the two lies the time in which slots that were used in one burst come back in one.
    let (used, anywhere) = (sum / seeds, places / seeds);
    println!("{nodes} nodes, {load:?}: {used} of 1000 in windows of the clock, {anywhere} in all windows");
    (used, anywhere)
}

#[test]
fn a_skewed_and_saturated_limit_is_used_up() {
    let (used, anywhere) = utilisation(5, Load::Skewed);
    assert!(used >= 980 && anywhere >= 960, "{used} and {anywhere} of 1000");
}

#[test]
fn a_hot_node_that_moves_is_followed() {
    let (used, anywhere) = utilisation(5, Load::Moving { every_us: 15 * S });
    assert!(used >= 985 && anywhere >= 960, "{used} and {anywhere} of 1000");
}

/// One node has every slot where it is asked for, and still a slot comes back a part of a grain late and then waits for
/// somebody who asks: what is lost beyond that is lost by spreading them.
#[test]
fn a_limit_that_all_nodes_ask_for_alike_is_used_up_nearly_as_by_one() {
    let (_, alone) = utilisation(1, Load::Even);
    for nodes in [3, 5] {
        let (used, anywhere) = utilisation(nodes, Load::Even);
        assert!(used >= 990, "{used} of 1000");
        assert!(anywhere + 12 >= alone, "{anywhere} of 1000, {alone} by one node");
    }
}

/// What a kill cost over all, and how much of it the issue allows: what the victim would use in h.
struct Killed {
    lost: i64,
    lost_max: i64,
    /// Admitted in one window, in thousandths of what was in one before: of what is not in quarantine from h + 2 s on, and of
    /// everything from h + W on.
    soon: i64,
    later: i64,
}

fn kill(seed: u64, nodes: usize, leader: bool) -> Killed {
    let plan = Plan::killed(seed, nodes, leader);
    let (w, h, killed) = (plan.window_us, plan.session_us, plan.faults[0].0);
    let Load::Killed { node, .. } = plan.load else { panic!("a schedule with a kill") };
    let outcome = World::run(plan);
    assert!(!outcome.failed(), "{:?} {:?}", outcome.excess, outcome.broken);
    let within = |from: u64, to: u64| {
        outcome.admissions[0].iter().filter(|it| (from..to).contains(&it.answer_us)).count() as i64
    };
    let before = within(killed - 2 * w, killed) / 2;
    let share = outcome.admissions[0].iter().filter(|it| it.node == node && it.answer_us >= killed - w).count() as i64;
    let end = (h + 2 * w + 2 * S).div_ceil(w) * w;
    let lost = before * (end / w) as i64 - within(killed, killed + end);
    let lost_max = share * h as i64 / w as i64;
    let after = |from_us: u64| within(killed + from_us, killed + from_us + w);
    let (soon, later) = (after(h + 2 * S) * 1_000 / (before - lost_max), after(h + w) * 1_000 / before);
    println!(
        "{nodes} nodes, leader {leader}: share {share} of {before}, lost {lost} of at most {lost_max}, {soon} {later}; {:?}",
        outcome.places.parts()
    );
    Killed { lost, lost_max, soon, later }
}

#[test]
fn a_killed_node_costs_no_more_than_what_it_would_have_used_in_a_session() {
    for (nodes, leader) in [(3, false), (5, false), (3, true), (5, true)] {
        let kills: Vec<Killed> = (0..7).map(|seed| kill(seed, nodes, leader)).collect();
        let sum = |of: fn(&Killed) -> i64| kills.iter().map(of).sum::<i64>();
        let (lost, most) = (sum(|it| it.lost), sum(|it| it.lost_max));
        let (soon, later) = (sum(|it| it.soon) / 7, sum(|it| it.later) / 7);
        println!("{nodes} nodes, leader {leader}: lost {lost} of at most {most}, {soon} soon, {later} later");
        assert!(lost <= most, "{lost} lost, at most {most}");
        assert!(soon >= 980 && later >= 990, "{soon} soon, {later} later, of 1000");
    }
}

/// Every rule of the ledger that was broken on purpose has to show.
#[cfg(feature = "mutants")]
mod mistakes;
