//! The bytes of a segment: its header and its records. Little-endian, everything aligned to 8 bytes.

use anyhow::{Result, ensure};
use quorumgate_model::mutants::{self, Mutant};

use crate::Identity;

pub(super) const HEADER_BYTES: usize = 80;
pub(super) const FRAME_BYTES: usize = 16;
/// The longest body; an entry is one record.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"QGATEWAL";
const FORMAT: u32 = 1;
const RECORD_VERSION: u8 = 1;
const ALIGN: usize = 8;

/// Numbers are forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Entry = 1,
    Vote = 2,
    Committed = 3,
    Purge = 4,
    Truncate = 5,
    /// Says that everything before it was durable when it was written; it tells damage from a torn tail.
    Synced = 6,
    /// The log's last entry when this segment was begun.
    Last = 7,
}

impl Kind {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Entry, Self::Vote, Self::Committed, Self::Purge, Self::Truncate, Self::Synced, Self::Last]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What a segment says of itself: magic 8, format 4, length of the file 4, cluster 16, node 8, incarnation 16, sequence 8,
/// first index 8, crc32c 4 of all before it, zero 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub identity: Identity,
    /// Allocated in full before the segment got its name: a file of another length was cut.
    pub segment_bytes: u32,
    pub sequence: u64,
    /// The index that the next entry had when this segment was begun.
    pub first_index: u64,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.segment_bytes.to_le_bytes());
        bytes.extend(self.identity.cluster);
        bytes.extend(self.identity.node.to_le_bytes());
        bytes.extend(self.identity.incarnation);
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.first_index.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    pub fn decode(segment: &[u8]) -> Result<Self> {
        ensure!(segment.len() >= HEADER_BYTES, "it is shorter than its header");
        let (content, crc) = segment[..HEADER_BYTES - 4].split_at(HEADER_BYTES - 8);
        ensure!(segment[HEADER_BYTES - 4..HEADER_BYTES] == [0; 4], "the end of its header is not zero");
        ensure!(crc == crc32c::crc32c(content).to_le_bytes(), "the checksum of its header does not match");
        ensure!(content[..8] == MAGIC, "it is not a segment of a log");
        let format = u32::from_le_bytes(content[8..12].try_into()?);
        ensure!(format == FORMAT, "its format is {format}, this build reads {FORMAT}");
        let identity = Identity {
            cluster: content[16..32].try_into()?,
            node: u64::from_le_bytes(content[32..40].try_into()?),
            incarnation: content[40..56].try_into()?,
        };
        let segment_bytes = u32::from_le_bytes(content[12..16].try_into()?);
        ensure!(segment.len() == segment_bytes as usize, "it has {} of {segment_bytes} bytes", segment.len());
        let sequence = u64::from_le_bytes(content[56..64].try_into()?);
        let first_index = u64::from_le_bytes(content[64..72].try_into()?);
        Ok(Self { identity, segment_bytes, sequence, first_index })
    }

    /// Mixed into the checksum of every record, so that one of another segment or life is never taken for valid.
    pub fn salt(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.identity.incarnation), &self.sequence.to_le_bytes())
    }
}

/// Frame: body length 4, crc32c 4, kind 1, version 1, zero 2, durable 4; then the body, padded with zeros. The checksum
/// covers the frame's other fields and the body. `durable` is the offset in this segment up to which everything was
/// synced when the record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'b> {
    pub kind: u8,
    pub version: u8,
    pub durable: u32,
    pub body: &'b [u8],
}

impl<'b> Record<'b> {
    pub fn new(kind: Kind, durable: u32, body: &'b [u8]) -> Self {
        Self { kind: kind as u8, version: RECORD_VERSION, durable, body }
    }

    /// None when a newer build wrote it.
    pub fn known_kind(&self) -> Option<Kind> {
        Kind::from_byte(self.kind).filter(|_| self.version == RECORD_VERSION)
    }

    pub fn encode(&self, salt: u32, into: &mut Vec<u8>) {
        let length = (self.body.len() as u32).to_le_bytes();
        let mut rest = [self.kind, self.version, 0, 0, 0, 0, 0, 0];
        rest[4..].copy_from_slice(&self.durable.to_le_bytes());
        into.extend(length);
        into.extend(checksum(salt, length, rest, self.body).to_le_bytes());
        into.extend(rest);
        into.extend(self.body);
        into.resize(into.len() + padding(self.body.len()), 0);
    }

    /// None where no whole and valid record begins.
    pub fn decode(bytes: &'b [u8], salt: u32) -> Option<Self> {
        let frame = bytes.first_chunk::<FRAME_BYTES>()?;
        let length = *frame.first_chunk::<4>()?;
        let rest = *frame.last_chunk::<8>()?;
        let body_bytes = u32::from_le_bytes(length) as usize;
        if rest[0] == 0 || rest[1] == 0 || body_bytes > RECORD_BYTES_MAX {
            return None;
        }
        let body = bytes.get(FRAME_BYTES..FRAME_BYTES + body_bytes)?;
        let padding = bytes.get(FRAME_BYTES + body_bytes..framed_bytes(body_bytes))?;
        let whole = padding.iter().all(|byte| *byte == 0);
        let matches = frame[4..8] == checksum(salt, length, rest, body).to_le_bytes();
        if !whole || !(matches || mutants::is(Mutant::ChecksumIgnored)) {
            return None;
        }
        let durable = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]);
        Some(Self { kind: rest[0], version: rest[1], durable, body })
    }

    pub fn framed_bytes(&self) -> usize {
        framed_bytes(self.body.len())
    }
}

pub(super) fn framed_bytes(body_bytes: usize) -> usize {
    FRAME_BYTES + body_bytes + padding(body_bytes)
}

/// Whether a valid record anywhere after `from` says that the byte at `from` was durable: then what is broken there is
/// damage, not the tail of an unfinished write.
pub(super) fn was_durable(segment: &[u8], from: usize, salt: u32) -> bool {
    let candidates = (from..segment.len()).step_by(ALIGN);
    candidates.filter_map(|at| Record::decode(&segment[at..], salt)).any(|record| record.durable as usize > from)
}

fn padding(body_bytes: usize) -> usize {
    body_bytes.next_multiple_of(ALIGN) - body_bytes
}

fn checksum(salt: u32, length: [u8; 4], rest: [u8; 8], body: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(salt, &length), &rest);
    crc32c::crc32c_append(sum, body)
}
