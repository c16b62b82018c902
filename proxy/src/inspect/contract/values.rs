//! Parameters and forms as values that a schema can be held against. Whatever an upstream may read of them is looked at: every
//! occurrence, and what may be there once is not there twice.

use std::borrow::Cow;

use http::{HeaderMap, header, request::Parts};
use percent_encoding::percent_decode_str;
use quorumgate_model::resource::{ParameterPlace, ParameterStyle};
use serde_json::Value;

use super::{Operation, Parameter, deep::Tree};
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
    if let (ParameterStyle::Deep, Some((id, _))) = (it.style, it.schema) {
        return deep(schemas, it, id, head, found);
    }
    let place = place(it.place);
    let at = pointer(&[Step::Key(it.name.as_str().into())]);
    let mut wrong = |rule, detail: &'static str| found.push(violation(place, at.clone(), rule, detail));
    let Some(texts) = occurrences(it, head) else { return wrong("encoding", "it is not text in UTF-8") };
    let value = match (texts.as_slice(), it.schema) {
        ([], _) if it.required => return wrong("required", "it is missing"),
        ([], _) | (_, None) => return,
        (texts, Some((id, Shape::Array(items)))) if it.style != ParameterStyle::Json => {
            let joins = it.place == ParameterPlace::Header;
            let Some(texts) = elements(it.style, it.explodes, joins, texts) else {
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

/// An object by the brackets of its names.
fn deep(schemas: &Schemas, it: &Parameter, id: Id, head: &Head<'_>, found: &mut Vec<Violation>) {
    let at = pointer(&[Step::Key(it.name.as_str().into())]);
    let (mut tree, mut bytes) = (Tree::default(), 0);
    let mut wrong = |rule, detail: &'static str| found.push(violation(Place::Query, at.clone(), rule, detail));
    for (name, text) in &head.query {
        let Some(within) = Tree::within(name, &it.name) else { continue };
        let Some(text) = decoded(text, Plus::Blank) else { return wrong("encoding", "it is not text in UTF-8") };
        bytes += within.len() + text.len();
        if let Err(detail) = tree.add(within, text) {
            return wrong("syntax", detail);
        }
    }
    if tree.is_empty() {
        return if it.required {
            wrong("required", "it is missing")
        };
    }
    match tree.value(schemas, Some(id), &at) {
        Ok(value) => found.extend(checked(schemas.check(id, &value, bytes), Place::Query, &at)),
        Err((at, rule, detail)) => found.push(violation(Place::Query, at, rule, detail)),
    }
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

/// The elements of a list; `joins`: several texts are one. None: it is there several times, which its style has no meaning for.
pub(super) fn elements<'r>(
    style: ParameterStyle,
    explodes: bool,
    joins: bool,
    texts: &[&'r str],
) -> Option<Vec<&'r str>> {
    let split = |text: &'r str| -> Vec<&'r str> {
        match style {
            _ if text.is_empty() => Vec::new(),
            ParameterStyle::Spaces => text.split('+').flat_map(|it| it.split("%20")).collect(),
            ParameterStyle::Pipes => {
                text.split('|').flat_map(|it| it.split("%7C")).flat_map(|it| it.split("%7c")).collect()
            }
            _ => text.split(',').map(str::trim).collect(),
        }
    };
    match (style, texts) {
        (ParameterStyle::Form, texts) if explodes => Some(texts.to_vec()),
        // RFC 9110 5.3: several fields are one list.
        _ if joins => Some(texts.iter().copied().flat_map(split).collect()),
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
pub(super) enum Plus {
    Plus,
    Blank,
}

pub(super) fn decoded(text: &str, plus: Plus) -> Option<Cow<'_, str>> {
    match plus == Plus::Blank && text.contains('+') {
        true => {
            let text = text.replace('+', " ");
            Some(percent_decode_str(&text).decode_utf8().ok()?.into_owned().into())
        }
        false => percent_decode_str(text).decode_utf8().ok(),
    }
}

pub(super) fn array<'t>(schemas: &Schemas, items: Option<Id>, texts: impl Iterator<Item = Cow<'t, str>>) -> Value {
    let element = |text: Cow<'t, str>| match items {
        Some(id) => schemas.read(id, &text),
        None => Value::String(text.into_owned()),
    };
    texts.map(element).collect()
}
