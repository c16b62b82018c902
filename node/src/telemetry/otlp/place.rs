//! How far a collector has taken this node's audit trails: a small file, so that a restart goes on where it was.

use std::path::Path;

use anyhow::Context;
use quorumgate_model::{digest::Digest, state::AuditHead};
use serde::{Deserialize, Serialize};

use crate::pki;

/// Inside a data directory.
const FILE: &str = "otlp-audit.json";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The last of the cluster's entries, by which the next one is proven.
    pub mutations: AuditHead,
    /// The last of this node's own denials.
    pub denials: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    mutations: u64,
    hash: String,
    denials: u64,
}

impl Place {
    /// The start where there is none. Blocks on the disk.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join(FILE);
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        let shown = || format!("in {}", file.display());
        let written: Written = serde_json::from_slice(&bytes).with_context(shown)?;
        let hash = Digest::from_hex(&written.hash).context("hash: allowed: 64 hex digits").with_context(shown)?;
        Ok(Self { mutations: AuditHead { count: written.mutations, hash }, denials: written.denials })
    }

    /// Durable once it returns.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let AuditHead { count, hash } = self.mutations;
        let written = Written { mutations: count, hash: hash.to_string(), denials: self.denials };
        pki::write_atomic(&dir.join(FILE), &serde_json::to_vec(&written)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Place::read(dir.path()).unwrap(), Place::default());
        let place = Place { mutations: AuditHead { count: 7, hash: Digest::of(b"7") }, denials: 3 };
        place.write(dir.path()).unwrap();
        assert_eq!(Place::read(dir.path()).unwrap(), place);
        for damaged in ["", "{}", r#"{"mutations":1,"hash":"x","denials":0}"#] {
            std::fs::write(dir.path().join(FILE), damaged).unwrap();
            let error = format!("{:#}", Place::read(dir.path()).unwrap_err());
            assert!(error.contains(FILE), "{error}");
        }
    }
}
