//! What a translation comes to, before it is checked: objects in our words, each with the place that it is from.

use std::collections::{HashMap, HashSet};

use quorumgate_model::resource::Kind;
use serde_json::{Map, Value as Json, json};

use super::{effects::Effects, reader::Item};
use crate::cli::config::tree::Node;

/// Names may be 63 bytes; the rest is for a number that tells two apart.
const NAME_BYTES_MAX: usize = 48;

pub struct Made<'d> {
    pub kind: Kind,
    pub from: Item<'d>,
    pub words: Map<String, Json>,
}

/// A route, and what decides who takes a request that it takes too.
pub struct Draft<'d> {
    pub from: Item<'d>,
    pub words: Map<String, Json>,
    /// Where the other gateway has it among its routes: the larger is asked first, part by part.
    pub order: Vec<i64>,
    pub protects: bool,
    /// As in `Effects`.
    pub takes_more: bool,
    /// The other gateway's prefix is of characters, ours of whole segments: the words by which the route takes what is
    /// below the prefix without a slash between.
    pub beyond: Option<Map<String, Json>>,
    /// Their prefix does not take itself without the slash at its end, and ours does: the words by which it does not either.
    pub below: Option<Map<String, Json>>,
}

#[derive(Default)]
pub struct Out<'d> {
    names: HashMap<Kind, HashSet<String>>,
    /// The last number that was put behind a name of a kind.
    numbers: HashMap<(Kind, String), usize>,
    /// The names of objects by the value that they are from, and which of its objects it is.
    made: HashMap<(*const Node, String), String>,
    pub objects: Vec<Made<'d>>,
    pub routes: Vec<Draft<'d>>,
}

impl<'d> Out<'d> {
    /// A name that nothing of this kind has.
    pub fn name(&mut self, kind: Kind, wanted: &str) -> String {
        let plain = plain(wanted);
        let taken = self.names.entry(kind).or_default();
        let mut name = plain.clone();
        while !taken.insert(name.clone()) {
            let number = self.numbers.entry((kind, plain.clone())).or_insert(1);
            *number += 1;
            name = format!("{plain}.{number}");
        }
        name
    }

    /// Its name.
    pub fn put(&mut self, kind: Kind, from: &Item<'d>, wanted: &str, words: Json) -> String {
        let name = self.name(kind, wanted);
        self.put_named(kind, from, name.clone(), words);
        name
    }

    pub fn put_named(&mut self, kind: Kind, from: &Item<'d>, name: String, words: Json) {
        let mut all = Map::from_iter([("name".to_owned(), json!(name))]);
        if let Json::Object(words) = words {
            all.extend(words);
        }
        self.objects.push(Made { kind, from: from.clone(), words: all });
    }

    /// The name of what was made of this value as this part before, or is made now.
    pub fn once(&mut self, kind: Kind, from: &Item<'d>, part: &str, wanted: &str, words: Json) -> String {
        let key = (from.identity(), format!("{kind}/{part}"));
        if let Some(name) = self.made.get(&key) {
            return name.clone();
        }
        let name = self.put(kind, from, wanted, words);
        self.made.insert(key, name.clone());
        name
    }

    pub fn route(&mut self, from: &Item<'d>, mut route: RouteWords, effects: Effects) {
        let protects = effects.protects() || route.protects;
        let takes_more = effects.takes_more;
        let name = self.name(Kind::Route, &route.name);
        let finish = |route: &RouteWords, name: &str, matches: Json, rewrite: Map<String, Json>| {
            let mut words = Map::from_iter([("name".to_owned(), json!(name))]);
            words.extend(route.rest.clone());
            words.insert("match".into(), matches);
            words.insert("rewrite".into(), Json::Object(rewrite));
            effects.clone().put(&mut words);
            words
        };
        let beyond_name = match route.beyond.is_some() {
            true => self.name(Kind::Route, &format!("{name}.beyond")),
            false => String::new(),
        };
        let beyond = route.beyond.take().map(|(matches, rewrite)| {
            let mut words = finish(&route, &name, matches, rewrite);
            words.insert("name".into(), json!(beyond_name));
            words
        });
        let below = route.below.take().map(|(matches, rewrite)| finish(&route, &name, matches, rewrite));
        let matches = std::mem::take(&mut route.matches);
        let rewrite = std::mem::take(&mut route.rewrite);
        let words = finish(&route, &name, matches, rewrite);
        self.routes.push(Draft { from: from.clone(), words, order: route.order, protects, takes_more, beyond, below });
    }
}

/// A route's own words, to which effects come.
#[derive(Default)]
pub struct RouteWords {
    pub name: String,
    pub matches: Json,
    pub rewrite: Map<String, Json>,
    /// Upstream, labels, description and time-outs.
    pub rest: Map<String, Json>,
    pub order: Vec<i64>,
    /// Match and rewrite, as in `Draft`.
    pub beyond: Option<(Json, Map<String, Json>)>,
    pub below: Option<(Json, Map<String, Json>)>,
    /// It stands for one that keeps some out.
    pub protects: bool,
}

impl RouteWords {
    /// The same requests where they come without TLS; `self`, which has hosts, is for those with it from now on.
    pub fn part_insecure(&mut self, protects: bool) -> RouteWords {
        let mut insecure = RouteWords {
            name: format!("{}-without-tls", self.name),
            matches: self.matches.clone(),
            order: self.order.clone(),
            beyond: self.beyond.clone(),
            below: self.below.clone(),
            protects,
            ..RouteWords::default()
        };
        let hosts = self.matches["hosts"].clone();
        for it in self.all_matches() {
            it.entry("sni").or_insert_with(|| hosts.clone());
        }
        for it in insecure.all_matches() {
            it.shift_remove("sni");
        }
        self.order.push(1);
        insecure
    }

    fn all_matches(&mut self) -> impl Iterator<Item = &mut Map<String, Json>> {
        let others = [&mut self.beyond, &mut self.below].into_iter().flatten().map(|(matches, _)| matches);
        [&mut self.matches].into_iter().chain(others).filter_map(Json::as_object_mut)
    }
}

/// A name of ours for what has any.
pub fn plain(text: &str) -> String {
    let mut name = String::new();
    for it in text.chars() {
        match it {
            'a'..='z' | '0'..='9' => name.push(it),
            'A'..='Z' => name.push(it.to_ascii_lowercase()),
            '.' | '_' | '-' if !name.is_empty() => name.push(it),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(NAME_BYTES_MAX);
    let name = name.trim_end_matches(['-', '.']);
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}
