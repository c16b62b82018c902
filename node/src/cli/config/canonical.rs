//! The canonical file: fields in the form's order, defaults left out, equal bytes for equal objects; and its opposite for
//! JSON, with every field.

use quorumgate_model::resource::{Kind, Resource};
use serde_json::{Map, Value as Json};

use super::{
    form::{Form, Object},
    form_of,
};
use crate::cli::failure::{Failure, Outcome};

/// The file that says exactly this, upstreams first, by name.
pub fn file<'r>(resources: impl Iterator<Item = &'r Resource>) -> Outcome<String> {
    let mut sorted: Vec<&Resource> = resources.collect();
    sorted.sort_by_key(|it| it.key());
    let mut lists = Map::new();
    for kind in Kind::ALL {
        let ours = sorted.iter().filter(|it| it.key().kind == kind);
        let words = ours.map(|it| words(it)).collect::<Outcome<Vec<Json>>>()?;
        if !words.is_empty() {
            lists.insert(kind.list().to_owned(), Json::Array(words));
        }
    }
    match lists.is_empty() {
        true => Ok("{}\n".to_owned()),
        false => serde_saphyr::to_string(&Json::Object(lists)).map_err(Failure::internal),
    }
}

/// An object's canonical words.
pub fn words(resource: &Resource) -> Outcome<Json> {
    let json = serde_json::to_value(resource).map_err(Failure::internal)?;
    Ok(pruned(&json, form_of(resource.key().kind)))
}

/// Every field of the form, in its order; an unset one with its default or null.
pub fn complete(resource: &Resource) -> Outcome<Json> {
    let json = serde_json::to_value(resource).map_err(Failure::internal)?;
    Ok(completed(&json, form_of(resource.key().kind)))
}

fn pruned(words: &Json, object: &Object) -> Json {
    let mut kept = Map::new();
    for field in object.fields {
        let Some(value) = words.get(field.name) else { continue };
        let value = prune(value, field.form);
        let default = field.default.map(default_json);
        if default.as_ref() != Some(&value) {
            kept.insert(field.name.to_owned(), value);
        }
    }
    Json::Object(kept)
}

fn prune(value: &Json, form: Form) -> Json {
    match (form, value) {
        (Form::Object(object), Json::Object(_)) => pruned(value, object),
        (Form::List(inner), Json::Array(items)) => items.iter().map(|item| prune(item, *inner)).collect(),
        (Form::AuthorityOr(object), Json::Object(_)) => match pruned(value, object) {
            Json::Object(words) if words.len() == 1 => words["address"].clone(),
            words => words,
        },
        _ => value.clone(),
    }
}

fn completed(words: &Json, object: &Object) -> Json {
    let fields = object.fields.iter().map(|field| {
        let default = || field.default.map_or(Json::Null, default_json);
        let value = words.get(field.name).cloned().unwrap_or_else(default);
        (field.name.to_owned(), complete_value(&value, field.form))
    });
    Json::Object(fields.collect())
}

fn complete_value(value: &Json, form: Form) -> Json {
    match (form, value) {
        (Form::Object(object) | Form::AuthorityOr(object), Json::Object(_)) => completed(value, object),
        (Form::AuthorityOr(object), Json::String(_)) => completed(&serde_json::json!({ "address": value }), object),
        (Form::List(inner), Json::Array(items)) => items.iter().map(|item| complete_value(item, *inner)).collect(),
        _ => value.clone(),
    }
}

fn default_json(text: &str) -> Json {
    serde_json::from_str(text).expect("the form's defaults are JSON; a test reads them all")
}
