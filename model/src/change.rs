//! Differences between two sets of resources, and the checks that a set must pass as a whole.

use std::sync::Arc;

use crate::{
    command::{ChangeCounts, ResourceChange},
    invalid::Invalid,
    resource::{Key, Resource, Resources},
};

/// One object before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    pub key: Key,
    pub before: Option<Resource>,
    pub after: Option<Resource>,
}

/// What a change does to `resources`, in key order; objects that stay the same are left out.
pub fn effect(_resources: &Resources, _changes: &[ResourceChange]) -> Vec<Changed> {
    todo!("H2")
}

/// What turns `from` into `to`, in key order. Shared subtrees are skipped.
pub fn between(_from: &Resources, _to: &Resources) -> Vec<Changed> {
    todo!("H2")
}

/// `resources` with the changes carried out (forwards) or undone (backwards).
pub fn redo(_resources: &Resources, _changes: &[Changed]) -> Resources {
    todo!("H2")
}

pub fn undo(_resources: &Resources, _changes: &[Changed]) -> Resources {
    todo!("H2")
}

pub fn counts(_changes: &[Changed]) -> ChangeCounts {
    todo!("H2")
}

/// The checks over several objects, restricted to what `changed` can have broken: references resolve (nothing that is
/// deleted is still referred to), no two routes have the same match set and priority (both are named).
pub fn check_whole(_after: &Resources, _changed: &[Changed]) -> Result<(), Invalid> {
    todo!("H2")
}

/// `Stored` with its etag: BLAKE3 of the key and the prost form (deterministic: maps are sorted).
pub fn stored(_resource: Resource) -> crate::resource::Stored {
    todo!("H2")
}

pub type Changes = Arc<[Changed]>;
