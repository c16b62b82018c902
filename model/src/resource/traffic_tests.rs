//! The words of splits, mirrors, CORS, compression and rewrites: every mistake names its field.

use serde_json::{Value, json};

use super::*;
use crate::ruleset::{Rule, Transform};

fn route(words: Value) -> Result<Route, String> {
    let mut base = json!({ "name": "r" });
    if words.get("split").is_none() {
        base["upstream"] = json!("u");
    }
    for (name, value) in words.as_object().unwrap() {
        base[name] = value.clone();
    }
    serde_json::from_value(base).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(words: Value, field: &str, mention: &str) {
    let message = route(words).unwrap_err();
    assert!(message.starts_with(&format!("{field}: found ")), "{message}");
    assert!(message.contains("; allowed: ") && message.contains(mention), "{message}");
}

#[test]
fn a_mistake_in_a_split_names_its_field() {
    let two = json!([{ "upstream": "a", "weight": 1 }, { "upstream": "b", "weight": 0 }]);
    let ramp = json!({ "start": "2026-01-01T00:00:00Z", "duration": "1h" });
    for (words, field, mention) in [
        (json!({ "split": [] }), "split", "at least one"),
        (json!({ "split": two, "upstream": "u" }), "split", "exactly one of"),
        (json!({ "split": [{ "upstream": "a", "weight": 0 }] }), "split", "at least one"),
        (json!({ "split": [{ "upstream": "a", "weight": 1_000_001 }] }), "split[0].weight", "0 to 1000000"),
        (
            json!({ "split": [{ "upstream": "a", "weight": 1 }, { "upstream": "a", "weight": 1 }] }),
            "split[1].upstream",
            "each upstream once",
        ),
        (json!({ "split": [{ "upstream": "a", "weight": 1, "from": 0 }] }), "split[0].from", "beside ramp"),
        (json!({ "split": [{ "upstream": "a", "weight": 1, "from": 0 }], "ramp": ramp }), "split", "at least one"),
        (json!({ "split_on": "ip" }), "split_on", "beside split"),
        (json!({ "ramp": ramp }), "ramp", "beside split"),
        (json!({ "split": two, "split_on": {} }), "split_on", "exactly one of header, cookie"),
        (json!({ "split": two, "split_on": { "cookie": "a b" } }), "split_on.cookie", "a cookie's name"),
        (json!({ "split": two, "split_on": { "header": "x", "ttl": "1h" } }), "split_on.ttl", "beside cookie"),
        (json!({ "split": two, "split_on": { "cookie": "a", "ttl": "0s" } }), "split_on.ttl", "1s to 365d"),
        (
            json!({ "split": two, "ramp": { "start": "2026-01-01T00:00:00Z", "duration": "0s" } }),
            "ramp.duration",
            "1s to 365d",
        ),
        (
            json!({ "split": two, "ramp": { "start": "2026-01-01T00:00:00Z", "duration": "1h", "steps": 0 } }),
            "ramp.steps",
            "1 to 1000",
        ),
    ] {
        refused(words, field, mention);
    }
    let wrong = json!({ "split": two, "ramp": { "start": "tomorrow", "duration": "1h" } });
    assert!(route(wrong).unwrap_err().contains("RFC 3339"));
}

#[test]
fn a_mistake_in_mirror_cors_or_compression_names_its_field() {
    for (words, field, mention) in [
        (json!({ "mirror": { "upstream": "m", "percent": 0 } }), "mirror.percent", "1 to 100"),
        (json!({ "mirror": { "upstream": "m", "body_max": "2MiB" } }), "mirror.body_max", "at most 1MiB"),
        (
            json!({ "upstream": null, "respond": {}, "mirror": { "upstream": "m" } }),
            "mirror",
            "beside upstream or split",
        ),
        (json!({ "cors": {} }), "cors.origins", "at least one"),
        (json!({ "cors": { "origins": ["acme.test"] } }), "cors.origins[0]", "https://app.acme.test"),
        (json!({ "cors": { "origins": ["https://a.test:443"] } }), "cors.origins[0]", "own port"),
        (json!({ "cors": { "origins": ["*", "null"] } }), "cors.origins", "* alone"),
        (json!({ "cors": { "origins": ["*"], "credentials": true } }), "cors.origins", "one by one"),
        (
            json!({ "cors": { "origins": ["null"], "credentials": true, "headers": ["*"] } }),
            "cors.headers",
            "one by one",
        ),
        (json!({ "cors": { "origins": ["null"], "headers": ["x y"] } }), "cors.headers[0]", "a header name"),
        (json!({ "cors": { "origins": ["null"], "methods": ["GET", "get"] } }), "cors.methods[1]", "each entry once"),
        (json!({ "compression": { "algorithms": [] } }), "compression.algorithms", "gzip, br, zstd"),
        (json!({ "compression": { "types": ["*/*"] } }), "compression.types[0]", "text/*"),
        (json!({ "cache": { "object_max": "5MiB" } }), "cache.object_max", "at most 4MiB"),
        (json!({ "cache": { "default_ttl": "366d" } }), "cache.default_ttl", "0s to 365d"),
        (json!({ "compression": { "types": ["text"] } }), "compression.types[0]", "text/*"),
    ] {
        refused(words, field, mention);
    }
}

#[test]
fn a_mistake_in_a_rewrite_names_its_field() {
    let template = json!({ "path_template": "/o/{id}" });
    for (rewrite, field, mention) in [
        (json!({ "path": "/a", "path_regex": { "pattern": "a", "to": "b" } }), "rewrite.path_regex", "at most one of"),
        (json!({ "path": "v2/${params.id}" }), "rewrite.path", "begin with /"),
        (json!({ "path": "/${params.name}" }), "rewrite.path", "params.id"),
        (json!({ "path": "/${cookie}" }), "rewrite.path", "client_ip"),
        (json!({ "path_regex": { "pattern": "(", "to": "/" } }), "rewrite.path_regex.pattern", "unclosed group"),
        (json!({ "path_regex": { "pattern": "a", "to": "/$1" } }), "rewrite.path_regex.to", "$0 to $0"),
        (json!({ "path_regex": { "pattern": "(?<x>a)", "to": "/${y}" } }), "rewrite.path_regex.to", "$0 to $1, x"),
        (json!({ "path_regex": { "pattern": "(a)", "to": "/$1b" } }), "rewrite.path_regex.to", "$0 to $1"),
        (json!({ "query": { "set": { "": "x" } } }), "rewrite.query.set", "at least one character"),
        (json!({ "query": { "add": { "a": "${b}" } } }), "rewrite.query.add.a", "client_ip"),
        (
            json!({ "headers": { "response": { "set": { "x-a": "${nobody}" } } } }),
            "rewrite.headers.response.set.x-a",
            "request_id",
        ),
    ] {
        refused(json!({ "match": template, "rewrite": rewrite }), field, mention);
    }
}

fn transform(words: Value) -> (Rule, Transform) {
    let mut rule = Rule::new(std::sync::Arc::new(route(words).unwrap()));
    let transform = *rule.transform.take().unwrap();
    (rule, transform)
}

#[test]
fn paths_are_rewritten_to_canonical_ones() {
    let value = |variable: &crate::template::Variable| match variable {
        crate::template::Variable::Param(_) => "a%20b".into(),
        crate::template::Variable::Path => "/o/a%20b".into(),
        _ => "x/y z".into(),
    };
    let template = json!({ "path_template": "/o/{id}" });
    for (rewrite, from, to) in [
        (json!({ "path": "/v2/${params.id}/x" }), "/o/a%20b", Ok("/v2/a%20b/x")),
        (json!({ "path": "/v2${path}" }), "/o/a%20b", Ok("/v2/o/a%20b")),
        (json!({ "path": "/${host}" }), "/o/1", Ok("/x/y%20z")),
        (json!({ "path_regex": { "pattern": "^/o/(.*)$", "to": "/new/$1" } }), "/o/1", Ok("/new/1")),
        (json!({ "path_regex": { "pattern": "^/o/(.*)$", "to": "/new/$1" } }), "/p/1", Ok("/p/1")),
        (json!({ "path_regex": { "pattern": "o", "to": ".." } }), "/a/o/b", Ok("/b")),
        (json!({ "path_regex": { "pattern": "o", "to": "" } }), "/a/o/b", Ok("/a/b")),
        (json!({ "path_regex": { "pattern": "^/", "to": "x" } }), "/a", Err(())),
    ] {
        let (_, transform) = transform(json!({ "match": template, "rewrite": rewrite }));
        let found = transform.path(from, value).unwrap().map_err(|_| ());
        assert_eq!(found.as_deref(), to.as_ref().map(|it| *it), "{rewrite}");
    }
}

#[test]
fn queries_are_edited_by_their_decoded_names() {
    let edits = json!({ "query": { "set": { "v": "2 & ${host}" }, "add": { "a b": "1" }, "remove": ["x y", "z"] } });
    let (_, transform) = transform(json!({ "rewrite": edits }));
    let value = |_: &crate::template::Variable| "h=1".into();
    for (from, to) in [
        (None, "v=2%20%26%20h%3D1&a%20b=1"),
        (Some("v=1&b=2&%76=3"), "b=2&v=2%20%26%20h%3D1&a%20b=1"),
        (Some("x+y=1&x%20y=2&z&c=%zz"), "c=%zz&v=2%20%26%20h%3D1&a%20b=1"),
    ] {
        assert_eq!(transform.query(from, value).unwrap().as_deref(), Some(to), "{from:?}");
    }
}

#[test]
fn security_headers_are_edits_of_the_answer_and_yield_to_what_the_route_says() {
    let response = |words: Value| route(words).unwrap().rewrite.headers.response;
    for preset in SecurityHeaders::ALL {
        let edits = response(json!({ "security_headers": preset.word() }));
        assert_eq!(edits.set.len(), preset.fields().len());
        for (name, value) in preset.fields() {
            assert_eq!(edits.set[*name], *value);
            assert_eq!(check::edited_header_name("set", name).unwrap(), *name, "as it is kept");
        }
        assert!(edits.set["content-security-policy"].contains("frame-ancestors"), "{preset:?}");
    }
    let own = json!({ "headers": { "response": {
        "set": { "Referrer-Policy": "same-origin" },
        "add": { "content-security-policy": "default-src 'self'" },
        "remove": ["X-Frame-Options"],
    } } });
    let edits = response(json!({ "security_headers": "api", "rewrite": own }));
    assert_eq!(
        edits.set.keys().collect::<Vec<_>>(),
        ["referrer-policy", "strict-transport-security", "x-content-type-options"]
    );
    assert_eq!(edits.set["referrer-policy"], "same-origin");
    assert_eq!((edits.add.len(), edits.remove.len()), (1, 1));
    // What the cluster keeps is read again as it was, by builds that do not know the word too.
    let made = route(json!({ "security_headers": "web" })).unwrap();
    let kept = serde_json::to_value(&made).unwrap();
    assert!(kept.get("security_headers").is_none(), "{kept}");
    assert_eq!(serde_json::from_value::<Route>(kept).unwrap(), made);
}

#[test]
fn security_headers_are_one_of_two_words_and_within_the_bound() {
    let message = route(json!({ "security_headers": "strict" })).unwrap_err();
    assert!(message.contains("strict") && message.contains("api") && message.contains("web"), "{message}");
    let full: serde_json::Map<String, Value> = (0..64).map(|i| (format!("x-{i}"), json!("1"))).collect();
    let rewrite = json!({ "headers": { "response": { "set": full } } });
    refused(json!({ "security_headers": "web", "rewrite": rewrite }), "rewrite.headers.response.set", "64");
}
