//! What goes wrong: by the seed, one thing after another, and each for a while.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;
use quorumgate_model::{NodeId, command::Standing};
use tokio::time::{Instant, sleep};

use super::{
    ELECTION_MAX, Raft, World,
    host::Host,
    members::{self, NOTICED_AFTER},
    net::Struck,
};
use crate::tests::sim_disk::Faults;

/// How many nodes there may be, those that are about to join included.
const NODES_MAX: usize = 6;
/// Fewer voters than this do not survive the loss of one.
const SAFE_VOTERS: usize = 3;
/// A sync of a slow disk, in steps of the world.
const SLOW_STEPS: u64 = 12;
/// How long whoever was struck down stays away: the winner must not lead them first.
const STRUCK_FOR: Duration = Duration::from_millis(50);
const STRIKES_FOR: Duration = Duration::from_secs(3);
/// The winner of the election: long enough for those who have come back to hold another.
const CUT_OFF_FOR: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Power,
    Kill,
    PowerOfLeader,
    PowerOfAll,
    CutOff,
    /// One hears nobody, or nobody hears it.
    DeafOrMute,
    Split,
    Weather,
    /// And what it holds goes from the log.
    Snapshot,
    HandOver,
    Strike,
    DiskFails,
    DiskFull,
    DiskSlow,
    DiskLost,
    Join,
    Remove,
    /// Two at once.
    RemoveTwo,
    Leave,
}

/// What a schedule draws from; some of it more often.
pub const ANYTHING: &[Fault] = &[
    Fault::Power,
    Fault::Power,
    Fault::Kill,
    Fault::PowerOfLeader,
    Fault::PowerOfAll,
    Fault::CutOff,
    Fault::DeafOrMute,
    Fault::Split,
    Fault::Weather,
    Fault::Snapshot,
    Fault::Snapshot,
    Fault::Snapshot,
    Fault::HandOver,
    Fault::Strike,
    Fault::DiskFails,
    Fault::DiskFails,
    Fault::DiskFull,
    Fault::DiskSlow,
    Fault::DiskSlow,
    Fault::DiskLost,
    Fault::DiskLost,
    Fault::Join,
    Fault::Join,
    Fault::Remove,
    Fault::RemoveTwo,
    Fault::Leave,
];

/// Voters lose power as they answer.
pub const STRIKES: &[Fault] = &[Fault::Strike];

/// Who belongs to the cluster changes all the time.
pub const COMINGS_AND_GOINGS: &[Fault] = &[
    Fault::Power,
    Fault::Snapshot,
    Fault::DiskLost,
    Fault::DiskLost,
    Fault::Join,
    Fault::Remove,
    Fault::RemoveTwo,
    Fault::RemoveTwo,
    Fault::Leave,
];

/// What happens at a later moment.
pub enum Plan {
    /// These lines work again.
    Mend(Vec<(NodeId, NodeId)>),
    Weather,
    Room(NodeId),
    /// Its disk is quick again.
    Quick(NodeId),
    /// The node is cut off from everybody else.
    CutOff(NodeId),
    /// The machine's disk is emptied, whatever ran on it.
    Wipe(NodeId),
    /// A machine with an empty disk asks to be let in.
    Join,
}

impl World {
    pub fn carry_out(&mut self, plan: Plan) {
        let mut lines = self.shared.net.lines();
        match plan {
            Plan::Mend(pairs) => lines.cut.retain(|pair| !pairs.contains(pair)),
            Plan::Weather => (lines.lost, lines.delay_us_max) = (0, super::CALM_US),
            Plan::Room(id) => drop(self.members.get(&id).map(|it| it.disk.set_faults(Faults::default()))),
            Plan::Quick(id) => drop(self.members.get(&id).map(|it| it.disk.slow_down(0))),
            Plan::CutOff(id) => {
                drop(lines);
                let pairs = self.around(id);
                self.cut_for(CUT_OFF_FOR, pairs);
            }
            Plan::Wipe(id) => {
                drop(lines);
                self.wipe(id);
            }
            Plan::Join => {
                drop(lines);
                self.join();
            }
        }
    }

    pub fn later(&mut self, after: Duration, plan: Plan) {
        self.plans.push((Instant::now() + after, plan));
    }

    fn some_ms(&mut self, least: u64, more: u64) -> Duration {
        Duration::from_millis(least + self.rng.below(more))
    }

    fn cut(&mut self, pairs: Vec<(NodeId, NodeId)>) {
        let time = self.some_ms(200, 4_000);
        self.cut_for(time, pairs);
    }

    fn cut_for(&mut self, time: Duration, pairs: Vec<(NodeId, NodeId)>) {
        self.tell(format_args!("nothing passes for {time:?}: {pairs:?}"));
        self.shared.net.lines().cut.extend(&pairs);
        self.later(time, Plan::Mend(pairs));
    }

    pub fn around(&self, one: NodeId) -> Vec<(NodeId, NodeId)> {
        let others = self.members.keys().copied().filter(|other| *other != one);
        others.flat_map(|other| [(one, other), (other, one)]).collect()
    }

    /// Its disk is empty; it comes back only as another member.
    pub fn wipe(&mut self, id: NodeId) {
        self.crash(id, true);
        let gone = self.members.remove(&id);
        self.graves.extend(gone.map(|member| member.dir));
    }

    fn join(&mut self) {
        let under_way = self.shared.joining.lock().unwrap().under_way;
        if self.members.len() + under_way >= NODES_MAX {
            return;
        }
        self.machines += 1;
        self.shared.joining.lock().unwrap().under_way += 1;
        self.tasks.spawn(members::join(self.shared.clone(), self.machines));
    }

    pub fn fault(&mut self, fault: Fault) {
        let leader = self.shared.any_leader();
        let Some(one) = self.anybody() else { return };
        let everybody: Vec<NodeId> = self.members.keys().copied().collect();
        self.tell(format_args!("{fault:?}, of n{one} where it is of one"));
        match fault {
            Fault::Power => self.crash(one, true),
            Fault::Kill => self.crash(one, false),
            Fault::PowerOfLeader => leader.into_iter().for_each(|host| self.crash(host.id, true)),
            Fault::PowerOfAll => everybody.into_iter().for_each(|id| self.crash(id, true)),
            Fault::CutOff => {
                let pairs = self.around(leader.map_or(one, |host| host.id));
                self.cut(pairs);
            }
            Fault::DeafOrMute => {
                let deaf = self.rng.chance(2);
                let pairs = self.around(one).into_iter().filter(|(from, _)| (*from == one) != deaf);
                self.cut(pairs.collect());
            }
            Fault::Split => {
                let side: BTreeSet<_> = everybody.iter().filter(|_| self.rng.chance(2)).collect();
                let all = everybody.iter().flat_map(|a| everybody.iter().map(move |b| (a, b)));
                let apart = all.filter(|(a, b)| side.contains(a) != side.contains(b));
                self.cut(apart.map(|(a, b)| (*a, *b)).collect());
            }
            Fault::Weather => {
                let (lost, delay) = (self.rng.below(300), 1 + self.rng.below(150_000));
                let mut lines = self.shared.net.lines();
                (lines.lost, lines.delay_us_max) = (lost, delay);
                drop(lines);
                let after = self.some_ms(500, 3_000);
                self.later(after, Plan::Weather);
            }
            Fault::Snapshot => {
                if let Ok(host) = self.shared.net.host(one) {
                    tokio::spawn(snapshot(host.raft));
                }
            }
            Fault::HandOver => leader.into_iter().for_each(|host| hand_over(&host, one)),
            Fault::Strike => self.strike(leader),
            Fault::DiskFails => {
                if let Ok(host) = self.shared.net.host(one) {
                    host.disk.fail_soon(1 + self.rng.below(60));
                }
            }
            Fault::DiskFull => {
                if let Some(member) = self.members.get(&one) {
                    member.disk.set_faults(Faults { full: true, ..Faults::default() });
                    let after = self.some_ms(100, 2_000);
                    self.later(after, Plan::Room(one));
                }
            }
            Fault::DiskSlow => {
                let (ticks, time) = (1 + self.rng.below(SLOW_STEPS), self.some_ms(300, 2_000));
                self.slow(one, ticks, time);
            }
            Fault::DiskLost => self.lose_disk(one),
            Fault::Join => self.join(),
            Fault::Remove => self.ask_to_go(&[one], None),
            Fault::RemoveTwo => {
                let both: Vec<NodeId> = [Some(one), self.anybody()].into_iter().flatten().collect();
                self.ask_to_go(&both, None);
            }
            Fault::Leave => self.ask_to_go(&[one], Some(Standing::Leaving)),
        }
    }

    /// For whoever runs: a log that is opened waits for its syncs, and the clock waits for the log.
    fn slow(&mut self, id: NodeId, ticks: u64, time: Duration) {
        if let Ok(host) = self.shared.net.host(id) {
            host.disk.slow_down(ticks);
            self.later(time, Plan::Quick(id));
        }
    }

    /// The leader dies; whoever then votes loses power as it answers, while its disk is at it; the winner is cut off. All
    /// others come back, and whatever they have forgotten they decide once more, in the same term.
    fn strike(&mut self, leader: Option<Host>) {
        let Some(leader) = leader else { return };
        self.crash_for(leader.id, true, STRUCK_FOR);
        let everybody: Vec<NodeId> = self.members.keys().copied().collect();
        everybody.into_iter().for_each(|id| self.slow(id, SLOW_STEPS, STRIKES_FOR));
        self.shared.net.lines().strikes_until = Some(Instant::now() + STRIKES_FOR);
    }

    pub fn strike_down(&mut self) {
        let struck = std::mem::take(&mut self.shared.net.lines().struck);
        for Struck { voter, candidate } in struck {
            self.shared.counts.struck.fetch_add(1, Ordering::Relaxed);
            self.crash_for(voter, true, STRUCK_FOR);
            // The answers still come in.
            self.later(Duration::from_micros(super::CALM_US), Plan::CutOff(candidate));
            // One election, not the next ones too.
            self.shared.net.lines().strikes_until = Some(Instant::now() + Duration::from_millis(5));
        }
    }

    fn ask_to_go(&mut self, ids: &[NodeId], standing: Option<Standing>) {
        // Whoever was lost a moment ago still counts as in reach.
        if self.members.len() > SAFE_VOTERS && self.lost_at.is_none_or(|at| at.elapsed() > NOTICED_AFTER) {
            self.lost_at = None;
            self.asked_at = Some(Instant::now());
            for id in ids {
                self.tasks.spawn(members::ask_to_go(self.shared.clone(), *id, standing));
            }
        }
    }

    /// A disk is lost with all that is on it, or the log alone with the identity left: the node never comes back as who it
    /// was. Only where the rest survives that: everybody runs, agrees who votes, and nobody is about to go.
    fn lose_disk(&mut self, id: NodeId) {
        let hosts: Vec<Host> = self.shared.net.lines().hosts.values().cloned().collect();
        let Some(newest) = hosts.iter().map(Host::state).max_by_key(|state| state.index) else { return };
        let Some(first) = hosts.first().map(Host::glance) else { return };
        let agreed = hosts.iter().map(Host::glance).all(|it| it.settled && !it.joint && it.voters == first.voters);
        let all_run = hosts.len() == self.members.len() && first.voters.iter().all(|id| self.members.contains_key(id));
        let stays = |id: &NodeId| newest.nodes.get(id).is_some_and(|node| node.standing == Standing::Active);
        let quiet = self.asked_at.is_none_or(|at| at.elapsed() > 4 * ELECTION_MAX);
        if !agreed || !all_run || !quiet || first.voters.len() < SAFE_VOTERS || !first.voters.iter().all(stays) {
            return;
        }
        self.shared.counts.lost.fetch_add(1, Ordering::Relaxed);
        self.lost_at = Some(Instant::now());
        match self.rng.chance(2) {
            true => {
                self.crash_for(id, true, STRUCK_FOR);
                let member = self.members.get_mut(&id).unwrap();
                member.disk = member.disk.without_log();
                member.log_lost = true;
            }
            false => self.wipe(id),
        }
        let after = self.some_ms(500, 2_000);
        self.later(after, Plan::Join);
    }
}

pub async fn snapshot(raft: Raft) {
    let applied = raft.metrics().borrow_watched().last_applied.map(|id| id.index);
    let _ = raft.trigger().snapshot().await;
    sleep(Duration::from_millis(200)).await;
    if let Some(upto) = applied {
        let _ = raft.trigger().purge_log(upto).await;
    }
}

/// As `node` does: one that does not vote would be waited for without end.
fn hand_over(leader: &Host, to: NodeId) {
    if to != leader.id && leader.glance().voters.contains(&to) {
        let raft = leader.raft.clone();
        tokio::spawn(async move { raft.trigger().transfer_leader(to).await });
    }
}
