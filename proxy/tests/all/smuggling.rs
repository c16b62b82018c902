//! Messages that two parsers could read in two ways: each is refused and its connection closed, or is plainly harmless.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::support::*;
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A 400, then the end of the connection, and nothing reaches the upstream.
async fn check_refused(gateway: &Gateway, heard: &Heard, message: &str) {
    let before = heard.count();
    // A second request behind the first: it must not be answered.
    let behind = "GET /behind HTTP/1.1\r\nhost: api.test\r\n\r\n";
    let answer = raw(gateway.address, format!("{message}{behind}")).await;
    check_problem(&answer, 400, "malformed_request");
    assert_eq!(field(&answer, "connection"), Some("close"), "{message:?} was answered {answer:?}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{message:?} was answered {answer:?}");
    assert_eq!(heard.count(), before, "{message:?} reached the upstream");
}

#[tokio::test]
async fn ambiguous_messages_are_refused_and_the_connection_closed() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let mut refused = 0;
    for message in [
        // Both lengths, in both orders.
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
        // Codings that only look like chunked.
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        // Line structure.
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c: folded\r\n\r\n",
        "POST / HTTP/1.1\r\n folded: first\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\nhost: a\nx-b: c\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx-b: c\rd: e\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx-b: c\0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nno-colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n: no-name\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        // Host.
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        check_refused(&gateway, &heard, message).await;
        refused += 1;
        gateway.metric_becomes("quorumgate_rejects_total{reason=\"malformed_request\"}", refused).await;
    }
}

/// The library's own answer is replaced behind a good one too, and only then.
#[tokio::test]
async fn an_unreadable_request_behind_a_good_one_is_refused_in_our_words() {
    let canned = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let target = upstream(move |_| async move { http::Response::new(http_body_util::Full::new(canned.into())) }).await;
    let gateway = Gateway::start(forward_all(target));
    let good = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = raw(gateway.address, format!("{good}{good}GET  / HTTP/1.1\r\n\r\n")).await;
    let (first, rest) = answer.split_once(canned).unwrap();
    let (second, refusal) = rest.split_once(canned).unwrap();
    assert_eq!((status(first), status(second)), (200, 200), "{answer}");
    check_problem(refusal, 400, "malformed_request");
}

/// The body goes wrong after a good head: the exchange ends, and what follows is never taken for a request.
#[tokio::test]
async fn a_bad_chunk_ends_the_connection() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    for chunks in [
        "zz\r\nab\r\n0\r\n\r\n",
        "2\r\nabX\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "fffffffffffffffff\r\n",
        "2;a\rb\r\nab\r\n0\r\n\r\n",
        "2;a\nb\r\nab\r\n0\r\n\r\n",
    ] {
        let message = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}GET /behind HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        let answer = raw(gateway.address, message).await;
        assert!(answer.is_empty() || status(&answer) == 400, "{chunks:?} was answered {answer:?}");
        assert!(!heard.last().contains("/behind"), "{chunks:?}");
    }
}

/// How many requests an upstream heard of, and how many of them to their end.
#[derive(Clone, Default)]
struct Counted {
    begun: Arc<AtomicUsize>,
    whole: Arc<AtomicUsize>,
}

impl Counted {
    async fn behind_a_gateway() -> (Gateway, Self) {
        let counted = Self::default();
        let counts = counted.clone();
        let target = upstream(move |request| {
            let counts = counts.clone();
            async move {
                counts.begun.fetch_add(1, SeqCst);
                let read = request.into_body().collect().await;
                counts.whole.fetch_add(usize::from(read.is_ok()), SeqCst);
                Response::new(Full::<Bytes>::default())
            }
        });
        (Gateway::start(forward_all(target.await)), counted)
    }

    /// What is answered to a body that ends like this, once the upstream has heard of the request.
    async fn late(&self, gateway: &Gateway, end: &str) -> String {
        let before = self.begun.load(SeqCst);
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(UPLOAD.as_bytes()).await.unwrap();
        until("the upstream hears of it", || (self.begun.load(SeqCst) > before).then_some(())).await;
        client.write_all(end.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the answer", client.read_to_string(&mut answer)).await.unwrap();
        answer
    }
}

const UPLOAD: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";

#[tokio::test]
async fn a_bare_lf_in_trailers_is_refused_before_the_body_ends() {
    let (gateway, counted) = Counted::behind_a_gateway().await;
    for end in ["0\r\n\n", "0\r\nx: y\n", "0\r\nx: y\r\n\n", "0\n"] {
        let begun = counted.begun.load(SeqCst);
        // With nothing behind it too.
        check_problem(&raw(gateway.address, format!("{UPLOAD}{end}")).await, 400, "malformed_request");
        assert_eq!(counted.begun.load(SeqCst), begun, "{end:?}: all at once, it goes nowhere");
        let answer = counted.late(&gateway, end).await;
        check_problem(&answer, 400, "malformed_request");
        assert_eq!(field(&answer, "connection"), Some("close"), "{end:?}: {answer}");
    }
    assert_eq!(counted.whole.load(SeqCst), 0);
}

#[tokio::test]
async fn trailers_have_limits() {
    let (gateway, counted) = Counted::behind_a_gateway().await;
    let many = |fields: usize| (0..fields).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let large = |bytes: usize| format!("x-a: {}\r\n", "y".repeat(bytes));
    for trailers in [many(129), many(130), large(20_000), large(100_000), large(16_000) + &large(1_000)] {
        let end = format!("0\r\n{trailers}\r\n");
        check_problem(&raw(gateway.address, format!("{UPLOAD}{end}")).await, 431, "header_fields_too_large");
        check_problem(&counted.late(&gateway, &end).await, 431, "header_fields_too_large");
    }
    assert_eq!(counted.whole.load(SeqCst), 0);
    for trailers in [many(128), large(16_000)] {
        let upload = UPLOAD.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        assert_eq!(status(&raw(gateway.address, format!("{upload}0\r\n{trailers}\r\n")).await), 200);
    }
    assert_eq!(counted.whole.load(SeqCst), 2);
}

#[tokio::test]
async fn a_length_beyond_all_bodies_is_a_body_too_large() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    for length in [1 << 63, u64::MAX - 2, u64::MAX - 1, u64::MAX] {
        let length = format!("content-length: {length}");
        check_problem(&ask(gateway.address, "POST /", &[&length], "").await, 413, "content_too_large");
    }
    assert_eq!(heard.count(), 0);
}

/// An answer may come before the body has: what then comes of it is not taken for a head.
#[tokio::test]
async fn the_rest_of_a_refused_body_does_no_harm() {
    let gateway = Gateway::start(serde_json::json!({}));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\na").await.unwrap();
    let mut buffer = vec![0; 4096];
    let n = soon("the refusal", client.read(&mut buffer)).await.unwrap();
    assert!(buffer[..n].starts_with(b"HTTP/1.1 404 "));
    // The connection may be closed by now, or go on; what it may not do is complain.
    let _ = client.write_all(b"\nb\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = soon("the end", client.read_to_end(&mut rest)).await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn upgrades_and_connect_are_refused() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n";
    check_problem(&raw(gateway.address, upgrade).await, 501, "upgrade_not_supported");
    let connect = "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n";
    check_problem(&raw(gateway.address, connect).await, 501, "upgrade_not_supported");
    assert_eq!(heard.count(), 0);
    // Only an offer, and one that may be passed over.
    let offer = ["connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABk"];
    assert_eq!(status(&ask(gateway.address, "GET /", &offer, "").await), 200);
    assert!(!heard.last().contains("upgrade") && !heard.last().contains("http2"), "{}", heard.last());
    let offer = ["connection: upgrade", "upgrade: TLS/1.2, h2c"];
    assert_eq!(status(&ask(gateway.address, "GET /", &offer, "").await), 200);
    assert!(!heard.last().contains("upgrade"), "{}", heard.last());
    let both = ["connection: upgrade", "upgrade: h2c, websocket"];
    assert_eq!(status(&ask(gateway.address, "GET /", &both, "").await), 501);
    let old = "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(status(&raw(gateway.address, old).await), 200);
    assert!(!heard.last().contains("upgrade"), "{}", heard.last());
}

#[tokio::test]
async fn sizes_have_limits() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let at = gateway.address;
    check_problem(&ask(at, &format!("GET /{}", "a".repeat(20_000)), &[], "").await, 414, "uri_too_long");
    let too_many = "header_fields_too_large";
    // Up to what the library takes, and beyond.
    check_problem(&ask(at, &format!("GET /{}", "a".repeat(70_000)), &[], "").await, 414, "uri_too_long");
    check_problem(&ask(at, &format!("GET /{}", "a".repeat(300_000)), &[], "").await, 414, "uri_too_long");
    let fields: Vec<String> = (0..130).map(|n| format!("x-{n}: y")).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    check_problem(&ask(at, "GET /", &fields, "").await, 431, too_many);
    assert_eq!(status(&ask(at, "GET /", &fields[..80], "").await), 200);
    let big = format!("x-big: {}", "y".repeat(70_000));
    check_problem(&ask(at, "GET /", &[&big], "").await, 431, too_many);
    let big = format!("x-big: {}", "y".repeat(300_000));
    check_problem(&ask(at, "GET /", &[&big], "").await, 431, too_many);
    assert_eq!(heard.count(), 1);
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"uri_too_long\"}", 3).await;
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"header_fields_too_large\"}", 3).await;
    gateway.metric_becomes("quorumgate_http_requests_total{route=\"-\",method=\"other\",code=\"431\"}", 3).await;
}

#[tokio::test]
async fn http2_heads_have_the_same_limits() {
    let (target, _) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    let big = |bytes: usize| http::Request::get("http://a/").header("x-big", "y".repeat(bytes));
    let many = (0..130).fold(http::Request::get("http://a/"), |it, n| it.header(format!("x-{n}"), "y"));
    let long = http::Request::get(format!("http://a/{}", "a".repeat(20_000)));
    for (request, status) in [(big(60_000), 200), (big(70_000), 431), (many, 431), (long, 414)] {
        let answer = client.send_request(request.body(Default::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(text(answer).await.contains("\"code\":"), status != 200);
    }
}
