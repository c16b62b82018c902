//! Admin calls that were let in, in this node's own chain: who reached what, and when. The first of a kind within a minute is
//! noted, the rest as a number. Who it was lies sealed under a key of that actor alone: once the key is gone nobody can tell
//! who it was, and the chain is whole all the same.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use prost::Message;
use quorumgate_model::{
    digest::Digest,
    mutants::{self, Mutant},
    state::{AuditHead, Erased, State},
};
use quorumgate_proto::store::v1::{AccessKey, AccessKeys, AccessRecord, Actor};
use quorumgate_raft_store::{
    journal::Checked,
    own_chain::{self, Head, OwnChain},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    keyring::Keyring,
    own_trail::{self, OwnTrail},
    pki::{self, ClusterKey, Keys},
    publish::wall_ms,
    settings::{Audit, Redacted},
};

/// The directory and the file of the keys inside a data directory.
const DIR: &str = "access";
const KEYS: &str = "access.keys";
/// A file of the chain is closed after this long, so that retention can remove it whole.
const ROLL_EVERY: Duration = Duration::from_secs(24 * 3_600);
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
const FILES_MAX: usize = 1_024;
/// Kinds of calls that are counted apart within a minute.
const KINDS_MAX: usize = 4_096;
/// Actors with a key of their own; those that come later are noted without a name.
const ACTORS_MAX: usize = 10_000;
const TEXT_CHARS_MAX: usize = 256;
const SEALED_FOR: &str = "actor of an access";
const HASHED_FOR: &str = "quorumgate 2026 actor that is erased";
const REDACTED: &str = "redacted";

/// One for a node. `note` never waits; `run` writes.
pub struct Access {
    dir: PathBuf,
    keys: PathBuf,
    settings: Audit,
    waiting: Mutex<Waiting>,
    head: Mutex<Option<Head>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    name: String,
    source: String,
    rpc: String,
    result: String,
}

#[derive(Default)]
struct Waiting {
    noted: Vec<(u64, Kind, u64)>,
    /// How many more of each there were within this minute.
    more: BTreeMap<Kind, u64>,
}

/// One entry, as it is shown.
pub struct Accessed {
    pub sequence: u64,
    pub hash: String,
    pub wall_ms: u64,
    /// None: erased.
    pub actor: Option<Actor>,
    pub pseudonym: String,
    pub rpc: String,
    pub result: String,
    pub count: u64,
}

/// What an actor is known by to those who are to forget it: no name lies in the log for that.
pub fn actor_hash(keys: &Keys, name: &str) -> Digest {
    Digest(keys.hash(HASHED_FOR, name.as_bytes()))
}

impl Access {
    pub fn new(data_dir: &Path, settings: Audit) -> Self {
        let (dir, keys) = (data_dir.join(DIR), data_dir.join(KEYS));
        let (waiting, head) = Default::default();
        Self { dir, keys, settings, waiting, head }
    }

    pub fn head(&self) -> Option<AuditHead> {
        let head = *self.head.lock().unwrap_or_else(PoisonError::into_inner);
        head.map(|it| AuditHead { count: it.count, hash: it.hash })
    }

    /// `result` is "ok", or the reason of the failure.
    pub fn note(&self, actor: &quorumgate_model::command::Actor, result: &str) {
        if !self.settings.access {
            return;
        }
        let field = |which: Redacted, text: &str| match self.settings.redact.contains(&which) {
            true => REDACTED.to_owned(),
            false => text.chars().take(TEXT_CHARS_MAX).collect(),
        };
        // Each connection has a port of its own.
        let source = actor.source.parse().map_or(actor.source.clone(), |it: std::net::SocketAddr| it.ip().to_string());
        let kind = Kind {
            name: field(Redacted::Actor, &actor.name),
            source: field(Redacted::Source, &source),
            rpc: actor.rpc.chars().take(TEXT_CHARS_MAX).collect(),
            result: result.to_owned(),
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = &mut *waiting;
        let room = waiting.more.len() < KINDS_MAX;
        match waiting.more.entry(kind) {
            Entry::Occupied(mut more) => *more.get_mut() += 1,
            Entry::Vacant(first) if room => {
                waiting.noted.push((wall_ms(), first.key().clone(), 1));
                first.insert(0);
            }
            // So many kinds within a minute are no work of people: the first ones stand for them.
            Entry::Vacant(_) => {}
        }
    }

    fn minute_over(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = wall_ms();
        let more = std::mem::take(&mut waiting.more).into_iter().filter(|(_, count)| *count > 0);
        waiting.noted.extend(more.map(|(kind, count)| (now, kind, count)));
    }

    /// A disk that cannot be written is told, and ends nothing.
    pub async fn run(
        self: Arc<Self>,
        keyring: Arc<Keyring>,
        states: watch::Receiver<Arc<State>>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let keys = keyring.at(&states.borrow());
        let writing = Writing { access: self, keyring, keys, states, seen: Erased::default() };
        own_trail::keep(writing, stop).await
    }

    /// Newest first, below that sequence number. Blocks on the disk.
    pub fn read(&self, before: u64, limit: usize) -> Vec<Accessed> {
        let keys = read_keys(&self.keys).unwrap_or_default();
        let by_pseudonym: BTreeMap<&[u8], &ActorKey> = keys.values().map(|it| (&it.pseudonym[..], it)).collect();
        let links = own_chain::read(&self.dir, before, limit).unwrap_or_default();
        let shown = links.into_iter().filter_map(|link| {
            let record = AccessRecord::decode(&*link.payload).ok()?;
            let key = by_pseudonym.get(&record.pseudonym[..]);
            let opened = key.and_then(|it| it.key.open(SEALED_FOR, &record.sealed_actor).ok());
            Some(Accessed {
                sequence: link.sequence,
                hash: link.hash.to_string(),
                wall_ms: record.wall_ms,
                actor: opened.and_then(|bytes| Actor::decode(&*bytes).ok()),
                pseudonym: data_encoding::HEXLOWER.encode(&record.pseudonym),
                rpc: record.rpc,
                result: record.result,
                count: record.count,
            })
        });
        shown.collect()
    }

    /// Against what the cluster has noted of the chain. Blocks on the disk.
    pub fn check(&self, noted: Option<AuditHead>) -> anyhow::Result<Checked> {
        own_chain::check(&self.dir, noted.map(|it| Head { count: it.count, hash: it.hash }))
    }
}

struct Writing {
    access: Arc<Access>,
    keyring: Arc<Keyring>,
    /// When it was last looked.
    keys: Keys,
    states: watch::Receiver<Arc<State>>,
    /// Who was erased when it was last looked.
    seen: Erased,
}

struct Batch {
    noted: Vec<(u64, Kind, u64)>,
    /// Where there is somebody to forget who was not before.
    erased: Option<(Keys, Erased)>,
    retention: Duration,
}

impl OwnTrail for Writing {
    type Pen = Pen;
    type Batch = Batch;
    const WHAT: &str = "accesses";
    const WRITE_EVERY: Duration = Duration::from_millis(200);

    fn opener(&self) -> impl FnOnce() -> anyhow::Result<Pen> + Send + 'static {
        let (dir, keys) = (self.access.dir.clone(), self.access.keys.clone());
        move || Pen::open(&dir, keys)
    }

    fn minute_over(&self) {
        self.access.minute_over();
    }

    fn take_due(&mut self) -> Option<Batch> {
        let noted = std::mem::take(&mut self.access.waiting.lock().unwrap_or_else(PoisonError::into_inner).noted);
        let state = self.states.borrow().clone();
        let (erased, keys) = (state.erased.clone(), self.keyring.at(&state));
        let same = erased.ptr_eq(&self.seen) && keys.numbers() == self.keys.numbers();
        let is_known = same || (erased.is_empty() && self.seen.is_empty());
        self.seen = erased.clone();
        // Who was erased under a key that is gone by now was so before it went.
        let keys = std::mem::replace(&mut self.keys, keys.clone()).and(&keys);
        if is_known && noted.is_empty() {
            return None;
        }
        let erased = (!is_known).then_some((keys, erased));
        Some(Batch { noted, erased, retention: self.access.settings.retention.0 })
    }

    fn size(batch: &Batch) -> u64 {
        batch.noted.iter().map(|(.., count)| *count).sum()
    }

    /// How many, the log alone tells: an entry has an actor and a call. An erasure that was lost is done now.
    fn lost(&mut self, _count: u64) {
        self.seen = Erased::default();
    }

    fn write(pen: &mut Pen, batch: Batch) -> anyhow::Result<()> {
        if let Some((keys, erased)) = &batch.erased {
            pen.erase(keys, erased)?;
        }
        pen.write(batch.noted, batch.retention)
    }

    /// Where nothing is written any more, the head stays that of what is there.
    fn wrote(&self, pen: Option<&Pen>) {
        let Some(pen) = pen else { return };
        *self.access.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(pen.chain.head());
    }
}

struct ActorKey {
    pseudonym: [u8; 16],
    key: ClusterKey,
    made_wall_ms: u64,
}

type ActorKeys = BTreeMap<String, ActorKey>;

/// What writes.
struct Pen {
    chain: OwnChain,
    keys: ActorKeys,
    file: PathBuf,
    rolled: Instant,
    /// When it was last looked for what is older than the retention.
    forgot: Option<Instant>,
}

impl Pen {
    fn open(dir: &Path, file: PathBuf) -> anyhow::Result<Self> {
        let chain = OwnChain::open_keeping(dir, FILES_MAX)?;
        Ok(Self { chain, keys: read_keys(&file)?, file, rolled: Instant::now(), forgot: None })
    }

    fn write(&mut self, noted: Vec<(u64, Kind, u64)>, retention: Duration) -> anyhow::Result<()> {
        if self.rolled.elapsed() >= ROLL_EVERY {
            self.rolled = Instant::now();
            self.chain.close_file();
        }
        if noted.is_empty() {
            return Ok(());
        }
        let known = self.keys.len();
        let payloads: Vec<_> = noted.into_iter().map(|it| self.sealed(it)).collect::<anyhow::Result<_>>()?;
        // The key first: an entry that nobody can open would be worth nothing.
        if self.keys.len() > known {
            self.write_keys()?;
        }
        self.chain.append(&payloads)?;
        if self.forgot.is_some_and(|at| at.elapsed() < FORGET_EVERY) {
            return Ok(());
        }
        self.forgot = Some(Instant::now());
        let oldest = wall_ms().saturating_sub(retention.as_millis() as u64);
        self.chain.forget(|payload| AccessRecord::decode(payload).is_ok_and(|it| it.wall_ms < oldest))
    }

    fn sealed(&mut self, (wall_ms, kind, count): (u64, Kind, u64)) -> anyhow::Result<Vec<u8>> {
        let Kind { name, source, rpc, result } = kind;
        let mut record = AccessRecord { wall_ms, rpc, result, count, ..Default::default() };
        let room = self.keys.len() < ACTORS_MAX;
        let key = match self.keys.entry(name.clone()) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(new) if room => {
                let key = ClusterKey::generate()?;
                Some(new.insert(ActorKey { pseudonym: pki::random()?, key, made_wall_ms: wall_ms }))
            }
            Entry::Vacant(_) => None,
        };
        if let Some(it) = key {
            let actor = Actor { name, source, ..Default::default() };
            record.pseudonym = it.pseudonym.to_vec();
            record.sealed_actor = it.key.seal(SEALED_FOR, &actor.encode_to_vec())?;
        }
        Ok(record.encode_to_vec())
    }

    /// Forgets keys that were made before then: what their actors do later is noted under others.
    fn erase(&mut self, keys: &Keys, erased: &Erased) -> anyhow::Result<()> {
        let known = self.keys.len();
        let stays = |name: &str, it: &ActorKey| {
            let hashes = keys.hashes(HASHED_FOR, name.as_bytes()).into_iter();
            let before_ms = hashes.filter_map(|hash| erased.get(&Digest(hash))).max();
            before_ms.is_none_or(|before_ms| it.made_wall_ms > *before_ms)
        };
        self.keys.retain(|name, it| stays(name, it) || mutants::is(Mutant::ErasedActorKept));
        if self.keys.len() < known {
            self.write_keys()?;
            tracing::info!("an actor was erased from the trail of accesses");
        }
        Ok(())
    }

    fn write_keys(&self) -> anyhow::Result<()> {
        let keys = self.keys.iter().map(|(name, it)| AccessKey {
            actor: name.clone(),
            pseudonym: it.pseudonym.to_vec(),
            key: it.key.bytes().to_vec(),
            made_wall_ms: it.made_wall_ms,
        });
        pki::write_private(&self.file, &AccessKeys { keys: keys.collect() }.encode_to_vec())
    }
}

fn read_keys(file: &Path) -> anyhow::Result<ActorKeys> {
    if !file.exists() {
        return Ok(ActorKeys::new());
    }
    let read = AccessKeys::decode(&pki::read_private(file)?[..])?;
    let key = |it: AccessKey| {
        let pseudonym = it.pseudonym[..].try_into().context("a pseudonym has 16 bytes")?;
        let key = ClusterKey::from_bytes(&it.key)?;
        Ok((it.actor, ActorKey { pseudonym, key, made_wall_ms: it.made_wall_ms }))
    };
    read.keys.into_iter().map(key).collect::<anyhow::Result<_>>().with_context(|| format!("in {}", file.display()))
}

#[cfg(test)]
mod tests {
    use quorumgate_model::command;

    use super::*;

    fn actor(name: &str) -> command::Actor {
        let (source, rpc) = ("10.0.0.7:5123".into(), "Cluster/ListNodes".into());
        command::Actor { name: name.into(), source, rpc, owner_scope: String::new() }
    }

    fn settings(redact: &[Redacted]) -> Audit {
        Audit { redact: redact.to_vec(), ..Audit::default() }
    }

    fn keyring(dir: &Path) -> Arc<Keyring> {
        pki::write_private(&dir.join(pki::CLUSTER_KEY), ClusterKey::generate().unwrap().bytes()).unwrap();
        Arc::new(Keyring::read(dir).unwrap())
    }

    /// Runs to its end, which writes what waits.
    async fn write(access: &Arc<Access>, keyring: &Arc<Keyring>, state: State) {
        let (states, seen) = watch::channel(Arc::new(State::default()));
        states.send_replace(Arc::new(state));
        let stop = CancellationToken::new();
        stop.cancel();
        access.clone().run(keyring.clone(), seen, stop).await.unwrap();
    }

    fn names(access: &Access) -> Vec<(Option<String>, u64)> {
        access.read(u64::MAX, 10).into_iter().map(|it| (it.actor.map(|it| it.name), it.count)).collect()
    }

    #[tokio::test]
    async fn who_is_erased_is_nobody_and_the_chain_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (key, access) = (keyring(dir.path()), Arc::new(Access::new(dir.path(), settings(&[]))));
        (0..3).for_each(|_| access.note(&actor("token/ann"), "ok"));
        access.note(&actor("token/bob"), "not_found");
        write(&access, &key, State::default()).await;
        let (ann, bob) = (Some("token/ann".to_owned()), Some("token/bob".to_owned()));
        assert_eq!(names(&access), [(ann.clone(), 2), (bob.clone(), 1), (ann.clone(), 1)]);
        let first = &access.read(u64::MAX, 10)[2];
        assert_eq!((first.rpc.as_str(), first.result.as_str()), ("Cluster/ListNodes", "ok"));
        assert_eq!(first.actor.as_ref().unwrap().source, "10.0.0.7");

        let mut state = State::default();
        state.erased.insert(actor_hash(&key.at(&state), "token/ann"), wall_ms());
        access.note(&actor("token/bob"), "ok");
        write(&access, &key, state).await;
        assert_eq!(names(&access), [(bob.clone(), 1), (None, 2), (bob, 1), (None, 1)]);
        let kept = std::fs::read(dir.path().join(KEYS)).unwrap();
        assert!(!kept.windows(3).any(|it| it == b"ann"), "the name is gone too");
        assert_eq!(access.check(access.head()).unwrap().flaws, vec![]);
    }

    #[tokio::test]
    async fn what_is_to_be_redacted_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let (key, access) = (keyring(dir.path()), Arc::new(Access::new(dir.path(), settings(&[Redacted::Source]))));
        access.note(&actor("token/ann"), "ok");
        write(&access, &key, State::default()).await;
        assert_eq!(access.read(u64::MAX, 1)[0].actor.as_ref().unwrap().source, REDACTED);
        let off = Arc::new(Access::new(dir.path(), Audit { access: false, ..Audit::default() }));
        off.note(&actor("token/ann"), "ok");
        write(&off, &key, State::default()).await;
        assert_eq!(off.head().unwrap().count, 1, "nothing more");
    }
}
