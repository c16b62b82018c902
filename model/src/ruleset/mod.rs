//! The resources compiled for reading: which route takes a request, and why not another.

mod condition;
mod explain;
mod fingerprint;
mod index;
mod rank;
mod request;
mod rule;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};

pub use explain::{BEATEN_MAX, Beaten, Explanation};
pub use fingerprint::{match_fingerprint, same_match};
pub use rule::{REGEX_BYTES_MAX, REGEX_TEXT_BYTES_MAX, Rule, check};

use self::{index::Entry, rank::Rank, request::Request};
use crate::{
    resource::{Name, Resource, Resources, Upstream},
    state::State,
};

/// Everything one exchange reads. Immutable; swapped whole. A clone shares everything.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    pub revision: u64,
    /// The index of the state it was compiled from.
    pub index: u64,
    pub upstreams: OrdMap<Name, Arc<Upstream>>,
    pub rules: OrdMap<Name, Arc<Rule>>,
    hosts: index::Hosts,
    /// What it was compiled from: the next one starts here and follows the differences.
    resources: Resources,
}

/// One request as routing sees it.
pub struct View<'a> {
    pub method: &'a str,
    /// Lower case, without a port; empty if the request has none.
    pub host: &'a str,
    /// Canonical (`canonical::path`); a `*` (OPTIONS) is taken by routes that say nothing about the path.
    pub path: &'a str,
    /// Without the `?`.
    pub query: Option<&'a str>,
    pub headers: &'a dyn HeaderLookup,
    pub client_ip: IpAddr,
    pub sni: Option<&'a str>,
}

pub trait HeaderLookup {
    /// Whether any field of this (lower-case) name passes the test; values that are not UTF-8 never do.
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool;

    /// Whether there is a field of this (lower-case) name. To be overridden where values may be other than UTF-8:
    /// those are present too.
    fn has(&self, name: &str) -> bool {
        self.any(name, &mut |_| true)
    }
}

#[derive(Debug)]
pub enum Found<'r> {
    Rule(&'r Arc<Rule>),
    /// 405: the methods that some route takes at this host and path, sorted.
    MethodNotAllowed(Vec<String>),
    /// 404.
    NoRoute,
}

impl Ruleset {
    /// Never fails: a route that cannot be compiled here is `broken`. `previous` lets unchanged parts be reused: then
    /// the cost goes with the number of differences.
    pub fn compile(state: &State, previous: Option<&Ruleset>) -> Ruleset {
        let mut next = previous.cloned().unwrap_or_default();
        let before = std::mem::replace(&mut next.resources, state.resources.clone());
        next.revision = state.revision;
        next.index = state.index;
        for difference in before.diff(&state.resources) {
            match difference {
                DiffItem::Remove(_, old) => next.remove(&old.resource),
                DiffItem::Add(_, new) => next.insert(&new.resource),
                DiffItem::Update { old, new } => {
                    next.remove(&old.1.resource);
                    next.insert(&new.1.resource);
                }
            }
        }
        next
    }

    fn insert(&mut self, resource: &Resource) {
        match resource {
            Resource::Upstream(it) => drop(self.upstreams.insert(it.name.clone(), it.clone())),
            Resource::Route(it) => {
                let rule = Arc::new(Rule::new(it.clone()));
                self.hosts.insert(&rule);
                self.rules.insert(it.name.clone(), rule);
            }
        }
    }

    fn remove(&mut self, resource: &Resource) {
        match resource {
            Resource::Upstream(it) => drop(self.upstreams.remove(&it.name)),
            Resource::Route(it) => {
                if let Some(rule) = self.rules.remove(&it.name) {
                    self.hosts.remove(&rule);
                }
            }
        }
    }

    /// The route that takes the request, by the precedence of docs/ARCHITECTURE.md. HEAD falls back to GET; a CORS
    /// preflight is matched by its requested method.
    pub fn find(&self, view: &View<'_>) -> Found<'_> {
        let request = Request::new(view);
        if let Some((_, winner)) = self.best(&request) {
            return Found::Rule(&winner.rule);
        }
        match self.methods_allowed(&request) {
            Some(methods) => Found::MethodNotAllowed(methods),
            None => Found::NoRoute,
        }
    }

    /// The winner, with its rank for this request's method.
    fn best(&self, request: &Request<'_>) -> Option<(Rank, &Entry)> {
        let path = request.view.path;
        let mut best: Option<(Rank, &Entry)> = None;
        self.hosts.visit(request.host, path, &mut |entries| {
            for entry in entries {
                let name = &*entry.rule.route.name;
                let beats = |rank: Rank| best.is_none_or(|(other, it)| (rank, name) < (other, &*it.rule.route.name));
                // The list is sorted: whatever follows is no better.
                if !beats(entry.rank) {
                    break;
                }
                let Some(method) = entry.rule.takes_method(&request.method) else { continue };
                let rank = Rank { method, ..entry.rank };
                if beats(rank) && entry.rule.takes_path(path) && entry.rule.unmet(request).is_none() {
                    best = Some((rank, entry));
                }
            }
        });
        best
    }

    /// The methods of the routes at this host and path, if there are any and none takes the request's.
    fn methods_allowed(&self, request: &Request<'_>) -> Option<Vec<String>> {
        let path = request.view.path;
        let mut allowed: BTreeSet<&str> = BTreeSet::new();
        let mut taken = false;
        self.hosts.visit(request.host, path, &mut |entries| {
            for rule in entries.iter().map(|entry| &entry.rule).filter(|rule| rule.takes_path(path)) {
                taken |= rule.takes_method(&request.method).is_some();
                allowed.extend(rule.route.matches.methods.iter().map(String::as_str));
            }
        });
        if allowed.contains("GET") {
            allowed.insert("HEAD");
        }
        match taken || allowed.is_empty() {
            true => None,
            false => Some(allowed.into_iter().map(str::to_owned).collect()),
        }
    }

    /// As `find`, slowly, with reasons.
    pub fn explain(&self, view: &View<'_>) -> Explanation {
        explain::explain(self, &Request::new(view))
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
