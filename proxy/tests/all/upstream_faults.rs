//! What becomes of targets that fail, and of the requests that meet them: one test a line of the tables in
//! docs/ARCHITECTURE.md.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::upstream_support::*;
use bytes::Bytes;
use http::{Method, Request};
use quorumgate_model::{
    resource::{BalancePolicy, Breaker, RetryOn, Upstream},
    units::Span,
};
use quorumgate_proxy::{
    body::RequestBody,
    upstream::{BreakerState, Failure},
};

/// Answers each request with a status and its number among those that this target got.
fn answering(status: u16) -> Origin {
    let seen = Arc::new(AtomicUsize::new(0));
    origin(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            let body = seen.fetch_add(1, Ordering::SeqCst).to_string();
            if write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).is_err() {
                return;
            }
        }
    })
}

fn resetting() -> Origin {
    origin(|mut stream, _| {
        read_request(&mut stream);
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
}

/// Reads requests and never answers.
fn silent() -> Origin {
    origin(|mut stream, _| while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {})
}

fn ejected(worker: &Worker, target: SocketAddr) -> u64 {
    worker.metric(&format!(r#"ejected{{upstream="origin",target="{target}"}}"#))
}

/// The first of two targets, and good ones beside it; no retries, so that each failure shows.
fn beside_good(bad: SocketAddr) -> (Worker, Origin) {
    let good = good("fine");
    let mut upstream = upstream(&[bad, good.address]);
    upstream.retries.attempts = 0;
    // Only who is silent is waited for so long; the good target is quicker on any machine.
    upstream.timeouts.response_header = Span::millis(400);
    (Worker::new(upstream), good)
}

/// Sends until the bad target was asked so often.
async fn until_failed(worker: &Worker, times: usize) {
    let mut failed = 0;
    while failed < times {
        match worker.send(get()).await {
            Ok(response) if response.status() == 200 => drop(read(response).await),
            _ => failed += 1,
        }
    }
}

async fn is_ejected_after_five(bad: SocketAddr) {
    let (worker, _good) = beside_good(bad);
    until_failed(&worker, 4).await;
    assert_eq!(ejected(&worker, bad), 0, "four are not enough");
    until_failed(&worker, 1).await;
    assert_eq!(ejected(&worker, bad), 1);
    for _ in 0..10 {
        assert_eq!(worker.fetch(get()).await, "fine", "it is left alone");
    }
    assert_eq!(worker.metric(r#"ejections_total{upstream="origin"}"#), 1);
    let state = worker.registry.state(NAME).unwrap();
    assert!(state.targets[0].ejected_for > Duration::from_secs(20), "{state:?}");
}

#[test]
fn five_server_errors_in_a_row_eject_a_target() {
    run(async { is_ejected_after_five(answering(503).address).await });
}

#[test]
fn five_refused_connections_in_a_row_eject_a_target() {
    run(async { is_ejected_after_five(closed_address()).await });
}

#[test]
fn five_resets_in_a_row_eject_a_target() {
    run(async { is_ejected_after_five(resetting().address).await });
}

#[test]
fn five_silences_in_a_row_eject_a_target() {
    run(async { is_ejected_after_five(silent().address).await });
}

#[test]
fn client_errors_eject_nobody_and_pass_untouched() {
    run(async {
        let bad = answering(404);
        let worker = Worker::new(upstream(&[bad.address]));
        for n in 0..10 {
            let response = worker.send(get()).await.unwrap();
            assert_eq!(response.status(), 404);
            assert_eq!(read(response).await.unwrap(), n.to_string());
        }
        assert_eq!(ejected(&worker, bad.address), 0);
    });
}

#[test]
fn only_one_of_three_is_ejected_and_the_errors_of_the_others_pass() {
    run(async {
        let all = [answering(500), answering(500), answering(500)];
        let worker = Worker::new(upstream(&[all[0].address, all[1].address, all[2].address]));
        for _ in 0..60 {
            assert_eq!(worker.send(get()).await.unwrap().status(), 500);
        }
        assert_eq!(all.iter().map(|it| ejected(&worker, it.address)).sum::<u64>(), 1);
    });
}

#[test]
fn with_zero_errors_nobody_is_ejected() {
    run(async {
        let (bad, good) = (answering(500), good("fine"));
        let mut upstream = upstream(&[bad.address, good.address]);
        upstream.outlier.consecutive_errors = 0;
        let worker = Worker::new(upstream);
        for _ in 0..40 {
            drop(worker.send(get()).await.unwrap());
        }
        assert_eq!(ejected(&worker, bad.address), 0);
    });
}

fn with_retries_on(targets: &[SocketAddr], on: &[RetryOn]) -> Worker {
    let mut upstream = upstream(targets);
    upstream.retries.on = on.to_vec();
    upstream.outlier.consecutive_errors = 0;
    Worker::new(upstream)
}

#[test]
fn a_server_error_passes_unless_its_status_is_to_be_retried() {
    run(async {
        let (bad, good) = (answering(503), good("fine"));
        let targets = [bad.address, good.address];
        let statuses = async |worker: &Worker, request: fn() -> Request<RequestBody>| {
            let mut statuses = Vec::new();
            for _ in 0..4 {
                let response = worker.send(request()).await.unwrap();
                statuses.push(response.status().as_u16());
                read(response).await.unwrap();
            }
            statuses.sort_unstable();
            statuses
        };
        let keyed = || {
            let mut request = post("order");
            request.headers_mut().insert("idempotency-key", "7".parse().unwrap());
            request
        };
        assert_eq!(statuses(&with_retries_on(&targets, &RetryOn::UNLESS_SAID), get).await, [200, 200, 503, 503]);
        for on in [RetryOn::ServerError, RetryOn::Status(503)] {
            assert_eq!(statuses(&with_retries_on(&targets, &[on]), get).await, [200; 4], "{on:?}");
            let plain = statuses(&with_retries_on(&targets, &[on]), || post("order")).await;
            assert_eq!(plain, [200, 200, 503, 503], "{on:?}: a POST is not sent twice");
            let keyed = statuses(&with_retries_on(&targets, &[on]), keyed).await;
            assert_eq!(keyed, [200; 4], "{on:?}: unless it says that it may be");
        }
        let other = statuses(&with_retries_on(&targets, &[RetryOn::Status(502)]), get).await;
        assert_eq!(other, [200, 200, 503, 503]);
    });
}

#[test]
fn an_error_that_no_other_target_can_better_passes_untouched() {
    run(async {
        let bad = answering(503);
        let worker = with_retries_on(&[bad.address], &[RetryOn::ServerError]);
        let (response, trail) = worker.trace(get()).await;
        assert_eq!(read(response.unwrap()).await.unwrap(), "0");
        assert_eq!(trail.attempts, 1);
    });
}

#[test]
fn a_silent_target_is_left_for_another_if_the_request_may_be_sent_again() {
    run(async {
        for (method, fine) in [(Method::GET, true), (Method::PUT, true), (Method::POST, false)] {
            let (silent, good) = (silent(), good("fine"));
            let mut upstream = upstream(&[silent.address, good.address]);
            upstream.timeouts.response_header = Span::millis(400);
            let worker = Worker::new(upstream);
            let body = || RequestBody::Full(Bytes::from_static(b"order"));
            let sent = [worker.send(request(method.clone(), body())).await, worker.send(request(method, body())).await];
            assert_eq!(sent.iter().filter(|it| it.is_ok()).count(), if fine { 2 } else { 1 }, "{sent:?}");
            let failed = sent.iter().filter_map(|it| it.as_ref().err());
            assert!(failed.into_iter().all(|it| matches!(it, Failure::HeaderTimeout)), "504 for whom it must not");
        }
    });
}

fn with_breaker(targets: &[SocketAddr], breaker: Breaker) -> Worker {
    let mut upstream = upstream(targets);
    upstream.breaker = Some(breaker);
    upstream.outlier.consecutive_errors = 0;
    Worker::new(upstream)
}

#[test]
fn the_breaker_opens_lets_three_try_and_closes() {
    run(async {
        let fails = Arc::new(AtomicBool::new(true));
        let (failing, seen) = (fails.clone(), Arc::new(AtomicUsize::new(0)));
        let count = seen.clone();
        let origin = origin(move |mut stream, _| {
            while read_request(&mut stream).is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                let status = if failing.load(Ordering::SeqCst) { "500 No" } else { "200 OK" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let rules = Breaker { min_requests: 4, open: Span::secs(1), ..Breaker::default() };
        let worker = with_breaker(&[origin.address], rules);
        for _ in 0..4 {
            assert_eq!(worker.send(get()).await.unwrap().status(), 500);
        }
        let refused = worker.send(get()).await;
        assert!(matches!(refused, Err(Failure::CircuitOpen(left)) if left <= Duration::from_secs(1)), "{refused:?}");
        assert_eq!(seen.load(Ordering::SeqCst), 4, "nothing is sent");
        assert_eq!(worker.metric(r#"refused_total{upstream="origin",reason="circuit_open"}"#), 1);
        assert_eq!(worker.metric(r#"breaker_open{upstream="origin"}"#), 1);
        let state = || worker.registry.state(NAME).unwrap().breaker.unwrap();
        until("half open", || state() == BreakerState::HalfOpen).await;
        assert_eq!(worker.send(get()).await.unwrap().status(), 500);
        assert_eq!(state(), BreakerState::Open, "the first that tried has failed");
        fails.store(false, Ordering::SeqCst);
        until("half open again", || state() == BreakerState::HalfOpen).await;
        for _ in 0..3 {
            assert_eq!(worker.send(get()).await.unwrap().status(), 200);
        }
        assert_eq!(state(), BreakerState::Closed);
        assert_eq!(worker.metric(r#"breaker_opened_total{upstream="origin"}"#), 1);
    });
}

#[test]
fn a_target_gets_no_more_at_once_than_it_may() {
    run(async {
        let silent = silent();
        let worker = with_breaker(&[silent.address], Breaker { max_in_flight: 2, ..Breaker::default() });
        let mut two = [Box::pin(worker.send(get())), Box::pin(worker.send(get()))];
        for one in &mut two {
            assert!(futures_util::poll!(one.as_mut()).is_pending());
        }
        let third = worker.send(get()).await;
        assert!(matches!(third, Err(Failure::Overloaded)), "{third:?}");
        assert_eq!(worker.metric(r#"refused_total{upstream="origin",reason="overloaded"}"#), 1);
        let [first, _second] = two;
        drop(first);
        let mut next = Box::pin(worker.send(get()));
        assert!(futures_util::poll!(next.as_mut()).is_pending(), "its place is free again");
    });
}

/// Answers at once while `slow` is not set, and then never.
fn stalling(body: &'static str, slow: &Arc<AtomicBool>) -> Origin {
    let slow = slow.clone();
    origin(move |mut stream, _| {
        while read_request(&mut stream).is_some() {
            if slow.load(Ordering::SeqCst) {
                // Until the gateway gives up.
                let _ = stream.read(&mut [0; 1]);
                return;
            }
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    })
}

#[test]
fn a_slow_answer_is_asked_for_once_more_elsewhere_and_only_if_idempotent() {
    run(async {
        let slow = Arc::new(AtomicBool::new(false));
        let (a, b) = (stalling("a", &slow), good("b"));
        let mut upstream = upstream(&[a.address, b.address]);
        upstream.retries.hedge = true;
        upstream.timeouts.response_header = Span::secs(3);
        let worker = Worker::new(upstream);
        let hedges = || worker.metric(r#"hedges_total{upstream="origin"}"#);
        for _ in 0..40 {
            worker.fetch(get()).await;
        }
        // On a busy machine some of them were asked for twice too.
        let before = hedges();
        slow.store(true, Ordering::SeqCst);
        let started = Instant::now();
        for _ in 0..4 {
            assert_eq!(worker.fetch(get()).await, "b");
        }
        assert!(started.elapsed() < Duration::from_secs(3), "nobody has waited for the time-out");
        let hedged = hedges();
        assert!(hedged >= before + 2, "{before} before, {hedged} in all");
        let (first, second) = (worker.send(post("order")).await, worker.send(post("order")).await);
        assert_eq!([first, second].iter().filter(|it| it.is_err()).count(), 1, "a POST is never asked twice");
        assert_eq!(hedges(), hedged);
    });
}

/// What the one answers that is asked first, once the other has answered 500.
const FIRST_ANSWERS: [(&str, u16); 3] = [
    ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200),
    ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", 500),
    ("", 500),
];

#[test]
fn a_hedge_that_fails_at_once_does_not_beat_a_slow_good_answer() {
    for (first, expected) in FIRST_ANSWERS {
        run(async {
            let asked = Arc::new(AtomicUsize::new(0));
            let either = |asked: &Arc<AtomicUsize>| {
                let asked = asked.clone();
                origin(move |mut stream, _| {
                    while let Some((head, _)) = read_request(&mut stream) {
                        let answer = match head.starts_with("GET /hedged ") {
                            false => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                            true if asked.fetch_add(1, Ordering::SeqCst) > 0 => {
                                "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
                            }
                            true => {
                                while asked.load(Ordering::SeqCst) < 2 {
                                    std::thread::sleep(Duration::from_millis(1));
                                }
                                // As slow as it is.
                                std::thread::sleep(Duration::from_millis(100));
                                first
                            }
                        };
                        if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                })
            };
            let (a, b) = (either(&asked), either(&asked));
            let mut upstream = upstream(&[a.address, b.address]);
            upstream.retries.hedge = true;
            let worker = Worker::new(upstream);
            for _ in 0..40 {
                worker.fetch(get()).await;
            }
            let mut hedged = get();
            *hedged.uri_mut() = "/hedged".parse().unwrap();
            let response = worker.send(hedged).await.unwrap();
            assert_eq!((response.status().as_u16(), asked.load(Ordering::SeqCst)), (expected, 2));
        });
    }
}

#[test]
fn an_answer_that_waits_for_a_better_one_is_given_when_the_time_is_over() {
    run(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let either = |asked: &Arc<AtomicUsize>| {
            let asked = asked.clone();
            origin(move |mut stream, _| {
                while let Some((head, _)) = read_request(&mut stream) {
                    let answer = match head.starts_with("GET /hedged ") {
                        false => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                        true if asked.fetch_add(1, Ordering::SeqCst) > 0 => {
                            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\nmine"
                        }
                        true => {
                            // Until the gateway gives up.
                            let _ = stream.read(&mut [0; 1]);
                            return;
                        }
                    };
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            })
        };
        let (a, b) = (either(&asked), either(&asked));
        let mut upstream = upstream(&[a.address, b.address]);
        upstream.retries.hedge = true;
        upstream.timeouts.response_header = Span::secs(30);
        upstream.timeouts.total = Span::secs(2);
        let worker = Worker::new(upstream);
        for _ in 0..40 {
            worker.fetch(get()).await;
        }
        let mut hedged = get();
        *hedged.uri_mut() = "/hedged".parse().unwrap();
        let response = worker.send(hedged).await.unwrap();
        assert_eq!((response.status().as_u16(), asked.load(Ordering::SeqCst)), (500, 2));
        assert_eq!(read(response).await.unwrap(), "mine");
    });
}

#[test]
fn a_hedge_that_is_to_be_tried_again_goes_to_a_third_target_and_waits_for_nobody() {
    run(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let any = |asked: &Arc<AtomicUsize>| {
            let asked = asked.clone();
            origin(move |mut stream, _| {
                while let Some((head, _)) = read_request(&mut stream) {
                    let before =
                        if head.starts_with("GET /hedged ") { asked.fetch_add(1, Ordering::SeqCst) } else { 2 };
                    let answer = match before {
                        0 => {
                            while asked.load(Ordering::SeqCst) < 3 {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                            return;
                        }
                        1 => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
                        _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                    };
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            })
        };
        let (a, b, c) = (any(&asked), any(&asked), any(&asked));
        let mut upstream = upstream(&[a.address, b.address, c.address]);
        upstream.retries.hedge = true;
        upstream.retries.on = vec![RetryOn::ServerError];
        let worker = Worker::new(upstream);
        for _ in 0..40 {
            worker.fetch(get()).await;
        }
        let mut hedged = get();
        *hedged.uri_mut() = "/hedged".parse().unwrap();
        let begun = Instant::now();
        let response = worker.send(hedged).await.unwrap();
        assert_eq!((response.status().as_u16(), asked.load(Ordering::SeqCst)), (200, 3));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    });
}

/// One of three does not do its work, and forty clients ask at once, half of them with a body of 64 KiB.
async fn nothing_fails_beside(bad: SocketAddr, change: fn(&mut Upstream)) {
    const CLIENTS: usize = 40;
    for policy in [BalancePolicy::P2cEwma, BalancePolicy::RoundRobin, BalancePolicy::Random] {
        let (one, two) = (answering(200), answering(200));
        let mut upstream = upstream(&[one.address, bad, two.address]);
        upstream.balance.policy = policy;
        change(&mut upstream);
        let worker = Worker::new(upstream);
        let client = async |number: usize| {
            for _ in 0..5 {
                let sent = match number % 2 {
                    0 => worker.send(get()).await,
                    _ => worker.send(request(Method::PUT, RequestBody::Full(bytes(64 << 10)))).await,
                };
                let response = sent.unwrap_or_else(|failure| panic!("{policy:?}: {failure}"));
                assert_eq!(response.status(), 200);
                read(response).await.unwrap();
            }
        };
        futures_util::future::join_all((0..CLIENTS).map(client)).await;
    }
}

#[test]
fn with_one_of_three_killed_nothing_idempotent_fails() {
    run(async { nothing_fails_beside(closed_address(), |_| ()).await });
}

#[test]
fn with_one_of_three_resetting_nothing_idempotent_fails() {
    run(async { nothing_fails_beside(resetting().address, |_| ()).await });
}

#[test]
fn with_one_of_three_hung_nothing_idempotent_fails() {
    run(async {
        let short = |it: &mut Upstream| it.timeouts.response_header = Span::secs(1);
        nothing_fails_beside(silent().address, short).await;
    });
}

/// The check finds it long before the time-out of those who wait there, and they go elsewhere then.
#[test]
fn a_target_that_hangs_is_left_as_soon_as_its_check_says_so() {
    run(async {
        let (silent, good) = (silent(), good(""));
        let mut upstream = with_checks(upstream(&[silent.address, good.address]));
        upstream.health.as_mut().unwrap().timeout = Span::millis(20);
        upstream.timeouts.response_header = Span::secs(3600);
        let worker = Worker::new(upstream);
        let waiting = futures_util::future::join_all((0..4).map(|_| worker.fetch(get())));
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        let _checks = Checks::start(&worker.registry);
        let done = tokio::time::timeout(PATIENCE, waiting).await;
        assert_eq!(done.map(|all| all.len()), Ok(4));
    });
}

/// What it has taken at that moment is lost with it: all of that is asked for again at the others, although it is more
/// than the budget lets run at once.
#[test]
fn a_target_that_is_killed_amid_its_work_takes_no_idempotent_request_with_it() {
    const AT_ONCE: usize = 60;
    run(async {
        let (held, killed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, gone) = (held.clone(), killed.clone());
        let dying = origin(move |mut stream, _| {
            read_request(&mut stream);
            count.fetch_add(1, Ordering::SeqCst);
            while !gone.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let (one, two) = (good("one"), good("two"));
        let worker = Worker::new(upstream(&[dying.address, one.address, two.address]));
        let killer = async {
            until("busy", || held.load(Ordering::SeqCst) == AT_ONCE / 3).await;
            killed.store(true, Ordering::SeqCst);
        };
        let all = futures_util::future::join_all((0..AT_ONCE).map(|_| worker.fetch(get())));
        let (all, ()) = futures_util::future::join(all, killer).await;
        assert_eq!(all.len(), AT_ONCE);
    });
}
