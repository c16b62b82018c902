//! Documents of others, read field by field: who asks for a field deals with it, and what nobody has asked for is told at
//! the end. So nothing is passed over in silence.

use std::{cell::RefCell, collections::HashSet};

use serde_json::Value as Json;

use super::report::{Line, Report, Reported, Told};
use crate::cli::{
    config::{
        source::Source,
        tree::{self, Node, Value},
    },
    failure::{Failure, Outcome, Problem},
};

/// Characters of a value that are repeated in a message.
const FOUND_CHARS_MAX: usize = 120;
/// Parts of names of fields whose values are not repeated.
const SECRETS: [&str; 7] = ["key", "secret", "password", "token", "credential", "cert", "auth"];
/// Fields of edits, whose values are not repeated, but for the names in lists of them and of what is removed.
const EDITS: [&str; 4] = ["headers", "querystring", "body", "json"];
/// Fields that may have a query.
const PLACES: [&str; 4] = ["uri", "url", "location", "path"];
const HIDDEN: &str = "a value that is not shown";
/// By what objects in lists are called, the first that they have.
const NAMES: [&str; 5] = ["name", "username", "id", "sni", "uri"];

pub struct Reading {
    sources: Vec<Source>,
    /// With the number of the source.
    documents: Vec<(usize, Node)>,
    seen: RefCell<HashSet<*const Node>>,
    /// Dealt with, with all that is inside.
    done: RefCell<HashSet<*const Node>>,
    report: Report,
}

/// A value somewhere in a document.
#[derive(Clone)]
pub struct Item<'d> {
    reading: &'d Reading,
    source: usize,
    node: &'d Node,
    /// Such as `services[orders].routes[v1].hosts[0]`; empty for a document.
    pub path: String,
}

impl Reading {
    pub fn of(sources: Vec<Source>) -> Outcome<Self> {
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        for (number, source) in sources.iter().enumerate() {
            match tree::parse(&source.text) {
                Ok(nodes) => documents.extend(nodes.into_iter().map(|node| (number, node))),
                Err(error) => {
                    problems.push(Problem { place: source.at(error.place), ..Problem::invalid(error.message) })
                }
            }
        }
        match problems.is_empty() {
            true => Ok(Self {
                sources,
                documents,
                seen: RefCell::default(),
                done: RefCell::default(),
                report: Report::default(),
            }),
            false => Err(Failure::invalid(problems)),
        }
    }

    pub fn documents(&self) -> impl Iterator<Item = Item<'_>> {
        self.documents.iter().map(|(source, node)| Item { reading: self, source: *source, node, path: String::new() })
    }

    /// What was said, and what nobody has read.
    pub fn finish(&self) -> Reported {
        self.documents().for_each(|it| it.tell_unread());
        self.report.finish()
    }
}

impl<'d> Item<'d> {
    fn child(&self, node: &'d Node, path: String) -> Item<'d> {
        self.reading.seen.borrow_mut().insert(std::ptr::from_ref(node));
        Item { reading: self.reading, source: self.source, node, path }
    }

    fn below(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.path),
        }
    }

    /// By another name.
    pub fn named(&self, name: &str) -> Item<'d> {
        Item { path: name.to_owned(), ..self.clone() }
    }

    /// Which value it is: equal for one that is met twice.
    pub fn identity(&self) -> *const Node {
        std::ptr::from_ref(self.node)
    }

    pub fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// None where it is null, too.
    pub fn get(&self, name: &str) -> Option<Item<'d>> {
        let (_, node) = self.node.field(name)?;
        let child = self.child(node, self.below(name));
        (!matches!(node.value, Value::Null)).then_some(child)
    }

    /// The fields of a map.
    pub fn members(&self) -> Vec<(&'d str, Item<'d>)> {
        let Value::Map(fields) = &self.node.value else { return Vec::new() };
        let member = |(key, node): &'d (tree::Key, Node)| (key.text.as_str(), self.child(node, self.below(&key.text)));
        fields.iter().map(member).collect()
    }

    /// The entries of a list, which are called by their names.
    pub fn entries(&self) -> Vec<Item<'d>> {
        let Value::List(items) = &self.node.value else { return Vec::new() };
        let entry = |(number, node): (usize, &'d Node)| self.child(node, self.entry(number, node));
        items.iter().enumerate().map(entry).collect()
    }

    fn entry(&self, number: usize, node: &Node) -> String {
        let name = NAMES.iter().find_map(|name| match &node.field(name)?.1.value {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            _ => None,
        });
        format!("{}[{}]", self.path, name.unwrap_or_else(|| number.to_string()))
    }

    /// The entries of a field that is a list; none if it is not there.
    pub fn list(&self, name: &str) -> Outcome<Vec<Item<'d>>> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(it) if it.is_list() => Ok(it.entries()),
            Some(it) => Err(it.wrong("a list")),
        }
    }

    pub fn map(&self, name: &str) -> Outcome<Option<Item<'d>>> {
        match self.get(name) {
            Some(it) if !it.is_map() => Err(it.wrong("a map")),
            it => Ok(it),
        }
    }

    /// A text, or what is as good as one.
    pub fn as_text(&self) -> Outcome<String> {
        match &self.node.value {
            Value::Text(it) => Ok(it.clone()),
            Value::Int(it) => Ok(it.to_string()),
            Value::Bool(it) => Ok(it.to_string()),
            Value::Float(it) => Ok(it.to_string()),
            _ => Err(self.wrong("a text")),
        }
    }

    pub fn as_number(&self) -> Outcome<f64> {
        match &self.node.value {
            Value::Int(it) => Ok(*it as f64),
            Value::Float(it) => Ok(*it),
            _ => Err(self.wrong("a number")),
        }
    }

    pub fn as_int(&self) -> Outcome<i64> {
        match &self.node.value {
            Value::Int(it) => Ok(*it),
            Value::Float(it) if it.fract() == 0.0 && it.abs() < 1e15 => Ok(*it as i64),
            _ => Err(self.wrong("a whole number")),
        }
    }

    pub fn text(&self, name: &str) -> Outcome<Option<String>> {
        self.get(name).map(|it| it.as_text()).transpose()
    }

    pub fn number(&self, name: &str) -> Outcome<Option<f64>> {
        self.get(name).map(|it| it.as_number()).transpose()
    }

    pub fn int(&self, name: &str) -> Outcome<Option<i64>> {
        self.get(name).map(|it| it.as_int()).transpose()
    }

    pub fn flag(&self, name: &str) -> Outcome<Option<bool>> {
        let flag = |it: Item<'d>| match &it.node.value {
            Value::Bool(it) => Ok(*it),
            _ => Err(it.wrong("true or false")),
        };
        self.get(name).map(flag).transpose()
    }

    pub fn texts(&self, name: &str) -> Outcome<Vec<String>> {
        self.list(name)?.iter().map(Item::as_text).collect()
    }

    pub fn json(&self) -> Json {
        self.skip();
        self.node.json()
    }

    /// Dealt with, with all that is inside.
    pub fn skip(&self) {
        self.reading.done.borrow_mut().insert(self.identity());
    }

    /// Fields that mean nothing to a gateway, such as the time at which something was made.
    pub fn skip_fields(&self, names: &[&str]) {
        for name in names {
            if let Some(it) = self.get(name) {
                it.skip();
            }
        }
    }

    pub fn wrong(&self, allowed: &str) -> Failure {
        let message = format!("{}: found {}; allowed: {allowed}", self.shown_path(), self.found());
        let source = &self.reading.sources[self.source];
        let line = source.text.lines().nth(self.node.place.line.saturating_sub(1)).unwrap_or_default();
        let near = format!("{}\n{line}", self.path).to_ascii_lowercase();
        let mut place = source.show(self.node.place);
        // A line with something secret is not shown: all of a document may be one.
        if SECRETS.iter().any(|it| near.contains(it))
            && let Some(end) = place.find('\n')
        {
            place.truncate(end);
        }
        Failure::invalid(vec![Problem { place, ..Problem::invalid(message) }])
    }

    pub fn left_out(&self, what: impl AsRef<str>) {
        self.say(Told::LeftOut, what.as_ref());
    }

    pub fn closed(&self, what: impl AsRef<str>) {
        self.say(Told::Closed, what.as_ref());
    }

    pub fn differs(&self, what: impl AsRef<str>) {
        self.say(Told::Differs, what.as_ref());
    }

    pub fn note(&self, what: impl AsRef<str>) {
        self.say(Told::Note, what.as_ref());
    }

    fn say(&self, told: Told, what: &str) {
        let found = match &self.node.value {
            // Its name, which the path has already, says more.
            Value::Map(_) | Value::List(_) => String::new(),
            _ => format!("found {}; ", self.found()),
        };
        let source = &self.reading.sources[self.source];
        let line = self.node.place.line;
        self.reading.report.say(Line {
            told,
            place: (self.source, line),
            shown: format!("{}:{line}", source.name),
            what: format!("{}: {found}{what}", self.shown_path()),
        });
    }

    fn shown_path(&self) -> &str {
        match self.path.as_str() {
            "" => "the document",
            path => path,
        }
    }

    fn found(&self) -> String {
        let last = self.path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        let shown = match &self.node.value {
            Value::Null | Value::List(_) | Value::Map(_) => return self.node.value.what().to_owned(),
            Value::Bool(it) => return it.to_string(),
            _ if SECRETS.iter().any(|it| last.contains(it)) => return HIDDEN.to_owned(),
            Value::Int(it) => it.to_string(),
            Value::Float(it) => it.to_string(),
            Value::Text(it) => match without_secrets(&self.path, it) {
                Some(shown) => format!("{shown:?}"),
                None => return HIDDEN.to_owned(),
            },
        };
        match shown.chars().count() {
            0..=FOUND_CHARS_MAX => shown,
            _ => shown.chars().take(FOUND_CHARS_MAX).chain(['…']).collect(),
        }
    }

    /// Whether there is a field in it that nobody has read.
    pub fn has_unread(&self) -> bool {
        if self.reading.done.borrow().contains(&self.identity()) {
            return false;
        }
        let is_unread = |it: Item<'d>| {
            let is_seen = self.reading.seen.borrow().contains(&it.identity());
            (!is_seen && !matches!(it.node.value, Value::Null)) || it.has_unread()
        };
        match &self.node.value {
            Value::Map(fields) => fields.iter().any(|(_, node)| is_unread(Item { node, ..self.clone() })),
            Value::List(items) => items.iter().any(|node| is_unread(Item { node, ..self.clone() })),
            _ => false,
        }
    }

    /// Fields of its own that nobody has read, in none of these.
    pub fn unread(&self, but: &[&str]) -> Vec<Item<'d>> {
        let Value::Map(fields) = &self.node.value else { return Vec::new() };
        let is_seen = |node: &Node| self.reading.seen.borrow().contains(&std::ptr::from_ref(node));
        let unread = fields.iter().filter(|(key, node)| {
            !but.contains(&key.text.as_str()) && !matches!(node.value, Value::Null) && !is_seen(node)
        });
        unread.map(|(key, node)| Item { node, path: self.below(&key.text), ..self.clone() }).collect()
    }

    fn tell_unread(&self) {
        if self.reading.done.borrow().contains(&self.identity()) {
            return;
        }
        // Not by `get`: nobody reads here.
        let inside: Vec<Item<'d>> = match &self.node.value {
            Value::Map(fields) => {
                let field =
                    |(key, node): &'d (tree::Key, Node)| Item { node, path: self.below(&key.text), ..self.clone() };
                fields.iter().map(field).collect()
            }
            Value::List(items) => {
                let entry =
                    |(number, node): (usize, &'d Node)| Item { node, path: self.entry(number, node), ..self.clone() };
                items.iter().enumerate().map(entry).collect()
            }
            _ => return,
        };
        for it in inside {
            let is_seen = self.reading.seen.borrow().contains(&it.identity());
            match (is_seen, &it.node.value) {
                (true, _) => it.tell_unread(),
                (false, Value::Null) => {}
                (false, _) => it.left_out("it is not known here"),
            }
        }
    }
}

/// Of a field with its value the name alone, and of a URL neither who asks nor with what. None: all of it is a value.
fn without_secrets(path: &str, text: &str) -> Option<String> {
    // Names in brackets are no fields.
    let fields: String = path.split('[').map(|it| it.rsplit_once(']').map_or(it, |(_, rest)| rest)).collect();
    let last = fields.rsplit('.').next().unwrap_or_default();
    if EDITS.iter().any(|it| fields.contains(it)) {
        let is_named = path.ends_with(']') && (last == "remove" || EDITS.contains(&last));
        return is_named
            .then(|| text.split_once(':').map_or_else(|| text.to_owned(), |(name, _)| format!("{name}: …")));
    }
    let (text, query) = match text.split_once('?') {
        Some((place, _)) if PLACES.contains(&last) => (place, "?…"),
        _ => (text, ""),
    };
    Some(match text.split_once("://") {
        Some((scheme, rest)) if rest.contains('@') => {
            format!("{scheme}://…@{}{query}", rest.rsplit_once('@').map_or("", |(_, host)| host))
        }
        _ => format!("{text}{query}"),
    })
}
