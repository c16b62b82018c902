//! Routes for the operations of a document: one for all where all ask for the same, else one for each path and what it asks.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::{document::wrong, name, operations::Operation, security::Asks};
use crate::cli::failure::Outcome;

/// An operation with its full path.
pub struct Routed<'o, 'd> {
    pub operation: &'o Operation<'d>,
    pub path: String,
    pub asks: Asks,
}

pub struct Plan<'p> {
    pub api: &'p str,
    pub base: &'p str,
    pub hosts: &'p [String],
    pub upstream: &'p str,
    pub policy: &'p str,
}

pub fn of(plan: &Plan<'_>, all: &[Routed<'_, '_>]) -> Outcome<Vec<Json>> {
    let Some(first) = all.first() else { return Ok(Vec::new()) };
    if all.iter().all(|it| it.asks == first.asks) {
        let prefix = if plan.base.is_empty() { "/" } else { plan.base };
        return Ok(vec![plan.route(plan.api.to_owned(), json!({ "path_prefix": prefix }), &first.asks)]);
    }
    // A parameter may have any name; a path is one whatever they are.
    let mut paths: BTreeMap<String, BTreeMap<Asks, Vec<&Routed<'_, '_>>>> = BTreeMap::new();
    for it in all {
        let segments = it.path.split('/');
        if let Some(mixed) = segments
            .clone()
            .find(|it| it.contains('{') && !(it.starts_with('{') && it.ends_with('}') && it.matches('{').count() == 1))
        {
            let found = format!(
                "{}: the segment {mixed:?} is more than a parameter, and operations ask for different credentials",
                it.operation.label
            );
            return Err(wrong(
                &it.operation.at,
                &found,
                "no route has such a path: say --auth NAME, so that all ask for the same",
            ));
        }
        let shape: Vec<&str> = segments.map(|it| if it.starts_with('{') { "{}" } else { it }).collect();
        paths.entry(shape.join("/")).or_default().entry(it.asks.clone()).or_default().push(it);
    }
    let mut routes = Vec::new();
    let mut taken = BTreeMap::<String, usize>::new();
    for group in paths.values().flat_map(|it| it.iter()) {
        let (asks, operations) = group;
        let path = &operations[0].path;
        let methods: Vec<&str> = operations.iter().map(|it| it.operation.method.as_str()).collect();
        let word = if path.contains('{') { "path_template" } else { "path_exact" };
        let plain = name(&format!("{}-{}-{}", plan.api, methods[0], &path[plan.base.len()..]));
        let number = taken.entry(plain.clone()).or_default();
        *number += 1;
        let name = match number {
            1 => plain,
            number => format!("{}.{number}", &plain[..plain.len().min(58)]),
        };
        routes.push(plan.route(name, json!({ word: path, "methods": methods }), asks));
    }
    Ok(routes)
}

impl Plan<'_> {
    fn route(&self, name: String, mut matches: Json, asks: &Asks) -> Json {
        if !self.hosts.is_empty() {
            matches["hosts"] = json!(self.hosts);
        }
        let mut words = Map::new();
        words.insert("name".into(), json!(name));
        words.insert("match".into(), matches);
        words.insert("upstream".into(), json!(self.upstream));
        if !asks.any_of.is_empty() {
            words.insert("auth".into(), json!({ "any_of": asks.any_of }));
        }
        if !asks.all_of.is_empty() {
            words.insert("auth".into(), json!({ "all_of": asks.all_of }));
        }
        if !asks.scopes.is_empty() {
            let rules: Json = asks.scopes.iter().map(|it| json!({ "allow": { "scopes_all": it } })).collect();
            words.insert("authorize".into(), rules);
        }
        words.insert("policies".into(), json!([self.policy]));
        Json::Object(words)
    }
}
