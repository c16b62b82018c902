//! Contracts: which operations an API has, and what each takes and answers, by JSON Schema (2020-12). Whether the schemas
//! themselves are any good is asked of the proxy that would carry them out.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::{
    super::{check, word::word_enum},
    payload::{INSPECTED_BYTES_DEFAULT, size},
    *,
};
use crate::{
    canonical::{self, Slashes},
    units::Size,
};

pub const OPERATIONS_MAX: usize = 2_000;
pub const PARAMETERS_MAX: usize = 64;
const CONTENTS_MAX: usize = 32;
const ANSWERS_MAX: usize = 64;
/// Bytes of all schemas of one contract.
pub const CONTRACT_BYTES_MAX: usize = 4 << 20;
const OPERATION_ID_BYTES_MAX: usize = 256;
pub const SUMMARY_BYTES_MAX: usize = 512;
pub const OPERATION_TEXT_BYTES_MAX: usize = 8 << 10;
const ENCODINGS_MAX: usize = 64;
/// What one part may be.
const PART_TYPES_MAX: usize = 32;

word_enum!(ParameterPlace {
    Path = "path",
    Query = "query",
    Header = "header",
    Cookie = "cookie",
});

word_enum!(
    /// How several values are one text.
    ParameterStyle {
        /// `a,b`
        Simple = "simple",
        /// `name=a&name=b`, or `name=a,b` without `explode`.
        Form = "form",
        /// `name=a%20b`
        Spaces = "space_delimited",
        /// `name=a|b`
        Pipes = "pipe_delimited",
        /// `name[a]=1&name[b]=2`: an object, and what lies in it.
        Deep = "deep_object",
        /// The text is JSON.
        Json = "json",
    }
);

/// A JSON Schema, or a map of them, as its JSON text. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(Arc<str>);

/// What requests and answers have to be like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContractPolicy {
    /// Of requests.
    pub mode: PolicyMode,
    /// Of answers.
    pub responses: PolicyMode,
    pub body_max: Size,
    /// What no operation takes.
    pub unknown_operations: Tolerance,
    /// By name: what `#/schemas/NAME` refers to.
    pub schemas: Schema,
    pub operations: Vec<ContractOperation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractOperation {
    #[serde(default)]
    pub id: String,
    pub method: String,
    /// As the client asks for it: `/v1/orders/{id}`.
    pub path: String,
    /// None: the contract's.
    #[serde(default)]
    pub mode: Option<PolicyMode>,
    #[serde(default)]
    pub parameters: Vec<ContractParameter>,
    /// None: it takes no body.
    #[serde(default)]
    pub body: Option<ContractBody>,
    /// Empty: nothing is asked of its answers.
    #[serde(default)]
    pub responses: Vec<ContractResponse>,
    /// For people, as what follows: a portal shows both, and takes neither for more than text.
    #[serde(default)]
    pub summary: String,
    #[serde(default)]
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractParameter {
    #[serde(rename = "in")]
    pub place: ParameterPlace,
    pub name: String,
    #[serde(default)]
    pub required: bool,
    /// None: any text.
    #[serde(default)]
    pub schema: Option<Schema>,
    /// None: `form` in queries and cookies, else `simple`.
    #[serde(default)]
    pub style: Option<ParameterStyle>,
    /// None: as `style` has it, which is true for `form` alone.
    #[serde(default)]
    pub explode: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractBody {
    #[serde(default)]
    pub required: bool,
    pub content: Vec<ContractContent>,
}

/// One type of body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractContent {
    /// `application/json`, `text/*` or `*/*`.
    #[serde(rename = "type")]
    pub media: String,
    /// None: whatever is in it.
    #[serde(default)]
    pub schema: Option<Schema>,
    /// Of forms, by member: how it is written where that is not as usual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encoding: Vec<ContractEncoding>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractEncoding {
    pub name: String,
    /// Of a part of `multipart/form-data`: `image/png` or `image/*`. Empty: as its schema has it.
    #[serde(default)]
    pub types: Vec<String>,
    /// Of `application/x-www-form-urlencoded`; None: `form`.
    #[serde(default)]
    pub style: Option<ParameterStyle>,
    #[serde(default)]
    pub explode: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractResponse {
    /// `200`, `2XX` or `default`.
    pub status: String,
    /// Empty: whatever is in it.
    #[serde(default)]
    pub content: Vec<ContractContent>,
}

impl Default for ContractPolicy {
    fn default() -> Self {
        Self {
            mode: PolicyMode::Enforce,
            responses: PolicyMode::Off,
            body_max: INSPECTED_BYTES_DEFAULT,
            unknown_operations: Tolerance::Refuse,
            schemas: Schema("{}".into()),
            operations: Vec::new(),
        }
    }
}

impl Schema {
    /// Err: it is no JSON.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<de::IgnoredAny>(text).map(|_| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn value(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_str(&self.0)
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match value {
            serde_json::Value::Object(_) | serde_json::Value::Bool(_) => Ok(Self(value.to_string().into())),
            _ => Err(de::Error::custom("found another form; allowed: a schema: a map, or true or false")),
        }
    }
}

/// A piece of a segment of an operation's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPiece {
    Literal(String),
    Parameter(String),
}

/// The segments of a path such as `/orders/{id}` or `/files/{name}.{ext}`, each of one piece or more.
pub fn path_segments(text: &str) -> Result<Vec<Vec<PathPiece>>, Invalid> {
    let wrong = |allowed: &str| Err(Invalid::field("path").found(format!("{text:?}")).allowed(allowed));
    check::length("path", text, check::PATH_BYTES_MAX)?;
    let Some(rest) = text.strip_prefix('/') else {
        return wrong("a path that begins with /, such as /orders/{id}");
    };
    let mut segments = Vec::new();
    for segment in rest.split('/') {
        let mut pieces = Vec::new();
        let mut left = segment;
        while let Some((literal, behind)) = left.split_once('{') {
            let Some((name, behind)) = behind.split_once('}') else { return wrong("braces in pairs") };
            if name.is_empty() || name.contains('{') {
                return wrong("parameters with a name, such as {id}");
            }
            if !literal.is_empty() {
                pieces.push(PathPiece::Literal(literal.to_owned()));
            } else if matches!(pieces.last(), Some(PathPiece::Parameter(_))) {
                return wrong("something between two parameters of one segment");
            }
            pieces.push(PathPiece::Parameter(name.to_owned()));
            left = behind;
        }
        if !left.is_empty() || pieces.is_empty() {
            pieces.push(PathPiece::Literal(left.to_owned()));
        }
        segments.push(pieces);
    }
    // As requests come here: in canonical form.
    let literal = |pieces: &Vec<PathPiece>| {
        pieces.iter().map(|it| if let PathPiece::Literal(text) = it { text.as_str() } else { "x" }).collect::<String>()
    };
    let plain = format!("/{}", segments.iter().map(literal).collect::<Vec<_>>().join("/"));
    match canonical::path(&plain, Slashes::Keep) {
        Ok(it) if it == plain => Ok(segments),
        Ok(it) => wrong(&format!("the canonical form of it: {it}")),
        Err(why) => wrong(&format!("a path that requests can have ({why})")),
    }
}

/// Which bodies a schema can be held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentForm {
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// `multipart/form-data`, of requests.
    Multipart,
    /// `text/plain`: one text.
    Text,
    Opaque,
}

/// Of a type in lower case without parameters.
pub fn content_form(media: &str) -> ContentForm {
    match media {
        "application/json" | "text/json" => ContentForm::Json,
        "application/x-www-form-urlencoded" => ContentForm::Form,
        "multipart/form-data" => ContentForm::Multipart,
        "text/plain" => ContentForm::Text,
        _ if media.ends_with("+json") => ContentForm::Json,
        _ => ContentForm::Opaque,
    }
}

impl ContractPolicy {
    /// How much it does at most: the mode of one operation may be more than the contract's.
    pub fn strongest(&self) -> PolicyMode {
        let of_operations = self.operations.iter().filter_map(|it| it.mode);
        let all = of_operations.chain([self.mode, self.responses]);
        all.min_by_key(|it| *it as u8).unwrap_or(self.mode)
    }

    /// Whether any operation has a text for people.
    pub fn is_told_of(&self) -> bool {
        self.operations.iter().any(|it| !it.summary.is_empty() || !it.description.is_empty())
    }

    /// What builds before level 6 cannot: parts, and members that are written in ways of their own.
    pub fn reads_parts(&self) -> bool {
        self.operations.iter().any(|it| {
            let is_deep = |it: &ContractParameter| it.style == Some(ParameterStyle::Deep);
            let has_parts = |it: &ContractContent| {
                !it.encoding.is_empty() || it.schema.is_some() && content_form(&it.media) == ContentForm::Multipart
            };
            it.parameters.iter().any(is_deep) || it.body.iter().flat_map(|it| &it.content).any(has_parts)
        })
    }

    pub fn checked(self) -> Result<Self, Invalid> {
        size("body_max", self.body_max)?;
        if !self.schemas.as_str().starts_with('{') {
            return Err(Invalid::field("schemas")
                .found(self.schemas.as_str())
                .allowed("a map of schemas by their names"));
        }
        if self.operations.is_empty() {
            let allowed = "the operations of the API, such as { method: GET, path: /orders }";
            return Err(Invalid::field("operations").found("nothing").allowed(allowed));
        }
        check::count("operations", self.operations.len(), OPERATIONS_MAX)?;
        let mut bytes = self.schemas.as_str().len();
        let mut taken = BTreeSet::new();
        for (place, it) in self.operations.iter().enumerate() {
            it.check(&mut bytes, &mut taken).map_err(|invalid| invalid.under(format!("operations[{place}]")))?;
        }
        match bytes <= CONTRACT_BYTES_MAX {
            true => Ok(self),
            false => {
                let allowed = format!("at most {CONTRACT_BYTES_MAX} bytes: make it several contracts");
                Err(Invalid::field("schemas").found(format!("{bytes} bytes of schemas")).allowed(allowed))
            }
        }
    }
}

impl ContractOperation {
    fn check(&self, bytes: &mut usize, taken: &mut BTreeSet<String>) -> Result<(), Invalid> {
        check::length("id", &self.id, OPERATION_ID_BYTES_MAX)?;
        check::length("summary", &self.summary, SUMMARY_BYTES_MAX)?;
        check::length("description", &self.description, OPERATION_TEXT_BYTES_MAX)?;
        *bytes += self.summary.len() + self.description.len();
        if !check::is_token(&self.method) || self.method.bytes().any(|it| it.is_ascii_lowercase()) {
            return Err(Invalid::field("method").found(format!("{:?}", self.method)).allowed("a method such as GET"));
        }
        let segments = path_segments(&self.path)?;
        let nameless = |it: &PathPiece| match it {
            PathPiece::Literal(text) => text.clone(),
            PathPiece::Parameter(_) => "{}".to_owned(),
        };
        let shape: Vec<String> = segments.iter().map(|it| it.iter().map(nameless).collect()).collect();
        if !taken.insert(format!("{} /{}", self.method, shape.join("/"))) {
            let found = format!("{} {} again", self.method, self.path);
            return Err(Invalid::field("path")
                .found(found)
                .allowed("each method and path once, whatever parameters are called"));
        }
        check::count("parameters", self.parameters.len(), PARAMETERS_MAX)?;
        let mut known = BTreeSet::new();
        let mut in_path: BTreeSet<&str> = BTreeSet::new();
        for piece in segments.iter().flatten() {
            if let PathPiece::Parameter(name) = piece
                && !in_path.insert(name)
            {
                return Err(Invalid::field("path").found(format!("{{{name}}} twice")).allowed("each parameter once"));
            }
        }
        for (place, it) in self.parameters.iter().enumerate() {
            let check = || {
                it.check(&in_path)?;
                let name =
                    if it.place == ParameterPlace::Header { it.name.to_ascii_lowercase() } else { it.name.clone() };
                match known.insert((it.place, name)) {
                    true => Ok(()),
                    false => Err(Invalid::field("name").found(format!("{:?} again", it.name)).allowed("each once")),
                }
            };
            let mut check = check;
            check().map_err(|invalid: Invalid| invalid.under(format!("parameters[{place}]")))?;
            *bytes += it.schema.as_ref().map_or(0, |it| it.as_str().len());
        }
        if let Some(body) = &self.body {
            if body.content.is_empty() {
                return Err(Invalid::field("body.content")
                    .found("nothing")
                    .allowed("the types that it takes, or no body"));
            }
            contents(&body.content, bytes).map_err(|invalid| invalid.under("body"))?;
        }
        check::count("responses", self.responses.len(), ANSWERS_MAX)?;
        let statuses: Vec<&String> = self.responses.iter().map(|it| &it.status).collect();
        check::once("responses", &statuses, |it| it.to_string())?;
        for (place, it) in self.responses.iter().enumerate() {
            let field = format!("responses[{place}]");
            let is_status = match it.status.as_bytes() {
                b"default" => true,
                [b'1'..=b'5', b'X', b'X'] => true,
                [b'1'..=b'5', rest @ ..] => rest.len() == 2 && rest.iter().all(u8::is_ascii_digit),
                _ => false,
            };
            if !is_status {
                let allowed = "a status such as 200, 2XX or default";
                return Err(Invalid::field(format!("{field}.status"))
                    .found(format!("{:?}", it.status))
                    .allowed(allowed));
            }
            contents(&it.content, bytes).map_err(|invalid| invalid.under(&field))?;
            let is_parts =
                |it: &ContractContent| it.schema.is_some() && content_form(&it.media) == ContentForm::Multipart;
            if let Some(at) = it.content.iter().position(|it| !it.encoding.is_empty() || is_parts(it)) {
                let found = format!("one of {} with parts", it.content[at].media);
                let allowed = "no schema and no encoding: parts of answers are not looked at";
                return Err(Invalid::field(format!("{field}.content[{at}].schema")).found(found).allowed(allowed));
            }
        }
        Ok(())
    }

    /// `getOrder`, or `GET /orders/{id}`.
    pub fn label(&self) -> String {
        match self.id.is_empty() {
            true => format!("{} {}", self.method, self.path),
            false => self.id.clone(),
        }
    }
}

impl ContractParameter {
    fn check(&self, in_path: &BTreeSet<&str>) -> Result<(), Invalid> {
        check::text("name", &self.name, check::WORD_BYTES_MAX)?;
        let wrong = |field: &str, found: &dyn fmt::Display, allowed: &str| {
            Err(Invalid::field(field).found(found).allowed(allowed))
        };
        match self.place {
            ParameterPlace::Path if !in_path.contains(self.name.as_str()) => {
                return wrong("name", &format!("{:?}", self.name), "a parameter of the path, in braces there");
            }
            ParameterPlace::Path if !self.required => {
                return wrong("required", &"false", "true: the path has it always");
            }
            ParameterPlace::Header if !check::is_token(&self.name) => {
                return wrong("name", &format!("{:?}", self.name), "the name of a header field");
            }
            _ => {}
        }
        let fits = match self.style() {
            ParameterStyle::Simple => matches!(self.place, ParameterPlace::Path | ParameterPlace::Header),
            ParameterStyle::Form => matches!(self.place, ParameterPlace::Query | ParameterPlace::Cookie),
            ParameterStyle::Spaces | ParameterStyle::Pipes | ParameterStyle::Deep => {
                self.place == ParameterPlace::Query
            }
            ParameterStyle::Json => true,
        };
        if !fits {
            let allowed = "simple (path, header), form (query, cookie), space_delimited, pipe_delimited and deep_object (query), or json";
            return wrong("style", &format!("{} in {}", self.style().word(), self.place.word()), allowed);
        }
        if self.explode == Some(true) && !matches!(self.style(), ParameterStyle::Form | ParameterStyle::Simple) {
            return wrong("explode", &"true", "false: `name=a&name=b` is of style form");
        }
        Ok(())
    }

    pub fn style(&self) -> ParameterStyle {
        self.style.unwrap_or(match self.place {
            ParameterPlace::Query | ParameterPlace::Cookie => ParameterStyle::Form,
            ParameterPlace::Path | ParameterPlace::Header => ParameterStyle::Simple,
        })
    }

    pub fn explodes(&self) -> bool {
        self.explode.unwrap_or(self.style() == ParameterStyle::Form)
    }
}

impl ContractEncoding {
    fn check(&self, form: ContentForm) -> Result<(), Invalid> {
        check::text("name", &self.name, check::WORD_BYTES_MAX)?;
        check::count("types", self.types.len(), PART_TYPES_MAX)?;
        for (place, it) in self.types.iter().enumerate() {
            if !is_type(it) {
                let allowed = "a type in lower case without parameters, such as image/png, image/* or */*";
                return Err(Invalid::field(format!("types[{place}]")).found(format!("{it:?}")).allowed(allowed));
            }
        }
        let is_form = form == ContentForm::Form;
        if is_form && !self.types.is_empty() {
            let allowed = "none: members of a form have no types; style json is for those that are JSON";
            return Err(Invalid::field("types").found(&self.types[0]).allowed(allowed));
        }
        let style = self.style();
        if !is_form && (self.style.is_some() || self.explode.is_some()) {
            let allowed = "none: parts of multipart/form-data have types";
            return Err(Invalid::field("style").found(style.word()).allowed(allowed));
        }
        if style == ParameterStyle::Simple {
            let allowed = "form, space_delimited, pipe_delimited, deep_object or json";
            return Err(Invalid::field("style").found("simple").allowed(allowed));
        }
        if self.explode == Some(true) && style != ParameterStyle::Form {
            return Err(Invalid::field("explode").found("true").allowed("false: `name=a&name=b` is of style form"));
        }
        Ok(())
    }

    pub fn style(&self) -> ParameterStyle {
        self.style.unwrap_or(ParameterStyle::Form)
    }

    pub fn explodes(&self) -> bool {
        self.explode.unwrap_or(self.style() == ParameterStyle::Form)
    }
}

/// In lower case and without parameters: `application/json`, `text/*` or `*/*`.
fn is_type(media: &str) -> bool {
    let is_word = |it: &str| check::is_token(it) && !it.bytes().any(|it| it.is_ascii_uppercase());
    media.split_once('/').is_some_and(|(kind, sub)| is_word(kind) && is_word(sub) && (kind != "*" || sub == "*"))
}

fn contents(list: &[ContractContent], bytes: &mut usize) -> Result<(), Invalid> {
    check::count("content", list.len(), CONTENTS_MAX)?;
    let types: Vec<&String> = list.iter().map(|it| &it.media).collect();
    check::once("content", &types, |it| it.to_string())?;
    for (place, it) in list.iter().enumerate() {
        let field = |name: &str| format!("content[{place}].{name}");
        if !is_type(&it.media) {
            let allowed = "a type in lower case without parameters, such as application/json, text/* or */*";
            return Err(Invalid::field(field("type")).found(format!("{:?}", it.media)).allowed(allowed));
        }
        let form = content_form(&it.media);
        if !it.encoding.is_empty() {
            if it.schema.is_none() || !matches!(form, ContentForm::Form | ContentForm::Multipart) {
                let allowed = "none: it is for application/x-www-form-urlencoded and multipart/form-data with a schema";
                return Err(Invalid::field(field("encoding")).found(format!("one of {}", it.media)).allowed(allowed));
            }
            check::count(&field("encoding"), it.encoding.len(), ENCODINGS_MAX)?;
            let names: Vec<&String> = it.encoding.iter().map(|it| &it.name).collect();
            check::once(&field("encoding"), &names, |it| it.to_string())?;
            for (at, it) in it.encoding.iter().enumerate() {
                it.check(form).map_err(|invalid| invalid.under(field(&format!("encoding[{at}]"))))?;
            }
        }
        let Some(schema) = &it.schema else { continue };
        *bytes += schema.as_str().len();
        if form == ContentForm::Opaque && !it.media.ends_with('*') {
            let allowed = "no schema: only JSON, application/x-www-form-urlencoded, multipart/form-data and text/plain are held against one";
            return Err(Invalid::field(field("schema")).found(format!("one of {}", it.media)).allowed(allowed));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::Kind;

    #[test]
    fn mistakes_name_their_place() {
        let policy = |words: serde_json::Value| Kind::Policy.parse(json!({ "name": "p", "contract": words }));
        let operation = |words: serde_json::Value| {
            let mut it = json!({ "method": "GET", "path": "/orders/{id}" });
            it.as_object_mut().unwrap().extend(words.as_object().unwrap().clone());
            json!({ "operations": [it] })
        };
        let shown = serde_json::to_value(policy(operation(json!({}))).unwrap()).unwrap();
        let expected = json!({
            "mode": "enforce", "responses": "off", "body_max": "1MiB", "unknown_operations": "refuse", "schemas": {},
            "operations": [{
                "id": "", "method": "GET", "path": "/orders/{id}", "mode": null, "parameters": [], "body": null,
                "responses": [], "summary": "", "description": "",
            }],
        });
        assert_eq!(shown["contract"], expected);
        let parameter = |it: serde_json::Value| operation(json!({ "parameters": [it] }));
        let body = |it: serde_json::Value| operation(json!({ "body": { "content": [it] } }));
        for (words, mention) in [
            (json!({}), "contract.operations: found nothing"),
            (operation(json!({ "method": "get" })), "operations[0].method: found \"get\""),
            (
                operation(json!({ "path": "orders" })),
                "operations[0].path: found \"orders\"; allowed: a path that begins",
            ),
            (operation(json!({ "path": "/a b" })), "allowed: the canonical form of it: /a%20b"),
            (operation(json!({ "path": "/a/../b" })), "allowed: the canonical form of it: /b"),
            (operation(json!({ "path": "/{a}{b}" })), "something between"),
            (operation(json!({ "path": "/{a" })), "braces in pairs"),
            (operation(json!({ "path": "/{a}/{a}" })), "operations[0].path: found {a} twice"),
            (
                json!({ "operations": [{ "method": "GET", "path": "/{a}" }, { "method": "GET", "path": "/{b}" }] }),
                "operations[1].path: found GET /{b} again",
            ),
            (
                parameter(json!({ "in": "path", "name": "x", "required": true })),
                "operations[0].parameters[0].name: found \"x\"",
            ),
            (parameter(json!({ "in": "path", "name": "id" })), "parameters[0].required: found false"),
            (
                parameter(json!({ "in": "query", "name": "q", "style": "simple" })),
                "parameters[0].style: found simple in query",
            ),
            (parameter(json!({ "in": "query", "name": "q", "schema": 7 })), "allowed: a schema"),
            (body(json!({ "type": "JSON" })), "operations[0].body.content[0].type: found \"JSON\""),
            (
                body(json!({ "type": "image/png", "schema": {} })),
                "operations[0].body.content[0].schema: found one of image/png",
            ),
            (
                body(json!({ "type": "application/json", "schema": {}, "encoding": [{ "name": "a" }] })),
                "content[0].encoding: found one of application/json",
            ),
            (
                body(
                    json!({ "type": "multipart/form-data", "schema": {}, "encoding": [{ "name": "a", "types": ["PNG"] }] }),
                ),
                "content[0].encoding[0].types[0]: found \"PNG\"",
            ),
            (
                body(
                    json!({ "type": "multipart/form-data", "schema": {}, "encoding": [{ "name": "a", "style": "json" }] }),
                ),
                "content[0].encoding[0].style: found json",
            ),
            (
                body(
                    json!({ "type": "application/x-www-form-urlencoded", "schema": {}, "encoding": [{ "name": "a" }, { "name": "a" }] }),
                ),
                "content[0].encoding",
            ),
            (
                body(
                    json!({ "type": "application/x-www-form-urlencoded", "schema": {}, "encoding": [{ "name": "a", "types": ["a/b"] }] }),
                ),
                "encoding[0].types: found a/b",
            ),
            (
                parameter(json!({ "in": "header", "name": "q", "style": "deep_object" })),
                "parameters[0].style: found deep_object in header",
            ),
            (
                operation(json!({ "responses": [{ "status": "20" }] })),
                "operations[0].responses[0].status: found \"20\"",
            ),
            (operation(json!({ "responses": [{ "status": "200" }, { "status": "200" }] })), "operations[0].responses"),
        ] {
            let error = policy(words).unwrap_err().to_string();
            assert!(error.contains(mention), "{error}");
        }
    }

    #[test]
    fn what_earlier_builds_cannot_read_needs_a_level_of_its_own() {
        let level = |more: serde_json::Value| {
            let mut operation = json!({ "method": "POST", "path": "/" });
            operation.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Kind::Policy.parse(json!({ "name": "p", "contract": { "operations": [operation] } })).unwrap().level()
        };
        let body = |it: serde_json::Value| json!({ "body": { "content": [it] } });
        let form = "application/x-www-form-urlencoded";
        assert_eq!(level(body(json!({ "type": "multipart/form-data" }))), 5, "nobody reads it");
        assert_eq!(level(body(json!({ "type": form, "schema": {} }))), 5);
        assert_eq!(level(body(json!({ "type": "multipart/form-data", "schema": {} }))), 6);
        assert_eq!(level(body(json!({ "type": form, "schema": {}, "encoding": [{ "name": "a" }] }))), 6);
        let parameter = |style: &str| json!({ "parameters": [{ "in": "query", "name": "q", "style": style }] });
        assert_eq!((level(parameter("form")), level(parameter("deep_object"))), (5, 6));
    }

    #[test]
    fn the_strongest_mode_of_all_is_its_own() {
        let contract = |mode: &str, own: &str, responses: &str| {
            let words = json!({
                "mode": mode, "responses": responses,
                "operations": [{ "method": "GET", "path": "/", "mode": own }],
            });
            serde_json::from_value::<ContractPolicy>(words).unwrap().strongest()
        };
        assert_eq!(contract("off", "enforce", "off"), PolicyMode::Enforce);
        assert_eq!(contract("off", "off", "detect"), PolicyMode::Detect);
        assert_eq!(contract("off", "off", "off"), PolicyMode::Off);
    }
}
