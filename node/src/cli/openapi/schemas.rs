//! Schemas of OpenAPI as JSON Schema 2020-12: those of 3.0 are translated, and all that refer to others get those by name into
//! the contract.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value as Json, json};

use super::document::{Document, step};
use crate::cli::failure::Outcome;

/// What says nothing about a value.
const NOTES: [&str; 14] = [
    "description",
    "title",
    "example",
    "examples",
    "default",
    "deprecated",
    "externalDocs",
    "xml",
    "discriminator",
    "$comment",
    "contentMediaType",
    "contentEncoding",
    "readOnly",
    "writeOnly",
];
/// Maps from free names to schemas.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const SINGLE: [&str; 10] = [
    "items",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Which way the value goes: `readOnly` and `writeOnly` members need not be in the one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Request,
    Answer,
}

/// The named schemas of a contract, as they are found to be needed.
pub struct Named<'d> {
    document: &'d Document,
    /// By pointer; those of both ways are one where the document makes no difference.
    names: BTreeMap<(String, Way), String>,
    taken: BTreeSet<String>,
    waiting: VecDeque<(String, Way, String)>,
    two_ways: bool,
}

impl<'d> Named<'d> {
    pub fn new(document: &'d Document) -> Self {
        let two_ways = says(&document.root, &["readOnly", "writeOnly"]);
        let (names, taken, waiting) = (BTreeMap::new(), BTreeSet::new(), VecDeque::new());
        Self { document, names, taken, waiting, two_ways }
    }

    /// The schema at `at`, as a contract has it.
    pub fn schema(&mut self, at: &str, value: &Json, way: Way) -> Outcome<Json> {
        let way = if self.two_ways { way } else { Way::Request };
        self.translate(at, value, way)
    }

    /// All that those so far refer to.
    pub fn finish(mut self) -> Outcome<Map<String, Json>> {
        let mut made = BTreeMap::new();
        while let Some((pointer, way, name)) = self.waiting.pop_front() {
            let (_, value) = self.document.find(&pointer, &format!("#{pointer}"))?;
            made.insert(name, self.translate(&pointer, value, way)?);
        }
        Ok(made.into_iter().collect())
    }

    fn translate(&mut self, at: &str, value: &Json, way: Way) -> Outcome<Json> {
        let Json::Object(words) = value else { return Ok(value.clone()) };
        let old = self.document.is_v30();
        let reference = words.get("$ref").and_then(Json::as_str);
        if let (Some(reference), true) = (reference, old) {
            // What stands beside it counts for nothing in 3.0.
            return Ok(json!({ "$ref": self.refer(at, reference, way)? }));
        }
        let mut made = Map::new();
        for (word, inner) in words {
            let here = step(at, word);
            let inner = match word.as_str() {
                "$ref" => reference.map_or(Ok(inner.clone()), |it| self.refer(at, it, way).map(Json::String))?,
                _ if NOTES.contains(&word.as_str()) || word.starts_with("x-") => continue,
                _ if old && matches!(word.as_str(), "nullable" | "exclusiveMinimum" | "exclusiveMaximum") => continue,
                _ if NAMED.contains(&word.as_str()) => match inner {
                    Json::Object(map) => {
                        let each = |(name, inner): (&String, &Json)| {
                            Ok((name.clone(), self.translate(&step(&here, name), inner, way)?))
                        };
                        Json::Object(map.iter().map(each).collect::<Outcome<_>>()?)
                    }
                    other => other.clone(),
                },
                _ if LISTS.contains(&word.as_str()) => match inner {
                    Json::Array(list) => {
                        let each =
                            |(place, inner): (usize, &Json)| self.translate(&format!("{here}/{place}"), inner, way);
                        list.iter().enumerate().map(each).collect::<Outcome<_>>()?
                    }
                    other => other.clone(),
                },
                _ if SINGLE.contains(&word.as_str()) => self.translate(&here, inner, way)?,
                "required" => required(inner, words, way, self),
                _ => inner.clone(),
            };
            made.insert(word.clone(), inner);
        }
        if made.get("required").and_then(Json::as_array).is_some_and(Vec::is_empty) {
            made.shift_remove("required");
        }
        Ok(match old {
            true => with_the_words_of_3_0(made, words),
            false => Json::Object(made),
        })
    }

    /// `#/schemas/Order`, or what is within it.
    fn refer(&mut self, at: &str, reference: &str, way: Way) -> Outcome<String> {
        let (pointer, _) = self.document.find(at, reference)?;
        let mut steps = pointer.splitn(5, '/').skip(1);
        let (root, rest) = match (steps.next(), steps.next(), steps.next(), steps.next()) {
            (Some("components"), Some("schemas"), Some(name), rest) => {
                (format!("/components/schemas/{name}"), rest.map(|it| format!("/{it}")).unwrap_or_default())
            }
            _ => (pointer.clone(), String::new()),
        };
        let key = (root.clone(), way);
        let name = match self.names.get(&key) {
            Some(name) => name.clone(),
            None => {
                let plain = root.rsplit('/').next().unwrap_or_default().replace("~1", "_").replace("~0", "_");
                let plain = if way == Way::Answer { format!("{plain}.answer") } else { plain };
                let mut name = plain.clone();
                for number in 2.. {
                    if self.taken.insert(name.clone()) {
                        break;
                    }
                    name = format!("{plain}.{number}");
                }
                self.names.insert(key, name.clone());
                self.waiting.push_back((root, way, name.clone()));
                name
            }
        };
        Ok(format!("#{}{rest}", step("/schemas", &name)))
    }
}

/// Without those that do not go this way.
fn required(list: &Json, words: &Map<String, Json>, way: Way, named: &Named<'_>) -> Json {
    let Json::Array(list) = list else { return list.clone() };
    let marker = if way == Way::Request { "readOnly" } else { "writeOnly" };
    let goes = |name: &&Json| {
        let property = name.as_str().and_then(|name| words.get("properties")?.get(name));
        let property = property.map(|it| match it.get("$ref").and_then(Json::as_str) {
            Some(reference) => named.document.find("", reference).map_or(it, |(_, found)| found),
            None => it,
        });
        !named.two_ways || property.and_then(|it| it.get(marker)) != Some(&Json::Bool(true))
    };
    list.iter().filter(goes).cloned().collect()
}

/// `nullable`, and limits that are exclusive by a word of their own.
fn with_the_words_of_3_0(mut made: Map<String, Json>, words: &Map<String, Json>) -> Json {
    for (limit, word) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        if words.get(word) == Some(&Json::Bool(true))
            && let Some(limit) = made.shift_remove(limit)
        {
            made.insert(word.to_owned(), limit);
        }
    }
    // Where no type is said, null is none of what is left out.
    if words.get("nullable") != Some(&Json::Bool(true)) {
        return Json::Object(made);
    }
    if let Some(values) = made.get_mut("enum").and_then(Json::as_array_mut)
        && !values.contains(&Json::Null)
    {
        values.push(Json::Null);
    }
    match made.get("type").cloned() {
        Some(Json::String(word)) => {
            made.insert("type".to_owned(), json!([word, "null"]));
            // These would still be asked of it.
            match made.keys().any(|it| matches!(it.as_str(), "allOf" | "anyOf" | "oneOf" | "not")) {
                true => json!({ "anyOf": [{ "type": "null" }, made] }),
                false => Json::Object(made),
            }
        }
        _ => json!({ "anyOf": [{ "type": "null" }, made] }),
    }
}

/// Whether one of these words is anywhere in it.
pub fn says(value: &Json, words: &[&str]) -> bool {
    match value {
        Json::Object(map) => map.iter().any(|(name, inner)| words.contains(&name.as_str()) || says(inner, words)),
        Json::Array(list) => list.iter().any(|inner| says(inner, words)),
        _ => false,
    }
}
