//! Codes of refusals as a node explains them that has not served the request.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use quorumgate_model::{
    change,
    command::Role,
    resource::{FieldTest, Kind, Resource},
    state::State,
};
use quorumgate_proxy::codes;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    members::{Home, Member, SOON},
    on_call::{proxy_over, request_id},
};

/// Of each, what the proxy remembers is held in its own tests; these need callers, a ledger, TLS, a held upstream or a
/// fault, none of which one proxy alone has.
const NOT_HERE: [&str; 17] = [
    "abnormal_usage",
    "auth_unavailable",
    "banned",
    "concurrency_limited",
    "credentials_invalid",
    "insufficient_scope",
    "internal_error",
    "limit_unavailable",
    "misdirected_request",
    "overloaded",
    "quota_exceeded",
    "request_timeout",
    "signature_invalid",
    "step_up_required",
    "token_expired",
    "token_revoked",
    "upgrade_not_supported",
];
const REVISION: u64 = 7;

/// An upstream that answers each connection with these bytes and closes it.
async fn says(upstreams: &mut JoinSet<()>, bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    upstreams.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    address
}

async fn state(upstreams: &mut JoinSet<()>, silent: SocketAddr) -> State {
    // Taken, so that nobody else gets it, and not listened at.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = taken.local_addr().unwrap();
    upstreams.spawn(async move {
        let _taken = taken;
        std::future::pending().await
    });
    let upstream = |name: &str, address: SocketAddr| json!({"name": name, "targets": [address.to_string()], "retries": {"attempts": 0}});
    let to = |name: &str| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "upstream": name});
    let local =
        |name: &str| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "respond": {"status": 200}});
    let away = |name: &str| json!({"name": name, "match": {"path_prefix": format!("/{name}")}, "upstream": "gone"});
    let with = |mut it: Value, name: &str, value: Value| {
        it[name] = value;
        it
    };
    let empty = says(upstreams, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let words = json!({
        "upstreams": [
            upstream("gone", nobody),
            upstream("slow", silent),
            upstream("resets", says(upstreams, b"").await),
            upstream("babbles", says(upstreams, b"hello?\r\n\r\n").await),
            upstream("promised", empty),
            with(upstream("veiled", says(upstreams, b"hello?\r\n\r\n").await), "tls", json!({"verify": false})),
            with(
                upstream("trips", nobody),
                "breaker",
                json!({"error_percent": 1, "window": "10s", "min_requests": 1, "open": "1h"})
            ),
        ],
        "auth": [{"name": "keys", "api_key": {}}],
        "limits": [{"name": "few", "limit": 1, "per": "global", "window": "1h", "mode": "local"}],
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
            to("gone"),
            to("resets"),
            to("babbles"),
            to("veiled"),
            to("trips"),
            with(to("slow"), "timeouts", json!({"total": "50ms"})),
            with(to("promised"), "policies", json!(["promised"])),
            with(away("small"), "body", json!({"max": "10"})),
            with(away("packed"), "body", json!({"decompressed_max": "10"})),
            with(away("flat"), "policies", json!(["flat"])),
            with(away("kept"), "cache", json!({})),
            with(away("shut"), "policies", json!(["nobody"])),
            with(away("people"), "policies", json!(["no-curl"])),
            with(away("v0"), "policies", json!(["v0"])),
            with(away("v1"), "policies", json!(["v1"])),
            with(away("strict"), "on_stale", json!("deny")),
            with(away("ruled"), "authorize", json!([{"name": "no-post", "deny": {"methods": ["POST"]}}])),
            with(local("few"), "limits", json!(["few"])),
            with(with(local("in"), "auth", json!({"any_of": ["keys"]})), "on_stale", json!("allow")),
            with(local("reads"), "match", json!({"path_prefix": "/reads", "methods": ["GET"]})),
        ],
    });
    let mut state = State { revision: REVISION, ..State::default() };
    for (list, objects) in words.as_object().unwrap() {
        let kind = Kind::ALL.into_iter().find(|it| it.list() == list).unwrap_or_else(|| panic!("no kind {list}"));
        for it in objects.as_array().unwrap() {
            let resource = kind.parse(it.clone()).unwrap();
            state.resources.insert(resource.key(), change::stored(resource));
        }
    }
    // As of a newer build, which this one cannot carry out.
    let matches = json!({"path_prefix": "/broken", "headers": [{"name": "x", "regex": "a"}]});
    let broken = json!({"name": "broken", "match": matches, "respond": {"status": 200}});
    let Resource::Route(broken) = Kind::Route.parse(broken).unwrap() else { panic!("it is one") };
    let mut broken = (*broken).clone();
    broken.matches.headers[0].test = FieldTest::Regex("(".into());
    let broken = Resource::Route(Arc::new(broken));
    state.resources.insert(broken.key(), change::stored(broken));
    state
}

async fn ask(address: SocketAddr, line: &str, fields: &[&str], body: &str) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let request = format!("{line} HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n{fields}\r\n{body}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Who refuses before it has read all may end the connection with a reset.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

struct Elsewhere {
    address: SocketAddr,
    served_by: Member,
    asked: Member,
    codes: BTreeSet<&'static str>,
}

/// Phase, policy, a part of the rule, and numbers, None for whatever it is.
type Why<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, Option<u64>)]);

impl Elsewhere {
    async fn ask(&mut self, line: &str, fields: &[&str], code: &'static str, why: Why<'_>) {
        self.ask_with(line, fields, "", code, why).await;
    }

    async fn ask_with(
        &mut self,
        line: &str,
        fields: &[&str],
        body: &str,
        code: &'static str,
        (phase, policy, rule, numbers): Why<'_>,
    ) {
        let answer = ask(self.address, line, fields, body).await;
        let id: Uuid = request_id(&answer).parse().unwrap();
        let ends = Instant::now() + SOON;
        // It is remembered a moment after its last byte.
        let found = loop {
            if let Some(found) = self.asked.consensus.exchange(id, SOON).await {
                break found;
            }
            assert!(Instant::now() < ends, "{code} is not known elsewhere: {answer}");
            sleep(Duration::from_millis(2)).await;
        };
        assert_eq!((found.node.as_str(), found.code.as_str(), found.revision), ("n1", code, REVISION), "{answer}");
        assert_eq!((found.phase.as_str(), found.policy.as_str()), (phase, policy), "{code}");
        assert!(found.rule.contains(rule) && found.rule.is_empty() == rule.is_empty(), "{code}: {}", found.rule);
        for (name, number) in numbers {
            let told = found.numbers.get(*name).copied();
            assert!(told.is_some() && (number.is_none() || told == *number), "{code}: {name} of {:?}", found.numbers);
        }
        let own = self.served_by.consensus.exchange(id, SOON).await.expect("it has served it");
        assert_eq!(found, own, "{code}: all that the node knows that served it");
        self.codes.insert(code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_code_that_one_proxy_gives_is_explained_by_another_node_as_by_the_one_that_served_it() {
    let homes = [Home::founder("n1"), Home::new("n2")];
    let served_by = homes[0].run().await;
    let token = served_by.token(Role::Replica, Duration::from_secs(60)).await;
    homes[1].join(&homes[0], &token).await.unwrap();
    let asked = homes[1].run().await;
    let index = served_by.consensus.state().index;
    asked.consensus.wait_applied(index, SOON).await.unwrap();

    let mut upstreams = JoinSet::new();
    // It is connected to, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let state = state(&mut upstreams, silent.local_addr().unwrap()).await;
    let proxy = Arc::new(proxy_over(&state));
    proxy.directory().publish(&state, Default::default());
    proxy.limits().publish(&state);
    let address = proxy.addresses()[0];
    served_by.consensus.attach_proxy(proxy);
    let mut it = Elsewhere { address, served_by, asked, codes: BTreeSet::new() };

    let before = "before_authentication";
    it.ask("GET /lost", &[], "no_route", ("route", "", "", &[])).await;
    it.ask("DELETE /reads", &[], "method_not_allowed", ("route", "", "GET", &[])).await;
    it.ask("GET /gone/%00", &[], "bad_path", ("canonical_path", "", "", &[])).await;
    let two = ["content-length: 1", "content-length: 2"];
    it.ask("GET /gone", &two, "malformed_request", ("parse", "", "", &[])).await;
    let long = format!("GET /{}", "x".repeat(17 << 10));
    it.ask(&long, &[], "uri_too_long", ("parse", "", "", &[("uri_bytes_max", Some(16 << 10))])).await;
    let fields: Vec<String> = (0..130).map(|n| format!("x-{n}: y")).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let many = ("parse", "", "", &[("header_fields_max", Some(128))][..]);
    it.ask("GET /gone", &fields, "header_fields_too_large", many).await;
    it.ask("GET /broken", &[], "broken_rule", ("route", "broken", "match.headers[0].regex", &[])).await;
    it.ask("GET /shut", &[], "ip_denied", (before, "nobody", "deny", &[])).await;
    it.ask("GET /people", &["user-agent: Curl/8"], "bot_denied", (before, "no-curl", "deny (?i)curl", &[])).await;
    it.ask("GET /v0", &[], "api_retired", (before, "v0", "retired", &[])).await;
    it.ask("GET /v1", &[], "api_brownout", (before, "v1", "brownouts", &[])).await;
    it.ask("GET /strict", &[], "state_stale", ("freshness", "strict", "", &[])).await;
    it.ask("GET /in", &[], "credentials_missing", ("authentication", "in", "any_of keys", &[])).await;
    it.ask("POST /ruled", &["content-length: 0"], "access_denied", ("authorization", "ruled", "no-post", &[])).await;
    assert!(ask(address, "GET /few", &[], "").await.starts_with("HTTP/1.1 200 "));
    let few = ("limits", "few", "", &[("limit", Some(1)), ("remaining", Some(0))][..]);
    it.ask("GET /few", &[], "rate_limited", few).await;
    let size = ("body", "small", "", &[("body_bytes_max", Some(10))][..]);
    it.ask("POST /small", &["content-length: 11"], "content_too_large", size).await;
    let packed = ["content-length: 0", "content-encoding: lzw"];
    it.ask("POST /packed", &packed, "unsupported_media_type", ("validation", "packed", "", &[])).await;
    let deep = ("validation", "flat", "max_depth", &[("errors", Some(1))][..]);
    let typed = ["content-type: application/json", "content-length: 5"];
    it.ask_with("POST /flat", &typed, "[[1]]", "validation_failed", deep).await;
    let unknown = ("validation", "promised", "unknown_operations", &[][..]);
    it.ask("GET /promised/else", &[], "unknown_operation", unknown).await;
    it.ask("GET /kept", &["cache-control: only-if-cached"], "not_cached", ("cache", "kept", "", &[])).await;

    let once = &[("attempts", Some(1))][..];
    let passes = ["via: 1.1 quorumgate"; 8];
    it.ask("GET /gone", &passes, "loop_detected", ("forward", "gone", "", &[("passes_max", Some(8))])).await;
    it.ask("GET /gone", &[], "no_healthy_upstream", ("upstream", "gone", "", once)).await;
    it.ask("GET /resets", &[], "upstream_reset", ("upstream", "resets", "", once)).await;
    it.ask("GET /babbles", &[], "upstream_protocol_error", ("upstream", "babbles", "", once)).await;
    it.ask("GET /veiled", &[], "upstream_tls", ("upstream", "veiled", "", once)).await;
    it.ask("GET /trips", &[], "no_healthy_upstream", ("upstream", "trips", "", &[])).await;
    it.ask("GET /trips", &[], "circuit_open", ("upstream", "trips", "", &[("retry_after_s", None)])).await;
    let total = ("upstream", "slow", "", &[("route_timeout_ms", Some(50)), ("attempts", Some(1))][..]);
    it.ask("GET /slow", &[], "upstream_timeout", total).await;
    it.ask("GET /promised", &[], "response_validation_failed", ("response", "promised", "status", once)).await;

    // A code that is new fails here, until it has an example or a reason for none.
    let given = codes::ALL.iter().filter(|it| it.is_given() && it.status != 0).map(|it| it.code);
    let expected: BTreeSet<_> = given.filter(|code| !NOT_HERE.contains(code)).collect();
    assert_eq!(it.codes, expected);
    it.asked.stop().await;
    it.served_by.stop().await;
}
