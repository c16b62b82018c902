//! The bound of revocation under a thousand seeded schedules: partitions, pauses, lost and late messages, changes of
//! leader, clocks that are apart and run apart. The state, the proxy's tables and the freshness are the real ones; the log
//! is a small raft in virtual time (`bound/raft.rs`), so that a schedule is the same each time.

#[path = "bound/raft.rs"]
mod raft;
#[path = "bound/world.rs"]
mod world;

use raft::Rule;
use world::{Outcome, World};

const SEEDS: u64 = 1_000;

fn play(seed: u64, rule: Rule) -> Outcome {
    World::new(seed, rule).play()
}

#[test]
fn nobody_is_let_in_past_the_bound_under_any_schedule() {
    let mut all = Outcome::default();
    for seed in 0..SEEDS {
        let outcome = play(seed, Rule::Sound);
        assert_eq!(outcome.late, None, "seed {seed}: let in so many microseconds past the bound");
        assert!(outcome.healed, "seed {seed}: a node did not come back");
        all.add(&outcome);
    }
    // The schedules bite: tokens are revoked, let in within the bound by nodes that do not know, and refused as stale.
    assert!(all.revoked > 5 * SEEDS, "{all:?}");
    assert!(all.admitted_after_commit > SEEDS, "{all:?}");
    assert!(all.refused_stale > SEEDS && all.refused_revoked > SEEDS, "{all:?}");
    assert!(all.leaders > 2 * SEEDS, "{all:?}");
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    assert_eq!(play(7, Rule::Sound), play(7, Rule::Sound));
}

/// Rules that sound as good and are not: the schedules find them out.
#[test]
fn unsound_rules_are_found_out() {
    for rule in [Rule::CountsFromTheAnswer, Rule::LeaderAnswersAlone, Rule::CountsTheAppliedIndex] {
        let found = (0..SEEDS).any(|seed| play(seed, rule).late.is_some());
        assert!(found, "{rule:?} passed {SEEDS} schedules");
    }
}
