//! Connections: reuse, staleness, and what must never be reused.

use std::{
    io::{Read, Write},
    sync::{Mutex, atomic::Ordering, mpsc},
};

use crate::upstream_support::*;
use quorumgate_proxy::upstream::Failure;

#[test]
fn a_connection_serves_one_exchange_after_the_other() {
    run(async {
        let origin = good("fine");
        let worker = Worker::new(upstream(&[origin.address]));
        for _ in 0..100 {
            assert_eq!(worker.fetch(get()).await, "fine");
            assert_eq!(worker.fetch(post("order")).await, "fine");
        }
        assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
        assert_eq!(worker.metric(r#"connections{upstream="origin",state="idle"}"#), 1);
        assert_eq!(worker.metric(r#"requests_total{upstream="origin",code="2xx"}"#), 200);
    });
}

/// The server reads a second request on each connection and closes without a word: the race that no check can win.
#[test]
fn a_connection_closed_under_an_idempotent_request_never_shows() {
    run(async {
        let origin = origin(|mut stream, _| {
            answer(&mut stream, "fine");
            read_request(&mut stream);
        });
        let worker = Worker::new(upstream(&[origin.address]));
        for round in 0..500 {
            assert_eq!(worker.fetch(get()).await, "fine", "round {round}");
        }
        assert_eq!(worker.metric(r#"retries_total{upstream="origin"}"#), 0);
        assert!(worker.metric(r#"stale_connections_total{upstream="origin"}"#) > 0);
    });
}

#[test]
fn a_connection_closed_after_its_response_never_shows() {
    run(async {
        let origin = origin(|mut stream, _| {
            answer(&mut stream, "fine");
        });
        let worker = Worker::new(upstream(&[origin.address]));
        for round in 0..500 {
            assert_eq!(worker.fetch(get()).await, "fine", "round {round}");
        }
    });
}

/// Every connection ends after one to seven answers, at any moment, under many clients at once.
#[test]
fn idempotent_requests_never_fail_while_connections_come_and_go() {
    const CLIENTS: usize = 32;
    const ROUNDS: usize = 100;
    run(async {
        let serve = |mut stream: std::net::TcpStream, number: usize| {
            for _ in 0..=number % 7 {
                answer(&mut stream, "fine");
            }
        };
        let (a, b) = (origin(serve), origin(serve));
        let worker = Worker::new(upstream(&[a.address, b.address]));
        let client = async || {
            for _ in 0..ROUNDS {
                assert_eq!(worker.fetch(get()).await, "fine");
            }
        };
        futures_util::future::join_all((0..CLIENTS).map(|_| client())).await;
        let line = r#"requests_total{upstream="origin",code="2xx"}"#;
        assert_eq!(worker.metric(line), (CLIENTS * ROUNDS) as u64);
    });
}

/// The worker's thread is held until the server has closed, so that only the kernel knows of it.
#[test]
fn a_post_finds_a_closed_connection_before_it_is_written() {
    run(async {
        let (closed, is_closed) = mpsc::channel();
        let closed = Mutex::new(closed);
        let origin = origin(move |mut stream, _| {
            answer(&mut stream, "fine");
            drop(stream);
            closed.lock().unwrap().send(()).unwrap();
        });
        let worker = Worker::new(upstream(&[origin.address]));
        for round in 0..300 {
            assert_eq!(worker.fetch(post("order")).await, "fine", "round {round}");
            is_closed.recv().unwrap();
        }
        assert_eq!(origin.connections.load(Ordering::SeqCst), 300);
    });
}

/// Sends `response` to the first request of the first connection, and a good one to all others.
fn once(response: &'static str, then_close: bool) -> Origin {
    origin(move |mut stream, number| {
        if number > 0 {
            while answer(&mut stream, "fine") {}
            return;
        }
        read_request(&mut stream);
        stream.write_all(response.as_bytes()).unwrap();
        if !then_close {
            let _ = stream.read(&mut [0; 1]);
        }
    })
}

async fn check_not_reused(response: &'static str, then_close: bool, expected: Result<&str, &str>) {
    let origin = once(response, then_close);
    let worker = Worker::new(upstream(&[origin.address]));
    let outcome = match worker.send(post("order")).await {
        Ok(response) => read(response).await,
        Err(failure) => Err(failure),
    };
    let outcome = outcome.map_err(|failure| failure.to_string());
    assert_eq!(outcome.as_deref().map_err(|failure| failure.as_str()), expected, "{response:?}");
    assert_eq!(worker.fetch(post("order")).await, "fine", "{response:?}");
    assert_eq!(origin.connections.load(Ordering::SeqCst), 2, "{response:?}");
}

#[test]
fn a_bad_response_fails_and_its_connection_is_closed() {
    const OPEN: bool = false;
    const CLOSE: bool = true;
    run(async {
        let check = check_not_reused;
        check("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi", OPEN, Ok("hi")).await;
        check("HTTP/1.0 200 OK\r\n\r\nhi", CLOSE, Ok("hi")).await;
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", OPEN, Ok("hi")).await;
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi", CLOSE, Err("connection reset")).await;
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhi", CLOSE, Err("connection reset")).await;
        let framing = "protocol error: the body's framing is broken";
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nhi", OPEN, Err(framing)).await;
        let unparsable = "protocol error: the response cannot be parsed";
        check("garbage\r\n\r\n", OPEN, Err(unparsable)).await;
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi", OPEN, Err(unparsable)).await;
        let two = "protocol error: more than one Content-Length";
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi", OPEN, Err(two)).await;
        let both = "protocol error: Content-Length beside Transfer-Encoding";
        let response = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        check(response, OPEN, Err(both)).await;
        let old = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        check(old, OPEN, Err(unparsable)).await;
        let coding = "protocol error: a Transfer-Encoding other than chunked";
        for response in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            check(response, OPEN, Err(coding)).await;
        }
        for response in [
            "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nx-a: b\r\n c: d\r\ncontent-length: 2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nx-a: b\0\r\ncontent-length: 2\r\n\r\nhi",
        ] {
            check(response, OPEN, Err(unparsable)).await;
        }
        for response in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhiX\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a\rb\r\nhi\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a\nb\r\nhi\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhi\r\n0\r\n\r\n",
        ] {
            check(response, OPEN, Err(framing)).await;
        }
        // Bytes behind an answer that has no body are another answer, for nobody.
        check("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", OPEN, Ok("")).await;
        check("HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\nevil", OPEN, Ok("")).await;
        check("HTTP/1.1 101 Switching\r\n\r\n", OPEN, Err("protocol error: 101 without an Upgrade")).await;
        check("HTTP/1.1 20", CLOSE, Err("protocol error: the response head broke off")).await;
    });
}

#[test]
fn a_response_that_nobody_reads_to_its_end_closes_its_connection() {
    run(async {
        let origin = once("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi", false);
        let worker = Worker::new(upstream(&[origin.address]));
        drop(worker.send(get()).await.unwrap());
        assert_eq!(worker.fetch(get()).await, "fine");
        assert_eq!(worker.metric(r#"connections{upstream="origin",state="open"}"#), 1);
    });
}

#[test]
fn idle_connections_are_bounded() {
    const AT_ONCE: usize = 400;
    run(async {
        let origin = origin(|mut stream, _| while answer(&mut stream, "fine") {});
        let worker = Worker::new(upstream(&[origin.address]));
        let all = (0..AT_ONCE).map(|_| worker.send(get()));
        let responses = futures_util::future::join_all(all).await;
        assert_eq!(responses.into_iter().filter(Result::is_ok).count(), AT_ONCE);
        assert!(worker.metric(r#"connections{upstream="origin",state="idle"}"#) <= 256);
        let all = (0..AT_ONCE).map(|_| worker.fetch(get()));
        futures_util::future::join_all(all).await;
        assert_eq!(worker.metric(r#"connections{upstream="origin",state="idle"}"#), 256);
    });
}

#[test]
fn an_unknown_upstream_has_no_target() {
    run(async {
        let worker = Worker::new(upstream(&[]));
        assert!(matches!(worker.send(get()).await, Err(Failure::NoHealthyTarget)));
    });
}
