//! The JSON Schema (draft 2020-12) of the file, for editors.

use serde_json::{Map, Value as Json, json};

use super::form::{FILE, Field, Form, Object};

const NAME: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";
const SPAN: &str = "^(0|[0-9]+(us|ms|s|m|h|d))$";
const SIZE: &str = "^[0-9]+(KiB|MiB|GiB)?$";
const AUTHORITY: &str = "^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$";
const SECRET: &str = "^(sealed:[0-9a-f]{16}|plain:.+)$";
const STATUS_RANGE: &str = "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$";

pub fn schema() -> Json {
    let mut schema = object(&FILE);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Quorumgate configuration");
    schema
}

fn object(it: &Object) -> Json {
    let properties: Map<String, Json> =
        it.fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> = it
        .fields
        .iter()
        .filter(|field| field.required && it.file_for(field.name).is_none())
        .map(|field| field.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "description": it.about,
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(field: &Field) -> Json {
    let mut schema = form(field.form);
    if field.default == Some("null") {
        schema = json!({ "anyOf": [schema, { "type": "null" }] });
    } else if let Some(default) = field.default {
        schema["default"] = serde_json::from_str(default).expect("the form's defaults are JSON; a test reads them all");
    }
    schema["description"] = json!(field.about);
    schema
}

fn form(form_: Form) -> Json {
    let pattern = |it: &str| json!({ "type": "string", "pattern": it });
    match form_ {
        Form::Text => json!({ "type": ["string", "number", "boolean"] }),
        Form::Bool => json!({ "type": "boolean" }),
        Form::True => json!({ "const": true }),
        Form::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Form::Moment => json!({ "type": "string", "format": "date-time" }),
        Form::Span => json!({ "anyOf": [pattern(SPAN), { "const": 0 }] }),
        Form::Size => json!({ "anyOf": [pattern(SIZE), { "type": "integer", "minimum": 0 }] }),
        Form::Name => pattern(NAME),
        Form::Authority => pattern(AUTHORITY),
        Form::StatusRange => {
            json!({ "anyOf": [pattern(STATUS_RANGE), { "type": "integer", "minimum": 100, "maximum": 599 }] })
        }
        Form::Cidr => json!({ "type": "string" }),
        Form::Enum(words) => json!({ "enum": words }),
        Form::WordOrStatus(words, min, max) => {
            json!({ "anyOf": [{ "enum": words }, { "type": "integer", "minimum": min, "maximum": max }] })
        }
        Form::Status(allowed) => json!({ "enum": allowed }),
        Form::List(inner) => json!({ "type": "array", "items": form(*inner) }),
        Form::Texts => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
        }
        Form::Object(it) => object(it),
        Form::AuthorityOr(it) => json!({ "anyOf": [pattern(AUTHORITY), object(it)] }),
        Form::WordOr(words, it) => json!({ "anyOf": [{ "enum": words }, object(it)] }),
        Form::IntOr(min, max, it) => json!({ "anyOf": [form(Form::Int(min, max)), object(it)] }),
        Form::OneOrList(inner) => json!({ "anyOf": [form(*inner), form(Form::List(inner))] }),
        Form::TextLists => {
            let text = form(Form::Text);
            let values = json!({ "anyOf": [text, { "type": "array", "items": text }] });
            json!({ "type": "object", "additionalProperties": values })
        }
        Form::Json => json!({ "type": "object" }),
        Form::Schema => json!({ "type": ["object", "boolean"] }),
        Form::Secret => pattern(SECRET),
        Form::FileOf(..) => json!({ "type": "string", "minLength": 1 }),
    }
}
