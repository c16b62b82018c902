//! HTTP/2 frames that cost a client nothing, over and over: each kind ends in GOAWAY and a closed connection, soon, and
//! the upstream has not been asked for more than a connection may ask at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{h2_raw::*, support::*};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Streams that one connection may have at once.
const STREAMS_MAX: usize = 100;
/// A connection that is flooded must be gone by then.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// An upstream that never answers, and how often it was asked.
async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let address = upstream(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<http::Response<http_body_util::Full<bytes::Bytes>>>()
    })
    .await;
    (address, asked)
}

struct End {
    /// Of the GOAWAY, if one came.
    code: Option<u32>,
    after: Duration,
}

/// Sends `before` once and then `each` until the connection ends.
async fn flood(gateway: SocketAddr, before: &[u8], each: impl Fn(u32) -> Vec<u8>) -> End {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), before].concat()).await.unwrap();
    let started = Instant::now();
    let (mut read, mut write) = stream.split();
    let send = async {
        for n in 0u32..200_000 {
            if write.write_all(&each(n)).await.is_err() {
                break;
            }
            // One frame at a time, as the gateway sees it too.
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    };
    let mut said = Vec::new();
    let heard = async {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = read.read(&mut part).await {
            said.extend_from_slice(&part[..n]);
        }
    };
    soon("the connection is closed", async {
        tokio::select! { () = heard => (), () = send => () }
    })
    .await;
    End { code: heard_of(&said).go_away, after: started.elapsed() }
}

async fn check(what: &str, before: &[u8], each: impl Fn(u32) -> Vec<u8>) {
    let (target, asked) = silent().await;
    let gateway = Gateway::start(forward_all(target));
    let end = flood(gateway.address, before, each).await;
    assert_eq!(end.code, Some(ENHANCE_YOUR_CALM), "{what}");
    assert!(end.after < CLOSED_WITHIN, "{what} took {:?}", end.after);
    gateway.metric_becomes("quorumgate_http_connections_open", 0).await;
    gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"h2_flood\"}", 1).await;
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked <= STREAMS_MAX, "{what} asked the upstream {asked} times");
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection() {
    let reset = |n: u32| {
        let stream = 2 * n + 1;
        [head(stream, GET, END_STREAM | END_HEADERS), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    check("rapid reset", &[], reset).await;
}

/// CVE-2025-8671
#[tokio::test]
async fn streams_that_a_client_makes_us_reset_end_the_connection() {
    // More than a window may hold (RFC 9113 6.9.1).
    let bad_update = |n: u32| {
        let stream = 2 * n + 1;
        [head(stream, POST, END_HEADERS), frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()
    };
    check("made you reset", &[], bad_update).await;
}

#[tokio::test]
async fn frames_that_say_nothing_end_the_connection() {
    check("ping", &[], |_| frame(PING, 0, 0, &[7; 8])).await;
    check("settings", &[], |_| frame(SETTINGS, 0, 0, &[])).await;
    check("priority", &[], |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7])).await;
    check("window update", &[], |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await;
    check("unknown", &[], |_| frame(0xbe, 0, 0, b"grease")).await;
    let open = head(1, POST, END_HEADERS);
    check("empty data", &open, |_| frame(DATA, 0, 1, &[])).await;
    let begun = head(1, GET, 0);
    check("continuation", &begun, |_| frame(CONTINUATION, 0, 1, &[])).await;
    check("full continuation", &begun, |_| frame(CONTINUATION, 0, 1, &[0x90; 16 << 10])).await;
}

#[tokio::test]
async fn a_header_block_that_never_ends_is_not_waited_for() {
    let mut impatient = settings();
    impatient.limits.header_read = Duration::from_millis(200);
    let gateway = Gateway::with(impatient, json!({}));
    let slow = "quorumgate_rejects_total{reason=\"slow_header\"}";
    for (count, begun) in (1..).zip([head(1, GET, END_STREAM), frame(SETTINGS, 0, 0, &[0; 6])[..12].to_vec()]) {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &begun].concat()).await.unwrap();
        let mut rest = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
        gateway.metric_becomes(slow, count).await;
    }
    // Whoever is done with its handshake may take its time.
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stream.write_all(&head(1, GET, END_STREAM | END_HEADERS)).await.unwrap();
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"no_route\"}", 1).await;
}

/// What a client does in good faith grows with what it asks for.
#[tokio::test]
async fn a_busy_connection_is_no_flood() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    for n in 0..600 {
        let request = http::Request::get(format!("http://a/{n}")).body(Default::default()).unwrap();
        assert_eq!(text(client.send_request(request).await.unwrap()).await, "ok");
    }
    assert_eq!(heard.count(), 600);
}
