//! Hosts, and per host its paths: from a request to the rules that stand there, in a handful of probes.
//!
//! Persistent maps all the way: a copy shares everything, and a change copies only its own branch, so that one changed
//! route costs the same among ten as among ten thousand. (matchit keeps one route a path and knows no fall-through to
//! the next best, which conditions on headers need.)

use std::{collections::BTreeSet, hash::BuildHasherDefault, sync::Arc};

use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};

use super::{
    fold::Fold,
    rank::Rank,
    rule::{Place, Rule, Segment},
};
use crate::resource::{HostPattern, check::PATH_BYTES_MAX};

/// Hashed, since ten thousand keys apart in memory cost a comparison tree most of its time; the same on every node.
/// Nothing that leaves the ruleset follows from its order: it is looked up, and what `explain` walks is sorted then.
type Map<V> = GenericHashMap<Arc<str>, V, BuildHasherDefault<Fold>, DefaultSharedPtr>;

/// A rule under one of its host patterns. Ordered by precedence.
#[derive(Debug, Clone)]
pub struct Entry {
    pub rank: Rank,
    /// Takes whatever comes to its place: no methods, conditions or regex to ask the rule about.
    pub open: bool,
    /// Of a regex, the bytes that every path begins with, as many as fit: here so that a list of many regexes is scanned
    /// without following their rules.
    start: [u8; START_BYTES],
    start_bytes: u8,
    pub rule: Arc<Rule>,
}

/// With these an entry fills a cache line.
const START_BYTES: usize = 15;

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
    /// Of the suffixes, by their dots.
    suffix_sizes: Sizes,
    any: Arc<Paths>,
}

/// Which sizes occur among the keys of a map: saves a probe, which is likely to miss the cache, for a key that cannot be
/// there. Not narrowed when a key goes, only when the map is empty.
#[derive(Debug, Clone, Copy, Default)]
struct Sizes(u64);

impl Sizes {
    /// The last bit stands for that many or more.
    fn bit(size: usize) -> u64 {
        1 << size.min(u64::BITS as usize - 1)
    }

    fn add(&mut self, size: usize) {
        self.0 |= Self::bit(size);
    }

    fn may_have(self, size: usize) -> bool {
        self.0 & Self::bit(size) != 0
    }
}

fn count(text: &str, byte: u8) -> usize {
    text.bytes().filter(|it| *it == byte).count()
}

#[derive(Debug, Clone)]
struct Paths {
    exact: Map<Vec<Entry>>,
    /// By the template without the names: `/orders/{}`.
    templates: Map<Vec<Entry>>,
    shapes: Vec<Shape>,
    prefixes: Map<Vec<Entry>>,
    regexes: Vec<Entry>,
    any: Vec<Entry>,
    /// Of each kind of path, by its slashes; the prefix `/` counts as none.
    exact_sizes: Sizes,
    prefix_sizes: Sizes,
    /// No entry has a higher one. Like the sizes it is not narrowed when entries go, only when the last one goes.
    priority_max: i32,
}

/// Which segments of a template are parameters. A host has few shapes, however many templates: one probe for each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    params: Vec<bool>,
    /// How many entries have it.
    uses: usize,
}

impl Entry {
    fn new(rule: &Arc<Rule>, host: Option<&HostPattern>) -> Self {
        let open = rule.route.matches.methods.is_empty() && rule.is_unconditional();
        let literal = match &rule.place {
            Place::Regex(literal, _) => literal.as_bytes(),
            _ => &[],
        };
        let mut start = [0; START_BYTES];
        let start_bytes = literal.len().min(START_BYTES);
        start[..start_bytes].copy_from_slice(&literal[..start_bytes]);
        Self { rank: Rank::of(rule, host), open, start, start_bytes: start_bytes as u8, rule: rule.clone() }
    }

    /// False only if the rule does not take the path.
    pub fn may_take(&self, path: &str) -> bool {
        path.as_bytes().starts_with(&self.start[..usize::from(self.start_bytes)])
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
                Some(HostPattern::Suffix(suffix)) => {
                    self.suffix_sizes.add(count(suffix, b'.'));
                    self.suffixes.entry(suffix.as_str().into()).or_default()
                }
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
        if self.suffixes.is_empty() {
            self.suffix_sizes = Sizes::default();
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
            for entries in paths.exact.values().chain(paths.templates.values()).chain(paths.prefixes.values()) {
                visitor.offer(entries);
            }
            visitor.offer(&paths.regexes);
            visitor.offer(&paths.any);
        }
    }

    /// The most specific first. `*.` stands for one label or more: a suffix begins at any dot but a leading one.
    fn paths_of<'r>(&'r self, host: &str) -> impl Iterator<Item = &'r Paths> {
        let dots = host.match_indices('.').map(|(dot, _)| dot).zip((1..=count(host, b'.')).rev());
        let known = dots.filter(|(dot, size)| *dot > 0 && self.suffix_sizes.may_have(*size));
        let suffixes = known.filter_map(|(dot, _)| self.suffixes.get(&host[dot..]));
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

impl Default for Paths {
    fn default() -> Self {
        Self {
            exact: Map::default(),
            templates: Map::default(),
            shapes: Vec::new(),
            prefixes: Map::default(),
            regexes: Vec::new(),
            any: Vec::new(),
            exact_sizes: Sizes::default(),
            prefix_sizes: Sizes::default(),
            priority_max: i32::MIN,
        }
    }
}

impl Paths {
    fn insert(&mut self, entry: Entry) {
        self.priority_max = self.priority_max.max(entry.rank.priority.0);
        let rule = entry.rule.clone();
        let list = match &rule.place {
            Place::Exact(path) => {
                self.exact_sizes.add(count(path, b'/'));
                self.exact.entry(path.as_str().into()).or_default()
            }
            Place::Template(segments) => {
                let params = params(segments);
                match self.shapes.iter_mut().find(|shape| shape.params == params) {
                    Some(shape) => shape.uses += 1,
                    None => self.shapes.push(Shape { params, uses: 1 }),
                }
                self.templates.entry(nameless(segments).into()).or_default()
            }
            Place::Prefix(prefix) => {
                self.prefix_sizes.add(if prefix == "/" { 0 } else { count(prefix, b'/') });
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
            Place::Template(segments) => {
                let params = params(segments);
                self.shapes.iter_mut().filter(|shape| shape.params == params).for_each(|shape| shape.uses -= 1);
                self.shapes.retain(|shape| shape.uses > 0);
                remove_at(&mut self.templates, &nameless(segments), rule);
            }
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
        let size = count(path, b'/');
        if self.exact_sizes.may_have(size)
            && let Some(entries) = self.exact.get(path)
        {
            visitor.offer(entries);
        }
        if visitor.settled(self.priority_max) {
            return;
        }
        let rooted = path.starts_with('/');
        for shape in self.shapes.iter().filter(|shape| rooted && shape.params.len() == size) {
            if let Some(entries) = shape.key(path).and_then(|key| self.templates.get(&*key)) {
                visitor.offer(entries);
            }
        }
        if visitor.settled(self.priority_max) {
            return;
        }
        if rooted && self.prefix_sizes.0 != 0 {
            self.visit_prefixes(path, size, visitor);
        }
        if !visitor.settled(self.priority_max) {
            visitor.offer(&self.regexes);
            visitor.offer(&self.any);
        }
    }

    /// The longest first: the whole path, then up to each slash from the right, then `/`.
    fn visit_prefixes<'r>(&'r self, path: &str, size: usize, visitor: &mut impl Visitor<'r>) {
        let mut rest = path;
        for size in (1..=size).rev() {
            if self.prefix_sizes.may_have(size)
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
        if self.prefix_sizes.may_have(0)
            && let Some(entries) = self.prefixes.get("/")
        {
            visitor.offer(entries);
        }
    }
}

impl Shape {
    /// A path of as many segments as it would stand among the templates of this shape; None: a parameter is empty.
    fn key(&self, path: &str) -> Option<String> {
        let mut key = String::with_capacity(path.len() + 2 * self.params.len());
        for (segment, is_param) in path[1..].split('/').zip(&self.params) {
            key.push('/');
            match is_param {
                true if segment.is_empty() => return None,
                true => key.push_str(PARAM),
                false => key.push_str(segment),
            }
        }
        Some(key)
    }
}

/// What stands for a parameter in a key; a canonical path has no brace.
const PARAM: &str = "{}";

fn nameless(segments: &[Segment]) -> String {
    let texts = segments.iter().flat_map(|segment| match segment {
        Segment::Literal(text) => ["/", text],
        Segment::Param(_) => ["/", PARAM],
    });
    texts.collect()
}

fn params(segments: &[Segment]) -> Vec<bool> {
    segments.iter().map(|segment| matches!(segment, Segment::Param(_))).collect()
}
