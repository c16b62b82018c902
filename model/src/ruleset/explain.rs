//! `route match`: the winner, in plain words why each other route that matches lost, and what kept the nearest others from
//! matching.

use super::{
    Ruleset,
    index::Entry,
    rank::{HostRank, MethodRank, PathRank, Rank},
    request::Request,
};
use crate::resource::{Name, PathPattern};

/// How many routes an explanation names beside the winner, beaten and near misses each.
pub const BEATEN_MAX: usize = 20;

/// For `route match`: the winner, each other route that matches too with the reason it lost, and those that do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub winner: Option<Name>,
    /// They match the request as well; in order of precedence, at most `BEATEN_MAX`.
    pub beaten: Vec<Beaten>,
    /// Their host takes the request and something else does not; those whose path matches first, at most `BEATEN_MAX`.
    pub near_misses: Vec<Beaten>,
    /// Not empty: 405 with these.
    pub allowed_methods: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    pub route: Name,
    pub why: String,
}

pub fn explain<'r>(rules: &'r Ruleset, request: &Request<'_>) -> Explanation {
    let best = rules.search(request).best;
    let path = request.view.path;
    let mut reached: Vec<&Entry> = Vec::new();
    rules.hosts.visit(request.host, path, &mut |entries: &'r [Entry]| {
        reached.extend(entries.iter().filter(|entry| entry.rule.takes_path(path)));
    });
    let mut elsewhere: Vec<&Entry> = Vec::new();
    rules.hosts.visit_host(request.host, &mut |entries: &'r [Entry]| elsewhere.extend(entries));

    reached.sort_by_key(|entry| entry.order());
    elsewhere.sort_by_key(|entry| entry.order());
    let mut named: Vec<&Name> = best.iter().map(|(_, entry)| &entry.rule.route.name).collect();
    let (mut beaten, mut near_misses) = (Vec::new(), Vec::new());
    let on_path = reached.into_iter().map(|entry| (entry, true));
    for (entry, path_matches) in on_path.chain(elsewhere.into_iter().map(|entry| (entry, false))) {
        let name = &entry.rule.route.name;
        if named.contains(&name) {
            continue;
        }
        named.push(name);
        let (list, why) = match path_matches {
            true => match why_missed(entry, request) {
                Some(why) => (&mut near_misses, why),
                None => (&mut beaten, why_lost(entry, best, request)),
            },
            false => (&mut near_misses, path_differs(entry, path)),
        };
        if list.len() < BEATEN_MAX {
            list.push(Beaten { route: name.clone(), why });
        }
    }
    Explanation {
        winner: best.map(|(_, entry)| entry.rule.route.name.clone()),
        beaten,
        near_misses,
        allowed_methods: match best {
            Some(_) => Vec::new(),
            None => rules.methods_allowed(request).unwrap_or_default(),
        },
    }
}

fn path_differs(entry: &Entry, path: &str) -> String {
    match &entry.rule.route.matches.path {
        PathPattern::Prefix(prefix) => format!("path {path} is not under the prefix {prefix}"),
        PathPattern::Exact(exact) => format!("path {path} is not {exact}"),
        PathPattern::Template(template) => format!("path {path} does not fit the template {template}"),
        PathPattern::Regex(regex) => format!("path {path} does not match the regular expression {regex}"),
        PathPattern::Any => "its path does not match".to_owned(),
    }
}

/// Host and path match: its method or a condition may not.
fn why_missed(entry: &Entry, request: &Request<'_>) -> Option<String> {
    if entry.rule.takes_method(&request.method).is_none() {
        let methods = entry.rule.route.matches.methods.join(", ");
        return Some(format!("method {} is not among {methods}", request.method));
    }
    entry.rule.unmet(request).map(|condition| condition.to_string())
}

/// Everything matches: it lost by precedence.
fn why_lost(entry: &Entry, best: Option<(Rank, &Entry)>, request: &Request<'_>) -> String {
    match (entry.rule.takes_method(&request.method), best) {
        (Some(method), Some((rank, winner))) => outranked(Rank { method, ..entry.rank }, rank, &winner.rule.route.name),
        _ => "it should have taken the request".to_owned(),
    }
}

/// The first field of the rank in which the winner is ahead.
fn outranked(rank: Rank, best: Rank, winner: &Name) -> String {
    if rank.priority != best.priority {
        return format!("priority {} is below {} of {winner}", rank.priority.0, best.priority.0);
    }
    if rank.host != best.host {
        return match rank.host {
            HostRank::Exact => format!("its host is less specific than that of {winner}"),
            HostRank::Suffix(_) => format!("its host wildcard is less specific than the host of {winner}"),
            HostRank::Any => format!("it takes every host, {winner} names this one"),
        };
    }
    if rank.path != best.path {
        return match (rank.path, best.path) {
            (PathRank::Template(_), PathRank::Template(_)) => {
                format!("path template has fewer literal segments than that of {winner}")
            }
            (PathRank::Prefix(_), PathRank::Prefix(_)) => format!("path prefix is shorter than that of {winner}"),
            (mine, theirs) => {
                format!("{} goes after {} of {winner}", path_form(mine), path_form(theirs))
            }
        };
    }
    if rank.method != best.method {
        return match rank.method {
            MethodRank::HeadByGet => format!("it takes HEAD by its GET, {winner} names HEAD"),
            MethodRank::Named | MethodRank::Any => format!("it takes every method, {winner} names this one"),
        };
    }
    if rank.headers != best.headers {
        return format!("it has {} header conditions, {winner} has {}", rank.headers.0, best.headers.0);
    }
    if rank.query != best.query {
        return format!("it has {} query conditions, {winner} has {}", rank.query.0, best.query.0);
    }
    format!("all else is equal to {winner}, and its name comes after")
}

fn path_form(rank: PathRank) -> &'static str {
    match rank {
        PathRank::Exact => "an exact path",
        PathRank::Template(_) => "a path template",
        PathRank::Prefix(_) => "a path prefix",
        PathRank::Regex => "a path regex",
        PathRank::Any => "a route without a path",
    }
}
