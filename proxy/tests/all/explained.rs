//! What is remembered of an exchange: for each code that a request can be refused with, the phase, what decided, and the
//! numbers.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    limits::{define, gateway, lead_nobody},
    protocols::{certified, connect, get},
    quotas::quota,
    support::*,
    tokens::{Signer, jwks},
    world::{World as Callers, now_s},
};
use http::Response;
use http_body_util::Full;
use quorumgate_model::{
    ledger::command::{Kind as LimitKind, Mode},
    resource::{FieldTest, Kind, Resource},
    revocation::SelectorKind,
};
use quorumgate_proxy::{
    codes,
    recent::{Exchange, Filter},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use uuid::Uuid;

/// What is remembered of the exchange that was answered so.
async fn told(gateway: &Gateway, answer: &str) -> Exchange {
    remembered(gateway, field(answer, "x-request-id").unwrap_or_else(|| panic!("no id: {answer:?}"))).await
}

async fn remembered(gateway: &Gateway, id: &str) -> Exchange {
    let id: Uuid = id.parse().unwrap();
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
            "policies": [
                {"name": "nobody", "ip": {"deny": ["127.0.0.1"]}},
                {"name": "no-curl", "bot": {"deny": ["(?i)curl"]}},
                {"name": "flat", "json": {"max_depth": 1}},
                {"name": "promised", "contract": {"responses": "enforce", "operations": [
                    {"method": "GET", "path": "/promised", "responses": [{"status": "204"}]},
                ]}},
                {"name": "v0", "version": {"api": "orders", "version": "v0", "state": "retired"}},
                {"name": "v1", "version": {
                    "api": "orders", "version": "v1", "state": "deprecated", "deprecated_at": "2025-06-01T00:00:00Z",
                    "brownouts": [{"start": "2025-06-01T00:00:00Z", "end": "2999-01-01T00:00:00Z"}],
                }},
            ],
            "routes": [
                to("echo", "echo"),
                to("gone", "gone"),
                to("resets", "resets"),
                to("babbles", "babbles"),
                to("veiled", "veiled"),
                to("trips", "trips"),
                with(to("slow", "slow"), "timeouts", json!({"total": "50ms"})),
                with(to("small", "echo"), "body", json!({"max": "10"})),
                with(to("packed", "echo"), "body", json!({"decompressed_max": "10"})),
                with(to("shut", "echo"), "policies", json!(["nobody"])),
                with(to("flat", "echo"), "policies", json!(["flat"])),
                with(to("people", "echo"), "policies", json!(["no-curl"])),
                with(to("promised", "echo"), "policies", json!(["promised"])),
                with(to("v0", "echo"), "policies", json!(["v0"])),
                with(to("v1", "echo"), "policies", json!(["v1"])),
                with(to("kept", "echo"), "cache", json!({})),
                with(to("strict", "echo"), "on_stale", json!("deny")),
                with(to("ruled", "echo"), "authorize", json!([{"name": "no-post", "deny": {"methods": ["POST"]}}])),
                with(to("reads", "echo"), "match", json!({"path_prefix": "/reads", "methods": ["GET"]})),
            ],
        });
        let mut state = state(words);
        // As of a newer build, which this one cannot carry out.
        let matches = json!({"path_prefix": "/broken", "headers": [{"name": "x", "regex": "a"}]});
        let broken = json!({"name": "broken", "match": matches, "respond": {"status": 200}});
        let Resource::Route(broken) = Kind::Route.parse(broken).unwrap() else { panic!("it is one") };
        let mut broken = (*broken).clone();
        broken.matches.headers[0].test = FieldTest::Regex("(".into());
        let broken = Resource::Route(std::sync::Arc::new(broken));
        state.resources.insert(broken.key(), quorumgate_model::change::stored(broken));
        let gateway = Gateway::with_rules(
            settings(),
            std::sync::Arc::new(quorumgate_model::ruleset::Ruleset::compile(&state, None)),
        );
        gateway.proxy.directory().publish(&state, Default::default());
        gateway.proxy.limits().publish(&state);
        Self { gateway }
    }
}

/// Codes with an example so far.
#[derive(Default)]
struct Examples(BTreeSet<&'static str>);

impl Examples {
    /// The request is refused with this code, and what is remembered says why.
    async fn ask(&mut self, it: &Gateway, line: &str, fields: &[&str], code: &str, why: Why<'_>) {
        let answer = ask(it.address, line, fields, "").await;
        self.answered(it, &answer, code, why).await;
    }

    async fn answered(&mut self, it: &Gateway, answer: &str, code: &str, why: Why<'_>) {
        let found = told(it, answer).await;
        assert_eq!((found.code, found.status), (code, status(answer)), "{answer}");
        self.told(found, why);
    }

    fn told(&mut self, found: Exchange, why: Why<'_>) {
        let code = found.code;
        assert_eq!(found.phase, why.phase, "{code}");
        assert_eq!(found.policy.as_deref(), Some(why.policy).filter(|it| !it.is_empty()), "{code}");
        let rule = found.rule.as_deref().unwrap_or_default();
        assert!(rule.contains(why.rule) && rule.is_empty() == why.rule.is_empty(), "{code}: {rule}");
        for (name, number) in why.numbers {
            let is_it = |(told, value): &(&str, u64)| told == name && number.is_none_or(|it| *value == it);
            assert!(found.numbers.iter().any(is_it), "{code}: {:?}", found.numbers);
        }
        assert!(!found.detail.is_empty(), "{code} has no detail");
        let explained = codes::find(code).unwrap();
        assert_eq!(explained.status, found.status, "{code}");
        assert_eq!(found.revision, 7, "{code}");
        self.0.insert(code);
    }
}

#[derive(Clone, Copy)]
struct Why<'a> {
    phase: &'a str,
    policy: &'a str,
    /// A part of it.
    rule: &'a str,
    /// None: whatever it is.
    numbers: &'a [(&'static str, Option<u64>)],
}

fn by<'a>(phase: &'a str, policy: &'a str) -> Why<'a> {
    Why { phase, policy, rule: "", numbers: &[] }
}

impl<'a> Why<'a> {
    fn rule(self, rule: &'a str) -> Self {
        Self { rule, ..self }
    }

    fn numbers(self, numbers: &'a [(&'static str, Option<u64>)]) -> Self {
        Self { numbers, ..self }
    }
}

/// A code that this build gives and that has no example here fails.
#[tokio::test]
async fn every_refusal_says_which_phase_decided_by_what_and_with_which_numbers() {
    let mut examples = Examples::default();
    of_requests_and_upstreams(&mut examples).await;
    of_callers(&mut examples).await;
    of_limits(&mut examples).await;
    of_a_quota(&mut examples).await;
    of_connections(&mut examples).await;
    // A fault of the gateway: nothing that is asked may bring it about. What has no status has no answer with an id.
    let given = codes::ALL.iter().filter(|it| it.is_given() && it.status != 0 && it.code != "internal_error");
    assert_eq!(examples.0, given.map(|it| it.code).collect());
}

async fn of_requests_and_upstreams(examples: &mut Examples) {
    let it = &World::start().await.gateway;
    examples.ask(it, "GET /lost", &[], "no_route", by("route", "")).await;
    examples.ask(it, "DELETE /reads", &[], "method_not_allowed", by("route", "").rule("GET")).await;
    examples.ask(it, "GET /echo/%00", &[], "bad_path", by("canonical_path", "")).await;
    examples
        .ask(it, "GET /echo", &["content-length: 1", "content-length: 2"], "malformed_request", by("parse", ""))
        .await;
    let size = by("body", "small").numbers(&[("body_bytes_max", Some(10))]);
    examples.ask(it, "POST /small", &["content-length: 11"], "content_too_large", size).await;
    let packed = ["content-length: 0", "content-encoding: lzw"];
    examples.ask(it, "POST /packed", &packed, "unsupported_media_type", by("validation", "packed")).await;
    let deep = ask(it.address, "POST /flat", &["content-type: application/json", "content-length: 5"], "[[1]]").await;
    let found = by("validation", "flat").rule("max_depth").numbers(&[("errors", Some(1))]);
    examples.answered(it, &deep, "validation_failed", found).await;
    let unknown = by("validation", "promised").rule("unknown_operations");
    examples.ask(it, "GET /promised/else", &[], "unknown_operation", unknown).await;
    let answer = by("response", "promised").rule("status").numbers(&[("attempts", Some(1))]);
    examples.ask(it, "GET /promised", &[], "response_validation_failed", answer).await;
    let uri = format!("GET /echo/{}", "x".repeat(17 << 10));
    let long = by("parse", "").numbers(&[("uri_bytes_max", Some(16 << 10))]);
    examples.ask(it, &uri, &[], "uri_too_long", long).await;
    examples.ask(it, "GET /strict", &[], "state_stale", by("freshness", "strict")).await;
    examples
        .ask(it, "POST /ruled", &["content-length: 0"], "access_denied", by("authorization", "ruled").rule("no-post"))
        .await;
    examples.ask(it, "GET /shut", &[], "ip_denied", by("before_authentication", "nobody").rule("deny")).await;
    let curl = by("before_authentication", "no-curl").rule("deny (?i)curl");
    examples.ask(it, "GET /people", &["user-agent: Curl/8"], "bot_denied", curl).await;
    examples.ask(it, "GET /v0", &[], "api_retired", by("before_authentication", "v0").rule("retired")).await;
    examples.ask(it, "GET /v1", &[], "api_brownout", by("before_authentication", "v1").rule("brownouts")).await;
    examples.ask(it, "GET /broken", &[], "broken_rule", by("route", "broken").rule("match.headers[0].regex")).await;
    examples.ask(it, "GET /kept", &["cache-control: only-if-cached"], "not_cached", by("cache", "kept")).await;
    let other = ["connection: upgrade", "upgrade: other"];
    let answer =
        raw(it.address, format!("GET /echo HTTP/1.1\r\nhost: api.test\r\n{}\r\n\r\n", other.join("\r\n"))).await;
    examples.answered(it, &answer, "upgrade_not_supported", by("upstream", "")).await;
    let passes = ["via: 1.1 quorumgate"; 8];
    let loops = by("forward", "echo").numbers(&[("passes_max", Some(8))]);
    examples.ask(it, "GET /echo", &passes, "loop_detected", loops).await;
    let once = [("attempts", Some(1))];
    examples.ask(it, "GET /gone", &[], "no_healthy_upstream", by("upstream", "gone").numbers(&once)).await;
    examples.ask(it, "GET /resets", &[], "upstream_reset", by("upstream", "resets").numbers(&once)).await;
    examples.ask(it, "GET /babbles", &[], "upstream_protocol_error", by("upstream", "babbles").numbers(&once)).await;
    examples.ask(it, "GET /veiled", &[], "upstream_tls", by("upstream", "veiled").numbers(&once)).await;
    examples.ask(it, "GET /trips", &[], "no_healthy_upstream", by("upstream", "trips")).await;
    let open = by("upstream", "trips").numbers(&[("retry_after_s", None)]);
    examples.ask(it, "GET /trips", &[], "circuit_open", open).await;
    let fields: Vec<String> = (0..130).map(|n| format!("x-{n}: y")).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let many = by("parse", "").numbers(&[("header_fields_max", Some(128)), ("header_bytes_max", None)]);
    examples.ask(it, "GET /echo", &fields, "header_fields_too_large", many).await;
    let total = by("upstream", "slow").numbers(&[("route_timeout_ms", Some(50)), ("attempts", Some(1))]);
    examples.ask(it, "GET /slow", &[], "upstream_timeout", total).await;
    let early = raw(it.address, "GET /\r\n\r\n").await;
    examples.answered(it, &early, "malformed_request", by("parse", "")).await;
}

async fn of_callers(examples: &mut Examples) {
    let (signer, other) = (Signer::es256("k1"), Signer::es256("k1"));
    let keys: Value = serde_json::from_str(&jwks(&[&signer])).unwrap();
    let route = |name: &str| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "upstream": "u", "auth": {"any_of": ["keys", "idp"]}});
    let mut scoped = route("scoped");
    scoped["authorize"] = json!([{"name": "readers", "allow": {"scopes_all": ["orders:read"]}}]);
    let mut watched = route("watched");
    watched["policies"] = json!(["slows", "asks"]);
    let world = Callers::new(json!({
        "auth": [
            {"name": "keys", "api_key": {}},
            {"name": "idp", "jwt": {"issuer": "https://idp.test", "audience": ["a"], "jwks_inline": keys, "consumer_claim": "azp"}},
        ],
        "policies": [
            {"name": "slows", "anomaly": {"over": {"objects": 200}, "action": "throttle"}},
            {"name": "asks", "anomaly": {"over": {"objects": 200}, "action": "challenge"}},
        ],
        "routes": [route("in"), scoped, watched],
    }))
    .await;
    let it = &world.gateway;
    world.key("acme", "qg_acme");
    world.key("other", "qg_other");
    let why = by("authentication", "in").rule("any_of keys, idp");
    examples.ask(it, "GET /in", &[], "credentials_missing", why).await;
    examples.ask(it, "GET /in", &["x-api-key: qg_x"], "credentials_invalid", why).await;
    let bearer = |signer: &Signer, exp: u64| {
        let claims =
            json!({"iss": "https://idp.test", "aud": "a", "exp": exp, "iat": exp - 600, "jti": "j1", "azp": "acme"});
        format!("authorization: Bearer {}", signer.token(&claims))
    };
    examples.ask(it, "GET /in", &[&bearer(&signer, now_s() - 60)], "token_expired", why).await;
    examples.ask(it, "GET /in", &[&bearer(&other, now_s() + 60)], "signature_invalid", why).await;
    let good = bearer(&signer, now_s() + 600);
    examples
        .ask(it, "GET /scoped", &[&good], "insufficient_scope", by("authorization", "scoped").rule("readers"))
        .await;
    world.revoke(SelectorKind::Jti, b"https://idp.test", b"j1");
    let revoked = Why { phase: "revocation", ..why };
    examples.ask(it, "GET /in", &[&good], "token_revoked", revoked).await;
    let verdict = |policy: &str, key: &str| crate::anomalies::verdict(it, policy, key, 214, 0);
    it.proxy.verdicts().replace([verdict("slows", "acme"), verdict("asks", "other")]);
    let numbers = [("objects", Some(214)), ("over", Some(200)), ("retry_after_s", None)];
    let slowed = by("limits", "slows").rule("objects").numbers(&numbers);
    examples.ask(it, "GET /watched", &["x-api-key: qg_acme"], "abnormal_usage", slowed).await;
    let asked = Why { phase: "authorization", policy: "asks", ..slowed };
    examples.ask(it, "GET /watched", &["x-api-key: qg_other"], "step_up_required", asked).await;
    world.ban("consumer:other");
    let banned = |whom| by("revocation", whom).rule("ban");
    examples.ask(it, "GET /in", &["x-api-key: qg_other"], "banned", banned("consumer:other")).await;
    world.ban("credential:j2");
    let exp = now_s() + 600;
    let claims =
        json!({"iss": "https://idp.test", "aud": "a", "exp": exp, "iat": exp - 600, "jti": "j2", "azp": "acme"});
    let second = format!("authorization: Bearer {}", signer.token(&claims));
    examples.ask(it, "GET /in", &[&second], "banned", banned("credential:j2")).await;
    world.ban("127.0.0.1");
    let nobody = by("before_authentication", "127.0.0.1").rule("ban");
    examples.ask(it, "GET /in", &["x-api-key: qg_other"], "banned", nobody).await;

    // A gateway that was told of no credentials yet.
    let bare = Gateway::start(json!({
        "auth": [{"name": "keys", "api_key": {}}],
        "routes": [{"name": "in", "match": {"path_prefix": "/"}, "respond": {"status": 200}, "auth": {"any_of": ["keys"]}, "on_stale": "allow"}],
    }));
    let unavailable = by("authentication", "in").rule("any_of keys");
    examples.ask(&bare, "GET /", &["x-api-key: qg_x"], "auth_unavailable", unavailable).await;
}

async fn of_limits(examples: &mut Examples) {
    let (open, gate) = watch::channel(false);
    let (heard, hears) = watch::channel(0);
    let target = upstream(move |_| {
        let mut gate = gate.clone();
        heard.send_modify(|heard| *heard += 1);
        async move {
            gate.wait_for(|open| *open).await.unwrap();
            Response::new(Full::new(bytes::Bytes::new()))
        }
    })
    .await;
    let to = |name: &str, limits: &[&str]| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "upstream": "u", "limits": limits});
    let limit = |name: &str| json!({"name": name, "limit": 1, "per": "global", "window": "1h", "mode": "local"});
    let mut state = state(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()], "breaker": {"max_in_flight": 1}, "retries": {"attempts": 0}}],
        "limits": [
            limit("few"),
            {"name": "at-once", "kind": "concurrency", "limit": 1, "per": "global", "mode": "local"},
            {"name": "agreed", "limit": 100, "window": "1h", "per": "global"},
        ],
        "routes": [
            {"name": "few", "match": {"path_prefix": "/few"}, "respond": {"status": 200}, "limits": ["few"]},
            to("held", &["at-once"]),
            to("full", &[]),
            to("agreed", &["agreed"]),
        ],
    }));
    define(&mut state, "agreed", LimitKind::Sliding { limit: 100, window_us: 3_600_000_000 }, Mode::Leased);
    let it = gateway(&state);
    lead_nobody(&it, &state);
    assert_eq!(status(&ask(it.address, "GET /few", &[], "").await), 200);
    let numbers = [("limit", Some(1)), ("remaining", Some(0))];
    examples.ask(&it, "GET /few", &[], "rate_limited", by("limits", "few").numbers(&numbers)).await;
    let address = it.address;
    let first = tokio::spawn(async move { ask(address, "GET /held", &[], "").await });
    soon("the first is there", hears.clone().wait_for(|heard| *heard == 1)).await.unwrap();
    let at_once = by("limits", "at-once").numbers(&[("limit", Some(1))]);
    examples.ask(&it, "GET /held", &[], "concurrency_limited", at_once).await;
    examples.ask(&it, "GET /full", &[], "overloaded", by("upstream", "full")).await;
    open.send_replace(true);
    assert_eq!(status(&first.await.unwrap()), 200);
    examples.ask(&it, "GET /agreed", &[], "limit_unavailable", by("limits", "agreed")).await;
}

async fn of_a_quota(examples: &mut Examples) {
    let it = quota(1, Mode::Leased, 3_600).await;
    assert_eq!(status(&ask(it.address, "GET /", &[], "").await), 200);
    let numbers = [("limit", Some(1)), ("remaining", Some(0))];
    examples.ask(&it, "GET /", &[], "quota_exceeded", by("limits", "q").numbers(&numbers)).await;
}

async fn of_connections(examples: &mut Examples) {
    let mut impatient = settings();
    impatient.limits.header_read = Duration::from_millis(200);
    let it = Gateway::with(impatient, json!({}));
    let late = raw(it.address, "GET / HTTP/1.1\r\nhost: a\r\n").await;
    let numbers = [("header_read_ms", Some(200))];
    examples.answered(&it, &late, "request_timeout", by("body", "").numbers(&numbers)).await;

    let certified = certified();
    let it = Gateway::with(certified.settings.clone(), json!({}));
    let mut client = http2(connect(it.address, &certified.roots, &["h2"]).await).await;
    let answer = client.send_request(get("https://other.test/")).await.unwrap();
    let found = remembered(&it, answer.headers()["x-request-id"].to_str().unwrap()).await;
    assert_eq!((found.code, found.status), ("misdirected_request", 421));
    examples.told(found, by("route", ""));
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
