//! Which operation a request is of, and what it does not take of it.

use http::Request;
use quorumgate_model::resource::{ContractPolicy, Kind, Resource};
use serde_json::{Value, json};

use super::*;
use crate::inspect::{
    contract::request::{Body, Entry},
    media::Media,
};

fn contract(words: Value) -> Arc<Contract> {
    let words: ContractPolicy = serde_json::from_value(words).unwrap();
    Arc::new(compile::contract(&words.checked().unwrap()).unwrap())
}

fn found(contract: &Contract, method: &str, path: &str) -> String {
    match contract.find(method, path) {
        Found::Operation(at, values) => format!("{at} {values:?}"),
        Found::Unknown(methods) => format!("none of {methods:?}"),
    }
}

#[test]
fn the_more_literal_path_comes_first() {
    let operation = |method: &str, path: &str| json!({ "method": method, "path": path });
    let it = contract(json!({ "operations": [
        operation("GET", "/orders/{id}"), operation("GET", "/orders/mine"), operation("DELETE", "/orders/{id}"),
        operation("GET", "/orders/{id}.json"), operation("GET", "/"), operation("GET", "/files/{a}-{b}.{c}"),
        operation("POST", "/orders/{order}"),
    ] }));
    for (method, path, expected) in [
        ("GET", "/orders/mine", "1 []"),
        ("GET", "/orders/7", r#"0 [("id", "7")]"#),
        ("HEAD", "/orders/7", r#"0 [("id", "7")]"#),
        ("GET", "/orders/7.json", r#"3 [("id", "7")]"#),
        ("GET", "/orders/.json", r#"0 [("id", ".json")]"#),
        ("DELETE", "/orders/mine", r#"2 [("id", "mine")]"#),
        ("POST", "/orders/7", r#"6 [("order", "7")]"#),
        ("PUT", "/orders/7", r#"none of ["DELETE", "GET", "POST"]"#),
        ("GET", "/orders/", "none of []"),
        ("GET", "/orders/7/x", "none of []"),
        ("GET", "/", "4 []"),
        ("GET", "/files/x-y.z", r#"5 [("a", "x"), ("b", "y"), ("c", "z")]"#),
        ("GET", "/files/x-y", "none of []"),
    ] {
        assert_eq!(found(&it, method, path), expected, "{method} {path}");
    }
}

/// What is wrong with the head of a request for `/{id}`.
#[track_caller]
fn check(parameters: Value, target: &str, fields: &[(&str, &str)], expected: &[(&str, &str)]) {
    let id = json!({ "in": "path", "name": "id", "required": true, "schema": { "type": "integer" } });
    let mut all = vec![id];
    all.extend(parameters.as_array().unwrap().iter().cloned());
    let it = contract(json!({ "operations": [{ "method": "GET", "path": "/{id}", "parameters": all }] }));
    let mut request = Request::get(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let Entry::Visit(_, errors) = it.enter(&parts, parts.uri.path(), &Media::of(&parts.headers), false) else {
        panic!("{target} is of no operation");
    };
    let errors: Vec<_> = errors.iter().map(|it| (format!("{}{}", it.place.word(), it.pointer), it.rule)).collect();
    let errors: Vec<_> = errors.iter().map(|(place, rule)| (place.as_str(), *rule)).collect();
    assert_eq!(errors, expected, "{target} {fields:?}");
}

#[test]
fn every_occurrence_of_a_parameter_counts() {
    let limit = json!([{ "in": "query", "name": "limit", "schema": { "type": "integer", "maximum": 10 } }]);
    check(limit.clone(), "/7?limit=5&other=x", &[], &[]);
    check(limit.clone(), "/7", &[], &[]);
    check(limit.clone(), "/7?limit=50", &[], &[("query/limit", "maximum")]);
    check(limit.clone(), "/7?limit=5&limit=50", &[], &[("query/limit", "repeated")]);
    check(limit.clone(), "/7?limit=5&%6cimit=50", &[], &[("query/limit", "repeated")]);
    check(limit.clone(), "/7?l%ffimit=5", &[], &[("query", "encoding")]);
    check(limit, "/x", &[], &[("path/id", "type")]);

    let tags = |explode: bool| {
        let items = json!({ "enum": ["a", "b"] });
        json!([{ "in": "query", "name": "tag", "explode": explode, "schema": { "type": "array", "items": items, "maxItems": 3 } }])
    };
    check(tags(true), "/7?tag=a&tag=b", &[], &[]);
    check(tags(true), "/7?tag=a&x=1&tag=c", &[], &[("query/tag/1", "enum")]);
    check(tags(true), "/7?tag=a&tag=b&tag=a&tag=b", &[], &[("query/tag", "maxItems")]);
    check(tags(false), "/7?tag=a,b", &[], &[]);
    check(tags(false), "/7?tag=a%2Cb", &[], &[("query/tag/0", "enum")]);
    check(tags(false), "/7?tag=a&tag=b", &[], &[("query/tag", "repeated")]);

    let header = json!([{ "in": "header", "name": "X-Rev", "required": true, "schema": { "type": "integer" } }]);
    check(header.clone(), "/7", &[("x-rev", "3")], &[]);
    check(header.clone(), "/7", &[], &[("header/X-Rev", "required")]);
    check(header.clone(), "/7", &[("x-rev", "3"), ("x-rev", "drop")], &[("header/X-Rev", "repeated")]);
    check(header, "/7", &[("x-rev", "three")], &[("header/X-Rev", "type")]);

    let list =
        json!([{ "in": "header", "name": "x-ids", "schema": { "type": "array", "items": { "type": "integer" } } }]);
    check(list.clone(), "/7", &[("x-ids", "1, 2"), ("x-ids", "3")], &[]);
    check(list, "/7", &[("x-ids", "1"), ("x-ids", "2,x")], &[("header/x-ids/2", "type")]);

    let cookie = json!([{ "in": "cookie", "name": "s", "schema": { "type": "string", "minLength": 3 } }]);
    check(cookie.clone(), "/7", &[("cookie", "a=1; s=abc")], &[]);
    check(cookie.clone(), "/7", &[("cookie", "s=abc"), ("cookie", "s=x")], &[("cookie/s", "repeated")]);
    check(cookie, "/7", &[("cookie", "s=ab")], &[("cookie/s", "minLength")]);
}

#[test]
fn other_styles_are_read_as_they_are_written() {
    let query = |style: &str, schema: Value| json!([{ "in": "query", "name": "q", "style": style, "schema": schema }]);
    let integers = json!({ "type": "array", "items": { "type": "integer" } });
    check(query("pipe_delimited", integers.clone()), "/7?q=1%7C2%7c3", &[], &[]);
    check(query("pipe_delimited", integers.clone()), "/7?q=1%7Cx", &[], &[("query/q/1", "type")]);
    check(query("space_delimited", integers.clone()), "/7?q=1%202+x", &[], &[("query/q/2", "type")]);
    let object = json!({ "type": "object", "required": ["a"] });
    check(query("json", object.clone()), "/7?q=%7B%22a%22:1%7D", &[], &[]);
    check(query("json", object.clone()), "/7?q=%7B%7D", &[], &[("query/q/a", "required")]);
    check(query("json", object.clone()), "/7?q=%7B%22a%22:1,%22a%22:2%7D", &[], &[("query/q/a", "duplicate_keys")]);
    check(query("json", object), "/7?q=%7B", &[], &[("query/q", "syntax")]);
}

#[test]
fn bodies_are_of_the_types_that_are_taken() {
    let schema = json!({ "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" }, "t": { "type": "array" } } });
    let it = contract(json!({ "operations": [{ "method": "POST", "path": "/", "body": { "required": true, "content": [
        { "type": "application/json", "schema": schema }, { "type": "application/x-www-form-urlencoded", "schema": schema },
        { "type": "text/plain", "schema": { "maxLength": 3 } }, { "type": "image/*" },
    ] } }] }));
    let enter = |types: &[&str], has_body: bool| {
        let mut request = Request::post("/");
        for it in types {
            request = request.header("content-type", *it);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        match it.enter(&parts, "/", &Media::of(&parts.headers), has_body) {
            Entry::Visit(visit, errors) => (visit, errors),
            _ => panic!("no operation"),
        }
    };
    assert_eq!(enter(&[], false).1[0].rule, "required");
    assert_eq!(enter(&["image/png"], true).0.body, Body::Unread);
    for other in [&["application/xml"][..], &[], &["application/json", "image/png"]] {
        assert_eq!(enter(other, true).0.body, Body::NotTaken, "{other:?}");
    }
    for (kind, body, expected) in [
        ("application/json; charset=utf-8", r#"{"n": 1}"#, ""),
        ("application/json", r#"{"n": "1"}"#, "/n type"),
        ("application/json", r#"{"n": 1, "n": 2}"#, "/n duplicate_keys"),
        ("application/json", r#"{"n": 1e999}"#, " syntax"),
        ("application/json", "", " syntax"),
        ("application/x-www-form-urlencoded", "n=1&t=a&t=b", ""),
        ("application/x-www-form-urlencoded", "n=1&n=2", "/n repeated"),
        ("application/x-www-form-urlencoded", "n=x", "/n type"),
        ("application/x-www-form-urlencoded", "t=%ff", " encoding"),
        ("text/plain", "äöü", ""),
        ("text/plain", "abcd", " maxLength"),
    ] {
        let found = enter(&[kind], true).0.look(&body.to_owned().into());
        let found: Vec<_> = found.iter().map(|it| format!("{} {}", it.pointer, it.rule)).collect();
        assert_eq!(found.join(", "), expected, "{kind} {body}");
    }
}

#[test]
fn schemas_of_no_use_are_refused_by_their_field() {
    let policy = |words: Value| {
        let Resource::Policy(it) = Kind::Policy.parse(json!({ "name": "p", "contract": words })).unwrap() else {
            panic!()
        };
        check_policy(&it)
    };
    use super::check as check_policy;
    let operation = |words: Value| json!({ "method": "POST", "path": "/", "parameters": [words] });
    let query =
        |schema: Value| json!({ "operations": [operation(json!({ "in": "query", "name": "q", "schema": schema }))] });
    for (words, field) in [
        (query(json!({ "type": "text" })), "contract.operations[0].parameters[0].schema.type"),
        (
            query(json!({ "allOf": [{}, { "pattern": "(?!a)" }] })),
            "contract.operations[0].parameters[0].schema.allOf[1].pattern",
        ),
        (query(json!({ "$ref": "#/schemas/None" })), "contract.operations[0].parameters[0].schema.$ref"),
        (query(json!({ "type": "object" })), "contract.operations[0].parameters[0].schema"),
        (
            json!({ "schemas": { "A": { "$ref": "#/schemas/A" } }, "operations": [{ "method": "GET", "path": "/" }] }),
            "contract.schemas.A",
        ),
        (
            json!({ "schemas": { "A": { "minLength": "1" } }, "operations": [{ "method": "GET", "path": "/" }] }),
            "contract.schemas.A.minLength",
        ),
    ] {
        assert_eq!(policy(words).unwrap_err().field, field);
    }
    let good = json!({
        "schemas": { "Id": { "type": "integer" } },
        "operations": [operation(json!({ "in": "query", "name": "q", "schema": { "$ref": "#/schemas/Id" } }))],
    });
    assert_eq!(policy(good), Ok(()));
}
