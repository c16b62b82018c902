//! Admin calls that were refused, in this node's own chain: not replicated, since whoever can be refused could fill the
//! cluster's log. The first of an address within a minute are noted one by one, the rest as a number.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prost::Message;
use quorumgate_model::{
    mutants::{self, Mutant},
    state::AuditHead,
};
use quorumgate_proto::store::v1::{Actor, DenialRecord};
use quorumgate_raft_store::{
    journal::Checked,
    own_chain::{self, Head, Link, OwnChain},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    own_trail::{self, OwnTrail},
    publish::wall_ms,
};

/// The directory inside a data directory.
const DIR: &str = "denials";
/// Noted one by one within a minute, by all addresses together.
const NOTED_MAX: usize = 600;
/// Addresses that are counted apart; others are counted together.
const ADDRESSES_MAX: usize = 1_024;
/// Of a message and a source.
const TEXT_BYTES_MAX: usize = 1_024;

/// One for a node. `note` never waits; `run` writes.
pub struct Denials {
    dir: PathBuf,
    waiting: Mutex<Waiting>,
    /// Of the last entry that is on disk.
    written: watch::Sender<u64>,
    head: Mutex<Option<Head>>,
    total: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    noted: Vec<DenialRecord>,
    noted_this_minute: usize,
    /// Not noted one by one, by address and reason.
    counted: BTreeMap<(Option<IpAddr>, &'static str), u64>,
}

/// One entry, as it is shown.
pub struct Denial {
    pub sequence: u64,
    pub hash: String,
    /// Of the one before.
    pub previous: String,
    pub record: DenialRecord,
}

impl Denials {
    pub fn new(data_dir: &Path) -> Self {
        let (dir, waiting) = (data_dir.join(DIR), Mutex::default());
        Self { dir, waiting, written: watch::Sender::new(0), head: Mutex::default(), total: AtomicU64::new(0) }
    }

    /// How many calls were refused since the start.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// The head of the chain; None before it was opened, or where it cannot be.
    pub fn head(&self) -> Option<AuditHead> {
        let head = *self.head.lock().unwrap_or_else(PoisonError::into_inner);
        head.map(|it| AuditHead { count: it.count, hash: it.hash })
    }

    /// `alone`: it is among the first of its address, and stands for itself.
    pub fn note(&self, address: IpAddr, reason: &str, actor: Actor, message: &str, alone: bool) {
        self.total.fetch_add(1, Relaxed);
        if mutants::is(Mutant::DenialUnnoted) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if alone && waiting.noted_this_minute < NOTED_MAX {
            waiting.noted_this_minute += 1;
            let actor =
                Actor { name: short(&actor.name), source: short(&actor.source), rpc: short(&actor.rpc), ..actor };
            let (reason, message) = (reason.to_owned(), short(message));
            waiting.noted.push(DenialRecord { wall_ms: wall_ms(), actor: Some(actor), reason, message, count: 1 });
            return;
        }
        let room = waiting.counted.len() < ADDRESSES_MAX;
        let key = (Some(address), TOO_FAST);
        let key = if room || waiting.counted.contains_key(&key) { key } else { (None, TOO_FAST) };
        *waiting.counted.entry(key).or_default() += 1;
    }

    /// A disk that cannot be written is told, and ends nothing: the calls are refused all the same.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        own_trail::keep(Writing(self), stop).await
    }

    fn set_head(&self, head: Option<Head>) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
        self.written.send_replace(head.map_or(0, |head| head.count));
    }

    fn minute_over(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.noted_this_minute = 0;
        for ((address, reason), count) in std::mem::take(&mut waiting.counted) {
            let source = address.map_or_else(|| "many addresses".to_owned(), |address| address.to_string());
            let message = format!("{count} more calls within a minute");
            let actor = Some(Actor { source, ..Actor::default() });
            waiting.noted.push(DenialRecord { wall_ms: wall_ms(), actor, reason: reason.into(), message, count });
        }
    }

    /// Newest first, below that sequence number. Blocks on the disk.
    pub fn read(&self, before: u64, limit: usize) -> Vec<Denial> {
        // None yet: there is no directory either.
        own_chain::read(&self.dir, before, limit).unwrap_or_default().into_iter().filter_map(decoded).collect()
    }

    /// Oldest first, from that sequence number on. Blocks on the disk.
    pub fn read_from(&self, first: u64, limit: usize) -> Vec<Denial> {
        own_chain::read_from(&self.dir, first, limit).unwrap_or_default().into_iter().filter_map(decoded).collect()
    }

    /// Against what the cluster has noted of the chain. Blocks on the disk.
    pub fn check(&self, noted: Option<AuditHead>) -> anyhow::Result<Checked> {
        own_chain::check(&self.dir, noted.map(|it| Head { count: it.count, hash: it.hash }))
    }
}

struct Writing(Arc<Denials>);

impl OwnTrail for Writing {
    type Pen = OwnChain;
    type Batch = Vec<DenialRecord>;
    const WHAT: &str = "denials";
    const WRITE_EVERY: Duration = Duration::from_millis(100);

    fn opener(&self) -> impl FnOnce() -> anyhow::Result<OwnChain> + Send + 'static {
        let dir = self.0.dir.clone();
        move || OwnChain::open(&dir)
    }

    fn minute_over(&self) {
        self.0.minute_over();
    }

    fn take_due(&mut self) -> Option<Vec<DenialRecord>> {
        let noted = std::mem::take(&mut self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).noted);
        (!noted.is_empty()).then_some(noted)
    }

    fn size(noted: &Vec<DenialRecord>) -> u64 {
        noted.iter().map(|it| it.count).sum()
    }

    fn lost(&mut self, count: u64) {
        if count == 0 {
            return;
        }
        let message = format!("{count} were refused while they could not be written down");
        let record =
            DenialRecord { wall_ms: wall_ms(), reason: NOT_WRITTEN.into(), message, count, ..Default::default() };
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).noted.push(record);
    }

    fn write(chain: &mut OwnChain, noted: Vec<DenialRecord>) -> anyhow::Result<()> {
        let payloads: Vec<_> = noted.iter().map(Message::encode_to_vec).collect();
        chain.append(&payloads)
    }

    fn wrote(&self, chain: Option<&OwnChain>) {
        self.0.set_head(chain.map(OwnChain::head));
    }
}

fn decoded(link: Link) -> Option<Denial> {
    let (hash, previous) = (link.hash.to_string(), link.previous.to_string());
    let record = DenialRecord::decode(&*link.payload).ok()?;
    Some(Denial { sequence: link.sequence, hash, previous, record })
}

const TOO_FAST: &str = "TOO_MANY_FAILURES";
const NOT_WRITTEN: &str = "NOT_WRITTEN";

fn short(text: &str) -> String {
    text.chars().take(TEXT_BYTES_MAX / 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_are_noted_and_the_rest_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let denials = Arc::new(Denials::new(dir.path()));
        let address = IpAddr::from([10, 0, 0, 7]);
        denials.note(
            address,
            "TOKEN_EXPIRED",
            Actor { rpc: "Config/ApplyConfig".into(), ..Actor::default() },
            "no",
            true,
        );
        (0..50).for_each(|_| denials.note(address, "TOKEN_UNKNOWN", Actor::default(), "no", false));
        let stop = CancellationToken::new();
        stop.cancel();
        denials.clone().run(stop).await.unwrap();
        let found = denials.read(u64::MAX, 10);
        let told: Vec<_> = found.iter().map(|it| (it.record.reason.as_str(), it.record.count)).collect();
        assert_eq!(told, [("TOO_MANY_FAILURES", 50), ("TOKEN_EXPIRED", 1)]);
        assert_eq!(found[0].record.actor.as_ref().unwrap().source, "10.0.0.7");
        assert_eq!((denials.total(), denials.check(None).unwrap().flaws), (51, vec![]));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (denials, stop) = (Arc::new(Denials::new(dir.path())), CancellationToken::new());
        Writing(denials.clone()).lost(3);
        stop.cancel();
        denials.clone().run(stop).await.unwrap();
        let record = denials.read(u64::MAX, 10).remove(0).record;
        assert_eq!((record.reason.as_str(), record.count), (NOT_WRITTEN, 3));
    }

    #[test]
    fn a_flood_takes_a_bounded_room() {
        let denials = Denials::new(Path::new("/nowhere"));
        for number in 0..5_000u32 {
            denials.note(IpAddr::from(number.to_be_bytes()), "NO_CREDENTIALS", Actor::default(), "no", true);
        }
        let waiting = denials.waiting.lock().unwrap();
        assert_eq!((waiting.noted.len(), waiting.counted.len()), (NOTED_MAX, ADDRESSES_MAX + 1));
    }
}
