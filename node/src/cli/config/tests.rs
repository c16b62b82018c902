//! Errors as operators see them, word for word; and the form held against the model.

use std::collections::BTreeSet;

use quorumgate_model::resource::{Kind, Resource};
use serde_json::{Value as Json, json};

use super::{Config, canonical, form, load_one, resource, schema, source::Source};
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
ramp, redirect, respond, rewrite, auth, authorize, on_stale, encoded_slash, access_log, limits, body, timeouts, retries, \
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
    // The three effects of a rule take the same condition: each of its fields need be written under one of them only.
    let alike = |it: String| {
        it.replace(".authorize.deny.", ".authorize.allow.").replace(".authorize.log.", ".authorize.allow.")
    };
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
