//! HTTP/2 by prior knowledge, and TLS with both protocols.

use std::sync::Arc;

use crate::support::*;
use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::Full;
use quorumgate_proxy::{ClientAuth, Settings, Tls};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test]
async fn http2_is_served_by_prior_knowledge() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    let answers = (0..20).map(|n| client.send_request(get(&format!("http://api.test/{n}"))));
    for answer in futures_util::future::join_all(answers).await {
        let answer = answer.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
        assert_eq!(text(answer).await, "ok");
    }
    assert_eq!(heard.count(), 20);
    assert!(
        heard.last().contains("host: api.test\n") && heard.last().contains("via: 2 quorumgate"),
        "{}",
        heard.last()
    );
    assert_eq!(gateway.metric("quorumgate_http_connections_open"), 1);

    let mut request = get("http://api.test/");
    request.headers_mut().insert("host", "other.test".parse().unwrap());
    assert_eq!(client.send_request(request).await.unwrap().status(), StatusCode::BAD_REQUEST);
    let body = Full::new(Bytes::from_static(b"hello"));
    let answer = client.send_request(Request::post("http://api.test/p").body(body).unwrap()).await.unwrap();
    assert_eq!(text(answer).await, "ok");
    assert!(heard.last().ends_with("\n\nhello"), "{}", heard.last());
}

/// RFC 9113 8.2.3
#[tokio::test]
async fn cookies_that_come_one_by_one_in_http2_go_on_in_one_field() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let mut client = http2(TcpStream::connect(gateway.address).await.unwrap()).await;
    let mut request = get("http://api.test/");
    for cookie in ["a=1", "b=2", "c=3; d=4"] {
        request.headers_mut().append("cookie", cookie.parse().unwrap());
    }
    assert_eq!(client.send_request(request).await.unwrap().status(), StatusCode::OK);
    assert!(heard.last().contains("cookie: a=1; b=2; c=3; d=4\n"), "{}", heard.last());
}

pub struct Certified {
    pub settings: Settings,
    pub roots: RootCertStore,
    _files: tempfile::TempDir,
}

pub fn certified() -> Certified {
    let names = ["api.test", "*.shop.test"].map(String::from);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("a.pem"), files.path().join("a.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut settings = settings();
    settings.listeners[0].tls = Some(Tls { certificate, key, client_auth: ClientAuth::None });
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    Certified { settings, roots, _files: files }
}

pub async fn connect(address: std::net::SocketAddr, roots: &RootCertStore, alpn: &[&str]) -> TlsStream<TcpStream> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect("api.test".try_into().unwrap(), stream).await.unwrap()
}

#[tokio::test]
async fn tls_speaks_both_protocols_and_routes_by_sni() {
    let certified = certified();
    let (target, heard) = echo().await;
    let gateway = Gateway::with(
        certified.settings.clone(),
        json!({
            "upstreams": [{"name": "u", "targets": [target.to_string()]}],
            "routes": [{"name": "sni", "match": {"path_prefix": "/", "sni": ["api.test"]}, "upstream": "u"}],
        }),
    );
    let stream = connect(gateway.address, &certified.roots, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = http2(stream).await;
    let answer = client.send_request(get("https://api.test/two")).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert!(heard.last().contains("x-forwarded-proto: https\n"), "{}", heard.last());

    for alpn in [&["http/1.1"][..], &[]] {
        let mut stream = connect(gateway.address, &certified.roots, alpn).await;
        stream.write_all(b"GET /one HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // An end without close_notify is fine here: the answer has its length.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!((status(&answer), body(&answer)), (200, "ok"), "{answer}");
    }
}

#[tokio::test]
async fn a_failed_handshake_is_counted() {
    let certified = certified();
    let gateway = Gateway::with(certified.settings.clone(), json!({}));
    let answer = raw(gateway.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"), "{answer:?}");
    gateway.metric_becomes("quorumgate_rejects_total{reason=\"tls_handshake\"}", 1).await;
}

/// RFC 9110 7.4, RFC 9113 9.1.1: a connection serves the names of its certificate.
#[tokio::test]
async fn a_request_on_a_connection_for_another_host_is_misdirected() {
    let mut certified = certified();
    let (target, _) = echo().await;
    let gateway = Gateway::with(certified.settings.clone(), forward_all(target));
    let mut client = http2(connect(gateway.address, &certified.roots, &["h2"]).await).await;
    for (host, status) in [
        ("api.test", 200),
        ("API.test:8443", 200),
        ("eu.shop.test", 200),
        ("shop.test", 421),
        ("other.test", 421),
        ("[::1]", 421),
        ("api.test", 200),
    ] {
        let answer = client.send_request(get(&format!("https://{host}/"))).await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
        assert_eq!(text(answer).await.contains("misdirected_request"), status == 421, "{host}");
    }
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"misdirected_request\"}"), 3);
    // A load balancer that has its own name for the gateway, may ask for what they like.
    certified.settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let gateway = Gateway::with(certified.settings.clone(), forward_all(target));
    let mut client = http2(connect(gateway.address, &certified.roots, &["h2"]).await).await;
    assert_eq!(client.send_request(get("https://other.test/")).await.unwrap().status(), 200);
}

/// What is no handshake ends its own connection, within its time, and is counted; the listener goes on.
#[tokio::test]
async fn what_does_not_speak_tls_is_turned_away() {
    let mut certified = certified();
    certified.settings.limits.tls_handshake = std::time::Duration::from_secs(1);
    let (target, _) = echo().await;
    let gateway = Gateway::with(certified.settings.clone(), forward_all(target));
    let hello = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    let garbage = vec![0xff; 100_000];
    for (count, bytes) in (1u64..).zip([
        &b"GET / HTTP/1.1\r\nhost: api.test\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\xff\xff",
        &garbage[..],
        // A handshake that begins and does not go on, and one that does not begin.
        &hello[..],
        b"",
    ]) {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = soon("the connection is closed", stream.read_to_end(&mut answer)).await;
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
        gateway.metric_becomes("quorumgate_rejects_total{reason=\"tls_handshake\"}", count).await;
    }
    // A client that does not trust the certificate.
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let refused = TlsConnector::from(Arc::new(config)).connect("api.test".try_into().unwrap(), stream).await;
    assert!(refused.is_err());
    gateway.metric_becomes("quorumgate_http_connections_open", 0).await;
    let mut client = http2(connect(gateway.address, &certified.roots, &["h2"]).await).await;
    assert_eq!(client.send_request(get("https://api.test/")).await.unwrap().status(), StatusCode::OK);
}
