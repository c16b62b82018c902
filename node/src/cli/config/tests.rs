//! Errors as operators see them, word for word; and the form held against the model.

use std::collections::BTreeSet;

use quorumgate_model::resource::{Kind, Resource};
use serde_json::{Value as Json, json};

use super::{
    Config, canonical, form, load_one, resource, schema,
    source::Source,
    tree::{Node, Value},
};
use crate::cli::{
    failure::{Exit, Failure},
    status::Violation,
};

fn source(text: &str) -> Source {
    Source { name: "shop.yaml".into(), path: None, text: text.into() }
}

/// The whole message of a file that is refused.
fn check(text: &str, expected: &str) {
    let failure = Config::parse(vec![source(text)]).expect_err("it should be refused");
    assert_eq!(failure.exit, Exit::Invalid);
    assert_eq!(failure.to_string(), expected.trim_end(), "\n{failure}\n");
}

fn example(name: &str) -> Source {
    let path = format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    Source { name: name.into(), path: Some(path.into()), text }
}

#[test]
fn an_unknown_field_is_named_with_its_nearest() {
    check(
        "routes:\n  - name: orders\n    upstrem: orders-svc\n    upstream: x\n",
        "\
error[invalid]: unknown field `upstrem` in routes[0]
 --> shop.yaml:3:5
  |
3 |     upstrem: orders-svc
  |     ^^^^^^^
help: did you mean `upstream`? allowed: name, labels, owner, description, priority, match, upstream, split, split_on, \
ramp, redirect, respond, rewrite, security_headers, auth, authorize, on_stale, encoded_slash, access_log, limits, body, timeouts, retries, \
mirror, cors, compression, cache, policies",
    );
}

#[test]
fn an_unknown_kind_is_named_with_its_nearest() {
    check(
        "rotes: []\n",
        "\
error[invalid]: unknown kind `rotes`
 --> shop.yaml:1:1
  |
1 | rotes: []
  | ^^^^^
help: did you mean `routes`? allowed: upstreams, routes, consumers, auth, certificate_authorities, limits, \
certificates, listeners, policies, tenants, guardrails",
    );
}

#[test]
fn a_wrong_word_of_an_enum_says_which_are_allowed() {
    check(
        "routes:\n- {name: a, upstream: x, on_stale: alow}\n",
        "\
error[invalid]: routes[0].on_stale: found \"alow\"; allowed: deny, allow
 --> shop.yaml:2:36
  |
2 | - {name: a, upstream: x, on_stale: alow}
  |                                    ^^^^
help: did you mean `allow`?",
    );
}

#[test]
fn a_bad_duration_says_how_to_write_one() {
    check(
        "upstreams:\n- name: a\n  targets: [127.0.0.1:80]\n  timeouts: {connect: 5 sec}\n",
        "\
error[invalid]: upstreams[0].timeouts.connect: found \"5 sec\"; allowed: a whole number and a unit of us, ms, s, m, h or \
d, such as 250ms
 --> shop.yaml:4:23
  |
4 |   timeouts: {connect: 5 sec}
  |                       ^^^^^",
    );
}

#[test]
fn two_forms_of_a_path_are_one_too_many() {
    check(
        "routes:\n- name: a\n  match:\n    path_prefix: /a\n    path_exact: /b\n  upstream: x\n",
        "\
error[invalid]: routes[0].match.path_exact: found path_prefix and path_exact; allowed: at most one of path_prefix, \
path_exact, path_template, path_regex
 --> shop.yaml:5:17
  |
5 |     path_exact: /b
  |                 ^^",
    );
}

#[test]
fn a_name_that_is_written_twice_is_shown_at_both_places() {
    check(
        "routes:\n- {name: a, upstream: x}\n---\nroutes:\n- {name: a, upstream: y}\n",
        "\
error[invalid]: routes: the route \"a\" is written twice
 --> shop.yaml:5:10
  |
5 | - {name: a, upstream: y}
  |          ^
help: the other one is at shop.yaml:2",
    );
}

#[test]
fn every_mistake_of_a_file_is_found_at_once() {
    let text = "upstreams:\n- {name: A, targets: nine}\n- 7\nroutes:\n- {nmae: a}\n- {name: b, priority: high}\n";
    let failure = Config::parse(vec![source(text), source("a: [")]).unwrap_err();
    let lines: Vec<&str> = failure.problems.iter().map(|it| it.message.as_str()).collect();
    let expected = [
        "upstreams[0].name: found \"A\"; allowed: a lower-case letter or digit, then at most 62 of a-z 0-9 . _ -",
        "upstreams[0].targets: found \"nine\"; allowed: a list",
        "upstreams[1]: found 7; allowed: a map of name, labels, owner, description, targets, protocol, tls, balance, \
         health, retries, timeouts, outlier, breaker, slow_start, proxy_protocol, auth",
        "unknown field `nmae` in routes[0]",
        "routes[0].name: it is missing",
        "routes[1].priority: found \"high\"; allowed: a whole number from -2147483648 to 2147483647",
    ];
    assert_eq!(lines[..expected.len()], expected);
    assert_eq!(lines.len(), expected.len() + 1, "the second file is no YAML: {lines:?}");
}

#[test]
fn no_line_of_what_is_no_yaml_is_shown_as_it_may_hold_a_secret() {
    let failure = Config::parse(vec![source("password: hunter1\npassword: hunter2\n")]).unwrap_err();
    let shown = failure.to_string();
    assert!(shown.contains(" --> shop.yaml:2:") && !shown.contains("hunter"), "{shown}");
}

#[test]
fn two_routes_that_take_the_same_requests_are_both_named() {
    let text = "routes:\n- {name: a, upstream: x, match: {path_prefix: /p}}\n- {name: b, upstream: y, match: {path_prefix: /p}}\n";
    let failure = Config::parse(vec![source(text)]).unwrap().check_together().unwrap_err();
    assert_eq!(failure.problems.len(), 1);
    assert_eq!(failure.problems[0].message, "routes a and b take the same requests");
    assert!(failure.problems[0].place.contains("shop.yaml:3"));
}

#[test]
fn the_servers_complaints_are_shown_at_their_lines() {
    let text = "routes:\n- name: a.b\n  match:\n    path_prefix: /p\n  upstream: missing\n";
    let config = Config::parse(vec![source(text)]).unwrap();
    let check = |field: &str, line: &str| {
        let complaint = Violation { field: field.into(), message: "found it; allowed: another".into() };
        let failure = config.locate(Failure::new(Exit::Invalid, "no"), &[complaint]);
        assert!(failure.problems[0].place.contains(line), "{field}: {failure}");
        assert!(failure.problems[0].message.starts_with(field), "{failure}");
    };
    check("routes[0].upstream", "shop.yaml:5:13");
    check("routes/a.b.match.path_prefix", "shop.yaml:4:18");
    check("route/a.b.match.hosts[3]", "shop.yaml:4:5");
    check("routes/other.upstream", "");
}

#[test]
fn what_only_the_model_finds_is_shown_at_its_line_too() {
    let check = |text: &str, field: &str, line: &str| {
        let failure = Config::parse(vec![source(text)]).expect_err("it should be refused");
        assert_eq!(failure.problems.len(), 1, "{failure}");
        assert!(failure.problems[0].message.starts_with(&format!("{field}: found ")), "{failure}");
        assert!(failure.problems[0].place.contains(line), "{failure}");
    };
    check(
        "routes:\n- name: a\n  upstream: x\n  rewrite:\n    headers:\n      request:\n        set:\n          X-From: \"a\\nb\"\n",
        "routes[0].rewrite.headers.request.set.X-From",
        "shop.yaml:8:19",
    );
    check(
        "policies:\n- name: a\n  ip:\n    deny_countries:\n    - DE\n    - XYZ\n",
        "policies[0].ip.deny_countries[1]",
        "shop.yaml:6:7",
    );
    check(
        "upstreams:\n- name: a\n  targets: [127.0.0.1:80]\n  balance:\n    policy: maglev\n    hash_on: {}\n",
        "upstreams[0].balance.hash_on",
        "shop.yaml:6:14",
    );
    check(
        "routes:\n- name: a\n  upstream: x\n  body:\n    max: 0\n    buffer: true\n",
        "routes[0].body.max",
        "shop.yaml:5:10",
    );
}

#[test]
fn numbers_in_text_fields_keep_their_spelling() {
    let text = "routes:\n- {name: a, upstream: x, labels: {version: 1.10, on: true, id: 007}}\n";
    let config = Config::parse(vec![source(text)]).unwrap();
    let Some(Resource::Route(route)) = config.resources().next() else { panic!("one route") };
    assert_eq!(json!(route.labels), json!({ "id": "007", "on": "true", "version": "1.10" }));
}

#[test]
fn one_object_may_be_given_alone_or_as_a_file() {
    let bare = load_one(Kind::Route, "a", source("upstream: x\nmatch: {path_exact: /}\n")).unwrap();
    let whole =
        load_one(Kind::Route, "a", source("routes: [{name: a, upstream: x, match: {path_exact: /}}]\n")).unwrap();
    assert_eq!(bare, whole);
    assert_eq!(load_one(Kind::Route, "b", source("name: a\nupstream: x\n")).unwrap_err().exit, Exit::Usage);
    assert_eq!(load_one(Kind::Route, "b", source("upstrem: x\n")).unwrap_err().exit, Exit::Invalid);
}

#[test]
fn the_canonical_file_is_a_fixed_point_and_loses_nothing() {
    for name in ["demo.yaml", "every-field.yaml"] {
        let config = Config::parse(vec![example(name)]).unwrap_or_else(|failure| panic!("{failure}"));
        let once = canonical::file(config.resources()).unwrap();
        let again = Config::parse(vec![source(&once)]).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(canonical::file(again.resources()).unwrap(), once);
        let sorted = |config: &Config| {
            let mut all: Vec<Resource> = config.resources().cloned().collect();
            all.sort_by_key(Resource::key);
            all
        };
        assert_eq!(sorted(&again), sorted(&config));
    }
}

fn with_client(url: &str) -> Json {
    json!({ url: "https://i.test/", "client_id": "c", "client_secret": "sealed:0123456789abcdef" })
}

#[test]
fn the_forms_defaults_are_the_models() {
    let minimal = [
        (Kind::Upstream, json!({ "name": "a", "targets": ["127.0.0.1:80"], "health": { "path": "/" } })),
        (Kind::Upstream, json!({ "name": "a", "targets": ["127.0.0.1:80"], "tls": {}, "breaker": {} })),
        (Kind::Route, json!({ "name": "a", "upstream": "x" })),
        (
            Kind::Route,
            json!({ "name": "a", "upstream": "x", "compression": {}, "cache": {}, "mirror": { "upstream": "y" } }),
        ),
        (Kind::Route, json!({ "name": "a", "split": [{ "upstream": "x", "weight": 1 }], "split_on": "ip" })),
        (Kind::Route, json!({ "name": "a", "upstream": "x", "cors": { "origins": ["*"] } })),
        (Kind::Route, json!({ "name": "a", "redirect": { "host": "x" } })),
        (Kind::Route, json!({ "name": "a", "respond": {} })),
        (
            Kind::Route,
            json!({ "name": "a", "upstream": "x", "auth": { "any_of": ["k"] }, "authorize": [{ "allow": {} }] }),
        ),
        (Kind::Consumer, json!({ "name": "a" })),
        (Kind::Auth, json!({ "name": "a", "api_key": {} })),
        (
            Kind::Auth,
            json!({ "name": "a", "jwt": { "issuer": "i", "audience": ["a"], "jwks_url": "https://i.test/" } }),
        ),
        (Kind::Auth, json!({ "name": "a", "basic": {} })),
        (Kind::Auth, json!({ "name": "a", "mtls": { "ca": "x" } })),
        (Kind::Auth, json!({ "name": "a", "signature": {} })),
        (Kind::Auth, json!({ "name": "a", "introspection": with_client("endpoint") })),
        (Kind::Auth, json!({ "name": "a", "oidc_login": with_client("issuer") })),
        (Kind::Auth, json!({ "name": "a", "client_credentials": with_client("token_endpoint") })),
        (Kind::Auth, json!({ "name": "a", "upstream_key": { "key": "sealed:0123456789abcdef" } })),
        (Kind::Limit, json!({ "name": "a", "per": "global", "limit": 5, "window": "1m" })),
        (
            Kind::Certificate,
            json!({ "name": "a", "chain": include_str!("../../../../examples/files/acme.pem"), "key": "sealed:0123456789abcdef" }),
        ),
        (Kind::Listener, json!({ "name": "a", "address": "127.0.0.1:80", "protocol": "http" })),
        (Kind::Policy, json!({ "name": "a", "ip": { "deny": ["10.0.0.0/8"] } })),
        (Kind::Policy, json!({ "name": "a", "json": {} })),
        (Kind::Policy, json!({ "name": "a", "xml": {} })),
        (Kind::Policy, json!({ "name": "a", "multipart": {} })),
        (Kind::Policy, json!({ "name": "a", "graphql": {} })),
        (Kind::Policy, json!({ "name": "a", "injection": { "exceptions": [{}] } })),
        (Kind::Policy, json!({ "name": "a", "version": { "api": "a", "version": "v1" } })),
        (Kind::Policy, json!({ "name": "a", "bot": {} })),
        (Kind::Policy, json!({ "name": "a", "portal": { "keys": {} } })),
        (Kind::Policy, json!({ "name": "a", "anomaly": { "over": { "failures": 1 } } })),
        (Kind::Policy, json!({ "name": "a", "contract": { "operations": [{ "method": "GET", "path": "/" }] } })),
        (
            Kind::Policy,
            json!({ "name": "a", "ai": { "provider": "openai", "models": [{ "name": "m", "targets": [{ "model": "m" }] }] } }),
        ),
        (Kind::Tenant, json!({ "name": "a" })),
        (Kind::Guardrail, json!({ "name": "a", "require": "true", "message": "m" })),
    ];
    for (kind, words) in minimal {
        let resource = resource(kind, words.clone()).unwrap();
        assert_eq!(canonical::words(&resource).unwrap(), words, "the canonical form leaves defaults out");
        let complete = canonical::complete(&resource).unwrap();
        assert_eq!(canonical::words(&self::resource(kind, complete).unwrap()).unwrap(), words);
    }
}

/// Every key of every map of a form, as `routes.match.hosts`; names of files are never the model's.
fn fields(object: &'static form::Object, path: &str, out: &mut BTreeSet<String>) {
    for field in object.fields.iter().filter(|field| !matches!(field.form, form::Form::FileOf(..))) {
        let here = format!("{path}.{}", field.name);
        if let Some(inner) = field.form.object() {
            fields(inner, &here, out);
        }
        out.insert(here);
    }
}

fn keys(json: &Json, object: &'static form::Object, path: &str, out: &mut BTreeSet<String>) {
    for (key, value) in json.as_object().into_iter().flatten() {
        let here = format!("{path}.{key}");
        let field = object.field(key).unwrap_or_else(|| panic!("{here} is not in the form"));
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        if let Some(inner) = field.form.object() {
            values.iter().for_each(|value| keys(value, inner, &here, out));
        }
        out.insert(here);
    }
}

/// What the model makes other words of: it is in files, and never in what is shown.
const ONLY_READ: [&str; 1] = ["routes.security_headers"];

/// Every key that is written in the file itself.
fn keys_of_file(node: &Node, object: &'static form::Object, path: &str, out: &mut BTreeSet<String>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| keys_of_file(item, object, path, out)),
        Value::Map(fields) => {
            for (key, value) in fields {
                let here = format!("{path}.{}", key.text);
                if let Some(inner) = object.field(&key.text).and_then(|field| field.form.object()) {
                    keys_of_file(value, inner, &here, out);
                }
                out.insert(here);
            }
        }
        _ => {}
    }
}

/// The words that the model takes beside those of `words`, at each map in it, as it says itself when it is given another.
fn read_by_model(kind: Kind, words: &Json, check: &mut impl FnMut(&str, &'static form::Object, &[&str])) {
    const OTHER: &str = "no such word";
    fn maps(json: &Json, object: &'static form::Object, pointer: &str, out: &mut Vec<(String, &'static form::Object)>) {
        match json {
            Json::Array(items) => {
                items.iter().enumerate().for_each(|(at, item)| maps(item, object, &format!("{pointer}/{at}"), out));
            }
            Json::Object(fields) => {
                out.push((pointer.to_owned(), object));
                for (key, value) in fields {
                    if let Some(inner) = object.field(key).and_then(|field| field.form.object()) {
                        maps(value, inner, &format!("{pointer}/{key}"), out);
                    }
                }
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    maps(words, super::form_of(kind), "", &mut all);
    for (pointer, object) in all {
        let mut changed = words.clone();
        changed.pointer_mut(&pointer).and_then(Json::as_object_mut).unwrap().insert(OTHER.into(), Json::Null);
        let Err(error) = kind.parse(changed) else { panic!("{}{pointer} takes any word", kind.list()) };
        let text = error.to_string();
        // Of what may be written in several forms serde says less.
        let Some(said) = text.strip_prefix(&format!("unknown field `{OTHER}`, expected ")) else { continue };
        let known: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
        check(&format!("{}{pointer}", kind.list()), object, &known);
    }
}

#[test]
fn the_form_has_every_word_that_the_model_reads() {
    let config = Config::parse(vec![example("every-field.yaml")]).unwrap_or_else(|failure| panic!("{failure}"));
    let mut seen = BTreeSet::new();
    for resource in config.resources() {
        let words = canonical::words(resource).unwrap();
        read_by_model(resource.key().kind, &words, &mut |place, object, known| {
            for word in known {
                assert!(object.field(word).is_some(), "{place}: the form has no {word}");
                seen.insert(format!("{place}.{word}"));
            }
        });
    }
    for heard in ["routes.security_headers", "routes/match.hosts", "upstreams.balance", "limits.window"] {
        assert!(seen.contains(heard), "{heard} is not told of: {seen:?}");
    }
}

#[test]
fn the_form_has_exactly_the_models_fields() {
    let config = Config::parse(vec![example("every-field.yaml")]).unwrap_or_else(|failure| panic!("{failure}"));
    let (mut expected, mut written) = (BTreeSet::new(), BTreeSet::new());
    for kind in Kind::ALL {
        fields(super::form_of(kind), kind.list(), &mut expected);
    }
    for resource in config.resources() {
        let kind = resource.key().kind;
        // The canonical words leave defaults out: a field that is there was set, kept by the model, and written again.
        keys(&canonical::words(resource).unwrap(), super::form_of(kind), kind.list(), &mut written);
        // And the model has no field that the form does not know.
        keys(&serde_json::to_value(resource).unwrap(), super::form_of(kind), kind.list(), &mut BTreeSet::new());
    }
    // The three effects of a rule take the same condition: each of its fields need be written under one of them only. Answers are
    // written like requests, and have no parts.
    let alike = |it: String| {
        it.replace(".authorize.deny.", ".authorize.allow.")
            .replace(".authorize.log.", ".authorize.allow.")
            .replace(".responses.content.encoding", ".body.content.encoding")
    };
    let mut in_file = BTreeSet::new();
    for it in &config.objects {
        let kind = it.resource.key().kind;
        keys_of_file(&it.node, super::form_of(kind), kind.list(), &mut in_file);
    }
    for word in ONLY_READ {
        assert!(in_file.contains(word), "{word} is not in the file");
        assert!(written.insert(word.to_owned()), "{word} is written too");
    }
    let [written, expected] = [written, expected].map(|it| it.into_iter().map(alike).collect::<BTreeSet<_>>());
    assert_eq!(written, expected);
}

#[test]
fn the_schema_describes_every_field() {
    fn walk(schema: &Json, path: &str) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let here = format!("{path}.{name}");
            assert!(property["description"].as_str().is_some_and(|it| !it.is_empty()), "{here}");
            walk(property, &here);
            walk(&property["items"], &here);
            property["anyOf"].as_array().into_iter().flatten().for_each(|it| walk(it, &here));
        }
    }
    let schema = schema::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["routes"]["items"]["additionalProperties"], false);
    let protocol = &schema["properties"]["upstreams"]["items"]["properties"]["protocol"];
    assert_eq!(protocol["enum"], json!(["http1", "http2", "grpc", "auto"]));
    walk(&schema, "");
}
