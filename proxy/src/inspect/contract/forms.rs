//! Bodies of forms as objects that a schema can be held against: `application/x-www-form-urlencoded` and `multipart/form-data`
//! (RFC 7578), whose members and parts are read as their schemas and `encoding` have them.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, header};
use multer::{Field, Multipart};
use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{ContentForm, ParameterStyle, content_form},
};
use serde_json::{Map, Value};

use super::{
    Encoding,
    deep::Tree,
    nearest, request,
    values::{Plus, array, decoded, elements, violation},
};
use crate::inspect::{
    disposition::Disposition,
    found::{Place, Step, Violation, pointer},
    multipart,
    schema::{Id, Schemas, Shape},
};

/// Of one body; what has more is refused.
const PARTS_MAX: usize = 1_000;

fn wrong(pointer: String, rule: &'static str, detail: &'static str) -> Violation {
    violation(Place::Body, pointer, rule, detail)
}

fn at(name: &str) -> String {
    pointer(&[Step::Key(name.into())])
}

/// `application/x-www-form-urlencoded`: a name is a list where the schema says so, or says nothing and it is there several times.
pub(super) fn form(schemas: &Schemas, id: Id, encoding: &[Encoding], bytes: &[u8]) -> Result<Value, Violation> {
    let not_text = || wrong(String::new(), "encoding", "it is not text in UTF-8");
    let text = std::str::from_utf8(bytes).map_err(|_| not_text())?;
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut trees: BTreeMap<&str, Tree<'_>> = BTreeMap::new();
    let deep: Vec<&Encoding> = encoding.iter().filter(|it| it.style == ParameterStyle::Deep).collect();
    for pair in text.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name, Plus::Blank).ok_or_else(not_text)?;
        match deep.iter().find_map(|it| Some((it.name.as_str(), Tree::within(&name, &it.name)?))) {
            Some((root, within)) => {
                let value = decoded(value, Plus::Blank).ok_or_else(not_text)?;
                let added = trees.entry(root).or_default().add(within, value);
                added.map_err(|detail| wrong(at(root), "syntax", detail))?;
            }
            None => texts.entry(name.into_owned()).or_default().push(value),
        }
    }
    let mut members = Map::new();
    for (name, tree) in trees {
        let value = tree.value(schemas, schemas.member(id, name), &at(name));
        members.insert(name.to_owned(), value.map_err(|(at, rule, detail)| wrong(at, rule, detail))?);
    }
    for (name, list) in texts {
        let encoding = encoding.iter().find(|it| it.name == name);
        let value = member(schemas, id, &name, encoding, &list)?;
        members.insert(name, value);
    }
    Ok(Value::Object(members))
}

fn member(
    schemas: &Schemas,
    id: Id,
    name: &str,
    encoding: Option<&Encoding>,
    list: &[&str],
) -> Result<Value, Violation> {
    let not_text = || wrong(String::new(), "encoding", "it is not text in UTF-8");
    let plain = |list: &[&'_ str]| -> Result<Vec<String>, Violation> {
        let each = |text: &&str| decoded(text, Plus::Blank).map(Cow::into_owned).ok_or_else(not_text);
        list.iter().map(each).collect()
    };
    let repeated = || wrong(at(name), "repeated", "it is there more than once");
    let property = schemas.property(id, name);
    let (style, explodes) = encoding.map_or((ParameterStyle::Form, true), |it| (it.style, it.explodes));
    if style == ParameterStyle::Json {
        let [text] = list else { return Err(repeated()) };
        let text = decoded(text, Plus::Blank).ok_or_else(not_text)?;
        return request::json(text.as_bytes()).map_err(|found| first_within(found, &at(name)));
    }
    let shape = property.map(|id| schemas.shape(id));
    Ok(match (shape, property) {
        (Some(Shape::Array(items)), _) => {
            let texts = elements(style, explodes, false, list).ok_or_else(repeated)?;
            array(schemas, items, plain(&texts)?.into_iter().map(Cow::Owned))
        }
        (_, of) => {
            let texts = plain(list)?;
            match (texts.as_slice(), of) {
                ([text], Some(id)) => schemas.read(id, text),
                ([text], None) => Value::String(text.clone()),
                (_, None) => array(schemas, None, texts.into_iter().map(Cow::Owned)),
                _ => return Err(repeated()),
            }
        }
    })
}

/// JSON with a mistake in it has one at least.
fn first_within(found: Vec<Violation>, at: &str) -> Violation {
    match found.into_iter().next() {
        Some(it) => Violation { place: Place::Body, pointer: format!("{at}{}", it.pointer), ..it },
        None => wrong(at.to_owned(), "syntax", "it cannot be read"),
    }
}

/// One part of `multipart/form-data`.
struct Part {
    /// In lower case; None: it says nothing, which is a text.
    kind: Option<String>,
    bytes: Bytes,
}

/// `multipart/form-data`: a name is a list where the schema says so. Parts of objects are JSON; files are their bytes, each of them
/// a character where they are no text.
pub(super) fn parts(
    schemas: &Schemas,
    id: Id,
    encoding: &[Encoding],
    headers: &HeaderMap,
    bytes: &Bytes,
) -> Result<Value, Vec<Violation>> {
    let syntax = |detail: String| vec![Violation::body(String::new(), "syntax", detail)];
    if let Some(found) = multipart::says_twice(headers, bytes) {
        return Err(vec![found]);
    }
    let mut parts = multipart::parts(headers, bytes).map_err(|detail| syntax(detail.to_owned()))?;
    // All of it is there: nothing is waited for.
    let by_name = match walk(&mut parts).now_or_never() {
        Some(Ok(by_name)) => by_name?,
        Some(Err(error)) => return Err(syntax(format!("this is not multipart: {error}"))),
        None => return Err(syntax("this is not multipart: it has no end".to_owned())),
    };
    let mut members = Map::new();
    for (name, list) in by_name {
        let types = encoding.iter().find(|it| it.name == name).map_or(&[][..], |it| &it.types);
        let schema = schemas.member(id, &name);
        let value = match (schema.map(|id| schemas.shape(id)), list.as_slice()) {
            (Some(Shape::Array(items)), [part]) if part.is_json() => {
                let value = part.value(schemas, schema, types, &at(&name))?;
                if value.is_array() { value } else { items_of(schemas, items, types, &name, &list)? }
            }
            (Some(Shape::Array(items)), list) => items_of(schemas, items, types, &name, list)?,
            (_, [part]) => part.value(schemas, schema, types, &at(&name))?,
            (None, list) => items_of(schemas, None, types, &name, list)?,
            _ => return Err(vec![wrong(at(&name), "repeated", "it is there more than once")]),
        };
        members.insert(name, value);
    }
    Ok(Value::Object(members))
}

type ByName = BTreeMap<String, Vec<Part>>;

async fn walk(parts: &mut Multipart<'static>) -> Result<Result<ByName, Vec<Violation>>, multer::Error> {
    let mut by_name = ByName::new();
    let mut place = 0;
    while let Some(field) = parts.next_field().await? {
        let named = match Disposition::of(&field) {
            Ok(named) => named,
            Err(detail) => return Ok(Err(vec![wrong(pointer(&[Step::Index(place)]), "syntax", detail)])),
        };
        let at = pointer(&[named.step(place)]);
        place += 1;
        if place > PARTS_MAX {
            let detail = format!("there are more than {PARTS_MAX} parts");
            return Ok(Err(vec![Violation::body(String::new(), "max_parts", detail)]));
        }
        let Some(name) = named.name().map(str::to_owned) else {
            return Ok(Err(vec![wrong(at, "syntax", "a part has no name")]));
        };
        let kind = match kind_of(&field) {
            Ok(kind) => kind,
            Err(detail) => return Ok(Err(vec![wrong(at, "encoding", detail)])),
        };
        let bytes = field.bytes().await?;
        by_name.entry(name).or_default().push(Part { kind, bytes });
    }
    Ok(Ok(by_name))
}

/// What it says that it is. Err: a server may read other bytes out of it than stand there.
fn kind_of(field: &Field<'_>) -> Result<Option<String>, &'static str> {
    if multipart::is_coded(field) {
        return Err("it is in a coding of its own (Content-Transfer-Encoding)");
    }
    let Some(value) = field.headers().get(header::CONTENT_TYPE) else { return Ok(None) };
    let Ok(text) = value.to_str() else { return Err("what it says that it is is not text") };
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    let charset = parameters.split(';').filter_map(|it| it.split_once('=')).find(|(name, _)| {
        let name = name.trim();
        name.eq_ignore_ascii_case("charset")
    });
    if let Some((_, charset)) = charset {
        let charset = charset.trim().trim_matches('"');
        if !["utf-8", "us-ascii"].iter().any(|it| charset.eq_ignore_ascii_case(it)) {
            return Err("it is not text in UTF-8");
        }
    }
    Ok(Some(kind.trim().to_ascii_lowercase()))
}

fn items_of(
    schemas: &Schemas,
    items: Option<Id>,
    types: &[String],
    name: &str,
    list: &[Part],
) -> Result<Value, Vec<Violation>> {
    let item = |(place, part): (usize, &Part)| part.value(schemas, items, types, &format!("{}/{place}", at(name)));
    list.iter().enumerate().map(item).collect::<Result<_, _>>().map(Value::Array)
}

impl Part {
    fn is_json(&self) -> bool {
        self.kind.as_deref().is_some_and(|it| content_form(it) == ContentForm::Json)
    }

    fn value(&self, schemas: &Schemas, id: Option<Id>, types: &[String], at: &str) -> Result<Value, Vec<Violation>> {
        let is_object = id.is_some_and(|id| schemas.shape(id) == Shape::Object);
        // RFC 7578 4.4: what says nothing is a text; an object that says nothing is what all objects are.
        let usual = if is_object { "application/json" } else { "text/plain" };
        let kind = self.kind.as_deref().unwrap_or(usual);
        let may_be = match types.is_empty() {
            true => !is_object || content_form(kind) == ContentForm::Json,
            false => nearest(types.iter().map(String::as_str), kind).is_some(),
        };
        if !may_be && !mutants::is(Mutant::PartTypeUnasked) {
            let allowed = if types.is_empty() { "application/json".to_owned() } else { types.join(", ") };
            let shown: String = kind.chars().take(64).collect();
            let detail = format!("the part is {shown:?}; allowed: {allowed}");
            return Err(vec![Violation::body(at.to_owned(), "content_type", detail)]);
        }
        if is_object || self.is_json() {
            let moved = |it: Violation| Violation { pointer: format!("{at}{}", it.pointer), ..it };
            return request::json(&self.bytes).map_err(|found| found.into_iter().map(moved).collect());
        }
        let text = match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.to_owned(),
            // So its schema can still say how long it may be.
            Err(_) => self.bytes.iter().map(|byte| char::from(*byte)).collect(),
        };
        Ok(id.map_or_else(|| Value::String(text.clone()), |id| schemas.read(id, &text)))
    }
}
