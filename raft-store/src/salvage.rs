//! What a stopped node's directory holds when nobody else is left to ask: its state with every entry of its log, those
//! included that it never knew to be committed, since others may have acknowledged them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow};
use openraft::EntryPayload;
use quorumgate_model::state::State;

use crate::{
    Identity, Journal, RaftNode, StoredMembership,
    backup::Past,
    disk::RealDisk,
    health::Health,
    snapshots::Snapshots,
    store::{self, JOURNAL, Options, SNAPSHOTS, lock},
    wal::{self, PurgeFloor},
};

pub struct Salvaged {
    pub identity: Identity,
    pub state: State,
    pub past: Past,
    /// Up to here this node knew that its entries were committed.
    pub committed: u64,
    /// Index and words of the entries after that: taken over, though they may never have been committed.
    pub unconfirmed: Vec<(u64, String)>,
    /// The members that voted, by the newest membership in the log.
    pub voters: Vec<(u64, RaftNode)>,
}

/// Reads a directory that no process uses. It stays as it is, but for what any start would do to it: an unfinished write
/// is cut off the log's end, a damaged snapshot set aside.
pub fn salvage(dir: &Path) -> Result<Salvaged> {
    let lock = lock(dir)?;
    let identity = Identity::read(dir)?;
    let disk = Arc::new(RealDisk);
    let floor = PurgeFloor::new();
    let snapshots_dir = dir.join(SNAPSHOTS);
    let (_, newest) = Snapshots::open(disk.clone(), snapshots_dir.clone(), floor.clone(), Health::new())
        .with_context(|| format!("{} cannot be read", snapshots_dir.display()))?;
    let (applied, mut membership, mut state) = match newest {
        Some((meta, state)) => (meta.last_log_id, meta.last_membership, state),
        None => (None, StoredMembership::default(), State::default()),
    };
    let mut found = wal::Found::recover(disk, store::wal_options(dir, identity, &Options::default()))?;
    found.fit_to(applied)?;
    let journal = Journal::open(&dir.join(JOURNAL), &state, floor, lock);
    let mut past = Past::of(&journal, &state);
    drop(journal);

    let committed = found.committed().map_or(0, |id| id.index).max(applied.map_or(0, |id| id.index));
    let mut unconfirmed = Vec::new();
    for entry in found.entries()?.into_iter().filter(|entry| Some(entry.log_id) > applied) {
        let index = entry.log_id.index;
        match &entry.payload {
            EntryPayload::Normal(command) => {
                let mut next = state.clone();
                let applied = catch_unwind(AssertUnwindSafe(|| next.apply(index, command)));
                let (_, effects) = applied.map_err(|_| anyhow!("entry {index} ({command}) cannot be applied"))?;
                state = next;
                past.diffs.extend(effects.diff);
                if let Some(entry) = effects.audit {
                    past.audit.insert(0, entry);
                }
                if index > committed {
                    unconfirmed.push((index, command.to_string()));
                }
            }
            EntryPayload::Blank => state.skip(index),
            EntryPayload::Membership(changed) => {
                state.skip(index);
                membership = StoredMembership::new(Some(entry.log_id), changed.clone());
            }
        }
    }
    let voters = membership.membership().voter_ids().filter_map(|id| {
        let node = membership.membership().get_node(&id)?;
        Some((id, node.clone()))
    });
    Ok(Salvaged { identity, voters: voters.collect(), state, past, committed, unconfirmed })
}
