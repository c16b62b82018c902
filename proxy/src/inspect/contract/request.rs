//! One request and the operation that it is of: first its head, then its body, once there is one.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, request::Parts};
use quorumgate_model::resource::{
    ContentForm, INSPECTED_BYTES_MAX, JSON_DEPTH_MAX, JsonPolicy, PolicyMode, Tolerance, content_form,
};
use serde_json::Value;

use super::{Contract, Encoding, Found, Operation, Wanted, forms, nearest, values};
use crate::inspect::{
    found::{Place, Violation},
    json as bounds,
    media::Media,
    schema::{Schemas, Shape},
};

/// Every member of a form as its schema has it.
const AS_USUAL: &[Encoding] = &[];

/// What is asked of a request before any of its body was read.
pub(crate) enum Entry {
    Visit(Visit, Vec<Violation>),
    /// No operation takes it: with the methods that the path has.
    Unknown(Vec<String>),
    /// No operation takes it, and nobody minds.
    Passes,
}

/// A request within the operation that takes it.
pub(crate) struct Visit {
    pub(super) contract: Arc<Contract>,
    operation: usize,
    pub(crate) body: Body,
}

/// What there is to do with the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none, or nothing is asked of it.
    Unread,
    Read(Wanted),
    /// Of a type that the operation does not take, or it takes none.
    NotTaken,
}

impl Contract {
    pub(crate) fn enter(self: &Arc<Self>, parts: &Parts, path: &str, media: &Media, has_body: bool) -> Entry {
        let (at, in_path) = match self.find(parts.method.as_str(), path) {
            Found::Operation(at, values) => (at, values),
            Found::Unknown(_) if self.unknown == Tolerance::Allow => return Entry::Passes,
            Found::Unknown(methods) => return Entry::Unknown(methods),
        };
        let operation = &self.operations[at];
        let mut visit = Visit { contract: self.clone(), operation: at, body: Body::Unread };
        if operation.mode == PolicyMode::Off {
            return Entry::Visit(visit, Vec::new());
        }
        let mut found = values::parameters(&self.schemas, operation, parts, &in_path);
        match (&operation.body, has_body) {
            (Some(body), false) if body.required => {
                found.push(values::violation(Place::Body, String::new(), "required", "it is missing"));
            }
            (_, false) => {}
            (None, true) => visit.body = Body::NotTaken,
            (Some(body), true) => visit.body = wanted(&self.schemas, &body.content, media).unwrap_or(Body::NotTaken),
        }
        Entry::Visit(visit, found)
    }

    pub(crate) fn mode(&self) -> PolicyMode {
        self.mode
    }
}

/// None: there is no such type.
pub(super) fn wanted(schemas: &Schemas, list: &[super::Content], media: &Media) -> Option<Body> {
    let media = media.only().unwrap_or_default();
    let at = nearest(list.iter().map(|it| it.media.as_str()), media)?;
    let form = content_form(media);
    Some(match list[at].schema {
        Some(schema) if form != ContentForm::Opaque => Body::Read(Wanted { form, schema, at }),
        // Under a range. To a schema it is a text: one of objects or lists takes none.
        Some(schema) if schemas.shape(schema) != Shape::Scalar => return None,
        _ => Body::Unread,
    })
}

impl Visit {
    pub(super) fn operation(&self) -> &Operation {
        &self.contract.operations[self.operation]
    }

    pub(crate) fn mode(&self) -> PolicyMode {
        self.operation().mode
    }

    pub(crate) fn look(&self, headers: &HeaderMap, bytes: &Bytes) -> Vec<Violation> {
        let (Some(taken), Body::Read(wanted)) = (&self.operation().body, self.body) else { return Vec::new() };
        // One of no bytes is none.
        if bytes.is_empty() && !taken.required {
            return Vec::new();
        }
        let (contract, encoding) = (&self.contract, &taken.content[wanted.at].encoding);
        let value = match wanted.form {
            ContentForm::Form => forms::form(&contract.schemas, wanted.schema, encoding, bytes).map_err(|it| vec![it]),
            ContentForm::Multipart => forms::parts(&contract.schemas, wanted.schema, encoding, headers, bytes),
            _ => return contract.held_against(wanted, bytes),
        };
        match value {
            Ok(value) => contract.checked(wanted, &value, bytes.len()),
            Err(found) => found,
        }
    }
}

impl Contract {
    pub(super) fn held_against(&self, wanted: Wanted, bytes: &[u8]) -> Vec<Violation> {
        let value = match wanted.form {
            ContentForm::Json => match json(bytes) {
                Ok(value) => value,
                Err(found) => return found,
            },
            ContentForm::Form => match forms::form(&self.schemas, wanted.schema, AS_USUAL, bytes) {
                Ok(value) => value,
                Err(found) => return vec![found],
            },
            // Of answers; those have no schema.
            ContentForm::Multipart => return Vec::new(),
            ContentForm::Text | ContentForm::Opaque => match std::str::from_utf8(bytes) {
                Ok(text) => Value::String(text.to_owned()),
                Err(_) => return vec![Violation::body(String::new(), "encoding", "it is not text in UTF-8")],
            },
        };
        self.checked(wanted, &value, bytes.len())
    }

    fn checked(&self, wanted: Wanted, value: &Value, bytes: usize) -> Vec<Violation> {
        values::checked(self.schemas.check(wanted.schema, value, bytes), Place::Body, "")
    }
}

/// Strictly: what has a key twice would be read in two ways.
pub(super) fn json(bytes: &[u8]) -> Result<Value, Vec<Violation>> {
    let limits = JsonPolicy {
        max_depth: JSON_DEPTH_MAX,
        max_keys: u32::MAX,
        max_array: u32::MAX,
        max_string: INSPECTED_BYTES_MAX,
        duplicate_keys: Tolerance::Refuse,
        ..JsonPolicy::default()
    };
    let found = bounds::check(bytes, &limits);
    if !found.is_empty() {
        return Err(found);
    }
    // What is left is a number that nothing here can hold.
    serde_json::from_slice(bytes)
        .map_err(|error| vec![Violation::body(String::new(), "syntax", format!("it cannot be read: {error}"))])
}
