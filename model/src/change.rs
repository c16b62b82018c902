//! Differences between two sets of resources, and the checks that a set must pass as a whole.

mod lookups;
pub(crate) mod overlap;
mod tenancy;

use std::{collections::BTreeMap, sync::Arc};

use imbl::ordmap::DiffItem;
use prost::Message;

pub use lookups::Lookups;

use crate::{
    command::{ChangeCounts, ResourceChange},
    convert,
    digest::Digest,
    invalid::Invalid,
    resource::{Key, Resource, Resources, Stored},
};

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
        let after = after.clone().map(|after| after.keeping(before));
        (before != after.as_ref()).then(|| Changed { key: key.clone(), before: before.cloned(), after })
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

/// `Stored` with its etag: BLAKE3 of the key and the prost form (deterministic: maps are sorted), as it was before its
/// secrets were sealed anew.
pub fn stored(resource: Resource) -> Stored {
    if let Some(etag) = resource.kept_etag() {
        return Stored { etag, resource };
    }
    let (kind, name) = (resource.kind(), resource.name());
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
