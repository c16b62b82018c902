//! A new cluster of one node that goes on from an old one's state: from a backup, or from what a node held when the
//! quorum was lost for good. It has an id of its own, so that nodes of the old one never meet it unnoticed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use quorumgate_model::{
    LEVEL,
    command::{NodeRecord, Refound, RefoundCause, Role, Standing},
    digest::Digest,
    sealed::key_number,
    state::State,
};
use quorumgate_raft_store::{Identity, RaftNode, Salvaged, backup::Past};

use crate::{
    VERSION,
    consensus::{CA_KEY_PURPOSE, write_refound},
    init::Preparing,
    keyring,
    pki::{self, Authority, Held, Keys, Names},
    secrets,
    settings::{self, Settings},
};

/// Added to the log's index by `--bump-revision`: more than any cluster writes after a backup that is still of use.
pub const BUMP: u64 = 1_000_000_000;
/// Inside a data directory: the recovered node while it is prepared, once it is, and what was there before.
const RECOVERING: &str = "recovering";
const RECOVERED: &str = "recovered";
const BEFORE: &str = "before-recovery";
/// What stays where it is: settings are the operator's, the lock is in use.
const KEPT: [&str; 5] = [settings::FILE, "lock", RECOVERING, RECOVERED, BEFORE];

/// What a new cluster goes on from.
pub struct Legacy {
    pub state: State,
    pub past: Past,
    pub keys: Keys,
    pub cause: RefoundCause,
    /// Calendar periods that have begun count as unspent.
    pub reset_budgets: bool,
    /// By how much the log's index is raised: revisions and indexes that clients of the old cluster may have seen are
    /// not given again.
    pub bump: u64,
}

/// The cluster that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    pub cluster: [u8; 16],
    pub node: u64,
    pub index: u64,
    pub revision: u64,
    /// Of the state as it was taken over: before its index was raised, and before the new cluster's first command.
    pub hash: Digest,
}

impl Legacy {
    /// Fills an empty (or half-prepared) directory with the new cluster's node.
    pub fn settle(self, dir: &Path, settings: &Settings) -> anyhow::Result<Made> {
        let Self { mut state, past, keys, cause, reset_budgets, bump } = self;
        let hash = state.hash();
        state.index += bump;
        let facts = state.cluster.clone().context("the old cluster had not been bootstrapped")?;
        let keys = keyring::opened(&keys, &state).unwrap_or(Ok(keys))?;
        holds_all(&keys, &state)?;
        let preparing = Preparing::begin(dir)?;
        preparing.clear(&[])?;
        let authority = Authority::from_der(&facts.ca_certificate, &keys.open(CA_KEY_PURPOSE, &facts.sealed_ca_key)?)?;
        let cluster: [u8; 16] = pki::random()?;
        let incarnation: [u8; 16] = pki::random()?;
        let node = state.index + 1;
        let key = Held::key_of(dir)?;
        let certificate = authority.sign(&key.request(&Names::of(settings))?, cluster, node, pki::lifetime())?;
        Held::write(dir, &key, authority.certificate(), &certificate)?;
        pki::write_private(&dir.join(pki::CLUSTER_KEY), &keys.to_bytes())?;

        let record = NodeRecord {
            id: node,
            name: settings.node.name.clone(),
            region: settings.node.region.clone(),
            peer_address: settings.peer_address(),
            incarnation,
            spki_sha256: key.spki_sha256(),
            wanted_role: Role::Voter,
            standing: Standing::Active,
            level: LEVEL,
            version: VERSION.into(),
        };
        let member = RaftNode { name: record.name.to_string(), address: record.peer_address.clone(), incarnation };
        write_refound(dir, &Refound { cluster_id: cluster, node: record, cause, reset_budgets })?;
        let identity = Identity { cluster, node, incarnation };
        quorumgate_raft_store::prepare_from(dir, identity, member, &state, past)?;
        settings.write(dir)?;
        preparing.end()?;
        Ok(Made { cluster, node, index: state.index, revision: state.revision, hash })
    }
}

/// A secret that no key opens could never be served again: that is told before anything is written.
fn holds_all(keys: &Keys, state: &State) -> anyhow::Result<()> {
    let mut missing: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (purpose, sealed) in secrets::all(state) {
        let number = key_number(sealed);
        if keys.get(number).is_none() {
            missing.entry(number).or_default().push(purpose);
        }
    }
    let Some((number, sealed)) = missing.pop_first() else { return Ok(()) };
    let (count, first, held) = (sealed.len(), sealed.first().map_or("", String::as_str), keys.numbers());
    anyhow::bail!(
        "the sealing key {number} is missing, under which there are sealed: {count} secrets, such as the {first}; found: the keys {held:?}. \
         Take the newest backup, or one of before the key was replaced"
    )
}

/// Turns the directory of a stopped node into a new cluster of that node alone. What was there goes to
/// `before-recovery` inside it. A repeat after a crash goes on where it ended.
pub fn recover(dir: &Path, settings: &Settings, salvaged: Salvaged) -> anyhow::Result<Made> {
    let keys = Keys::from_bytes(&pki::read_private(&dir.join(pki::CLUSTER_KEY))?)?;
    may_recover(dir)?;
    let new = dir.join(RECOVERING);
    let Salvaged { state, past, .. } = salvaged;
    let cause = RefoundCause::Recovered;
    let legacy = Legacy { state, past, keys, cause, reset_budgets: false, bump: 0 };
    let made = legacy.settle(&new, settings)?;
    fs::rename(&new, dir.join(RECOVERED))?;
    take_over(dir)?;
    Ok(made)
}

/// Refused where an earlier recovery has put something aside: a second one would put its own in the same place.
pub fn may_recover(dir: &Path) -> anyhow::Result<()> {
    let before = dir.join(BEFORE);
    anyhow::ensure!(!before.exists(), "{} holds what an earlier recovery has put aside", before.display());
    Ok(())
}

/// Whether a recovery was cut off once its new node was whole; then `take_over` ends it.
pub fn is_half_recovered(dir: &Path) -> bool {
    dir.join(RECOVERED).exists()
}

/// Puts the old node aside and the recovered one in its place. The new identity comes last: until then no start takes
/// the directory for a node's.
pub fn take_over(dir: &Path) -> anyhow::Result<()> {
    let (new, before) = (dir.join(RECOVERED), dir.join(BEFORE));
    let moved = || -> std::io::Result<()> {
        let ready = before.join("complete");
        if !ready.exists() {
            fs::create_dir_all(&before)?;
            for path in entries(dir)? {
                fs::rename(&path, before.join(path.file_name().unwrap_or_default()))?;
            }
            fs::write(&ready, b"")?;
            fs::File::open(&before)?.sync_all()?;
        }
        let identity = new.join("identity");
        for path in entries(&new)?.into_iter().filter(|path| *path != identity).chain([identity.clone()]) {
            if path.exists() {
                fs::rename(&path, dir.join(path.file_name().unwrap_or_default()))?;
            }
        }
        fs::remove_dir_all(&new)?;
        fs::File::open(dir)?.sync_all()
    };
    moved().with_context(|| format!("putting the recovered node into {}; repeat the recovery", dir.display()))
}

fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !KEPT.iter().any(|kept| entry.file_name() == *kept) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}
