//! An OpenAPI document as JSON, and what its references lead to. Nothing outside of it is read.

use std::{borrow::Cow, path::Path};

use serde_json::Value as Json;

use crate::cli::{
    config::{source, tree},
    failure::{Exit, Failure, Outcome, Problem},
};

/// References that lead to references.
const REFERENCES_MAX: usize = 32;

pub struct Document {
    pub root: Json,
    pub version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// With a dialect of its own for schemas.
    V30,
    /// JSON Schema, 2020-12.
    V31,
}

/// What is wrong with the document, and where in it.
pub fn wrong(at: &str, found: &str, help: &str) -> Failure {
    let problem = Problem { place: format!(" --> {at}"), help: help.to_owned(), ..Problem::invalid(found) };
    Failure::invalid(vec![problem])
}

impl Document {
    pub fn read(file: &Path) -> Outcome<Self> {
        let sources = source::read(&[file.to_owned()])?;
        let [source] = sources.as_slice() else {
            return Err(Failure::usage(format!("{}: found a folder; allowed: one document", file.display())));
        };
        Self::parse(&source.name, &source.text)
    }

    pub fn parse(name: &str, text: &str) -> Outcome<Self> {
        // YAML has all of JSON, but reads it slower.
        let root = match serde_json::from_str(text) {
            Ok(root) => root,
            Err(_) => {
                let documents = tree::parse(text).map_err(|error| {
                    let place = error.place.map(|it| format!(":{}:{}", it.line, it.column)).unwrap_or_default();
                    Failure::new(Exit::Invalid, format!("{name}{place}: {}", error.message))
                })?;
                match documents.as_slice() {
                    [node] => node.json(),
                    other => {
                        let found = format!("{name}: found {} YAML documents; allowed: one", other.len());
                        return Err(Failure::new(Exit::Invalid, found));
                    }
                }
            }
        };
        let said = root.get("openapi").and_then(Json::as_str).unwrap_or_default();
        let version = match said.get(..4) {
            Some("3.0.") => Version::V30,
            Some("3.1.") => Version::V31,
            _ => {
                let found = match (root.get("swagger"), said) {
                    (Some(swagger), _) => format!("swagger: {swagger}"),
                    (None, "") => "no word `openapi`".to_owned(),
                    (None, other) => format!("openapi: {other:?}"),
                };
                let found = format!("{name}: found {found}; allowed: an OpenAPI document of version 3.0 or 3.1");
                return Err(Failure::new(Exit::Invalid, found));
            }
        };
        Ok(Self { root, version })
    }

    /// What is there, or where it refers to; with the pointer of where that stands.
    pub fn resolve<'d>(&'d self, at: &str, value: &'d Json) -> Outcome<(Cow<'d, str>, &'d Json)> {
        let (mut at, mut value) = (Cow::Owned(at.to_owned()), value);
        for _ in 0..REFERENCES_MAX {
            let Some(reference) = value.get("$ref").and_then(Json::as_str) else { return Ok((at, value)) };
            let (pointer, found) = self.find(&at, reference)?;
            (at, value) = (Cow::Owned(pointer), found);
        }
        Err(wrong(&at, "found references that lead to references without end", "let one of them be what it means"))
    }

    pub fn find(&self, at: &str, reference: &str) -> Outcome<(String, &Json)> {
        let help = "only what is in this document is read: bundle it first";
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(wrong(at, &format!("found $ref {reference:?}; allowed: one that begins with #/"), help));
        };
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy().into_owned();
        match self.root.pointer(&pointer) {
            Some(found) => Ok((pointer, found)),
            None => Err(wrong(at, &format!("found $ref {reference:?}; nothing is there"), help)),
        }
    }

    pub fn is_v30(&self) -> bool {
        self.version == Version::V30
    }
}

/// A step of a pointer more.
pub fn step(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

pub fn members(value: Option<&Json>) -> impl Iterator<Item = (&String, &Json)> {
    value.and_then(Json::as_object).into_iter().flatten()
}
