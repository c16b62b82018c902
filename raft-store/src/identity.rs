//! Who this data directory belongs to. A log without its identity, or the reverse, refuses to start.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use quorumgate_model::NodeId;

use crate::disk::{self, Disk, RealDisk};

pub(crate) const FILE: &str = "identity";
const MAGIC: [u8; 8] = *b"QGATE-ID";
const FORMAT: u32 = 1;
const BYTES: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub cluster: [u8; 16],
    pub node: NodeId,
    /// Made anew whenever a directory is prepared.
    pub incarnation: [u8; 16],
}

impl Identity {
    /// Errors say what is missing or damaged and how to recover.
    pub fn read(dir: &Path) -> Result<Self> {
        Self::read_on(&RealDisk, dir)
    }

    pub(crate) fn read_on(disk: &dyn Disk, dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let shown = path.display();
        let file = disk.open(&path).with_context(|| format!("{shown}: this directory has no readable identity"))?;
        let bytes = disk::read_all(&*file, BYTES as u64).with_context(|| format!("{shown} cannot be read"))?;
        Self::decode(&bytes).with_context(|| format!("{shown} is damaged; {RECOVERY}"))
    }

    pub(crate) fn write_on(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        disk::write_atomic(disk, &path, &self.encode()).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// magic 8, format 4, cluster 16, node 8, incarnation 16, zero 4, crc32c 4 of all before it; little-endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.cluster);
        bytes.extend(self.node.to_le_bytes());
        bytes.extend(self.incarnation);
        bytes.extend([0; 4]);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.len() == BYTES, "{} bytes where {BYTES} are expected", bytes.len());
        let (content, crc) = bytes.split_at(BYTES - 4);
        ensure!(crc == crc32c::crc32c(content).to_le_bytes(), "its checksum does not match");
        ensure!(content[..8] == MAGIC, "it is not an identity file");
        let format = u32::from_le_bytes(content[8..12].try_into()?);
        ensure!(format == FORMAT, "its format is {format}, this build reads {FORMAT}");
        Ok(Self {
            cluster: content[12..28].try_into()?,
            node: u64::from_le_bytes(content[28..36].try_into()?),
            incarnation: content[36..52].try_into()?,
        })
    }
}

/// What an operator does when this node's disk cannot be trusted.
pub(crate) const RECOVERY: &str =
    "recover from the quorum: remove this node from the cluster, wipe its data directory, and join it again";
