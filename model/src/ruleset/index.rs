//! Hosts, and per host its paths: from a request to the rules that stand there, in tens of comparisons.
//!
//! Persistent maps all the way: a copy shares everything, and a change copies only its own branch, so that one changed
//! route costs the same among ten as among ten thousand. (matchit keeps one route a path and knows no fall-through to
//! the next best, which conditions on headers need.)

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;

use super::{
    rank::Rank,
    rule::{Place, Rule, Segment},
};
use crate::resource::HostPattern;

/// A rule under one of its host patterns. Ordered by precedence.
#[derive(Debug, Clone)]
pub struct Entry {
    pub rank: Rank,
    pub rule: Arc<Rule>,
}

#[derive(Debug, Clone, Default)]
pub struct Hosts {
    exact: OrdMap<Arc<str>, Arc<Paths>>,
    suffixes: OrdMap<Arc<str>, Arc<Paths>>,
    any: Arc<Paths>,
}

#[derive(Debug, Clone, Default)]
struct Paths {
    root: Node,
    regexes: Vec<Entry>,
    any: Vec<Entry>,
}

/// A place in the tree of path segments; `/a/` has the segments `a` and the empty one, the prefix `/` has none.
#[derive(Debug, Clone, Default)]
struct Node {
    children: OrdMap<Arc<str>, Arc<Node>>,
    param: Option<Arc<Node>>,
    /// Each sorted by precedence.
    exact: Vec<Entry>,
    template: Vec<Entry>,
    prefix: Vec<Entry>,
}

impl Entry {
    /// What is compared, the best first.
    pub fn order(&self) -> (Rank, &str) {
        (self.rank, &self.rule.route.name)
    }
}

impl Hosts {
    pub fn insert(&mut self, rule: &Arc<Rule>) {
        for host in patterns(rule) {
            let entry = Entry { rank: Rank::of(rule, host), rule: rule.clone() };
            let paths = match host {
                Some(HostPattern::Exact(name)) => self.exact.entry(name.as_str().into()).or_default(),
                Some(HostPattern::Suffix(suffix)) => self.suffixes.entry(suffix.as_str().into()).or_default(),
                None => &mut self.any,
            };
            Arc::make_mut(paths).insert(entry);
        }
    }

    pub fn remove(&mut self, rule: &Arc<Rule>) {
        for host in patterns(rule) {
            let (map, name) = match host {
                Some(HostPattern::Exact(name)) => (&mut self.exact, name),
                Some(HostPattern::Suffix(suffix)) => (&mut self.suffixes, suffix),
                None => {
                    Arc::make_mut(&mut self.any).remove(rule);
                    continue;
                }
            };
            if let Some(paths) = map.get_mut(name.as_str()) {
                Arc::make_mut(paths).remove(rule);
                if paths.is_empty() {
                    map.remove(name.as_str());
                }
            }
        }
    }

    /// Hands over every list of entries whose host and path match (a regex is still to be asked), each list in order of
    /// precedence. A host that has routes, none of them for this path, does not end the search: the routes of the
    /// wildcards above it and of every host are asked too, as if each route stood alone (Gateway API).
    pub fn visit<'r>(&'r self, host: &str, path: &str, take: &mut impl FnMut(&'r [Entry])) {
        self.paths_of(host, &mut |paths| paths.visit(path, take));
    }

    /// The entries of every pattern that takes the host, whatever their path.
    pub fn visit_host<'r>(&'r self, host: &str, take: &mut impl FnMut(&'r [Entry])) {
        self.paths_of(host, &mut |paths| {
            take(&paths.regexes);
            take(&paths.any);
            paths.root.visit_all(take);
        });
    }

    fn paths_of<'r>(&'r self, host: &str, take: &mut impl FnMut(&'r Paths)) {
        if let Some(paths) = self.exact.get(host) {
            take(paths);
        }
        if !self.suffixes.is_empty() {
            // `*.` stands for one label or more: the suffix begins at any dot but a leading one.
            for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                if let Some(paths) = self.suffixes.get(&host[dot..]) {
                    take(paths);
                }
            }
        }
        take(&self.any);
    }
}

/// Each host pattern of a rule once; `[None]` if it takes every host.
fn patterns(rule: &Rule) -> Vec<Option<&HostPattern>> {
    let hosts: BTreeSet<&HostPattern> = rule.route.matches.hosts.iter().collect();
    match hosts.is_empty() {
        true => vec![None],
        false => hosts.into_iter().map(Some).collect(),
    }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Literal(&'a str),
    Param,
}

#[derive(Clone, Copy)]
enum List {
    Exact,
    Template,
    Prefix,
}

/// The way to a rule's node, and the list that it belongs to there; None: it has no place in the tree.
fn way(place: &Place) -> Option<(Vec<Step<'_>>, List)> {
    match place {
        Place::Exact(path) => Some((path[1..].split('/').map(Step::Literal).collect(), List::Exact)),
        Place::Prefix(path) if path == "/" => Some((Vec::new(), List::Prefix)),
        Place::Prefix(path) => Some((path[1..].split('/').map(Step::Literal).collect(), List::Prefix)),
        Place::Template(segments) => {
            let steps = segments.iter().map(|segment| match segment {
                Segment::Literal(text) => Step::Literal(text),
                Segment::Param(_) => Step::Param,
            });
            Some((steps.collect(), List::Template))
        }
        Place::Regex(_) | Place::Unknown | Place::Any => None,
    }
}

fn insert_sorted(list: &mut Vec<Entry>, entry: Entry) {
    let place = list.partition_point(|other| other.order() < entry.order());
    list.insert(place, entry);
}

fn remove_rule(list: &mut Vec<Entry>, rule: &Arc<Rule>) {
    list.retain(|entry| entry.rule.route.name != rule.route.name);
}

impl Paths {
    fn insert(&mut self, entry: Entry) {
        let rule = entry.rule.clone();
        match way(&rule.place) {
            Some((steps, list)) => insert_sorted(self.root.descend(&steps).list(list), entry),
            None => insert_sorted(self.loose(&rule.place), entry),
        }
    }

    fn remove(&mut self, rule: &Arc<Rule>) {
        match way(&rule.place) {
            Some((steps, list)) => self.root.remove(&steps, list, rule),
            None => remove_rule(self.loose(&rule.place), rule),
        }
    }

    fn loose(&mut self, place: &Place) -> &mut Vec<Entry> {
        match place {
            Place::Any => &mut self.any,
            _ => &mut self.regexes,
        }
    }

    fn is_empty(&self) -> bool {
        self.root.is_empty() && self.regexes.is_empty() && self.any.is_empty()
    }

    fn visit<'r>(&'r self, path: &str, take: &mut impl FnMut(&'r [Entry])) {
        if let Some(rest) = path.strip_prefix('/') {
            self.root.visit(Some(rest), take);
        }
        take(&self.regexes);
        take(&self.any);
    }
}

impl Node {
    fn list(&mut self, list: List) -> &mut Vec<Entry> {
        match list {
            List::Exact => &mut self.exact,
            List::Template => &mut self.template,
            List::Prefix => &mut self.prefix,
        }
    }

    /// The node at the end of the way, made if it is not there.
    fn descend(&mut self, steps: &[Step<'_>]) -> &mut Node {
        let mut node = self;
        for step in steps {
            let child = match step {
                Step::Literal(text) => node.children.entry((*text).into()).or_default(),
                Step::Param => node.param.get_or_insert_default(),
            };
            node = Arc::make_mut(child);
        }
        node
    }

    /// Takes the rule out, and every node that is left with nothing.
    fn remove(&mut self, steps: &[Step<'_>], list: List, rule: &Arc<Rule>) {
        let Some((step, rest)) = steps.split_first() else {
            return remove_rule(self.list(list), rule);
        };
        let child = match step {
            Step::Literal(text) => self.children.get_mut(*text),
            Step::Param => self.param.as_mut(),
        };
        let Some(child) = child else { return };
        Arc::make_mut(child).remove(rest, list, rule);
        if child.is_empty() {
            match step {
                Step::Literal(text) => drop(self.children.remove(*text)),
                Step::Param => self.param = None,
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.param.is_none()
            && self.exact.is_empty()
            && self.template.is_empty()
            && self.prefix.is_empty()
    }

    /// `rest` is what follows this node's slash; None at the end of the path. Each node is met at most once, so that
    /// literals and parameters side by side cost no more than the tree has nodes. The deepest come first: they are
    /// likely to win.
    fn visit<'r>(&'r self, rest: Option<&str>, take: &mut impl FnMut(&'r [Entry])) {
        match rest {
            None => {
                take(&self.exact);
                take(&self.template);
            }
            Some(rest) => {
                let (segment, rest) = match rest.split_once('/') {
                    Some((segment, rest)) => (segment, Some(rest)),
                    None => (rest, None),
                };
                if let Some(child) = self.children.get(segment) {
                    child.visit(rest, take);
                }
                if let Some(child) = self.param.as_ref().filter(|_| !segment.is_empty()) {
                    child.visit(rest, take);
                }
            }
        }
        take(&self.prefix);
    }

    fn visit_all<'r>(&'r self, take: &mut impl FnMut(&'r [Entry])) {
        take(&self.exact);
        take(&self.template);
        take(&self.prefix);
        for child in self.children.values().chain(&self.param) {
            child.visit_all(take);
        }
    }
}
