//! Operations of a document as those of a contract.

use serde_json::{Map, Value as Json, json};

use super::{
    Notes,
    document::{Document, members, step, wrong},
    schemas::{Named, Way},
};
use crate::cli::failure::Outcome;
use quorumgate_model::resource::{ContentForm, OPERATION_TEXT_BYTES_MAX, SUMMARY_BYTES_MAX, content_form};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// Which the document may not speak of as parameters (OpenAPI 3.1, 4.8.12.2).
const OTHER_HEADERS: [&str; 3] = ["accept", "content-type", "authorization"];

/// One operation as the document has it.
pub struct Operation<'d> {
    pub label: String,
    /// `GET`
    pub method: String,
    /// As the document has it.
    pub path: &'d str,
    pub at: String,
    pub words: &'d Json,
    /// Those of its path too.
    shared: Vec<(String, &'d Json)>,
}

/// In the document's order.
pub fn all<'d>(document: &'d Document, notes: &mut Notes) -> Outcome<Vec<Operation<'d>>> {
    let mut operations = Vec::new();
    for (path, item) in members(document.root.get("paths")).filter(|(path, _)| !path.starts_with("x-")) {
        let (at, item) = document.resolve(&step("/paths", path), item)?;
        let list = |words: &'d Json, at: &str| -> Vec<(String, &'d Json)> {
            let list = words.get("parameters").and_then(Json::as_array).into_iter().flatten();
            list.enumerate().map(|(place, it)| (format!("{at}/parameters/{place}"), it)).collect()
        };
        if item.get("servers").is_some() {
            notes.tell(&at, "`servers` of one path are not read");
        }
        for method in METHODS {
            let Some(words) = item.get(method) else { continue };
            let at = step(&at, method);
            let method = method.to_ascii_uppercase();
            let label = match words.get("operationId").and_then(Json::as_str) {
                Some(id) if !id.is_empty() => id.to_owned(),
                _ => format!("{method} {path}"),
            };
            let mut shared = list(item, &at[..at.rfind('/').unwrap_or(0)]);
            shared.extend(list(words, &at));
            operations.push(Operation { label, method, path, at, words, shared });
        }
    }
    Ok(operations)
}

impl<'d> Operation<'d> {
    /// As the document has them, where they can be read.
    pub fn parameters_of(&self, document: &'d Document) -> impl Iterator<Item = &'d Json> {
        self.shared.iter().filter_map(move |(at, it)| Some(document.resolve(at, it).ok()?.1))
    }

    /// As the contract has it, behind `path`.
    pub fn words(
        &self,
        document: &'d Document,
        named: &mut Named<'d>,
        path: &str,
        with_answers: bool,
        notes: &mut Notes,
    ) -> Outcome<Json> {
        let mut made = json!({ "method": self.method, "path": path });
        if let Some(id) = self.words.get("operationId").and_then(Json::as_str) {
            made["id"] = json!(id);
        }
        for (word, bytes_max) in [("summary", SUMMARY_BYTES_MAX), ("description", OPERATION_TEXT_BYTES_MAX)] {
            let text = self.words.get(word).and_then(Json::as_str).unwrap_or_default();
            if !text.is_empty() {
                made[word] = json!(&text[..text.floor_char_boundary(bytes_max)]);
            }
        }
        let parameters = self.parameters(document, named, notes)?;
        if !parameters.is_empty() {
            made["parameters"] = Json::Array(parameters);
        }
        if let Some(body) = self.words.get("requestBody") {
            let (at, body) = document.resolve(&step(&self.at, "requestBody"), body)?;
            let content = self.content(document, named, &at, body, Way::Request, notes)?;
            if !content.is_empty() {
                let required = body.get("required").and_then(Json::as_bool).unwrap_or(false);
                made["body"] = json!({ "required": required, "content": content });
            }
        }
        if with_answers {
            let mut answers = Vec::new();
            for (status, answer) in members(self.words.get("responses")).filter(|(it, _)| !it.starts_with("x-")) {
                let (at, answer) = document.resolve(&step(&step(&self.at, "responses"), status), answer)?;
                let content = self.content(document, named, &at, answer, Way::Answer, notes)?;
                answers.push(json!({ "status": status.replace('x', "X"), "content": content }));
            }
            made["responses"] = Json::Array(answers);
        }
        Ok(made)
    }

    fn parameters(&self, document: &'d Document, named: &mut Named<'d>, notes: &mut Notes) -> Outcome<Vec<Json>> {
        // Those of the operation come behind those of its path, and in their place.
        let mut made: Vec<(String, Json)> = Vec::new();
        for (at, it) in &self.shared {
            let (at, it) = document.resolve(at, it)?;
            let text = |word: &str| it.get(word).and_then(Json::as_str).unwrap_or_default();
            let (place, name) = (text("in"), text("name"));
            if place == "header" && OTHER_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                continue;
            }
            let key = format!("{place} {name}");
            made.retain(|(known, _)| *known != key);
            if place == "path" && !self.path.contains(&format!("{{{name}}}")) {
                notes.lossy(&at, &format!("{}: the path has no {{{name}}}", self.label))?;
                continue;
            }
            if let Some(words) = self.parameter(document, named, &at, it, notes)? {
                made.push((key, words));
            }
        }
        Ok(made.into_iter().map(|(_, words)| words).collect())
    }

    /// None: it is left out.
    fn parameter(
        &self,
        document: &'d Document,
        named: &mut Named<'d>,
        at: &str,
        it: &'d Json,
        notes: &mut Notes,
    ) -> Outcome<Option<Json>> {
        let text = |word: &str| it.get(word).and_then(Json::as_str).unwrap_or_default();
        let (place, name, style) = (text("in"), text("name"), text("style"));
        let required = place == "path" || it.get("required") == Some(&Json::Bool(true));
        let mut made = json!({ "in": place, "name": name, "required": required });
        if let Some((media, content)) = members(it.get("content")).next() {
            if content_form(&plain(media)) != ContentForm::Json {
                notes.lossy(at, &format!("{}: {name} is of type {media}; JSON alone is checked", self.label))?;
                return Ok(Some(made));
            }
            made["style"] = json!("json");
            if let Some(schema) = content.get("schema") {
                let at = step(&step(&step(at, "content"), media), "schema");
                made["schema"] = named.schema(&at, schema, Way::Request)?;
            }
            return Ok(Some(made));
        }
        let word = match (place, style) {
            (_, "") | ("query" | "cookie", "form") | ("path" | "header", "simple") => None,
            ("query", "spaceDelimited") => Some("space_delimited"),
            ("query", "pipeDelimited") => Some("pipe_delimited"),
            ("query", "deepObject") => Some("deep_object"),
            _ => {
                let why = format!("{}: {name} is of style {style}, which is not read", self.label);
                notes.lossy(at, &why)?;
                return Ok(None);
            }
        };
        let Some(schema) = it.get("schema") else { return Ok(Some(made)) };
        let (_, plain) = document.resolve(&step(at, "schema"), schema)?;
        match (is_object(document, plain), word == Some("deep_object")) {
            (true, false) => {
                let why = format!("{}: {name} is an object in several parameters, which is not read", self.label);
                notes.lossy(at, &why)?;
                return Ok(None);
            }
            (false, true) => {
                let why = format!("{}: {name} is of style deepObject and no object, which is not read", self.label);
                notes.lossy(at, &why)?;
                return Ok(None);
            }
            _ => {}
        }
        made["schema"] = named.schema(&step(at, "schema"), schema, Way::Request)?;
        if let Some(word) = word {
            made["style"] = json!(word);
        } else if let Some(explode) = it.get("explode").and_then(Json::as_bool) {
            made["explode"] = json!(explode);
        }
        Ok(Some(made))
    }

    fn content(
        &self,
        document: &'d Document,
        named: &mut Named<'d>,
        at: &str,
        words: &'d Json,
        way: Way,
        notes: &mut Notes,
    ) -> Outcome<Vec<Json>> {
        let mut made: Vec<Json> = Vec::new();
        for (media, it) in members(words.get("content")) {
            let at = step(&step(at, "content"), media);
            let plain = plain(media);
            if made.iter().any(|it| it["type"] == plain.as_str()) {
                notes.tell(&at, &format!("{}: {plain} is there twice; the first counts", self.label));
                continue;
            }
            let mut content = Map::from_iter([("type".to_owned(), json!(plain))]);
            let schema = it.get("schema").filter(|it| **it != json!({}) && **it != json!(true));
            let form = content_form(&plain);
            let is_checked = form != ContentForm::Opaque || plain.ends_with('*');
            match schema {
                None => {}
                Some(_) if !is_checked => {
                    notes.tell(&at, &format!("{}: bodies of {plain} are taken and not checked", self.label));
                }
                Some(_) if form == ContentForm::Multipart && way == Way::Answer => {
                    notes.tell(&at, &format!("{}: answers of {plain} are taken and not checked", self.label));
                }
                Some(schema) => match encoding(document, form, schema, it) {
                    Ok(encoding) if !encoding.is_empty() && way == Way::Answer => {
                        notes.tell(&at, &format!("{}: answers of {plain} are taken and not checked", self.label));
                    }
                    Ok(encoding) => {
                        let schema = named.schema(&step(&at, "schema"), schema, way)?;
                        content.insert("schema".to_owned(), schema);
                        if !encoding.is_empty() {
                            content.insert("encoding".to_owned(), Json::Array(encoding));
                        }
                    }
                    Err(why) => {
                        notes.tell(&at, &format!("{}: {why}, and is taken and not checked", self.label));
                    }
                },
            }
            made.push(Json::Object(content));
        }
        Ok(made)
    }
}

/// A type without its parameters.
fn plain(media: &str) -> String {
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_object(document: &Document, schema: &Json) -> bool {
    let kind = schema.get("type");
    let is = |word: &str| {
        kind.is_some_and(|it| *it == word || it.as_array().is_some_and(|list| list.contains(&json!(word))))
    };
    let others = ["string", "integer", "number", "boolean", "array"];
    let by_parts = || {
        let parts = ["allOf", "anyOf", "oneOf"].iter().filter_map(|it| schema.get(*it)?.as_array()).flatten();
        let mut parts = parts.filter_map(|it| document.resolve("", it).ok()).peekable();
        parts.peek().is_some() && parts.all(|(_, it)| it.get("type").is_some_and(|it| it == "object"))
    };
    match kind {
        Some(_) => is("object") && !others.iter().any(|it| is(it)),
        None => schema.get("properties").is_some() || by_parts(),
    }
}

/// How members of a form are written where that is not as usual. Err: one of them is written in a way that nothing here reads.
fn encoding(document: &Document, form: ContentForm, schema: &Json, media: &Json) -> Result<Vec<Json>, String> {
    if !matches!(form, ContentForm::Form | ContentForm::Multipart) {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    for (name, words) in members(media.get("encoding")) {
        let text = |word: &str| words.get(word).and_then(Json::as_str);
        let kinds: Vec<String> = text("contentType").into_iter().flat_map(|it| it.split(',')).map(plain).collect();
        let explode = words.get("explode").and_then(Json::as_bool);
        let unread = |what: &str| format!("{name} is written as {what}, which is not read");
        match (form, text("style"), kinds.as_slice()) {
            (ContentForm::Multipart, Some(style), _) => return Err(unread(style)),
            (ContentForm::Multipart, None, []) => {}
            (ContentForm::Multipart, None, kinds) => made.push(json!({ "name": name, "types": kinds })),
            (_, Some("deepObject"), []) => made.push(json!({ "name": name, "style": "deep_object" })),
            (_, Some("spaceDelimited"), []) => made.push(json!({ "name": name, "style": "space_delimited" })),
            (_, Some("pipeDelimited"), []) => made.push(json!({ "name": name, "style": "pipe_delimited" })),
            (_, None | Some("form"), []) if explode == Some(false) => {
                made.push(json!({ "name": name, "explode": false }));
            }
            (_, None | Some("form"), []) => {}
            (_, None, [kind]) if content_form(kind) == ContentForm::Json => {
                made.push(json!({ "name": name, "style": "json" }));
            }
            (_, None, [kind]) if kind == "text/plain" => {}
            (_, style, kinds) => return Err(unread(style.unwrap_or(&kinds.join(", ")))),
        }
    }
    if form == ContentForm::Form {
        let is_said = |name: &str| {
            let is_it = |it: &&Json| it["name"] == name && it["style"].is_string();
            made.iter().find(is_it).is_some_and(|it| matches!(it["style"].as_str(), Some("deep_object" | "json")))
        };
        if let Some(name) = nested(document, schema, is_said) {
            return Err(format!("{name} is an object in a form, and nothing says how it is written"));
        }
    }
    Ok(made)
}

/// A member that nobody could tell how it is written: an object, or what may be one.
fn nested(document: &Document, schema: &Json, is_said: impl Fn(&str) -> bool) -> Option<String> {
    let unknown = || Some("the body".to_owned());
    let Ok((_, schema)) = document.resolve("", schema) else { return unknown() };
    if ["allOf", "anyOf", "oneOf"].iter().any(|it| schema.get(*it).is_some()) {
        return unknown();
    }
    let is_nested = |property: &Json| {
        let Ok((_, property)) = document.resolve("", property) else { return true };
        let items = property.get("items").and_then(|it| Some(document.resolve("", it).ok()?.1));
        is_object(document, property)
            || ["allOf", "anyOf", "oneOf"].iter().any(|it| property.get(*it).is_some())
            || items.is_some_and(|it| is_object(document, it))
    };
    let mut properties = members(schema.get("properties")).filter(|(name, _)| !is_said(name));
    properties.find(|(_, property)| is_nested(property)).map(|(name, _)| name.to_owned())
}

/// Operations without a `paths` object are none.
pub fn none(at: &str) -> crate::cli::failure::Failure {
    wrong(at, "found no operation in `paths`", "a document of webhooks alone has nothing to route")
}
