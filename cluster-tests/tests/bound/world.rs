//! One schedule: hosts with clocks of their own, a network that loses, delays and cuts off, clients that revoke and ask,
//! and the oracle that knows the true time of everything.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::Duration,
};

use quorumgate_model::{
    LEVEL,
    command::{Actor, Body, Bootstrap, Command, NewRevocation, NodeRecord, Revoke, Role, Stamp, Standing},
    revocation::{SelectorKind, SelectorParts},
    state::State,
    timing::MAX_RTT_DEFAULT,
};
use quorumgate_proxy::{
    Freshness,
    freshness::Probe,
    identity::{RevocationSubject, TokenMarks, directory::Directory},
};

use crate::raft::{Member, Message, Node, Out, Rule};

/// Microseconds of true time.
type Time = u64;

const NODES: usize = 3;
const TICK: Time = 100_000;
const PROBE_EVERY: Time = 500_000;
const FAULTS_END: Time = 40_000_000;
const END: Time = 55_000_000;
/// Clocks run apart by at most this much, parts per million.
const DRIFT_PPM: u64 = 500;
const BLANKS: u64 = 2;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The furthest past the bound that a request was sent which was let in.
    pub late: Option<Time>,
    /// At the end every node is fresh and refuses what was revoked.
    pub healed: bool,
    pub revoked: u64,
    /// Let in after the commit, within the bound.
    pub admitted_after_commit: u64,
    pub refused_stale: u64,
    pub refused_revoked: u64,
    pub leaders: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.revoked += other.revoked;
        self.admitted_after_commit += other.admitted_after_commit;
        self.refused_stale += other.refused_stale;
        self.refused_revoked += other.refused_revoked;
        self.leaders += other.leaders;
    }
}

#[derive(Debug)]
enum Event {
    Deliver { from: Node, message: Message },
    Tick,
    ProbeTick,
    Publish,
    Request { token: u32, sent: Time },
    Revoke,
    Fault,
}

struct Host {
    member: Member,
    state: State,
    directory: Directory,
    freshness: Freshness,
    /// How many log entries the state, and the tables, contain.
    applied: usize,
    published: usize,
    publish_due: bool,
    /// Local clock: `offset + time * (1_000_000 + ppm) / 1_000_000`.
    offset: Time,
    ppm: i64,
    paused_until: Time,
    /// When it gives up on the leader, true time.
    patience_ends: Time,
    probes: BTreeMap<u64, Probe>,
    answered: Vec<(Probe, usize)>,
}

pub struct World {
    rng: u64,
    rule: Rule,
    now: Time,
    hosts: Vec<Host>,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    bodies: BTreeMap<u64, (Node, Event)>,
    next: u64,
    /// `cut[a][b]`: nothing goes from a to b before that time.
    cut: [[Time; NODES]; NODES],
    tokens: u32,
    /// The true time at which a token's revocation was first known to be committed.
    committed: BTreeMap<u32, Time>,
    outcome: Outcome,
}

impl World {
    pub fn new(seed: u64, rule: Rule) -> Self {
        let mut world = Self {
            rng: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            rule,
            now: 0,
            hosts: Vec::new(),
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            next: 0,
            cut: Default::default(),
            tokens: 0,
            committed: BTreeMap::new(),
            outcome: Outcome::default(),
        };
        for me in 0..NODES {
            let (offset, ppm) =
                (world.below(100_000_000_000), world.below(2 * DRIFT_PPM + 1) as i64 - DRIFT_PPM as i64);
            let patience_ends = world.patience();
            world.hosts.push(Host {
                member: Member::new(me, NODES),
                state: founded(),
                directory: Directory::default(),
                freshness: Freshness::default(),
                applied: 0,
                published: 0,
                publish_due: false,
                offset,
                ppm,
                paused_until: 0,
                patience_ends,
                probes: BTreeMap::new(),
                answered: Vec::new(),
            });
            for (every, event) in [(TICK, Event::Tick), (PROBE_EVERY, Event::ProbeTick)] {
                let at = world.below(every);
                world.at(at, me, event);
            }
        }
        world.at(1_000_000, 0, Event::Revoke);
        world.at(2_000_000, 0, Event::Fault);
        world
    }

    pub fn play(mut self) -> Outcome {
        while let Some(Reverse((time, id))) = self.events.pop() {
            if time > END {
                break;
            }
            self.now = self.now.max(time);
            let (node, event) = self.bodies.remove(&id).expect("each event happens once");
            let asleep = self.hosts[node].paused_until;
            match event {
                Event::Revoke => self.revoke(),
                Event::Fault => self.fault(),
                // A process that is stopped finds everything waiting when it goes on.
                event if asleep > self.now => self.at(asleep, node, event),
                event => self.happens(node, event),
            }
        }
        let fresh = |host: &Host| host.freshness.is_fresh_at(host.clock_ns(self.now));
        let knows = |host: &Host| self.committed.keys().all(|token| host.refuses(*token));
        self.outcome.healed = self.hosts.iter().all(|host| fresh(host) && knows(host));
        self.outcome
    }

    fn happens(&mut self, node: Node, event: Event) {
        let mut out = Out::new();
        match event {
            Event::Tick => {
                let due = self.now >= self.hosts[node].patience_ends;
                let patience_ends = self.patience();
                let host = &mut self.hosts[node];
                if host.member.leads() {
                    host.member.append(&mut out);
                } else if due {
                    host.patience_ends = patience_ends;
                    host.member.stand(&mut out);
                }
                self.at(self.now + TICK, node, Event::Tick);
            }
            Event::ProbeTick => {
                let host = &mut self.hosts[node];
                let id = self.next;
                host.probes.insert(id, Probe::sent_at(host.clock_ns(self.now)));
                match host.member.leader {
                    Some(leader) if leader == node => host.member.ask(node, id, self.rule, &mut out),
                    Some(leader) => out.push((leader, Message::Probe { probe: id })),
                    None => {}
                }
                self.at(self.now + PROBE_EVERY, node, Event::ProbeTick);
            }
            Event::Deliver { from, message } => self.deliver(node, from, message, &mut out),
            Event::Publish => {
                let host = &mut self.hosts[node];
                host.publish_due = false;
                host.directory.publish(&host.state, Arc::default());
                host.published = host.applied;
            }
            Event::Request { token, sent } => self.request(node, token, sent),
            Event::Revoke | Event::Fault => {}
        }
        self.settle(node);
        self.send(node, out);
    }

    fn deliver(&mut self, node: Node, from: Node, message: Message, out: &mut Out) {
        let patience_ends = self.patience();
        let (now, rule) = (self.now, self.rule);
        let host = &mut self.hosts[node];
        let led = host.member.leads();
        let answer = host.member.take(from, message, rule, out);
        // A leader was heard, or a vote was given: it is not the time to stand.
        if out.iter().any(|(_, it)| matches!(it, Message::Appended { .. } | Message::Voted { .. })) {
            host.patience_ends = patience_ends;
        }
        self.outcome.leaders += u64::from(!led && host.member.leads());
        if let Some((probe, index)) = answer
            && let Some(mut sent) = host.probes.remove(&probe)
        {
            if rule == Rule::CountsFromTheAnswer {
                sent = Probe::sent_at(host.clock_ns(now));
            }
            host.answered.push((sent, index));
        }
    }

    /// Applies what is committed, and counts the probes whose index is served.
    fn settle(&mut self, node: Node) {
        let wait = if self.below(20) == 0 { self.below(3_000_000) } else { self.below(50_000) };
        let host = &mut self.hosts[node];
        while host.applied < host.member.commit {
            let entry = host.member.log[host.applied];
            host.applied += 1;
            let index = host.applied as u64 + BLANKS;
            match entry.token {
                Some(token) => {
                    host.state.apply(index, &revocation(token)).0.outcome.expect("a good command");
                    self.committed.entry(token).or_insert(self.now);
                }
                None => host.state.skip(index),
            }
        }
        let max_staleness = host.state.timing().max_staleness;
        let served = match self.rule {
            Rule::CountsTheAppliedIndex => host.applied,
            _ => host.published,
        };
        for (probe, index) in std::mem::take(&mut host.answered) {
            match index <= served {
                true => probe.served(&host.freshness, max_staleness),
                false => host.answered.push((probe, index)),
            }
        }
        if host.applied > host.published && !host.publish_due {
            host.publish_due = true;
            self.at(self.now + wait, node, Event::Publish);
        }
    }

    fn request(&mut self, node: Node, token: u32, sent: Time) {
        let host = &self.hosts[node];
        if !host.freshness.is_fresh_at(host.clock_ns(self.now)) {
            self.outcome.refused_stale += 1;
        } else if host.refuses(token) {
            self.outcome.refused_revoked += 1;
        } else if let Some(committed) = self.committed.get(&token) {
            let staleness = host.state.timing().max_staleness.as_micros() as u64;
            // A clock that is slow by the drift takes this long for it.
            let bound = committed + staleness * 1_000_000 / (1_000_000 - DRIFT_PPM) + 1;
            self.outcome.admitted_after_commit += u64::from(sent > *committed);
            if sent > bound {
                self.outcome.late = self.outcome.late.max(Some(sent - bound));
            }
        }
    }

    /// At whoever believes to lead; then clients try the token everywhere, up to well past the bound.
    fn revoke(&mut self) {
        let leaders: Vec<Node> = (0..NODES).filter(|node| self.hosts[*node].member.leads()).collect();
        if !leaders.is_empty() {
            let leader = leaders[self.below(leaders.len() as u64) as usize];
            if self.hosts[leader].paused_until <= self.now {
                let mut out = Out::new();
                self.tokens += 1;
                self.outcome.revoked += 1;
                self.hosts[leader].member.propose(Some(self.tokens), &mut out);
                self.send(leader, out);
                let token = self.tokens;
                for _ in 0..25 {
                    let (sent, node) = (self.now + self.below(15_000_000), self.below(NODES as u64) as usize);
                    let travels = self.below(20_000);
                    self.at(sent + travels, node, Event::Request { token, sent });
                }
            }
        }
        if self.now < FAULTS_END {
            let pause = self.below(4_000_000);
            self.at(self.now + pause, 0, Event::Revoke);
        }
    }

    fn fault(&mut self) {
        if self.now >= FAULTS_END {
            self.cut = Default::default();
            self.hosts.iter_mut().for_each(|host| host.paused_until = host.paused_until.min(FAULTS_END));
            return;
        }
        let until = (self.now + self.below(14_000_000)).min(FAULTS_END);
        let one = self.below(NODES as u64) as usize;
        match self.below(4) {
            // Cut off from all, both ways; from one; in one direction.
            0 => (0..NODES).for_each(|other| (self.cut[one][other], self.cut[other][one]) = (until, until)),
            1 => {
                let other = (one + 1) % NODES;
                (self.cut[one][other], self.cut[other][one]) = (until, until);
            }
            2 => (0..NODES).for_each(|other| self.cut[one][other] = until),
            _ => self.hosts[one].paused_until = until,
        }
        let next = self.now + self.below(6_000_000);
        self.at(next.min(FAULTS_END), 0, Event::Fault);
    }

    fn send(&mut self, from: Node, out: Out) {
        for (to, message) in out {
            let cut = self.cut[from][to];
            let delay = match self.below(50) {
                0 => self.below(2_000_000),
                _ => 200 + self.below(20_000),
            };
            let at = match (from == to, cut > self.now) {
                (true, _) => self.now,
                (false, false) => self.now + delay,
                // Lost, or kept on the way until the line is back.
                (false, true) if self.below(3) > 0 => continue,
                (false, true) => cut + delay,
            };
            self.at(at, to, Event::Deliver { from, message });
        }
    }

    fn at(&mut self, time: Time, node: Node, event: Event) {
        self.events.push(Reverse((time, self.next)));
        self.bodies.insert(self.next, (node, event));
        self.next += 1;
    }

    fn patience(&mut self) -> Time {
        self.now + 300_000 + self.below(400_000)
    }

    /// xorshift64*
    fn below(&mut self, bound: u64) -> u64 {
        self.rng ^= self.rng >> 12;
        self.rng ^= self.rng << 25;
        self.rng ^= self.rng >> 27;
        (self.rng.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }
}

impl Host {
    fn clock_ns(&self, now: Time) -> u64 {
        let ran = i128::from(now) * i128::from(1_000_000 + self.ppm) / 1_000;
        self.offset * 1_000 + ran as u64
    }

    fn refuses(&self, token: u32) -> bool {
        let marks = TokenMarks { jti: Some(token.to_string().into()), ..TokenMarks::default() };
        let subject = RevocationSubject { token: Some(Arc::new(marks)), ..RevocationSubject::default() };
        self.directory.revoked.is_revoked(&subject, self.state.clock_us).is_some()
    }
}

fn command(body: Body) -> Command {
    let stamp = Stamp { clock_us: 1_000_000, wall_ms: 0 };
    Command { min_level: LEVEL, request_id: None, asked: None, stamp, actor: Arc::new(Actor::default()), body }
}

fn revocation(token: u32) -> Command {
    let value = token.to_string();
    let parts = SelectorParts { kind: SelectorKind::Jti, issuer: b"", value: value.as_bytes() };
    let selector = parts.checked().expect("a selector");
    let entry = NewRevocation { selector, ttl: Duration::from_secs(3_600), not_before_s: None };
    command(Body::Revoke(Revoke { entries: [entry].into(), reason: String::new() }))
}

fn founded() -> State {
    let node = NodeRecord {
        id: 1,
        name: "n1".parse().expect("a name"),
        region: String::new(),
        peer_address: "127.0.0.1:7000".into(),
        incarnation: [0; 16],
        spki_sha256: [0; 32],
        wanted_role: Role::Voter,
        standing: Standing::Active,
        level: LEVEL,
        version: String::new(),
    };
    let bootstrap = Bootstrap {
        cluster_id: [0; 16],
        cluster_name: "bound".into(),
        max_rtt: MAX_RTT_DEFAULT,
        ca_certificate: vec![],
        sealed_ca_key: vec![],
        node,
    };
    let mut state = State::default();
    state.apply(1, &command(Body::Bootstrap(Arc::new(bootstrap)))).0.outcome.expect("founded");
    state
}
