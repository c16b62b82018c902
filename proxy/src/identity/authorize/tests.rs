//! Rules as routes have them, asked about requests.

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;
use quorumgate_model::resource::Route;
use serde_json::{Value, json};

use super::*;
use crate::identity::{AuthMethod, RevocationSubject, Scopes};

fn route(words: Value) -> Route {
    let mut route = json!({ "name": "r", "upstream": "u" });
    for (name, value) in words.as_object().unwrap() {
        route[name] = value.clone();
    }
    serde_json::from_value(route).unwrap()
}

/// `{ consumer, groups, plan, scopes, claims }`, each of which may be left out.
fn caller(words: &Value) -> Caller {
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let consumer = words["consumer"].as_str().map(|name| {
        let words = json!({ "name": name, "groups": texts(&words["groups"]), "plan": words["plan"] });
        Arc::new(serde_json::from_value::<Consumer>(words).unwrap())
    });
    Caller {
        consumer,
        credential: None,
        method: AuthMethod::Jwt,
        auth: "idp".parse().unwrap(),
        scopes: Scopes::new(texts(&words["scopes"])),
        groups: texts(&words["token_groups"]).into_iter().map(Into::into).collect(),
        claims: words["claims"].as_object().cloned().map(Arc::new),
        subject: RevocationSubject::default(),
        expires: None,
    }
}

struct Request {
    method: &'static str,
    target: &'static str,
    client_ip: &'static str,
    caller: Value,
}

const GET: Request = Request { method: "GET", target: "/orders", client_ip: "192.0.2.1", caller: Value::Null };

/// What a route with these words says: `allow`, or the verdict with the rule that decided.
#[track_caller]
fn check(words: Value, request: Request, expected: &str) {
    let route = route(words);
    let rules = Authorization::compile(&route).unwrap().expect("it has rules");
    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target, None),
    };
    let headers = HeaderMap::from_iter([("x-tenant".parse().unwrap(), "acme".parse().unwrap())]);
    let client_ip: IpAddr = request.client_ip.parse().unwrap();
    let asked = Asked { method: request.method, host: "api.acme.test", path, query, headers: &headers, client_ip };
    let caller = (!request.caller.is_null()).then(|| caller(&request.caller));
    let decision = rules.decide(&asked, Callers { first: caller.as_ref(), also: &[] });
    let mut said = format!("{} by {}", decision.verdict.word(), decision.rule.unwrap_or("none"));
    for label in &decision.logged {
        said += &format!("; logged {label}");
    }
    assert_eq!(said, expected);
}

#[test]
fn the_first_rule_that_holds_decides_and_the_default_is_no() {
    let rules = || {
        json!({ "authorize": [
            { "name": "internals", "deny": { "paths": ["/orders/internal"] } },
            { "log": { "methods": ["GET"] } },
            { "allow": { "scopes_all": ["orders:read"], "methods": ["GET"] } },
            { "allow": { "groups": ["partners"] } },
        ] })
    };
    let reader = json!({ "scopes": ["orders:read"] });
    check(rules(), Request { caller: reader.clone(), ..GET }, "allow by authorize[2]; logged authorize[1]");
    let internal = Request { target: "/orders/internal/x", caller: reader.clone(), ..GET };
    check(rules(), internal, "deny by internals");
    let beside = Request { target: "/orders/internals", caller: reader.clone(), ..GET };
    check(rules(), beside, "allow by authorize[2]; logged authorize[1]");
    check(
        rules(),
        Request { method: "HEAD", caller: reader.clone(), ..GET },
        "allow by authorize[2]; logged authorize[1]",
    );
    check(rules(), Request { method: "POST", caller: reader, ..GET }, "deny by none");
    check(
        rules(),
        Request { caller: json!({ "scopes": ["orders"] }), ..GET },
        "lacks_scope by authorize[2]; logged authorize[1]",
    );
    let partner = json!({ "consumer": "acme", "groups": ["web", "partners"] });
    check(rules(), Request { method: "POST", caller: partner, ..GET }, "allow by authorize[3]");
    check(rules(), Request { method: "POST", ..GET }, "deny by none");
}

#[test]
fn every_word_of_a_condition_must_hold() {
    let rule = |condition: Value| json!({ "authorize": [{ "allow": condition }] });
    let acme = || {
        json!({ "consumer": "acme", "groups": ["a"], "token_groups": ["of-the-token"], "scopes": ["r", "w"], "claims": {
        "role": ["reader", "writer"], "tenant": "t1", "level": 3, "staff": true, "org": { "unit": "x" }, "none": null,
    } })
    };
    for (condition, expected) in [
        (json!({}), "allow by authorize[0]"),
        (json!({ "scopes_all": ["r", "w"] }), "allow by authorize[0]"),
        (json!({ "scopes_all": ["r", "x"] }), "lacks_scope by authorize[0]"),
        (json!({ "scopes_any": ["x", "w"] }), "allow by authorize[0]"),
        (json!({ "scopes_any": ["x"] }), "lacks_scope by authorize[0]"),
        (json!({ "scopes_any": ["x"], "consumers": ["other"] }), "deny by none"),
        (json!({ "consumers": ["acme"], "groups": ["a", "b"] }), "allow by authorize[0]"),
        (json!({ "consumers": ["acme"], "groups": ["b"] }), "deny by none"),
        (json!({ "groups": ["of-the-token"] }), "allow by authorize[0]"),
        (json!({ "claims": { "tenant": "t1" } }), "allow by authorize[0]"),
        (
            json!({ "claims": { "tenant": ["t2", "t1"], "role": "writer", "level": "3", "staff": "true" } }),
            "allow by authorize[0]",
        ),
        (json!({ "claims": { "tenant": "t2" } }), "deny by none"),
        (json!({ "claims": { "role": "admin" } }), "deny by none"),
        (json!({ "claims": { "org.unit": "x" } }), "allow by authorize[0]"),
        (json!({ "claims": { "org": "x" } }), "deny by none"),
        (json!({ "claims": { "none": "" } }), "deny by none"),
        (json!({ "claims": { "missing": "" } }), "deny by none"),
        (json!({ "cidrs": ["192.0.2.0/24"] }), "allow by authorize[0]"),
        (json!({ "cidrs": ["10.0.0.0/8"] }), "deny by none"),
        (json!({ "methods": ["POST", "get"] }), "allow by authorize[0]"),
        (json!({ "paths": ["/orders"] }), "allow by authorize[0]"),
        (json!({ "paths": ["/order"] }), "deny by none"),
        (json!({ "paths": ["/"] }), "allow by authorize[0]"),
    ] {
        check(rule(condition), Request { caller: acme(), ..GET }, expected);
    }
}

#[test]
fn a_path_parameter_is_bound_to_its_owner() {
    let rules = |source: &str| {
        json!({
            "match": { "path_template": "/users/{user_id}/orders/{id}" },
            "authorize": [{ "allow": { "params_equal": { "user_id": source } } }],
        })
    };
    let at = |target: &'static str, caller: Value| Request { target, caller, ..GET };
    let sub = |sub: Value| json!({ "claims": { "sub": sub } });
    check(rules("jwt.sub"), at("/users/42/orders/1", sub(json!("42"))), "allow by authorize[0]");
    check(rules("jwt.sub"), at("/users/42/orders/1", sub(json!(42))), "allow by authorize[0]");
    check(rules("jwt.sub"), at("/users/43/orders/42", sub(json!("42"))), "deny by none");
    check(rules("jwt.sub"), at("/users/a%20b/orders/1", sub(json!("a b"))), "allow by authorize[0]");
    check(rules("jwt.sub"), at("/users/%FF/orders/1", sub(json!("\u{fffd}"))), "deny by none");
    for missing in [Value::Null, json!({}), sub(Value::Null), sub(json!("")), sub(json!(["42"]))] {
        check(rules("jwt.sub"), at("/users/42/orders/1", missing), "deny by none");
    }
    check(rules("consumer.name"), at("/users/acme/orders/1", json!({ "consumer": "acme" })), "allow by authorize[0]");
    check(rules("consumer.name"), at("/users/other/orders/1", json!({ "consumer": "acme" })), "deny by none");
    check(rules("consumer.name"), at("/users/acme/orders/1", Value::Null), "deny by none");

    // Nobody slips past a denial because a side of it is missing.
    let denies = json!({
        "match": { "path_template": "/users/{user_id}" },
        "authorize": [{ "deny": { "params_equal": { "user_id": "jwt.banned" } } }, { "allow": {} }],
    });
    check(denies.clone(), at("/users/42", json!({ "claims": { "banned": "7" } })), "allow by authorize[1]");
    check(denies.clone(), at("/users/7", json!({ "claims": { "banned": "7" } })), "deny by authorize[0]");
    check(denies, at("/users/7", json!({ "claims": {} })), "deny by authorize[0]");
}

#[test]
fn claims_of_two_tokens_are_not_mixed_and_scopes_are_joined() {
    let route = route(
        json!({ "authorize": [{ "allow": { "claims": { "b": "1" } } }, { "allow": { "scopes_all": ["x", "y"] } }] }),
    );
    let rules = Authorization::compile(&route).unwrap().unwrap();
    let first = caller(&json!({ "claims": { "a": "1" }, "scopes": ["x"] }));
    let decide = |second: Value| {
        let headers = HeaderMap::new();
        let client_ip = [192, 0, 2, 1].into();
        let asked = Asked { method: "GET", host: "", path: "/", query: None, headers: &headers, client_ip };
        rules.decide(&asked, Callers { first: Some(&first), also: &[caller(&second)] }).verdict
    };
    assert_eq!(decide(json!({ "claims": { "b": "1" } })), Verdict::LacksScope);
    assert_eq!(decide(json!({ "scopes": ["y"] })), Verdict::Allow);
}

#[cfg(feature = "cel")]
mod expressions {
    use super::*;

    fn with(cel: &str) -> Value {
        json!({ "match": { "path_template": "/orders/{id}" }, "authorize": [{ "allow": { "cel": cel } }] })
    }

    #[test]
    fn see_the_request_its_parameters_and_its_caller() {
        let caller = || {
            json!({
                "consumer": "acme", "groups": ["partners"], "plan": "free", "scopes": ["r"],
                "claims": { "sub": "7", "level": 3, "roles": ["a", "b"], "org": { "unit": "x" } },
            })
        };
        for (cel, expected) in [
            ("true", "allow by authorize[0]"),
            ("false", "deny by none"),
            ("request.path.startsWith('/orders/') && request.method == 'GET'", "allow by authorize[0]"),
            ("request.host == 'api.acme.test' && request.client_ip == '192.0.2.1'", "allow by authorize[0]"),
            ("request.headers['x-tenant'] == 'acme'", "allow by authorize[0]"),
            ("request.query.a == 'b c' && request.query['d'] == ''", "allow by authorize[0]"),
            ("params.id == jwt.sub", "allow by authorize[0]"),
            ("jwt.level >= 3 && 'b' in jwt.roles && jwt.org.unit == 'x'", "allow by authorize[0]"),
            ("jwt.roles.exists(it, it == 'b') && jwt.roles.all(it, size(it) == 1)", "allow by authorize[0]"),
            ("jwt.roles.filter(it, it != 'a').map(it, it + it) == ['bb']", "allow by authorize[0]"),
            (
                "consumer.name == 'acme' && 'partners' in consumer.groups && consumer.plan == 'free'",
                "allow by authorize[0]",
            ),
            ("'r' in scopes && !('w' in scopes)", "allow by authorize[0]"),
            ("has(jwt.sub) && !has(jwt.email)", "allow by authorize[0]"),
            ("params.id == 'x' ? true : false", "deny by none"),
            ("string(jwt.level) == '3' && int('3') == jwt.level", "allow by authorize[0]"),
            // No answer is no.
            ("jwt.email == 'x'", "failed by authorize[0]"),
            ("request.headers['x-missing'] == 'x'", "failed by authorize[0]"),
            ("jwt.sub", "failed by authorize[0]"),
            ("jwt.sub > 3", "failed by authorize[0]"),
            ("1 / (jwt.level - 3) == 1", "failed by authorize[0]"),
        ] {
            let request = Request { target: "/orders/7?a=b+c&d", caller: caller(), ..GET };
            check(with(cel), request, expected);
        }
        check(
            with("consumer.name == '' && size(scopes) == 0 && !has(jwt.sub)"),
            Request { target: "/orders/7", ..GET },
            "allow by authorize[0]",
        );
    }

    #[test]
    fn a_failed_one_ends_the_list_but_only_where_it_decides() {
        let rules = |effect: &str| json!({ "authorize": [{ effect: { "cel": "jwt.a.b" } }, { "allow": {} }] });
        check(rules("allow"), GET, "failed by authorize[0]");
        check(rules("deny"), GET, "failed by authorize[0]");
        check(rules("log"), GET, "allow by authorize[1]");
    }

    #[track_caller]
    fn refused(cel: &str, mention: &str) {
        let invalid = super::super::check(&route(with(cel))).unwrap_err();
        assert_eq!(invalid.field, "authorize[0].allow.cel");
        assert!(!invalid.found.is_empty() && invalid.allowed.contains(mention), "{invalid}");
    }

    #[test]
    fn a_mistake_is_told_when_it_is_written() {
        refused("request.path ==", "a CEL expression (");
        refused("(", "a CEL expression (");
        refused("reqest.path == '/'", "it names \"reqest\"");
        refused("request.path.matches('a')", "it calls \"matches\"");
        refused("now() > 3", "it calls \"now\"");
        refused("'yes'", "true or false");
        refused("request", "true or false");
        refused("size(scopes)", "true or false");
        refused("1 + 1", "true or false");
        refused("[1]", "true or false");
        refused("true ? 1 : 2", "true or false");
    }

    #[test]
    fn nothing_costly_gets_in() {
        refused("scopes.all(a, scopes.all(b, a == b))", "steps");
        refused("(scopes + scopes).all(a, a == '')", "over a variable");
        refused(&"(".repeat(2_000), "a CEL expression (");
        // Pairs of them are nothing.
        super::super::check(&route(with(&format!("{}true", "!".repeat(2_000))))).unwrap();
        refused(&vec!["true"; 400].join(" == "), "levels");
        refused(&vec!["1==1"; 300].join("||"), "");
        let long = vec!["request.path == 'a'"; 60].join(" || ");
        super::super::check(&route(with(&long))).unwrap();
        super::super::check(&route(with("scopes.all(a, [1, 2].exists(b, b == 2) && a == '')"))).unwrap();
    }

    #[test]
    fn more_values_than_an_expression_is_bounded_for_come_to_no_answer() {
        let roles: Vec<u32> = (0..5_000).collect();
        let caller = json!({ "claims": { "roles": roles } });
        check(
            with("jwt.roles.all(it, it >= 0)"),
            Request { target: "/orders/7", caller, ..GET },
            "failed by authorize[0]",
        );
    }
}
