//! The canonical file: fields in the form's order, defaults left out, equal bytes for equal objects; and its opposite for
//! JSON, with every field.

use quorumgate_model::resource::{ClientAuth, Key, OnStale, Resource};
use serde_json::{Map, Value as Json};

use super::{
    form::{Form, Object},
    form_of,
};
use crate::cli::failure::{Failure, Outcome};

/// The file that says exactly this, upstreams first, by name.
pub fn file<'r>(resources: impl Iterator<Item = &'r Resource>) -> Outcome<String> {
    file_of(resources.map(|it| Ok((it.key(), words(it)?))).collect::<Outcome<_>>()?)
}

/// The file of these objects' words.
pub fn file_of(mut objects: Vec<(Key, Json)>) -> Outcome<String> {
    objects.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut lists = Map::new();
    for (key, words) in objects {
        let list = lists.entry(key.kind.list()).or_insert_with(|| Json::Array(Vec::new()));
        list.as_array_mut().expect("made a list above").push(words);
    }
    match lists.is_empty() {
        true => Ok("{}\n".to_owned()),
        false => serde_saphyr::to_string(&Json::Object(lists)).map_err(Failure::internal),
    }
}

/// An object's canonical words.
pub fn words(resource: &Resource) -> Outcome<Json> {
    let json = serde_json::to_value(resource).map_err(Failure::internal)?;
    let mut words = pruned(&json, form_of(resource.kind()));
    // Its default goes with the route's auth.
    if let (Resource::Route(route), Json::Object(words)) = (resource, &mut words)
        && route.on_stale == OnStale::default_with(route.auth.as_ref())
    {
        words.shift_remove("on_stale");
    }
    if let (Resource::Listener(listener), Json::Object(words)) = (resource, &mut words)
        && listener.client_auth == ClientAuth::default_with(listener.client_ca.as_ref())
    {
        words.shift_remove("client_auth");
    }
    Ok(words)
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
        (Form::WordOr(_, object) | Form::IntOr(_, _, object), Json::Object(_)) => pruned(value, object),
        (Form::List(inner) | Form::OneOrList(inner), Json::Array(items)) => {
            items.iter().map(|item| prune(item, *inner)).collect()
        }
        (Form::OneOrList(inner), value) => prune(value, *inner),
        (Form::AuthorityOr(object), Json::Object(_)) => match pruned(value, object) {
            Json::Object(words) if words.len() == 1 => words["address"].clone(),
            words => words,
        },
        _ => value.clone(),
    }
}

fn completed(words: &Json, object: &Object) -> Json {
    let held = object.fields.iter().filter(|field| !matches!(field.form, Form::FileOf(..)));
    let fields = held.map(|field| {
        let default = || field.default.map_or(Json::Null, default_json);
        let value = words.get(field.name).cloned().unwrap_or_else(default);
        (field.name.to_owned(), complete_value(&value, field.form))
    });
    Json::Object(fields.collect())
}

fn complete_value(value: &Json, form: Form) -> Json {
    match (form, value) {
        (
            Form::Object(object) | Form::AuthorityOr(object) | Form::WordOr(_, object) | Form::IntOr(_, _, object),
            Json::Object(_),
        ) => completed(value, object),
        (Form::AuthorityOr(object), Json::String(_)) => completed(&serde_json::json!({ "address": value }), object),
        (Form::List(inner) | Form::OneOrList(inner), Json::Array(items)) => {
            items.iter().map(|item| complete_value(item, *inner)).collect()
        }
        (Form::OneOrList(inner), value) => complete_value(value, *inner),
        // What has just been read from a file is not for a terminal.
        (Form::Secret, Json::String(text)) if text.starts_with("plain:") => "plain:…".into(),
        _ => value.clone(),
    }
}

fn default_json(text: &str) -> Json {
    serde_json::from_str(text).expect("the form's defaults are JSON; a test reads them all")
}
