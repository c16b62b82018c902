//! Splits, preflights, mirrors, rewrites with values, and answers made smaller.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use crate::{
    protocols::{certified, connect, get},
    support::*,
};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

/// Answers with its own name.
async fn named(name: &'static str) -> String {
    let answer = move |_| async move { Response::new(Full::new(Bytes::from_static(name.as_bytes()))) };
    upstream(answer).await.to_string()
}

async fn split(route: Value) -> Gateway {
    let mut words = json!({
        "upstreams": [{"name": "a", "targets": [named("a").await]}, {"name": "b", "targets": [named("b").await]}],
        "routes": [{"name": "r", "split": [{"upstream": "a", "weight": 1}, {"upstream": "b", "weight": 1}]}],
    });
    for (name, value) in route.as_object().unwrap() {
        words["routes"][0][name] = value.clone();
    }
    Gateway::start(words)
}

#[tokio::test]
async fn one_user_meets_the_same_arm_on_every_gateway() {
    let on_header = json!({"split_on": {"header": "x-user"}});
    let (one, two) = (split(on_header.clone()).await, split(on_header).await);
    let mut arms = BTreeMap::new();
    for user in 0..24 {
        let field = format!("x-user: user-{user}");
        let first = ask(one.address, "GET /", &[&field], "").await;
        assert_eq!(field_of(&first, "x-split-arm"), body(&first));
        for gateway in [&one, &two] {
            let again = ask(gateway.address, "GET /", &[&field], "").await;
            assert_eq!(body(&again), body(&first), "{field}");
        }
        *arms.entry(body(&first).to_owned()).or_insert(0) += 1;
    }
    assert_eq!(arms.len(), 2, "{arms:?}");
}

fn field_of<'a>(answer: &'a str, name: &str) -> &'a str {
    field(answer, name).unwrap_or_default()
}

#[tokio::test]
async fn a_client_without_the_cookie_is_given_one_that_keeps_its_arm() {
    let gateway = split(json!({"split_on": {"cookie": "arm", "ttl": "1h"}})).await;
    for _ in 0..8 {
        let first = ask(gateway.address, "GET /", &[], "").await;
        let cookie = field_of(&first, "set-cookie").to_owned();
        assert!(cookie.starts_with("arm=") && cookie.contains("; Max-Age=3600; HttpOnly; SameSite=Lax"), "{cookie}");
        let cookie = format!("cookie: x=1; {}", cookie.split(';').next().unwrap());
        let again = ask(gateway.address, "GET /", &[&cookie], "").await;
        assert_eq!((body(&again), field(&again, "set-cookie")), (body(&first), None));
    }
}

#[tokio::test]
async fn a_ramp_that_is_over_leaves_its_weights_and_one_to_come_the_first_arm() {
    let arms = json!([{"upstream": "a", "weight": 0}, {"upstream": "b", "weight": 1}]);
    for (start, expected) in [("2020-01-01T00:00:00Z", "b"), ("9000-01-01T00:00:00Z", "a")] {
        let gateway = split(json!({"split": arms, "ramp": {"start": start, "duration": "1h"}})).await;
        for _ in 0..4 {
            assert_eq!(body(&ask(gateway.address, "GET /", &[], "").await), expected);
        }
    }
}

fn page(target: &str, cors: Value) -> Gateway {
    Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target]}],
        "auth": [{"name": "keys", "api_key": {}}],
        "routes": [
            {"name": "open", "match": {"path_prefix": "/open"}, "upstream": "u", "cors": cors},
            {"name": "shut", "match": {"path_prefix": "/shut", "methods": ["GET", "PUT"]}, "upstream": "u", "cors": cors,
             "auth": {"any_of": ["keys"]}, "on_stale": "allow"},
            {"name": "strict", "match": {"path_prefix": "/strict"}, "upstream": "u", "cors": cors,
             "auth": {"any_of": ["keys"]}},
            {"name": "denied", "match": {"path_prefix": "/denied"}, "upstream": "u", "cors": cors,
             "authorize": [{"deny": {}}]},
        ],
    }))
}

#[tokio::test]
async fn a_preflight_is_answered_here_and_asks_nobody_who_he_is() {
    let (target, heard) = echo().await;
    let cors = json!({
        "origins": ["https://app.acme.test", "https://*.shop.test"], "headers": ["X-V"], "expose_headers": ["x-total"],
        "credentials": true, "max_age": "10m",
    });
    let gateway = page(&target.to_string(), cors);
    let asks = |origin: &'static str| async move {
        let origin = format!("origin: {origin}");
        let fields = [&*origin, "access-control-request-method: PUT", "access-control-request-headers: x-v"];
        ask(gateway.address, "OPTIONS /shut/1", &fields, "").await
    };
    for origin in ["https://app.acme.test", "https://a.shop.test"] {
        let answer = asks(origin).await;
        assert_eq!(status(&answer), 204, "{answer}");
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-v"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(field(&answer, name), Some(value), "{answer}");
        }
        assert!(answer.contains("vary: origin"), "{answer}");
    }
    let stranger = asks("https://evil.test").await;
    assert_eq!(status(&stranger), 204);
    assert!(!stranger.contains("access-control-allow"), "{stranger}");
    assert_eq!(heard.count(), 0);
}

#[tokio::test]
async fn a_preflight_is_answered_by_a_stale_node_too_and_its_refusals_can_be_read() {
    let (target, heard) = echo().await;
    let gateway = page(&target.to_string(), json!({"origins": ["https://app.acme.test"]}));
    let origin = "origin: https://app.acme.test";
    let preflight = ask(gateway.address, "OPTIONS /strict", &[origin, "access-control-request-method: GET"], "").await;
    assert_eq!(status(&preflight), 204, "{preflight}");
    let refused = ask(gateway.address, "GET /strict", &[origin], "").await;
    check_problem(&refused, 503, "state_stale");
    assert_eq!(field(&refused, "access-control-allow-origin"), Some("https://app.acme.test"), "{refused}");
    // No preflight, for it asks for nothing.
    check_problem(&ask(gateway.address, "OPTIONS /strict", &[origin], "").await, 503, "state_stale");
    assert_eq!(heard.count(), 0);
}

#[tokio::test]
async fn answers_say_which_origin_may_see_them_and_refusals_too() {
    let target = upstream(|_| async {
        let answer = Response::builder().header("access-control-allow-origin", "*").header("vary", "accept");
        answer.body(Full::new(Bytes::from_static(b"ok"))).unwrap()
    })
    .await;
    let cors = json!({"origins": ["https://app.acme.test"], "expose_headers": ["x-total"], "credentials": true});
    let gateway = page(&target.to_string(), cors);
    for (path, expected) in [("/open", 200), ("/denied", 403)] {
        let answer = ask(gateway.address, &format!("GET {path}"), &["origin: https://app.acme.test"], "").await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert_eq!(field(&answer, "access-control-allow-origin"), Some("https://app.acme.test"), "{answer}");
        assert_eq!(field(&answer, "access-control-expose-headers"), Some("x-total"), "{answer}");
        assert_eq!(field(&answer, "access-control-allow-credentials"), Some("true"), "{answer}");
        assert_eq!(answer.matches("access-control-allow-origin").count(), 1, "{answer}");
    }
    for fields in [&["origin: https://evil.test"][..], &[]] {
        let answer = ask(gateway.address, "GET /open", fields, "").await;
        assert!(!answer.contains("access-control-") && answer.contains("vary: origin"), "{answer}");
    }
    let anyone = page(&target.to_string(), json!({"origins": ["*"]}));
    let answer = ask(anyone.address, "GET /open", &["origin: null"], "").await;
    assert_eq!(field(&answer, "access-control-allow-origin"), Some("*"));
    assert!(!answer.contains("vary: origin"), "{answer}");
}

#[tokio::test]
async fn a_mirror_hears_what_the_upstream_hears_and_the_client_never_waits_for_it() {
    let ((target, heard), (mirror, copies)) = (echo().await, echo().await);
    let gateway = Gateway::start(json!({
        "upstreams": [
            {"name": "u", "targets": [target.to_string()]}, {"name": "m", "targets": [mirror.to_string()]},
            {"name": "gone", "targets": ["127.0.0.1:1"], "retries": {"attempts": 0}},
        ],
        "routes": [
            {"name": "r", "upstream": "u", "mirror": {"upstream": "m", "body_max": 8}, "rewrite": {"path_prefix": "/v1"},
             "match": {"path_prefix": "/"}},
            {"name": "dead", "match": {"path_prefix": "/dead"}, "upstream": "u", "mirror": {"upstream": "gone"}},
        ],
    }));
    let at = gateway.address;
    assert_eq!(body(&ask(at, "GET /a?b", &[], "").await), "ok");
    until("a copy", || (copies.count() == 1).then_some(())).await;
    assert_eq!(copies.last(), heard.last());
    assert!(copies.last().starts_with("GET /v1/a?b\n"), "{}", copies.last());
    assert_eq!(body(&ask(at, "POST /c", &["content-length: 5"], "hello").await), "ok");
    until("a second copy", || (copies.count() == 2).then_some(())).await;
    assert!(copies.last().ends_with("\n\nhello"), "{}", copies.last());

    assert_eq!(body(&ask(at, "POST /d", &["content-length: 9"], "too large").await), "ok");
    let chunked = "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";
    assert_eq!(body(&ask(at, "POST /e", &["transfer-encoding: chunked"], chunked).await), "ok");
    assert_eq!(body(&ask(at, "GET /dead", &[], "").await), "ok");
    for (result, count) in [("sent", 2), ("too_large", 2), ("failed", 1), ("busy", 0), ("incomplete", 0)] {
        gateway.metric_becomes(&format!("quorumgate_mirror_total{{result=\"{result}\"}}"), count).await;
    }
    assert_eq!(copies.count(), 2);
}

#[tokio::test]
async fn rewrites_put_values_where_they_are_named() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [
            {"name": "t", "match": {"path_template": "/orders/{id}"}, "upstream": "u", "rewrite": {
                "path": "/v2/${params.id}/order",
                "query": {"set": {"from": "${client_ip}"}, "remove": ["debug"]},
                "headers": {
                    "request": {"set": {"x-was": "${method} ${scheme}://${host}${path}"}},
                    "response": {"set": {"x-asked": "${params.id} ${request_id}"}},
                }}},
            {"name": "x", "match": {"path_prefix": "/old"}, "upstream": "u",
             "rewrite": {"path_regex": {"pattern": "^/old/([0-9]+)", "to": "/new/n$1"}}},
        ],
    }));
    let answer = ask(gateway.address, "GET /orders/a%20b?debug=1&x=2&from=me", &[], "").await;
    let heard_of = heard.last();
    assert!(heard_of.starts_with("GET /v2/a%20b/order?x=2&from=127.0.0.1\n"), "{heard_of}");
    assert!(heard_of.contains("x-was: GET http://api.test/orders/a%20b\n"), "{heard_of}");
    let id = field(&answer, "x-request-id").unwrap();
    assert_eq!(field(&answer, "x-asked"), Some(&*format!("a%20b {id}")));
    for (asked, arrives) in [("/old/7/x", "/new/n7/x"), ("/old/x", "/old/x")] {
        assert_eq!(status(&ask(gateway.address, &format!("GET {asked}"), &[], "").await), 200);
        assert!(heard.last().starts_with(&format!("GET {arrives}\n")), "{}", heard.last());
    }
}

#[tokio::test]
async fn answers_are_compressed_as_the_client_likes_it() {
    let target = upstream(|_| async {
        let answer = Response::builder().header("content-type", "application/json").header("etag", "\"1\"");
        answer.body(Full::new(Bytes::from(vec![b'7'; 50_000]))).unwrap()
    })
    .await;
    let mut words = forward_all(target);
    words["routes"][0]["compression"] = json!({});
    let gateway = Gateway::start(words);
    let mut plain = field_and_size(gateway.address, "").await;
    assert_eq!((plain.0.as_str(), plain.1), ("", 50_000));
    for coding in ["gzip", "br", "zstd"] {
        plain = field_and_size(gateway.address, coding).await;
        assert_eq!(plain.0, coding);
        assert!(plain.1 < 500, "{coding}: {}", plain.1);
    }
    let head = ask(gateway.address, "HEAD /", &["accept-encoding: gzip"], "").await;
    assert_eq!((field(&head, "content-encoding"), field(&head, "vary")), (None, Some("accept-encoding")), "{head}");
}

#[tokio::test]
async fn a_small_body_that_unpacks_into_too_much_goes_nowhere() {
    use std::io::Write;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let target = upstream(move |request| {
        let heard = hears.clone();
        async move {
            // One that breaks off is not heard whole.
            if let Ok(body) = http_body_util::BodyExt::collect(request.into_body()).await {
                heard.lock().unwrap().push(body.to_bytes());
            }
            Response::new(Full::default())
        }
    })
    .await;
    let mut words = forward_all(target);
    words["routes"][0]["body"] = json!({"decompressed_max": "64KiB"});
    let gateway = Gateway::start(words);
    let packed = |bytes: usize| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'x'; bytes]).unwrap();
        encoder.finish().unwrap()
    };
    let send = async |coding: &str, body: &[u8]| {
        let length = body.len();
        let head =
            format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{coding}content-length: {length}\r\n\r\n");
        raw(gateway.address, [head.as_bytes(), body].concat()).await
    };
    let gzip = "content-encoding: gzip\r\n";
    for (coding, body) in
        [(gzip, packed(64 << 10)), ("", vec![b'x'; 100_000]), ("content-encoding: identity\r\n", vec![1; 9])]
    {
        let before = heard.lock().unwrap().len();
        assert_eq!(status(&send(coding, &body).await), 200);
        assert!(heard.lock().unwrap()[before] == body, "it is passed on as it is");
    }
    for (bytes, note) in [((64 << 10) + 1, "by a byte"), (64 << 20, "a bomb")] {
        let answer = send(gzip, &packed(bytes)).await;
        check_problem(&answer, 413, "content_too_large");
        assert!(answer.contains("unpacks"), "{note}: {answer}");
    }
    check_problem(&send(gzip, b"not packed at all").await, 400, "malformed_request");
    let other = send("content-encoding: gzip, gzip\r\n", &packed(9)).await;
    check_problem(&other, 415, "unsupported_media_type");
    assert_eq!(field(&other, "accept-encoding"), Some("gzip, deflate, br, zstd"));
    assert_eq!(heard.lock().unwrap().len(), 3);
    until("decoders to give back what they held", || {
        (gateway.metric("quorumgate_http_buffered_bytes") == 0).then_some(())
    })
    .await;
}

/// Content-Encoding, and the bytes of the body.
async fn field_and_size(address: std::net::SocketAddr, accepts: &str) -> (String, usize) {
    use http_body_util::BodyExt;
    let mut client = http2(tokio::net::TcpStream::connect(address).await.unwrap()).await;
    let request = http::Request::get("http://api.test/").header("accept-encoding", accepts);
    let response = client.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["vary"], "accept-encoding");
    let coding = response.headers().get("content-encoding").map(|it| it.to_str().unwrap().to_owned());
    assert_eq!(response.headers()["etag"], if coding.is_some() { "W/\"1\"" } else { "\"1\"" });
    let size = response.into_body().collect().await.unwrap().to_bytes().len();
    (coding.unwrap_or_default(), size)
}

#[tokio::test]
async fn security_headers_are_on_every_answer_of_the_route() {
    let upstream = upstream(|_| async {
        let answer = Response::builder().header("x-frame-options", "ALLOWALL").header("referrer-policy", "unsafe-url");
        answer.body(Full::new(Bytes::from_static(b"ok"))).unwrap()
    })
    .await;
    let mut words = forward_all(upstream);
    words["routes"][0]["security_headers"] = json!("api");
    words["routes"][0]["rewrite"] = json!({ "headers": { "response": { "set": { "referrer-policy": "origin" } } } });
    words["routes"].as_array_mut().unwrap().push(json!({
        "name": "closed", "match": { "path_prefix": "/closed" }, "upstream": "u", "security_headers": "web",
        "authorize": [{ "deny": { "methods": ["GET"] } }],
    }));
    let gateway = Gateway::start(words);
    let answer = ask(gateway.address, "GET /", &[], "").await;
    assert_eq!(status(&answer), 200);
    assert_eq!(field(&answer, "strict-transport-security"), None, "without TLS: {answer}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "origin"),
    ] {
        assert_eq!(field(&answer, name), Some(value), "{name}: {answer}");
        assert_eq!(answer.to_ascii_lowercase().matches(&format!("{name}:")).count(), 1, "{answer}");
    }
    let refused = ask(gateway.address, "GET /closed", &[], "").await;
    assert_eq!((status(&refused), field(&refused, "x-frame-options")), (403, Some("SAMEORIGIN")), "{refused}");
}

/// RFC 6797 7.2.
#[tokio::test]
async fn strict_transport_security_is_said_over_tls_alone() {
    let words = |target: SocketAddr| {
        let mut words = forward_all(target);
        words["routes"][0]["security_headers"] = json!("web");
        words["routes"].as_array_mut().unwrap().push(json!({
            "name": "own", "match": { "path_prefix": "/own" }, "upstream": "u",
            "rewrite": { "headers": { "response": { "add": { "Strict-Transport-Security": "max-age=1" } } } },
        }));
        words
    };
    const HSTS: &str = "strict-transport-security";
    let (target, _) = echo().await;
    let mut certified = certified();
    let gateway = Gateway::with(certified.settings.clone(), words(target));
    let mut client = http2(connect(gateway.address, &certified.roots, &["h2"]).await).await;
    for (path, value) in [("/", "max-age=31536000"), ("/own", "max-age=1")] {
        let answer = client.send_request(get(&format!("https://api.test{path}"))).await.unwrap();
        assert_eq!(answer.headers()[HSTS], value, "{path}");
    }

    // Without TLS, whatever a client says; behind a proxy that is trusted, as that one says.
    certified.settings.listeners[0].tls = None;
    for trusted in [false, true] {
        let networks = if trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        certified.settings.trusted_proxies = networks;
        let gateway = Gateway::with(certified.settings.clone(), words(target));
        for (path, value) in [("GET /", "max-age=31536000"), ("GET /own", "max-age=1")] {
            let secure = ask(gateway.address, path, &["x-forwarded-proto: https"], "").await;
            assert_eq!(field(&secure, HSTS), trusted.then_some(value), "{path}: {secure}");
            for fields in [&["x-forwarded-proto: http"][..], &[]] {
                let open = ask(gateway.address, path, fields, "").await;
                assert_eq!((status(&open), field(&open, HSTS)), (200, None), "{path}: {open}");
            }
        }
    }
}
