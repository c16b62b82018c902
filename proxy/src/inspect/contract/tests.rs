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
        let found = enter(&[kind], true).0.look(&http::HeaderMap::new(), &body.to_owned().into());
        let found: Vec<_> = found.iter().map(|it| format!("{} {}", it.pointer, it.rule)).collect();
        assert_eq!(found.join(", "), expected, "{kind} {body}");
    }
}

/// What is wrong with a body of `kind` for an operation that takes a schema of this type with this encoding.
#[track_caller]
fn check_body(kind: &str, schema: Value, encoding: Value, body: &[u8], expected: &str) {
    let media = kind.split(';').next().unwrap();
    let it = contract(json!({ "operations": [{ "method": "POST", "path": "/", "body": { "required": true, "content": [
        { "type": media, "schema": schema, "encoding": encoding },
    ] } }] }));
    let (parts, ()) = Request::post("/").header("content-type", kind).body(()).unwrap().into_parts();
    let Entry::Visit(visit, errors) = it.enter(&parts, "/", &Media::of(&parts.headers), true) else { panic!() };
    assert!(errors.is_empty() && matches!(visit.body, Body::Read(_)), "{errors:?}");
    let found = visit.look(&parts.headers, &body.to_vec().into());
    let found: Vec<_> = found.iter().map(|it| format!("{} {}", it.pointer, it.rule)).collect();
    assert_eq!(found.join(", "), expected, "{}", String::from_utf8_lossy(body));
}

#[test]
fn objects_lie_in_the_brackets_of_names() {
    let schema = json!({ "type": "object", "required": ["a"], "additionalProperties": { "type": "integer" }, "properties": {
        "a": { "type": "integer" },
        "b": { "type": "object", "properties": { "c": { "type": "boolean" } } },
        "l": { "type": "array", "items": { "type": "integer" }, "maxItems": 2 },
        "o": { "type": "array", "items": { "type": "object", "required": ["x"], "properties": { "x": { "type": "integer" } } } },
    } });
    let filter = |required: bool| json!([{ "in": "query", "name": "f", "style": "deep_object", "required": required, "schema": schema }]);
    for (query, expected) in [
        ("", &[][..]),
        ("x=1&fa=2&f2[a]=x", &[]),
        ("f[a]=1", &[]),
        ("f%5Ba%5D=1&f[b][c]=true&f[more]=7", &[]),
        ("f[a]=x", &[("query/f/a", "type")]),
        ("f[b][c]=true", &[("query/f/a", "required")]),
        ("f[a]=1&f[b][c]=2", &[("query/f/b/c", "type")]),
        ("f[a]=1&f[more]=x", &[("query/f/more", "type")]),
        ("f[a]=1&f[a]=2", &[("query/f/a", "repeated")]),
        ("f[a]=1&f=2", &[("query/f", "repeated")]),
        ("f=1", &[("query/f", "type")]),
        ("f[a]=1&f[l]=1&f[l]=2", &[]),
        ("f[a]=1&f[l][]=1&f[l][]=x", &[("query/f/l/1", "type")]),
        ("f[a]=1&f[l][0]=1&f[l][1]=2&f[l][2]=3", &[("query/f/l", "maxItems")]),
        ("f[a]=1&f[o][0][x]=1&f[o][1][x]=y", &[("query/f/o/1/x", "type")]),
        ("f[a]=1&f[o][k][x]=1", &[("query/f/o", "type")]),
        ("f[a=1", &[("query/f", "syntax")]),
        ("f[a]b=1", &[("query/f", "syntax")]),
        ("f[[a]]=1", &[("query/f", "syntax")]),
        ("f[a]=%ff", &[("query/f", "encoding")]),
        ("f[a][b][c][d][e][f][g][h][i]=1", &[("query/f", "syntax")]),
    ] {
        check(filter(false), &format!("/7?{query}"), &[], expected);
    }
    check(filter(true), "/7?x=1", &[], &[("query/f", "required")]);
    let many: String = (0..1_001).map(|n| format!("&f[n{n}]=1")).collect();
    check(filter(false), &format!("/7?f[a]=1{many}"), &[], &[("query/f", "syntax")]);

    let form = "application/x-www-form-urlencoded";
    let body = |encoding: Value, body: &str, expected: &str| {
        let schema = json!({ "type": "object", "properties": { "f": schema, "t": { "type": "array", "items": { "type": "integer" } }, "n": { "type": "integer" } } });
        check_body(form, schema, encoding, body.as_bytes(), expected);
    };
    let deep = json!([{ "name": "f", "style": "deep_object" }]);
    body(deep.clone(), "f[a]=1&f[b][c]=true&n=3", "");
    body(deep.clone(), "f[a]=1&f[b][c]=3&n=3", "/f/b/c type");
    body(deep.clone(), "f[a]=1&n=x", "/n type");
    body(deep, "f[a=1", "/f syntax");
    let json = json!([{ "name": "f", "style": "json" }]);
    body(json.clone(), "f=%7B%22a%22:1%7D", "");
    body(json.clone(), "f=%7B%22a%22:%22x%22%7D", "/f/a type");
    body(json.clone(), "f=%7B", "/f syntax");
    body(json, "f=%7B%7D&f=%7B%7D", "/f repeated");
    for (style, explode, good, bad) in [
        ("form", true, "t=1&t=2", "t=1&t=x"),
        ("form", false, "t=1,2", "t=1,x"),
        ("pipe_delimited", false, "t=1%7C2|3", "t=1|x"),
        ("space_delimited", false, "t=1+2%203", "t=1+x"),
    ] {
        let encoding = json!([{ "name": "t", "style": style, "explode": explode }]);
        body(encoding.clone(), good, "");
        body(encoding, bad, "/t/1 type");
    }
    body(json!([{ "name": "t", "explode": false }]), "t=1&t=2", "/t repeated");
}

#[test]
fn parts_of_forms_are_what_their_members_are() {
    let schema = json!({ "type": "object", "required": ["id"], "additionalProperties": false, "properties": {
        "id": { "type": "integer" },
        "meta": { "type": "object", "required": ["k"] },
        "tags": { "type": "array", "maxItems": 2, "items": { "enum": ["a", "b"] } },
        "photo": { "type": "string", "format": "binary", "maxLength": 4 },
    } });
    let encoding = json!([{ "name": "photo", "types": ["image/png", "audio/*"] }]);
    let part = |name: &str, more: &str, body: &[u8]| {
        let head = format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n");
        [head.as_bytes(), body, b"\r\n"].concat()
    };
    let (png, json_type) = ("; filename=\"a\"\r\nContent-Type: image/png", "\r\nContent-Type: application/json");
    let id = part("id", "", b"7");
    let with = |more: Vec<u8>| [id.clone(), more].concat();
    for (parts, expected) in [
        (id.clone(), ""),
        (part("tags", "", b"a"), "/id required"),
        (part("id", "", b"x"), "/id type"),
        (with(id.clone()), "/id repeated"),
        (with(part("other", "", b"x")), "/other additionalProperties"),
        (with(part("meta", json_type, br#"{"k":1}"#)), ""),
        (with(part("meta", "", br#"{"k":1}"#)), ""),
        (with(part("meta", json_type, br#"{}"#)), "/meta/k required"),
        (with(part("meta", json_type, br#"{"k":1,"k":2}"#)), "/meta/k duplicate_keys"),
        (with(part("meta", json_type, b"{")), "/meta syntax"),
        (with(part("meta", "\r\nContent-Type: text/plain", br#"{"k":1}"#)), "/meta content_type"),
        (with([part("tags", "", b"a"), part("tags", "", b"b")].concat()), ""),
        (with([part("tags", "", b"a"), part("tags", "", b"c")].concat()), "/tags/1 enum"),
        (with(part("tags", "", b"a").repeat(3)), "/tags maxItems"),
        (with(part("tags", json_type, br#"["a","c"]"#)), "/tags/1 enum"),
        (with(part("photo", png, b"\x89\xff\xff\xff")), ""),
        (with(part("photo", png, b"\x89\xff\xff\xff\xff")), "/photo maxLength"),
        (with(part("photo", "\r\nContent-Type: Audio/ogg; x=y", b"abc")), ""),
        (with(part("photo", "\r\nContent-Type: image/svg+xml", b"<a/>")), "/photo content_type"),
        (with(part("photo", "", b"abc")), "/photo content_type"),
        (with(part("tags", "\r\nContent-Transfer-Encoding: base64", b"YQ==")), "/tags encoding"),
        (with(part("tags", "\r\nContent-Type: text/plain; charset=utf-16", b"a")), "/tags encoding"),
        (with(part("tags", "\r\nContent-Type: text/plain\r\nContent-Type: image/png", b"a")), "/1 syntax"),
        (with(part("tags", "\r\ncontent-disposition: form-data; name=\"id\"", b"a")), "/1 syntax"),
        (with(part("tags", "; name=\"zz\"", b"a")), "/1 syntax"),
        (with(part("tags", "; name*=utf-8''zz", b"a")), "/1 syntax"),
        (
            with(part("photo", "; filename=\"b.php\"; filename=\"a.png\"\r\nContent-Type: image/png", b"abc")),
            "/1 syntax",
        ),
        (with(b"--X\r\nContent-Disposition: form-data\r\n\r\n1\r\n".to_vec()), "/1 syntax"),
        (part("id", "", b"7").repeat(1_001), " max_parts"),
    ] {
        let body = [parts, b"--X--\r\n".to_vec()].concat();
        check_body("multipart/form-data; boundary=X", schema.clone(), encoding.clone(), &body, expected);
    }
    check_body("multipart/form-data; boundary=X", schema.clone(), json!([]), &id, " syntax");
    check_body("multipart/form-data", schema.clone(), json!([]), &[id, b"--X--".to_vec()].concat(), " syntax");
    // What no schema speaks of is a text, or several.
    let twice = [part("x", "", b"1").repeat(2), b"--X--".to_vec()].concat();
    let anything = json!({ "properties": { "x": { "type": "array", "items": { "const": "2" } } } });
    check_body("multipart/form-data; boundary=X", json!({ "required": ["x"] }), json!([]), &twice, "");
    check_body("multipart/form-data; boundary=X", anything, json!([]), &twice, "/x/0 const, /x/1 const");
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
            json!({ "operations": [operation(json!({ "in": "query", "name": "q", "style": "deep_object", "schema": {} }))] }),
            "contract.operations[0].parameters[0].schema",
        ),
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
