//! Admin calls that were let in, in this node's own chain: who reached what, and when. The first of a kind within a minute is
//! noted, the rest as a number. Who it was lies sealed under a key of that actor alone: once the key is gone nobody can tell
//! who it was, and the chain is whole all the same.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
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
    own_chain::{self, Age, Head, OwnChain},
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
/// A file of the chain is closed after this long, or after the retention where that is less, so that it can be removed whole.
const ROLL_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// How often it is looked for what is over; no file is closed before that.
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
        own_trail::keep(Writing::new(self, keyring, states), stop).await
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

    /// What it takes on the disk, on which this blocks.
    pub fn bytes(&self) -> u64 {
        let Ok(files) = std::fs::read_dir(&self.dir) else { return 0 };
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
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
    /// Who is erased on the disk, too.
    seen: Erased,
    /// Who was erased when it was last looked: before what waits was noted.
    noted_after: Erased,
    /// When it was last looked for what is older than the retention.
    forgot: Option<Instant>,
}

impl Writing {
    fn new(access: Arc<Access>, keyring: Arc<Keyring>, states: watch::Receiver<Arc<State>>) -> Self {
        let state = states.borrow().clone();
        let (keys, noted_after) = (keyring.at(&state), state.erased.clone());
        Self { access, keyring, keys, states, seen: Erased::default(), noted_after, forgot: None }
    }
}

struct Batch {
    noted: Vec<(u64, Kind, u64)>,
    keys: Keys,
    /// Who was erased before that was noted.
    noted_after: Erased,
    /// Where there is somebody to forget who was not before.
    erased: Option<Erased>,
    retention: Duration,
    forgets: bool,
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
        let state = self.states.borrow().clone();
        let (erased, keys) = (state.erased.clone(), self.keyring.at(&state));
        let same = erased.ptr_eq(&self.seen) && keys.numbers() == self.keys.numbers();
        let is_known = same || (erased.is_empty() && self.seen.is_empty());
        self.seen = erased.clone();
        // Who was erased under a key that is gone by now was so before it went.
        let keys = std::mem::replace(&mut self.keys, keys.clone()).and(&keys);
        let noted_after = std::mem::replace(&mut self.noted_after, erased.clone());
        if !is_known {
            // What was counted until now goes under the key that is to be forgotten, not under the next one.
            self.access.minute_over();
        }
        let noted = std::mem::take(&mut self.access.waiting.lock().unwrap_or_else(PoisonError::into_inner).noted);
        // Where nothing is noted, too: a node at which nobody calls forgets all the same.
        let forgets = self.forgot.is_none_or(|at| at.elapsed() >= FORGET_EVERY);
        if is_known && noted.is_empty() && !forgets {
            return None;
        }
        if forgets {
            self.forgot = Some(Instant::now());
        }
        let erased = (!is_known).then_some(erased);
        Some(Batch { noted, keys, noted_after, erased, retention: self.access.settings.retention.0, forgets })
    }

    fn size(batch: &Batch) -> u64 {
        batch.noted.iter().map(|(.., count)| *count).sum()
    }

    /// How many, the log alone tells: an entry has an actor and a call. An erasure that was lost is done now.
    fn lost(&mut self, _count: u64) {
        self.seen = Erased::default();
        self.forgot = None;
    }

    fn write(pen: &mut Pen, batch: Batch) -> anyhow::Result<()> {
        pen.write(batch.noted, &batch.keys, &batch.noted_after, batch.retention)?;
        if let Some(erased) = &batch.erased {
            pen.erase(&batch.keys, erased)?;
        }
        match batch.forgets {
            true => pen.forget(batch.retention),
            false => Ok(()),
        }
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
    /// Erasures of its actor stamped before then were known when it was made. No clock of this node is compared with the
    /// leader's, whose stamps they are.
    after_wall_ms: u64,
}

type ActorKeys = BTreeMap<String, ActorKey>;

/// What writes.
struct Pen {
    chain: OwnChain,
    keys: ActorKeys,
    file: PathBuf,
    /// When the first entry of the chain's file was noted; None where the next one begins another.
    file_began_ms: Option<u64>,
}

impl Pen {
    fn open(dir: &Path, file: PathBuf) -> anyhow::Result<Self> {
        let chain = OwnChain::open_keeping(dir, FILES_MAX)?;
        // A process that lives for hours only goes on with a file that is days old.
        let first = chain.first_of_file()?;
        let file_began_ms = first.and_then(|first| Some(AccessRecord::decode(&*first).ok()?.wall_ms));
        Ok(Self { chain, keys: read_keys(&file)?, file, file_began_ms })
    }

    fn write(
        &mut self,
        noted: Vec<(u64, Kind, u64)>,
        keys: &Keys,
        noted_after: &Erased,
        retention: Duration,
    ) -> anyhow::Result<()> {
        let Some((first_ms, ..)) = noted.first() else { return Ok(()) };
        let roll_every = ROLL_EVERY.min(retention).max(FORGET_EVERY).as_millis() as u64;
        // Begun in the future: the clock was set back, and would not be there again for as long.
        let is_long = |began_ms: u64| first_ms.checked_sub(began_ms).is_none_or(|since| since >= roll_every);
        if self.file_began_ms.is_some_and(is_long) {
            self.file_began_ms = None;
            self.chain.close_file();
        }
        self.file_began_ms = self.file_began_ms.or(Some(*first_ms));
        let known = self.keys.len();
        let sealed = noted.into_iter().map(|it| self.sealed(it, keys, noted_after));
        let payloads: Vec<_> = sealed.collect::<anyhow::Result<_>>()?;
        // The key first: an entry that nobody can open would be worth nothing.
        if self.keys.len() > known {
            self.write_keys()?;
        }
        self.chain.append(&payloads)
    }

    /// Whole files, and never the newest: what comes next bears on it. With them goes who is in no other.
    fn forget(&mut self, retention: Duration) -> anyhow::Result<()> {
        let now = wall_ms();
        let oldest = now.saturating_sub(retention.as_millis() as u64);
        self.chain.forget(|payload| match AccessRecord::decode(payload) {
            Ok(it) if it.wall_ms < oldest => Age::Over,
            Ok(it) if it.wall_ms > now => Age::Ahead,
            _ => Age::Kept,
        })?;
        match self.chain.take_removed() && !self.keys.is_empty() {
            true => self.forget_unused(),
            false => Ok(()),
        }
    }

    fn forget_unused(&mut self) -> anyhow::Result<()> {
        let mut used = BTreeSet::new();
        self.chain.each(|payload| {
            if let Ok(record) = AccessRecord::decode(payload) {
                used.insert(record.pseudonym);
            }
        })?;
        let known = self.keys.len();
        self.keys.retain(|_, it| used.contains(&it.pseudonym[..]));
        match self.keys.len() < known {
            true => self.write_keys(),
            false => Ok(()),
        }
    }

    fn sealed(
        &mut self,
        (wall_ms, kind, count): (u64, Kind, u64),
        keys: &Keys,
        noted_after: &Erased,
    ) -> anyhow::Result<Vec<u8>> {
        let Kind { name, source, rpc, result } = kind;
        let mut record = AccessRecord { wall_ms, rpc, result, count, ..Default::default() };
        let room = self.keys.len() < ACTORS_MAX;
        let key = match self.keys.entry(name.clone()) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(new) if room => {
                let key = ClusterKey::generate()?;
                let after_wall_ms = erased_at(keys, noted_after, &name).map_or(0, |at| at.saturating_add(1));
                Some(new.insert(ActorKey { pseudonym: pki::random()?, key, after_wall_ms }))
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

    /// Forgets keys that were made before the erasure was known: what their actors do later is noted under others.
    fn erase(&mut self, keys: &Keys, erased: &Erased) -> anyhow::Result<()> {
        let known = self.keys.len();
        let stays = |name: &str, it: &ActorKey| erased_at(keys, erased, name).is_none_or(|at| it.after_wall_ms > at);
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
            made_wall_ms: it.after_wall_ms,
        });
        pki::write_private(&self.file, &AccessKeys { keys: keys.collect() }.encode_to_vec())
    }
}

/// When the actor was erased last, as the leader has stamped it.
pub(crate) fn erased_at(keys: &Keys, erased: &Erased, name: &str) -> Option<u64> {
    let hashes = keys.hashes(HASHED_FOR, name.as_bytes()).into_iter();
    hashes.filter_map(|hash| erased.get(&Digest(hash)).copied()).max()
}

fn read_keys(file: &Path) -> anyhow::Result<ActorKeys> {
    if !file.exists() {
        return Ok(ActorKeys::new());
    }
    let read = AccessKeys::decode(&pki::read_private(file)?[..])?;
    let key = |it: AccessKey| {
        let pseudonym = it.pseudonym[..].try_into().context("a pseudonym has 16 bytes")?;
        let key = ClusterKey::from_bytes(&it.key)?;
        Ok((it.actor, ActorKey { pseudonym, key, after_wall_ms: it.made_wall_ms }))
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

    #[test]
    fn an_erasure_reaches_what_was_counted_before_it_and_no_clock_saves_a_key_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let (key, access) = (keyring(dir.path()), Arc::new(Access::new(dir.path(), settings(&[]))));
        let states = watch::Sender::new(Arc::new(State::default()));
        let mut writing = Writing::new(access.clone(), key.clone(), states.subscribe());
        let mut pen = writing.opener()().unwrap();
        let mut step = || Writing::write(&mut pen, writing.take_due().unwrap()).unwrap();
        (0..3).for_each(|_| access.note(&actor("token/ann"), "ok"));
        step();
        assert_eq!(names(&access), [(Some("token/ann".to_owned()), 1)]);
        // The leader's clock is far behind this node's.
        let mut state = State::default();
        state.erased.insert(actor_hash(&key.at(&state), "token/ann"), 7);
        states.send_replace(Arc::new(state));
        step();
        assert_eq!(names(&access), [(None, 2), (None, 1)]);
        // What comes later has a key that stays, also where all erasures are looked at again.
        access.note(&actor("token/ann"), "ok");
        step();
        let mut again = Writing::new(access.clone(), key.clone(), states.subscribe());
        let mut pen = again.opener()().unwrap();
        Writing::write(&mut pen, again.take_due().unwrap()).unwrap();
        assert_eq!(names(&access), [(Some("token/ann".to_owned()), 1), (None, 2), (None, 1)]);
    }

    #[test]
    fn retention_holds_where_the_process_starts_again_each_hour() {
        let dir = tempfile::tempdir().unwrap();
        let (key, access) = (keyring(dir.path()), Arc::new(Access::new(dir.path(), settings(&[]))));
        let (keys, erased) = (key.at(&State::default()), Erased::default());
        let (now, retention) = (wall_ms(), Duration::from_secs(2 * 24 * 3_600));
        for hours_ago in (0..=100).rev() {
            let kind = Kind { name: "token/ann".into(), source: "x".into(), rpc: "y".into(), result: "ok".into() };
            let noted = vec![(now - hours_ago * 3_600_000, kind, 1)];
            let mut pen = Pen::open(&access.dir, access.keys.clone()).unwrap();
            pen.write(noted, &keys, &erased, retention).unwrap();
            pen.forget(retention).unwrap();
        }
        // Files of a day each go once all that is in them is over.
        let kept = access.read(u64::MAX, 200).len();
        assert!((48..=75).contains(&kept), "{kept} hours");
        assert_eq!(access.check(access.head()).unwrap().flaws, vec![]);
    }

    fn noted(name: &str, at_ms: u64) -> Vec<(u64, Kind, u64)> {
        vec![(at_ms, Kind { name: name.into(), source: "x".into(), rpc: "y".into(), result: "ok".into() }, 1)]
    }

    const TWO_DAYS: Duration = Duration::from_secs(2 * 24 * 3_600);
    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn who_is_in_no_file_any_more_is_in_no_list_of_keys() {
        let dir = tempfile::tempdir().unwrap();
        let (key, access) = (keyring(dir.path()), Arc::new(Access::new(dir.path(), settings(&[]))));
        let (keys, erased, now) = (key.at(&State::default()), Erased::default(), wall_ms());
        let mut pen = Pen::open(&access.dir, access.keys.clone()).unwrap();
        let known = || read_keys(&access.keys).unwrap().into_keys().collect::<Vec<_>>();
        for (name, hours_ago) in [("token/ann", 100), ("token/bob", 99), ("token/bob", 60), ("token/bob", 0)] {
            pen.write(noted(name, now - hours_ago * HOUR_MS), &keys, &erased, TWO_DAYS).unwrap();
        }
        assert_eq!(known(), ["token/ann", "token/bob"]);
        pen.forget(TWO_DAYS).unwrap();
        assert_eq!(names(&access), [(Some("token/bob".to_owned()), 1)]);
        assert_eq!(known(), ["token/bob"]);
        // Who comes back is somebody else.
        pen.write(noted("token/ann", now), &keys, &erased, TWO_DAYS).unwrap();
        assert_eq!(names(&access)[0].0.as_deref(), Some("token/ann"));
        assert_eq!(access.check(None).unwrap().flaws, vec![]);
    }

    #[test]
    fn retention_holds_when_a_clock_that_was_ahead_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let (key, access) = (keyring(dir.path()), Arc::new(Access::new(dir.path(), settings(&[]))));
        let (keys, erased, now) = (key.at(&State::default()), Erased::default(), wall_ms());
        let mut pen = Pen::open(&access.dir, access.keys.clone()).unwrap();
        let mut write = |name, at_ms| pen.write(noted(name, at_ms), &keys, &erased, TWO_DAYS).unwrap();
        write("token/ann", now + 365 * 24 * HOUR_MS);
        write("token/bob", now - 40 * HOUR_MS);
        write("token/bob", now);
        pen.forget(TWO_DAYS).unwrap();
        assert_eq!(names(&access).len(), 3, "nobody knows yet that it is over");
        drop(pen);
        // With a retention that the second file is past.
        let mut pen = Pen::open(&access.dir, access.keys.clone()).unwrap();
        pen.forget(Duration::from_secs(24 * 3_600)).unwrap();
        assert_eq!(names(&access), [(Some("token/bob".to_owned()), 1)]);
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
