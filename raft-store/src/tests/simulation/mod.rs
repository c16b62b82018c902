//! openraft, the log, the machine and the state as they are shipped, on one virtual clock: disks that lose what was not
//! synced, fail, fill up or vanish, lines that lose, delay and repeat, members that die, come back, join and leave, budgets
//! that are lent and spent. What clients were told must have one order, no window is over its limit, no two states may differ
//! at one index, and once all is mended the cluster works again.
//!
//! The clock moves on when everything that is to be done at a moment is done. The log's own thread takes part, so a seed
//! chooses the faults and not how everything meets: a failure may want a few tries.

mod behind;
mod budgets;
mod clients;
mod clock;
mod faults;
mod history;
mod host;
mod members;
mod net;
mod world;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use quorumgate_model::{NodeId, digest::Digest};

use self::{budgets::Admitted, clients::Told, faults::Fault, history::Sets, net::Net, world::World};
use crate::{Machine, TypeConfig};

/// As `node` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Raft = openraft::Raft<TypeConfig, Machine>;

const HEARTBEAT: Duration = Duration::from_millis(50);
const ELECTION_MIN: Duration = Duration::from_millis(300);
const ELECTION_MAX: Duration = Duration::from_millis(600);
/// In every test run; `scripts/soak` has more.
const CLIENTS: u64 = 8;
/// What clients wait for an outcome.
const PATIENCE: Duration = Duration::from_millis(800);
/// How long a message takes at most where the weather is good, microseconds.
const CALM_US: u64 = 2_000;
/// How many schedules every test run tries, of anything and of each that is made for one kind of mistake.
const SEEDS: u64 = 2;
const DIRECTED_SEEDS: u64 = 2;

/// What a member was seen to hold at an index: a part that costs nothing to look at, and of some indexes all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    revocations: Digest,
    clock_us: u64,
    ledger: (u64, u64),
    all: Option<Digest>,
}

/// Machines that have asked to be let in.
#[derive(Default)]
struct Joining {
    under_way: usize,
    /// Their ids, and their numbers.
    admitted: Vec<(NodeId, u64)>,
}

#[derive(Default)]
struct Counts {
    /// Operators' wishes by which a quorum would have been lost.
    refused: AtomicU64,
    /// Holders that found entries skipped by a snapshot.
    resynced: AtomicU64,
    /// Voters that lost power as they answered.
    struck: AtomicU64,
    /// Disks that were lost.
    lost: AtomicU64,
}

/// What tasks of one world share.
#[derive(Clone)]
struct Shared {
    net: Net,
    sets: Arc<Mutex<Sets>>,
    held: Arc<Mutex<BTreeMap<u64, Held>>>,
    admitted: Arc<Mutex<Admitted>>,
    joining: Arc<Mutex<Joining>>,
    counts: Arc<Counts>,
    quiet: Arc<AtomicBool>,
}

/// What came of schedules, in numbers. Operations of clients are those that were answered: additions, and reads by an
/// index that the leader named.
#[derive(Debug, Default, Clone, Copy)]
struct Numbers {
    adds: u64,
    reads: u64,
    /// Additions of which nobody knows the outcome.
    unknown: u64,
    /// What holders let in.
    admissions: u64,
    messages: u64,
    starts: u64,
    terms: u64,
    joined: u64,
    removed: u64,
    refused: u64,
    lost: u64,
    struck: u64,
    failed_disks: u64,
    installed: u64,
    resynced: u64,
}

impl Numbers {
    fn operations(&self) -> u64 {
        self.adds + self.reads
    }

    fn plus(self, it: Self) -> Self {
        Self {
            adds: self.adds + it.adds,
            reads: self.reads + it.reads,
            unknown: self.unknown + it.unknown,
            admissions: self.admissions + it.admissions,
            messages: self.messages + it.messages,
            starts: self.starts + it.starts,
            terms: self.terms + it.terms,
            joined: self.joined + it.joined,
            removed: self.removed + it.removed,
            refused: self.refused + it.refused,
            lost: self.lost + it.lost,
            struck: self.struck + it.struck,
            failed_disks: self.failed_disks + it.failed_disks,
            installed: self.installed + it.installed,
            resynced: self.resynced + it.resynced,
        }
    }
}

/// How many machines there are from the start, who uses them, and what happens to them.
#[derive(Clone, Copy)]
struct Schedule {
    founders: u64,
    clients: u64,
    faults: &'static [Fault],
}

fn on_a_paused_clock<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(story)
}

fn run(seed: u64, schedule: Schedule) -> Numbers {
    on_a_paused_clock(async {
        let mut world = World::begin(seed, schedule).await;
        world.rage(schedule.faults).await;
        world.mend().await;
        world.judge()
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// What was tried.
struct Tried {
    seeds: u64,
    total: Numbers,
}

/// All schedules of these seeds, on all cores or RAFT_THREADS of them, up to the first that fails, which is told by its seed, or for so long.
fn run_all(from: u64, seeds: u64, schedule: Schedule, time: Duration) -> Result<Tried, u64> {
    let (next, begun) = (AtomicU64::new(from), Instant::now());
    let tried = Mutex::new(Tried { seeds: 0, total: Numbers::default() });
    let failed = Mutex::new(None);
    let threads = setting("RAFT_THREADS").map(|threads| threads as usize);
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || begun.elapsed() >= time || failed.lock().unwrap().is_some() {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run(seed, schedule))) {
                        Ok(numbers) => {
                            let mut tried = tried.lock().unwrap();
                            tried.seeds += 1;
                            tried.total = tried.total.plus(numbers);
                        }
                        Err(_) => *failed.lock().unwrap() = Some(seed),
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap().map_or_else(|| Ok(tried.into_inner().unwrap()), Err)
}

/// `scripts/soak --raft`: RAFT_FROM, RAFT_SEEDS and RAFT_MINUTES say which schedules, RAFT_CLIENTS for how many clients.
#[test]
fn one_order_explains_what_clients_were_told_whatever_fails() {
    let (from, seeds) = (setting("RAFT_FROM").unwrap_or(0), setting("RAFT_SEEDS").unwrap_or(SEEDS));
    let clients = setting("RAFT_CLIENTS").unwrap_or(CLIENTS);
    let time = setting("RAFT_MINUTES").map_or(Duration::MAX, |minutes| Duration::from_secs(60 * minutes));
    let begun = Instant::now();
    let schedule = Schedule { founders: 5, clients, faults: faults::ANYTHING };
    let Tried { seeds, total } = run_all(from, seeds, schedule, time).unwrap_or_else(|seed| {
        panic!("a promise was broken; again by: scripts/soak --raft --clients {clients} --seed {seed}")
    });
    let a_minute = |count: u64| count * 60_000 / (begun.elapsed().as_millis() as u64).max(1);
    println!(
        "{seeds} schedules from {from} on in {} s, {clients} clients: {total:?}. One order explains them all.\n\
         {} operations of clients were answered, {} additions and {} reads: {} a minute. {} admissions beside: {} a minute.",
        begun.elapsed().as_secs(),
        total.operations(),
        total.adds,
        total.reads,
        a_minute(total.operations()),
        total.admissions,
        a_minute(total.admissions),
    );
    assert!(total.operations() >= seeds * 500 && total.terms > seeds, "next to nothing happened: {total:?}");
    assert!(total.joined + total.removed > seeds && total.admissions > seeds * 500, "nobody came: {total:?}");
}

/// What every test run tries of schedules that are made for one kind of mistake.
fn directed(founders: u64, faults: &'static [Fault]) -> Result<Numbers, u64> {
    let schedule = Schedule { founders, clients: CLIENTS, faults };
    run_all(0, DIRECTED_SEEDS, schedule, Duration::MAX).map(|tried| tried.total)
}

#[test]
fn nobody_votes_twice_in_a_term_whatever_it_forgets() {
    let total = directed(3, faults::STRIKES);
    let total = total.unwrap_or_else(|seed| panic!("seed {seed} has two leaders of a term, or worse"));
    assert!(total.struck > 0, "nobody was struck down: {total:?}");
}

#[test]
fn no_quorum_is_lost_by_who_comes_and_goes() {
    let total = directed(3, faults::COMINGS_AND_GOINGS);
    let total = total.unwrap_or_else(|seed| panic!("seed {seed} does not come back, or worse"));
    // How everything meets is the threads' choice: whether a snapshot was installed as well is theirs.
    assert!(total.removed > 0 && total.refused + total.lost > 0, "nobody came or went: {total:?}");
}
