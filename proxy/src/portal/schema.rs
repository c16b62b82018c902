//! JSON Schemas for people: a list in a list, as deep and as long as is good to read. What refers to a named schema links to
//! it and is never followed, so that a cycle is no more than a link back.

use serde_json::{Map, Value};

use super::html::{Href, Html};

/// How deep lists go; what is deeper is in the document.
const DEPTH_MAX: usize = 8;
/// Properties, alternatives or values of one list.
const MEMBERS_MAX: usize = 200;
/// Of an example or a constant.
const VALUE_CHARS_MAX: usize = 600;
/// What named schemas are called by others.
const NAMED: &str = "#/schemas/";
/// Before the name in the ids of named schemas.
pub(super) const ANCHOR: &str = "schema-";

/// Words whose value is shown as it is.
const BOUNDS: [&str; 14] = [
    "format",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "const",
];
const LISTS: [(&str, &str); 3] = [("allOf", "all of"), ("anyOf", "any of"), ("oneOf", "one of")];
const PARTS: [(&str, &str); 5] = [
    ("items", "each element"),
    ("contains", "an element is"),
    ("additionalProperties", "other members"),
    ("propertyNames", "names of members"),
    ("not", "not"),
];

pub(super) fn write(html: &mut Html, schema: &Value) {
    within(html, schema, 0);
}

fn within(html: &mut Html, schema: &Value, depth: usize) {
    let it = match schema {
        Value::Object(it) => it,
        other => {
            html.raw(if other == &Value::Bool(false) { "nothing" } else { "anything" });
            return;
        }
    };
    if html.is_full() || depth >= DEPTH_MAX {
        html.raw("… (see the document)");
        return;
    }
    line(html, it);
    let has_parts = ["properties"].iter().chain(LISTS.iter().map(|(word, _)| word)).any(|word| it.contains_key(*word))
        || PARTS.iter().any(|(word, _)| it.get(*word).is_some_and(|it| !it.is_boolean()));
    if !has_parts {
        return;
    }
    html.raw("<ul class=\"schema\">");
    properties(html, it, depth);
    for (word, shown) in PARTS {
        if let Some(part) = it.get(word).filter(|part| part.is_object()) {
            html.raw("<li>").raw(shown).raw(": ");
            within(html, part, depth + 1);
            html.raw("</li>");
        }
    }
    for (word, shown) in LISTS {
        for part in it.get(word).and_then(Value::as_array).into_iter().flatten().take(MEMBERS_MAX) {
            html.raw("<li>").raw(shown).raw(": ");
            within(html, part, depth + 1);
            html.raw("</li>");
        }
    }
    html.raw("</ul>");
}

/// What fits behind a name: type, bounds, what it is for.
fn line(html: &mut Html, it: &Map<String, Value>) {
    if let Some(to) = it.get("$ref").and_then(Value::as_str) {
        match to.strip_prefix(NAMED).map(named) {
            Some(name) => html.link(&Href::anchor(ANCHOR, &name), &name),
            None => html.tag("<code>", to, "</code>"),
        };
        html.raw(" ");
    }
    match it.get("type") {
        Some(Value::String(one)) => {
            html.text(one);
        }
        Some(Value::Array(all)) => {
            let all: Vec<&str> = all.iter().filter_map(Value::as_str).take(MEMBERS_MAX).collect();
            html.text(all.join(" or "));
        }
        _ => {}
    }
    for word in BOUNDS {
        if let Some(value) = it.get(word) {
            html.raw(", ").raw(word).tag(" <code>", plain(value), "</code>");
        }
    }
    for word in ["uniqueItems", "readOnly", "writeOnly", "deprecated"] {
        if it.get(word) == Some(&Value::Bool(true)) {
            html.raw(", ").raw(word);
        }
    }
    if it.get("additionalProperties") == Some(&Value::Bool(false)) {
        html.raw(", no other members");
    }
    if let Some(values) = it.get("enum").and_then(Value::as_array) {
        html.raw(", one of");
        for value in values.iter().take(MEMBERS_MAX) {
            html.tag(" <code>", plain(value), "</code>");
        }
    }
    if let Some(default) = it.get("default") {
        html.tag(", else <code>", plain(default), "</code>");
    }
    for word in ["title", "description"] {
        if let Some(text) = it.get(word).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            html.tag("<div class=\"soft\">", text, "</div>");
        }
    }
    let examples = it.get("examples").and_then(Value::as_array).into_iter().flatten().chain(it.get("example"));
    for example in examples.take(MEMBERS_MAX) {
        html.tag("<div>Example: <code>", plain(example), "</code></div>");
    }
}

fn properties(html: &mut Html, it: &Map<String, Value>, depth: usize) {
    let Some(all) = it.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<&str> =
        it.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, part) in all.iter().take(MEMBERS_MAX) {
        if html.is_full() {
            break;
        }
        html.tag("<li><code>", name, "</code>");
        html.raw(if required.contains(&name.as_str()) { " (required): " } else { ": " });
        within(html, part, depth + 1);
        html.raw("</li>");
    }
    if all.len() > MEMBERS_MAX {
        html.tag("<li>and ", all.len() - MEMBERS_MAX, " more</li>");
    }
}

/// The name that a reference begins with: RFC 6901 in a fragment.
fn named(pointer: &str) -> String {
    let first = pointer.split('/').next().unwrap_or_default();
    first.replace("~1", "/").replace("~0", "~").replace("%20", " ")
}

/// JSON in a line.
fn plain(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(schema: &Value) -> String {
        let mut html = Html::new(64 << 10);
        write(&mut html, schema);
        html.finish()
    }

    #[test]
    fn a_schema_is_a_list_in_a_list() {
        let order = json!({
            "type": "object", "required": ["sku"], "additionalProperties": false,
            "properties": {
                "next": { "$ref": "#/schemas/Order" },
                "sku": { "type": ["string", "null"], "maxLength": 9, "enum": ["a", null], "examples": ["<b>"] },
                "tags": { "type": "array", "items": { "type": "string", "description": "[x](javascript:1)<script>" } },
            },
        });
        let found = shown(&order);
        for mention in [
            "object, no other members",
            "<code>next</code>: <a href=\"#schema-Order\">Order</a>",
            "<code>sku</code> (required): string or null, maxLength <code>9</code>",
            "one of <code>&quot;a&quot;</code> <code>null</code>",
            "Example: <code>&quot;&lt;b&gt;&quot;</code>",
            "each element: string<div class=\"soft\">[x](javascript:1)&lt;script&gt;</div>",
        ] {
            assert!(found.contains(mention), "{mention} in {found}");
        }
        assert_eq!(shown(&json!(true)), "anything");
        assert_eq!(shown(&json!(false)), "nothing");
        assert_eq!(shown(&json!({ "$ref": "https://a.test/x" })), "<code>https://a.test/x</code> ");
    }

    #[test]
    fn depth_and_length_have_an_end() {
        let mut deep = json!({ "type": "string" });
        for _ in 0..60 {
            deep = json!({ "type": "array", "items": deep });
        }
        let found = shown(&deep);
        assert_eq!(found.matches("<ul").count(), found.matches("</ul>").count());
        assert_eq!(found.matches("each element").count(), DEPTH_MAX);
        let wide: Map<String, Value> = (0..5_000).map(|n| (format!("p{n}"), deep.clone())).collect();
        let mut html = Html::new(10_000);
        write(&mut html, &json!({ "properties": wide }));
        let found = html.finish();
        assert!(found.len() < 12_000, "{}", found.len());
        assert_eq!(found.matches("<ul").count(), found.matches("</ul>").count());
    }
}
