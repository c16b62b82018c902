//! Reads the segments back. A torn tail of the last one is cut; anything else that is broken refuses to open.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use quorumgate_model::mutants::{self, Mutant};

use super::{
    record::{HEADER_BYTES, Header, Record, was_durable},
    view::{Position, Segment, View},
};
use crate::{
    Identity,
    disk::{Disk, read_all},
    identity::RECOVERY,
};

pub(super) const SUFFIX: &str = ".wal";
pub(super) const ASIDE_SUFFIX: &str = ".tmp";
/// The longest segment file that is read.
pub(super) const SEGMENT_BYTES_MAX: u64 = 2 << 30;

pub(super) struct Recovered {
    pub view: View,
    /// Where the next record goes in the last segment.
    pub offset: u32,
    pub segment_bytes: u32,
    /// Neither an entry nor a vote was ever written.
    pub pristine: bool,
}

pub(super) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016x}{SUFFIX}"))
}

/// The sequence numbers of the segments in it, oldest first; files of an unfinished step are removed.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>> {
    let mut sequences = Vec::new();
    for name in disk.list(dir)? {
        if name.ends_with(ASIDE_SUFFIX) {
            disk.remove(&dir.join(&name))?;
        } else if let Some(number) = name.strip_suffix(SUFFIX) {
            let number = u64::from_str_radix(number, 16);
            sequences
                .push(number.with_context(|| format!("{}: no segment has such a name", dir.join(&name).display()))?);
        }
    }
    Ok(sequences)
}

pub(super) fn recover(disk: &dyn Disk, dir: &Path, identity: Identity) -> Result<Recovered> {
    let sequences = list(disk, dir)?;
    let (Some(oldest), Some(newest)) = (sequences.first().copied(), sequences.last().copied()) else {
        bail!("{}: this directory has an identity but no log; {RECOVERY}", dir.display());
    };
    let mut recovered = Recovered { view: View::default(), offset: 0, segment_bytes: 0, pristine: true };
    for (sequence, expected) in sequences.into_iter().zip(oldest..) {
        let path = segment_path(dir, sequence);
        ensure!(sequence == expected, "{} is missing; {RECOVERY}", segment_path(dir, expected).display());
        read_segment(disk, &path, identity, sequence, sequence == newest, &mut recovered)
            .with_context(|| format!("{}: {RECOVERY}", path.display()))?;
    }
    // What a killed process left in the page cache was read as valid, and written again: make it so.
    let last = recovered.view.segments.back().context("no segment")?;
    mutants::unless(Mutant::PageCacheTrusted, || last.file.sync())?;
    disk.sync_dir(dir)?;
    recovered.pristine = oldest == 0 && recovered.view.vote.is_none() && recovered.view.last.is_none();
    Ok(recovered)
}

fn read_segment(
    disk: &dyn Disk,
    path: &Path,
    identity: Identity,
    sequence: u64,
    newest: bool,
    into: &mut Recovered,
) -> Result<()> {
    let file = disk.open(path)?;
    let bytes = read_all(&*file, SEGMENT_BYTES_MAX)?;
    let header = Header::decode(&bytes)?;
    check_owner(&header, identity, sequence)?;
    let view = &mut into.view;
    if view.segments.is_empty() {
        // Older segments are gone, and with them all entries below.
        view.first = header.first_index;
    } else if view.next_index().unwrap_or(0) != header.first_index {
        bail!("it continues at entry {}, the one before ends at {:?}", header.first_index, view.last);
    }
    let salt = header.salt();
    view.segments.push_back(Segment { sequence, path: path.to_owned(), file: file.clone(), salt, index_max: None });

    let (mut at, mut durable) = (HEADER_BYTES, HEADER_BYTES);
    while let Some(record) = Record::decode(&bytes[at..], salt) {
        let place = || format!("the record at byte {at}");
        let kind = record.known_kind().ok_or_else(|| {
            anyhow!("{} has kind {} version {}: a newer build wrote it", place(), record.kind, record.version)
        })?;
        let position = Position { segment: sequence, offset: at as u32, body_bytes: record.body.len() as u32 };
        view.replay(kind, position, record.body).with_context(place)?;
        durable = durable.max(record.durable as usize);
        at += record.framed_bytes();
    }
    let broken = bytes[at..].iter().any(|byte| *byte != 0);
    if broken && (!newest || was_durable(&bytes, at, salt) && !mutants::is(Mutant::DamageTakenForTorn)) {
        bail!("the record at byte {at} is damaged");
    }
    if broken && !mutants::is(Mutant::TornTailKept) {
        tracing::warn!(segment = %path.display(), at, "cut an unfinished write off the end of the log");
        file.write_at(&vec![0; bytes.len() - at], at as u64)?;
    }
    // A sync that failed has left clean pages behind: they read as if they were on the disk, and no sync brings them there.
    if newest && durable < at && !mutants::is(Mutant::CleanPagesTrusted) {
        file.write_at(&bytes[durable..at], durable as u64)?;
    }
    into.offset = at as u32;
    into.segment_bytes = bytes.len() as u32;
    Ok(())
}

fn check_owner(header: &Header, identity: Identity, sequence: u64) -> Result<()> {
    ensure!(header.sequence == sequence, "its header says it is segment {}", header.sequence);
    ensure!(
        header.identity == identity || mutants::is(Mutant::ForeignLogTaken),
        "it was written by node {} under another identity than this directory's (node {})",
        header.identity.node,
        identity.node
    );
    Ok(())
}
