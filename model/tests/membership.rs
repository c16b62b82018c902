//! Membership plans: each file of `membership/` is a story of events and the steps that follow them. `UPDATE=1` writes
//! what was found into the files. Below: whatever happens, the plan ends, in an odd number of voters.
#![allow(clippy::disallowed_methods, reason = "the wall is for the model; its tests read files")]

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use proptest::prelude::*;
use quorumgate_model::{
    NodeId,
    command::{NodeRecord, Role, Standing},
    membership::{
        CAUGHT_UP_LAG_MAX, JoinEvent, JoinPhase, Observed, Step, VOTERS_MAX, may_hand_over, may_lose, next_step,
    },
    state::{ClusterFacts, RemovedNode, State},
    timing::MAX_RTT_DEFAULT,
};

const STEPS_MAX: usize = 50;

/// A cluster whose nodes do at once what the plan says.
struct World {
    state: State,
    observed: Observed,
}

fn node(id: NodeId, wanted_role: Role) -> NodeRecord {
    NodeRecord {
        id,
        name: format!("n{id}").parse().unwrap(),
        region: "eu".into(),
        peer_address: format!("127.0.0.1:{}", 7000 + id),
        incarnation: [id as u8; 16],
        spki_sha256: [id as u8; 32],
        wanted_role,
        standing: Standing::Active,
        level: 1,
        version: "0.1.0".into(),
    }
}

impl World {
    fn new() -> Self {
        let cluster = ClusterFacts {
            id: [7; 16],
            name: "test".into(),
            max_rtt: MAX_RTT_DEFAULT,
            ca_certificate: vec![],
            sealed_ca_key: vec![],
            level: 1,
        };
        let mut state = State { index: 1_000, cluster: Some(Arc::new(cluster)), ..State::default() };
        state.nodes.insert(1, Arc::new(node(1, Role::Voter)));
        let one = BTreeSet::from([1]);
        let observed =
            Observed { leader: 1, voters: one.clone(), lag: [(1, 0)].into(), reachable: one, ..Observed::default() };
        Self { state, observed }
    }

    /// Applies one line; None if it is not understood, the answer for a question.
    fn event(&mut self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let verb = words.next()?;
        let (ids, rest): (Vec<&str>, Vec<&str>) = words.partition(|word| word.parse::<NodeId>().is_ok());
        for id in ids.iter().map(|id| id.parse::<NodeId>().unwrap()) {
            match (verb, rest.as_slice()) {
                ("admit", []) => self.admit(id, Role::Voter),
                ("admit", ["replica"]) => self.admit(id, Role::Replica),
                ("admit", ["behind"]) => {
                    self.admit(id, Role::Voter);
                    self.observed.lag.insert(id, CAUGHT_UP_LAG_MAX + 1);
                }
                ("remove", []) => self.remove(id),
                ("leave", []) => self.change(id, |node| node.standing = Standing::Leaving),
                ("drain", []) => self.change(id, |node| node.standing = Standing::Draining),
                ("demote", []) => self.change(id, |node| node.wanted_role = Role::Replica),
                ("promote", []) => self.change(id, |node| node.wanted_role = Role::Voter),
                ("down", []) => self.down(id),
                ("up", []) => drop(self.observed.reachable.insert(id)),
                ("behind", []) => drop(self.observed.lag.insert(id, CAUGHT_UP_LAG_MAX + 1)),
                ("caught-up", []) => drop(self.observed.lag.insert(id, 0)),
                ("may-lose" | "may-hand-over", []) => {
                    let may = if verb == "may-lose" { may_lose } else { may_hand_over };
                    let answer = may(&self.state, &self.observed, id);
                    return Some(answer.map_or_else(|why| format!("> no: {why}\n"), |()| "> yes\n".into()));
                }
                _ => return None,
            }
        }
        Some(String::new())
    }

    fn admit(&mut self, id: NodeId, role: Role) {
        self.state.nodes.insert(id, Arc::new(node(id, role)));
        self.observed.reachable.insert(id);
        self.observed.lag.insert(id, 0);
    }

    fn remove(&mut self, id: NodeId) {
        let node = self.state.nodes.remove(&id).unwrap();
        // Its connections are closed by whoever applies the removal.
        self.down(id);
        self.state.removed.insert(id, RemovedNode { name: node.name.clone(), spki_sha256: node.spki_sha256 });
    }

    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut NodeRecord)) {
        change(Arc::make_mut(self.state.nodes.get_mut(&id).unwrap()));
    }

    /// When the leader dies, the first voter in reach follows it.
    fn down(&mut self, id: NodeId) {
        self.observed.reachable.remove(&id);
        if self.observed.leader == id {
            let mut alive = self.observed.voters.intersection(&self.observed.reachable);
            self.observed.leader = alive.next().copied().unwrap_or(id);
        }
    }

    fn has_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        voters.intersection(&self.observed.reachable).count() * 2 > voters.len()
    }

    /// Carries out one step; what must hold of every step is checked here.
    fn take(&mut self, step: &Step) {
        assert!(self.has_majority(&self.observed.voters), "planned without a quorum: {step:?}");
        let it = &mut self.observed;
        match step {
            Step::AddLearner(id) => assert!(it.learners.insert(*id) && !it.voters.contains(id)),
            Step::RemoveLearner(id) => assert!(it.learners.remove(id)),
            Step::TransferLeader(id) => {
                assert!(it.voters.contains(id) && it.reachable.contains(id) && *id != it.leader);
                it.leader = *id;
            }
            Step::SetVoters(voters) => {
                let known: BTreeSet<_> = it.voters.union(&it.learners).copied().collect();
                assert!(voters.is_subset(&known) && voters.len() <= VOTERS_MAX && voters.contains(&it.leader));
                it.learners = known.difference(voters).copied().collect();
                it.voters = voters.clone();
                assert!(self.has_majority(voters), "would lose the quorum: {step:?}");
            }
        }
    }

    fn run(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = next_step(&self.state, &self.observed) {
            self.take(&step);
            steps.push(step);
            assert!(steps.len() <= STEPS_MAX, "no end: {steps:?}");
        }
        steps
    }
}

fn shown(step: &Step) -> String {
    match step {
        Step::AddLearner(id) => format!("> add learner {id}\n"),
        Step::TransferLeader(id) => format!("> leader {id}\n"),
        Step::RemoveLearner(id) => format!("> remove learner {id}\n"),
        Step::SetVoters(voters) => {
            let ids: Vec<_> = voters.iter().map(ToString::to_string).collect();
            format!("> voters {}\n", ids.join(" "))
        }
    }
}

fn play(text: &str) -> String {
    let (mut world, mut found) = (World::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with('>')) {
        found += &format!("{line}\n");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        found += &world.event(line).unwrap_or_else(|| panic!("not understood: {line}"));
        world.run().iter().for_each(|step| found += &shown(step));
    }
    found
}

#[test]
fn the_stories_go_as_written() {
    let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/membership"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let written = fs::read_to_string(&file).unwrap();
        let found = play(&written);
        match std::env::var_os("UPDATE") {
            Some(_) => fs::write(&file, found).unwrap(),
            None => assert_eq!(found, written, "{}", file.display()),
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Admit(Role),
    Remove(usize),
    Leave(usize),
    Demote(usize),
    Promote(usize),
    Down(usize),
    Up(usize),
    Behind(usize),
    CaughtUp(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let which = || 0..12usize;
    prop_oneof![
        4 => Just(Event::Admit(Role::Voter)),
        1 => Just(Event::Admit(Role::Replica)),
        1 => which().prop_map(Event::Remove),
        1 => which().prop_map(Event::Leave),
        1 => which().prop_map(Event::Demote),
        1 => which().prop_map(Event::Promote),
        2 => which().prop_map(Event::Down),
        2 => which().prop_map(Event::Up),
        1 => which().prop_map(Event::Behind),
        1 => which().prop_map(Event::CaughtUp),
    ]
}

impl World {
    /// What the operator or fate does; an operator is refused what the product refuses.
    fn happen(&mut self, event: &Event) {
        let ids: Vec<NodeId> = self.state.nodes.keys().copied().collect();
        let pick = |n: &usize| ids[n % ids.len()];
        let may_lose = |id| may_lose(&self.state, &self.observed, id).is_ok();
        let may_hand_over = |id| may_hand_over(&self.state, &self.observed, id).is_ok();
        match event {
            Event::Admit(_) if ids.len() >= 12 => {}
            Event::Admit(role) => {
                let removed = self.state.removed.keys().max().copied().unwrap_or(1);
                self.admit(removed.max(*ids.last().unwrap()) + 1, *role);
            }
            Event::Remove(n) if may_lose(pick(n)) && self.another_is_to_vote(pick(n)) => self.remove(pick(n)),
            Event::Leave(n) if may_hand_over(pick(n)) && self.another_is_to_vote(pick(n)) => {
                self.change(pick(n), |node| node.standing = Standing::Leaving);
            }
            Event::Demote(n) if may_hand_over(pick(n)) && self.another_is_to_vote(pick(n)) => {
                self.change(pick(n), |node| node.wanted_role = Role::Replica);
            }
            Event::Remove(_) | Event::Leave(_) | Event::Demote(_) => {}
            Event::Promote(n) => self.change(pick(n), |node| node.wanted_role = Role::Voter),
            Event::Down(n) => self.down(pick(n)),
            Event::Up(n) => drop(self.observed.reachable.insert(pick(n))),
            Event::Behind(n) => drop(self.observed.lag.insert(pick(n), CAUGHT_UP_LAG_MAX + 1)),
            Event::CaughtUp(n) => drop(self.observed.lag.insert(pick(n), 0)),
        }
    }

    fn to_vote(&self) -> Vec<NodeId> {
        let nodes = self.state.nodes.values();
        let to_vote = nodes.filter(|node| node.wanted_role == Role::Voter && node.standing != Standing::Leaving);
        to_vote.map(|node| node.id).collect()
    }

    fn another_is_to_vote(&self, id: NodeId) -> bool {
        self.to_vote().iter().any(|other| *other != id)
    }

    /// Everybody in reach and caught up, the leader a voter.
    fn heal(&mut self) {
        let ids: Vec<NodeId> = self.state.nodes.keys().chain(&self.observed.voters).copied().collect();
        for id in ids {
            self.observed.reachable.insert(id);
            self.observed.lag.insert(id, 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_ends_in_an_odd_number_of_voters(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            world.run();
            prop_assert!(!world.observed.voters.len().is_multiple_of(2), "{:?} after {event:?}", world.observed);
        }
        world.heal();
        world.run();
        let to_vote = world.to_vote();
        let most = to_vote.len().min(VOTERS_MAX);
        let odd = if most.is_multiple_of(2) { most - 1 } else { most };
        prop_assert_eq!(world.observed.voters.len(), odd);
        prop_assert!(world.observed.voters.iter().all(|id| to_vote.contains(id)));
        let members: BTreeSet<_> = world.observed.voters.union(&world.observed.learners).copied().collect();
        prop_assert!(members.iter().all(|id| world.state.nodes.contains_key(id)));
    }
}

#[test]
fn a_node_is_ready_once_it_serves_what_the_leader_had_committed() {
    use JoinEvent::{GraceOver, LeaderSeen, Published};
    let check = |events: &[JoinEvent], expected| {
        let phase = events.iter().fold(JoinPhase::Starting, |phase, event| phase.after(*event));
        assert_eq!(phase, expected, "{events:?}");
    };
    let seen = LeaderSeen { commit: 7 };
    check(&[Published { index: 9 }], JoinPhase::Starting);
    check(&[seen, Published { index: 6 }], JoinPhase::CatchingUp { target: 7 });
    check(&[seen, Published { index: 7 }], JoinPhase::Ready);
    // The first contact sets the target: a busy cluster is never chased. Grace is for want of a leader alone.
    check(&[seen, LeaderSeen { commit: 99 }, GraceOver], JoinPhase::CatchingUp { target: 7 });
    check(&[GraceOver, seen], JoinPhase::Ready);
}
