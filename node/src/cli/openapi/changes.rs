//! What clients of an older contract would notice of a newer one: requests that were taken and no longer are, answers that may be
//! what they were not, and credentials that were not asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::{document::members, security::Shown};

/// How deep schemas are compared.
const DEPTH_MAX: usize = 32;
/// How many are told.
const TOLD_MAX: usize = 200;

/// How deep alternatives are tried within alternatives; below, new ones are told of.
const TRIED_MAX: usize = 3;

/// How an operation is told of that there was.
pub const GONE: &str = "the operation is gone";
/// What stands in a text by itself.
const SCALARS: [&str; 5] = ["string", "integer", "number", "boolean", "null"];

/// Words of which it is only told that they changed.
const OTHERS: [&str; 13] = [
    "patternProperties",
    "prefixItems",
    "propertyNames",
    "contains",
    "minContains",
    "maxContains",
    "dependentRequired",
    "dependentSchemas",
    "if",
    "then",
    "else",
    "unevaluatedProperties",
    "unevaluatedItems",
];

/// Which way a schema may not become another: requests not narrower, answers not wider.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Request,
    /// Of a parameter, which is a text before it is anything else.
    Text,
    Answer,
}

impl Way {
    fn is_request(self) -> bool {
        self != Self::Answer
    }

    /// Of the older schema: what does not say what it takes takes any text.
    fn types(self, wide: &Map<String, Json>) -> Vec<&str> {
        match types(wide) {
            none if none.is_empty() && self == Self::Text => vec!["string"],
            some => some,
        }
    }

    fn takes(self, types: &[&str], it: &str) -> bool {
        types.contains(&it)
            || (it == "integer" && types.contains(&"number"))
            || self == Self::Text && types.contains(&"string") && SCALARS.contains(&it)
    }

    fn is_among(self, values: &[Json], it: &Json) -> bool {
        let text = |it: &Json| it.as_str().map_or_else(|| it.to_string(), str::to_owned);
        values.contains(it) || self == Self::Text && values.iter().any(|other| text(other) == text(it))
    }
}

/// Each in words.
#[derive(Debug, Default)]
pub struct Told {
    /// Clients would break; empty: nothing does.
    pub breaking: Vec<String>,
    /// What a client that goes by the document should know, and bears if it was made with care.
    pub notes: Vec<String>,
}

struct Changes<'c> {
    old: &'c Json,
    new: &'c Json,
    told: Vec<String>,
    notes: Vec<String>,
    /// Pairs of references that are compared already.
    compared: BTreeSet<(String, String, Way)>,
    /// How many alternatives this is tried within.
    tried: usize,
}

/// Both are contracts as policies have them, with who may ask.
pub fn told(old: &Json, new: &Json) -> Told {
    let mut changes = Changes { old, new, told: Vec::new(), notes: Vec::new(), compared: BTreeSet::new(), tried: 0 };
    let (before, after) = (operations(old), operations(new));
    for (key, it) in before {
        match after.get(&key) {
            None => changes.tell(&key, GONE),
            Some(now) => changes.operation(&key, it, now),
        }
    }
    changes.told.truncate(TOLD_MAX);
    changes.notes.truncate(TOLD_MAX);
    Told { breaking: changes.told, notes: changes.notes }
}

/// By method and path, whatever parameters are called.
fn operations(contract: &Json) -> BTreeMap<String, &Json> {
    let text = |it: &Json, word: &str| it[word].as_str().unwrap_or_default().to_owned();
    let shape = |path: String| {
        let mut shape = String::new();
        for (place, part) in path.split('{').enumerate() {
            match (place, part.split_once('}')) {
                (1.., Some((_, rest))) => shape += &format!("{{}}{rest}"),
                _ => shape += part,
            }
        }
        shape
    };
    let list = contract["operations"].as_array().into_iter().flatten();
    list.map(|it| (format!("{} {}", text(it, "method"), shape(text(it, "path"))), it)).collect()
}

impl<'c> Changes<'c> {
    fn tell(&mut self, at: &str, what: &str) {
        self.told.push(format!("{at}: {what}"));
    }

    fn operation(&mut self, at: &str, old: &'c Json, new: &'c Json) {
        self.credentials(at, old, new);
        let parameters = |it: &'c Json| -> BTreeMap<(String, String), &'c Json> {
            let list = it["parameters"].as_array().into_iter().flatten().filter(|it| it["in"] != "path");
            list.map(|it| ((it["in"].to_string(), it["name"].to_string().to_lowercase()), it)).collect()
        };
        let in_path = |it: &'c Json| it["parameters"].as_array().into_iter().flatten().filter(|it| it["in"] == "path");
        let (before, after) = (parameters(old), parameters(new));
        for (key, now) in &after {
            let name = format!("{at} {}", now["name"].as_str().unwrap_or_default());
            let was = before.get(key);
            let is_required = |it: &Json| it["required"] == true;
            if is_required(now) && !was.is_some_and(|was| is_required(was)) {
                self.tell(&name, "the parameter is required now");
            }
            if let Some(was) = was {
                if (&was["style"], &was["explode"]) != (&now["style"], &now["explode"]) {
                    self.tell(&name, "the parameter is written in another way now");
                }
                let way = if now["style"] == "json" { Way::Request } else { Way::Text };
                self.schema(&name, was.get("schema"), now.get("schema"), way, 0);
            }
        }
        for (was, now) in in_path(old).zip(in_path(new)) {
            let name = format!("{at} {}", now["name"].as_str().unwrap_or_default());
            self.schema(&name, was.get("schema"), now.get("schema"), Way::Text, 0);
        }
        self.bodies(&format!("{at} body"), old.get("body"), new.get("body"));
        let answers = |it: &'c Json| -> BTreeMap<&'c str, &'c Json> {
            let list = it["responses"].as_array().into_iter().flatten();
            list.filter_map(|it| Some((it["status"].as_str()?, it))).collect()
        };
        let (before, after) = (answers(old), answers(new));
        for (status, was) in before {
            let at = format!("{at} answer {status}");
            let range = format!("{}XX", status.get(..1).unwrap_or_default());
            match after.get(status).or_else(|| after.get(range.as_str())) {
                None if status.starts_with('2') => self.tell(&at, "it is gone"),
                None => self.notes.push(format!("{at}: it is gone")),
                Some(now) => self.contents(&at, was, now, Way::Answer),
            }
        }
    }

    /// Whoever had what was asked for has to have what is.
    fn credentials(&mut self, at: &str, old: &Json, new: &Json) {
        let asked = |it: &Json| -> Vec<Shown> {
            let all: Vec<Shown> = serde_json::from_value(it["security"].clone()).unwrap_or_default();
            if all.is_empty() || all.iter().any(Shown::is_empty) { vec![Shown::new()] } else { all }
        };
        let names = |it: &Shown| it.keys().cloned().collect::<Vec<_>>().join(" and ");
        let (before, after) = (asked(old), asked(new));
        let has = |had: &Shown, it: &Shown| {
            it.iter().all(|(name, scopes)| had.get(name).is_some_and(|have| scopes.is_subset(have)))
        };
        let Some(had) = before.iter().find(|had| !after.iter().any(|it| has(had, it))) else { return };
        let of_both = after.iter().find(|it| it.keys().all(|name| had.contains_key(name)));
        let what = match of_both {
            Some(it) => {
                let missing = it.iter().flat_map(|(name, scopes)| scopes.difference(&had[name]));
                format!("scopes are asked for now: {}", missing.cloned().collect::<Vec<_>>().join(", "))
            }
            None => {
                let now = after.iter().map(names).collect::<Vec<_>>().join(" or ");
                let was = if had.is_empty() { "none".to_owned() } else { names(had) };
                format!("credentials are asked for now: {now}; before it was {was}")
            }
        };
        self.tell(at, &what);
    }

    fn bodies(&mut self, at: &str, old: Option<&'c Json>, new: Option<&'c Json>) {
        let is_required = |it: Option<&Json>| it.is_some_and(|it| it["required"] == true);
        if is_required(new) && !is_required(old) {
            self.tell(at, "it is required now");
        }
        match (old, new) {
            (Some(_), None) => self.tell(at, "none is taken any more"),
            (Some(old), Some(new)) => self.contents(at, old, new, Way::Request),
            _ => {}
        }
    }

    fn contents(&mut self, at: &str, old: &'c Json, new: &'c Json, way: Way) {
        let contents = |it: &'c Json| -> BTreeMap<&'c str, &'c Json> {
            let list = it["content"].as_array().into_iter().flatten();
            list.filter_map(|it| Some((it["type"].as_str()?, it))).collect()
        };
        let (before, after) = (contents(old), contents(new));
        for (media, was) in before {
            // Of requests: a range takes what it is the range of.
            let ranges = [format!("{}/*", media.split('/').next().unwrap_or_default()), "*/*".to_owned()];
            let in_range = || ranges.iter().filter(|_| way.is_request()).find_map(|it| after.get(it.as_str()));
            match after.get(media).or_else(in_range) {
                None => self.tell(at, &format!("{media} is gone")),
                Some(now) => self.schema(&format!("{at} {media}"), was.get("schema"), now.get("schema"), way, 0),
            }
        }
    }

    /// Where a schema is missing anything goes.
    fn schema(&mut self, at: &str, old: Option<&'c Json>, new: Option<&'c Json>, way: Way, depth: usize) {
        if depth >= DEPTH_MAX || self.told.len() >= TOLD_MAX {
            return;
        }
        match (old.filter(|it| it.is_object()).map(unfolded), new.filter(|it| it.is_object()).map(unfolded)) {
            (Some(old), Some(new)) => {
                // What stands beside a reference is asked for too.
                let narrow = if way.is_request() { new } else { old };
                if let (Some(was), Some(now)) = (old.as_object(), new.as_object())
                    && narrow.as_object().is_some_and(|it| it.contains_key("$ref") && it.len() > 1)
                {
                    self.words(at, was, now, way, depth);
                }
                let names = [old, new].map(|it| it["$ref"].as_str().unwrap_or_default().to_owned());
                if names.iter().all(|it| !it.is_empty()) {
                    let [was, now] = names;
                    if !self.compared.insert((was, now, way)) {
                        return;
                    }
                }
                let (Some(old), Some(new)) = (resolved(self.old, old), resolved(self.new, new)) else { return };
                self.words(at, old, new, way, depth);
            }
            (None, Some(_)) if way.is_request() => self.tell(at, "it has a schema now, and had none"),
            (Some(_), None) if way == Way::Answer => self.tell(at, "it has no schema any more"),
            _ => {}
        }
    }

    fn words(&mut self, at: &str, old: &'c Map<String, Json>, new: &'c Map<String, Json>, way: Way, depth: usize) {
        // The side that promises more than the other would be: `narrow` may not ask for what `wide` does not.
        let (wide, narrow) = if way.is_request() { (old, new) } else { (new, old) };
        let changed = if way.is_request() { "is narrower now" } else { "is wider now" };
        let (before, after) = (way.types(wide), types(narrow));
        if !after.is_empty() && (before.is_empty() || !before.iter().all(|it| way.takes(&after, it))) {
            self.tell(at, &format!("type {changed}"));
        }
        let values = |it: &'c Map<String, Json>| it.get("enum").and_then(Json::as_array);
        if let Some(after) = values(narrow)
            && values(wide).is_none_or(|before| before.iter().any(|it| !way.is_among(after, it)))
        {
            self.tell(at, &format!("enum {changed}"));
        }
        for (word, is_upper) in [
            ("maximum", true),
            ("exclusiveMaximum", true),
            ("maxLength", true),
            ("maxItems", true),
            ("maxProperties", true),
            ("minimum", false),
            ("exclusiveMinimum", false),
            ("minLength", false),
            ("minItems", false),
            ("minProperties", false),
        ] {
            let Some(after) = narrow.get(word).and_then(Json::as_f64) else { continue };
            let before = wide.get(word).and_then(Json::as_f64);
            if before.is_none_or(|before| if is_upper { after < before } else { after > before }) {
                self.tell(at, &format!("{word} {changed}"));
            }
        }
        for word in ["pattern", "format", "const", "multipleOf", "uniqueItems", "not"] {
            if narrow.get(word).is_some_and(|it| *it != json!(false)) && narrow.get(word) != wide.get(word) {
                self.tell(at, &format!("{word} is another now"));
            }
        }
        for word in OTHERS {
            if narrow.get(word).is_some_and(|it| !takes_all(it)) && narrow.get(word) != wide.get(word) {
                self.tell(at, &format!("{word} is another now"));
            }
        }
        let required = |it: &'c Map<String, Json>| -> BTreeSet<&'c str> {
            it.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
        };
        for name in required(narrow).difference(&required(wide)) {
            let what = if way.is_request() { "is required now" } else { "may be missing now" };
            self.tell(at, &format!("{name} {what}"));
        }
        self.inner(at, old, new, way, depth);
    }

    /// Whether one alternative of the narrower side alone takes whatever the other side takes.
    fn is_within(&self, wide: &'c Map<String, Json>, alternative: &'c Json, way: Way, depth: usize) -> bool {
        if takes_all(alternative) {
            return true;
        }
        if self.tried >= TRIED_MAX || depth >= DEPTH_MAX {
            return false;
        }
        let root = if way.is_request() { self.new } else { self.old };
        let alternative = unfolded(alternative);
        let is_plain = alternative.as_object().is_some_and(|it| !it.contains_key("$ref") || it.len() == 1);
        let Some(narrow) = resolved(root, alternative).filter(|_| is_plain) else { return false };
        let (old, new) = if way.is_request() { (wide, narrow) } else { (narrow, wide) };
        let (told, notes, compared) = (Vec::new(), Vec::new(), self.compared.clone());
        let mut trial = Changes { old: self.old, new: self.new, told, notes, compared, tried: self.tried + 1 };
        trial.words("", old, new, way, depth + 1);
        trial.told.is_empty()
    }

    /// What may be `true` or `false` too; where it is missing anything goes.
    fn part(&mut self, at: &str, old: Option<&'c Json>, new: Option<&'c Json>, way: Way, depth: usize) {
        let (wide, narrow) = if way.is_request() { (old, new) } else { (new, old) };
        let is_none = |it: Option<&Json>| it.is_some_and(|it| *it == json!(false));
        if is_none(wide) || narrow.is_none_or(takes_all) {
            return;
        }
        if is_none(narrow) {
            return self.tell(at, if way.is_request() { "it is refused now" } else { "it may be there now" });
        }
        self.schema(at, old, new, way, depth + 1);
    }

    fn inner(&mut self, at: &str, old: &'c Map<String, Json>, new: &'c Map<String, Json>, way: Way, depth: usize) {
        let is_closed = |it: &Map<String, Json>| it.get("additionalProperties") == Some(&json!(false));
        let properties = new.get("properties");
        for (name, was) in members(old.get("properties")) {
            let at = format!("{at} {name}");
            match properties.and_then(|it| it.get(name)) {
                Some(now) => self.part(&at, Some(was), Some(now), way, depth),
                None if way == Way::Answer => self.tell(&at, "it is gone"),
                None if is_closed(new) => self.tell(&at, "it is refused now"),
                None => {}
            }
        }
        if way.is_request() && is_closed(new) && !is_closed(old) {
            self.tell(at, "members that are not listed are refused now");
        }
        self.part(&format!("{at} items"), old.get("items"), new.get("items"), way, depth);
        let [was, now] = [old, new].map(|it| it.get("additionalProperties"));
        if !is_closed(old) && !is_closed(new) {
            self.part(&format!("{at} other members"), was, now, way, depth);
        }
        for word in ["allOf", "anyOf", "oneOf"] {
            let list = |it: &'c Map<String, Json>| it.get(word).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
            let (before, after) = (list(old), list(new));
            let lost = match (word, way) {
                ("allOf", Way::Request | Way::Text) | ("anyOf" | "oneOf", Way::Answer) => after.len() > before.len(),
                _ => after.len() < before.len(),
            };
            if lost && (word == "allOf" || !before.is_empty()) {
                self.tell(at, &format!("{word} has {} alternatives, and had {}", after.len(), before.len()));
            }
            let (wide, narrow) = if way.is_request() { (before, after) } else { (after, before) };
            if word != "allOf" && wide.is_empty() && !narrow.is_empty() {
                let whole = if way.is_request() { old } else { new };
                if !narrow.iter().any(|it| self.is_within(whole, it, way, depth)) {
                    let what = if way.is_request() { "is there now, and was not" } else { "is gone" };
                    self.tell(at, &format!("{word} {what}"));
                }
            }
            for (place, (was, now)) in before.iter().zip(after).enumerate() {
                self.schema(&format!("{at} {word}[{place}]"), Some(was), Some(now), way, depth + 1);
            }
        }
    }
}

fn takes_all(schema: &Json) -> bool {
    *schema == json!(true) || schema.as_object().is_some_and(Map::is_empty)
}

/// `allOf` of one alone is that one.
fn unfolded(schema: &Json) -> &Json {
    let mut schema = schema;
    for _ in 0..DEPTH_MAX {
        match schema
            .as_object()
            .filter(|it| it.len() == 1)
            .and_then(|it| it.get("allOf")?.as_array())
            .map(Vec::as_slice)
        {
            Some([one]) => schema = one,
            _ => break,
        }
    }
    schema
}

/// What a schema that is a reference stands for, without what is beside it.
fn resolved<'c>(contract: &'c Json, schema: &'c Json) -> Option<&'c Map<String, Json>> {
    let mut schema = schema;
    for _ in 0..DEPTH_MAX {
        match schema["$ref"].as_str().and_then(|it| it.strip_prefix('#')) {
            Some(pointer) => schema = contract.pointer(pointer)?,
            None => return schema.as_object(),
        }
    }
    None
}

fn types(words: &Map<String, Json>) -> Vec<&str> {
    match words.get("type") {
        Some(Json::String(it)) => vec![it.as_str()],
        Some(Json::Array(list)) => list.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(operation: Json) -> Json {
        json!({ "operations": [operation], "schemas": { "A": { "type": "object", "properties": { "a": { "$ref": "#/schemas/A" } } } } })
    }

    #[track_caller]
    fn check(old: Json, new: Json, expected: &[&str]) {
        assert_eq!(told(&contract(old), &contract(new)).breaking, expected);
    }

    fn body(schema: Json) -> Json {
        json!({ "method": "POST", "path": "/{id}", "body": { "content": [{ "type": "application/json", "schema": schema }] } })
    }

    fn answer(schema: Json) -> Json {
        let content = json!([{ "type": "application/json", "schema": schema }]);
        json!({ "method": "GET", "path": "/", "responses": [{ "status": "200", "content": content }] })
    }

    #[test]
    fn requests_that_were_taken_are_taken() {
        let plain = json!({ "method": "GET", "path": "/x/{id}" });
        check(plain.clone(), json!({ "method": "GET", "path": "/x/{name}" }), &[]);
        check(plain.clone(), json!({ "method": "GET", "path": "/y/{id}" }), &["GET /x/{}: the operation is gone"]);
        let with = |it: Json| json!({ "method": "GET", "path": "/x/{id}", "parameters": [it] });
        let query = |required: bool, schema: Json| {
            with(json!({ "in": "query", "name": "q", "required": required, "schema": schema }))
        };
        check(plain.clone(), query(false, json!({})), &[]);
        check(plain, query(true, json!({})), &["GET /x/{} q: the parameter is required now"]);
        check(
            query(false, json!({ "type": "number" })),
            query(false, json!({ "type": "integer" })),
            &["GET /x/{} q: type is narrower now"],
        );
        check(query(false, json!({ "type": "integer" })), query(false, json!({ "type": "number" })), &[]);
        check(
            query(false, json!({ "enum": [1, 2] })),
            query(false, json!({ "enum": [2, 3] })),
            &["GET /x/{} q: enum is narrower now"],
        );
        let object =
            |required: Json, a: Json| body(json!({ "type": "object", "required": required, "properties": { "a": a } }));
        check(
            object(json!([]), json!({})),
            object(json!(["a"]), json!({})),
            &["POST /{} body application/json: a is required now"],
        );
        check(
            object(json!([]), json!({ "maxLength": 9 })),
            object(json!([]), json!({ "maxLength": 8, "minLength": 1 })),
            &[
                "POST /{} body application/json a: maxLength is narrower now",
                "POST /{} body application/json a: minLength is narrower now",
            ],
        );
        let closed = body(json!({ "type": "object", "additionalProperties": false }));
        let expected = [
            "POST /{} body application/json a: it is refused now",
            "POST /{} body application/json: members that are not listed are refused now",
        ];
        check(object(json!([]), json!({})), closed, &expected);
        let itself = body(json!({ "$ref": "#/schemas/A" }));
        check(itself.clone(), itself, &[]);
    }

    #[test]
    fn a_parameter_is_a_text_before_it_is_anything_else() {
        let with = |place: &str, schema: Json, style: Option<&str>| {
            let mut parameter = json!({ "in": place, "name": "q", "schema": schema });
            style.into_iter().for_each(|it| parameter["style"] = json!(it));
            json!({ "method": "GET", "path": "/{q}", "parameters": [parameter] })
        };
        let list = |of: &str| json!({ "type": "array", "items": { "type": of } });
        for (was, now, expected) in [
            (json!({ "type": "integer", "minimum": 1 }), json!({ "type": "string" }), None),
            (json!({ "type": ["boolean", "null"] }), json!({ "type": "string" }), None),
            (json!({}), json!({ "type": "string" }), None),
            (list("integer"), list("string"), None),
            (json!({ "enum": [1, true] }), json!({ "enum": ["1", "true", "x"] }), None),
            (json!({ "type": "string" }), json!({ "type": "integer" }), Some("type is narrower now")),
            (json!({}), json!({ "type": "integer" }), Some("type is narrower now")),
            (list("integer"), json!({ "type": "string" }), Some("type is narrower now")),
            (
                json!({ "type": "integer" }),
                json!({ "type": "string", "maxLength": 2 }),
                Some("maxLength is narrower now"),
            ),
            (json!({ "enum": [1, 2] }), json!({ "enum": ["1"] }), Some("enum is narrower now")),
        ] {
            for place in ["path", "query"] {
                let expected: Vec<_> = expected.iter().map(|it| format!("GET /{{}} q: {it}")).collect();
                let found = told(&contract(with(place, was.clone(), None)), &contract(with(place, now.clone(), None)));
                assert_eq!(found.breaking, expected, "{place}: {was} {now}");
            }
        }
        // JSON has types of its own, in a parameter too.
        let json = |kind: &str| with("query", json!({ "type": kind }), Some("json"));
        check(json("integer"), json("string"), &["GET /{} q: type is narrower now"]);
        let member = |kind: &str| body(json!({ "type": kind }));
        check(member("integer"), member("string"), &["POST /{} body application/json: type is narrower now"]);
    }

    #[test]
    fn schemas_inside_of_schemas_and_beside_references_are_compared() {
        let at = "POST /{} body application/json";
        let others = |schema: Json| body(json!({ "type": "object", "additionalProperties": schema }));
        let (text, number) = (json!({ "type": "string" }), json!({ "type": "integer" }));
        let narrower = format!("{at} other members: type is narrower now");
        check(others(text.clone()), others(number.clone()), &[&narrower]);
        check(others(text.clone()), others(json!(true)), &[]);
        check(others(json!(false)), others(text.clone()), &[]);
        let had_none = format!("{at} other members: it has a schema now, and had none");
        check(body(json!({ "type": "object" })), others(number), &[&had_none]);
        let items = |schema: Json| body(json!({ "type": "array", "items": schema }));
        check(items(text.clone()), items(json!(false)), &[&format!("{at} items: it is refused now")]);
        for (word, value) in [
            ("patternProperties", json!({ "^a": { "type": "integer" } })),
            ("prefixItems", json!([{ "type": "integer" }])),
            ("minContains", json!(2)),
            ("dependentRequired", json!({ "a": ["b"] })),
            ("then", json!({ "required": ["a"] })),
            ("unevaluatedProperties", json!(false)),
        ] {
            let (without, with) = (body(json!({})), body(json!({ word: value })));
            check(without.clone(), with.clone(), &[&format!("{at}: {word} is another now")]);
            check(with, without, &[]);
        }
        let a = json!({ "$ref": "#/schemas/A" });
        let beside = body(json!({ "$ref": "#/schemas/A", "maxProperties": 3 }));
        check(body(a.clone()), beside.clone(), &[&format!("{at}: maxProperties is narrower now")]);
        check(beside.clone(), beside.clone(), &[]);
        check(beside, body(a.clone()), &[]);
        check(body(a.clone()), body(json!({ "allOf": [a] })), &[]);
    }

    #[test]
    fn alternatives_that_were_not_there_take_less_unless_one_takes_it_all() {
        let at = "POST /{} body application/json";
        let (text, none) = (json!({ "type": "string" }), json!({ "type": "null" }));
        for word in ["anyOf", "oneOf"] {
            let of = |all: Json| json!({ word: all });
            let new = format!("{at}: {word} is there now, and was not");
            check(body(json!({})), body(of(json!([text, none]))), &[&new]);
            let object = json!({ "type": "object" });
            let either = json!({ "type": "object", word: [{ "required": ["a"] }, { "required": ["b"] }] });
            check(body(object.clone()), body(either.clone()), &[&new]);
            check(body(either.clone()), body(either.clone()), &[]);
            check(body(text.clone()), body(of(json!([none, text]))), &[]);
            check(body(object.clone()), body(of(json!([{ "$ref": "#/schemas/A" }, {}]))), &[]);
            let deep = (0..8).fold(text.clone(), |it, _| of(json!([it, none])));
            check(body(text.clone()), body(deep), &[&new]);
            let gone = format!("GET / answer 200 application/json: {word} is gone");
            check(answer(either.clone()), answer(object.clone()), &[&gone]);
            check(answer(object), answer(either), &[]);
            let nullable = answer(of(json!([text, none])));
            check(nullable.clone(), answer(text.clone()), &[]);
        }
    }

    #[test]
    fn a_range_takes_what_it_is_the_range_of() {
        let of = |media: &str, status: &str| {
            let content = json!([{ "type": media, "schema": { "type": "string" } }]);
            let answer = json!([{ "type": "text/plain", "schema": { "type": "string" } }]);
            json!({ "method": "POST", "path": "/", "body": { "content": content },
                "responses": [{ "status": status, "content": answer }] })
        };
        check(of("text/plain", "200"), of("text/*", "2XX"), &[]);
        check(of("image/*", "200"), of("*/*", "200"), &[]);
        check(of("text/*", "200"), of("text/plain", "200"), &["POST / body: text/* is gone"]);
        check(of("*/*", "2XX"), of("*/*", "200"), &["POST / answer 2XX: it is gone"]);
    }

    #[test]
    fn who_could_ask_can_ask() {
        let asks = |security: Json| json!({ "method": "GET", "path": "/", "security": security });
        let (key, key_or_basic) = (json!([{ "key": [] }]), json!([{ "key": [] }, { "basic": [] }]));
        let read = |scopes: &[&str]| json!([{ "oauth2": scopes }]);
        for (was, now, expected) in [
            (key.clone(), key_or_basic.clone(), None),
            (key.clone(), json!([]), None),
            (key.clone(), json!([{}, { "basic": [] }]), None),
            (json!([{ "basic": [], "key": [] }]), key.clone(), None),
            (read(&["a", "b"]), read(&["b"]), None),
            (json!([]), json!([{}]), None),
            (Json::Null, key.clone(), Some("credentials are asked for now: key; before it was none")),
            (json!([{ "key": [] }, {}]), key.clone(), Some("credentials are asked for now: key; before it was none")),
            (key_or_basic.clone(), key.clone(), Some("credentials are asked for now: key; before it was basic")),
            (
                key.clone(),
                json!([{ "basic": [], "key": [] }]),
                Some("credentials are asked for now: basic and key; before it was key"),
            ),
            (read(&["a"]), read(&["b", "a", "c"]), Some("scopes are asked for now: b, c")),
            (read(&[]), read(&["a"]), Some("scopes are asked for now: a")),
        ] {
            let expected: Vec<_> = expected.iter().map(|it| format!("GET /: {it}")).collect();
            let found = told(&contract(asks(was.clone())), &contract(asks(now.clone())));
            assert_eq!(found.breaking, expected, "{was} {now}");
        }
    }

    #[test]
    fn answers_are_not_what_they_were_not() {
        let object = |required: Json, a: Json| answer(json!({ "required": required, "properties": { "a": a } }));
        let at = "GET / answer 200 application/json";
        check(object(json!(["a"]), json!({})), object(json!([]), json!({})), &[&format!("{at}: a may be missing now")]);
        check(object(json!([]), json!({})), object(json!(["a"]), json!({})), &[]);
        check(object(json!([]), json!({})), answer(json!({ "properties": {} })), &[&format!("{at} a: it is gone")]);
        check(
            object(json!([]), json!({ "type": "string", "enum": ["x"] })),
            object(json!([]), json!({ "type": ["string", "null"], "enum": ["x", null] })),
            &[&format!("{at} a: type is wider now"), &format!("{at} a: enum is wider now")],
        );
        check(
            answer(json!({})),
            json!({ "method": "GET", "path": "/", "responses": [] }),
            &["GET / answer 200: it is gone"],
        );
        // Clients have to bear failures of any kind: these are told of, and break nobody.
        let answers = |all: [&str; 2]| {
            let all = all.map(|it| json!({ "status": it, "content": [] }));
            contract(json!({ "method": "GET", "path": "/", "responses": all }))
        };
        let found = told(&answers(["200", "404"]), &answers(["200", "409"]));
        assert_eq!((found.breaking, found.notes), (vec![], vec!["GET / answer 404: it is gone".to_owned()]));
    }
}
