//! What is tried again and what is not, and how long anything may take.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::upstream_support::*;
use http::Method;
use quorumgate_model::{
    resource::{BalancePolicy, RetryOn},
    units::Span,
};
use quorumgate_proxy::{body::RequestBody, upstream::Failure};

/// Reads each request and resets the connection: RST, as a killed process does it.
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

#[test]
fn a_refused_connection_is_tried_elsewhere_whatever_the_method() {
    run(async {
        for policy in
            [BalancePolicy::RoundRobin, BalancePolicy::P2cEwma, BalancePolicy::LeastRequests, BalancePolicy::Random]
        {
            let good = good("fine");
            let mut upstream = upstream(&[closed_address(), good.address]);
            upstream.balance.policy = policy;
            let worker = Worker::new(upstream);
            for _ in 0..20 {
                assert_eq!(worker.fetch(post("order")).await, "fine", "{policy:?}");
            }
        }
    });
}

#[test]
fn a_trail_names_the_last_target_and_counts_the_attempts() {
    run(async {
        let good = good("fine");
        let worker = Worker::new(upstream(&[closed_address(), good.address]));
        let (sent, trail) = worker.trace(get()).await;
        assert!(sent.is_ok());
        assert_eq!((trail.attempts, trail.target.as_deref()), (2, Some(&*good.address.to_string())));
        assert!(trail.connect.is_some() && trail.header >= trail.connect);
        assert_eq!(worker.metric(r#"retries_total{upstream="origin"}"#), 1);
        assert_eq!(worker.metric(r#"connect_errors_total{upstream="origin"}"#), 1);
    });
}

#[test]
fn without_a_target_that_answers_the_last_failure_shows() {
    run(async {
        let worker = Worker::new(upstream(&[closed_address(), closed_address()]));
        let (sent, trail) = worker.trace(get()).await;
        assert!(matches!(sent, Err(Failure::Connect(_))), "{sent:?}");
        assert_eq!(trail.attempts, 3);
        assert_eq!(worker.metric(r#"requests_total{upstream="origin",code="none"}"#), 1);
    });
}

#[test]
fn a_reset_before_the_head_is_retried_elsewhere_if_idempotent() {
    run(async {
        let (bad, good) = (resetting(), good("fine"));
        let worker = Worker::new(upstream(&[bad.address, good.address]));
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            for _ in 0..2 {
                let sent = worker.send(request(method.clone(), RequestBody::Empty)).await;
                assert_eq!(sent.unwrap().status(), 200, "{method}");
            }
        }
        assert_eq!(bad.connections.load(Ordering::SeqCst), 5);
    });
}

#[test]
fn a_reset_before_the_head_fails_any_other_request() {
    run(async {
        let (bad, good) = (resetting(), good("fine"));
        for method in [Method::POST, Method::PATCH] {
            let worker = Worker::new(upstream(&[bad.address, good.address]));
            let sent = worker.send(request(method, RequestBody::Full("order".into()))).await;
            assert!(matches!(sent, Err(Failure::Reset)), "{sent:?}");
        }
        assert_eq!(good.connections.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn retries_follow_the_words_and_the_number_of_the_configuration() {
    run(async {
        let attempts = async |attempts, on: Vec<RetryOn>, route_attempts| {
            let mut upstream = upstream(&[closed_address()]);
            upstream.retries.attempts = attempts;
            upstream.retries.on = on;
            let mut route = route();
            route.retries.attempts = route_attempts;
            Worker::with(upstream, route).trace(get()).await.1.attempts
        };
        assert_eq!(attempts(2, vec![RetryOn::ConnectFailure], None).await, 3);
        assert_eq!(attempts(2, vec![RetryOn::Reset, RetryOn::RefusedStream], None).await, 1);
        assert_eq!(attempts(0, vec![RetryOn::ConnectFailure], None).await, 1);
        assert_eq!(attempts(2, vec![RetryOn::ConnectFailure], Some(0)).await, 1);
        assert_eq!(attempts(0, vec![RetryOn::ConnectFailure], Some(1)).await, 2);
    });
}

#[test]
fn nothing_is_retried_after_a_response_byte() {
    run(async {
        let half = origin(|mut stream, _| {
            read_request(&mut stream);
            stream.write_all(b"H").unwrap();
        });
        let worker = Worker::new(upstream(&[half.address]));
        let sent = worker.send(get()).await;
        assert!(matches!(sent, Err(Failure::Protocol(_))), "{sent:?}");
        assert_eq!(half.connections.load(Ordering::SeqCst), 1);
    });
}

/// A hundred requests at once meet an upstream that resets them all: without a budget it would see three hundred.
#[test]
fn the_budget_bounds_what_retries_add() {
    const REQUESTS: usize = 100;
    run(async {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let barrier = Arc::new(std::sync::Barrier::new(REQUESTS));
        let bad = origin(move |mut stream, number| {
            if read_request(&mut stream).is_some() {
                count.fetch_add(1, Ordering::SeqCst);
            }
            if number < REQUESTS {
                barrier.wait();
            }
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let worker = Worker::new(upstream(&[bad.address]));
        let all = futures_util::future::join_all((0..REQUESTS).map(|_| worker.send(get()))).await;
        assert!(all.iter().all(Result::is_err));
        let extra = seen.load(Ordering::SeqCst) - REQUESTS;
        assert!((1..=REQUESTS / 2).contains(&extra), "{extra} retries");
    });
}

fn with_timeouts(address: SocketAddr, set: impl FnOnce(&mut quorumgate_model::resource::UpstreamTimeouts)) -> Worker {
    let mut upstream = upstream(&[address]);
    set(&mut upstream.timeouts);
    Worker::new(upstream)
}

#[test]
fn a_silent_upstream_times_out_and_is_not_tried_again() {
    run(async {
        let silent = silent();
        let worker = with_timeouts(silent.address, |it| it.response_header = Span::millis(100));
        let started = Instant::now();
        let sent = worker.send(get()).await;
        assert!(matches!(sent, Err(Failure::HeaderTimeout)), "{sent:?}");
        assert!(started.elapsed() >= Duration::from_millis(100));
        assert_eq!(silent.connections.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn the_whole_exchange_has_a_limit_of_the_route_or_the_upstream() {
    run(async {
        let silent = silent();
        let worker = with_timeouts(silent.address, |it| it.total = Span::millis(50));
        assert!(matches!(worker.send(get()).await, Err(Failure::TotalTimeout)));
        let mut route = route();
        route.timeouts.total = Span::millis(50);
        let mut upstream = upstream(&[silent.address]);
        upstream.timeouts.total = Span::secs(3600);
        let worker = Worker::with(upstream, route);
        assert!(matches!(worker.send(get()).await, Err(Failure::TotalTimeout)));
    });
}

#[test]
fn a_body_that_stands_still_times_out() {
    let slow = || {
        origin(|mut stream, _| {
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi").unwrap();
            let _ = stream.read(&mut [0; 1]);
        })
    };
    run(async move {
        let origin = slow();
        let worker = with_timeouts(origin.address, |it| it.idle = Span::millis(50));
        let response = worker.send(get()).await.unwrap();
        assert!(matches!(read(response).await, Err(Failure::IdleTimeout)));
        let worker = with_timeouts(origin.address, |it| it.total = Span::secs(2));
        let response = worker.send(get()).await.unwrap();
        assert!(matches!(read(response).await, Err(Failure::TotalTimeout)));
    });
}

#[test]
fn an_answers_head_has_as_many_fields_as_a_clients_may_have() {
    run(async {
        for (fields, taken) in [(127, true), (128, false)] {
            let origin = origin(move |mut stream, _| {
                read_request(&mut stream);
                let fields: String = (0..fields).map(|n| format!("x-{n}: 1\r\n")).collect();
                let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
                let _ = stream.read(&mut [0; 1]);
            });
            let sent = Worker::new(upstream(&[origin.address])).send(get()).await;
            match sent {
                Ok(_) => assert!(taken, "{fields}"),
                Err(Failure::Protocol(why)) => assert!(!taken && why.contains("too many fields"), "{fields}: {why}"),
                Err(failure) => panic!("{fields}: {failure}"),
            }
        }
    });
}

#[test]
fn a_stream_of_messages_may_stand_still() {
    run(async {
        for kind in ["text/event-stream", "application/grpc", "application/grpc+proto"] {
            let origin = origin(move |mut stream, _| {
                read_request(&mut stream);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 5\r\n\r\nhi");
                stream.write_all(head.as_bytes()).unwrap();
                let _ = stream.read(&mut [0; 1]);
            });
            let worker = with_timeouts(origin.address, |it| it.idle = Span::millis(50));
            let response = worker.send(get()).await.unwrap();
            let ended = tokio::time::timeout(Duration::from_millis(300), read(response)).await;
            assert!(ended.is_err(), "{kind}: {ended:?}");
        }
    });
}

/// A listener whose queue is full lets further connects hang.
#[test]
fn a_connect_that_hangs_times_out() {
    run(async {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let limit = Duration::from_millis(200);
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, limit) {
            queued.push(stream);
        }
        let mut upstream = upstream(&[address]);
        upstream.timeouts.connect = Span::millis(100);
        upstream.retries.attempts = 0;
        let sent = Worker::new(upstream).send(get()).await;
        assert!(matches!(sent, Err(Failure::ConnectTimeout)), "{sent:?}");
    });
}

#[test]
fn a_call_that_is_dropped_leaves_nothing_behind() {
    run(async {
        let silent = silent();
        let worker = Worker::new(upstream(&[silent.address]));
        let dropped = tokio::time::timeout(Duration::from_millis(50), worker.send(get())).await;
        assert!(dropped.is_err());
        assert_eq!(worker.metric(r#"connections{upstream="origin",state="open"}"#), 0);
    });
}
