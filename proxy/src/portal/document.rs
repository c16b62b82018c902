//! The OpenAPI 3.1 document of a version, made of what its contracts hold requests to: what is written there is true.

use std::collections::BTreeMap;

use quorumgate_model::resource::{
    AuthKind, Combine, ContractContent, ContractEncoding, ContractOperation, ContractParameter, ContractPolicy,
    HostPattern, ParameterStyle, PolicyKind, Schema,
};
use serde_json::{Map, Value, json};

use super::{catalogue::Entry, pages::Ways};

/// Of all contracts together: more is no page any more.
pub(super) const DOCUMENT_BYTES_MAX: usize = 8 << 20;
const NAMED: &str = "#/schemas/";

/// None: it would be too large, or a schema is none.
pub(super) fn of(entry: &Entry, ways: &Ways<'_>) -> Option<String> {
    let words = &entry.words;
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut schemas = Map::new();
    let mut bytes = 0;
    for (at, contract) in contracts(entry).enumerate() {
        // The names of a second contract are its own.
        let prefix = if at == 0 { String::new() } else { format!("{at}.") };
        bytes += contract.schemas.as_str().len() + contract.operations.iter().map(size).sum::<usize>();
        if bytes > DOCUMENT_BYTES_MAX / 2 {
            return None;
        }
        let Value::Object(named) = contract.schemas.value().ok()? else { return None };
        for (name, mut schema) in named {
            rename(&mut schema, &prefix);
            schemas.insert(format!("{prefix}{name}"), schema);
        }
        for it in &contract.operations {
            let methods = paths.entry(it.path.clone()).or_default();
            methods.insert(it.method.to_ascii_lowercase(), operation(it, &prefix)?);
        }
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": words.api.to_string(), "version": words.version, "description": entry.policy.description },
        "paths": paths,
        "components": { "schemas": schemas },
    });
    let servers: Vec<Value> =
        servers(entry).into_iter().map(|host| json!({ "url": format!("https://{host}") })).collect();
    if !servers.is_empty() {
        document["servers"] = json!(servers);
    }
    let (schemes, security) = security(ways);
    if !security.is_empty() {
        document["components"]["securitySchemes"] = Value::Object(schemes);
        document["security"] = json!(security);
    }
    let text = serde_json::to_string_pretty(&document).ok()?;
    (text.len() <= DOCUMENT_BYTES_MAX).then_some(text)
}

pub(super) fn contracts(entry: &Entry) -> impl Iterator<Item = &ContractPolicy> {
    entry.contracts.iter().filter_map(|policy| match &policy.kind {
        PolicyKind::Contract(it) => Some(&**it),
        _ => None,
    })
}

fn size(it: &ContractOperation) -> usize {
    let schema = |it: &Option<Schema>| it.as_ref().map_or(0, |it| it.as_str().len());
    let contents = |list: &[ContractContent]| list.iter().map(|it| schema(&it.schema)).sum::<usize>();
    let body = it.body.as_ref().map_or(0, |it| contents(&it.content));
    let answers: usize = it.responses.iter().map(|it| contents(&it.content)).sum();
    it.parameters.iter().map(|it| schema(&it.schema)).sum::<usize>() + body + answers + it.description.len()
}

fn operation(it: &ContractOperation, prefix: &str) -> Option<Value> {
    let mut made = json!({});
    for (word, text) in [("operationId", &it.id), ("summary", &it.summary), ("description", &it.description)] {
        if !text.is_empty() {
            made[word] = json!(text);
        }
    }
    let parameters = it.parameters.iter().map(|it| parameter(it, prefix)).collect::<Option<Vec<_>>>()?;
    if !parameters.is_empty() {
        made["parameters"] = json!(parameters);
    }
    if let Some(body) = &it.body {
        made["requestBody"] = json!({ "required": body.required, "content": content(&body.content, prefix)? });
    }
    let mut answers = Map::new();
    for it in &it.responses {
        let mut answer = json!({ "description": "" });
        if !it.content.is_empty() {
            answer["content"] = content(&it.content, prefix)?;
        }
        answers.insert(it.status.clone(), answer);
    }
    if answers.is_empty() {
        answers.insert("default".into(), json!({ "description": "" }));
    }
    made["responses"] = Value::Object(answers);
    Some(made)
}

fn parameter(it: &ContractParameter, prefix: &str) -> Option<Value> {
    let mut made = json!({ "in": it.place.word(), "name": it.name, "required": it.required });
    let schema = match &it.schema {
        Some(it) => schema(it, prefix)?,
        None => json!({ "type": "string" }),
    };
    match it.style {
        Some(ParameterStyle::Json) => made["content"] = json!({ "application/json": { "schema": schema } }),
        style => {
            made["schema"] = schema;
            written(&mut made, style, it.explode);
        }
    }
    Some(made)
}

/// How a parameter or a member of a form is written, in the words of OpenAPI.
fn written(made: &mut Value, style: Option<ParameterStyle>, explode: Option<bool>) {
    let word = style.map(|it| match it {
        ParameterStyle::Spaces => "spaceDelimited",
        ParameterStyle::Pipes => "pipeDelimited",
        ParameterStyle::Deep => "deepObject",
        other => other.word(),
    });
    if let Some(word) = word {
        made["style"] = json!(word);
    }
    let explode = if style == Some(ParameterStyle::Deep) { Some(true) } else { explode };
    if let Some(explode) = explode {
        made["explode"] = json!(explode);
    }
}

fn encoding(it: &ContractEncoding) -> Value {
    let mut made = json!({});
    match it.style {
        Some(ParameterStyle::Json) => made["contentType"] = json!("application/json"),
        style => written(&mut made, style, it.explode),
    }
    if !it.types.is_empty() {
        made["contentType"] = json!(it.types.join(", "));
    }
    made
}

fn content(list: &[ContractContent], prefix: &str) -> Option<Value> {
    let mut made = Map::new();
    for it in list {
        let mut of = match &it.schema {
            Some(it) => json!({ "schema": schema(it, prefix)? }),
            None => json!({}),
        };
        if !it.encoding.is_empty() {
            let members = it.encoding.iter().map(|it| (it.name.clone(), encoding(it)));
            of["encoding"] = Value::Object(members.collect());
        }
        made.insert(it.media.clone(), of);
    }
    Some(Value::Object(made))
}

fn schema(it: &Schema, prefix: &str) -> Option<Value> {
    let mut value = it.value().ok()?;
    rename(&mut value, prefix);
    Some(value)
}

/// `#/schemas/A` is `#/components/schemas/A` there. As deep as JSON can be read.
fn rename(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(members) => {
            for (name, it) in members {
                match it {
                    Value::String(to) if name == "$ref" => {
                        if let Some(name) = to.strip_prefix(NAMED) {
                            *to = format!("#/components/schemas/{prefix}{name}");
                        }
                    }
                    it => rename(it, prefix),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|it| rename(it, prefix)),
        _ => {}
    }
}

/// Hosts that have a name of their own, each once.
pub(super) fn servers(entry: &Entry) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for host in entry.routes.iter().flat_map(|it| &it.matches.hosts) {
        let text = HostPattern::to_string(host);
        if !text.contains('*') && !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

/// What its ways ask for: any of these.
fn security(ways: &Ways<'_>) -> (Map<String, Value>, Vec<Value>) {
    let (mut schemes, mut security) = (Map::new(), Vec::new());
    for route in &ways.entry.routes {
        let known: Vec<(String, Value)> = match &route.auth {
            Some(asked) => {
                let named = asked.names.iter().filter_map(|name| ways.auth(name));
                named.filter_map(|it| Some((it.name.to_string(), scheme(&it.kind)?))).collect()
            }
            None => Vec::new(),
        };
        let together = |names: &[(String, Value)]| {
            Value::Object(names.iter().map(|(name, _)| (name.clone(), json!([]))).collect())
        };
        let mut alternatives: Vec<Value> = match route.auth.as_ref().map(|it| it.combine) {
            Some(Combine::AllOf) if !known.is_empty() => vec![together(&known)],
            _ => known.chunks(1).map(together).collect(),
        };
        if route.auth.as_ref().is_none_or(|it| it.anonymous.is_some()) {
            alternatives.push(json!({}));
        }
        for it in alternatives {
            if !security.contains(&it) {
                security.push(it);
            }
        }
        schemes.extend(known);
    }
    // Nothing to show: nothing to say of it.
    if schemes.is_empty() {
        security.clear();
    }
    (schemes, security)
}

fn scheme(kind: &AuthKind) -> Option<Value> {
    Some(match kind {
        AuthKind::ApiKey(it) => json!({ "type": "apiKey", "in": "header", "name": it.header }),
        AuthKind::Jwt(_) | AuthKind::Introspection(_) => json!({ "type": "http", "scheme": "bearer" }),
        AuthKind::Basic(_) => json!({ "type": "http", "scheme": "basic" }),
        AuthKind::Mtls(_) => json!({ "type": "mutualTLS" }),
        _ => return None,
    })
}
