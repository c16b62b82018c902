//! Parameters and forms as values that a schema can be held against. Whatever an upstream may read of them is looked at: every
//! occurrence, and what may be there once is not there twice.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, header, request::Parts};
use percent_encoding::percent_decode_str;
use quorumgate_model::resource::{ParameterPlace, ParameterStyle};
use serde_json::{Map, Value};

use super::{Operation, Parameter};
use crate::inspect::{
    found::{Place, Step, Violation, pointer},
    schema::{Found, Id, Schemas, Shape, TooMuch},
};

/// A request's head, taken apart as far as an operation asks.
struct Head<'r> {
    path: &'r [(&'r str, &'r str)],
    /// Names as they mean, values as they stand there.
    query: Vec<(Cow<'r, str>, &'r str)>,
    headers: &'r HeaderMap,
    cookies: Vec<(&'r str, &'r str)>,
}

/// What an operation does not take of the head.
pub(super) fn parameters(
    schemas: &Schemas,
    operation: &Operation,
    parts: &Parts,
    path: &[(&str, &str)],
) -> Vec<Violation> {
    let mut found = Vec::new();
    let asks = |place: ParameterPlace| operation.parameters.iter().any(|it| it.place == place);
    let query = parts.uri.query().filter(|_| asks(ParameterPlace::Query)).unwrap_or_default();
    let mut head = Head { path, query: Vec::new(), headers: &parts.headers, cookies: Vec::new() };
    for pair in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match decoded(name, Plus::Blank) {
            Some(name) => head.query.push((name, value)),
            // A server may read any name out of it.
            None => found.push(violation(Place::Query, String::new(), "encoding", "a name is not text in UTF-8")),
        }
    }
    if asks(ParameterPlace::Cookie) {
        for field in parts.headers.get_all(header::COOKIE) {
            let Ok(field) = field.to_str() else {
                found.push(violation(Place::Cookie, String::new(), "encoding", "it is not text"));
                continue;
            };
            head.cookies.extend(field.split(';').filter_map(|it| it.trim().split_once('=')));
        }
    }
    for it in &operation.parameters {
        parameter(schemas, it, &head, &mut found);
    }
    found
}

fn parameter(schemas: &Schemas, it: &Parameter, head: &Head<'_>, found: &mut Vec<Violation>) {
    let place = place(it.place);
    let at = pointer(&[Step::Key(it.name.as_str().into())]);
    let mut wrong = |rule, detail: &'static str| found.push(violation(place, at.clone(), rule, detail));
    let Some(texts) = occurrences(it, head) else { return wrong("encoding", "it is not text in UTF-8") };
    let value = match (texts.as_slice(), it.schema) {
        ([], _) if it.required => return wrong("required", "it is missing"),
        ([], _) | (_, None) => return,
        (texts, Some((id, Shape::Array(items)))) if it.style != ParameterStyle::Json => {
            let Some(texts) = elements(it, texts) else {
                return wrong("repeated", "it is there more than once, and its values belong together");
            };
            let texts: Option<Vec<_>> = texts.iter().map(|text| plain(it, text)).collect();
            let Some(texts) = texts else { return wrong("encoding", "it is not text in UTF-8") };
            (id, array(schemas, items, texts.into_iter()))
        }
        ([text], Some((id, _))) => {
            let Some(text) = plain(it, text) else { return wrong("encoding", "it is not text in UTF-8") };
            match it.style {
                ParameterStyle::Json => match super::request::json(text.as_bytes()) {
                    Ok(value) => (id, value),
                    Err(errors) => {
                        let moved =
                            |error: Violation| Violation { place, pointer: format!("{at}{}", error.pointer), ..error };
                        return found.extend(errors.into_iter().map(moved));
                    }
                },
                _ => (id, schemas.read(id, &text)),
            }
        }
        _ => return wrong("repeated", "it is there more than once"),
    };
    let (id, value) = value;
    let bytes = texts.iter().map(|it| it.len()).sum::<usize>();
    found.extend(checked(schemas.check(id, &value, bytes), place, &at));
}

/// As violations of this place.
pub(super) fn checked(found: Result<Vec<Found>, TooMuch>, place: Place, at: &str) -> Vec<Violation> {
    match found {
        Ok(found) => found
            .into_iter()
            .map(|it| Violation { place, pointer: format!("{at}{}", it.pointer), rule: it.rule, detail: it.detail })
            .collect(),
        Err(TooMuch) => {
            let detail = "what its schema asks takes more work than a value of this size may cost";
            vec![violation(place, at.to_owned(), "too_complex", detail)]
        }
    }
}

pub(super) fn violation(place: Place, pointer: String, rule: &'static str, detail: &'static str) -> Violation {
    Violation { place, pointer, rule, detail: detail.into() }
}

fn place(it: ParameterPlace) -> Place {
    match it {
        ParameterPlace::Path => Place::Path,
        ParameterPlace::Query => Place::Query,
        ParameterPlace::Header => Place::Header,
        ParameterPlace::Cookie => Place::Cookie,
    }
}

/// Each as it stands there. None: one is no text.
fn occurrences<'r>(it: &Parameter, head: &Head<'r>) -> Option<Vec<&'r str>> {
    match it.place {
        ParameterPlace::Path => {
            Some(head.path.iter().filter(|(name, _)| *name == it.name).map(|(_, text)| *text).collect())
        }
        ParameterPlace::Query => {
            Some(head.query.iter().filter(|(name, _)| *name == it.name).map(|(_, text)| *text).collect())
        }
        ParameterPlace::Cookie => {
            Some(head.cookies.iter().filter(|(name, _)| *name == it.name).map(|(_, text)| *text).collect())
        }
        ParameterPlace::Header => head
            .headers
            .get_all(it.name.as_str())
            .iter()
            .map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .collect(),
    }
}

/// The elements of a list. None: it is there several times, which its style has no meaning for.
fn elements<'r>(it: &Parameter, texts: &[&'r str]) -> Option<Vec<&'r str>> {
    let split = |text: &'r str| -> Vec<&'r str> {
        match it.style {
            _ if text.is_empty() => Vec::new(),
            ParameterStyle::Spaces => text.split('+').flat_map(|it| it.split("%20")).collect(),
            ParameterStyle::Pipes => {
                text.split('|').flat_map(|it| it.split("%7C")).flat_map(|it| it.split("%7c")).collect()
            }
            _ => text.split(',').map(str::trim).collect(),
        }
    };
    match (it.style, texts) {
        (ParameterStyle::Form, texts) if it.explodes => Some(texts.to_vec()),
        // RFC 9110 5.3: several fields are one list.
        _ if it.place == ParameterPlace::Header => Some(texts.iter().copied().flat_map(split).collect()),
        (_, &[text]) => Some(split(text)),
        _ => None,
    }
}

/// Without its escapes.
fn plain<'r>(it: &Parameter, text: &'r str) -> Option<Cow<'r, str>> {
    match it.place {
        ParameterPlace::Path => decoded(text, Plus::Plus),
        ParameterPlace::Query => decoded(text, Plus::Blank),
        ParameterPlace::Header => Some(text.trim().into()),
        ParameterPlace::Cookie => Some(text.into()),
    }
}

/// What a plus sign means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Plus,
    Blank,
}

fn decoded(text: &str, plus: Plus) -> Option<Cow<'_, str>> {
    match plus == Plus::Blank && text.contains('+') {
        true => {
            let text = text.replace('+', " ");
            Some(percent_decode_str(&text).decode_utf8().ok()?.into_owned().into())
        }
        false => percent_decode_str(text).decode_utf8().ok(),
    }
}

fn array<'t>(schemas: &Schemas, items: Option<Id>, texts: impl Iterator<Item = Cow<'t, str>>) -> Value {
    let element = |text: Cow<'t, str>| match items {
        Some(id) => schemas.read(id, &text),
        None => Value::String(text.into_owned()),
    };
    texts.map(element).collect()
}

/// `application/x-www-form-urlencoded` as an object: a name is a list where the schema says so, or says nothing and it is there
/// several times.
pub(super) fn form(schemas: &Schemas, id: Id, bytes: &[u8]) -> Result<Value, Violation> {
    let wrong = |pointer: String, rule, detail| violation(Place::Body, pointer, rule, detail);
    let not_text = || wrong(String::new(), "encoding", "it is not text in UTF-8");
    let text = std::str::from_utf8(bytes).map_err(|_| not_text())?;
    let mut texts: BTreeMap<String, Vec<Cow<'_, str>>> = BTreeMap::new();
    for pair in text.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name, Plus::Blank).ok_or_else(not_text)?.into_owned();
        texts.entry(name).or_default().push(decoded(value, Plus::Blank).ok_or_else(not_text)?);
    }
    let mut members = Map::new();
    for (name, list) in texts {
        let property = schemas.property(id, &name);
        let shape = property.map(|id| schemas.shape(id));
        let value = match (shape, property, list.as_slice()) {
            (Some(Shape::Array(items)), ..) => array(schemas, items, list.into_iter()),
            (_, Some(id), [text]) => schemas.read(id, text),
            (_, None, [text]) => Value::String(text.to_string()),
            (_, None, _) => array(schemas, None, list.into_iter()),
            _ => {
                let at = pointer(&[Step::Key(name.as_str().into())]);
                return Err(wrong(at, "repeated", "it is there more than once"));
            }
        };
        members.insert(name, value);
    }
    Ok(Value::Object(members))
}
