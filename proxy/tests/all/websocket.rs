//! WebSocket tunnels: none without a 101, nothing lost at the seam, and an end that the client is told of.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::support::*;
use quorumgate_proxy::freshness::boottime_ns;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: api.test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Answers each connection's first head with `answer`, then sends back what comes in.
async fn speaks(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let asked = head(&mut stream).await;
                assert_eq!(field(&asked, "connection").is_some(), asked.contains("/chat"), "{asked}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn connect(gateway: &Gateway, behind: &[u8]) -> (TcpStream, String) {
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(&[HANDSHAKE.as_bytes(), behind].concat()).await.unwrap();
    let answer = head(&mut client).await;
    (client, answer)
}

async fn expect(client: &mut TcpStream, expected: &[u8]) {
    let mut read = vec![0; expected.len()];
    soon("bytes of the tunnel", client.read_exact(&mut read)).await.unwrap();
    assert_eq!(read, expected);
}

#[tokio::test]
async fn bytes_go_both_ways_and_none_are_lost_at_the_seam() {
    let gateway = Gateway::start(forward_all(speaks(concat_accepted()).await));
    // The upstream speaks at once, and so does the client.
    let (mut client, answer) = connect(&gateway, b"early").await;
    assert_eq!(status(&answer), 101, "{answer}");
    assert_eq!(field(&answer, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(field(&answer, "upgrade"), Some("websocket"));
    assert!(field(&answer, "connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert!(field(&answer, "x-request-id").is_some());
    expect(&mut client, b"helloearly").await;
    let large = vec![7; 1 << 20];
    let (mut read, mut write) = client.into_split();
    let sent = large.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write
    });
    let mut echoed = vec![0; large.len()];
    soon("a megabyte", read.read_exact(&mut echoed)).await.unwrap();
    assert!(echoed == large);
    gateway.metric_becomes("quorumgate_http_tunnels_open", 1).await;
    drop(writer.await.unwrap());
    assert_eq!(soon("the end", read.read(&mut [0; 1])).await.unwrap(), 0);
    gateway.metric_becomes("quorumgate_http_tunnels_open", 0).await;
    gateway.metric_becomes("quorumgate_http_requests_in_flight", 0).await;
    let series = "quorumgate_http_requests_total{route=\"all\",method=\"GET\",code=\"101\"}";
    gateway.metric_becomes(series, 1).await;
    assert!(gateway.metric("quorumgate_http_sent_bytes_total") > 1 << 20);
    assert!(gateway.metric("quorumgate_http_received_bytes_total") > 1 << 20);
}

fn concat_accepted() -> &'static str {
    Box::leak(format!("{ACCEPTED}hello").into_boxed_str())
}

#[tokio::test]
async fn without_a_101_the_next_request_is_checked_like_any_other() {
    let target = speaks("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let (inside, heard) = echo().await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}, {"name": "in", "targets": [inside.to_string()]}],
        "routes": [
            {"name": "chat", "match": {"path_exact": "/chat"}, "upstream": "u"},
            {"name": "in", "match": {"path_exact": "/open"}, "upstream": "in"},
        ],
    }));
    // A gateway that believed the request would hand the second one to the upstream unseen.
    let behind = "GET /secret HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n";
    let answer = raw(gateway.address, format!("{HANDSHAKE}{behind}")).await;
    assert_eq!(status(&answer), 403, "{answer}");
    let (_, second) = answer.split_once("no").unwrap();
    assert_eq!(status(second), 404, "{answer}");
    assert_eq!(heard.count(), 0);
}

#[tokio::test]
async fn an_answer_that_only_looks_like_a_101_is_none() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let gateway = Gateway::start(forward_all(speaks(answer).await));
        let (_, answer) = connect(&gateway, b"").await;
        assert_eq!(status(&answer), 502, "{answer}");
    }
    // A 101 that nobody asked for.
    let gateway = Gateway::start(forward_all(speaks(ACCEPTED).await));
    assert_eq!(status(&ask(gateway.address, "GET /plain", &[], "").await), 502);
}

#[tokio::test]
async fn other_handshakes_are_refused() {
    let gateway = Gateway::start(forward_all(speaks(ACCEPTED).await));
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (request, expected) in [
        (format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n{key}\r\n"), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".into(), 400),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}{key}\r\n"), 400),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}content-length: 3\r\n\r\nabc"
            ),
            400,
        ),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket, x\r\n{key}\r\n"), 501),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n{key}\r\n"), 501),
    ] {
        let answer = raw(gateway.address, &request).await;
        assert_eq!(status(&answer), expected, "{request:?} {answer}");
    }
}

/// On a route that is closed while the node is stale; fresh for `fresh`.
async fn deny_route(target: SocketAddr, fresh: Duration) -> Gateway {
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "on_stale": "deny"}],
    }));
    gateway.freshness.extend(boottime_ns() + fresh.as_nanos() as u64);
    gateway
}

#[tokio::test]
async fn a_tunnel_on_a_deny_route_ends_when_the_node_goes_stale() {
    let gateway = deny_route(speaks(ACCEPTED).await, Duration::from_millis(1500)).await;
    let (mut client, answer) = connect(&gateway, b"").await;
    assert_eq!(status(&answer), 101, "{answer}");
    client.write_all(b"\x82\x03abc").await.unwrap();
    expect(&mut client, b"\x82\x03abc").await;
    // The rest is in good order: a close frame with 1008, then the end.
    let mut rest = Vec::new();
    soon("the end", client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, [&[0x88, 13, 0x03, 0xf0][..], b"state_stale"].concat());
    let rejects = "quorumgate_rejects_total{reason=\"state_stale\"}";
    gateway.metric_becomes(rejects, 1).await;
    assert_eq!(status(&ask(gateway.address, "GET /", &[], "").await), 503);
}

#[tokio::test]
async fn no_close_frame_goes_into_the_middle_of_a_frame() {
    let gateway = deny_route(speaks(ACCEPTED).await, Duration::from_millis(1500)).await;
    let (mut client, _) = connect(&gateway, b"").await;
    // Nine bytes are promised, three come.
    client.write_all(b"\x82\x09abc").await.unwrap();
    let mut rest = Vec::new();
    soon("the end", client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"\x82\x09abc");
}

#[tokio::test]
async fn an_answer_that_still_streams_ends_when_the_node_goes_stale() {
    let events =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    let gateway = deny_route(speaks(events).await, Duration::from_millis(1500)).await;
    let answer = ask(gateway.address, "GET /events", &[], "").await;
    assert!(answer.ends_with("data: 1\n\n\r\n0\r\n\r\n"), "{answer:?}");
    // Anything else must not look complete.
    let download = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let gateway = deny_route(speaks(download).await, Duration::from_millis(1500)).await;
    let answer = ask(gateway.address, "GET /file", &[], "").await;
    assert!(answer.ends_with("3\r\nabc\r\n"), "{answer:?}");
    // And an answer that has not begun is a refusal.
    let gateway = deny_route(speaks("").await, Duration::from_millis(1500)).await;
    check_problem(&ask(gateway.address, "GET /slow", &[], "").await, 503, "state_stale");
}

#[tokio::test]
async fn what_lasts_is_told_that_its_node_goes() {
    let gateway = Gateway::start(forward_all(speaks(ACCEPTED).await));
    let (mut client, _) = connect(&gateway, b"").await;
    client.write_all(b"\x82\x03abc").await.unwrap();
    expect(&mut client, b"\x82\x03abc").await;
    let mut rest = Vec::new();
    let (_, read) = tokio::join!(
        gateway.proxy.drain(Duration::from_millis(50)),
        soon("the end of the WebSocket", client.read_to_end(&mut rest))
    );
    read.unwrap();
    assert_eq!(rest, [&[0x88, 18, 0x03, 0xe9][..], b"drain_grace_over"].concat());

    let events =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    let gateway = Gateway::start(forward_all(speaks(events).await));
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(status(&head(&mut client).await), 200);
    expect(&mut client, b"9\r\ndata: 1\n\n\r\n").await;
    let mut rest = Vec::new();
    let (_, read) = tokio::join!(
        gateway.proxy.drain(Duration::from_millis(50)),
        soon("the end of the events", client.read_to_end(&mut rest))
    );
    read.unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "0\r\n\r\n");
}

/// A gateway with another listener, which is the configuration's own, and that one's address.
async fn with_listener(answer: &'static str) -> (Gateway, SocketAddr) {
    let mut impatient = settings();
    impatient.limits.grace = Duration::from_millis(50);
    let gateway = Gateway::with(impatient, forward_all(speaks(answer).await));
    let address = crate::tls::address();
    publish(&gateway, json!([{ "name": "a", "address": address.to_string(), "protocol": "http" }]));
    (gateway, address)
}

fn publish(gateway: &Gateway, listeners: serde_json::Value) {
    let words = json!({ "listeners": listeners });
    gateway.proxy.listeners().publish(&state(words).resources, &Arc::default());
}

#[tokio::test]
async fn what_lasts_is_told_that_its_listener_goes() {
    let (gateway, address) = with_listener(ACCEPTED).await;
    let (mut stays, _) = connect(&gateway, b"").await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    assert_eq!(status(&head(&mut client).await), 101);
    client.write_all(b"\x82\x03abc").await.unwrap();
    expect(&mut client, b"\x82\x03abc").await;
    publish(&gateway, json!([]));
    let mut rest = Vec::new();
    soon("the end of the WebSocket", client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, [&[0x88, 18, 0x03, 0xe9][..], b"drain_grace_over"].concat());
    stays.write_all(b"\x82\x03def").await.unwrap();
    expect(&mut stays, b"\x82\x03def").await;

    // What cannot be told is cut off, and does not look whole.
    let download = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let (gateway, address) = with_listener(download).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /file HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(status(&head(&mut client).await), 200);
    expect(&mut client, b"3\r\nabc\r\n").await;
    publish(&gateway, json!([]));
    let mut rest = Vec::new();
    let _ = soon("the end of the answer", client.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"drain_grace_over\"}"), 1);
}
