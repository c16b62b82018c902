//! sled's file read as bytes before sled opens it, since what it cannot read it throws away: which audit entries lie in it
//! unharmed, and which do not.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::shelf;
use crate::disk::{RealDisk, write_atomic};

/// Files of more are not looked at: a start must not wait for it.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Entries that are noted.
const NOTED_MAX: usize = 1_000;
/// Of a stored entry: sequence and index, then revision or time.
const SEQUENCE_TAG: u8 = 0x08;
const INDEX_TAG: u8 = 0x10;
const AFTER_TAGS: [u8; 2] = [0x18, 0x20];

#[derive(Debug, Default)]
pub(super) struct Scan {
    intact: BTreeSet<u64>,
    /// There is one that its checksum does not fit.
    damaged: BTreeSet<u64>,
}

impl Scan {
    /// No copy of them is right. What a power cut has left half written is the newest, and is not meant: only where the
    /// journal was closed in good order, or something newer is right, nothing but a change has done that.
    pub fn altered(&self, was_closed: bool, durable: u64) -> BTreeSet<u64> {
        let newest = self.intact.last().copied().unwrap_or_default();
        let is_old = |it: &&u64| was_closed || **it <= durable || **it < newest;
        self.damaged.difference(&self.intact).filter(is_old).copied().collect()
    }
}

/// In a directory that sled has not opened.
pub(super) fn scan(dir: &Path) -> Scan {
    read(&dir.join("db")).unwrap_or_default()
}

fn read(file: &Path) -> io::Result<Scan> {
    if fs::metadata(file)?.len() > FILE_BYTES_MAX {
        return Ok(Scan::default());
    }
    let bytes = fs::read(file)?;
    let mut scan = Scan::default();
    for at in 0..bytes.len() {
        let Some((sequence, is_intact)) = entry(&bytes[at..]) else { continue };
        match is_intact {
            true => scan.intact.insert(sequence),
            false => scan.damaged.insert(sequence),
        };
    }
    Ok(scan)
}

/// Beside the journal, one number a line, until an operator removes it.
fn list(dir: &Path) -> PathBuf {
    dir.with_extension("altered")
}

pub(super) fn noted(dir: &Path) -> BTreeSet<u64> {
    let text = fs::read_to_string(list(dir)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

pub(super) fn note(dir: &Path, altered: BTreeSet<u64>) {
    if altered.is_empty() {
        return;
    }
    let mut all = noted(dir);
    all.extend(altered);
    tracing::error!(entries = ?all, "entries of the audit trail had changed on the disk");
    let lines: String = all.iter().take(NOTED_MAX).map(|sequence| format!("{sequence}\n")).collect();
    if let Err(error) = write_atomic(&RealDisk, &list(dir), lines.as_bytes()) {
        tracing::warn!(%error, "the list of them cannot be written");
    }
}

/// The first chunk of an entry, as the shelf seals it, and whether its checksum fits it at any length.
fn entry(bytes: &[u8]) -> Option<(u64, bool)> {
    let head = bytes.first_chunk::<{ shelf::HEAD_BYTES }>()?;
    let chunks = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != shelf::VERSION || chunks == 0 || chunks as usize > shelf::VALUE_BYTES_MAX / shelf::CHUNK_BYTES {
        return None;
    }
    let body = &bytes[shelf::HEAD_BYTES..];
    let (sequence, rest) = varint(body.strip_prefix(&[SEQUENCE_TAG])?)?;
    let (_, rest) = varint(rest.strip_prefix(&[INDEX_TAG])?)?;
    if !AFTER_TAGS.contains(rest.first()?) {
        return None;
    }
    let wanted = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let key = shelf::key(sequence, 0);
    let mut sum = shelf::checksum(&key, chunks, &[]);
    let fits = body.iter().take(shelf::CHUNK_BYTES).any(|byte| {
        sum = crc32c::crc32c_append(sum, &[*byte]);
        sum == wanted
    });
    Some((sequence, fits))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}
