//! Bodies in both directions: limited, streamed with back-pressure, cut where they stall.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use crate::support::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const TOTAL: u64 = 64 << 20;
const CHUNK: usize = 64 << 10;
/// What sockets and HTTP libraries on the way may hold: kernels grow a loopback socket to some MiB on either side.
const UNREAD_MAX: u64 = 24 << 20;

/// `TOTAL` bytes, counted as they are taken.
struct Counted {
    taken: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        static CHUNK_BYTES: [u8; CHUNK] = [b'x'; CHUNK];
        if self.taken.load(Ordering::Relaxed) >= TOTAL {
            return Poll::Ready(None);
        }
        self.taken.fetch_add(CHUNK as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK_BYTES)))))
    }
}

/// Waits until a counter stands still, and says where.
async fn settled(counter: &AtomicU64) -> u64 {
    let mut seen = (u64::MAX, 0);
    until("the flow stands still", || {
        let now = counter.load(Ordering::Relaxed);
        seen = if now == seen.0 { (now, seen.1 + 1) } else { (now, 0) };
        (now > 0 && seen.1 > 60).then_some(now)
    })
    .await
}

#[tokio::test]
async fn a_slow_reader_holds_up_the_upstream() {
    let taken = Arc::new(AtomicU64::new(0));
    let target = {
        let taken = taken.clone();
        upstream(move |_| {
            let taken = taken.clone();
            async move { Response::new(Counted { taken }) }
        })
        .await
    };
    let gateway = Gateway::start(forward_all(target));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let unread = settled(&taken).await;
    assert!(unread < UNREAD_MAX, "{unread} bytes were taken for a client that reads nothing");

    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match soon("the rest of the body", client.read(&mut buffer)).await.unwrap() {
            0 => break,
            n => received += n as u64,
        }
    }
    assert!(received > TOTAL, "{received} of {TOTAL} bytes arrived");
}

#[tokio::test]
async fn a_slow_upstream_holds_up_the_client() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let target = upstream(move |request: Request<hyper::body::Incoming>| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.unwrap();
            let mut total = 0u64;
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                total += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            }
            Response::new(Full::new(Bytes::from(total.to_string())))
        }
    })
    .await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "body": {"max": 0}}],
    }));
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let taken = Arc::new(AtomicU64::new(0));
    let request = Request::post("/").header("host", "a").body(Counted { taken: taken.clone() }).unwrap();
    let answer = tokio::spawn(sender.send_request(request));
    let unread = settled(&taken).await;
    assert!(unread < UNREAD_MAX, "{unread} bytes were taken for an upstream that reads nothing");
    go.send(true).unwrap();
    let answer = soon("the answer", answer).await.unwrap().unwrap();
    assert_eq!(text(answer).await, TOTAL.to_string());
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "body": {"max": "10"}}],
    }));
    let at = gateway.address;
    assert_eq!(status(&ask(at, "POST /", &["content-length: 10"], "0123456789").await), 200);
    // Refused by its head alone: the body is never sent.
    check_problem(&ask(at, "POST /", &["content-length: 11"], "").await, 413, "content_too_large");
    assert_eq!(heard.count(), 1);
    let chunks = "6\r\n012345\r\n6\r\n678901\r\n0\r\n\r\n";
    check_problem(&ask(at, "POST /", &["transfer-encoding: chunked"], chunks).await, 413, "content_too_large");
    assert_eq!(status(&ask(at, "POST /", &["transfer-encoding: chunked"], "3\r\nabc\r\n0\r\n\r\n").await), 200);
    assert!(heard.last().ends_with("\n\nabc"), "{}", heard.last());
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_on() {
    let (target, _) = echo().await;
    let mut impatient = settings();
    impatient.limits.body_idle = Duration::from_millis(100);
    let gateway = Gateway::with(impatient, forward_all(target));
    let answer = ask(gateway.address, "POST /", &["content-length: 10"], "01234").await;
    check_problem(&answer, 408, "request_timeout");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let target = upstream(|request: Request<hyper::body::Incoming>| async move {
        let body = request.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        // Of unknown length, as whatever has trailers.
        let frames = [Frame::data(Bytes::from_static(b"ok")), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let gateway = Gateway::start(forward_all(target));
    let fields = ["transfer-encoding: chunked", "trailer: x-sum", "te: trailers"];
    let answer = ask(gateway.address, "POST /", &fields, "1\r\na\r\n0\r\nx-sum: 42\r\n\r\n").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{answer:?}");
}

#[tokio::test]
async fn answers_without_a_body_stay_so() {
    let target = upstream(|request: Request<hyper::body::Incoming>| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        Response::builder().status(status).body(Empty::<Bytes>::new()).unwrap()
    })
    .await;
    let gateway = Gateway::start(forward_all(target));
    for code in [204, 304, 200] {
        let answer = ask(gateway.address, &format!("GET /{code}"), &[], "").await;
        assert_eq!((status(&answer), body(&answer)), (code, ""), "{answer}");
        gateway
            .metric_becomes(
                &format!("quorumgate_http_requests_total{{route=\"all\",method=\"GET\",code=\"{code}\"}}"),
                1,
            )
            .await;
    }
    // A HEAD answer says how long the GET one would be, and sends nothing.
    let (target, _) = echo().await;
    gateway.proxy.publish(rules(forward_all(target)));
    let answer = ask(gateway.address, "HEAD /", &[], "").await;
    assert_eq!((status(&answer), field(&answer, "content-length"), body(&answer)), (200, Some("2"), ""), "{answer}");
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"client_gone\"}"), 0);
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 1024];
    let n = soon("100", client.read(&mut buffer)).await.unwrap();
    assert!(buffer[..n].starts_with(b"HTTP/1.1 100 "), "{:?}", String::from_utf8_lossy(&buffer[..n]));
    client.write_all(b"abc").await.unwrap();
    let mut answer = String::new();
    soon("the answer", client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(heard.last().ends_with("\n\nabc"), "{}", heard.last());
    assert!(heard.last().contains("expect: 100-continue\n"), "the upstream is who asks: {}", heard.last());
}

#[tokio::test]
async fn a_connection_that_ends_behind_an_unread_body_says_so() {
    let (target, _heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let post =
        |path: &str, length: usize| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");

    // Too much to read for nothing.
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(post("/", 11 << 20).as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");

    // A short body that comes in behind its head is read, and the connection goes on.
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    for _ in 0..2 {
        client.write_all(post("/a%2fb", 5).as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        client.write_all(b"a\nb\nc").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"}") {
            let byte = soon("the answer", client.read_u8()).await.unwrap();
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 400 ") && !head.contains("connection: close"), "{head}");
    }
}

#[tokio::test]
async fn a_body_that_is_buffered_is_whole_before_the_upstream_hears_of_it() {
    let (target, heard) = echo().await;
    let mut words = forward_all(target);
    words["routes"][0]["body"] = json!({"max": "10", "buffer": true});
    let gateway = Gateway::start(words);
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    gateway.metric_becomes("quorumgate_http_buffered_bytes", 5).await;
    let connections = "quorumgate_upstream_connections{upstream=\"u\",state=\"open\"} ";
    assert!(!gateway.metrics().lines().any(|line| line.starts_with(connections) && !line.ends_with(" 0")));
    client.write_all(b"5\r\nworld\r\n0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(status(&answer), 200, "{answer}");
    let came = heard.last();
    assert!(came.contains("content-length: 10\n") && came.ends_with("\n\nhelloworld"), "{came}");
    check_problem(&raw(gateway.address, format!("{head}6\r\nworld!\r\n0\r\n\r\n")).await, 413, "content_too_large");
    assert_eq!(heard.count(), 1, "nothing of a body that is too large goes anywhere");
    let waits = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let answer = raw(gateway.address, format!("{waits}ok")).await;
    assert!(answer.contains("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(heard.last().ends_with("\n\nok") && !heard.last().contains("expect"), "{}", heard.last());
}
