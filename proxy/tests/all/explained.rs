//! What is remembered of an exchange: for each code that a request can be refused with, the phase, what decided, and the
//! numbers.

use std::time::Duration;

use crate::support::*;
use http::Response;
use http_body_util::Full;
use quorumgate_proxy::{
    codes,
    recent::{Exchange, Filter},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use uuid::Uuid;

/// What is remembered of the exchange that was answered so.
async fn told(gateway: &Gateway, answer: &str) -> Exchange {
    let id: Uuid = field(answer, "x-request-id").unwrap_or_else(|| panic!("no id: {answer:?}")).parse().unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        // It is remembered when its last byte is on the way, which may be a moment after it was read.
        if let Some(found) = gateway.proxy.exchange(id).await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{id} is not remembered");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// An upstream that answers every connection with these bytes and closes it.
async fn says(bytes: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(bytes).await;
            });
        }
    });
    address
}

async fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

struct World {
    gateway: Gateway,
}

impl World {
    async fn start() -> Self {
        let (echo, _) = echo().await;
        let slow = upstream(|_| async {
            tokio::time::sleep(PATIENCE).await;
            Response::new(Full::new(bytes::Bytes::new()))
        })
        .await;
        let upstream = |name: &str, address: std::net::SocketAddr| json!({"name": name, "targets": [address.to_string()], "retries": {"attempts": 0}});
        let to = |name: &str, upstream: &str| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "upstream": upstream});
        let with = |mut route: Value, name: &str, value: Value| {
            route[name] = value;
            route
        };
        let words = json!({
            "upstreams": [
                upstream("echo", echo),
                upstream("slow", slow),
                upstream("gone", nobody().await),
                upstream("resets", says(b"").await),
                upstream("babbles", says(b"hello?\r\n\r\n").await),
                with(upstream("veiled", echo), "tls", json!({"verify": false})),
                with(
                    upstream("trips", nobody().await),
                    "breaker",
                    json!({"error_percent": 1, "window": "10s", "min_requests": 1, "open": "1h"})
                ),
            ],
            "consumers": [{"name": "acme"}],
            "auth": [{"name": "keys", "api_key": {}}],
            "limits": [{"name": "few", "limit": 1, "window": "1h", "per": "global", "mode": "local"}],
            "routes": [
                to("echo", "echo"),
                to("gone", "gone"),
                to("resets", "resets"),
                to("babbles", "babbles"),
                to("veiled", "veiled"),
                to("trips", "trips"),
                with(to("slow", "slow"), "timeouts", json!({"total": "50ms"})),
                with(to("small", "echo"), "body", json!({"max": "10"})),
                with(to("few", "echo"), "limits", json!(["few"])),
                with(to("strict", "echo"), "on_stale", json!("deny")),
                with(with(to("keys", "echo"), "auth", json!({"any_of": ["keys"]})), "on_stale", json!("allow")),
                with(to("ruled", "echo"), "authorize", json!([{"name": "no-post", "deny": {"methods": ["POST"]}}])),
                with(to("reads", "echo"), "match", json!({"path_prefix": "/reads", "methods": ["GET"]})),
            ],
        });
        let state = state(words);
        let gateway = Gateway::with_rules(
            settings(),
            std::sync::Arc::new(quorumgate_model::ruleset::Ruleset::compile(&state, None)),
        );
        gateway.proxy.directory().publish(&state, Default::default());
        gateway.proxy.limits().publish(&state);
        Self { gateway }
    }

    /// The request is refused with this code, and what is remembered says why.
    async fn check(&self, line: &str, fields: &[&str], code: &str, why: Why<'_>) {
        let answer = ask(self.gateway.address, line, fields, "").await;
        self.check_answer(&answer, code, why).await;
    }

    async fn check_answer(&self, answer: &str, code: &str, why: Why<'_>) {
        let found = told(&self.gateway, answer).await;
        assert_eq!((found.code, found.status), (code, status(answer)), "{answer}");
        assert_eq!(found.phase, why.phase, "{code}");
        assert_eq!(found.policy.as_deref(), Some(why.policy).filter(|it| !it.is_empty()), "{code}");
        for number in why.numbers {
            assert!(
                found.numbers.iter().any(|(name, it)| (name, it) == (&number.0, &number.1)),
                "{code}: {:?}",
                found.numbers
            );
        }
        assert!(!found.detail.is_empty(), "{code} has no detail");
        let explained = codes::find(code).unwrap();
        assert_eq!(explained.status, found.status, "{code}");
        if found.route.is_some() {
            assert_eq!(found.revision, 7, "{code}");
        }
    }
}

struct Why<'a> {
    phase: &'a str,
    policy: &'a str,
    numbers: &'a [(&'static str, u64)],
}

fn by<'a>(phase: &'a str, policy: &'a str) -> Why<'a> {
    Why { phase, policy, numbers: &[] }
}

#[tokio::test]
async fn every_refusal_says_which_phase_decided_by_what_and_with_which_numbers() {
    let it = World::start().await;
    it.check("GET /lost", &[], "no_route", by("route", "")).await;
    it.check("DELETE /reads", &[], "method_not_allowed", by("route", "")).await;
    it.check("GET /echo/%00", &[], "bad_path", by("canonical_path", "")).await;
    it.check("GET /echo", &["content-length: 1", "content-length: 2"], "malformed_request", by("parse", "")).await;
    let size = Why { numbers: &[("body_bytes_max", 10)], ..by("body", "small") };
    it.check("POST /small", &["content-length: 11"], "content_too_large", size).await;
    let uri = format!("GET /echo/{}", "x".repeat(17 << 10));
    it.check(&uri, &[], "uri_too_long", Why { numbers: &[("uri_bytes_max", 16 << 10)], ..by("parse", "") }).await;
    it.check("GET /strict", &[], "state_stale", by("freshness", "strict")).await;
    it.check("GET /keys", &[], "credentials_missing", by("authentication", "keys")).await;
    it.check("GET /keys", &["x-api-key: qg_x"], "credentials_invalid", by("authentication", "keys")).await;
    it.check("POST /ruled", &["content-length: 0"], "access_denied", by("authorization", "ruled")).await;
    let passes = ["via: 1.1 quorumgate"; 8];
    it.check("GET /echo", &passes, "loop_detected", by("forward", "echo")).await;
    it.check("GET /gone", &[], "no_healthy_upstream", by("upstream", "gone")).await;
    it.check("GET /resets", &[], "upstream_reset", by("upstream", "resets")).await;
    it.check("GET /babbles", &[], "upstream_protocol_error", by("upstream", "babbles")).await;
    it.check("GET /veiled", &[], "upstream_tls", by("upstream", "veiled")).await;
    it.check("GET /trips", &[], "no_healthy_upstream", by("upstream", "trips")).await;
    it.check("GET /trips", &[], "circuit_open", by("upstream", "trips")).await;
    let fields: Vec<String> = (0..130).map(|n| format!("x-{n}: y")).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    it.check("GET /echo", &fields, "header_fields_too_large", by("parse", "")).await;
    let total = Why { numbers: &[("route_timeout_ms", 50), ("attempts", 1)], ..by("upstream", "slow") };
    it.check("GET /slow", &[], "upstream_timeout", total).await;
    ask(it.gateway.address, "GET /few", &[], "").await;
    let limit = Why { numbers: &[("limit", 1), ("remaining", 0)], ..by("limits", "few") };
    it.check("GET /few", &[], "rate_limited", limit).await;
    let early = raw(it.gateway.address, "GET /\r\n\r\n").await;
    it.check_answer(&early, "malformed_request", by("parse", "")).await;
}

#[tokio::test]
async fn an_exchange_that_went_well_is_remembered_with_where_its_time_went() {
    let it = World::start().await;
    let answer = ask(it.gateway.address, "POST /echo/a?b=secret", &["content-length: 3"], "abc").await;
    let found = told(&it.gateway, &answer).await;
    assert_eq!((found.status, found.code, found.phase), (200, "", ""));
    assert_eq!((found.host.as_str(), found.path.as_str()), ("api.test", "/echo/a"), "and no query");
    assert_eq!((found.route.as_deref(), found.method.as_str()), (Some("echo"), "POST"));
    assert_eq!((found.received_bytes, found.sent_bytes, found.attempts), (3, 2, 1));
    assert!(found.total >= found.gateway && found.ttfb.is_some() && found.upstream.is_some(), "{found:?}");
    assert_eq!(found.trace_id.len(), 32);
}

#[tokio::test]
async fn a_tap_shows_exchanges_as_they_end() {
    let it = World::start().await;
    let filter = Filter { route: None, status: (400, 499), code: None, consumer: None, every: 1, sampled_only: false };
    let mut tap = it.gateway.proxy.tap(filter, 8);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // A worker takes it up when it looks next.
    let shown = loop {
        ask(it.gateway.address, "GET /echo", &[], "").await;
        ask(it.gateway.address, "GET /lost", &[], "").await;
        if let Ok(Some(shown)) = tokio::time::timeout(Duration::from_millis(20), tap.exchanges.recv()).await {
            break shown;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing is shown");
    };
    assert_eq!((shown.status, shown.code, shown.path.as_str()), (404, "no_route", "/lost"));
}
