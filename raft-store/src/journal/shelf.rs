//! Numbered values in a sled tree, each with a version and a checksum, in chunks small enough that sled keeps them in
//! its own file: what it puts beside, it never syncs.

use anyhow::{Context, Result, bail, ensure};

pub(super) const VERSION: u8 = 1;
/// A leaf of sled holds up to some 32 values, and beyond 128 KiB it goes into a file of its own.
pub(super) const CHUNK_BYTES: usize = 2 << 10;
/// The longest value.
pub(super) const VALUE_BYTES_MAX: usize = 64 << 20;
/// version 1, chunks 4, crc32c 4 of key, version, chunks and bytes.
pub(super) const HEAD_BYTES: usize = 9;

#[derive(Clone)]
pub(super) struct Shelf {
    tree: sled::Tree,
}

impl Shelf {
    pub fn new(tree: sled::Tree) -> Self {
        Self { tree }
    }

    /// Writing the same value again changes nothing. In their order: a power cut leaves a beginning of them, which is how what
    /// was altered is told from what was half written. What is one chunk needs no batch, which costs sled a lock of the
    /// whole process and a record in its log.
    pub fn put_all(&self, values: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Result<()> {
        for (number, value) in values {
            ensure!(value.len() <= VALUE_BYTES_MAX, "a journal value of {} bytes", value.len());
            let chunks = value.len().div_ceil(CHUNK_BYTES).max(1) as u32;
            if chunks == 1 {
                let key = key(number, 0);
                self.tree.insert(key, sealed(key, chunks, &value))?;
                continue;
            }
            let (mut batch, mut rest) = (sled::Batch::default(), &value[..]);
            for chunk in 0..chunks {
                let (bytes, after) = rest.split_at(rest.len().min(CHUNK_BYTES));
                rest = after;
                let key = key(number, chunk);
                batch.insert(&key, sealed(key, chunks, bytes));
            }
            self.tree.apply_batch(batch)?;
        }
        Ok(())
    }

    pub fn get(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let mut value = Vec::new();
        let mut expected = 0;
        let mut chunks = 0;
        for found in self.tree.scan_prefix(number.to_be_bytes()) {
            let (key, sealed) = found?;
            ensure!(key.as_ref() == self::key(number, expected), "value {number} lacks chunk {expected}");
            let (told, bytes) = opened(&key, &sealed).with_context(|| format!("value {number} is damaged"))?;
            value.extend(bytes);
            chunks = told;
            expected += 1;
        }
        ensure!(chunks == expected, "value {number} has {expected} of {chunks} chunks");
        Ok((chunks > 0).then_some(value))
    }

    pub fn remove(&self, number: u64) -> Result<()> {
        let mut batch = sled::Batch::default();
        for key in self.tree.scan_prefix(number.to_be_bytes()).keys() {
            batch.remove(key?);
        }
        self.tree.apply_batch(batch)?;
        Ok(())
    }

    pub fn oldest(&self) -> Result<Option<u64>> {
        self.tree.first()?.map(|(key, _)| number_of(&key)).transpose()
    }

    pub fn newest(&self) -> Result<Option<u64>> {
        self.tree.last()?.map(|(key, _)| number_of(&key)).transpose()
    }

    /// The numbers, newest first.
    pub fn numbers(&self) -> impl Iterator<Item = Result<u64>> {
        self.numbers_below(u64::MAX)
    }

    /// The numbers below that one, newest first.
    pub fn numbers_below(&self, bound: u64) -> impl Iterator<Item = Result<u64>> {
        let mut before = None;
        self.tree.range(..bound.to_be_bytes()).keys().rev().filter_map(move |key| {
            let number = key.map_err(Into::into).and_then(|key| number_of(&key));
            match number {
                Ok(number) if before.replace(number) == Some(number) => None,
                number => Some(number),
            }
        })
    }

    /// The numbers from that one on, oldest first.
    pub fn numbers_from(&self, first: u64) -> impl Iterator<Item = Result<u64>> {
        let mut before = None;
        self.tree.range(first.to_be_bytes()..).keys().filter_map(move |key| {
            let number = key.map_err(Into::into).and_then(|key| number_of(&key));
            match number {
                Ok(number) if before.replace(number) == Some(number) => None,
                number => Some(number),
            }
        })
    }

    pub fn clear(&self) -> Result<()> {
        Ok(self.tree.clear()?)
    }
}

pub(super) fn key(number: u64, chunk: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

fn number_of(key: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(*key.first_chunk().context("a key that is too short")?))
}

fn sealed(key: [u8; 12], chunks: u32, bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD_BYTES + bytes.len());
    value.push(VERSION);
    value.extend(chunks.to_be_bytes());
    value.extend(checksum(&key, chunks, bytes).to_be_bytes());
    value.extend(bytes);
    value
}

fn opened<'v>(key: &[u8], value: &'v [u8]) -> Result<(u32, &'v [u8])> {
    let Some((head, bytes)) = value.split_first_chunk::<HEAD_BYTES>() else { bail!("it is too short") };
    ensure!(head[0] == VERSION, "its version is {}, this build reads {VERSION}", head[0]);
    let chunks = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    ensure!(head[5..] == checksum(key, chunks, bytes).to_be_bytes(), "its checksum does not match");
    Ok((chunks, bytes))
}

pub(super) fn checksum(key: &[u8], chunks: u32, bytes: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), &[VERSION]);
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &chunks.to_be_bytes()), bytes)
}
