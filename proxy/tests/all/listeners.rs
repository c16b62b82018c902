//! Listeners from resources: opened, changed and closed while they serve; what comes in by PROXY headers; bytes that are
//! none of ours.

use std::{net::SocketAddr, sync::Arc};

use quorumgate_proxy::listeners::Failed;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{support::*, tls::*, world::World};

fn http(name: &str, address: SocketAddr) -> serde_json::Value {
    json!({ "name": name, "address": address.to_string(), "protocol": "http" })
}

#[tokio::test]
async fn listeners_open_change_and_close_while_others_serve() {
    let (first, second) = (address(), address());
    let it = Listening::new(json!({ "listeners": [http("a", first)] })).await;
    assert_eq!(status(&ask(first, "GET /", &[], "").await), 200);
    assert!(TcpStream::connect(second).await.is_err());

    let mut kept = TcpStream::connect(first).await.unwrap();
    ask_on(&mut kept, "api.test").await;
    it.publish(json!({ "listeners": [http("a", first), http("b", second)] }));
    assert_eq!(status(&ask(second, "GET /", &[], "").await), 200);
    // Neither another name nor other words move a socket.
    it.publish(json!({ "listeners": [
        { "name": "c", "address": first.to_string(), "protocol": "http", "merge_slashes": false },
        http("b", second),
    ] }));
    assert_eq!(status(&ask(first, "GET //x", &[], "").await), 200);
    assert!(it.heard.last().starts_with("GET //x\n"), "{}", it.heard.last());
    assert_eq!(field(&ask_on(&mut kept, "api.test").await, "connection"), None);

    // Closed, it asks its clients to go, and nobody else comes.
    it.publish(json!({ "listeners": [http("b", second)] }));
    soon("the socket is gone", async { while TcpStream::connect(first).await.is_ok() {} }).await;
    assert_eq!(field(&ask_on(&mut kept, "api.test").await, "connection"), Some("close"));
    assert_eq!(status(&ask(second, "GET /", &[], "").await), 200);
    assert_eq!(it.gateway.metric("quorumgate_listener_up{listener=\"b\"}"), 1);
    assert!(!it.gateway.metrics().contains("listener=\"a\""));
}

#[tokio::test]
async fn routes_are_for_the_listeners_that_they_name() {
    let (inside, outside) = (address(), address());
    let answers = |name: &str, listeners: serde_json::Value, body: &str| {
        json!({ "name": name, "match": { "path_prefix": "/x", "listeners": listeners },
                "respond": { "status": 200, "body": body } })
    };
    let both = |name: &str| {
        json!({
            "listeners": [http(name, inside), http("outside", outside)],
            "routes": [answers("in", json!([name]), "in"), answers("out", json!(["outside"]), "out")],
        })
    };
    let it = Listening::new(both("inside")).await;
    assert!(ask(inside, "GET /x", &[], "").await.ends_with("\r\n\r\nin"));
    assert!(ask(outside, "GET /x", &[], "").await.ends_with("\r\n\r\nout"));
    // A listener of the node's own settings has no name that a route could say.
    assert!(!ask(it.gateway.address, "GET /x", &[], "").await.ends_with("in"));

    // Under its new name it takes the new routes, also by connections that were there before.
    let mut kept = TcpStream::connect(inside).await.unwrap();
    ask_on(&mut kept, "api.test").await;
    it.publish(both("renamed"));
    assert!(ask(inside, "GET /x", &[], "").await.ends_with("\r\n\r\nin"));
    kept.write_all(b"GET /x HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", kept.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("\r\n\r\nin"), "{answer}");
}

#[tokio::test]
async fn one_that_cannot_be_opened_is_told_and_opens_later() {
    let (taken, free) = (address(), address());
    let occupant = std::net::TcpListener::bind(taken).unwrap();
    let it = Listening::new(json!({ "listeners": [http("a", taken), http("b", free)] })).await;
    assert_eq!(status(&ask(free, "GET /", &[], "").await), 200);
    let listeners = it.gateway.proxy.listeners();
    let [Failed { listener, address, why }] = &listeners.failed()[..] else { panic!("{:?}", listeners.failed()) };
    assert_eq!((&**listener, *address), ("a", taken));
    assert!(why.starts_with("cannot listen: "), "{why}");
    assert_eq!(it.gateway.metric("quorumgate_listener_up{listener=\"a\"}"), 0);
    assert!(it.gateway.metrics().contains("quorumgate_listener_up{listener=\"a\"} 0\n"));

    drop(occupant);
    let stop = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&listeners).run(stop.clone(), |_| ()));
    until("the listener is open", || listeners.failed().is_empty().then_some(())).await;
    assert_eq!(status(&ask(taken, "GET /", &[], "").await), 200);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_balancer_says_whose_connection_it_is_and_nobody_else_may() {
    let (balanced, plain) = (address(), address());
    let it = Listening::new(json!({ "listeners": [
        { "name": "a", "address": balanced.to_string(), "protocol": "http", "proxy_protocol_from": ["127.0.0.0/8"] },
        { "name": "b", "address": plain.to_string(), "protocol": "http", "proxy_protocol_from": ["10.0.0.0/8"] },
    ] }))
    .await;
    let request = "GET / HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n";
    let v1 = "PROXY TCP4 192.0.2.7 192.0.2.2 5000 443\r\n";
    assert_eq!(status(&raw(balanced, format!("{v1}{request}")).await), 200);
    assert!(it.heard.last().contains("x-forwarded-for: 192.0.2.7\n"), "{}", it.heard.last());
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x50\0\x50";
    assert_eq!(status(&raw(balanced, [&v2[..], request.as_bytes()].concat()).await), 200);
    assert!(it.heard.last().contains("x-forwarded-for: 2001:db8::9\n"), "{}", it.heard.last());
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert_eq!(status(&raw(balanced, [&local[..], request.as_bytes()].concat()).await), 200);
    assert!(it.heard.last().contains("x-forwarded-for: 127."), "{}", it.heard.last());

    // Byte by byte is as good.
    let mut slow = TcpStream::connect(balanced).await.unwrap();
    slow.set_nodelay(true).unwrap();
    for byte in v1.as_bytes() {
        slow.write_all(&[*byte]).await.unwrap();
    }
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", slow.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(status(&answer), 200);

    assert_eq!(raw(balanced, request).await, "", "a balancer that says nothing is none");
    assert_eq!(status(&raw(plain, format!("{v1}{request}")).await), 400, "who is not asked cannot say");
    it.gateway.metric_becomes("quorumgate_rejects_total{reason=\"proxy_protocol\"}", 1).await;
}

/// Answers every connection with `name`, and the first line that it says.
async fn named(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 5];
                stream.read_exact(&mut first).await.unwrap();
                stream.write_all(&[name.as_bytes(), b" ", &first].concat()).await.unwrap();
                stream.shutdown().await.unwrap();
                // Until the other side has ended too.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn bytes_go_to_one_upstream_and_a_dead_target_gives_way() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (alive, tcp) = (named("db").await, address());
    let it = Listening::new(json!({
        "upstreams": [{ "name": "db", "targets": [dead.to_string(), alive.to_string()], "balance": { "policy": "round_robin" } }],
        "listeners": [{ "name": "t", "address": tcp.to_string(), "protocol": "tcp", "upstream": "db" }],
    }))
    .await;
    for _ in 0..4 {
        assert_eq!(raw(tcp, "hello").await, "db hello");
    }
    it.gateway.metric_becomes("quorumgate_http_tunnels_open", 0).await;
}

#[tokio::test]
async fn a_client_is_kept_with_its_target_by_its_address() {
    let tcp = address();
    let mut targets = Vec::new();
    for name in ["a", "b", "c"] {
        targets.push(named(name).await.to_string());
    }
    let _it = Listening::new(json!({
        "upstreams": [{ "name": "db", "targets": targets, "balance": { "policy": "maglev", "hash_on": "ip" } }],
        "listeners": [{ "name": "t", "address": tcp.to_string(), "protocol": "tcp", "upstream": "db" }],
    }))
    .await;
    let first = raw(tcp, "hello").await;
    assert!(first.ends_with(" hello"), "{first}");
    // By chance it would be so once in 3^20.
    for _ in 0..20 {
        assert_eq!(raw(tcp, "hello").await, first);
    }
}

#[tokio::test]
async fn a_ban_holds_for_bytes_that_are_none_of_ours() {
    let tcp = address();
    let words = json!({
        "upstreams": [{ "name": "db", "targets": [named("db").await.to_string()] }],
        "listeners": [{ "name": "t", "address": tcp.to_string(), "protocol": "tcp", "upstream": "db" }],
    });
    let world = World::new(words.clone()).await;
    world.gateway.proxy.listeners().publish(&state(words).resources, &Arc::default());
    assert_eq!(raw(tcp, "hello").await, "db hello");
    world.gateway.metric_becomes("quorumgate_http_tunnels_open", 0).await;
    let mut under_way = TcpStream::connect(tcp).await.unwrap();
    under_way.write_all(b"hell").await.unwrap();
    world.gateway.metric_becomes("quorumgate_http_tunnels_open", 1).await;
    world.ban("127.0.0.0/8");
    let mut rest = Vec::new();
    // An end or a reset.
    let _ = soon("the connection ends", under_way.read_to_end(&mut rest)).await;
    assert_eq!(raw(tcp, "hello").await, "");
    world.gateway.metric_becomes("quorumgate_rejects_total{reason=\"banned\"}", 2).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn tls_passes_through_by_its_server_name() {
    let ca = Authority::new("passthrough");
    let (inner, outer) = (address(), address());
    let own = ca.server(&["db.acme.test", "shut.acme.test"]);
    // The upstream that ends TLS is a listener of the same gateway.
    let it = Listening::new(json!({
        "upstreams": [
            { "name": "inside", "targets": [inner.to_string()] },
            { "name": "plain", "targets": [named("plain").await.to_string()] },
        ],
        "policies": [{ "name": "office", "ip": { "allow": ["10.0.0.0/8"] } }],
        "routes": [
            { "name": "db", "match": { "sni": ["db.acme.test"] }, "upstream": "inside" },
            { "name": "shut", "match": { "sni": ["shut.acme.test"] }, "upstream": "inside", "policies": ["office"] },
        ],
        "certificates": [certificate("own", &[], &own)],
        "listeners": [
            { "name": "in", "address": inner.to_string(), "protocol": "https", "certificates": ["own"] },
            { "name": "out", "address": outer.to_string(), "protocol": "tls_passthrough" },
        ],
    }))
    .await;
    let client = ca.trusting(None, rustls::DEFAULT_VERSIONS);
    let (answer, stream) = client.ask(outer, "db.acme.test").await.unwrap();
    assert_eq!((status(&answer), leaf_of(&stream)), (200, own.der.clone()));
    assert!(client.ask(outer, "other.acme.test").await.is_err());
    assert!(client.ask(outer, "shut.acme.test").await.is_err(), "its policy lets nobody in from here");
    it.gateway.metric_becomes("quorumgate_rejects_total{reason=\"ip_denied\"}", 1).await;
    assert_eq!(raw(outer, "GET / HTTP/1.1\r\n\r\n").await, "", "what is no TLS goes nowhere");
    it.gateway.metric_becomes("quorumgate_rejects_total{reason=\"no_route\"}", 1).await;
}
