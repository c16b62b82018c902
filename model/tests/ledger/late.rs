//! Costs that answers tell, over several nodes and without faults: what a limit is over by is what was in flight when an answer came,
//! and what was let in within one round of the log.

use quorumgate_model::{
    ledger::command::{NoQuorum, Rule},
    resource::Every,
};

use crate::{
    cluster::{Cluster, NODES, RESERVE, calendar, rule, sliding},
    plan::{MS, S},
};

/// What the last one costs beyond its reserve, and nothing else, once the answer before it was told.
#[test]
fn one_request_at_a_time_is_over_a_period_by_one_answer_at_most() {
    let mut worst = 0;
    for (nodes, cost, gap_ms) in cases() {
        let mut cluster = Cluster::of(calendar(300, Every::Minute));
        let mut sum = 0;
        for n in 0..2 + 300 / cost {
            sum += cost * u64::from(cluster.ask(n as usize % nodes, cost));
            cluster.run(gap_ms * MS);
        }
        worst = worst.max(sum);
        let most = 300 + cost - u64::from(RESERVE);
        println!("{nodes} nodes, {cost} each, {gap_ms} ms between them: {sum} of {most}");
        assert!((300 - cost..=most).contains(&sum), "{nodes} nodes, {cost} each, {gap_ms} ms: {sum} of {most}");
    }
    println!("at worst {worst} of 300");
}

fn cases() -> impl Iterator<Item = (usize, u64, u64)> {
    (1..=NODES).flat_map(|nodes| {
        [35, 60, 85, 110].into_iter().flat_map(move |cost| [100, 130, 300].map(move |gap_ms| (nodes, cost, gap_ms)))
    })
}

#[test]
fn a_dear_answer_leaves_nothing_for_other_nodes() {
    for gap_us in [100 * MS, S] {
        let mut cluster = Cluster::of(sliding(100, 10));
        assert!(cluster.ask(0, 100));
        cluster.run(gap_us);
        let mut sum = 100;
        for n in 0..20 {
            sum += u64::from(RESERVE) * u64::from(cluster.take(1 + n % 2, RESERVE));
            cluster.run(100 * MS);
        }
        assert_eq!(sum, 100, "{gap_us} us between them");
    }
}

/// Of what they hold by their shares: it is asked back before they can use it.
#[test]
fn what_is_owed_is_asked_back_of_other_nodes() {
    let mut cluster = Cluster::of(sliding(100, 10));
    cluster.run(12 * S);
    cluster.ask_of("shared");
    assert!(cluster.ask(0, 100));
    cluster.run(150 * MS);
    let others = cluster.exhaust(&[1, 2], 2 * S);
    assert_eq!((others, cluster.owed(), cluster.leases[0].owed()), (0, 0, 0));
}

/// What was in flight at once is over the limit at once, and is paid back in the windows after it.
#[test]
fn what_was_in_flight_at_once_is_paid_back() {
    let mut cluster = Cluster::of(sliding(100, 10));
    let mut sum = 0;
    for _ in 0..450 {
        for n in 0..NODES {
            if cluster.take(n, RESERVE) {
                sum += 100;
                cluster.leases[n].owe(90, u64::MAX);
                cluster.leases[n].pay(cluster.now);
            }
            cluster.holders[n].signal(&cluster.key);
        }
        cluster.run(100 * MS);
    }
    println!("{sum} in 45 s");
    assert!((300..=100 * 5 + 200).contains(&sum), "{sum} in 45 s");
}

#[test]
fn a_node_that_yields_keeps_nothing_that_it_does_not_use() {
    for kind in [sliding(100, 10), calendar(100_000, Every::Minute)] {
        let mut cluster = Cluster::of(kind);
        for _ in 0..30 {
            for n in 0..NODES {
                for _ in 0..20 {
                    cluster.take(n, 1);
                }
                cluster.holders[n].signal(&cluster.key);
            }
            cluster.run(100 * MS);
        }
        assert!(cluster.held(0) > 0, "{kind:?}");
        cluster.holders[0].set_yielding(true);
        cluster.run(2 * S);
        assert_eq!(cluster.held(0), 0, "{kind:?}");
    }
}

/// Of a node that keeps a part of what it holds for a time without a quorum: a debt is paid out of both.
#[test]
fn what_is_owed_is_paid_where_a_part_is_put_aside() {
    let mut cluster = Cluster::with(Rule { on_no_quorum: NoQuorum::Reserve, ..rule(sliding(100, 10)) });
    assert_eq!(cluster.exhaust(&[0], 2 * S), 100);
    for _ in 0..10 {
        // More than there is at once: it is asked for, and there is none left of it.
        assert!(!cluster.take(0, 100));
        cluster.run(S);
    }
    cluster.leases[0].owe(95, 100);
    cluster.run(S);
    assert_eq!((cluster.leases[0].owed(), cluster.owed()), (0, 0));
    let free = cluster.exhaust(&[0, 1, 2], S);
    assert_eq!(free, 5);
}
