//! Configuration files: read with places, checked against the form, turned into model types and the API's messages.

pub mod canonical;
mod check;
mod files;
mod form;
mod locate;
mod nearest;
pub mod schema;
pub mod source;
pub mod tree;

use std::{collections::HashMap, path::PathBuf};

use quorumgate_model::{
    convert,
    digest::Digest,
    invalid::Invalid,
    resource::{Key, Kind, Name, Resource},
    ruleset,
};
use quorumgate_proto::admin::v1::ConfigSet;
use serde_json::Value as Json;

use self::{
    check::{Checker, FileWord, Wrong, start},
    form::Object,
    source::Source,
    tree::{Node, Place, Value},
};
use super::{
    failure::{Failure, Outcome, Problem},
    status::Violation,
};
use crate::compile;

/// Everything some files say.
#[derive(Debug)]
pub struct Config {
    sources: Vec<Source>,
    objects: Vec<Written>,
}

/// One object and where it is written.
#[derive(Debug)]
struct Written {
    resource: Resource,
    source: usize,
    node: Node,
    /// From the root of the document: `auth[3]`.
    path: String,
    /// The files whose content is in it.
    files: Vec<FileWord>,
}

pub fn load(files: &[PathBuf]) -> Outcome<Config> {
    Config::parse(source::read(files)?)
}

impl Config {
    /// All wrong words of all files, or the configuration.
    pub fn parse(sources: Vec<Source>) -> Outcome<Self> {
        let mut objects = Vec::new();
        let mut problems = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            match tree::parse(&source.text) {
                Ok(documents) => {
                    for document in documents {
                        read_document(source, at, document, &mut objects, &mut problems);
                    }
                }
                Err(error) => {
                    problems.push(Problem { place: source.at(error.place), ..Problem::invalid(error.message) })
                }
            }
        }
        find_duplicates(&sources, &objects, &mut problems);
        match problems.is_empty() {
            true => Ok(Self { sources, objects }),
            false => Err(Failure::invalid(problems)),
        }
    }

    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.objects.iter().map(|it| &it.resource)
    }

    /// The canonical file, in which files that are named stay named.
    pub fn canonical(&self) -> Outcome<String> {
        let words = |written: &Written| {
            let mut words = canonical::words(&written.resource)?;
            written.files.iter().for_each(|file| files::restore(&mut words, file, &written.path));
            Ok((written.resource.key(), words))
        };
        canonical::file_of(self.objects.iter().map(words).collect::<Outcome<_>>()?)
    }

    pub fn message(&self) -> ConfigSet {
        convert::config_to(self.resources())
    }

    /// The server's complaints about fields, at their lines in the files.
    pub fn locate(&self, failure: Failure, complaints: &[Violation]) -> Failure {
        let Some(whole) = failure.problems.first().filter(|_| !complaints.is_empty()) else { return failure };
        let problem = |it: &Violation| {
            let message = match it.field.is_empty() || it.message.starts_with(&it.field) {
                true => it.message.clone(),
                false => format!("{}: {}", it.field, it.message),
            };
            Problem { message, place: self.place(&it.field), ..whole.clone() }
        };
        Failure { exit: failure.exit, problems: complaints.iter().map(problem).collect() }
    }

    /// The place of a field path such as `routes[3].match.path_regex` or `routes/orders.match`; empty if it is not here.
    fn place(&self, field: &str) -> String {
        let found = locate::split(field, |kind, name| self.position(kind, name));
        let Some((kind, at, rest)) = found else { return String::new() };
        let Some(written) = self.objects.iter().filter(|it| it.resource.key().kind == kind).nth(at) else {
            return String::new();
        };
        self.sources[written.source].show(locate::walk(&written.node, rest))
    }

    /// What can be said of the objects together without a cluster: no two routes match the same. References may point to
    /// what is in the cluster already.
    pub fn check_together(&self) -> Outcome {
        let mut seen: HashMap<Digest, &Name> = HashMap::new();
        let mut problems = Vec::new();
        for written in &self.objects {
            let Resource::Route(route) = &written.resource else { continue };
            if let Some(other) = seen.insert(ruleset::match_fingerprint(route), &route.name) {
                problems.push(Problem {
                    place: self.sources[written.source].show(start(&written.node)),
                    help: "change the match of one of them, or give one a higher priority".to_owned(),
                    ..Problem::invalid(format!("routes {other} and {} take the same requests", route.name))
                });
            }
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Failure::invalid(problems)),
        }
    }

    fn position(&self, kind: Kind, name: &str) -> Option<usize> {
        self.resources().map(Resource::key).filter(|key| key.kind == kind).position(|key| &*key.name == name)
    }
}

fn read_document(source: &Source, at: usize, document: Node, objects: &mut Vec<Written>, problems: &mut Vec<Problem>) {
    let mut checker = Checker::new(&source.text);
    let mut words = checker.object("", &document, &form::FILE);
    let mut wrong = checker.wrong;
    if wrong.is_empty() {
        wrong.extend(checker.files.iter().filter_map(|file| files::fill(&mut words, file, source).err()));
    }
    if wrong.is_empty() {
        for kind in Kind::ALL {
            let nodes = document.field(kind.list()).map(|(_, node)| items(node)).unwrap_or_default();
            let words = words[kind.list()].as_array().cloned().unwrap_or_default();
            for (index, (node, words)) in nodes.iter().zip(words).enumerate() {
                match resource(kind, words) {
                    Ok(resource) => {
                        let path = format!("{}[{index}]", kind.list());
                        let inside = |it: &&FileWord| {
                            it.path.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                        };
                        let files = checker.files.iter().filter(inside).cloned().collect();
                        objects.push(Written { resource, source: at, node: node.clone(), path, files });
                    }
                    Err(invalid) => wrong.push(blame(kind, index, node, invalid)),
                }
            }
        }
    }
    problems.extend(wrong.into_iter().map(|it| Problem {
        place: source.show(it.place),
        help: it.help,
        ..Problem::invalid(it.message)
    }));
}

fn items(list: &Node) -> &[Node] {
    match &list.value {
        Value::List(items) => items,
        _ => &[],
    }
}

fn blame(kind: Kind, index: usize, node: &Node, invalid: Invalid) -> Wrong {
    let place = locate::walk(node, &invalid.field);
    Wrong { place, message: invalid.under(format!("{}[{index}]", kind.list())).to_string(), help: String::new() }
}

/// One object's words as the model's type, with every check that one object allows.
pub fn resource(kind: Kind, words: Json) -> Result<Resource, Invalid> {
    let resource = kind.parse(words).map_err(|error| locate::from_text(&error.to_string()))?;
    let resource = convert::resource_from(convert::resource_to(&resource))?;
    compile::check(&resource)?;
    Ok(resource)
}

fn find_duplicates(sources: &[Source], objects: &[Written], problems: &mut Vec<Problem>) {
    let mut seen: HashMap<Key, (usize, Place)> = HashMap::new();
    for written in objects {
        let key = written.resource.key();
        let place = written.node.field("name").map_or(start(&written.node), |(_, name)| name.place);
        match seen.get(&key) {
            Some((source, first)) => problems.push(Problem {
                place: sources[written.source].show(place),
                help: format!("the other one is at {}:{}", sources[*source].name, first.line),
                ..Problem::invalid(format!("{}: the {} {:?} is written twice", key.kind.list(), key.kind, key.name))
            }),
            None => {
                seen.insert(key, (written.source, place));
            }
        }
    }
}

/// One object of `route set NAME -f F`: its words alone, or a file with nothing else in it.
pub fn load_one(kind: Kind, name: &str, source: Source) -> Outcome<Resource> {
    let bare = tree::parse(&source.text).ok().filter(|it| it.len() == 1 && it[0].field(kind.list()).is_none());
    let Some(document) = bare.and_then(|mut it| it.pop()) else {
        return the_only(kind, name, Config::parse(vec![source])?);
    };
    let mut checker = Checker::new(&source.text);
    let mut node = document;
    if let Value::Map(fields) = &mut node.value
        && !fields.iter().any(|(key, _)| key.text == "name")
    {
        let place = Place { line: 1, column: 1, ..Place::default() };
        let key = tree::Key { place, text: "name".into() };
        fields.push((key, Node { place, value: Value::Text(name.to_owned()) }));
    }
    let mut words = checker.object(kind.word(), &node, form_of(kind));
    let mut wrong = checker.wrong;
    if wrong.is_empty() {
        // Here the object itself is the root.
        for file in &checker.files {
            let inner = FileWord { path: file.path[kind.word().len()..].to_owned(), ..file.clone() };
            wrong.extend(files::fill(&mut words, &inner, &source).err());
        }
    }
    if wrong.is_empty() {
        match resource(kind, words) {
            Ok(resource) => return named(name, resource),
            Err(invalid) => wrong.push(Wrong {
                place: locate::walk(&node, &invalid.field),
                message: invalid.under(kind).to_string(),
                help: String::new(),
            }),
        }
    }
    let problem = |it: Wrong| Problem { place: source.show(it.place), help: it.help, ..Problem::invalid(it.message) };
    Err(Failure::invalid(wrong.into_iter().map(problem).collect()))
}

fn the_only(kind: Kind, name: &str, config: Config) -> Outcome<Resource> {
    let mut resources: Vec<Resource> = config.objects.into_iter().map(|it| it.resource).collect();
    match (resources.pop(), resources.is_empty()) {
        (Some(resource), true) if resource.key().kind == kind => named(name, resource),
        _ => Err(Failure::usage(format!("the file must hold one {kind} and nothing else")).help("use apply for more")),
    }
}

fn named(name: &str, resource: Resource) -> Outcome<Resource> {
    match &*resource.key().name == name {
        true => Ok(resource),
        false => Err(Failure::usage(format!("the file says name: {}, the command {name}", resource.key().name))),
    }
}

fn form_of(kind: Kind) -> &'static Object {
    match kind {
        Kind::Upstream => &form::UPSTREAM,
        Kind::Route => &form::ROUTE,
        Kind::Consumer => &form::CONSUMER,
        Kind::Auth => &form::AUTH,
        Kind::CertificateAuthority => &form::CERTIFICATE_AUTHORITY,
        Kind::Limit => &form::LIMIT,
        Kind::Certificate => &form::CERTIFICATE,
        Kind::Listener => &form::LISTENER,
        Kind::Policy => &form::POLICY,
        Kind::Tenant => &form::TENANT,
        Kind::Guardrail => &form::GUARDRAIL,
    }
}

#[cfg(test)]
mod tests;
