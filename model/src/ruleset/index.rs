//! Hosts, and per host its paths: from a request to the rules that stand there, in a handful of probes.
//!
//! Persistent maps all the way: a copy shares everything, and a change copies only its own branch, so that one changed
//! route costs the same among ten as among ten thousand. (matchit keeps one route a path and knows no fall-through to
//! the next best, which conditions on headers need.)

use std::{
    collections::BTreeSet,
    hash::{BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};

use super::{
    rank::Rank,
    rule::{Place, Rule, Segment},
};
use crate::resource::{HostPattern, check::PATH_BYTES_MAX};

/// Hashed, since ten thousand keys apart in memory cost a comparison tree most of its time; the same on every node.
/// Nothing that leaves the ruleset follows from its order: it is looked up, and what `explain` walks is sorted then.
type Map<V> = GenericHashMap<Arc<str>, V, BuildHasherDefault<DefaultHasher>, DefaultSharedPtr>;

/// A rule under one of its host patterns. Ordered by precedence.
#[derive(Debug, Clone)]
pub struct Entry {
    pub rank: Rank,
    /// Takes whatever comes to its place: no methods, conditions or regex to ask the rule about.
    pub open: bool,
    pub rule: Arc<Rule>,
}

/// Is shown every list of entries whose host and path match (a regex is still to be asked), each list sorted by
/// precedence, the lists in order of precedence too but for `priority`.
pub trait Visitor<'r> {
    fn offer(&mut self, entries: &'r [Entry]);

    /// Whether nothing of the lists that follow can matter, if their priorities are at most this.
    fn settled(&self, _priority_max: i32) -> bool {
        false
    }
}

impl<'r, F: FnMut(&'r [Entry])> Visitor<'r> for F {
    fn offer(&mut self, entries: &'r [Entry]) {
        self(entries);
    }
}

#[derive(Debug, Clone, Default)]
pub struct Hosts {
    exact: Map<Arc<Paths>>,
    suffixes: Map<Arc<Paths>>,
    any: Arc<Paths>,
}

#[derive(Debug, Clone)]
struct Paths {
    exact: Map<Vec<Entry>>,
    templates: Node,
    prefixes: Map<Vec<Entry>>,
    regexes: Vec<Entry>,
    any: Vec<Entry>,
    /// Bit n: there may be a prefix with n slashes (0: the prefix `/`; the last bit: that many or more).
    depths: u64,
    /// No entry has a higher one. Like `depths` it is not narrowed when entries go, only when the last one goes.
    priority_max: i32,
}

/// A place in the tree of template segments.
#[derive(Debug, Clone, Default)]
struct Node {
    children: Map<Arc<Node>>,
    param: Option<Arc<Node>>,
    entries: Vec<Entry>,
}

impl Entry {
    fn new(rule: &Arc<Rule>, host: Option<&HostPattern>) -> Self {
        let open = rule.route.matches.methods.is_empty() && rule.is_unconditional();
        Self { rank: Rank::of(rule, host), open, rule: rule.clone() }
    }

    /// What is compared, the best first.
    pub fn order(&self) -> (Rank, &str) {
        (self.rank, &self.rule.route.name)
    }
}

impl Hosts {
    pub fn insert(&mut self, rule: &Arc<Rule>) {
        for host in patterns(rule) {
            let paths = match host {
                Some(HostPattern::Exact(name)) => self.exact.entry(name.as_str().into()).or_default(),
                Some(HostPattern::Suffix(suffix)) => self.suffixes.entry(suffix.as_str().into()).or_default(),
                None => &mut self.any,
            };
            Arc::make_mut(paths).insert(Entry::new(rule, host));
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

    /// A host that has routes, none of them for this path, does not end the search: the routes of the wildcards above it
    /// and of every host are asked too, as if each route stood alone (Gateway API).
    pub fn visit<'r>(&'r self, host: &str, path: &str, visitor: &mut impl Visitor<'r>) {
        for paths in self.paths_of(host) {
            if !visitor.settled(paths.priority_max) {
                paths.visit(path, visitor);
            }
        }
    }

    /// The entries of every pattern that takes the host, whatever their path; in no order.
    pub fn visit_host<'r>(&'r self, host: &str, visitor: &mut impl Visitor<'r>) {
        for paths in self.paths_of(host) {
            paths.exact.values().chain(paths.prefixes.values()).for_each(|entries| visitor.offer(entries));
            visitor.offer(&paths.regexes);
            visitor.offer(&paths.any);
            paths.templates.visit_all(visitor);
        }
    }

    /// The most specific first. `*.` stands for one label or more: a suffix begins at any dot but a leading one.
    fn paths_of<'r>(&'r self, host: &str) -> impl Iterator<Item = &'r Paths> {
        let wild = (!self.suffixes.is_empty()).then(|| host.match_indices('.').filter(|(dot, _)| *dot > 0));
        let suffixes = wild.into_iter().flatten().filter_map(|(dot, _)| self.suffixes.get(&host[dot..]));
        self.exact.get(host).into_iter().chain(suffixes).chain([&self.any]).map(|paths| &**paths)
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

fn insert_sorted(list: &mut Vec<Entry>, entry: Entry) {
    let place = list.partition_point(|other| other.order() < entry.order());
    list.insert(place, entry);
}

fn remove_rule(list: &mut Vec<Entry>, rule: &Rule) {
    list.retain(|entry| entry.rule.route.name != rule.route.name);
}

fn remove_at(map: &mut Map<Vec<Entry>>, text: &str, rule: &Rule) {
    let Some(list) = map.get_mut(text) else { return };
    remove_rule(list, rule);
    if list.is_empty() {
        map.remove(text);
    }
}

const DEPTH_MAX: u32 = u64::BITS - 1;

fn depth_bit(slashes: u32) -> u64 {
    1 << slashes.min(DEPTH_MAX)
}

fn slashes(path: &str) -> u32 {
    path.bytes().filter(|byte| *byte == b'/').count() as u32
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            exact: Map::default(),
            templates: Node::default(),
            prefixes: Map::default(),
            regexes: Vec::new(),
            any: Vec::new(),
            depths: 0,
            priority_max: i32::MIN,
        }
    }
}

impl Paths {
    fn insert(&mut self, entry: Entry) {
        self.priority_max = self.priority_max.max(entry.rank.priority.0);
        let rule = entry.rule.clone();
        let list = match &rule.place {
            Place::Exact(path) => self.exact.entry(path.as_str().into()).or_default(),
            Place::Template(segments) => &mut self.templates.descend(segments).entries,
            Place::Prefix(prefix) => {
                self.depths |= if prefix == "/" { depth_bit(0) } else { depth_bit(slashes(prefix)) };
                self.prefixes.entry(prefix.as_str().into()).or_default()
            }
            Place::Regex(..) | Place::Unknown => &mut self.regexes,
            Place::Any => &mut self.any,
        };
        insert_sorted(list, entry);
    }

    fn remove(&mut self, rule: &Rule) {
        match &rule.place {
            Place::Exact(path) => remove_at(&mut self.exact, path, rule),
            Place::Template(segments) => self.templates.remove(segments, rule),
            Place::Prefix(prefix) => remove_at(&mut self.prefixes, prefix, rule),
            Place::Regex(..) | Place::Unknown => remove_rule(&mut self.regexes, rule),
            Place::Any => remove_rule(&mut self.any, rule),
        }
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.templates.is_empty()
            && self.prefixes.is_empty()
            && self.regexes.is_empty()
            && self.any.is_empty()
    }

    fn visit<'r>(&'r self, path: &str, visitor: &mut impl Visitor<'r>) {
        if !self.exact.is_empty()
            && let Some(entries) = self.exact.get(path)
        {
            visitor.offer(entries);
        }
        if visitor.settled(self.priority_max) {
            return;
        }
        if let Some(rest) = path.strip_prefix('/').filter(|_| !self.templates.is_empty()) {
            self.templates.visit(Some(rest), visitor);
        }
        if visitor.settled(self.priority_max) {
            return;
        }
        if self.depths != 0 && path.starts_with('/') {
            self.visit_prefixes(path, visitor);
        }
        if !visitor.settled(self.priority_max) {
            visitor.offer(&self.regexes);
            visitor.offer(&self.any);
        }
    }

    /// The longest first: the whole path, then up to each slash from the right, then `/`.
    fn visit_prefixes<'r>(&'r self, path: &str, visitor: &mut impl Visitor<'r>) {
        let mut rest = path;
        for depth in (1..=slashes(path)).rev() {
            if self.depths & depth_bit(depth) != 0
                && rest.len() <= PATH_BYTES_MAX
                && let Some(entries) = self.prefixes.get(rest)
            {
                visitor.offer(entries);
                if visitor.settled(self.priority_max) {
                    return;
                }
            }
            rest = rest.rfind('/').map_or("", |slash| &rest[..slash]);
        }
        if self.depths & depth_bit(0) != 0
            && let Some(entries) = self.prefixes.get("/")
        {
            visitor.offer(entries);
        }
    }
}

impl Node {
    /// The node at the end of the way, made if it is not there.
    fn descend(&mut self, segments: &[Segment]) -> &mut Node {
        let mut node = self;
        for segment in segments {
            let child = match segment {
                Segment::Literal(text) => node.children.entry(text.as_str().into()).or_default(),
                Segment::Param(_) => node.param.get_or_insert_default(),
            };
            node = Arc::make_mut(child);
        }
        node
    }

    /// Takes the rule out, and every node that is left with nothing.
    fn remove(&mut self, segments: &[Segment], rule: &Rule) {
        let Some((segment, rest)) = segments.split_first() else {
            return remove_rule(&mut self.entries, rule);
        };
        let child = match segment {
            Segment::Literal(text) => self.children.get_mut(text.as_str()),
            Segment::Param(_) => self.param.as_mut(),
        };
        let Some(child) = child else { return };
        Arc::make_mut(child).remove(rest, rule);
        if child.is_empty() {
            match segment {
                Segment::Literal(text) => drop(self.children.remove(text.as_str())),
                Segment::Param(_) => self.param = None,
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.param.is_none() && self.entries.is_empty()
    }

    /// `rest` is what follows this node's slash; None at the end of the path. Each node is met at most once, so that
    /// literals and parameters side by side cost no more than the tree has nodes.
    fn visit<'r>(&'r self, rest: Option<&str>, visitor: &mut impl Visitor<'r>) {
        let Some(rest) = rest else {
            return visitor.offer(&self.entries);
        };
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if !self.children.is_empty()
            && let Some(child) = self.children.get(segment)
        {
            child.visit(rest, visitor);
        }
        if let Some(child) = self.param.as_ref().filter(|_| !segment.is_empty()) {
            child.visit(rest, visitor);
        }
    }

    fn visit_all<'r>(&'r self, visitor: &mut impl Visitor<'r>) {
        visitor.offer(&self.entries);
        for child in self.children.values().chain(&self.param) {
            child.visit_all(visitor);
        }
    }
}
