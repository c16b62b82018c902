//! Proxy-Status (RFC 9209): what went wrong behind the gateway, by the table of docs/ARCHITECTURE.md, one line each.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::*;

/// Reads a head, says this, and closes.
async fn says(words: &'static str) -> SocketAddr {
    behaves(move |mut stream| async move {
        let _ = stream.write_all(words.as_bytes()).await;
        let _ = stream.shutdown().await;
        // What was not read would make a reset of the end.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

/// Does this once it has read a head.
async fn behaves<F: Future<Output = ()> + Send + 'static>(
    does: impl Fn(TcpStream) -> F + Send + Sync + Copy + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                does(stream).await;
            });
        }
    });
    address
}

async fn resets() -> SocketAddr {
    behaves(|stream| async move {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await
}

async fn hangs() -> SocketAddr {
    behaves(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

fn to(target: SocketAddr, words: Value) -> Gateway {
    let mut upstream = json!({"name": "u", "targets": [target.to_string()], "retries": {"attempts": 0}});
    for (word, value) in words.as_object().unwrap() {
        upstream[word] = value.clone();
    }
    Gateway::start(json!({
        "upstreams": [upstream],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u"}],
    }))
}

#[track_caller]
fn check(answer: &str, expected_status: u16, code: &str, error: &str) {
    check_problem(answer, expected_status, code);
    assert_eq!(field(answer, "proxy-status"), Some(&*format!("quorumgate; error={error}")), "{answer}");
}

async fn asked(target: SocketAddr, words: Value) -> String {
    ask(to(target, words).address, "POST /", &["content-length: 0"], "").await
}

#[tokio::test]
async fn a_target_that_refuses_the_connection_is_unavailable() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    check(&asked(closed, json!({})).await, 503, "no_healthy_upstream", "destination_unavailable");
}

#[tokio::test]
async fn a_target_without_the_tls_that_it_should_have_is_a_tls_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Before it is asked, for it never will be.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    check(&asked(target, json!({"tls": {"verify": false}})).await, 502, "upstream_tls", "tls_protocol_error");
}

#[tokio::test]
async fn a_reset_before_the_answer_is_a_connection_that_was_terminated() {
    check(&asked(resets().await, json!({})).await, 502, "upstream_reset", "connection_terminated");
}

#[tokio::test]
async fn a_silent_target_is_a_response_timeout() {
    let words = json!({"timeouts": {"response_header": "50ms"}});
    check(&asked(hangs().await, words).await, 504, "upstream_timeout", "http_response_timeout");
}

#[tokio::test]
async fn what_is_not_http_or_breaks_off_within_the_head_is_a_protocol_error() {
    for words in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        check(&asked(says(words).await, json!({})).await, 502, "upstream_protocol_error", "http_protocol_error");
    }
}

#[tokio::test]
async fn an_open_breaker_is_a_destination_that_is_unavailable() {
    let gateway = to(resets().await, json!({"breaker": {"min_requests": 1, "error_percent": 1, "open": "1h"}}));
    let post = || ask(gateway.address, "POST /", &["content-length: 0"], "");
    check(&post().await, 502, "upstream_reset", "connection_terminated");
    let refused = post().await;
    check(&refused, 503, "circuit_open", "destination_unavailable");
    assert!(field(&refused, "retry-after").is_some());
}

#[tokio::test]
async fn a_target_that_has_all_it_may_is_at_its_connection_limit() {
    let (open, gate) = watch::channel(false);
    let (heard, hears) = watch::channel(0);
    let target = upstream(move |_| {
        let mut gate = gate.clone();
        heard.send_modify(|heard| *heard += 1);
        async move {
            gate.wait_for(|open| *open).await.unwrap();
            http::Response::new(http_body_util::Empty::<bytes::Bytes>::new())
        }
    })
    .await;
    let gateway = to(target, json!({"breaker": {"max_in_flight": 1}}));
    let address = gateway.address;
    let first = tokio::spawn(async move { ask(address, "GET /", &[], "").await });
    soon("the first is there", hears.clone().wait_for(|heard| *heard == 1)).await.unwrap();
    check(&ask(address, "GET /", &[], "").await, 503, "overloaded", "connection_limit_reached");
    open.send_replace(true);
    assert_eq!(status(&first.await.unwrap()), 200);
}

#[tokio::test]
async fn a_loop_is_told() {
    let (target, heard) = echo().await;
    let via = format!("via: {}", ["1.1 quorumgate"; 8].join(", "));
    check(&ask(to(target, json!({})).address, "GET /", &[&via], "").await, 508, "loop_detected", "proxy_loop_detected");
    assert_eq!(heard.count(), 0);
}

#[tokio::test]
async fn errors_of_the_upstream_and_refusals_of_the_gateway_have_none() {
    let target = says("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno").await;
    let answer = asked(target, json!({})).await;
    assert_eq!((status(&answer), body(&answer), field(&answer, "proxy-status")), (502, "no", None), "{answer}");
    let gateway = Gateway::start(json!({}));
    let answer = ask(gateway.address, "GET /", &[], "").await;
    check_problem(&answer, 404, "no_route");
    assert_eq!(field(&answer, "proxy-status"), None, "{answer}");
}
