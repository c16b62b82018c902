//! The resources compiled for reading: which route takes a request, and why not another.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    resource::{Name, Resources, Route, Upstream},
    state::State,
};

/// Everything one exchange reads. Immutable; swapped whole.
#[derive(Debug, Default)]
pub struct Ruleset {
    pub revision: u64,
    /// The index of the state it was compiled from.
    pub index: u64,
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    pub rules: Vec<Arc<Rule>>,
}

/// One compiled route.
#[derive(Debug)]
pub struct Rule {
    pub route: Arc<Route>,
    /// Why this node cannot compile it: it answers 500 `broken_rule`, and the rest stands.
    pub broken: Option<String>,
}

/// One request as routing sees it.
pub struct View<'a> {
    pub method: &'a str,
    /// Lower case, without a port; empty if the request has none.
    pub host: &'a str,
    /// Canonical (`canonical::path`).
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
}

#[derive(Debug)]
pub enum Found<'r> {
    Rule(&'r Arc<Rule>),
    /// 405: the methods that some route takes at this host and path, sorted.
    MethodNotAllowed(Vec<String>),
    /// 404.
    NoRoute,
}

/// For `route match`: the winner, and each other route that was in the running with the reason it lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub winner: Option<Name>,
    pub beaten: Vec<Beaten>,
    pub allowed_methods: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    pub route: Name,
    pub why: String,
}

impl Ruleset {
    /// Never fails: a route that cannot be compiled here is `broken`. `previous` lets unchanged parts be reused.
    pub fn compile(_state: &State, _previous: Option<&Ruleset>) -> Ruleset {
        todo!("H1")
    }

    /// The route that takes the request, by the precedence of docs/ARCHITECTURE.md. HEAD falls back to GET; a CORS
    /// preflight is matched by its requested method.
    pub fn find(&self, _view: &View<'_>) -> Found<'_> {
        todo!("H1")
    }

    /// As `find`, slowly, with reasons.
    pub fn explain(&self, _view: &View<'_>) -> Explanation {
        todo!("H1")
    }
}

/// Checks that a route compiles here (regular expressions within their size limit, template syntax).
pub fn check(_route: &Route) -> Result<(), crate::invalid::Invalid> {
    todo!("H1")
}

/// Two routes with the same match set and priority, if any; used by `change::check_whole`.
pub fn same_match(_resources: &Resources, _route: &Route) -> Option<Name> {
    todo!("H1")
}
