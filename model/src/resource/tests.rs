//! Words in and out: every mistake names its field, what is right survives every form.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{arbitrary, *};
use crate::{convert, units::Size};

/// `{"name": "r", "upstream": "u"}` with `words` over it.
fn with(mut base: Value, words: Value) -> Value {
    for (name, value) in words.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

fn route(words: Value) -> Result<Route, String> {
    serde_json::from_value(with(json!({ "name": "r", "upstream": "u" }), words)).map_err(|error| error.to_string())
}

fn upstream(words: Value) -> Result<Upstream, String> {
    serde_json::from_value(with(json!({ "name": "u", "targets": ["a:1"] }), words)).map_err(|error| error.to_string())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, String>, field: &str, mention: &str) {
    let message = result.unwrap_err();
    assert!(message.starts_with(&format!("{field}: found ")), "{message}");
    assert!(message.contains("; allowed: ") && message.contains(mention), "{message}");
}

#[test]
fn a_mistake_in_a_route_names_its_field_and_what_is_allowed() {
    for (words, field, mention) in [
        (json!({ "upstream": null }), "upstream", "exactly one of upstream, split, redirect, respond"),
        (json!({ "respond": {} }), "respond", "upstream and respond"),
        (json!({ "match": { "path_exact": "/a", "path_prefix": "/a" } }), "match.path_exact", "at most one of"),
        (json!({ "match": { "path_exact": "a" } }), "match.path_exact", "begins with /"),
        (json!({ "match": { "path_exact": "/a/../b" } }), "match.path_exact", "canonical form is \"/b\""),
        (json!({ "match": { "path_prefix": "/%61" } }), "match.path_prefix", "canonical form is \"/a\""),
        (json!({ "match": { "path_prefix": "//a" } }), "match.path_prefix", "canonical form is \"/a\""),
        (json!({ "match": { "path_prefix": "/{id}" } }), "match.path_prefix", "%7Bid%7D"),
        (json!({ "match": { "path_template": "/a" } }), "match.path_template", "use path_exact"),
        (json!({ "match": { "path_template": "a/{id}" } }), "match.path_template", "begins with /"),
        (json!({ "match": { "path_template": "/{a}/{a}" } }), "match.path_template", "name once"),
        (json!({ "match": { "path_template": "/x{a}" } }), "match.path_template", "whole segments"),
        (json!({ "match": { "path_template": "/{a-b}" } }), "match.path_template", "letters, digits and _"),
        (json!({ "match": { "path_template": "/../{a}" } }), "match.path_template", "canonical"),
        (json!({ "match": { "path_regex": "(" } }), "match.path_regex", "matches the whole text (unclosed group)"),
        (json!({ "match": { "path_regex": "a)|(?:b" } }), "match.path_regex", "unopened group"),
        (json!({ "match": { "path_regex": "(?x) a # b" } }), "match.path_regex", "matches the whole text"),
        (json!({ "match": { "path_regex": "(\\w{50}){50}" } }), "match.path_regex", "at most 256 KiB"),
        (json!({ "match": { "path_regex": "(?=a)" } }), "match.path_regex", "look-around"),
        (json!({ "match": { "hosts": ["a.test", "x_*"] } }), "match.hosts[1]", "*. and a host name"),
        (json!({ "match": { "hosts": ["*test"] } }), "match.hosts[0]", "*. and a host name"),
        (json!({ "match": { "hosts": ["*"] } }), "match.hosts[0]", "*. and a host name"),
        (json!({ "match": { "hosts": ["a.test:80"] } }), "match.hosts[0]", "a host name"),
        (json!({ "match": { "hosts": ["[::1]:80"] } }), "match.hosts[0]", "[2001:db8::1]"),
        (json!({ "match": { "hosts": ["::1"] } }), "match.hosts[0]", "[2001:db8::1]"),
        (json!({ "match": { "hosts": ["[::1]", "[0::1]"] } }), "match.hosts[1]", "each entry once"),
        (json!({ "match": { "hosts": ["a.test", "A.test"] } }), "match.hosts[1]", "each entry once"),
        (json!({ "match": { "sni": ["ä"] } }), "match.sni[0]", "a host name"),
        (json!({ "match": { "methods": ["GET", "G T"] } }), "match.methods[1]", "such as GET"),
        (json!({ "match": { "methods": ["get", "GET"] } }), "match.methods[1]", "each entry once"),
        (json!({ "match": { "client_cidrs": ["10.0.0.1"] } }), "match.client_cidrs[0]", "such as 10.0.0.0/8"),
        (json!({ "match": { "client_cidrs": ["10.0.0.1/8"] } }), "match.client_cidrs[0]", "10.0.0.0/8"),
        (
            json!({ "match": { "headers": [{ "name": "x y", "present": true }] } }),
            "match.headers[0].name",
            "header name",
        ),
        (json!({ "match": { "headers": [{ "name": "x" }] } }), "match.headers[0]", "exactly one of exact"),
        (
            json!({ "match": { "headers": [{ "name": "x", "present": false }] } }),
            "match.headers[0].present",
            "present: true",
        ),
        (
            json!({ "match": { "headers": [{ "name": "x", "exact": "a", "regex": "a" }] } }),
            "match.headers[0].regex",
            "exactly one",
        ),
        (
            json!({ "match": { "headers": [{ "name": "x", "exact": " a" }] } }),
            "match.headers[0].exact",
            "not around them",
        ),
        (json!({ "match": { "headers": [{ "name": "x", "regex": "[" }] } }), "match.headers[0].regex", "whole text"),
        (json!({ "match": { "query": [{ "name": "", "present": true }] } }), "match.query[0].name", "parameter's name"),
        (json!({ "match": { "query": [{ "name": "a", "regex": "*" }] } }), "match.query[0].regex", "whole text"),
        (
            json!({ "match": { "cookies": [{ "name": "a=b", "absent": true }] } }),
            "match.cookies[0].name",
            "a cookie's name",
        ),
        (json!({ "rewrite": { "path_prefix": "/v1" } }), "rewrite.path_prefix", "only with match.path_prefix or"),
        (json!({ "rewrite": { "host": "a b" } }), "rewrite.host", "preserve, target, or a host name"),
        (json!({ "rewrite": { "host": "a:x" } }), "rewrite.host", "host:port"),
        (
            json!({ "rewrite": { "headers": { "request": { "set": { "Host": "x" } } } } }),
            "rewrite.headers.request.set.Host",
            "rewrite.host",
        ),
        (
            json!({ "rewrite": { "headers": { "request": { "set": { "TE": "x" } } } } }),
            "rewrite.headers.request.set.TE",
            "does not frame",
        ),
        (
            json!({ "rewrite": { "headers": { "response": { "add": { "x": "a\nb" } } } } }),
            "rewrite.headers.response.add.x",
            "visible ASCII",
        ),
        (
            json!({ "rewrite": { "headers": { "response": { "remove": ["server", "Content-Length"] } } } }),
            "rewrite.headers.response.remove[1]",
            "does not frame",
        ),
        (
            json!({ "rewrite": { "headers": { "response": { "remove": ["proxy-connection"] } } } }),
            "rewrite.headers.response.remove[0]",
            "does not frame",
        ),
        (
            json!({ "rewrite": { "headers": { "request": { "set": { "X-A": "1", "x-a": "2" } } } } }),
            "rewrite.headers.request.set.x-a",
            "each header once",
        ),
        (json!({ "upstream": null, "redirect": {} }), "redirect", "at least one of scheme, host, port, path"),
        (json!({ "upstream": null, "redirect": { "status": 200, "path": "/" } }), "redirect.status", "301, 302"),
        (json!({ "upstream": null, "redirect": { "scheme": "ftp" } }), "redirect.scheme", "http or https"),
        (json!({ "upstream": null, "redirect": { "host": "" } }), "redirect.host", "a host name"),
        (json!({ "upstream": null, "redirect": { "port": 0 } }), "redirect.port", "1 to 65535"),
        (json!({ "upstream": null, "redirect": { "path": "a" } }), "redirect.path", "/ and then visible"),
        (json!({ "upstream": null, "respond": { "status": 100 } }), "respond.status", "200 to 599"),
        (
            json!({ "upstream": null, "respond": { "status": 204, "body": "x" } }),
            "respond.body",
            "none with status 204",
        ),
        (
            json!({ "upstream": null, "respond": { "headers": { "connection": "x" } } }),
            "respond.headers.connection",
            "does not frame",
        ),
        (json!({ "timeouts": { "total": "25h" } }), "timeouts.total", "0s or 1ms to 1d"),
        (json!({ "retries": { "attempts": 11 } }), "retries.attempts", "0 to 10"),
        (json!({ "owner": "o".repeat(257) }), "owner", "at most 256 bytes"),
        (json!({ "labels": { "": "x" } }), "labels", "at least one character"),
        (json!({ "match": { "methods": vec!["GET"; 65] } }), "match.methods", "at most 64"),
    ] {
        refused(route(words), field, mention);
    }
}

#[test]
fn a_mistake_in_an_upstream_names_its_field_and_what_is_allowed() {
    for (words, field, mention) in [
        (json!({ "targets": [] }), "targets", "at least one"),
        (json!({ "targets": ["a:1", { "address": "A:1", "weight": 2 }] }), "targets[1]", "each entry once"),
        (json!({ "health": { "path": "healthz" } }), "health.path", "begins with /"),
        (json!({ "health": { "path": "/a b" } }), "health.path", "begins with /"),
        (json!({ "health": { "path": "/", "interval": "0s" } }), "health.interval", "1ms to 1d"),
        (json!({ "health": { "path": "/", "healthy_after": 0 } }), "health.healthy_after", "1 to 100"),
        (json!({ "retries": { "attempts": 11 } }), "retries.attempts", "0 to 10"),
        (json!({ "retries": { "on": [] } }), "retries.on", "attempts: 0"),
        (json!({ "retries": { "on": ["reset", "reset"] } }), "retries.on[1]", "each entry once"),
        (json!({ "retries": { "budget_percent": 101 } }), "retries.budget_percent", "0 to 100"),
        (json!({ "timeouts": { "connect": "0s" } }), "timeouts.connect", "1ms to 1d"),
        (json!({ "timeouts": { "idle": "2d" } }), "timeouts.idle", "1ms to 1d"),
        (json!({ "targets": [{ "address": "a:1", "priority": 101 }] }), "targets[0].priority", "0 to 100"),
        (json!({ "targets": [{ "address": "a:1", "zone": "" }] }), "targets[0].zone", "a region"),
        (
            json!({ "balance": { "policy": "round_robin", "hash_on": "ip" } }),
            "balance.hash_on",
            "policy maglev or p2c_ewma",
        ),
        (json!({ "balance": { "hash_on": { "header": "a b" } } }), "balance.hash_on.header", "a header name"),
        (json!({ "outlier": { "ejection": "0s" } }), "outlier.ejection", "1ms to 1d"),
        (json!({ "outlier": { "max_ejected_percent": 101 } }), "outlier.max_ejected_percent", "0 to 100"),
        (json!({ "breaker": { "error_percent": 101 } }), "breaker.error_percent", "0 to 100"),
        (json!({ "breaker": { "min_requests": 0 } }), "breaker.min_requests", "1 to 1000000"),
        (json!({ "breaker": { "open": "0s" } }), "breaker.open", "1ms to 1d"),
        (json!({ "slow_start": "2d" }), "slow_start", "0s or 1ms to 1d"),
        (json!({ "protocol": "grpc", "proxy_protocol": "v2" }), "proxy_protocol", "protocol http1"),
        (json!({ "tls": { "server_name": "a b" } }), "tls.server_name", "a host name"),
    ] {
        refused(upstream(words), field, mention);
    }
}

#[test]
fn unknown_words_are_errors_at_every_depth() {
    for words in [
        json!({ "splits": [] }),
        json!({ "match": { "host": "a" } }),
        json!({ "match": { "headers": [{ "name": "a", "prefix": "a" }] } }),
        json!({ "rewrite": { "paths": "/" } }),
        json!({ "rewrite": { "headers": { "request": { "append": {} } } } }),
        json!({ "body": { "buffered": false } }),
        json!({ "timeouts": { "connect": "1s" } }),
        json!({ "upstream": null, "redirect": { "path": "/", "code": 301 } }),
    ] {
        assert!(route(words).unwrap_err().contains("unknown field"));
    }
    for words in [
        json!({ "tls": { "sni": "a" } }),
        json!({ "breaker": { "errors": 1 } }),
        json!({ "targets": [{ "region": "a" }] }),
    ] {
        assert!(upstream(words).unwrap_err().contains("unknown field"));
    }
}

#[test]
fn what_is_hashed_and_what_is_retried_is_one_of_a_few() {
    for on in [json!("cookie"), json!({}), json!({ "header": "a", "cookie": "b" }), json!({ "ip": true }), json!(7)] {
        assert!(upstream(json!({ "balance": { "hash_on": on } })).is_err(), "{on}");
    }
    for on in [json!("4xx"), json!("timeout"), json!(399), json!(600), json!("resets")] {
        let error = upstream(json!({ "retries": { "on": [on] } })).unwrap_err();
        assert!(error.contains("connect_failure, reset, refused_stream, 5xx"), "{error}");
    }
    let shown = upstream(json!({ "retries": { "on": ["5xx", "503", 429] } })).unwrap();
    assert_eq!(serde_json::to_value(&shown.retries.on).unwrap(), json!(["5xx", 503, 429]));
    let shown = upstream(json!({ "balance": { "hash_on": { "header": "X-User" } } })).unwrap();
    assert_eq!(serde_json::to_value(&shown.balance.hash_on).unwrap(), json!({ "header": "x-user" }));
}

#[test]
fn words_are_brought_to_one_form() {
    let words = json!({
        "match": {
            "hosts": ["API.Acme.test", "*.Shop.test"], "path_prefix": "/orders/", "methods": ["get"],
            "headers": [{ "name": "X-V", "exact": "2" }],
        },
        "rewrite": { "host": "In.Test:80", "path_prefix": "/", "headers": { "request": { "set": { "X-A": "1" } } } },
        "body": { "max": "64KiB" },
    });
    let shown = serde_json::to_value(route(words).unwrap()).unwrap();
    assert_eq!(shown["match"]["hosts"], json!(["api.acme.test", "*.shop.test"]));
    assert_eq!(shown["match"]["path_prefix"], "/orders");
    assert_eq!(shown["match"]["path_exact"], Value::Null);
    assert_eq!(shown["match"]["methods"], json!(["GET"]));
    assert_eq!(shown["match"]["headers"], json!([{ "name": "x-v", "exact": "2" }]));
    assert_eq!(shown["rewrite"]["host"], "in.test:80");
    assert_eq!(shown["rewrite"]["path_prefix"], "/");
    assert_eq!(shown["rewrite"]["headers"]["request"]["set"], json!({ "x-a": "1" }));
    assert_eq!(shown["body"]["max"], "64KiB");
}

#[test]
fn every_field_is_shown_in_the_order_of_the_documentation() {
    let shown = serde_json::to_string(&route(json!({})).unwrap()).unwrap();
    let expected = concat!(
        r#"{"name":"r","labels":{},"owner":"","description":"","priority":0,"match":{"hosts":[],"path_prefix":null,"#,
        r#""path_exact":null,"path_template":null,"path_regex":null,"methods":[],"headers":[],"query":[],"cookies":[],"#,
        r#""client_cidrs":[],"sni":[],"listeners":[]},"upstream":"u","split":null,"split_on":null,"ramp":null,"#,
        r#""redirect":null,"respond":null,"rewrite":{"host":"preserve","#,
        r#""path_prefix":null,"path":null,"path_regex":null,"query":{"set":{},"add":{},"remove":[]},"#,
        r#""headers":{"request":{"set":{},"add":{},"remove":[]},"response":{"set":{},"add":{},"#,
        r#""remove":[]}},"body":{"request":null,"response":null,"max":"1MiB"}},"#,
        r#""auth":null,"authorize":[],"on_stale":"allow","encoded_slash":"refuse","access_log":null,"#,
        r#""limits":[],"body":{"max":"10MiB","decompressed_max":"0","buffer":false},"#,
        r#""timeouts":{"total":"0s"},"retries":{"attempts":null},"#,
        r#""mirror":null,"cors":null,"compression":null,"cache":null,"policies":[]}"#
    );
    assert_eq!(shown, expected);
    assert_eq!(route(json!({ "body": { "max": 0 } })).unwrap().body.max, Size(0));
    let body = route(json!({ "body": { "decompressed_max": "64MiB" } })).unwrap().body;
    assert_eq!((body.max, body.decompressed_max), (Size(10 << 20), Size(64 << 20)));
}

#[test]
fn a_body_that_is_buffered_has_a_bound() {
    for (max, allowed) in [("1", true), ("64MiB", true), ("0", false), ("65MiB", false)] {
        let made = route(json!({ "body": { "max": max, "buffer": true } }));
        assert_eq!(made.is_ok(), allowed, "{max}");
        if let Err(message) = made {
            let message = message.to_string();
            assert!(message.starts_with("body.max: found ") && message.contains("64MiB"), "{message}");
        }
        assert!(route(json!({ "body": { "max": max } })).is_ok(), "{max}");
    }
}

#[test]
fn what_older_builds_do_not_know_asks_for_newer_ones() {
    use crate::command::{Body, ChangeResources, Expect, ResourceChange};

    let level = |it: Resource| {
        let changes = [ResourceChange { key: it.key(), after: Some(it), expect: Expect::Anything }].into();
        Body::ChangeResources(ChangeResources { changes, ..ChangeResources::default() }).min_level()
    };
    let policy = |words| Resource::Policy(Arc::new(serde_json::from_value(words).unwrap()));
    assert_eq!(level(policy(json!({ "name": "p", "ip": { "deny": ["10.0.0.0/8"] } }))), 1);
    assert_eq!(level(policy(json!({ "name": "p", "json": {} }))), 3);
    assert_eq!(level(policy(json!({ "name": "p", "version": { "api": "a", "version": "v1" } }))), 4);
    assert_eq!(level(Resource::Route(Arc::new(route(json!({})).unwrap()))), 1);
    let unpacking = route(json!({ "body": { "decompressed_max": "64MiB" } })).unwrap();
    assert_eq!(level(Resource::Route(Arc::new(unpacking))), 3);
    let bound = route(json!({ "match": { "listeners": ["l"] } })).unwrap();
    assert_eq!(level(Resource::Route(Arc::new(bound))), 5);
    let rewriting = route(json!({ "rewrite": { "body": { "request": "[${body}]" } } })).unwrap();
    assert_eq!(level(Resource::Route(Arc::new(rewriting))), 5);
    let buffering = route(json!({ "body": { "buffer": true }, "match": { "listeners": ["l"] } })).unwrap();
    assert_eq!(level(Resource::Route(Arc::new(buffering))), 6);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn resources_survive_words_and_messages(resource in arbitrary::resource()) {
        let words = serde_json::to_string(&resource).unwrap();
        let again = resource.kind().parse(serde_json::from_str(&words).unwrap()).unwrap();
        prop_assert_eq!(&again, &resource);

        let message = convert::resource_to(&resource);
        let again = convert::resource_from(message.clone()).unwrap();
        prop_assert_eq!(&again, &resource);
        prop_assert_eq!(convert::resource_to(&again), message);
    }
}
