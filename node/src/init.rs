//! Founds a cluster: prepares a data directory so that `run` starts its single voter.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use quorumgate_model::{
    LEVEL, NodeId,
    command::{Bootstrap, NodeRecord, Role, Standing},
    timing::MAX_RTT_RANGE,
};
use quorumgate_raft_store::Identity;

use crate::{
    VERSION,
    consensus::{CA_KEY_PURPOSE, write_bootstrap},
    pki::{self, Authority, ClusterKey, Held, Names},
    settings::{self, Settings},
};

const FOUNDER: NodeId = 1;

/// Fills an empty (or half-prepared) directory: CA, identity, certificates, store, settings. Returns the cluster's id.
pub fn init(dir: &Path, settings: &Settings, max_rtt: Duration) -> anyhow::Result<[u8; 16]> {
    anyhow::ensure!(
        MAX_RTT_RANGE.contains(&max_rtt),
        "max-rtt: found {max_rtt:?}; allowed: {:?} to {:?}",
        MAX_RTT_RANGE.start(),
        MAX_RTT_RANGE.end()
    );
    let preparing = Preparing::begin(dir)?;
    preparing.clear(&[])?;
    let cluster: [u8; 16] = pki::random()?;
    let incarnation: [u8; 16] = pki::random()?;
    let cluster_key = ClusterKey::generate()?;
    let authority = Authority::generate(cluster)?;
    let key = Held::key_of(dir)?;
    let request = key.request(&Names::of(settings))?;
    let certificate = authority.sign(&request, cluster, FOUNDER, pki::lifetime())?;
    Held::write(dir, &key, authority.certificate(), &certificate)?;
    pki::write_private(&dir.join(pki::CLUSTER_KEY), cluster_key.bytes())?;

    let bootstrap = Bootstrap {
        cluster_id: cluster,
        cluster_name: settings.node.name.to_string(),
        max_rtt,
        ca_certificate: authority.certificate().to_vec(),
        sealed_ca_key: cluster_key.seal(CA_KEY_PURPOSE, authority.key_der())?,
        node: NodeRecord {
            id: FOUNDER,
            name: settings.node.name.clone(),
            region: settings.node.region.clone(),
            peer_address: settings.peer_address(),
            incarnation,
            spki_sha256: key.spki_sha256(),
            wanted_role: Role::Voter,
            standing: Standing::Active,
            level: LEVEL,
            version: VERSION.into(),
        },
    };
    write_bootstrap(dir, &bootstrap)?;
    quorumgate_raft_store::prepare(dir, Identity { cluster, node: FOUNDER, incarnation })?;
    settings.write(dir)?;
    preparing.end()?;
    Ok(cluster)
}

/// Whether `init` or `join` has come to its end here.
pub fn check_prepared(dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    anyhow::ensure!(!dir.join(MARKER).exists(), "{shown} is prepared by half: repeat the init or join that began it");
    let Err(error) = Identity::read(dir) else { return Ok(()) };
    // A disk that cannot be read or written to says nothing about what lies on it.
    let failed = error.root_cause().downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() != ErrorKind::NotFound);
    Err(error.context(match failed {
        true => format!("{shown} cannot be opened"),
        false => format!("{shown} was not prepared by init or join"),
    }))
}

/// The directory holds something else.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Occupied(String);

/// A directory on its way to being a node's: a marker says so until everything is there, so that a repeat may clear what
/// a crash has left, and nothing else.
pub(crate) struct Preparing {
    dir: PathBuf,
}

const MARKER: &str = "preparing";

impl Preparing {
    pub(crate) fn begin(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let marker = dir.join(MARKER);
        if !marker.exists() {
            let mut entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
            if let Some(entry) = entries.next() {
                let found = entry?.file_name();
                let belongs = if dir.join(settings::FILE).exists() { " a node lives there;" } else { "" };
                let shown = dir.display();
                let why = format!("{shown} is not empty (found {found:?});{belongs} give another directory");
                return Err(Occupied(why).into());
            }
            pki::write_atomic(&marker, b"")?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Removes what an earlier attempt has left, except what is to be kept.
    pub(crate) fn clear(&self, kept: &[&str]) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == MARKER || kept.iter().any(|kept| name == *kept) {
                continue;
            }
            let path = entry.path();
            let removed = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("clearing {}", path.display()))?;
        }
        Ok(())
    }

    pub(crate) fn end(self) -> anyhow::Result<()> {
        let end = || -> std::io::Result<()> {
            fs::File::open(&self.dir)?.sync_all()?;
            fs::remove_file(self.dir.join(MARKER))?;
            fs::File::open(&self.dir)?.sync_all()
        };
        end().with_context(|| format!("finishing {}", self.dir.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_read_is_not_said_to_be_unprepared() {
        let dir = tempfile::tempdir().unwrap();
        let told = || format!("{:#}", check_prepared(dir.path()).unwrap_err());
        assert!(told().contains("was not prepared by init or join"), "{}", told());
        fs::create_dir(dir.path().join("identity")).unwrap();
        assert!(told().contains("cannot be opened") && !told().contains("prepared"), "{}", told());
    }
}
