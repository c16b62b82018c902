//! Opens a data directory: WAL, snapshots and journal, as openraft's log store and state machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use openraft::Membership;
use quorumgate_model::state::State;
use tokio::sync::watch;

use crate::{
    Identity, Journal, LogId, LogStore, Machine, RaftNode, SnapshotMeta, StoredMembership,
    backup::Past,
    disk::{Disk, RealDisk},
    due::Due,
    health::Health,
    identity, journal,
    snapshots::{self, Snapshots},
    wal::{self, PurgeFloor, WalOptions},
};

const LOCK: &str = "lock";
const WAL: &str = "wal";
pub(crate) const SNAPSHOTS: &str = "snapshots";
pub(crate) const JOURNAL: &str = "journal";

#[derive(Debug, Clone)]
pub struct Options {
    /// A snapshot is due when the WAL since the last one exceeds max(this, the last snapshot's size).
    pub snapshot_after_bytes: u64,
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { snapshot_after_bytes: 64 << 20, segment_bytes: 16 << 20 }
    }
}

/// Whether the disk and apply still work; a control task watches it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreHealth {
    #[default]
    Good,
    /// No room: nothing is acknowledged until there is.
    DiskFull,
    /// An fsync failed: drain and exit.
    FsyncFailed(String),
    /// An entry could not be decoded or an assertion in apply failed: consensus stops here, the proxy goes on.
    ApplyStopped(String),
}

/// Everything `node` needs of a data directory.
pub struct Opened {
    pub identity: Identity,
    pub log: LogStore,
    pub machine: Machine,
    /// The last applied state; changes after every batch of applied entries.
    pub states: watch::Receiver<Arc<State>>,
    pub health: watch::Receiver<StoreHealth>,
    /// Bytes of WAL since the last snapshot against the threshold: true when a snapshot is due.
    pub snapshot_due: watch::Receiver<bool>,
    /// How far raft may be told to purge its log.
    pub purge_floor: PurgeFloor,
    pub journal: Journal,
    pub snapshots_dir: PathBuf,
    /// True when neither an entry nor a vote was ever written.
    pub pristine: bool,
}

/// Held as long as anything of the directory is in use; the system lets go of it when the process dies.
pub(crate) type DirLock = Arc<Flock<File>>;

/// Prepares an empty directory for this identity: identity file, empty WAL, directories. Refuses one that is in use.
pub fn prepare(dir: &Path, identity: Identity) -> Result<()> {
    prepare_on(&RealDisk, dir, identity, &Options::default())
}

/// Prepares an empty directory for a node that goes on alone from this state, which an old cluster has left.
pub fn prepare_from(dir: &Path, identity: Identity, node: RaftNode, state: &State, past: Past) -> Result<()> {
    prepare(dir, identity)?;
    let at = LogId { leader_id: 0.into(), index: state.index };
    let members = Membership::new(vec![BTreeSet::from([identity.node])], BTreeMap::from([(identity.node, node)]))?;
    let meta = SnapshotMeta { last_log_id: Some(at), last_membership: StoredMembership::new(Some(at), members) };
    snapshots::plant(&RealDisk, &dir.join(SNAPSHOTS), &meta, state)?;
    // What is lost of the past is told by the audit trail's gaps; the state stands without it.
    if let Err(error) = journal::plant(&dir.join(JOURNAL), state.index, past) {
        tracing::warn!("the journal starts empty: {error:#}");
    }
    Ok(())
}

/// Recovers everything; errors say what is damaged and how to recover.
pub fn open(dir: &Path, options: Options) -> Result<Opened> {
    open_on(Arc::new(RealDisk), dir, options)
}

/// The identity comes last: a crash before it leaves a log without identity, which may be prepared again as long as
/// nothing was ever written to it.
pub(crate) fn prepare_on(disk: &dyn Disk, dir: &Path, identity: Identity, options: &Options) -> Result<()> {
    for made in [dir.to_owned(), dir.join(WAL), dir.join(SNAPSHOTS)] {
        fs::create_dir_all(&made).with_context(|| format!("{} cannot be made", made.display()))?;
    }
    let _lock = lock(dir)?;
    let shown = dir.display();
    if disk.list(dir)?.iter().any(|name| name == identity::FILE) {
        let found = Identity::read_on(disk, dir)?;
        bail!("{shown} already belongs to node {}; choose another directory", found.node);
    }
    ensure!(!wal::has_content(disk, &dir.join(WAL))?, "{shown} has a log but no identity; {}", identity::RECOVERY);
    ensure!(disk.list(&dir.join(SNAPSHOTS))?.is_empty(), "{shown} has snapshots but no identity");
    wal::create(disk, &wal_options(dir, identity, options))?;
    disk.sync_dir(dir)?;
    identity.write_on(disk, dir)
}

pub(crate) fn open_on(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<Opened> {
    let lock = lock(dir)?;
    if !disk.list(dir)?.iter().any(|name| name == identity::FILE) {
        bail!("{} was not prepared: it has no identity; initialise or join first", dir.display());
    }
    let identity = Identity::read_on(&*disk, dir)?;
    let health = Health::new();
    let floor = PurgeFloor::new();
    let snapshots_dir = dir.join(SNAPSHOTS);
    let (snapshots, newest) = Snapshots::open(disk.clone(), snapshots_dir.clone(), floor.clone(), health.clone())
        .with_context(|| format!("{} cannot be read", snapshots_dir.display()))?;
    let snapshot_bytes = snapshots.newest().map_or(0, |kept| kept.file.length);
    let (applied, membership, state) = match newest {
        Some((meta, state)) => (meta.last_log_id, meta.last_membership, state),
        None => (None, StoredMembership::default(), State::default()),
    };

    let mut found = wal::Found::recover(disk.clone(), wal_options(dir, identity, &options))?;
    found.fit_to(applied)?;
    let pristine = found.pristine() && applied.is_none();
    let due = Arc::new(Due::new(options.snapshot_after_bytes, snapshot_bytes, found.bytes_after(applied)));
    let journal = Journal::open(&dir.join(JOURNAL), &state, floor.clone(), lock.clone());
    let wal = found.start(health.clone(), floor.clone(), due.clone(), lock)?;

    let states = watch::Sender::new(Arc::new(state.clone()));
    let machine = Machine {
        state,
        applied,
        membership,
        states,
        snapshots: Arc::new(snapshots),
        due: due.clone(),
        journal: journal.clone(),
        health: health.clone(),
    };
    Ok(Opened {
        identity,
        log: LogStore::new(Arc::new(wal)),
        states: machine.states.subscribe(),
        machine,
        health: health.watch(),
        snapshot_due: due.watch(),
        purge_floor: floor,
        journal,
        snapshots_dir,
        pristine,
    })
}

pub(crate) fn wal_options(dir: &Path, identity: Identity, options: &Options) -> WalOptions {
    WalOptions { dir: dir.join(WAL), identity, segment_bytes: options.segment_bytes }
}

pub(crate) fn lock(dir: &Path) -> Result<DirLock> {
    let path = dir.join(LOCK);
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("{} cannot be opened", path.display()))?;
    let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    let locked = locked.map_err(|(_, error)| anyhow!("{} is in use by another process ({error})", dir.display()))?;
    Ok(Arc::new(locked))
}
