//! The scenarios, small enough for every run of the tests.

use std::time::Duration;

use quorumgate_cluster_tests::{
    Cluster, Plan,
    scenarios::{self, revocation::Fault},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_through_a_follower_is_served_by_every_node() {
    let cluster = Cluster::start(Plan::of(3)).await.unwrap();
    let spread = scenarios::configuration::spread(&cluster, 1_000, 20).await.unwrap();
    println!("{spread:?}");
    cluster.check_same_state().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_is_kept_by_no_node_any_more() {
    let cluster = Cluster::start(Plan::of(3)).await.unwrap();
    println!("{:?}", scenarios::caches::purge(&cluster).await.unwrap());
    cluster.check_same_state().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_banned_is_shut_out_by_every_node_until_it_is_over() {
    let cluster = Cluster::start(Plan::of(3)).await.unwrap();
    assert_eq!(scenarios::bans::shut_out(&cluster).await.unwrap(), 3);
    cluster.check_same_state().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_banned_after_an_outage_is_shut_out_for_as_long_as_was_said() {
    let cluster = Cluster::start(Plan::of(3)).await.unwrap();
    scenarios::bans::hold_after_an_outage(&cluster).await.unwrap();
    cluster.check_same_state().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_node_sees_alone_is_found_together_and_banned_by_all() {
    let cluster = Cluster::start(Plan::of(3)).await.unwrap();
    let found = scenarios::anomalies::find(&cluster).await.unwrap();
    println!("{found:?}");
    assert_eq!(found.banned.len(), 4);
    cluster.check_same_state().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_somebody_makes_at_one_node_is_good_at_all_and_no_two_nodes_make_too_many() {
    let cluster = Cluster::start(Plan::of(3)).await.unwrap();
    let made = scenarios::portal::make_keys(&cluster).await.unwrap();
    assert_eq!((made.good, made.refused), (2, 6), "{made:?}");
    cluster.check_same_state().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_sealed_under_a_new_key_and_nothing_that_is_seen_changes() {
    let mut cluster = Cluster::start(Plan::of(3)).await.unwrap();
    assert!(scenarios::sealing::rotate(&mut cluster).await.unwrap() >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_gives_its_budget_back() {
    let mut cluster = Cluster::start(Plan::of(3)).await.unwrap();
    assert_eq!(scenarios::leaving::give_back(&mut cluster).await.unwrap(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_no_request_and_no_acknowledged_write() {
    let mut cluster = Cluster::start(Plan::of(3)).await.unwrap();
    println!("{:?}", scenarios::faults::kill_leader(&mut cluster, 2, 300).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_killed_at_once_lose_nothing_acknowledged() {
    let mut cluster = Cluster::start(Plan::of(3)).await.unwrap();
    println!("{} acknowledged", scenarios::faults::kill_all(&mut cluster, 2).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_traffic_flows_and_writes_say_so() {
    let mut cluster = Cluster::start(Plan::of(3)).await.unwrap();
    println!("{:?}", scenarios::quorum::lose(&mut cluster).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_lost_its_quorum_is_settled_by_its_repeat() {
    // Timers long enough for a command line to start before the leader knows that it is alone.
    let mut cluster = Cluster::start(Plan { max_rtt: "200ms", ..Plan::of(3) }).await.unwrap();
    println!("{:?}", scenarios::unknown::stop_followers(&mut cluster).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_is_over_on_every_node_and_so_are_its_streams() {
    let cluster = Cluster::start(Plan::of(3)).await.unwrap();
    let propagation = scenarios::revocation::propagation(&cluster, 6).await.unwrap();
    println!("{propagation:?}");
    let closed = scenarios::streams::close(&cluster, 3).await.unwrap();
    println!("{closed:?}");
    assert_eq!(closed.streams, 27);
    // A tenth of a second, and here perhaps an election; `prove streams` holds it to the second.
    assert!(closed.worst() <= Duration::from_secs(5), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_past_the_bound_by_a_node_that_is_cut_off_or_stopped() {
    let plan = Plan { round_trip: Some(|_, _| Duration::from_millis(2)), ..Plan::of(3) };
    let mut cluster = Cluster::start(plan).await.unwrap();
    let faults = [Fault::Isolated, Fault::Stopped];
    println!("{:?}", scenarios::revocation::bound(&mut cluster, &faults, 2, 1).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_region_costs_its_election_and_no_wait_for_the_lost() {
    let wan = scenarios::wan::run(15).await.unwrap();
    println!("{wan}");
    assert!(wan.commit_p50 >= wan.quorum_rtt, "a commit faster than the light: {wan}");
    assert!(wan.follower_p50 >= wan.follower_rtt + wan.quorum_rtt, "{wan}");
    assert!(wan.region_loss <= wan.region_loss_max(), "{wan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_is_over_its_limit_while_the_leader_dies() {
    let mut cluster = Cluster::start(Plan::of(3)).await.unwrap();
    let killed = scenarios::limits::kill(&mut cluster, true, 120, Duration::from_secs(2)).await.unwrap();
    println!("{killed}");
    assert_eq!(killed.overshoot, 0);
    let tiny = scenarios::limits::tiny(&cluster, 5, Duration::from_secs(5)).await.unwrap();
    assert_eq!((tiny.admitted, tiny.overshoot), (5, 0), "{tiny:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_adds_up_over_all_nodes_and_a_reset_forgives_exactly_that() {
    let mut cluster = Cluster::start(Plan::of(3)).await.unwrap();
    let operated = scenarios::limits::operator(&mut cluster, Duration::from_secs(60)).await.unwrap();
    println!("{operated:?}");
    assert_eq!((operated.few, operated.used_up, operated.after_reset, operated.bonus), (9, 60, 60, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_had_begun_is_spent_after_a_restore_unless_budgets_are_reset() {
    let mut cluster = Cluster::start(Plan::of(1)).await.unwrap();
    let begun = scenarios::limits::begun_period(&mut cluster, 30).await.unwrap();
    assert_eq!(begun, scenarios::limits::Begun { before: 30, spent: 0, unspent: 30 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_a_rolling_restart_fail_no_request() {
    let mut cluster = Cluster::start(Plan::of(3)).await.unwrap();
    println!("{}", scenarios::rolling::roll(&mut cluster, 12, 4).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_dies_hangs_or_resets_fails_no_request_that_may_be_sent_again() {
    let cluster = Cluster::start(Plan::of(1)).await.unwrap();
    for suffered in scenarios::targets::suffer(&cluster, Some(400), Duration::from_millis(500)).await.unwrap() {
        println!("{suffered}");
    }
}
