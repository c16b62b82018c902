//! A cluster and its clock: who runs, what happens next, and what must hold at every step and at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::resume_unwind,
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::Duration,
};

use openraft::{Config, ServerState, SnapshotPolicy, async_runtime::watch::WatchReceiver, errors::Fatal};
use quorumgate_model::{NodeId, membership, state::State};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::{Instant, advance, sleep},
};

use super::{
    CALM_US, ELECTION_MAX, ELECTION_MIN, HEARTBEAT, Held, Numbers, Raft, Schedule, Shared, Told, budgets, clients,
    clock::Clock,
    faults::{Fault, Plan},
    history::Sets,
    host::Host,
    members,
    net::{Factory, Lines, Net},
};
use crate::{
    Identity, LogStore, Options, StoreHealth,
    store::{open_on, prepare_on},
    tests::{
        memory_dir,
        rng::Rng,
        sim_disk::{Faults, SimDisk},
    },
};

/// From a log that goes on in a new file at nearly every write to one that seldom does.
const SEGMENT_BYTES: [u64; 3] = [4 << 10, 32 << 10, 256 << 10];
const STEP: Duration = Duration::from_millis(1);
const FAULTS_FOR: Duration = Duration::from_secs(20);
/// Once all is mended the cluster works again within it.
const MENDED_WITHIN: Duration = Duration::from_secs(20);
/// How often the world looks whether everything at one moment is done.
const LOOKS_MAX: u32 = 2_000;
/// A process whose log has failed ends within so many steps.
const ENDS_WITHIN_STEPS: u32 = 100;
/// How often operators look after who is lost.
const LOOKED_AFTER_EVERY: Duration = Duration::from_millis(500);
/// Of how many indexes one is compared as a whole, revocations by their hash.
const WHOLE_EVERY: u64 = 16;

pub struct Member {
    pub dir: TempDir,
    pub disk: SimDisk,
    /// None: not running.
    pub log: Option<LogStore>,
    pub starts_at: Option<Instant>,
    /// Its log is gone, and its identity is not: it must not start.
    pub log_lost: bool,
    /// For how many steps its process has lived on with a log that failed.
    failed_steps: u32,
}

pub struct World {
    pub shared: Shared,
    pub members: BTreeMap<NodeId, Member>,
    pub rng: Rng,
    options: Options,
    pub plans: Vec<(Instant, Plan)>,
    /// Whose panics are the world's.
    pub tasks: JoinSet<()>,
    /// How many machines there have been.
    pub machines: u64,
    /// When a disk was lost, and when a node was asked to go.
    pub lost_at: Option<Instant>,
    pub asked_at: Option<Instant>,
    /// Of machines that were wiped, whose processes may be at their end still.
    pub graves: Vec<TempDir>,
    /// Removed, and wiped some time later.
    going: BTreeSet<NodeId>,
    leaders: BTreeMap<u64, NodeId>,
    /// What happened, to be read where a schedule fails.
    timeline: Vec<String>,
    begun: Instant,
    looked_after: Instant,
    numbers: Numbers,
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
    pub async fn begin(seed: u64, Schedule { founders, clients, .. }: Schedule) -> Self {
        let lines = Lines {
            hosts: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost: 0,
            delay_us_max: CALM_US,
            rng: Rng(seed ^ 0x6e65_7477_6f72_6b73),
            messages: 0,
            installed: 0,
            strikes_until: None,
            struck: Vec::new(),
        };
        let shared = Shared {
            net: Net(Arc::new(Mutex::new(lines))),
            sets: Arc::new(Mutex::new(Sets::of(clients::SETS))),
            held: Arc::default(),
            admitted: Arc::default(),
            joining: Arc::default(),
            counts: Arc::default(),
            quiet: Arc::default(),
        };
        let mut rng = Rng(seed);
        let mut world = Self {
            shared,
            members: BTreeMap::new(),
            options: Options { segment_bytes: SEGMENT_BYTES[rng.below(3) as usize], ..Options::default() },
            rng,
            plans: Vec::new(),
            tasks: JoinSet::new(),
            machines: 1,
            lost_at: None,
            asked_at: None,
            graves: Vec::new(),
            going: BTreeSet::new(),
            leaders: BTreeMap::new(),
            timeline: Vec::new(),
            begun: Instant::now(),
            looked_after: Instant::now(),
            numbers: Numbers::default(),
        };
        world.found(founders).await;
        for number in 0..clients {
            world.tasks.spawn(clients::client(world.shared.clone(), Rng(seed.wrapping_mul(1_000) + number)));
        }
        world
    }

    /// One node founds the cluster; the others are let in, and vote.
    async fn found(&mut self, founders: u64) {
        self.prepare(1, 1);
        self.start_due().await;
        let founder = self.shared.net.host(1).unwrap();
        founder.raft.initialize(BTreeMap::from([(1, members::member(&members::record(1)))])).await.unwrap();
        let shared = self.shared.clone();
        let founded = tokio::spawn(async move {
            for body in members::founding().into_iter().chain([budgets::limits()]) {
                loop {
                    sleep(HEARTBEAT).await;
                    if let Told::Done(applied) = shared.propose(&founder, body.clone()).await {
                        applied.outcome.expect("it is the first of its kind");
                        break;
                    }
                }
            }
        });
        while !founded.is_finished() {
            self.step().await;
        }
        founded.await.unwrap();
        for _ in 1..founders {
            self.carry_out(Plan::Join);
            while self.shared.joining.lock().unwrap().under_way > 0 {
                self.step().await;
            }
        }
        let ends = Instant::now() + MENDED_WITHIN;
        while !self.is_whole() {
            assert!(Instant::now() < ends, "the founders do not come to vote: {}", self.shown());
            self.step().await;
        }
    }

    /// A machine with an empty disk, for whoever was told this id.
    fn prepare(&mut self, id: NodeId, number: u64) {
        let (dir, disk) = (memory_dir(), SimDisk::default());
        let identity = Identity { cluster: [7; 16], node: id, incarnation: members::incarnation(number) };
        prepare_on(&disk, dir.path(), identity, &self.options).unwrap();
        let starts_at = Some(Instant::now());
        let member = Member { dir, disk, log: None, starts_at, log_lost: false, failed_steps: 0 };
        self.members.insert(id, member);
    }

    /// Everybody whose time has come runs again.
    async fn start_due(&mut self) {
        let now = Instant::now();
        let due: Vec<NodeId> =
            self.members.iter().filter(|(_, it)| it.starts_at.is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        for id in due {
            let member = self.members.get_mut(&id).unwrap();
            let opened = match open_on(Arc::new(member.disk.clone()), member.dir.path(), self.options.clone()) {
                Ok(_) if member.log_lost => panic!("n{id} starts though its log is lost"),
                Ok(opened) => opened,
                // What ran before has not let go of it yet.
                Err(error) if error.to_string().contains("in use") => continue,
                Err(_) if member.log_lost => {
                    self.wipe(id);
                    continue;
                }
                Err(error) => panic!("n{id} does not start again: {error:#}"),
            };
            let factory = Factory { net: self.shared.net.clone(), me: id };
            member.log = Some(opened.log.clone());
            (member.starts_at, member.failed_steps) = (None, 0);
            let raft = Raft::new(id, config(), factory, opened.log, opened.machine).await.unwrap();
            let host = Host {
                id,
                raft,
                disk: member.disk.clone(),
                snapshots: opened.snapshots_dir,
                started: now,
                states: opened.states,
                health: opened.health,
                clock: Clock::of(id, self.begun),
                departures: Arc::default(),
            };
            self.run(host);
        }
    }

    fn run(&mut self, host: Host) {
        self.numbers.starts += 1;
        self.tell(format_args!("n{} starts", host.id));
        let shared = self.shared.clone();
        let rng = Rng(self.rng.next());
        shared.net.lines().hosts.insert(host.id, host.clone());
        self.tasks.spawn(watch_states(shared.clone(), host.id, host.states.clone()));
        self.tasks.spawn(watch_health(host.clone()));
        self.tasks.spawn(members::lead(shared.clone(), host.clone()));
        self.tasks.spawn(budgets::keep_time(shared.clone(), host.clone()));
        self.tasks.spawn(budgets::hold(shared, host, rng));
    }

    /// One step of the clock, and all that follows from it.
    pub async fn step(&mut self) {
        self.start_due().await;
        for _ in 0..LOOKS_MAX {
            for _ in 0..8 {
                yield_now().await;
            }
            let settled = |it: &Member| it.log.as_ref().is_none_or(|log| log.wal.is_idle() || it.disk.is_waiting());
            if self.members.values().all(settled) {
                break;
            }
            thread::yield_now();
        }
        self.strike_down();
        advance(STEP).await;
        self.members.values().for_each(|member| member.disk.tick());
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                resume_unwind(error.into_panic());
            }
        }
        self.look();
        self.welcome();
        let now = Instant::now();
        let (due, left) = std::mem::take(&mut self.plans).into_iter().partition(|(at, _)| *at <= now);
        self.plans = left;
        let due: Vec<(Instant, Plan)> = due;
        due.into_iter().for_each(|(_, plan)| self.carry_out(plan));
        if self.looked_after.elapsed() >= LOOKED_AFTER_EVERY {
            self.looked_after = now;
            self.look_after();
        }
    }

    /// No term has two leaders; whoever's log has failed ends, as `node` does.
    fn look(&mut self) {
        let (mut led, mut ended) = (Vec::new(), Vec::new());
        for (id, host) in &self.shared.net.lines().hosts {
            let metrics = host.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.state == ServerState::Leader {
                led.push((metrics.current_term, *id));
            }
            let failed = matches!(*host.health.borrow(), StoreHealth::FsyncFailed(_) | StoreHealth::ApplyStopped(_));
            match metrics.running_state {
                Ok(()) if !failed => {}
                Err(Fatal::Panicked) => panic!("raft panicked on n{id}"),
                Ok(()) | Err(_) => ended.push(*id),
            }
        }
        for (term, id) in led {
            let leader = *self.leaders.entry(term).or_insert_with(|| {
                self.timeline.push(told(self.begun, format_args!("n{id} leads in term {term}")));
                id
            });
            assert_eq!(leader, id, "two leaders of term {term}");
        }
        for id in ended {
            self.numbers.failed_disks += 1;
            self.tell(format_args!("n{id} ends: its log has failed"));
            self.crash(id, false);
        }
        for (id, member) in &mut self.members {
            member.failed_steps += u32::from(member.log.is_some() && member.disk.log_has_failed());
            assert!(member.failed_steps < ENDS_WITHIN_STEPS, "n{id} lives on with a log that has failed");
        }
    }

    pub fn tell(&mut self, what: fmt::Arguments) {
        self.timeline.push(told(self.begun, what));
    }

    /// Whoever was let in since gets its disk.
    fn welcome(&mut self) {
        let admitted = std::mem::take(&mut self.shared.joining.lock().unwrap().admitted);
        for (id, number) in admitted {
            self.numbers.joined += 1;
            self.tell(format_args!("machine {number} is let in as n{id}"));
            self.prepare(id, number);
        }
    }

    /// What operators do: whoever was removed is wiped and comes back as a new member, and whoever is lost is removed.
    fn look_after(&mut self) {
        let Some(newest) = self.newest() else { return };
        let removed: Vec<NodeId> = self.members.keys().copied().filter(|id| newest.removed.contains_key(id)).collect();
        for id in removed {
            if self.going.insert(id) {
                self.numbers.removed += 1;
                self.tell(format_args!("n{id} is removed"));
                let after = Duration::from_millis(self.rng.below(3_000));
                self.later(after, Plan::Wipe(id));
                self.later(after + LOOKED_AFTER_EVERY, Plan::Join);
            }
        }
        let settled = {
            let joining = self.shared.joining.lock().unwrap();
            joining.under_way == 0 && joining.admitted.is_empty()
        };
        let lost = newest.nodes.keys().copied().find(|id| !self.members.contains_key(id));
        if let Some(id) = lost.filter(|_| settled) {
            self.tasks.spawn(members::ask_to_go(self.shared.clone(), id, None));
        }
    }

    fn newest(&self) -> Option<Arc<State>> {
        let lines = self.shared.net.lines();
        lines.hosts.values().map(Host::state).max_by_key(|state| state.index)
    }

    pub fn crash(&mut self, id: NodeId, power: bool) {
        let after = Duration::from_millis(100 + self.rng.below(3_000));
        self.crash_for(id, power, after);
    }

    pub fn crash_for(&mut self, id: NodeId, power: bool, time: Duration) {
        let Some(host) = self.shared.net.lines().hosts.remove(&id) else { return };
        self.tell(format_args!("n{id} {} for {time:?}", if power { "loses power" } else { "is killed" }));
        let member = self.members.get_mut(&id).unwrap();
        member.disk = match power {
            true => host.disk.cut(&mut self.rng),
            false => host.disk.kill(),
        };
        (member.log, member.starts_at) = (None, Some(Instant::now() + time));
        tokio::spawn(async move { host.raft.shutdown().await });
    }

    pub fn anybody(&mut self) -> Option<NodeId> {
        let nth = self.rng.below(self.members.len().max(1) as u64) as usize;
        self.members.keys().nth(nth).copied()
    }

    pub async fn rage(&mut self, faults: &[Fault]) {
        let until = Instant::now() + FAULTS_FOR;
        let mut next = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until {
            if Instant::now() >= next {
                let drawn = self.rng.below(faults.len() as u64) as usize;
                self.fault(faults[drawn]);
                next = Instant::now() + Duration::from_millis(100 + self.rng.below(1_200));
            }
            self.step().await;
        }
    }

    /// Everything is mended: whoever is in the cluster runs and votes as the plan says, takes what clients ask for, spends
    /// what it may, and holds the same.
    pub async fn mend(&mut self) {
        for (at, plan) in std::mem::take(&mut self.plans) {
            match plan {
                Plan::Mend(_) | Plan::Weather => self.carry_out(plan),
                Plan::CutOff(_) => {}
                Plan::Room(_) | Plan::Quick(_) | Plan::Wipe(_) | Plan::Join => self.plans.push((at, plan)),
            }
        }
        self.shared.net.lines().strikes_until = None;
        self.tell(format_args!("all is mended"));
        let ends = Instant::now() + MENDED_WITHIN;
        while !self.is_whole() {
            assert!(Instant::now() < ends, "members that reach each other do not all vote: {}", self.shown());
            for member in self.members.values() {
                member.disk.set_faults(Faults::default());
                member.disk.slow_down(0);
            }
            self.step().await;
        }
        let spent = self.admissions();
        self.shared.quiet.store(true, Ordering::Relaxed);
        let written = tokio::spawn(clients::last_word(self.shared.clone()));
        while !written.is_finished() || !self.all_hold_the_same() || self.admissions() == spent {
            assert!(Instant::now() < ends + MENDED_WITHIN, "they do not come to hold the same: {}", self.shown());
            self.step().await;
        }
        written.await.unwrap();
    }

    fn admissions(&self) -> u64 {
        self.shared.admitted.lock().unwrap().values().map(|times| times.len() as u64).sum()
    }

    /// Whether all nodes of the cluster run, nobody else is in raft's membership, and no step of the plan is left.
    pub fn is_whole(&self) -> bool {
        let Some(leader) = self.shared.any_leader() else { return false };
        let (state, glance) = (leader.state(), leader.glance());
        let nodes: BTreeSet<NodeId> = state.nodes.keys().copied().collect();
        let running: BTreeSet<NodeId> = self.shared.net.lines().hosts.keys().copied().collect();
        let known: BTreeSet<NodeId> = glance.nodes.keys().copied().collect();
        let all_vote = glance.voters.len() as u64 + 1 >= running.len() as u64;
        nodes == running
            && nodes == known
            && self.members.len() == running.len()
            && glance.settled
            && !glance.joint
            && all_vote
            && membership::next_step(&state, &leader.observed(&glance)).is_none()
            && self.shared.joining.lock().unwrap().under_way == 0
    }

    fn all_hold_the_same(&self) -> bool {
        let states: Vec<_> = self.shared.net.lines().hosts.values().map(Host::state).collect();
        let same = states.iter().all(|state| state.index == states[0].index);
        if same {
            let hash = states[0].hash();
            assert!(states.iter().all(|state| state.hash() == hash), "states differ at {}", states[0].index);
        }
        same
    }

    /// What clients were told has one order, no window was over its limit.
    pub fn judge(&self) -> Numbers {
        let sets = self.shared.sets.lock().unwrap();
        for (number, set) in sets.all.iter().enumerate() {
            assert_eq!(set.history.check(), Ok(()), "set {number}");
        }
        let held = self.newest().expect("somebody runs").revocations.len();
        let asked: usize = sets.all.iter().map(|set| set.history.adds.len()).sum();
        assert!(held <= asked, "{held} elements are there, {asked} were added");
        assert_eq!(budgets::audit(&self.shared.admitted.lock().unwrap()), Ok(()));
        let added: Vec<(u64, u64)> = sets.all.iter().map(|set| set.history.added()).collect();
        let lines = self.shared.net.lines();
        let counts = &self.shared.counts;
        let count = |it: &std::sync::atomic::AtomicU64| it.load(Ordering::Relaxed);
        Numbers {
            adds: added.iter().map(|(done, _)| done).sum(),
            reads: sets.all.iter().map(|set| set.history.reads.len() as u64).sum(),
            unknown: added.iter().map(|(_, unknown)| unknown).sum(),
            admissions: self.admissions(),
            messages: lines.messages,
            terms: self.leaders.len() as u64,
            refused: count(&counts.refused),
            lost: count(&counts.lost),
            struck: count(&counts.struck),
            installed: lines.installed,
            resynced: count(&counts.resynced),
            ..self.numbers
        }
    }

    pub fn shown(&self) -> String {
        let lines = self.shared.net.lines();
        let shown = lines.hosts.iter().map(|(id, host)| {
            let metrics = host.raft.metrics().borrow_watched().clone();
            format!("n{id}: {metrics}; nodes {:?}", host.state().nodes.keys().collect::<Vec<_>>())
        });
        format!("{:?}\n{}", self.members.keys(), shown.collect::<Vec<_>>().join("\n"))
    }
}

/// Threads that wait for a slow disk hear that it is gone: nothing else ends them.
impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what happened, in seconds of the cluster's time:\n{}", self.timeline.join("\n"));
        }
        self.members.values().for_each(|member| member.disk.die());
    }
}

fn told(begun: Instant, what: fmt::Arguments) -> String {
    format!("{:>7.3}  {what}", begun.elapsed().as_secs_f64())
}

/// What a member is seen to hold is what every other one held at that index.
async fn watch_states(shared: Shared, id: NodeId, mut states: watch::Receiver<Arc<State>>) {
    loop {
        let state = states.borrow_and_update().clone();
        budgets::assert_whole(&state.ledger);
        let all = state.index.is_multiple_of(WHOLE_EVERY).then(|| without_revocations(&state).hash());
        let ledger = (state.ledger.version, state.ledger.now_us);
        let held = Held { revocations: state.revocations.hash(), clock_us: state.clock_us, ledger, all };
        let before = *shared.held.lock().unwrap().entry(state.index).or_insert(held);
        assert_eq!(before, held, "n{id} holds something else at {}", state.index);
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// They are many, and have a hash of their own.
fn without_revocations(state: &State) -> State {
    State { revocations: Default::default(), ..state.clone() }
}

/// As `node` does: one without room does not stand for election.
async fn watch_health(host: Host) {
    let mut health = host.health.clone();
    loop {
        let full = *health.borrow_and_update() == StoreHealth::DiskFull;
        host.raft.runtime_config().elect(!full);
        if health.changed().await.is_err() {
            return;
        }
    }
}
