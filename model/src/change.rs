//! Differences between two sets of resources, and the checks that a set must pass as a whole.

use std::{collections::BTreeMap, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};
use prost::Message;

use crate::{
    command::{ChangeCounts, ResourceChange},
    convert,
    digest::Digest,
    invalid::Invalid,
    resource::{Action, Key, Kind, Name, Resource, Resources, Route, Stored},
    ruleset::match_fingerprint,
};

/// How many names an error message lists at most.
const NAMES_SHOWN_MAX: usize = 3;

/// One object before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    pub key: Key,
    pub before: Option<Resource>,
    pub after: Option<Resource>,
}

pub type Changes = Arc<[Changed]>;

/// What a change does to `resources`, in key order; objects that stay the same are left out.
pub fn effect(resources: &Resources, changes: &[ResourceChange]) -> Vec<Changed> {
    let ordered: BTreeMap<&Key, &Option<Resource>> = changes.iter().map(|it| (&it.key, &it.after)).collect();
    let changed = |(key, after): (&Key, &Option<Resource>)| {
        let before = resources.get(key).map(|stored| &stored.resource);
        (before != after.as_ref()).then(|| Changed { key: key.clone(), before: before.cloned(), after: after.clone() })
    };
    ordered.into_iter().filter_map(changed).collect()
}

/// What turns `from` into `to`, in key order. Shared subtrees are skipped.
pub fn between(from: &Resources, to: &Resources) -> Vec<Changed> {
    let changed = |item| {
        let (key, before, after): (&Key, Option<&Stored>, Option<&Stored>) = match item {
            DiffItem::Add(key, after) => (key, None, Some(after)),
            DiffItem::Update { old: (key, before), new: (_, after) } => (key, Some(before), Some(after)),
            DiffItem::Remove(key, before) => (key, Some(before), None),
        };
        let [before, after] = [before, after].map(|side| side.map(|stored| stored.resource.clone()));
        Changed { key: key.clone(), before, after }
    };
    from.diff(to).map(changed).collect()
}

/// `resources` with the changes carried out (forwards) or undone (backwards).
pub fn redo(resources: &Resources, changes: &[Changed]) -> Resources {
    with(resources, changes.iter().map(|change| (&change.key, &change.after)))
}

pub fn undo(resources: &Resources, changes: &[Changed]) -> Resources {
    with(resources, changes.iter().map(|change| (&change.key, &change.before)))
}

fn with<'c>(resources: &Resources, sides: impl Iterator<Item = (&'c Key, &'c Option<Resource>)>) -> Resources {
    let mut resources = resources.clone();
    for (key, side) in sides {
        match side {
            Some(resource) => resources.insert(key.clone(), stored(resource.clone())),
            None => resources.remove(key),
        };
    }
    resources
}

pub fn counts(changes: &[Changed]) -> ChangeCounts {
    let mut counts = ChangeCounts::default();
    for change in changes {
        match (&change.before, &change.after) {
            (None, Some(_)) => counts.created += 1,
            (Some(_), Some(_)) => counts.updated += 1,
            (Some(_), None) => counts.deleted += 1,
            (None, None) => {}
        }
    }
    counts
}

/// `State::resources_hash` once the changes are made: what went is subtracted, what came is added.
pub fn hash_after(hash: Digest, before: &Resources, after: &Resources, changes: &[Changed]) -> Digest {
    changes.iter().fold(hash, |hash, change| {
        let hash = before.get(&change.key).map_or(hash, |stored| hash.minus(stored.etag));
        after.get(&change.key).map_or(hash, |stored| hash.plus(stored.etag))
    })
}

/// The sum of all etags.
pub fn hash_of(resources: &Resources) -> Digest {
    resources.values().fold(Digest::default(), |hash, stored| hash.plus(stored.etag))
}

/// `Stored` with its etag: BLAKE3 of the key and the prost form (deterministic: maps are sorted).
pub fn stored(resource: Resource) -> Stored {
    let (kind, name) = match &resource {
        Resource::Upstream(it) => (Kind::Upstream, &it.name),
        Resource::Route(it) => (Kind::Route, &it.name),
    };
    let mut bytes = Vec::with_capacity(256);
    // Neither word holds a zero byte, so no two keys run into each other.
    for word in [kind.word(), name] {
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
    }
    convert::resource_to(&resource).encode(&mut bytes).expect("a Vec grows as needed");
    Stored { etag: Digest::of(&bytes), resource }
}

/// The checks over several objects, restricted to what `changed` can have broken: references resolve (nothing that is
/// deleted is still referred to), no two routes have the same match set and priority (both are named).
/// Builds the look-ups first, which costs a pass over all resources; apply keeps them in the state.
pub fn check_whole(after: &Resources, changed: &[Changed]) -> Result<(), Invalid> {
    Lookups::of(&undo(after, changed)).advance(after, changed)
}

/// Indexes over the resources that make the checks cost by what changed, not by what exists. They follow from the
/// resources and are rebuilt with them, never stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lookups {
    /// The route that has this match set and priority.
    matches: OrdMap<Digest, Name>,
    /// How many routes forward to an upstream.
    uses: OrdMap<Name, u32>,
}

impl Lookups {
    pub fn of(resources: &Resources) -> Self {
        let mut lookups = Self::default();
        for stored in resources.values() {
            if let Resource::Route(route) = &stored.resource {
                lookups.matches.entry(match_fingerprint(route)).or_insert_with(|| route.name.clone());
                lookups.count_use(route);
            }
        }
        lookups
    }

    /// Follows the resources to `after`, or says why `after` does not hold together; then `self` is of no more use.
    pub fn advance(&mut self, after: &Resources, changed: &[Changed]) -> Result<(), Invalid> {
        for route in changed.iter().filter_map(|change| route_of(&change.before)) {
            self.forget(route);
        }
        for change in changed {
            if let Some(route) = route_of(&change.after) {
                self.take(route, after).map_err(|invalid| invalid.under(place(&change.key)))?;
            }
        }
        let deleted = |change: &&Changed| change.key.kind == Kind::Upstream && change.after.is_none();
        for change in changed.iter().filter(deleted) {
            if self.uses.contains_key(&change.key.name) {
                let allowed = format!("to delete an upstream that no route uses; {}", users(after, &change.key.name));
                return Err(Invalid::field(place(&change.key)).found("deleted").allowed(allowed));
            }
        }
        Ok(())
    }

    fn forget(&mut self, route: &Route) {
        let fingerprint = match_fingerprint(route);
        if self.matches.get(&fingerprint) == Some(&route.name) {
            self.matches.remove(&fingerprint);
        }
        if let Action::Forward { upstream } = &route.action {
            match self.uses.get_mut(upstream) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.uses.remove(upstream)),
            }
        }
    }

    fn take(&mut self, route: &Route, after: &Resources) -> Result<(), Invalid> {
        if let Some(twin) = self.matches.insert(match_fingerprint(route), route.name.clone()) {
            let found = format!("the same match and priority as route \"{twin}\"");
            return Err(Invalid::field("match").found(found).allowed("another match, or another priority"));
        }
        self.count_use(route);
        let Action::Forward { upstream } = &route.action else { return Ok(()) };
        match after.contains_key(&Key { kind: Kind::Upstream, name: upstream.clone() }) {
            true => Ok(()),
            false => Err(Invalid::field("upstream").found(format!("{upstream:?}")).allowed(existing(after, upstream))),
        }
    }

    fn count_use(&mut self, route: &Route) {
        if let Action::Forward { upstream } = &route.action {
            *self.uses.entry(upstream.clone()).or_default() += 1;
        }
    }
}

fn route_of(side: &Option<Resource>) -> Option<&Route> {
    match side {
        Some(Resource::Route(route)) => Some(route),
        _ => None,
    }
}

/// `routes/orders`
fn place(key: &Key) -> String {
    format!("{}/{}", key.kind.list(), key.name)
}

/// `it is used by route "a", "b" and 7 more`
fn users(resources: &Resources, upstream: &Name) -> String {
    let uses = |route: &&Route| matches!(&route.action, Action::Forward { upstream: it } if it == upstream);
    let routes = resources.values().filter_map(|stored| match &stored.resource {
        Resource::Route(route) => Some(&**route),
        Resource::Upstream(_) => None,
    });
    let names: Vec<_> = routes.filter(uses).map(|route| format!("\"{}\"", route.name)).collect();
    let shown = names[..names.len().min(NAMES_SHOWN_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => format!("it is used by route {shown}"),
        more => format!("it is used by route {shown} and {more} more"),
    }
}

/// The upstreams there are, those first whose names are nearest to the one asked for.
fn existing(resources: &Resources, asked: &Name) -> String {
    let upstreams = resources.keys().filter(|key| key.kind == Kind::Upstream).map(|key| &key.name);
    let mut names: Vec<_> = upstreams.map(|name| (distance(asked, name), name)).collect();
    names.sort();
    let shown: Vec<_> = names.iter().take(NAMES_SHOWN_MAX).map(|(_, name)| format!("\"{name}\"")).collect();
    match (shown.len(), names.len().saturating_sub(NAMES_SHOWN_MAX)) {
        (0, _) => "the name of an upstream; there is none yet".into(),
        (_, 0) => format!("the name of an upstream: {}", shown.join(", ")),
        (_, more) => format!("the name of an upstream: {} or one of {more} more", shown.join(", ")),
    }
}

/// Edits between two names (Levenshtein 1966). Names are ASCII and at most 63 bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
