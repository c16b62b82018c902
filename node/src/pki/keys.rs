//! The keys of the cluster that a node holds: one, or two while it is being replaced. As bytes they are its file, a part
//! of what a joiner is told, and of a backup.

use std::sync::Arc;

use anyhow::Context;
use quorumgate_model::sealed::key_number;

use super::{ClusterKey, seal::KEY_BYTES};

/// Before the numbers and keys. A first key alone is its 32 bytes, as it was before there could be another.
const MAGIC: &[u8; 8] = b"QGKEYS1\0";
const ENTRY_BYTES: usize = 8 + KEY_BYTES;
/// More than a replacement that was given up and begun again leaves.
const KEYS_MAX: usize = 16;

/// What is sealed says by which number. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The number of the one that seals.
    seals: u64,
    /// By their numbers.
    held: Arc<[ClusterKey]>,
}

impl Keys {
    /// The last one seals, until somebody says otherwise.
    pub fn of(mut held: Vec<ClusterKey>) -> Self {
        held.sort_by_key(ClusterKey::number);
        held.dedup_by_key(|key| key.number());
        Self { seals: held.last().map_or(0, ClusterKey::number), held: held.into() }
    }

    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let Some(entries) = bytes.strip_prefix(MAGIC) else {
            return Ok(Self::of(vec![ClusterKey::from_bytes(bytes)?]));
        };
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        anyhow::ensure!(rest.is_empty() && (1..=KEYS_MAX).contains(&entries.len()), "a file of keys is cut short");
        let read = |entry: &[u8; ENTRY_BYTES]| {
            let (number, key) = entry.split_at(8);
            let number = u64::from_le_bytes(number.try_into().context("a number has 8 bytes")?);
            Ok(ClusterKey::from_bytes(key)?.numbered(number))
        };
        Ok(Self::of(entries.iter().map(read).collect::<anyhow::Result<_>>()?))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        if let [only] = &*self.held
            && only.number() == 0
        {
            return only.bytes().to_vec();
        }
        let entry = |key: &ClusterKey| [&key.number().to_le_bytes()[..], key.bytes()].concat();
        self.held.iter().fold(MAGIC.to_vec(), |mut bytes, key| {
            bytes.extend(entry(key));
            bytes
        })
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.held.iter().map(ClusterKey::number).collect()
    }

    pub fn get(&self, number: u64) -> Option<&ClusterKey> {
        self.held.iter().find(|key| key.number() == number)
    }

    pub fn sealing_by(self, number: u64) -> Self {
        Self { seals: number, ..self }
    }

    pub fn with(&self, key: ClusterKey) -> Self {
        Self::of(self.held.iter().cloned().chain([key]).collect()).sealing_by(self.seals)
    }

    pub fn and(&self, others: &Keys) -> Self {
        others.held.iter().fold(self.clone(), |keys, key| keys.with(key.clone()))
    }

    pub fn keeping(&self, which: impl Fn(u64) -> bool) -> Self {
        Self::of(self.held.iter().filter(|key| which(key.number())).cloned().collect()).sealing_by(self.seals)
    }

    pub fn seal(&self, purpose: &str, secret: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.sealing()?.seal(purpose, secret)
    }

    pub fn open(&self, purpose: &str, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let number = key_number(sealed);
        let key = self.get(number);
        key.with_context(|| format!("this node does not hold the key {number} of the {purpose}"))?.open(purpose, sealed)
    }

    /// Whether it is sealed under a key from before those held here: what comes of an older state, on its way to one that
    /// is sealed anew.
    pub fn is_past(&self, sealed: &[u8]) -> bool {
        self.held.first().is_some_and(|oldest| key_number(sealed) < oldest.number())
    }

    /// As `ClusterKey::hash`, by the one that seals, or by the newest while that is not held.
    pub fn hash(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        let key = self.get(self.seals).or(self.held.last());
        key.expect("a node holds a key").hash(purpose, bytes)
    }

    /// By each key.
    pub fn hashes(&self, purpose: &str, bytes: &[u8]) -> Vec<[u8; 32]> {
        self.held.iter().map(|key| key.hash(purpose, bytes)).collect()
    }

    fn sealing(&self) -> anyhow::Result<&ClusterKey> {
        self.get(self.seals).with_context(|| format!("this node does not hold the key {} that seals now", self.seals))
    }
}
