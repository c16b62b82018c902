//! The sled database itself: opening, bounds, checks, and the sync that sled leaves out.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use anyhow::{Context, Result, anyhow, ensure};
use prost::Message;
use quorumgate_model::{
    change, convert,
    digest::Digest,
    state::{AuditEntry, HISTORY_MAX, RevisionDiff, State},
};
use quorumgate_proto::store::v1 as store;

use super::{meta::Meta, shelf::Shelf, writer::Records};

/// Diffs of so many revisions are kept: those that the state remembers.
const DIFFS_MAX: usize = HISTORY_MAX;
/// So many audit entries are kept, and no more bytes of them than this.
pub(super) const AUDIT_MAX: u64 = 1_000_000;
const AUDIT_BYTES_MAX: u64 = 512 << 20;
const CACHE_BYTES: u64 = 16 << 20;
const META: &str = "meta";

#[derive(Clone)]
pub(super) struct Books {
    db: sled::Db,
    pub diffs: Shelf,
    pub audit: Shelf,
}

/// Runs what calls sled: it panics on some errors of the disk.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(anyhow!("sled panicked")))
}

impl Books {
    pub fn open(dir: &Path) -> Result<Self> {
        guarded(|| {
            let config = sled::Config::new().path(dir).flush_every_ms(None).cache_capacity(CACHE_BYTES);
            let db = config.open()?;
            let diffs = Shelf::new(db.open_tree("diffs")?);
            let audit = Shelf::new(db.open_tree("audit")?);
            Ok(Self { db, diffs, audit })
        })
    }

    pub fn meta(&self) -> Meta {
        let found = self.db.get(META).ok().flatten();
        found.and_then(|bytes| Meta::decode(&bytes)).unwrap_or_default()
    }

    /// Durable once it returns: sled's flush alone asks the kernel to write, not the disk.
    pub fn sync(&self, meta: Meta, file: &File) -> Result<()> {
        self.db.insert(META, meta.encode())?;
        self.db.flush()?;
        file.sync_data().context("the journal's file cannot be synced")
    }

    pub fn write(&self, records: &Records, meta: &mut Meta) -> Result<()> {
        let diffs = records.diffs.values();
        self.diffs.put_all(diffs.map(|diff| (diff.revision, convert::diff_to(diff).encode_to_vec())))?;
        self.audit.put_all(records.audit.values().map(|entry| {
            let bytes = convert::audit_to(entry).encode_to_vec();
            meta.audit_bytes += bytes.len() as u64;
            (entry.sequence, bytes)
        }))
    }

    pub fn diff(&self, revision: u64) -> Result<Option<RevisionDiff>> {
        let Some(bytes) = self.diffs.get(revision)? else { return Ok(None) };
        Ok(Some(convert::diff_from(store::RevisionDiff::decode(&*bytes)?)?))
    }

    pub fn entry(&self, sequence: u64) -> Result<Option<AuditEntry>> {
        let Some(bytes) = self.audit.get(sequence)? else { return Ok(None) };
        Ok(Some(convert::audit_from(store::AuditRecord::decode(&*bytes)?)?))
    }

    /// Removes what is beyond the bounds, oldest first.
    pub fn trim(&self, meta: &mut Meta) -> Result<()> {
        let beyond: Vec<u64> = self.diffs.numbers().skip(DIFFS_MAX).collect::<Result<_>>()?;
        for revision in beyond {
            self.diffs.remove(revision)?;
        }
        while let (Some(oldest), Some(newest)) = (self.audit.oldest()?, self.audit.newest()?) {
            if newest - oldest < AUDIT_MAX && meta.audit_bytes <= AUDIT_BYTES_MAX {
                break;
            }
            let bytes = self.audit.get(oldest)?.map_or(0, |value| value.len() as u64);
            self.audit.remove(oldest)?;
            meta.audit_bytes = meta.audit_bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    /// After a crash nothing is taken on trust: what does not check against the state is removed. The audit chain is
    /// followed from the newest entry down, and must pass through the state's head; diffs must add up to the hashes.
    pub fn verify(&self, state: &State) -> Result<Meta> {
        let anchored = self.audit_meets(state);
        if !anchored {
            tracing::warn!("the journal's audit entries do not meet the state's chain: dropped");
            self.audit.clear()?;
        }
        let mut meta = Meta::default();
        let mut expected: Option<(u64, Digest)> = None;
        let mut broken = false;
        let sequences: Vec<u64> = self.audit.numbers().collect::<Result<_>>()?;
        for sequence in sequences {
            let entry = if broken { None } else { self.entry(sequence).ok().flatten() };
            let sound = entry.filter(|entry| {
                entry.sequence == sequence && expected.is_none_or(|link| link == (sequence, entry.hash()))
            });
            match sound {
                Some(entry) => {
                    expected = Some((sequence.saturating_sub(1), entry.previous));
                    meta.audit_bytes += convert::audit_to(&entry).encoded_len() as u64;
                }
                None => {
                    broken = true;
                    self.audit.remove(sequence)?;
                }
            }
        }
        let revisions: Vec<u64> = self.diffs.numbers().collect::<Result<_>>()?;
        for revision in revisions {
            let sound = self.diff(revision).ok().flatten().is_some_and(|diff| adds_up(&diff, state));
            if !sound {
                self.diffs.remove(revision)?;
            }
        }
        Ok(meta)
    }

    fn audit_meets(&self, state: &State) -> bool {
        match self.audit.newest() {
            Ok(None) => true,
            Ok(Some(newest)) if newest < state.audit.count => false,
            Ok(Some(_)) if state.audit.count == 0 => true,
            Ok(Some(_)) => self
                .entry(state.audit.count)
                .is_ok_and(|entry| entry.is_some_and(|entry| entry.hash() == state.audit.hash)),
            Err(_) => false,
        }
    }
}

/// Whether a diff leads from one hash of the history to the next; one that the history does not know passes, since
/// entries that are yet to be replayed write it again.
fn adds_up(diff: &RevisionDiff, state: &State) -> bool {
    let hash_of = |revision| state.history.iter().find(|facts| facts.revision == revision).map(|facts| facts.hash);
    let (Some(before), Some(after)) = (hash_of(diff.previous), hash_of(diff.revision)) else { return true };
    let etag = |side: &Option<_>| side.clone().map_or(Digest::default(), |resource| change::stored(resource).etag);
    let made = diff.changes.iter().fold(before, |hash, it| hash.minus(etag(&it.before)).plus(etag(&it.after)));
    made == after
}

/// The file whose sync sled leaves out.
pub(super) fn file_of(dir: &Path) -> Result<File> {
    Ok(File::options().read(true).write(true).open(dir.join("db"))?)
}

/// Sets a journal aside that cannot be opened, unless the disk is full: then it is not the journal's fault.
pub(super) fn set_aside(dir: &Path) -> Result<()> {
    const ROOM_MIN: u64 = 64 << 20;
    let room = nix::sys::statvfs::statvfs(dir).map_err(io::Error::from)?;
    let bytes = room.blocks_available() * room.fragment_size();
    ensure!(bytes >= ROOM_MIN, "the disk is full: {bytes} bytes are left");
    let aside = dir.with_extension("damaged");
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    Ok(fs::rename(dir, aside)?)
}
