//! The cache: what it may keep, what it asks about, and what it lets go.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::support::*;
use crate::tokens::{Signer, jwks};
use crate::world::{World, now_s};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::Full;
use quorumgate_model::purge::PurgeTarget;
use serde_json::{Value, json};

/// An origin that says what its test tells it to, and counts.
#[derive(Clone, Default)]
struct Origin {
    fields: Arc<Mutex<Vec<(&'static str, String)>>>,
    status: Arc<Mutex<u16>>,
    asked: Arc<AtomicUsize>,
    heard: Arc<Mutex<HeaderMap>>,
}

impl Origin {
    fn says(&self, status: u16, fields: &[(&'static str, &str)]) {
        *self.status.lock().unwrap() = status;
        *self.fields.lock().unwrap() = fields.iter().map(|(name, value)| (*name, value.to_string())).collect();
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    fn heard(&self, name: &str) -> Option<String> {
        self.heard.lock().unwrap().get(name).map(|value| value.to_str().unwrap().to_owned())
    }
}

async fn cached(words: Value) -> (Gateway, Origin) {
    cached_by(json!({ "cache": words })).await
}

/// With these words in its route.
async fn cached_by(words: Value) -> (Gateway, Origin) {
    let (settings, rules, origin) = prepared(words).await;
    (Gateway::with(settings, rules), origin)
}

async fn prepared(words: Value) -> (quorumgate_proxy::Settings, Value, Origin) {
    let origin = Origin::default();
    origin.says(200, &[]);
    let answers = origin.clone();
    let target = upstream(move |request| {
        let origin = answers.clone();
        async move {
            *origin.heard.lock().unwrap() = request.headers().clone();
            let n = origin.asked.fetch_add(1, SeqCst) + 1;
            let status = *origin.status.lock().unwrap();
            let mut answer = Response::builder().status(status);
            for (name, value) in &*origin.fields.lock().unwrap() {
                answer = answer.header(*name, value);
            }
            let body = if [204, 304].contains(&status) { String::new() } else { format!("answer {n}") };
            answer.body(Full::new(Bytes::from(body))).unwrap()
        }
    })
    .await;
    let mut rules = forward_all(target);
    for (word, value) in words.as_object().unwrap() {
        rules["routes"][0][word] = value.clone();
    }
    // One worker, so that a burst meets in it.
    (quorumgate_proxy::Settings { workers: 1, ..settings() }, rules, origin)
}

#[tokio::test]
async fn what_is_fresh_is_asked_once() {
    let (gateway, origin) = cached(json!({})).await;
    origin.says(200, &[("cache-control", "max-age=100"), ("age", "7"), ("etag", "\"a\"")]);
    let at = gateway.address;
    let first = ask(at, "GET /a?b", &[], "").await;
    assert_eq!(
        (body(&first), field(&first, "cache-status")),
        ("answer 1", Some("quorumgate; fwd=miss; fwd-status=200; stored"))
    );
    let again = ask(at, "GET /a?b", &[], "").await;
    assert_eq!(body(&again), "answer 1");
    let age: u64 = field(&again, "age").unwrap().parse().unwrap();
    assert!((7..17).contains(&age), "{again}");
    assert!(field(&again, "cache-status").unwrap().starts_with("quorumgate; hit; ttl="), "{again}");
    assert_ne!(field(&again, "x-request-id"), field(&first, "x-request-id"));
    let head = ask(at, "HEAD /a?b", &[], "").await;
    assert_eq!((status(&head), field(&head, "content-length"), body(&head)), (200, Some("8"), ""));
    for fields in [&["if-none-match: \"x\", W/\"a\""][..], &["if-none-match: *"]] {
        let same = ask(at, "GET /a?b", fields, "").await;
        assert_eq!((status(&same), body(&same)), (304, ""), "{same}");
    }
    assert_eq!(body(&ask(at, "GET /a?b", &["if-none-match: \"x\""], "").await), "answer 1");
    assert_eq!(origin.asked(), 1);
    for other in ["GET /a?c", "GET /a"] {
        ask(at, other, &[], "").await;
    }
    assert_eq!(origin.asked(), 3);
    assert_eq!(gateway.metric("quorumgate_cache_requests_total{result=\"miss\"}"), 3);
}

#[tokio::test]
async fn a_304_says_of_itself_what_its_200_does() {
    let (gateway, origin) = cached_by(json!({ "cache": {}, "compression": { "min_size": 1 } })).await;
    for (kind, coded, varies) in [("text/plain", "W/\"a\"", true), ("image/png", "\"a\"", false)] {
        origin.says(200, &[("content-type", kind), ("cache-control", "max-age=100"), ("etag", "\"a\"")]);
        for (accepts, tag) in [("accept-encoding: gzip", coded), ("accept-encoding: identity", "\"a\"")] {
            for (has, expected) in [("x: y", 200), ("if-none-match: \"a\"", 304), ("if-none-match: W/\"a\"", 304)] {
                let answer = ask(gateway.address, &format!("GET /{kind}"), &[accepts, has], "").await;
                let said = (status(&answer), field(&answer, "etag"), field(&answer, "vary"));
                assert_eq!(
                    said,
                    (expected, Some(tag), varies.then_some("accept-encoding")),
                    "{accepts} {has}: {answer}"
                );
            }
            let head = ask(gateway.address, &format!("HEAD /{kind}"), &[accepts], "").await;
            assert_eq!(field(&head, "vary"), varies.then_some("accept-encoding"), "{accepts}: {head}");
        }
    }
    assert_eq!(origin.asked(), 2);
}

#[tokio::test]
async fn an_upstreams_304_says_of_itself_what_its_200_would() {
    let (gateway, origin) = cached_by(json!({ "compression": {} })).await;
    for has in ["\"a\"", "W/\"a\""] {
        for (kind, accepts, tag, varies) in [
            (None, "gzip", "W/\"a\"", true),
            (None, "identity", "\"a\"", true),
            (Some("text/plain"), "gzip", "W/\"a\"", true),
            (Some("image/png"), "gzip", "\"a\"", false),
        ] {
            let kind = kind.map(|kind| ("content-type", kind));
            origin.says(304, &[("etag", "\"a\"")].into_iter().chain(kind).collect::<Vec<_>>());
            let fields = [format!("accept-encoding: {accepts}"), format!("if-none-match: {has}")];
            let answer = ask(gateway.address, "GET /", &[&fields[0], &fields[1]], "").await;
            let said = (status(&answer), field(&answer, "etag"), field(&answer, "vary"));
            assert_eq!(said, (304, Some(tag), varies.then_some("accept-encoding")), "{fields:?} {kind:?}: {answer}");
            assert_eq!(origin.heard("if-none-match").as_deref(), Some(has));
        }
    }
}

#[tokio::test]
async fn what_the_rfc_forbids_is_never_kept() {
    let (gateway, origin) = cached(json!({"default_ttl": "1h"})).await;
    let fresh = "max-age=100";
    for (status, answers, asks) in [
        (200, vec![("cache-control", "no-store, max-age=100")], vec![]),
        (200, vec![("cache-control", "private, max-age=100")], vec![]),
        (200, vec![("cache-control", "private=\"x\", max-age=100")], vec![]),
        (200, vec![("cache-control", fresh), ("vary", "*")], vec![]),
        (200, vec![("cache-control", fresh), ("set-cookie", "a=b")], vec![]),
        (200, vec![("cache-control", fresh)], vec!["authorization: Basic eDp5"]),
        (200, vec![("cache-control", fresh)], vec!["cache-control: no-store"]),
        (200, vec![("cache-control", "max-age=0")], vec![]),
        (200, vec![("cache-control", "max-age=x")], vec![]),
        (200, vec![("expires", "0")], vec![]),
        (206, vec![("cache-control", fresh)], vec![]),
        (500, vec![], vec![]),
        (302, vec![("location", "/x")], vec![]),
        (200, vec![("cache-control", "max-age=100, must-revalidate")], vec!["authorization: Basic eDp5"]),
        (200, vec![("cache-control", fresh), ("vary", "a b")], vec![]),
        // What may be one client's, and does not say that it is not.
        (200, vec![], vec!["cookie: session=1"]),
        (200, vec![("etag", "\"a\"")], vec!["x-api-key: 1"]),
    ] {
        origin.says(status, &answers);
        let before = origin.asked();
        for _ in 0..2 {
            ask(gateway.address, "GET /never", &asks, "").await;
        }
        assert_eq!(origin.asked(), before + 2, "{answers:?} {asks:?}");
        gateway.proxy.purge(&[PurgeTarget::Everything]);
    }
    for (answers, asks) in [
        (vec![("cache-control", "public, max-age=100")], vec!["authorization: Basic eDp5"]),
        (vec![("cache-control", "max-age=1, s-maxage=100")], vec!["authorization: Basic eDp5"]),
        (vec![], vec![]),
    ] {
        origin.says(200, &answers);
        let before = origin.asked();
        for _ in 0..2 {
            ask(gateway.address, "GET /kept", &asks, "").await;
        }
        assert_eq!(origin.asked(), before + 1, "{answers:?} {asks:?}");
        gateway.proxy.purge(&[PurgeTarget::Everything]);
    }
}

#[tokio::test]
async fn answers_are_kept_apart_by_what_they_vary_on() {
    let (gateway, origin) = cached(json!({})).await;
    origin.says(200, &[("cache-control", "max-age=100"), ("vary", "Accept-Language, X-B")]);
    let at = gateway.address;
    for (fields, expected) in [
        (&["accept-language: de"][..], "answer 1"),
        (&["accept-language: en"], "answer 2"),
        (&["accept-language: de", "x-b: 1"], "answer 3"),
        (&[], "answer 4"),
        (&["accept-language: de"], "answer 1"),
        (&["accept-language: de", "x-c: 1"], "answer 1"),
        (&[], "answer 4"),
    ] {
        assert_eq!(body(&ask(at, "GET /", fields, "").await), expected, "{fields:?}");
    }
}

#[tokio::test]
async fn what_is_stale_is_asked_about_and_used_again() {
    let (gateway, origin) = cached(json!({})).await;
    let at = gateway.address;
    origin.says(200, &[("cache-control", "max-age=0"), ("etag", "\"a\""), ("x-n", "1")]);
    assert_eq!(body(&ask(at, "GET /", &[], "").await), "answer 1");
    origin.says(304, &[("cache-control", "max-age=100"), ("etag", "\"a\""), ("x-n", "2")]);
    let renewed = ask(at, "GET /", &["if-none-match: \"other\""], "").await;
    assert_eq!((status(&renewed), body(&renewed), field(&renewed, "x-n")), (200, "answer 1", Some("2")), "{renewed}");
    assert_eq!(origin.heard("if-none-match").as_deref(), Some("\"a\""));
    assert_eq!(body(&ask(at, "GET /", &[], "").await), "answer 1");
    assert_eq!(origin.asked(), 2);
    for asks in ["no-cache", "max-age=0", "min-fresh=1000"] {
        let before = origin.asked();
        assert_eq!(body(&ask(at, "GET /", &[&format!("cache-control: {asks}")], "").await), "answer 1");
        assert_eq!(origin.asked(), before + (asks != "max-age=0") as usize, "{asks}");
    }
    origin.says(200, &[("cache-control", "max-age=100"), ("etag", "\"b\"")]);
    assert_eq!(body(&ask(at, "GET /", &["pragma: no-cache"], "").await), format!("answer {}", origin.asked()));
}

#[tokio::test]
async fn a_stale_answer_serves_while_the_upstream_fails_or_is_asked_beside() {
    let (gateway, origin) = cached(json!({})).await;
    let at = gateway.address;
    origin.says(200, &[("cache-control", "max-age=0, stale-if-error=100")]);
    assert_eq!(body(&ask(at, "GET /error", &[], "").await), "answer 1");
    origin.says(503, &[]);
    let stale = ask(at, "GET /error", &[], "").await;
    assert_eq!((status(&stale), body(&stale)), (200, "answer 1"), "{stale}");
    assert!(field(&stale, "cache-status").unwrap().contains("stale-if-error"), "{stale}");

    origin.says(200, &[("cache-control", "max-age=0, stale-if-error=100, must-revalidate")]);
    ask(at, "GET /strict", &[], "").await;
    origin.says(503, &[]);
    assert_eq!(status(&ask(at, "GET /strict", &[], "").await), 503);

    origin.says(200, &[("cache-control", "max-age=0, stale-while-revalidate=100")]);
    let first = ask(at, "GET /beside", &[], "").await;
    let before = origin.asked();
    origin.says(200, &[("cache-control", "max-age=100")]);
    assert_eq!(body(&ask(at, "GET /beside", &[], "").await), body(&first));
    until("it is asked beside", || (origin.asked() == before + 1).then_some(())).await;
    let newer = format!("answer {}", before + 1);
    loop {
        let now = ask(at, "GET /beside", &[], "").await;
        if body(&now) == newer {
            break;
        }
        assert_eq!(body(&now), body(&first), "the old one until the new one is there");
    }
    assert_eq!(origin.asked(), before + 1);
}

#[tokio::test]
async fn a_burst_of_one_question_is_one_question() {
    let (gateway, origin) = cached(json!({})).await;
    origin.says(200, &[("cache-control", "max-age=100")]);
    let asks: Vec<_> = (0..20).map(|_| ask(gateway.address, "GET /burst", &[], "")).collect();
    for answer in futures_util::future::join_all(asks).await {
        assert_eq!(body(&answer), "answer 1");
    }
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn what_changes_a_thing_lets_go_of_it_and_ranges_pass_by() {
    let (gateway, origin) = cached(json!({})).await;
    let at = gateway.address;
    origin.says(200, &[("cache-control", "max-age=100")]);
    let first = ask(at, "GET /thing", &[], "").await;
    let range = ask(at, "GET /thing", &["range: bytes=0-1"], "").await;
    assert_ne!(body(&range), body(&first));
    assert_eq!(origin.heard("range").as_deref(), Some("bytes=0-1"));
    origin.says(500, &[]);
    ask(at, "POST /thing", &[], "").await;
    assert_eq!(body(&ask(at, "GET /thing", &[], "").await), body(&first), "a failed change is none");
    origin.says(200, &[("cache-control", "max-age=100")]);
    ask(at, "DELETE /thing", &[], "").await;
    assert_ne!(body(&ask(at, "GET /thing", &[], "").await), body(&first));
    check_problem(&ask(at, "GET /new", &["cache-control: only-if-cached"], "").await, 504, "not_cached");
}

#[tokio::test]
async fn what_is_on_its_way_while_its_thing_changes_is_not_kept() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let (heard, mut hears) = tokio::sync::watch::channel(0);
    let target = upstream(move |request| {
        let mut gate = gate.clone();
        heard.send_modify(|heard| *heard += 1);
        async move {
            if request.method() == http::Method::GET {
                gate.wait_for(|open| *open).await.unwrap();
            }
            Response::builder().header("cache-control", "max-age=100").body(Full::new(Bytes::from("a"))).unwrap()
        }
    })
    .await;
    let mut rules = forward_all(target);
    rules["routes"][0]["cache"] = json!({});
    let gateway = Gateway::start(rules);
    let at = gateway.address;
    let meanwhile = async {
        hears.wait_for(|heard| *heard == 1).await.unwrap();
        assert_eq!(status(&ask(at, "PUT /a", &["content-length: 0"], "").await), 200);
        open.send_replace(true);
    };
    let (first, ()) = soon("both", futures_util::future::join(ask(at, "GET /a", &[], ""), meanwhile)).await;
    assert_eq!(status(&first), 200);
    for _ in 0..2 {
        assert_eq!(status(&ask(at, "GET /a", &[], "").await), 200);
        assert_eq!(*hears.borrow(), 3, "asked for once more, and kept");
    }
}

#[tokio::test]
async fn a_hosts_last_dot_is_no_part_of_what_is_purged() {
    let (gateway, origin) = cached(json!({})).await;
    origin.says(200, &[("cache-control", "max-age=100")]);
    for host in ["api.test.", "api.test", "api.test."] {
        let request = format!("GET /a HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        assert_eq!(status(&raw(gateway.address, request).await), 200);
    }
    assert_eq!(origin.asked(), 2);
    assert_eq!(gateway.proxy.purge(&[PurgeTarget::key("api.test/a").unwrap()]), 1, "one URL");
    assert_eq!(gateway.proxy.purge(&[PurgeTarget::Everything]), 0);
}

#[tokio::test]
async fn what_is_purged_is_asked_for_again() {
    let (gateway, origin) = cached(json!({})).await;
    let at = gateway.address;
    let fill = async || {
        for (path, tags) in [("/a/1", "red, blue"), ("/a/2?x", "red"), ("/b", "green")] {
            origin.says(200, &[("cache-control", "max-age=100"), ("cache-tag", tags)]);
            ask(at, &format!("GET {path}"), &[], "").await;
        }
    };
    for (purge, expected) in [
        (PurgeTarget::key("https://api.test/a/2?x").unwrap(), 1),
        (PurgeTarget::key("api.test/a").unwrap(), 0),
        (PurgeTarget::prefix("api.test/a/").unwrap(), 2),
        (PurgeTarget::tag("red").unwrap(), 2),
        (PurgeTarget::tag("re").unwrap(), 0),
        (PurgeTarget::Everything, 3),
    ] {
        fill().await;
        let before = origin.asked();
        assert_eq!(gateway.proxy.purge(std::slice::from_ref(&purge)), expected, "{purge:?}");
        fill().await;
        assert_eq!(origin.asked(), before + expected as usize, "{purge:?}");
    }
}

#[tokio::test]
async fn answers_to_one_caller_are_never_anothers() {
    let (gateway, origin) = cached(json!({"default_ttl": "1h", "stale_while_revalidate": "1h"})).await;
    let at = gateway.address;
    let attempts = [
        (vec![("cache-control", "max-age=100")], vec!["authorization: Bearer a"]),
        (vec![("etag", "\"a\"")], vec!["authorization: Bearer a"]),
        (vec![("cache-control", "max-age=100"), ("set-cookie", "session=a")], vec![]),
        (vec![("cache-control", "private")], vec!["cookie: session=a"]),
        (vec![], vec!["cookie: session=a"]),
    ];
    for (n, (says, asks)) in attempts.iter().enumerate() {
        let path = format!("GET /me/{n}");
        origin.says(200, says);
        let mine = ask(at, &path, asks, "").await;
        for others in [&[][..], &["authorization: Bearer b"], &["cookie: session=b"], &["cache-control: max-stale"]] {
            let theirs = ask(at, &path, others, "").await;
            assert_ne!(body(&theirs), body(&mine), "{says:?} {asks:?} {others:?}");
        }
    }
}

#[tokio::test]
async fn callers_whom_the_gateway_knows_share_what_is_public_and_nothing_else() {
    const KEYS: [&str; 2] =
        ["qg_live_0123456789abcdefghijklmnopqrstuv_00000000", "qg_live_vutsrqponmlkjihgfedcba9876543210_00000000"];
    let route =
        json!({"cache": {"default_ttl": "1h", "stale_while_revalidate": "1h"}, "auth": {"any_of": ["keys", "idp"]}});
    let (settings, mut rules, origin) = prepared(route).await;
    let signer = Signer::es256("k1");
    let key_set: Value = serde_json::from_str(&jwks(&[&signer])).unwrap();
    rules["upstreams"][0]["name"] = json!("origin");
    rules["routes"][0]["upstream"] = json!("origin");
    rules["auth"] = json!([
        {"name": "keys", "api_key": {"header": "x-key", "query": "key"}},
        {"name": "idp", "jwt": {"issuer": "https://idp.test", "audience": ["orders"], "jwks_inline": key_set, "consumer_claim": "azp"}},
    ]);
    let world = World::with(settings, rules).await;
    world.key("acme", KEYS[0]);
    world.key("other", KEYS[1]);
    let token = |consumer: &str| {
        let claims = json!({
            "iss": "https://idp.test", "aud": "orders", "exp": now_s() + 600, "iat": now_s(), "sub": consumer, "azp": consumer,
        });
        format!("authorization: Bearer {}", signer.token(&claims))
    };
    let by_field = KEYS.map(|key| (String::new(), format!("x-key: {key}")));
    let by_query = KEYS.map(|key| (format!("?key={key}"), "x-none: 1".to_owned()));
    let by_token = ["acme", "other"].map(|consumer| (String::new(), token(consumer)));
    let callers = [by_field, by_query, by_token].concat();
    let at = world.gateway.address;
    for (says, is_shared) in
        [("max-age=100", false), ("", false), ("private, max-age=100", false), ("public, max-age=100", true)]
    {
        origin.says(200, &[("cache-control", says)]);
        let before = origin.asked();
        for (query, credential) in &callers {
            let answer = ask(at, &format!("GET /me{query}"), &[credential], "").await;
            assert_eq!(status(&answer), 200, "{answer}");
        }
        let asked = if is_shared { 1 } else { callers.len() };
        assert_eq!(origin.asked() - before, asked, "{says}");
    }
    check_problem(&ask(at, "GET /me", &[], "").await, 401, "credentials_missing");
}

#[tokio::test]
async fn what_a_304_says_to_one_client_is_not_told_to_others() {
    let (gateway, origin) = cached(json!({})).await;
    let at = gateway.address;
    origin.says(200, &[("cache-control", "max-age=0"), ("etag", "\"a\"")]);
    ask(at, "GET /", &[], "").await;
    origin.says(304, &[("cache-control", "max-age=100"), ("etag", "\"a\""), ("set-cookie", "session=a")]);
    assert_eq!(field(&ask(at, "GET /", &[], "").await, "set-cookie"), Some("session=a"));
    origin.says(304, &[("cache-control", "max-age=100"), ("etag", "\"a\""), ("x-who", "a")]);
    assert_eq!(field(&ask(at, "GET /", &["authorization: Bearer a"], "").await, "x-who"), Some("a"));
    origin.says(304, &[("etag", "\"a\"")]);
    let other = ask(at, "GET /", &[], "").await;
    assert_eq!((body(&other), field(&other, "set-cookie"), field(&other, "x-who")), ("answer 1", None, None));
    assert_eq!(origin.asked(), 4);
    origin.says(304, &[("cache-control", "private"), ("etag", "\"a\"")]);
    ask(at, "GET /", &[], "").await;
    origin.says(200, &[]);
    assert_eq!(body(&ask(at, "GET /", &[], "").await), "answer 6", "what became private is kept no longer");
}

#[tokio::test]
async fn what_makes_an_answer_beside_its_url_is_part_of_the_question() {
    let by_query = json!({"query": {"set": {"for": "${client_ip}"}}});
    let by_field = json!({"headers": {"request": {"set": {"x-tenant": "${client_ip}"}}}});
    for rewrite in [by_query, by_field] {
        let (settings, rules, origin) = prepared(json!({"cache": {}, "rewrite": rewrite})).await;
        let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        let gateway = Gateway::with(quorumgate_proxy::Settings { trusted_proxies, ..settings }, rules);
        let at = gateway.address;
        origin.says(200, &[("cache-control", "public, max-age=100"), ("vary", "x-tenant")]);
        let ann = ask(at, "GET /", &["x-forwarded-for: 10.0.0.1"], "").await;
        assert_eq!(body(&ask(at, "GET /", &["x-forwarded-for: 10.0.0.1"], "").await), body(&ann));
        let bob = ask(at, "GET /", &["x-forwarded-for: 10.0.0.2"], "").await;
        assert_ne!(body(&bob), body(&ann), "{rewrite}");
    }
    // A port and a scheme go into what an upstream says of itself, and a body into what it does.
    let (settings, rules, origin) = prepared(json!({"cache": {}})).await;
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let gateway = Gateway::with(quorumgate_proxy::Settings { trusted_proxies, ..settings }, rules);
    let at = gateway.address;
    origin.says(200, &[("cache-control", "public, max-age=100")]);
    let first = ask(at, "GET /", &[], "").await;
    let other_port = raw(at, "GET / HTTP/1.1\r\nhost: api.test:81\r\nconnection: close\r\n\r\n").await;
    assert_ne!(body(&other_port), body(&first));
    assert_ne!(body(&ask(at, "GET /", &["x-forwarded-proto: https"], "").await), body(&first));
    let with_body = ask(at, "GET /", &["content-length: 4"], "body").await;
    assert_ne!(body(&with_body), body(&first));
    assert!(field(&with_body, "cache-status").unwrap().contains("fwd=bypass"), "{with_body}");
    assert_eq!(body(&ask(at, "GET /", &[], "").await), body(&first));
}

#[tokio::test]
async fn a_head_that_refreshes_keeps_the_body() {
    let (gateway, origin) = cached(json!({})).await;
    let at = gateway.address;
    origin.says(200, &[("cache-control", "max-age=0, stale-while-revalidate=100")]);
    ask(at, "GET /", &[], "").await;
    origin.says(200, &[("cache-control", "max-age=100")]);
    assert_eq!(status(&ask(at, "HEAD /", &[], "").await), 200);
    until("it is asked beside", || (origin.asked() == 2).then_some(())).await;
    gateway.metric_becomes("quorumgate_cache_urls", 1).await;
    loop {
        let now = ask(at, "GET /", &[], "").await;
        assert!(["answer 1", "answer 2"].contains(&body(&now)), "{now}");
        if body(&now) == "answer 2" {
            break;
        }
    }
}

#[tokio::test]
async fn whoever_is_not_let_in_gets_nothing_that_is_kept() {
    let (settings, mut rules, origin) = prepared(json!({"cache": {}})).await;
    rules["auth"] = json!([{"name": "people", "basic": {}}]);
    rules["routes"].as_array_mut().unwrap().push(json!({
        "name": "shut", "match": {"path_prefix": "/", "headers": [{"name": "x-shut", "present": true}]},
        "upstream": "u", "auth": {"any_of": ["people"]}, "on_stale": "allow", "cache": {},
    }));
    let gateway = Gateway::with(settings, rules);
    origin.says(200, &[("cache-control", "public, max-age=100")]);
    let open = ask(gateway.address, "GET /", &[], "").await;
    let shut = ask(gateway.address, "GET /", &["x-shut: 1"], "").await;
    assert_eq!(status(&open), 200);
    // Nothing here knows of any caller.
    check_problem(&shut, 503, "auth_unavailable");
    assert!(!shut.contains(body(&open)));
}

#[tokio::test]
async fn an_answer_without_a_body_is_kept_too() {
    let (gateway, origin) = cached(json!({})).await;
    origin.says(204, &[("cache-control", "max-age=100")]);
    for _ in 0..2 {
        let answer = ask(gateway.address, "GET /", &[], "").await;
        assert_eq!((status(&answer), body(&answer)), (204, ""));
    }
    assert_eq!(origin.asked(), 1);
}
