//! The resources compiled for reading: which route takes a request, and why not another.

mod addresses;
pub mod agents;
mod condition;
mod explain;
mod fingerprint;
mod fold;
mod index;
mod json_text;
mod mask;
mod rank;
#[doc(hidden)]
pub mod reference;
mod request;
mod rule;
pub mod split;
mod transform;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};

pub use addresses::{Shut, ShutOut};
pub use agents::{BotFound, Unwelcome};
pub use explain::{BEATEN_MAX, Beaten, Explanation};
pub use fingerprint::{match_fingerprint, same_match};
pub use json_text::{Bodies, JsonText, Unfit};
pub use mask::{Mask, veiled};
pub use rule::{REGEX_BYTES_MAX, REGEX_TEXT_BYTES_MAX, Rule, check};
pub use transform::{BadRewrite, REWRITTEN_PATH_BYTES_MAX, Transform};

use self::{
    addresses::Asked,
    index::{Entry, Visitor},
    rank::Rank,
    request::Request,
};
use crate::{
    resource::{CertificateAuthority, Name, Resource, Resources, Upstream},
    state::State,
};

/// Everything one exchange reads. Immutable; swapped whole. A clone shares everything.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    pub revision: u64,
    /// The index of the state it was compiled from.
    pub index: u64,
    pub upstreams: OrdMap<Name, Arc<Upstream>>,
    /// Who may vouch for the upstreams' servers.
    pub authorities: OrdMap<Name, Arc<CertificateAuthority>>,
    pub rules: OrdMap<Name, Arc<Rule>>,
    policies: OrdMap<Name, Asked>,
    hosts: index::Hosts,
    seed: split::SplitSeed,
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
    /// The name of the listener that it came in by; None: one of the node's own settings.
    pub listener: Option<&'a str>,
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
        let seed = split::SplitSeed::of(state.cluster.as_deref());
        // Rules keep what they were compiled with.
        let mut next = previous.filter(|it| it.seed == seed).cloned().unwrap_or_default();
        next.seed = seed;
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
                let rule = Arc::new(Rule::seeded(it.clone(), self.seed));
                self.hosts.insert(&rule);
                self.rules.insert(it.name.clone(), rule);
            }
            Resource::CertificateAuthority(it) => drop(self.authorities.insert(it.name.clone(), it.clone())),
            Resource::Policy(it) => drop(self.policies.insert(it.name.clone(), Asked::of(it))),
            // Looked up by name where they are needed, never compiled with the routes.
            Resource::Consumer(_)
            | Resource::Auth(_)
            | Resource::Limit(_)
            | Resource::Certificate(_)
            | Resource::Listener(_)
            | Resource::Tenant(_)
            | Resource::Guardrail(_) => {}
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
            Resource::CertificateAuthority(it) => drop(self.authorities.remove(&it.name)),
            Resource::Policy(it) => drop(self.policies.remove(&it.name)),
            Resource::Consumer(_)
            | Resource::Auth(_)
            | Resource::Limit(_)
            | Resource::Certificate(_)
            | Resource::Listener(_)
            | Resource::Tenant(_)
            | Resource::Guardrail(_) => {}
        }
    }

    /// The route that takes the request, by the precedence of docs/ARCHITECTURE.md. HEAD falls back to GET; a CORS
    /// preflight is matched by its requested method.
    pub fn find(&self, view: &View<'_>) -> Found<'_> {
        let request = Request::new(view);
        let search = self.search(&request);
        if let Some((_, winner)) = search.best {
            return Found::Rule(&winner.rule);
        }
        match search.reached.then(|| self.methods_allowed(&request)).flatten() {
            Some(methods) => Found::MethodNotAllowed(methods),
            None => Found::NoRoute,
        }
    }

    fn search<'r, 'q>(&'r self, request: &'q Request<'q>) -> Search<'r, 'q> {
        let mut search = Search { request, best: None, reached: false };
        self.hosts.visit(request.host, request.view.path, &mut search);
        search
    }

    /// The methods of the routes at this host and path, if there are any and none takes the request's.
    fn methods_allowed<'r>(&'r self, request: &Request<'_>) -> Option<Vec<String>> {
        let path = request.view.path;
        let mut allowed: BTreeSet<&str> = BTreeSet::new();
        let mut taken = false;
        self.hosts.visit(request.host, path, &mut |entries: &'r [Entry]| {
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

    /// What the cluster has in common that others do not have.
    pub fn seed(&self) -> split::SplitSeed {
        self.seed
    }

    /// As `find`, slowly, with reasons.
    pub fn explain(&self, view: &View<'_>) -> Explanation {
        explain::explain(self, &Request::new(view))
    }
}

/// Looks for the best of the entries that take the request.
struct Search<'r, 'q> {
    request: &'q Request<'q>,
    /// With its rank for this request's method.
    best: Option<(Rank, &'r Entry)>,
    /// Whether there was any entry at all.
    reached: bool,
}

impl Search<'_, '_> {
    fn beats(&self, rank: Rank, entry: &Entry) -> bool {
        let Some((best, holder)) = self.best else { return true };
        rank < best || (rank == best && entry.rule.route.name < holder.rule.route.name)
    }
}

impl<'r> Visitor<'r> for Search<'r, '_> {
    fn offer(&mut self, entries: &'r [Entry]) {
        self.reached |= !entries.is_empty();
        for entry in entries {
            // The list is sorted: whatever follows is no better.
            if !self.beats(entry.rank, entry) {
                break;
            }
            if entry.open {
                self.best = Some((entry.rank, entry));
                break;
            }
            if !entry.may_take(self.request.view.path) {
                continue;
            }
            let Some(method) = entry.rule.takes_method(&self.request.method) else { continue };
            let rank = Rank { method, ..entry.rank };
            let takes = |rule: &Rule| rule.takes_path(self.request.view.path) && rule.unmet(self.request).is_none();
            if self.beats(rank, entry) && takes(&entry.rule) {
                self.best = Some((rank, entry));
            }
        }
    }

    /// What follows is of a lesser host or path: only its priority could put it first.
    fn settled(&self, priority_max: i32) -> bool {
        self.best.is_some_and(|(rank, _)| rank.priority.0 >= priority_max)
    }
}

#[cfg(test)]
mod tests;
