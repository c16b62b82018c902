//! Purges of caches, as they are stored.

use std::sync::Arc;

use quorumgate_proto::store::v1::{self as store, purge_target::Target};

use super::command::words::present;
use crate::{
    command::PurgeCache,
    invalid::Invalid,
    purge::{PurgeEntry, PurgeTarget},
};

pub(super) fn command_from(it: store::PurgeCache) -> Result<PurgeCache, Invalid> {
    Ok(PurgeCache { targets: targets_from(it.targets)?, reason: it.reason })
}

pub(super) fn command_to(it: &PurgeCache) -> store::PurgeCache {
    store::PurgeCache { targets: targets_to(&it.targets), reason: it.reason.clone() }
}

pub(crate) fn entry_from(it: store::PurgeRecord) -> Result<PurgeEntry, Invalid> {
    Ok(PurgeEntry { index: it.index, targets: targets_from(it.targets)? })
}

pub(crate) fn entry_to(it: &PurgeEntry) -> store::PurgeRecord {
    store::PurgeRecord { index: it.index, targets: targets_to(&it.targets) }
}

fn targets_from(targets: Vec<store::PurgeTarget>) -> Result<Arc<[PurgeTarget]>, Invalid> {
    let target = |it: store::PurgeTarget| {
        Ok(match present("target", it.target)? {
            Target::Everything(store::PurgeEverything {}) => PurgeTarget::Everything,
            Target::Key(url) => PurgeTarget::Key(url.into()),
            Target::Prefix(prefix) => PurgeTarget::Prefix(prefix.into()),
            Target::Tag(tag) => PurgeTarget::Tag(tag.into()),
        })
    };
    targets.into_iter().map(target).collect()
}

fn targets_to(targets: &[PurgeTarget]) -> Vec<store::PurgeTarget> {
    let target = |it: &PurgeTarget| match it {
        PurgeTarget::Everything => Target::Everything(store::PurgeEverything {}),
        PurgeTarget::Key(url) => Target::Key(url.to_string()),
        PurgeTarget::Prefix(prefix) => Target::Prefix(prefix.to_string()),
        PurgeTarget::Tag(tag) => Target::Tag(tag.to_string()),
    };
    targets.iter().map(|it| store::PurgeTarget { target: Some(target(it)) }).collect()
}
