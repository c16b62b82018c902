//! Which request goes where, and how it looks when it gets there.

use crate::support::*;
use serde_json::json;

#[tokio::test]
async fn a_request_reaches_its_upstream_and_the_answer_comes_back() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let answer = ask(gateway.address, "POST /a?b=c", &["content-length: 5"], "hello").await;
    assert_eq!((status(&answer), body(&answer)), (200, "ok"), "{answer}");
    assert_eq!(field(&answer, "via"), Some("1.1 quorumgate"));
    let heard = heard.last();
    assert!(heard.starts_with("POST /a?b=c\n") && heard.ends_with("\n\nhello"), "{heard}");
    for line in ["content-length: 5", "host: api.test", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"] {
        assert!(heard.lines().any(|it| it == line), "{line} in {heard}");
    }
    let id = field(&answer, "x-request-id").unwrap();
    assert!(heard.contains(&format!("x-request-id: {id}\n")), "{heard}");
    assert!(heard.contains("traceparent: 00-") && heard.contains("via: 1.1 quorumgate"), "{heard}");
    gateway.metric_becomes("quorumgate_http_requests_total{route=\"all\",method=\"POST\",code=\"200\"}", 1).await;
}

#[tokio::test]
async fn refusals_are_problems_with_the_request_id() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [
            {"name": "orders", "match": {"path_prefix": "/orders", "methods": ["GET", "POST"]}, "upstream": "u"},
            {"name": "strict", "match": {"path_prefix": "/strict"}, "upstream": "u", "on_stale": "deny"},
            {"name": "slash", "match": {"path_prefix": "/slash"}, "upstream": "u", "encoded_slash": "preserve"},
        ],
    }));
    let at = gateway.address;
    check_problem(&ask(at, "GET /nowhere", &[], "").await, 404, "no_route");
    let not_allowed = ask(at, "DELETE /orders/1", &[], "").await;
    check_problem(&not_allowed, 405, "method_not_allowed");
    let allow: Vec<&str> = field(&not_allowed, "allow").unwrap().split(", ").collect();
    assert!(allow.contains(&"GET") && allow.contains(&"POST") && !allow.contains(&"DELETE"), "{allow:?}");
    check_problem(&ask(at, "GET /orders/a%2fb", &[], "").await, 400, "bad_path");
    check_problem(&ask(at, "GET /orders/%00", &[], "").await, 400, "bad_path");
    let stale = ask(at, "GET /strict", &[], "").await;
    check_problem(&stale, 503, "state_stale");
    assert!(field(&stale, "retry-after").is_some());
    assert_eq!(heard.count(), 0);

    gateway.freshness.extend(u64::MAX);
    assert_eq!(status(&ask(at, "GET /strict", &[], "").await), 200);
    assert_eq!(status(&ask(at, "GET /slash/a%2fb", &[], "").await), 200);
    assert!(heard.last().starts_with("GET /slash/a%2Fb\n"), "{}", heard.last());
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"bad_path\"}"), 2);
}

#[tokio::test]
async fn paths_are_canonical_where_they_arrive() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    for (sent, arrives) in [
        ("/a/../b", "/b"),
        ("/a//b", "/a/b"),
        ("/%61?x=%61", "/a?x=%61"),
        ("/a/./b/", "/a/b/"),
        ("http://api.test/abs?q", "/abs?q"),
    ] {
        let answer = ask(gateway.address, &format!("GET {sent}"), &[], "").await;
        assert_eq!(status(&answer), 200, "{answer}");
        let line = heard.last().lines().next().unwrap().to_string();
        assert_eq!(line, format!("GET {arrives}"), "{sent}");
    }
}

#[tokio::test]
async fn rewrites_change_path_host_and_fields() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [
            {"name": "a", "match": {"path_prefix": "/api"}, "upstream": "u", "rewrite": {
                "host": "inner.test", "path_prefix": "/v1", "headers": {
                    "request": {"set": {"x-set": "1"}, "add": {"x-add": "2"}, "remove": ["x-gone", "x-set"]},
                    "response": {"set": {"x-answer": "3"}},
                }}},
            {"name": "t", "match": {"path_prefix": "/target"}, "upstream": "u", "rewrite": {"host": "target"}},
        ],
    }));
    let fields = ["x-set: old", "x-add: 0", "x-gone: x"];
    let answer = ask(gateway.address, "GET /api/x?y", &fields, "").await;
    assert_eq!(field(&answer, "x-answer"), Some("3"), "{answer}");
    let text = heard.last();
    assert!(text.starts_with("GET /v1/x?y\n"), "{text}");
    for line in ["host: inner.test", "x-set: 1", "x-add: 0", "x-add: 2", "x-forwarded-host: api.test"] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
    assert!(!text.contains("x-gone") && !text.contains("x-set: old"), "{text}");

    ask(gateway.address, "GET /target", &[], "").await;
    assert!(heard.last().contains(&format!("host: {target}\n")), "{}", heard.last());
}

#[tokio::test]
async fn redirects_and_own_answers_need_no_upstream() {
    let gateway = Gateway::start(json!({"routes": [
        {"name": "r", "match": {"path_prefix": "/old"}, "redirect": {"status": 301, "scheme": "https"}},
        {"name": "p", "match": {"path_exact": "/moved"}, "redirect": {"path": "/new"}},
        {"name": "s", "match": {"path_exact": "/teapot"},
         "respond": {"status": 418, "body": "short", "headers": {"x-tea": "1"}}},
    ]}));
    let at = gateway.address;
    let moved = ask(at, "GET /old/x?y=1", &[], "").await;
    assert_eq!((status(&moved), field(&moved, "location")), (301, Some("https://api.test/old/x?y=1")), "{moved}");
    let moved = ask(at, "GET /moved?z", &[], "").await;
    assert_eq!((status(&moved), field(&moved, "location")), (308, Some("http://api.test/new?z")), "{moved}");
    let tea = ask(at, "GET /teapot", &[], "").await;
    assert_eq!((status(&tea), body(&tea), field(&tea, "x-tea")), (418, "short", Some("1")), "{tea}");
    let head = ask(at, "HEAD /teapot", &[], "").await;
    assert_eq!((status(&head), body(&head), field(&head, "content-length")), (418, "", Some("5")), "{head}");
}

#[tokio::test]
async fn fields_of_one_hop_stay_on_it() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let fields = [
        "connection: x-private, authorization, x-forwarded-for",
        "x-private: 1",
        "authorization: Bearer t",
        "keep-alive: timeout=9",
        "proxy-connection: keep-alive",
        "te: trailers",
        "accept: */*",
    ];
    ask(gateway.address, "GET /", &fields, "").await;
    let text = heard.last();
    for gone in ["x-private", "keep-alive", "proxy-connection"] {
        assert!(!text.contains(&format!("\n{gone}: ")), "{gone} in {text}");
    }
    for kept in ["authorization: Bearer t", "te: trailers", "accept: */*", "x-forwarded-for: 127.0.0.1"] {
        assert!(text.lines().any(|it| it == kept), "{kept} in {text}");
    }
}

#[tokio::test]
async fn only_trusted_peers_say_who_the_client_is() {
    let (target, heard) = echo().await;
    let id = "018f2d3c-7b1a-7c3d-8e4f-0123456789ab";
    let fields = ["x-forwarded-for: 6.6.6.6, 192.0.2.1", "x-forwarded-proto: https", &format!("x-request-id: {id}")];

    let gateway = Gateway::start(forward_all(target));
    ask(gateway.address, "GET /", &fields, "").await;
    let text = heard.last();
    assert!(text.contains("x-forwarded-for: 127.0.0.1\n") && text.contains("x-forwarded-proto: http\n"), "{text}");
    assert!(!text.contains(id), "{text}");

    let mut trusting = settings();
    trusting.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let gateway = Gateway::with(
        trusting,
        json!({
            "upstreams": [{"name": "u", "targets": [target.to_string()]}],
            "routes": [{"name": "c", "match": {"path_prefix": "/", "client_cidrs": ["192.0.2.0/24"]}, "upstream": "u"}],
        }),
    );
    let answer = ask(gateway.address, "GET /", &fields, "").await;
    assert_eq!(field(&answer, "x-request-id"), Some(id), "{answer}");
    let text = heard.last();
    assert!(text.contains("x-forwarded-proto: https\n"), "{text}");
    assert!(text.contains("x-forwarded-for: 6.6.6.6, 192.0.2.1, 127.0.0.1\n"), "{text}");
    assert_eq!(status(&ask(gateway.address, "GET /", &["x-forwarded-for: 10.9.9.9"], "").await), 404);

    // A proxy that says it by another field has looked at no other.
    let mut trusting = settings();
    trusting.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    trusting.trusted_field = quorumgate_proxy::TrustedField::Forwarded;
    let gateway = Gateway::with(trusting, forward_all(target));
    ask(gateway.address, "GET /", &["x-forwarded-for: 6.6.6.6", "forwarded: for=192.0.2.1"], "").await;
    let text = heard.last();
    assert!(text.contains("x-forwarded-for: 192.0.2.1, 127.0.0.1\n"), "{text}");
    let forged = ["x-forwarded-proto: gopher", "x-forwarded-host: evil.test"];
    for (said, proto, host) in [
        ("forwarded: for=192.0.2.1", "http", "api.test"),
        ("forwarded: for=192.0.2.1;proto=https;host=front.test", "https", "front.test"),
    ] {
        ask(gateway.address, "GET /", &[forged[0], forged[1], said], "").await;
        let text = heard.last();
        for line in [format!("x-forwarded-proto: {proto}"), format!("x-forwarded-host: {host}")] {
            assert!(text.lines().any(|it| it == line), "{line} in {text}");
        }
        assert!(!text.contains("gopher") && !text.contains("evil.test"), "{text}");
    }
}

#[tokio::test]
async fn a_published_ruleset_serves_the_next_request() {
    let gateway = Gateway::start(json!({}));
    assert_eq!(status(&ask(gateway.address, "GET /", &[], "").await), 404);
    let text = |body: &str| {
        rules(json!({"routes": [{"name": "r", "match": {"path_prefix": "/"}, "respond": {"body": body}}]}))
    };
    for round in 0..20 {
        gateway.proxy.publish(text(&round.to_string()));
        assert_eq!(body(&ask(gateway.address, "GET /", &[], "").await), round.to_string());
    }
    gateway.proxy.publish(rules(json!({})));
    assert_eq!(status(&ask(gateway.address, "GET /", &[], "").await), 404);
    until("counters of a deleted route are gone", || (!gateway.metrics().contains("route=\"r\"")).then_some(())).await;
}

#[tokio::test]
async fn grpc_is_refused_in_its_own_way() {
    let gateway = Gateway::start(json!({}));
    let answer =
        ask(gateway.address, "POST /p.S/M", &["content-type: application/grpc+proto", "content-length: 0"], "").await;
    assert_eq!((status(&answer), field(&answer, "grpc-status")), (200, Some("12")), "{answer}");
    assert!(field(&answer, "grpc-message").is_some() && body(&answer).is_empty(), "{answer}");
}

/// RFC 9110 9.3.7: about the server as a whole, which is this one.
#[tokio::test]
async fn options_of_the_whole_server_are_the_gateways_own() {
    let (target, heard) = echo().await;
    let gateway = Gateway::start(forward_all(target));
    let answer = ask(gateway.address, "OPTIONS *", &[], "").await;
    assert_eq!((status(&answer), body(&answer)), (204, ""), "{answer}");
    assert!(field(&answer, "allow").unwrap().contains("GET"), "{answer}");
    check_problem(&ask(gateway.address, "GET *", &[], "").await, 400, "bad_path");
    assert_eq!(heard.count(), 0);
    assert_eq!(status(&ask(gateway.address, "OPTIONS /", &[], "").await), 200);
}

#[tokio::test]
async fn an_authority_is_the_same_with_its_default_port_and_in_any_spelling_of_ipv6() {
    let (target, _) = echo().await;
    let gateway = Gateway::start(json!({
        "upstreams": [{"name": "u", "targets": [target.to_string()]}],
        "routes": [{"name": "v6", "match": {"hosts": ["[::1]", "api.test"], "path_prefix": "/"}, "upstream": "u"}],
    }));
    for (line, host, expected) in [
        ("GET / HTTP/1.1", "[::1]", 200),
        ("GET / HTTP/1.1", "[0:0::1]:8080", 200),
        ("GET / HTTP/1.1", "[::2]", 404),
        ("GET http://api.test:80/ HTTP/1.1", "api.test", 200),
        ("GET http://api.test/ HTTP/1.1", "API.test:80", 200),
        ("GET https://api.test:443/ HTTP/1.1", "api.test", 200),
        ("GET http://[0::1]/ HTTP/1.1", "[::1]:80", 200),
        ("GET http://api.test:443/ HTTP/1.1", "api.test", 400),
        ("GET http://api.test:8080/ HTTP/1.1", "api.test", 400),
        ("GET http://other.test/ HTTP/1.1", "api.test", 400),
    ] {
        let request = format!("{line}\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        assert_eq!(status(&raw(gateway.address, request).await), expected, "{line} with {host}");
    }
}

#[tokio::test]
async fn a_path_is_never_redirected_to_as_a_host() {
    let mut keeping = settings();
    keeping.listeners[0].merge_slashes = false;
    let gateway = Gateway::with(
        keeping,
        json!({"routes": [{"name": "r", "match": {"path_prefix": "/"}, "redirect": {"status": 302, "scheme": "https"}}]}),
    );
    let answer = raw(gateway.address, "GET //evil.test/x HTTP/1.0\r\n\r\n").await;
    assert_eq!(field(&answer, "location"), Some("/.//evil.test/x"), "{answer}");
    let answer = raw(gateway.address, "GET /x HTTP/1.0\r\n\r\n").await;
    assert_eq!(field(&answer, "location"), Some("/x"), "{answer}");
}

#[tokio::test]
async fn addresses_that_a_policy_shuts_out_are_told_so_before_anything_else() {
    let (address, heard) = echo().await;
    let mut words = forward_all(address);
    words["policies"] = json!([
        {"name": "us", "ip": {"allow": ["127.0.0.0/8"]}},
        {"name": "them", "ip": {"allow": ["10.0.0.0/8", "2001:db8::/32"]}},
        {"name": "nobody", "ip": {"deny": ["127.0.0.1"]}},
    ]);
    let route = |prefix: &str, policies: &[&str]| {
        json!({"name": prefix[1..], "match": {"path_prefix": prefix}, "upstream": "u", "policies": policies,
               "cors": {"origins": ["https://a.test"]}})
    };
    let routes = words["routes"].as_array_mut().unwrap();
    routes.push(route("/us", &["us"]));
    routes.push(route("/them", &["them"]));
    routes.push(route("/nobody", &["us", "nobody"]));
    let gateway = Gateway::start(words);
    let at = gateway.address;
    assert_eq!(status(&ask(at, "GET /us", &[], "").await), 200);
    for path in ["/them", "/nobody"] {
        check_problem(&ask(at, &format!("GET {path}"), &[], "").await, 403, "ip_denied");
        let preflight = ["origin: https://a.test", "access-control-request-method: GET"];
        assert_eq!(status(&ask(at, &format!("OPTIONS {path}"), &preflight, "").await), 403, "{path}");
    }
    // What a client says of itself counts for nothing.
    check_problem(&ask(at, "GET /them", &["x-forwarded-for: 10.0.0.1"], "").await, 403, "ip_denied");
    assert_eq!(gateway.metric("quorumgate_rejects_total{reason=\"ip_denied\"}"), 5);
    assert_eq!(heard.count(), 1);

    let trusting = quorumgate_proxy::Settings { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..settings() };
    let mut words = forward_all(address);
    words["policies"] = json!([{"name": "them", "ip": {"allow": ["10.0.0.0/8"], "deny": ["10.6.6.0/24"]}}]);
    words["routes"][0]["policies"] = json!(["them"]);
    let gateway = Gateway::with(trusting, words);
    for (said, expected) in [("10.0.0.1", 200), ("10.6.6.1", 403), ("::ffff:10.0.0.1", 200), ("::1", 403)] {
        let answer = ask(gateway.address, "GET /", &[&format!("x-forwarded-for: {said}")], "").await;
        assert_eq!(status(&answer), expected, "{said}");
    }
}
