//! A cluster in virtual time: a log with a leader, delays, losses and repeats; clocks that drift; processes that crash,
//! stop and come back. What it drives is the production `Ledger` and the production `Holder`.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use quorumgate_model::{
    ledger::{
        Ledger,
        bucket::Taken,
        command::{Effect, Key, LeaseBatch, LedgerCommand, OpenSession},
        holder::{Ask, Holder, Outgoing},
        lease::{Denied, Hot, Lease},
        time::LogClock,
    },
    mutants::{self, Mutant},
};

use crate::{
    audit::{Admission, Budget, Excess, Extra},
    chance::Chance,
    plan::{Fault, MS, Plan, S, What},
};

mod kinds;
mod load;
mod places;
mod relief;

pub use places::Places;
use relief::Said;

const WATCH_US: u64 = 250 * MS;
const GRANT_WAIT_US: u64 = 2 * S;
/// A node that lags this far behind gets a snapshot, sometimes.
const SNAPSHOT_LAG: usize = 40;

/// What came of one schedule.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub excess: Option<Excess>,
    pub broken: Option<String>,
    pub offered: u64,
    pub admitted: u64,
    pub entries: u64,
    pub events: u64,
    /// Of every key and window-long stretch after the first two: what was admitted.
    pub per_window: Vec<u64>,
    pub admissions: Vec<Vec<Admission>>,
    pub places: Places,
    /// Of a concurrency limit: from when to when each exchange was in flight.
    pub flights: Vec<Vec<(u64, u64)>>,
}

impl Outcome {
    pub fn failed(&self) -> bool {
        self.excess.is_some() || self.broken.is_some()
    }
}

struct Node {
    up: bool,
    gone: bool,
    boot: u64,
    paused_until: u64,
    applied: usize,
    holder: Option<Holder>,
    leases: Vec<Option<Arc<Lease>>>,
    waiting: Vec<Waiting>,
}

struct Waiting {
    lease: Arc<Lease>,
    key: usize,
    since_us: u64,
    until_us: u64,
}

struct Entry {
    ledger: Ledger,
    effects: Arc<[Effect]>,
}

enum Event {
    /// What was on its way when a backup was restored.
    Nothing,
    Poll {
        node: usize,
        boot: u64,
    },
    Finish {
        node: usize,
        boot: u64,
        lease: Arc<Lease>,
        taken: Taken,
    },
    /// The answer to what was taken cost so much more.
    Owe {
        node: usize,
        boot: u64,
        key: usize,
        lease: Arc<Lease>,
        taken: Taken,
        more: u64,
    },
    Request,
    LateTake {
        node: usize,
        boot: u64,
        key: usize,
        lease: Arc<Lease>,
        read_us: u64,
        first_us: u64,
    },
    ToLeader {
        from: usize,
        what: Message,
    },
    Deliver {
        node: usize,
        upto: usize,
    },
    Flush {
        term: u64,
    },
    Commit {
        term: u64,
    },
    Heartbeat,
    Watch,
    Fault(usize),
    Heal,
    Restart(usize),
}

#[derive(Clone)]
enum Message {
    Open(OpenSession),
    Batch(LeaseBatch),
}

pub struct World {
    plan: Plan,
    chance: Chance,
    now_us: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Slot)>>,
    slots: Vec<Option<Event>>,
    vacant: Vec<usize>,
    nodes: Vec<Node>,
    group: Vec<u8>,
    /// By how much each wall clock has jumped.
    wall_step_us: Vec<i64>,
    head: Ledger,
    log: Vec<Entry>,
    leader: usize,
    term: u64,
    clock: LogClock,
    gathered: Vec<LeaseBatch>,
    others: Vec<Said>,
    flushing: bool,
    uncommitted: VecDeque<(u64, u64, Said)>,
    leaderless_us: u64,
    epoch_asked_us: u64,
    keys: Vec<Key>,
    budgets: Vec<Budget>,
    extras: Vec<Extra>,
    /// As the limit was edited last, and when its window was.
    limit: u64,
    exact: bool,
    reserve: bool,
    window_us: u64,
    edited_us: u64,
    /// As the last edit that was committed has it: one that a leader lost changes nothing.
    kept_window_us: u64,
    outcome: Outcome,
    /// (node, boot, key, place among the key's flights) of what may be in flight.
    in_flight: Vec<(usize, u64, usize, usize)>,
}

type Slot = usize;

impl World {
    pub fn run(plan: Plan) -> Outcome {
        let mut world = Self::new(plan);
        world.begin();
        while let Some(Reverse((at_us, _, slot))) = world.events.pop() {
            if at_us > world.plan.until_us {
                break;
            }
            world.now_us = at_us;
            world.outcome.events += 1;
            let event = world.slots[slot].take().expect("an event is in its slot");
            world.vacant.push(slot);
            world.happen(event);
            if world.outcome.broken.is_some() {
                break;
            }
        }
        world.end()
    }

    fn new(plan: Plan) -> Self {
        let node = |n: usize| Node {
            up: n < plan.founders,
            gone: false,
            boot: 1,
            paused_until: 0,
            applied: 0,
            holder: None,
            leases: vec![None; plan.keys as usize],
            waiting: Vec::new(),
        };
        let per_key = plan.keys as usize;
        let (admissions, flights) = (vec![Vec::new(); per_key], vec![Vec::new(); per_key]);
        let outcome = Outcome { admissions, flights, ..Outcome::default() };
        Self {
            chance: Chance::of(plan.seed ^ 0x5eed),
            now_us: 0,
            order: 0,
            events: BinaryHeap::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            nodes: (0..plan.nodes).map(node).collect(),
            group: vec![0; plan.nodes],
            wall_step_us: vec![0; plan.nodes],
            head: Ledger::default(),
            log: Vec::new(),
            leader: 0,
            term: 1,
            clock: LogClock::lead(0, 0),
            gathered: Vec::new(),
            others: Vec::new(),
            flushing: false,
            uncommitted: VecDeque::new(),
            leaderless_us: 0,
            epoch_asked_us: 0,
            keys: Vec::new(),
            budgets: Vec::new(),
            extras: Vec::new(),
            limit: plan.limit,
            exact: plan.exact,
            reserve: plan.reserve,
            window_us: plan.window_us,
            edited_us: 0,
            kept_window_us: plan.window_us,
            outcome,
            in_flight: Vec::new(),
            plan,
        }
    }

    fn begin(&mut self) {
        self.clock = LogClock::lead(0, self.local(0));
        let rule = self.rule();
        self.commit(0, LedgerCommand::DefineLimit(rule).into());
        self.keys = (0..self.plan.keys).map(|n| Key { limit: 1, who: format!("k{n}").into() }).collect();
        for node in 0..self.plan.founders {
            self.start(node);
        }
        self.at(self.plan.heartbeat_us, Event::Heartbeat);
        self.at(WATCH_US, Event::Watch);
        self.at(self.plan.from_us, Event::Request);
        for n in 0..self.plan.faults.len() {
            self.at(self.plan.faults[n].0, Event::Fault(n));
        }
    }

    fn end(mut self) -> Outcome {
        let window_us = self.plan.window_us;
        self.audit();
        let windows = self.plan.until_us / window_us;
        for n in 2..windows {
            let within = |it: &&Admission| it.first_us / window_us == n;
            let sum = self.outcome.admissions.iter().flatten().filter(within).map(|it| it.cost).sum();
            self.outcome.per_window.push(sum);
        }
        self.outcome.entries = self.log.len() as u64;
        self.outcome
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Poll { node, boot } => {
                if !self.defer(node, boot, |boot| Event::Poll { node, boot }) {
                    self.poll(node);
                    self.at(self.plan.poll_us, Event::Poll { node, boot });
                }
            }
            Event::Nothing => {}
            Event::Finish { node, boot, lease, taken } => {
                let again = (lease.clone(), taken);
                let late = |boot| Event::Finish { node, boot, lease: again.0.clone(), taken: again.1 };
                if !self.defer(node, boot, late) {
                    lease.put_back(taken);
                }
            }
            Event::Owe { node, boot, key, lease, taken, more } => {
                if self.works(node) && self.nodes[node].boot == boot && lease.is_of(&taken) {
                    lease.owe(more, u64::MAX);
                    lease.pay(self.local(node));
                    if let Some(holder) = &mut self.nodes[node].holder {
                        holder.signal(&self.keys[key]);
                    }
                }
            }
            Event::Request => self.request(),
            Event::LateTake { node, boot, key, lease, read_us, first_us } => {
                if self.nodes[node].paused_until > self.now_us {
                    let again = Event::LateTake { node, boot, key, lease, read_us, first_us };
                    self.at(self.nodes[node].paused_until - self.now_us, again);
                } else if self.nodes[node].up && self.nodes[node].boot == boot {
                    self.take(node, key, &lease, read_us, first_us);
                }
            }
            Event::ToLeader { from, what } => self.receive(from, what),
            Event::Deliver { node, upto } => self.deliver(node, upto),
            Event::Flush { term } if term == self.term => self.flush(),
            Event::Commit { term } if term == self.term => self.try_commit(),
            Event::Flush { .. } | Event::Commit { .. } => {}
            Event::Heartbeat => {
                if self.works(self.leader) {
                    for node in 0..self.plan.nodes {
                        self.send_log(node);
                    }
                }
                self.at(self.plan.heartbeat_us, Event::Heartbeat);
            }
            Event::Watch => {
                self.sample_places();
                self.watch();
                self.evict();
                self.at(WATCH_US, Event::Watch);
            }
            Event::Fault(n) => self.fault(n),
            Event::Heal => self.group = vec![0; self.plan.nodes],
            Event::Restart(node) => {
                if !self.nodes[node].up && !self.nodes[node].gone {
                    self.nodes[node].up = true;
                    self.start(node);
                }
            }
        }
    }

    // ---- time and messages

    fn at(&mut self, in_us: u64, event: Event) {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(event);
        self.order += 1;
        self.events.push(Reverse((self.now_us + in_us, self.order, slot)));
    }

    /// What the node's own clock shows.
    fn local(&self, node: usize) -> u64 {
        let drift = self.now_us as i64 * self.plan.drift_ppm[node] / 1_000_000;
        (self.now_us as i64 + drift) as u64 + 100 * S + node as u64 * 7 * S
    }

    /// When the node's own clock showed that.
    fn real(&self, node: usize, local_us: u64) -> u64 {
        let own = local_us.saturating_sub(100 * S + node as u64 * 7 * S);
        (u128::from(own) * 1_000_000 / (1_000_000 + self.plan.drift_ppm[node]) as u128) as u64
    }

    fn works(&self, node: usize) -> bool {
        self.nodes[node].up && self.nodes[node].paused_until <= self.now_us
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        self.group[a] == self.group[b]
    }

    /// True: the node is stopped, or its process is another by now.
    fn defer(&mut self, node: usize, boot: u64, event: impl Fn(u64) -> Event) -> bool {
        if !self.nodes[node].up || self.nodes[node].boot != boot {
            return true;
        }
        let paused = self.nodes[node].paused_until > self.now_us;
        if paused {
            self.at(self.nodes[node].paused_until - self.now_us, event(boot));
        }
        paused
    }

    // ---- nodes

    fn start(&mut self, node: usize) {
        let replica = match self.nodes[node].applied {
            0 => Ledger::default(),
            n => self.log[n - 1].ledger.clone(),
        };
        let boot_number = self.nodes[node].boot;
        let mut boot = [node as u8; 16];
        boot[..8].copy_from_slice(&boot_number.to_le_bytes());
        let now = self.local(node);
        let holder = Holder::start(node as u64 + 1, boot, self.plan.session_us, &replica, now);
        // Every key that is asked for is hot, where there are several workers.
        let holder = holder.for_workers(self.plan.workers).hot_from(Hot { per_s: 0, slots: 0 });
        self.nodes[node].holder = Some(holder);
        self.at(self.chance.clone().within(1, self.plan.poll_us), Event::Poll { node, boot: boot_number });
    }

    fn stop(&mut self, node: usize) {
        let back = self.chance.within(0, 30) as usize;
        let it = &mut self.nodes[node];
        it.up = false;
        let boot = it.boot;
        it.boot += 1;
        it.paused_until = 0;
        it.holder = None;
        it.leases.fill(None);
        it.waiting.clear();
        // What it had applied last was not all on its disk.
        it.applied = it.applied.saturating_sub(back);
        self.end_flights(node, boot);
    }

    fn poll(&mut self, node: usize) {
        let (now, wall) = (self.local(node), self.wall(node));
        let Some(holder) = &mut self.nodes[node].holder else { return };
        if self.plan.kind == What::Calendar {
            holder.tell_wall(wall, now);
        }
        let what = match holder.poll(now) {
            Some(Outgoing::Open(it)) => Message::Open(it),
            Some(Outgoing::Batch(it)) => Message::Batch(it),
            None => return,
        };
        let copies = 1 + u64::from(self.chance.percent(self.plan.twice_percent));
        for copy in 0..copies {
            let late = if copy > 0 { self.chance.within(0, 3 * S) } else { 0 };
            self.send(node, what.clone(), late);
        }
    }

    fn send(&mut self, from: usize, what: Message, late_us: u64) {
        if self.chance.percent(self.plan.loss_percent) || !self.reaches(from, self.leader) {
            return;
        }
        let delay = self.plan.delay_us[from][self.leader] + late_us + self.chance.within(0, 5 * MS);
        self.at(delay, Event::ToLeader { from, what });
    }

    fn request(&mut self) {
        let (gap, node) = self.next_request();
        self.at(gap, Event::Request);
        let key = if self.plan.keys > 1 && self.chance.percent(30) { 1 } else { 0 };
        self.outcome.offered += self.plan.cost;
        if !self.works(node) {
            return;
        }
        let now = self.local(node);
        let lease = match &self.nodes[node].leases[key] {
            Some(lease) if !lease.is_retired() => lease.clone(),
            _ => {
                let Some(holder) = &mut self.nodes[node].holder else { return };
                let Some(lease) = holder.lease(&self.keys[key], now) else { return };
                self.nodes[node].leases[key] = Some(lease.clone());
                lease
            }
        };
        if self.chance.percent(self.plan.stall_percent) {
            let stall = match self.chance.within(0, 3) {
                0 => self.chance.within(0, 3 * self.plan.window_us),
                1 => self.chance.within(0, 2 * S),
                _ => self.chance.within(0, 20 * MS),
            };
            let (boot, first_us) = (self.nodes[node].boot, self.now_us);
            self.at(stall, Event::LateTake { node, boot, key, lease, read_us: now, first_us });
        } else {
            self.take(node, key, &lease, now, self.now_us);
        }
    }

    fn take(&mut self, node: usize, key: usize, lease: &Arc<Lease>, read_us: u64, first_us: u64) {
        // One takes where it is, whatever parts others have.
        let worker = self.order as usize % self.plan.workers;
        match lease.take_on(worker, self.plan.cost as u32, read_us) {
            Ok(taken) => {
                let said_us = self.real(node, taken.at_us);
                self.admitted(node, key, first_us, said_us);
                self.begin_flight(node, key, lease, taken);
                if self.plan.kind != What::Concurrency && self.chance.percent(self.plan.late_percent) {
                    let (boot, more) = (self.nodes[node].boot, self.chance.within(1, 1 + self.plan.limit / 10));
                    let in_us = self.chance.within(0, 3 * S);
                    self.at(in_us, Event::Owe { node, boot, key, lease: lease.clone(), taken, more });
                }
            }
            Err(Denied::NoSession) => {}
            Err(Denied::Short { .. }) => {
                let now = self.local(node);
                let Some(holder) = &mut self.nodes[node].holder else { return };
                holder.signal(&self.keys[key]);
                if holder.ask(&self.keys[key], now) == Some(Ask::Wait) {
                    assert!(lease.wait(self.plan.cost as u32, u32::MAX));
                    let until_us = self.now_us + GRANT_WAIT_US;
                    let (lease, since_us) = (lease.clone(), self.now_us);
                    self.nodes[node].waiting.push(Waiting { lease, key, since_us, until_us });
                }
            }
        }
    }

    fn admitted(&mut self, node: usize, key: usize, first_us: u64, said_us: u64) {
        self.outcome.admitted += self.plan.cost;
        let admission = Admission { first_us, answer_us: self.now_us, said_us, cost: self.plan.cost, node };
        self.outcome.admissions[key].push(admission);
    }

    fn retry_waiting(&mut self, node: usize) {
        let now = self.local(node);
        for it in std::mem::take(&mut self.nodes[node].waiting) {
            let lease = it.lease.clone();
            if it.until_us <= self.now_us {
                lease.wait_over(self.plan.cost as u32);
                continue;
            }
            match lease.take(self.plan.cost as u32, now) {
                Ok(taken) => {
                    lease.wait_over(self.plan.cost as u32);
                    let said_us = self.real(node, taken.at_us);
                    self.admitted(node, it.key, it.since_us, said_us);
                    self.begin_flight(node, it.key, &lease, taken);
                }
                Err(_) => self.nodes[node].waiting.push(it),
            }
        }
    }

    // ---- the log

    fn receive(&mut self, from: usize, what: Message) {
        if self.nodes[self.leader].paused_until > self.now_us {
            let wait = self.nodes[self.leader].paused_until - self.now_us;
            self.at(wait, Event::ToLeader { from, what });
            return;
        }
        if !self.works(self.leader) || !self.reaches(from, self.leader) {
            return;
        }
        match what {
            Message::Open(it) => self.others.push(LedgerCommand::OpenSession(it).into()),
            Message::Batch(it) => self.gathered.push(it),
        }
        self.flush_soon();
    }

    fn flush_soon(&mut self) {
        if !self.flushing {
            self.flushing = true;
            let gather = self.chance.within(20 * MS, 100 * MS);
            self.at(gather, Event::Flush { term: self.term });
        }
    }

    fn flush(&mut self) {
        self.flushing = false;
        if self.nodes[self.leader].paused_until > self.now_us {
            self.flushing = true;
            self.at(self.nodes[self.leader].paused_until - self.now_us, Event::Flush { term: self.term });
            return;
        }
        if !self.works(self.leader) {
            return;
        }
        let mut commands = std::mem::take(&mut self.others);
        if !self.gathered.is_empty() {
            commands.push(LedgerCommand::Batches(std::mem::take(&mut self.gathered).into()).into());
        }
        let mut stamp = self.clock.stamp(self.local(self.leader));
        if mutants::is(Mutant::WallClockStamps) {
            stamp = self.now_us + self.plan.wall_us[self.leader];
        }
        for command in commands {
            self.uncommitted.push_back((self.now_us, stamp, command));
        }
        self.at(self.quorum_delay(), Event::Commit { term: self.term });
    }

    /// There and back to the nearest majority.
    fn quorum_delay(&self) -> u64 {
        let mut delays: Vec<u64> = (0..self.plan.nodes).map(|n| 2 * self.plan.delay_us[self.leader][n]).collect();
        delays[self.leader] = 0;
        delays.sort_unstable();
        delays[self.plan.nodes / 2] + MS
    }

    fn has_majority(&self, node: usize) -> bool {
        let with = (0..self.plan.nodes).filter(|n| self.works(*n) && self.reaches(node, *n)).count();
        self.works(node) && with > self.plan.nodes / 2
    }

    fn try_commit(&mut self) {
        if !self.has_majority(self.leader) {
            self.at(100 * MS, Event::Commit { term: self.term });
            return;
        }
        let ready_us = self.now_us.saturating_sub(self.quorum_delay());
        while let Some((_, stamp, command)) = self.uncommitted.pop_front_if(|(at, _, _)| *at <= ready_us) {
            self.commit(stamp, command);
        }
        self.apply_upto(self.leader, self.log.len());
        for node in 0..self.plan.nodes {
            self.send_log(node);
        }
    }

    fn commit(&mut self, stamp: u64, said: Said) {
        if let Said::Command(LedgerCommand::DefineLimit(rule)) | Said::Edit(rule) = &said {
            self.edited_us = self.now_us;
            self.kept_window_us = self.window_of(&rule.kind);
            self.budgets.push(Budget { from_us: self.now_us, budget: rule.kind.limit() });
        }
        let Some(effects) = self.apply(stamp, &said) else { return };
        for effect in effects.iter() {
            if let Effect::Broken { what, .. } = effect {
                self.outcome.broken = Some(what.clone());
            }
        }
        self.log.push(Entry { ledger: self.head.clone(), effects });
    }

    fn send_log(&mut self, node: usize) {
        if node == self.leader || !self.reaches(node, self.leader) || self.chance.percent(self.plan.loss_percent) {
            return;
        }
        let slow = if self.chance.percent(2) { self.chance.within(0, S) } else { self.chance.within(0, 5 * MS) };
        let delay = self.plan.delay_us[self.leader][node] + slow;
        self.at(delay, Event::Deliver { node, upto: self.log.len() });
    }

    fn deliver(&mut self, node: usize, upto: usize) {
        let boot = self.nodes[node].boot;
        if self.defer(node, boot, |_| Event::Deliver { node, upto }) {
            return;
        }
        let lag = upto.saturating_sub(self.nodes[node].applied);
        if lag > SNAPSHOT_LAG && self.chance.percent(50) {
            let now = self.local(node);
            let ledger = self.log[upto - 1].ledger.clone();
            self.nodes[node].applied = upto;
            if let Some(holder) = &mut self.nodes[node].holder {
                holder.resync(&ledger, now);
            }
        }
        self.apply_upto(node, upto);
    }

    fn apply_upto(&mut self, node: usize, upto: usize) {
        if self.nodes[node].applied >= upto {
            return;
        }
        let now = self.local(node);
        let coalesced = self.chance.percent(50);
        let it = &mut self.nodes[node];
        if let Some(holder) = &mut it.holder {
            let ledger = &self.log[upto - 1].ledger;
            // A driver may see several entries at once, and then the last state alone.
            match ledger.effects_since(it.applied as u64).filter(|_| coalesced) {
                Some(effects) => holder.applied(ledger, &effects, now),
                None => {
                    for entry in &self.log[it.applied..upto] {
                        holder.applied(&entry.ledger, &entry.effects, now);
                    }
                }
            }
        }
        it.applied = upto;
        self.retry_waiting(node);
        self.poll(node);
    }

    /// The leader's housekeeping, and elections.
    fn watch(&mut self) {
        if !self.has_majority(self.leader) {
            self.leaderless_us += WATCH_US;
            if self.leaderless_us >= self.chance.within(S, 2 * S) {
                let able: Vec<usize> = (0..self.plan.nodes).filter(|n| self.has_majority(*n)).collect();
                if !able.is_empty() {
                    let next = self.chance.one_of(&able);
                    self.lead(next);
                }
            }
            return;
        }
        self.leaderless_us = 0;
        let stamp = self.clock.stamp(self.local(self.leader));
        let idle = self.head.now_us + S < stamp;
        if self.head.due_us().is_some_and(|at| at <= stamp) || idle {
            self.others.push(LedgerCommand::Tick.into());
        }
        let divisor = self.head.wanted_divisor();
        if divisor != self.head.epoch.divisor && self.epoch_asked_us + 2 * S <= self.now_us {
            self.epoch_asked_us = self.now_us;
            self.others.push(LedgerCommand::ShareEpoch { divisor }.into());
        }
        self.roll(stamp);
        if !self.others.is_empty() {
            self.flush_soon();
        }
    }

    fn lead(&mut self, next: usize) {
        // What the old leader had not committed survives up to some point, or not at all.
        let survive = self.chance.within(0, self.uncommitted.len() as u64);
        for (_, stamp, command) in std::mem::take(&mut self.uncommitted).into_iter().take(survive as usize) {
            self.commit(stamp, command);
        }
        let before_us = self.clock.stamp(self.local(self.leader));
        self.gathered.clear();
        self.others.clear();
        self.flushing = false;
        self.leaderless_us = 0;
        self.term += 1;
        self.leader = next;
        self.apply_upto(next, self.log.len());
        self.clock = LogClock::lead(self.head.now_us, self.local(next));
        if mutants::is(Mutant::ClockJumpsAhead) {
            // Its own reading of an earlier term: as far on as the leader before it would be, had nobody lagged.
            self.clock = LogClock::lead(self.head.now_us.max(before_us + S / 5), self.local(next));
        }
    }

    // ---- faults

    fn fault(&mut self, n: usize) {
        match self.plan.faults[n].1.clone() {
            Fault::Crash { node, for_us } => self.crash(node, for_us),
            Fault::KillLeader { for_us } => self.crash(self.leader, for_us),
            Fault::Pause { node, for_us } => self.nodes[node].paused_until = self.now_us + for_us,
            Fault::PauseLeader { for_us } => self.nodes[self.leader].paused_until = self.now_us + for_us,
            Fault::Partition { group, for_us } => {
                self.group = group;
                self.at(for_us, Event::Heal);
            }
            Fault::MoveLeader => {
                let able: Vec<usize> = (0..self.plan.nodes).filter(|n| self.has_majority(*n)).collect();
                if !able.is_empty() {
                    let next = self.chance.one_of(&able);
                    self.lead(next);
                }
            }
            Fault::Edit { limit } => {
                self.limit = limit;
                self.edit();
            }
            Fault::EditMode { exact, reserve } => {
                (self.exact, self.reserve) = (exact, reserve);
                self.edit();
            }
            Fault::EditWindow { window_us } => {
                self.window_us = window_us;
                self.say(Said::Edit(self.rule()));
            }
            Fault::Drain { node, for_us } => {
                if let Some(holder) = &mut self.nodes[node].holder {
                    holder.drain();
                }
                self.at(for_us, Event::Restart(node));
            }
            Fault::Retire { node } => {
                if self.nodes.iter().filter(|it| !it.gone).count() > self.plan.nodes - 1 {
                    self.crash(node, 0);
                    self.nodes[node].gone = true;
                    self.others.push(LedgerCommand::RetireNode { node: node as u64 + 1 }.into());
                    self.flush_soon();
                }
            }
            Fault::Join { node } => self.at(0, Event::Restart(node)),
            Fault::Restore { entries } => self.restore(entries),
            Fault::Reset { key } => self.say(Said::Reset { key }),
            Fault::WallStep { node, by_s } => self.wall_step_us[node] += by_s * S as i64,
            Fault::Bonus { key, amount, lasts_us } => self.say(Said::Bonus { key, amount, lasts_us }),
        }
    }

    fn crash(&mut self, node: usize, for_us: u64) {
        if self.nodes[node].up {
            self.stop(node);
            self.at(for_us, Event::Restart(node));
        }
    }
}
