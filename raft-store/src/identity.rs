//! Who this data directory belongs to. A log without its identity, or the reverse, refuses to start.

use std::path::Path;

use quorumgate_model::NodeId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub cluster: [u8; 16],
    pub node: NodeId,
    /// Made anew whenever a directory is prepared.
    pub incarnation: [u8; 16],
}

impl Identity {
    /// Errors say what is missing or damaged and how to recover.
    pub fn read(_dir: &Path) -> anyhow::Result<Self> {
        todo!("H3")
    }
}
