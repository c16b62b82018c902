//! Who gets how much, and who gets nothing: policies, weights, health, and what a publish keeps.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::upstream_support::*;
use quorumgate_model::{
    resource::{BalancePolicy, Protocol, Target, Upstream},
    units::Span,
};
use quorumgate_proxy::upstream::Failure;

/// Answers after a while, on as many threads as there are connections.
fn slow(body: &'static str, delay: Duration) -> Origin {
    origin(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            std::thread::sleep(delay);
            if write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).is_err() {
                return;
            }
        }
    })
}

fn weighted(policy: BalancePolicy, targets: &[(&Origin, u32)]) -> Upstream {
    let mut upstream = upstream(&[]);
    upstream.balance.policy = policy;
    let target = |(origin, weight): &(&Origin, u32)| Target {
        weight: (*weight).try_into().unwrap(),
        ..Target::new(origin.address.to_string().parse().unwrap())
    };
    upstream.targets = targets.iter().map(target).collect();
    upstream
}

/// How many of `requests` each body came back for, `at_once` in flight.
async fn shares(worker: &Worker, requests: usize, at_once: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests / at_once {
        let round = (0..at_once).map(|_| worker.fetch(get()));
        for body in futures_util::future::join_all(round).await {
            *shares.entry(body).or_default() += 1;
        }
    }
    shares
}

#[test]
fn round_robin_is_smooth_and_exact() {
    run(async {
        let (a, b) = (good("a"), good("b"));
        let worker = Worker::new(weighted(BalancePolicy::RoundRobin, &[(&a, 3), (&b, 1)]));
        let mut order = String::new();
        for _ in 0..8 {
            order += &worker.fetch(get()).await;
        }
        assert_eq!(order, "aabaaaba");
    });
}

#[test]
fn every_policy_honours_weights() {
    run(async {
        for (policy, at_once) in [(BalancePolicy::Random, 1), (BalancePolicy::LeastRequests, 8)] {
            let delay = Duration::from_millis(u64::from(at_once > 1) * 5);
            let (a, b) = (slow("a", delay), slow("b", delay));
            let worker = Worker::new(weighted(policy, &[(&a, 3), (&b, 1)]));
            let shares = shares(&worker, 400, at_once).await;
            assert!((240..=360).contains(&shares["a"]), "{policy:?}: {shares:?}");
        }
    });
}

#[test]
fn p2c_honours_weights_under_load() {
    run(async {
        let (a, b) = (slow("a", Duration::from_millis(20)), slow("b", Duration::from_millis(20)));
        let worker = Worker::new(weighted(BalancePolicy::P2cEwma, &[(&a, 4), (&b, 1)]));
        let shares = shares(&worker, 600, 20).await;
        assert!(2 * shares["a"] > 3 * shares["b"], "{shares:?}");
        assert!(shares["b"] >= 20, "{shares:?}");
    });
}

#[test]
fn p2c_prefers_the_faster_target() {
    run(async {
        let (fast, slow) = (good("fast"), slow("slow", Duration::from_millis(300)));
        let worker = Worker::new(weighted(BalancePolicy::P2cEwma, &[(&fast, 1), (&slow, 1)]));
        let shares = shares(&worker, 400, 4).await;
        assert!(shares["fast"] > 2 * shares["slow"], "{shares:?}");
    });
}

/// An upstream with a health path that passes or fails on demand; counts its checks.
struct Checked {
    origin: Origin,
    passes: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

fn checked(body: &'static str) -> Checked {
    let (passes, checks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (pass, count) = (passes.clone(), checks.clone());
    let origin = origin(move |mut stream, _| {
        while let Some((head, _)) = read_request(&mut stream) {
            let status = match head.starts_with("GET /healthz ") {
                true => {
                    count.fetch_add(1, Ordering::SeqCst);
                    if pass.load(Ordering::SeqCst) { "204 No Content" } else { "503 Service Unavailable" }
                }
                false => "200 OK",
            };
            let body = if status == "200 OK" { body } else { "" };
            if write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).is_err() {
                return;
            }
        }
    });
    Checked { origin, passes, checks }
}

fn healthy(worker: &Worker) -> Vec<usize> {
    worker.registry.health(NAME).iter().map(|target| target.healthy).collect()
}

#[test]
fn a_target_goes_down_and_comes_back_by_its_checks() {
    run(async {
        let (a, b) = (checked("a"), checked("b"));
        let worker = Worker::new(with_checks(upstream(&[a.origin.address, b.origin.address])));
        assert_eq!(healthy(&worker), [1, 1], "new targets are healthy until checked");
        let _checks = Checks::start(&worker.registry);
        until("checked", || a.checks.load(Ordering::SeqCst) > 3).await;
        assert_eq!(healthy(&worker), [1, 1]);

        a.passes.store(false, Ordering::SeqCst);
        let before = a.checks.load(Ordering::SeqCst);
        until("down", || healthy(&worker) == [0, 1]).await;
        assert!(a.checks.load(Ordering::SeqCst) >= before + 2, "three failed checks in a row, one of them under way");
        assert_eq!(shares(&worker, 20, 1).await, BTreeMap::from([("b".to_owned(), 20)]));
        let line = format!(r#"healthy{{upstream="origin",target="{}"}}"#, a.origin.address);
        assert_eq!(worker.metric(&line), 0);

        b.passes.store(false, Ordering::SeqCst);
        until("all down", || healthy(&worker) == [0, 0]).await;
        assert!(matches!(worker.send(get()).await, Err(Failure::NoHealthyTarget)));

        a.passes.store(true, Ordering::SeqCst);
        until("up", || healthy(&worker) == [1, 0]).await;
        assert_eq!(worker.fetch(get()).await, "a");
    });
}

#[test]
fn a_publish_keeps_what_is_known_of_unchanged_targets() {
    run(async {
        let (a, b, c) = (checked("a"), checked("b"), checked("c"));
        let worker = Worker::new(with_checks(upstream(&[a.origin.address, b.origin.address])));
        a.passes.store(false, Ordering::SeqCst);
        let checks = Checks::start(&worker.registry);
        until("down", || healthy(&worker) == [0, 1]).await;
        drop(checks);
        assert_eq!(worker.fetch(get()).await, "b");
        let connections = b.origin.connections.load(Ordering::SeqCst);

        // Another weight, another target, another order: nobody is checked any more, so only the memory can tell.
        let mut changed = with_checks(upstream(&[c.origin.address, b.origin.address, a.origin.address]));
        changed.targets[1].weight = 5.try_into().unwrap();
        worker.registry.publish(&ruleset([changed.clone()]));
        assert_eq!(healthy(&worker), [1, 1, 0]);
        let shares = shares(&worker, 12, 1).await;
        assert_eq!(shares, BTreeMap::from([("b".to_owned(), 10), ("c".to_owned(), 2)]));
        assert_eq!(b.origin.connections.load(Ordering::SeqCst), connections, "its pooled connection still serves");

        // Without a health check every target counts as healthy.
        changed.health = None;
        worker.registry.publish(&ruleset([changed]));
        assert_eq!(healthy(&worker), [1, 1, 1]);
    });
}

#[test]
fn a_removed_upstream_serves_those_who_still_hold_its_route() {
    run(async {
        let a = good("a");
        let worker = Worker::new(upstream(&[a.address]));
        worker.registry.publish(&ruleset([]));
        assert_eq!(worker.fetch(get()).await, "a");
        let mut other = upstream(&[a.address]);
        other.name = "other".parse().unwrap();
        worker.registry.publish(&ruleset([other]));
        assert!(matches!(worker.send(get()).await, Err(Failure::NoHealthyTarget)));
        assert!(worker.registry.health(NAME).is_empty());
    });
}

#[test]
fn names_are_resolved_before_the_first_call() {
    run(async {
        let a = good("a");
        let mut named = upstream(&[a.address]);
        named.targets[0].address.host = "localhost".into();
        let worker = Worker::new(named);
        let _checks = Checks::start(&worker.registry);
        assert_eq!(worker.fetch(get()).await, "a");
        let health = worker.registry.health(NAME);
        assert_eq!(health[0].target, format!("localhost:{}", a.address.port()));
        assert!(health[0].addresses >= 1);
    });
}

#[test]
fn a_name_that_nobody_knows_is_no_healthy_target() {
    run(async {
        let mut named = upstream(&[closed_address()]);
        named.targets[0].address.host = "nowhere.invalid".into();
        named.timeouts.connect = Span::millis(100);
        named.protocol = Protocol::Http2;
        let worker = Worker::new(named);
        let _checks = Checks::start(&worker.registry);
        assert!(matches!(worker.send(get()).await, Err(Failure::NoHealthyTarget)));
    });
}
