//! What schemas take and leave, where they say that something is wrong, and what they may cost.

use serde_json::{Value, json};

use super::*;

fn compiled(schema: &Value) -> (Schemas, Id) {
    let mut document = Document::new(schema);
    let id = document.schema("").unwrap_or_else(|error| panic!("{schema}: {error}"));
    (document.finish().unwrap(), id)
}

/// The pointers and keywords of all that is wrong.
#[track_caller]
fn check(schema: Value, value: Value, expected: &[(&str, &str)]) {
    let (schemas, id) = compiled(&schema);
    let found = schemas.check(id, &value, value.to_string().len()).unwrap();
    let found: Vec<_> = found.iter().map(|it| (it.pointer.as_str(), it.rule)).collect();
    assert_eq!(found, expected, "{schema} {value}");
}

#[test]
fn each_mistake_is_told_by_its_place() {
    let order = json!({
        "type": "object", "required": ["id", "lines"], "additionalProperties": false,
        "properties": {
            "id": { "type": "integer", "format": "int64", "minimum": 1 },
            "a/b": { "enum": ["x", 1] },
            "lines": { "type": "array", "maxItems": 2, "items": {
                "type": "object", "required": ["sku"],
                "properties": { "sku": { "type": "string", "pattern": "^[A-Z]{3}$" }, "price": { "multipleOf": 0.01 } },
            } },
        },
    });
    check(order.clone(), json!({ "id": 7, "lines": [{ "sku": "ABC", "price": 19.99 }] }), &[]);
    check(
        order.clone(),
        json!({ "id": 0, "a/b": 2, "lines": [{ "sku": "abc", "price": 0.001 }, {}], "extra": 1 }),
        &[
            ("/id", "minimum"),
            ("/a~1b", "enum"),
            ("/lines/0/sku", "pattern"),
            ("/lines/0/price", "multipleOf"),
            ("/lines/1/sku", "required"),
            ("/extra", "additionalProperties"),
        ],
    );
    check(order.clone(), json!([]), &[("", "type")]);
    check(order, json!({ "lines": [1, 2, 3] }), &[("/id", "required"), ("/lines", "maxItems")]);
}

#[test]
fn what_is_made_of_itself_is_a_cycle_of_nodes() {
    let tree = json!({
        "$ref": "#/$defs/node",
        "$defs": { "node": { "type": "object", "properties": { "children": { "items": { "$ref": "#/$defs/node" } } } } },
    });
    check(tree.clone(), json!({ "children": [{ "children": [] }] }), &[]);
    check(tree, json!({ "children": [{ "children": [7] }] }), &[("/children/0/children/0", "type")]);
    for endless in [
        json!({ "$ref": "#" }),
        json!({ "anyOf": [{ "$ref": "#/$defs/a" }], "$defs": { "a": { "not": { "$ref": "#" } } } }),
    ] {
        let mut document = Document::new(&endless);
        document.schema("").unwrap();
        let error = document.finish().map(drop).unwrap_err().to_string();
        assert!(error.contains("a schema that is made of itself"), "{error}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused_with_its_place() {
    for (schema, field, found) in [
        (json!({ "type": "int" }), "/type", "\"int\""),
        (json!({ "properties": { "a": { "type": 7 } } }), "/properties/a/type", "a number"),
        (json!({ "properties": { "a": 7 } }), "/properties/a", "a number"),
        (json!({ "$ref": "https://x.test/a.json" }), "/$ref", "\"https://x.test/a.json\""),
        (json!({ "$ref": "file:///etc/passwd" }), "/$ref", "\"file:///etc/passwd\""),
        (json!({ "$ref": "#/$defs/none" }), "/$ref", "\"#/$defs/none\""),
        (json!({ "pattern": "(?=a)b" }), "/pattern", "\"(?=a)b\""),
        (json!({ "pattern": "(a)\\1" }), "/pattern", "\"(a)\\\\1\""),
        (json!({ "patternProperties": { "[": {} } }), "/patternProperties", "\"[\""),
        (json!({ "items": [{}] }), "/items", "a list"),
        (json!({ "minLength": -1 }), "/minLength", "a number"),
        (json!({ "multipleOf": 0 }), "/multipleOf", "0 or less"),
        (json!({ "$id": "https://x.test/" }), "/$id", "$id"),
        (json!({ "$dynamicRef": "#x" }), "/$dynamicRef", "$dynamicRef"),
        (
            json!({ "$schema": "http://json-schema.org/draft-04/schema#" }),
            "/$schema",
            "\"http://json-schema.org/draft-04/schema#\"",
        ),
    ] {
        let error = Document::new(&schema).schema("").map(drop).unwrap_err();
        assert_eq!((error.field.as_str(), error.found.as_str()), (field, found));
        assert!(!error.allowed.is_empty());
    }
}

#[test]
fn what_would_cost_too_much_ends() {
    // Each level is asked about by both branches: 2 to the power of the depth.
    let branch = json!({ "allOf": [{ "properties": { "l": { "$ref": "#" } } }, false] });
    let schema = json!({ "anyOf": [branch, branch] });
    let mut value = json!({});
    for _ in 0..30 {
        value = json!({ "l": value });
    }
    let (schemas, id) = compiled(&schema);
    assert_eq!(schemas.check(id, &value, value.to_string().len()), Err(TooMuch));
    // Deeper than schemas are asked within one another.
    let schema = json!({ "properties": { "a": { "$ref": "#" } } });
    let (schemas, id) = compiled(&schema);
    let mut value = json!({});
    for _ in 0..100 {
        value = json!({ "a": value });
    }
    assert_eq!(schemas.check(id, &value, 600), Ok(Vec::new()));
    for _ in 0..400 {
        value = json!({ "a": value });
    }
    assert_eq!(schemas.check(id, &value, 3_000), Err(TooMuch));
}

#[test]
fn no_more_than_twenty_mistakes_are_told() {
    let (schemas, id) = compiled(&json!({ "items": { "type": "string" } }));
    let value: Value = (0..100).collect();
    assert_eq!(schemas.check(id, &value, 300).unwrap().len(), 20);
}

#[test]
fn what_nothing_has_looked_at_may_be_refused() {
    let schema = json!({
        "allOf": [{ "properties": { "a": true } }], "anyOf": [{ "properties": { "b": { "const": 1 } }, "required": ["b"] }, true],
        "unevaluatedProperties": false,
    });
    check(schema.clone(), json!({ "a": 1, "b": 1 }), &[]);
    check(schema.clone(), json!({ "a": 1, "b": 2 }), &[("/b", "unevaluatedProperties")]);
    check(schema, json!({ "c": 1 }), &[("/c", "unevaluatedProperties")]);
    let items = json!({ "prefixItems": [true], "contains": { "type": "string" }, "unevaluatedItems": false });
    check(items.clone(), json!([1, "a"]), &[]);
    check(items, json!([1, "a", 2]), &[("/2", "unevaluatedItems")]);
}

#[test]
fn texts_of_parameters_are_read_as_their_schemas_say() {
    for (schema, text, expected) in [
        (json!({ "type": "integer" }), "7", json!(7)),
        (json!({ "type": "integer" }), "7x", json!("7x")),
        (json!({ "type": "string" }), "7", json!("7")),
        (json!({ "type": ["string", "null"] }), "null", json!(null)),
        (json!({ "type": "string", "nullable": true }), "null", json!("null")),
        (json!({ "type": "boolean" }), "true", json!(true)),
        (json!({ "type": "boolean" }), "1", json!(1)),
        (json!({ "anyOf": [{ "type": "integer", "maximum": 5 }, { "type": "string" }] }), "7", json!("7")),
        (json!({ "enum": ["1", "2"] }), "1", json!("1")),
        (json!({ "enum": [1, 2] }), "1", json!(1)),
        (json!({ "$ref": "#/$defs/n", "$defs": { "n": { "type": "number" } } }), "-1.5e3", json!(-1500.0)),
        (json!({ "type": "number" }), "0x10", json!("0x10")),
        (json!({ "type": "number" }), "NaN", json!("NaN")),
    ] {
        let (schemas, id) = compiled(&schema);
        assert_eq!(schemas.read(id, text), expected, "{schema} {text}");
    }
}
