//! Interim answers (1xx): those of an upstream reach the client before its answer does, and never in any other order; and a
//! client that waits to be asked for its body is asked by the upstream.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::support::*;

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nconnection: x-hop\r\nx-hop: 1\r\n\
                     content-length: 7\r\nx-hidden: 1\r\n\r\n";
const SEEN: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An upstream that speaks by hand: what it says to each request's head.
async fn scripted<F>(script: impl Fn(TcpStream, String) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = Option<TcpStream>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move {
                while let Some(head) = head(&mut stream).await {
                    match script(stream, head).await {
                        Some(rest) => stream = rest,
                        None => return,
                    }
                }
            });
        }
    });
    address
}

/// Everything up to the next empty line; None at the end.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(text).ok()
}

async fn next_head(stream: &mut TcpStream) -> String {
    soon("a head", head(stream)).await.expect("a head before the end")
}

async fn read(stream: &mut TcpStream, bytes: usize) -> String {
    let mut text = vec![0; bytes];
    soon("the body", stream.read_exact(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

async fn say(mut stream: TcpStream, text: &str) -> Option<TcpStream> {
    stream.write_all(text.as_bytes()).await.ok().map(|()| stream)
}

fn hiding(upstream: SocketAddr) -> serde_json::Value {
    let mut words = forward_all(upstream);
    words["routes"][0]["rewrite"] = json!({"headers": {"response": {"remove": ["x-hidden"], "set": {"x-set": "1"}}}});
    words
}

/// Hints, and the answer only once it is told that the client has them.
async fn hinting() -> (SocketAddr, Arc<Notify>) {
    let seen = Arc::new(Notify::new());
    let upstream = {
        let seen = seen.clone();
        scripted(move |stream, _| {
            let seen = seen.clone();
            async move {
                let stream = say(stream, HINTS).await?;
                seen.notified().await;
                say(stream, OK).await
            }
        })
        .await
    };
    (upstream, seen)
}

#[tokio::test]
async fn early_hints_reach_an_http1_client_before_its_answer() {
    let (upstream, seen) = hinting().await;
    let gateway = Gateway::start(hiding(upstream));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(next_head(&mut client).await, SEEN);
        seen.notify_one();
        let answer = next_head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-set: 1\r\n"), "{answer}");
        assert_eq!(read(&mut client, 2).await, "ok");
    }
}

#[tokio::test]
async fn an_http10_client_and_an_http2_client_get_the_answer_alone() {
    let (upstream, seen) = hinting().await;
    let gateway = Gateway::start(forward_all(upstream));
    seen.notify_one();
    let answer = raw(gateway.address, "GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(!answer.contains("103"), "{answer}");
    seen.notify_one();
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    let request = Request::get("http://a/").body(Full::default()).unwrap();
    let answer = soon("an answer", client.send_request(request)).await.unwrap();
    assert_eq!((answer.status().as_u16(), text(answer).await.as_str()), (200, "ok"));
}

#[tokio::test]
async fn interim_answers_come_behind_the_answer_to_the_request_before() {
    const LARGE: usize = 1 << 20;
    let upstream = scripted(|stream, head| async move {
        match head.starts_with("GET /large ") {
            true => {
                let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n{}", "x".repeat(LARGE));
                say(stream, &text).await
            }
            false => say(stream, &[SEEN, SEEN, OK].concat()).await,
        }
    })
    .await;
    let gateway = Gateway::start(forward_all(upstream));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let pair = "GET /large HTTP/1.1\r\nhost: a\r\n\r\nGET /hints HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(pair.repeat(8).as_bytes()).await.unwrap();
    for _ in 0..8 {
        assert!(next_head(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(read(&mut client, LARGE).await, "x".repeat(LARGE));
        assert_eq!([next_head(&mut client).await, next_head(&mut client).await], [SEEN, SEEN]);
        assert!(next_head(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(read(&mut client, 2).await, "ok");
    }
}

#[tokio::test]
async fn an_upstream_that_sends_too_many_or_too_large_ones_is_at_fault() {
    const MAX: usize = quorumgate_proxy::upstream::INTERIM_ANSWERS_MAX;
    let check = async |interim: String, expected: u16| {
        let upstream = scripted(move |stream, _| {
            let text = format!("{interim}{OK}");
            async move { say(stream, &text).await }
        })
        .await;
        let gateway = Gateway::start(forward_all(upstream));
        let answer = ask(gateway.address, "GET /", &[], "").await;
        let last = &answer[answer.rfind("HTTP/1.1 ").unwrap()..];
        assert_eq!(status(last), expected, "{answer}");
        assert!(answer.matches("HTTP/1.1 103 ").count() <= MAX, "{answer}");
        if expected == 502 {
            check_problem(last, 502, "upstream_protocol_error");
        }
    };
    check(SEEN.repeat(MAX), 200).await;
    check(SEEN.repeat(MAX + 1), 502).await;
    check(SEEN.repeat(1_000), 502).await;
    let large = |bytes: usize| format!("HTTP/1.1 103 Early Hints\r\nx: {}\r\n\r\n", "y".repeat(bytes));
    check(large(8 << 10), 200).await;
    check(large(8 << 10).repeat(2), 502).await;
}

async fn expecting(gateway: &Gateway, body: &str) -> TcpStream {
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn the_upstream_asks_a_client_that_waits_for_its_body() {
    let upstream = scripted(|stream, head| async move {
        assert!(head.contains("expect: 100-continue\r\n"), "{head}");
        let mut stream = say(stream, "HTTP/1.1 100 Continue\r\n\r\n").await?;
        let body = read(&mut stream, 4).await;
        say(stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{body}")).await
    })
    .await;
    let gateway = Gateway::start(forward_all(upstream));
    let mut client = expecting(&gateway, "body").await;
    assert_eq!(next_head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").await.unwrap();
    assert!(next_head(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"), "and no second 100");
    assert_eq!(read(&mut client, 4).await, "body");
}

#[tokio::test]
async fn a_body_that_the_upstream_does_not_want_is_never_asked_for() {
    let upstream = scripted(|stream, _| async move {
        let mut stream = say(stream, "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nn").await?;
        // Longer than anybody waits to be asked.
        let came = tokio::time::timeout(Duration::from_millis(1_500), stream.read_u8()).await;
        assert!(came.is_err(), "{came:?}");
        let mut stream = say(stream, "o").await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok()?;
        assert!(rest.is_empty(), "nothing of the body came");
        None
    })
    .await;
    let gateway = Gateway::start(forward_all(upstream));
    let mut client = expecting(&gateway, "body").await;
    let answer = next_head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 417 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(read(&mut client, 2).await, "no");
    let mut rest = Vec::new();
    soon("the end", client.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    gateway.metric_becomes("quorumgate_upstream_connections{upstream=\"u\",state=\"open\"}", 0).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_know_how_to_ask_gets_the_body_in_the_end() {
    let upstream = scripted(|mut stream, _| async move {
        let body = read(&mut stream, 4).await;
        say(stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{body}")).await
    })
    .await;
    let mut words = forward_all(upstream);
    // The wait for the body is none for the answer.
    words["upstreams"][0]["timeouts"] = json!({"response_header": "500ms"});
    let gateway = Gateway::start(words);
    let mut client = expecting(&gateway, "body").await;
    assert_eq!(next_head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").await.unwrap();
    assert!(next_head(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(read(&mut client, 4).await, "body");
}

#[tokio::test]
async fn an_upstream_over_http2_gets_the_body_at_once() {
    let (upstream, heard) = echo().await;
    let mut words = forward_all(upstream);
    words["upstreams"][0]["protocol"] = json!("http2");
    let gateway = Gateway::start(words);
    let mut client = expecting(&gateway, "body").await;
    assert_eq!(next_head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").await.unwrap();
    assert!(next_head(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let heard = heard.last();
    assert!(heard.ends_with("\n\nbody") && !heard.contains("expect"), "{heard}");
}

#[tokio::test]
async fn a_client_that_takes_no_interim_answer_is_given_up_on() {
    let upstream = scripted(|stream, _| async move {
        let large = format!("HTTP/1.1 103 Early Hints\r\nx: {}\r\n\r\n", "y".repeat(14 << 10));
        say(stream, &[large.as_str(), OK].concat()).await
    })
    .await;
    let mut settings = settings();
    settings.limits.write_stall = Duration::from_millis(300);
    let gateway = Gateway::with(settings, forward_all(upstream));
    let client = TcpStream::connect(gateway.address).await.unwrap();
    // More than both sockets hold.
    let pipelined = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(4_096);
    let (_unread, mut write) = client.into_split();
    let asking = tokio::spawn(async move { write.write_all(pipelined.as_bytes()).await });
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"stalled_client\"}", 1).await;
    gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
    drop(asking);
}

#[tokio::test]
async fn who_has_not_asked_for_a_100_gets_none() {
    let upstream = scripted(|mut stream, head| async move {
        if head.starts_with("POST ") {
            read(&mut stream, 4).await;
        }
        say(stream, &["HTTP/1.1 100 Continue\r\n\r\n", SEEN, OK].concat()).await
    })
    .await;
    let gateway = Gateway::start(forward_all(upstream));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    for request in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"]
    {
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(next_head(&mut client).await, SEEN, "{request}");
        assert!(next_head(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"), "{request}");
        assert_eq!(read(&mut client, 2).await, "ok");
    }
}
