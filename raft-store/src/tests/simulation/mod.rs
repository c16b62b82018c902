//! openraft, the log, the machine and the state as they are shipped, on one virtual clock: disks that lose what was not
//! synced, lines that lose, delay and repeat, members that die, come back, join and leave. What clients were told must have
//! one order, no two states may differ at one index, and once all is mended the cluster works again.
//!
//! The clock moves on when everything that is to be done at a moment is done. The log's own thread takes part, so a seed
//! chooses the faults and not how everything meets: a failure may want a few tries.

mod history;
mod net;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use openraft::{
    ChangeMembers, Config, ReadPolicy, ServerState, SnapshotPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, Fatal, RaftError},
};
use quorumgate_model::{
    LEVEL, NodeId,
    command::{Actor, Body, Bootstrap, Command, NewRevocation, NodeRecord, Revoke, Role, Stamp, Standing},
    digest::Digest,
    revocation::{SelectorKind, SelectorParts},
    state::State,
};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::{Instant, advance, sleep, timeout},
};

use self::{
    history::{History, Outcome},
    net::{Factory, Host, Lines, Net},
};
use super::{memory_dir, rng::Rng, sim_disk::SimDisk, small};
use crate::{
    Identity, LogStore, Machine, RaftNode, TypeConfig,
    store::{open_on, prepare_on},
};

type Raft = openraft::Raft<TypeConfig, Machine>;

const HEARTBEAT: Duration = Duration::from_millis(50);
const ELECTION_MIN: Duration = Duration::from_millis(300);
const ELECTION_MAX: Duration = Duration::from_millis(600);
const NODES: u64 = 5;
const CLIENTS: u64 = 8;
const STEP: Duration = Duration::from_millis(1);
/// What clients wait for an outcome.
const PATIENCE: Duration = Duration::from_millis(800);
const FAULTS_FOR: Duration = Duration::from_secs(20);
/// Once all is mended the cluster works again within it.
const MENDED_WITHIN: Duration = Duration::from_secs(20);
/// How often the world looks whether everything at one moment is done.
const LOOKS_MAX: u32 = 2_000;
const SEEDS: u64 = 6;

/// What a member was seen to hold at an index.
type Held = (Digest, u64);

/// What tasks of one world share.
#[derive(Clone)]
struct Shared {
    net: Net,
    history: Arc<Mutex<History>>,
    held: Arc<Mutex<BTreeMap<u64, Held>>>,
    states: Arc<Mutex<BTreeMap<NodeId, watch::Receiver<Arc<State>>>>>,
    quiet: Arc<AtomicBool>,
}

struct Member {
    dir: TempDir,
    disk: SimDisk,
    /// None: not running.
    log: Option<LogStore>,
    starts_at: Option<Instant>,
}

struct World {
    shared: Shared,
    members: BTreeMap<NodeId, Member>,
    rng: Rng,
    leaders: BTreeMap<u64, NodeId>,
    heals: Vec<(Instant, Heal)>,
    starts: u64,
    /// Whose panics are the world's.
    tasks: JoinSet<()>,
}

enum Heal {
    Lines(Vec<(NodeId, NodeId)>),
    Weather,
}

#[derive(Debug, Default, Clone, Copy)]
struct Told {
    operations: u64,
    messages: u64,
    starts: u64,
    terms: u64,
}

fn node(id: NodeId) -> RaftNode {
    RaftNode { name: format!("n{id}"), address: format!("n{id}:7000"), incarnation: [id as u8; 16] }
}

fn config() -> Arc<Config> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let config = Config {
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION_MIN),
        election_timeout_max: ms(ELECTION_MAX),
        max_payload_entries: 64,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(2 * ms(ELECTION_MAX)),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        ..Config::default()
    };
    Arc::new(config.validate().unwrap())
}

impl World {
    async fn begin(seed: u64) -> Self {
        let lines = Lines {
            hosts: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost: 0,
            delay_us_max: 2_000,
            rng: Rng(seed ^ 0x6e65_7477_6f72_6b73),
            messages: 0,
        };
        let shared = Shared {
            net: Net(Arc::new(Mutex::new(lines))),
            history: Arc::default(),
            held: Arc::default(),
            states: Arc::default(),
            quiet: Arc::default(),
        };
        let members = (1..=NODES).map(|id| {
            let (dir, disk) = (memory_dir(), SimDisk::default());
            let identity = Identity { cluster: [7; 16], node: id, incarnation: [id as u8; 16] };
            prepare_on(&disk, dir.path(), identity, &small()).unwrap();
            (id, Member { dir, disk, log: None, starts_at: Some(Instant::now()) })
        });
        let mut world = Self {
            shared,
            members: members.collect(),
            rng: Rng(seed),
            leaders: BTreeMap::new(),
            heals: Vec::new(),
            starts: 0,
            tasks: JoinSet::new(),
        };
        world.start_due().await;
        let voters = (1..=3).map(|id| (id, node(id))).collect::<BTreeMap<_, _>>();
        world.shared.net.host(1).unwrap().raft.initialize(voters).await.unwrap();
        while world.leader().is_none() {
            world.step().await;
        }
        let founded = tokio::spawn(found(world.shared.clone()));
        while !founded.is_finished() {
            world.step().await;
        }
        founded.await.unwrap();
        for number in 0..CLIENTS {
            world.tasks.spawn(client(world.shared.clone(), Rng(seed.wrapping_mul(1_000) + number)));
        }
        world
    }

    /// Everybody whose time has come runs again.
    async fn start_due(&mut self) {
        let now = Instant::now();
        for (id, member) in &mut self.members {
            if member.starts_at.is_none_or(|at| at > now) {
                continue;
            }
            let opened = match open_on(Arc::new(member.disk.clone()), member.dir.path(), small()) {
                Ok(opened) => opened,
                // What ran before has not let go of it yet.
                Err(error) if error.to_string().contains("in use") => continue,
                Err(error) => panic!("n{id} does not start again: {error:#}"),
            };
            let factory = Factory { net: self.shared.net.clone(), me: *id };
            let log = opened.log.clone();
            self.tasks.spawn(watch_states(self.shared.clone(), *id, opened.states.clone()));
            self.shared.states.lock().unwrap().insert(*id, opened.states);
            let raft = Raft::new(*id, config(), factory, opened.log, opened.machine).await.unwrap();
            let host = Host { raft, disk: member.disk.clone(), snapshots: opened.snapshots_dir, started: now };
            self.shared.net.lines().hosts.insert(*id, host);
            (member.log, member.starts_at) = (Some(log), None);
            self.starts += 1;
        }
    }

    /// One step of the clock, and all that follows from it.
    async fn step(&mut self) {
        self.start_due().await;
        for _ in 0..LOOKS_MAX {
            for _ in 0..8 {
                yield_now().await;
            }
            if self.members.values().flat_map(|member| &member.log).all(|log| log.wal.is_idle()) {
                break;
            }
            thread::yield_now();
        }
        advance(STEP).await;
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                resume_unwind(error.into_panic());
            }
        }
        self.look();
        let now = Instant::now();
        let (over, left) = std::mem::take(&mut self.heals).into_iter().partition(|(at, _)| *at <= now);
        self.heals = left;
        let over: Vec<(Instant, Heal)> = over;
        over.into_iter().for_each(|(_, heal)| self.heal(heal));
    }

    fn heal(&mut self, heal: Heal) {
        let mut lines = self.shared.net.lines();
        match heal {
            Heal::Lines(pairs) => lines.cut.retain(|pair| !pairs.contains(pair)),
            Heal::Weather => (lines.lost, lines.delay_us_max) = (0, 2_000),
        }
    }

    /// No term has two leaders; whoever's log has failed is one that died.
    fn look(&mut self) {
        let hosts = self.shared.net.lines().hosts.clone();
        for (id, host) in hosts {
            let metrics = host.raft.metrics().borrow_watched().clone();
            if metrics.state == ServerState::Leader {
                let leader = *self.leaders.entry(metrics.current_term).or_insert(id);
                assert_eq!(leader, id, "two leaders of term {}", metrics.current_term);
            }
            match metrics.running_state {
                Ok(()) => {}
                Err(Fatal::Panicked) => panic!("raft panicked on n{id}"),
                Err(_) => self.crash(id, false),
            }
        }
    }

    fn leader(&self) -> Option<(NodeId, Raft)> {
        let lines = self.shared.net.lines();
        let leads = |host: &Host| host.raft.metrics().borrow_watched().state == ServerState::Leader;
        lines.hosts.iter().find(|(_, host)| leads(host)).map(|(id, host)| (*id, host.raft.clone()))
    }

    fn crash(&mut self, id: NodeId, power: bool) {
        let Some(host) = self.shared.net.lines().hosts.remove(&id) else { return };
        self.shared.states.lock().unwrap().remove(&id);
        let after = Duration::from_millis(100 + self.rng.below(3_000));
        let member = self.members.get_mut(&id).unwrap();
        member.disk = match power {
            true => host.disk.cut(&mut self.rng),
            false => host.disk.kill(),
        };
        (member.log, member.starts_at) = (None, Some(Instant::now() + after));
        tokio::spawn(async move { host.raft.shutdown().await });
    }

    fn cut(&mut self, pairs: Vec<(NodeId, NodeId)>) {
        self.shared.net.lines().cut.extend(&pairs);
        let until = Instant::now() + Duration::from_millis(200 + self.rng.below(4_000));
        self.heals.push((until, Heal::Lines(pairs)));
    }

    fn anybody(&mut self) -> NodeId {
        1 + self.rng.below(NODES)
    }

    fn fault(&mut self) {
        let one = self.anybody();
        let leader = self.leader();
        match self.rng.below(14) {
            0 | 1 => self.crash(one, true),
            2 => self.crash(one, false),
            3 => leader.into_iter().for_each(|(id, _)| self.crash(id, true)),
            4 => (1..=NODES).for_each(|id| self.crash(id, true)),
            5 => {
                let one = leader.map_or(one, |(id, _)| id);
                let others = (1..=NODES).filter(|other| *other != one);
                self.cut(others.flat_map(|other| [(one, other), (other, one)]).collect());
            }
            6 => {
                // Deaf, or mute.
                let heard = self.rng.chance(2);
                let others = (1..=NODES).filter(|other| *other != one);
                self.cut(others.map(|other| if heard { (one, other) } else { (other, one) }).collect());
            }
            7 => {
                let side: BTreeSet<_> = (1..=NODES).filter(|_| self.rng.chance(2)).collect();
                let all = (1..=NODES).flat_map(|a| (1..=NODES).map(move |b| (a, b)));
                self.cut(all.filter(|(a, b)| side.contains(a) != side.contains(b)).collect());
            }
            8 => {
                let (lost, delay) = (self.rng.below(300), 1 + self.rng.below(150_000));
                let mut lines = self.shared.net.lines();
                (lines.lost, lines.delay_us_max) = (lost, delay);
                drop(lines);
                let until = Instant::now() + Duration::from_millis(500 + self.rng.below(3_000));
                self.heals.push((until, Heal::Weather));
            }
            9 | 10 => {
                if let Ok(host) = self.shared.net.host(one) {
                    tokio::spawn(snapshot(host.raft));
                }
            }
            11 => {
                // As `node` does: one that does not vote would be waited for without end.
                if let Some((id, raft)) = leader
                    && one != id
                    && raft.metrics().borrow_watched().membership_config.membership().voter_ids().any(|it| it == one)
                {
                    tokio::spawn(async move { raft.trigger().transfer_leader(one).await });
                }
            }
            12 => {
                if let Some((_, raft)) = leader {
                    let wanted: BTreeSet<_> = (1..=NODES).filter(|_| !self.rng.chance(3)).collect();
                    tokio::spawn(change_voters(raft, wanted));
                }
            }
            _ => {
                if let Ok(host) = self.shared.net.host(one) {
                    host.disk.fail_soon(1 + self.rng.below(200));
                }
            }
        }
    }

    async fn rage(&mut self) {
        let until = Instant::now() + FAULTS_FOR;
        let mut next = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            if Instant::now() >= next {
                self.fault();
                next = Instant::now() + Duration::from_millis(100 + self.rng.below(1_500));
            }
            self.step().await;
        }
    }

    /// Everything is mended: all five vote, take what clients ask for, and hold the same.
    async fn mend(&mut self) {
        for (_, heal) in std::mem::take(&mut self.heals) {
            self.heal(heal);
        }
        let ends = Instant::now() + MENDED_WITHIN;
        let everybody: BTreeSet<_> = (1..=NODES).collect();
        while !self.all_vote() {
            assert!(Instant::now() < ends, "five members that reach each other do not all vote: {}", self.shown());
            if let Some((_, raft)) = self.leader()
                && Instant::now().duration_since(ends - MENDED_WITHIN).subsec_millis().is_multiple_of(500)
            {
                tokio::spawn(change_voters(raft, everybody.clone()));
            }
            self.step().await;
        }
        self.shared.quiet.store(true, Ordering::Relaxed);
        let marked = self.shared.history.lock().unwrap().add();
        let written = tokio::spawn(last_word(self.shared.clone(), marked));
        while !written.is_finished() || !self.all_hold_the_same() {
            assert!(Instant::now() < ends + MENDED_WITHIN, "they do not come to hold the same: {}", self.shown());
            self.step().await;
        }
        written.await.unwrap();
    }

    fn all_vote(&self) -> bool {
        let lines = self.shared.net.lines();
        let votes = |host: &Host| {
            let metrics = host.raft.metrics().borrow_watched().clone();
            let membership = metrics.membership_config.membership();
            membership.get_joint_config().len() == 1 && membership.voter_ids().count() as u64 == NODES
        };
        lines.hosts.len() as u64 == NODES && lines.hosts.values().all(votes)
    }

    fn all_hold_the_same(&self) -> bool {
        let states: Vec<_> = self.shared.states.lock().unwrap().values().map(|it| it.borrow().clone()).collect();
        let same = states.iter().all(|state| state.index == states[0].index);
        if same {
            let hash = states[0].hash();
            assert!(states.iter().all(|state| state.hash() == hash), "states differ at {}", states[0].index);
        }
        states.len() as u64 == NODES && same
    }

    fn shown(&self) -> String {
        let lines = self.shared.net.lines();
        let shown = lines.hosts.iter().map(|(id, host)| {
            let metrics = host.raft.metrics().borrow_watched().clone();
            format!("n{id}: {metrics}")
        });
        shown.collect::<Vec<_>>().join("\n")
    }
}

/// What a member is seen to hold is what every other one held at that index.
async fn watch_states(shared: Shared, id: NodeId, mut states: watch::Receiver<Arc<State>>) {
    loop {
        let state = states.borrow_and_update().clone();
        let held = (state.revocations.hash(), state.clock_us);
        let before = *shared.held.lock().unwrap().entry(state.index).or_insert(held);
        assert_eq!(before, held, "n{id} holds something else at {}", state.index);
        if states.changed().await.is_err() {
            return;
        }
    }
}

async fn snapshot(raft: Raft) {
    let applied = raft.metrics().borrow_watched().last_applied.map(|id| id.index);
    let _ = raft.trigger().snapshot().await;
    sleep(Duration::from_millis(200)).await;
    if let Some(upto) = applied {
        let _ = raft.trigger().purge_log(upto).await;
    }
}

async fn change_voters(raft: Raft, wanted: BTreeSet<NodeId>) {
    let nodes = wanted.iter().map(|id| (*id, node(*id))).collect();
    let learners = raft.change_membership(ChangeMembers::AddNodes(nodes), true);
    if let Ok(Ok(_)) = timeout(PATIENCE, learners).await {
        let voters = raft.change_membership(ChangeMembers::ReplaceAllVoters(wanted), true);
        let _ = timeout(PATIENCE, voters).await;
    }
}

async fn found(shared: Shared) {
    let node = NodeRecord {
        id: 1,
        name: "n1".parse().unwrap(),
        region: String::new(),
        peer_address: "n1:7000".into(),
        incarnation: [1; 16],
        spki_sha256: [0; 32],
        wanted_role: Role::Voter,
        standing: Standing::Active,
        level: LEVEL,
        version: String::new(),
    };
    let bootstrap = Bootstrap {
        cluster_id: [7; 16],
        cluster_name: "simulated".into(),
        max_rtt: Duration::from_millis(50),
        ca_certificate: vec![],
        sealed_ca_key: vec![],
        node,
    };
    let found = command(Body::Bootstrap(Arc::new(bootstrap)));
    loop {
        sleep(HEARTBEAT).await;
        let Some(raft) = shared.leader_by(1) else { continue };
        if let Ok(written) = raft.client_write(found.clone()).await {
            written.data.unwrap().outcome.unwrap();
            return;
        }
    }
}

fn command(body: Body) -> Command {
    let stamp = Stamp { clock_us: 1_000_000, wall_ms: 0 };
    Command { min_level: 1, request_id: None, asked: None, stamp, actor: Arc::new(Actor::default()), body }
}

fn revocation(number: usize) -> Command {
    let value = number.to_string();
    let parts = SelectorParts { kind: SelectorKind::Jti, issuer: b"", value: value.as_bytes() };
    let entry =
        NewRevocation { selector: parts.checked().unwrap(), ttl: Duration::from_secs(3_600), not_before_s: None };
    command(Body::Revoke(Revoke { entries: [entry].into(), reason: String::new() }))
}

fn seen(state: &State) -> BTreeSet<usize> {
    let numbers = state.revocations.entries().values().map(|it| {
        let value = std::str::from_utf8(it.selector.parts().value).unwrap();
        value.parse().unwrap()
    });
    numbers.collect()
}

impl Shared {
    /// Whoever this member takes for the leader.
    fn leader_by(&self, one: NodeId) -> Option<Raft> {
        let leader = self.net.host(one).ok()?.raft.metrics().borrow_watched().current_leader?;
        Some(self.net.host(leader).ok()?.raft)
    }

    async fn add(&self, raft: &Raft, number: usize) -> Outcome {
        let written = timeout(PATIENCE, raft.client_write(revocation(number))).await;
        let mut history = self.history.lock().unwrap();
        match written {
            Ok(Ok(response)) if response.data.as_ref().is_some_and(|applied| applied.outcome.is_ok()) => {
                history.done(number);
            }
            Ok(Ok(response)) => panic!("a revocation was answered {:?}", response.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => history.refused(number),
            // Nobody knows.
            Ok(Err(_)) | Err(_) => {}
        }
        history.adds[number].outcome
    }

    /// By an index that the leader names, at any member.
    async fn read(&self, raft: &Raft, at: NodeId) {
        let called = self.history.lock().unwrap().tick();
        let Ok(Ok(linearizer)) = timeout(PATIENCE, raft.get_read_linearizer(ReadPolicy::ReadIndex)).await else {
            return;
        };
        let index = linearizer.read_log_id().index();
        let Some(mut states) = self.states.lock().unwrap().get(&at).cloned() else { return };
        let state = match timeout(PATIENCE, states.wait_for(|state| state.index >= index)).await {
            Ok(Ok(state)) => state.clone(),
            _ => return,
        };
        self.history.lock().unwrap().read(called, seen(&state));
    }
}

async fn client(shared: Shared, mut rng: Rng) {
    while !shared.quiet.load(Ordering::Relaxed) {
        sleep(Duration::from_micros(500 + rng.below(10_000))).await;
        let (one, other) = (1 + rng.below(NODES), 1 + rng.below(NODES));
        let Some(raft) = shared.leader_by(one) else { continue };
        if rng.chance(4) {
            shared.read(&raft, other).await;
        } else {
            let number = shared.history.lock().unwrap().add();
            shared.add(&raft, number).await;
        }
    }
}

/// Written and read once more when all is mended.
async fn last_word(shared: Shared, mut number: usize) {
    loop {
        sleep(HEARTBEAT).await;
        let Some(raft) = shared.leader_by(1) else { continue };
        if matches!(shared.add(&raft, number).await, Outcome::Done(_)) {
            return shared.read(&raft, 1).await;
        }
        number = shared.history.lock().unwrap().add();
    }
}

fn run(seed: u64) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::begin(seed).await;
        world.rage().await;
        world.mend().await;
        let history = world.shared.history.lock().unwrap();
        assert_eq!(history.check(), Ok(()));
        Told {
            operations: history.operations() as u64,
            messages: world.shared.net.lines().messages,
            starts: world.starts,
            terms: world.leaders.len() as u64,
        }
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// `scripts/soak --raft`: RAFT_FROM and RAFT_SEEDS say which schedules.
#[test]
fn one_order_explains_what_clients_were_told_whatever_fails() {
    let (from, seeds) = (setting("RAFT_FROM").unwrap_or(0), setting("RAFT_SEEDS").unwrap_or(SEEDS));
    let (next, total) = (AtomicU64::new(from), Mutex::new(Told::default()));
    let failed = Mutex::new(None);
    let begun = std::time::Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || failed.lock().unwrap().is_some() {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                        Ok(told) => {
                            let mut total = total.lock().unwrap();
                            total.operations += told.operations;
                            total.messages += told.messages;
                            total.starts += told.starts;
                            total.terms += told.terms;
                        }
                        Err(_) => *failed.lock().unwrap() = Some(seed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_none(), "a promise was broken; again by: scripts/soak --raft --seed {}", failed.unwrap());
    let Told { operations, messages, starts, terms } = total.into_inner().unwrap();
    println!(
        "{seeds} schedules from {from} on: {operations} operations, {messages} messages, {starts} starts, {terms} terms \
         with a leader; one order explains them all ({} a minute)",
        operations * 60_000 / (begun.elapsed().as_millis() as u64).max(1)
    );
    assert!(operations >= seeds * 500 && terms > seeds, "next to nothing happened");
}
