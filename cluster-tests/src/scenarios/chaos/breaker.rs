//! Carries faults out on a cluster at their moments, and mends all of them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use quorumgate_node::cli::relay::Link;
use quorumgate_proto::admin::v1::NodeRequest;
use tokio::{task::JoinHandle, time::timeout};

use super::{
    plan::{Dice, Fault, Injury},
    world::{Processes, Timeline},
};
use crate::{
    Cluster,
    cluster::{Member, PATIENCE, until, voters_of},
};

/// For one question to one node amid faults.
const ASK_MAX: Duration = Duration::from_millis(400);
/// For a change of members amid faults.
const CHANGE_MAX: Duration = Duration::from_secs(3);
const WANDERS_EVERY: Duration = Duration::from_millis(900);
const CLOCK_MAX_S: i64 = 600;
/// Exchanges in flight may take so long at a shutdown (`proxy.grace`), and then there is a quorum to tell.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);

pub struct Breaker<'a> {
    pub cluster: &'a mut Cluster,
    pub timeline: Timeline,
    pub processes: Processes,
    pub dice: Dice,
    /// By name: whose process was stopped or ended in this round.
    pub hit: BTreeSet<String>,
    /// Whose disk was full or could not be written to.
    pub disks: BTreeSet<String>,
    /// What was done, for the record.
    pub done: Vec<Fault>,
    links: Vec<(usize, Fault, String)>,
    gone: BTreeSet<String>,
    leaving: BTreeSet<String>,
    terminated: BTreeSet<String>,
    joining: Option<JoinHandle<anyhow::Result<Member>>>,
    joined: Option<String>,
}

enum Moment {
    Begins,
    Again,
    Ends,
}

impl<'a> Breaker<'a> {
    pub fn new(cluster: &'a mut Cluster, timeline: Timeline, processes: Processes, dice: Dice) -> Self {
        Self {
            cluster,
            timeline,
            processes,
            dice,
            hit: BTreeSet::new(),
            disks: BTreeSet::new(),
            done: Vec::new(),
            links: Vec::new(),
            gone: BTreeSet::new(),
            leaving: BTreeSet::new(),
            terminated: BTreeSet::new(),
            joining: None,
            joined: None,
        }
    }

    /// Each fault begins and ends when it is due, or as soon after as those before it are done with.
    pub async fn run(&mut self, began: Instant, injuries: &[Injury]) -> anyhow::Result<()> {
        let mut moments = Vec::new();
        for (at, injury) in injuries.iter().enumerate() {
            moments.push((injury.begins, at, Moment::Begins));
            moments.push((injury.ends, at, Moment::Ends));
            let mut again = injury.begins + WANDERS_EVERY;
            while injury.fault == Fault::ClockWanders && again < injury.ends {
                moments.push((again, at, Moment::Again));
                again += WANDERS_EVERY;
            }
        }
        moments.sort_by_key(|(due, ..)| *due);
        let mut victims = vec![None; injuries.len()];
        for (due, at, moment) in moments {
            tokio::time::sleep_until((began + due).into()).await;
            let injury = &injuries[at];
            match moment {
                Moment::Begins => {
                    victims[at] = self.victim(injury).await;
                    match victims[at].clone() {
                        Some(name) => self.begin(at, injury.fault, &name).await?,
                        None => self.timeline.note(format!("{:?} finds no victim", injury.fault)),
                    }
                }
                Moment::Again => self.wander(victims[at].as_deref())?,
                Moment::Ends => {
                    if let Some(name) = victims[at].clone() {
                        self.end(at, injury.fault, &name).await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn place(&self, name: &str) -> anyhow::Result<usize> {
        self.cluster.members.iter().position(|it| it.name == name).with_context(|| format!("{name} is a member"))
    }

    fn member(&mut self, name: &str) -> anyhow::Result<&mut Member> {
        let place = self.place(name)?;
        Ok(&mut self.cluster.members[place])
    }

    async fn victim(&mut self, injury: &Injury) -> Option<String> {
        if injury.fault.is_of_leader() {
            return self.leader().await;
        }
        let able: Vec<&Member> = self.cluster.members.iter().filter(|it| !self.gone.contains(&it.name)).collect();
        let chosen = able.get((injury.victim % able.len().max(1) as u64) as usize)?;
        Some(chosen.name.clone())
    }

    /// As the nodes that answer say.
    async fn leader(&self) -> Option<String> {
        for member in self.cluster.running() {
            let asking = async { anyhow::Ok(member.client().await?.status().await?.leader) };
            if let Ok(Ok(leader)) = timeout(ASK_MAX, asking).await
                && self.cluster.running().any(|it| it.name == leader)
            {
                return Some(leader);
            }
        }
        None
    }

    async fn begin(&mut self, at: usize, fault: Fault, name: &str) -> anyhow::Result<()> {
        let whom = if fault == Fault::KillAll { "all" } else { name };
        self.timeline.note(format!("{fault:?} begins: {whom}"));
        self.done.push(fault);
        match fault {
            Fault::Kill | Fault::KillLeader => self.kill(name)?,
            Fault::KillAll => {
                let all: Vec<String> = self.cluster.members.iter().map(|it| it.name.clone()).collect();
                all.iter().try_for_each(|name| self.kill(name))?;
            }
            Fault::Stop | Fault::StopLeader => {
                self.hit.insert(name.into());
                self.signal(name, Signal::SIGSTOP)?;
            }
            Fault::Restart => {
                self.ended(name)?;
                if self.signal(name, Signal::SIGTERM)? {
                    self.terminated.insert(name.into());
                }
            }
            Fault::Isolate
            | Fault::IsolateLeader
            | Fault::Deaf
            | Fault::Mute
            | Fault::Split
            | Fault::Bridge
            | Fault::Delay
            | Fault::Loss
            | Fault::Disorder => {
                self.links.push((at, fault, name.into()));
                self.link()?;
            }
            Fault::ClockAhead | Fault::ClockBehind => {
                let step = 1 + self.dice.roll(CLOCK_MAX_S as u64) as i64;
                let step = if fault == Fault::ClockAhead { step } else { -step };
                self.timeline.note(format!("{name}'s clock is set {step:+} s"));
                self.member(name)?.set_clock(step)?;
            }
            Fault::ClockWanders => self.wander(Some(name))?,
            Fault::DiskFull => {
                self.disks.insert(name.into());
                self.member(name)?.disk.as_ref().context("a disk of its own")?.fill()?;
                if self.dice.roll(2) == 0 {
                    self.kill(name)?;
                    self.timeline.note(format!("{name} starts on a full disk"));
                    self.member(name)?.run()?;
                }
            }
            Fault::DiskReadOnly => {
                self.disks.insert(name.into());
                self.kill(name)?;
                let member = self.member(name)?;
                member.disk.as_ref().context("a disk of its own")?.set_read_only(true)?;
                member.run()?;
            }
            Fault::MoveLeader => {
                for member in self.cluster.running() {
                    let asking = async { anyhow::Ok(member.client().await?.transfer_leader("").await?.leader) };
                    if let Ok(answer) = timeout(ASK_MAX * 4, asking).await {
                        self.timeline.note(format!("through {}: {answer:?}", member.name));
                        break;
                    }
                }
            }
            Fault::Join => {
                if self.joining.is_some() || self.joined.is_some() {
                    return Ok(());
                }
                let through = self.leader().await.unwrap_or_else(|| name.to_owned());
                let joining = self.cluster.joining(&through).await?;
                self.joined = Some(joining.name().to_owned());
                self.timeline.note(format!("{} joins through {through}", joining.name()));
                self.joining = Some(tokio::task::spawn_blocking(move || joining.run()));
            }
            Fault::Remove => {
                self.kill(name)?;
                self.gone.insert(name.into());
                let answer = timeout(CHANGE_MAX, self.remove(name)).await.unwrap_or_else(|_| bail!("not in time"));
                self.timeline.note(format!("{name} is to be removed: {answer:?}"));
            }
            Fault::Leave => {
                self.ended(name)?;
                self.gone.insert(name.into());
                self.leaving.insert(name.into());
                let answer = timeout(CHANGE_MAX, self.leave(name)).await.unwrap_or_else(|_| bail!("not in time"));
                self.timeline.note(format!("{name} is to leave: {answer:?}"));
            }
        }
        Ok(())
    }

    async fn end(&mut self, at: usize, fault: Fault, name: &str) -> anyhow::Result<()> {
        self.timeline.note(format!("{fault:?} ends: {name}"));
        match fault {
            Fault::Kill | Fault::KillLeader => self.start(name)?,
            Fault::KillAll => {
                let all: Vec<String> = self.cluster.members.iter().map(|it| it.name.clone()).collect();
                all.iter().try_for_each(|name| self.start(name))?;
            }
            Fault::Stop | Fault::StopLeader => self.go_on(name)?,
            Fault::ClockAhead | Fault::ClockBehind | Fault::ClockWanders => self.member(name)?.set_clock(0)?,
            Fault::DiskFull => {
                self.member(name)?.disk.as_ref().context("a disk of its own")?.empty()?;
                self.start(name)?;
            }
            Fault::DiskReadOnly => {
                self.kill(name)?;
                self.member(name)?.disk.as_ref().context("a disk of its own")?.set_read_only(false)?;
                self.start(name)?;
            }
            Fault::Restart => {
                if self.member(name)?.has_ended()? {
                    self.reap(name).await?;
                    self.start(name)?;
                }
            }
            Fault::MoveLeader | Fault::Join | Fault::Remove | Fault::Leave => {}
            _ => {
                self.links.retain(|(which, ..)| *which != at);
                self.link()?;
            }
        }
        Ok(())
    }

    /// Its process is about to end, or to be without a part of its time.
    fn ended(&mut self, name: &str) -> anyhow::Result<()> {
        self.hit.insert(name.into());
        self.processes.end(self.place(name)?);
        Ok(())
    }

    fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.ended(name)?;
        self.terminated.remove(name);
        self.member(name)?.kill();
        Ok(())
    }

    /// Unless it runs, or is to be gone.
    fn start(&mut self, name: &str) -> anyhow::Result<()> {
        if self.gone.contains(name) {
            return Ok(());
        }
        if self.disks.contains(name) && self.member(name)?.has_ended()? {
            self.timeline.note(format!("{name} has ended on its disk"));
            self.kill(name)?;
        }
        if !self.member(name)?.is_running() {
            // One that was told to end may have said something since.
            self.processes.end(self.place(name)?);
            self.member(name)?.run()?;
            self.timeline.note(format!("{name} is started"));
        }
        Ok(())
    }

    fn go_on(&mut self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::SIGCONT).map(drop)
    }

    /// Whether there was a process to tell.
    fn signal(&mut self, name: &str, signal: Signal) -> anyhow::Result<bool> {
        let member = self.member(name)?;
        let lives = member.is_running() && !member.has_ended()?;
        if lives {
            member.signal(signal)?;
        }
        Ok(lives)
    }

    fn wander(&mut self, name: Option<&str>) -> anyhow::Result<()> {
        let Some(name) = name else { return Ok(()) };
        let step = self.dice.roll(11) as i64 - 5;
        self.member(name)?.set_clock(step)
    }

    /// Each path as all faults of links together make it.
    fn link(&mut self) -> anyhow::Result<()> {
        let relay = self.cluster.relay.as_ref().context("a cluster with a relay")?;
        let places: Vec<(usize, &str)> = self.cluster.members.iter().map(|it| (it.place, it.name.as_str())).collect();
        for (a, (from, from_name)) in places.iter().enumerate() {
            for (b, (to, to_name)) in places.iter().enumerate().filter(|(b, _)| *b != a) {
                let mut link = Link::default();
                for (_, fault, name) in &self.links {
                    let victim = places.iter().position(|(_, it)| it == name).unwrap_or(0);
                    // Counted from the victim.
                    let (sender, receiver) =
                        ((a + places.len() - victim) % places.len(), (b + places.len() - victim) % places.len());
                    let (is_from, is_to) = (from_name == name, to_name == name);
                    match fault {
                        Fault::Isolate | Fault::IsolateLeader => link.cut |= is_from || is_to,
                        Fault::Deaf => link.cut |= is_to,
                        Fault::Mute => link.cut |= is_from,
                        Fault::Split => {
                            let few = (places.len() - 1) / 2;
                            link.cut |= (sender < few) != (receiver < few);
                        }
                        // The victim hears all; of the others those at odd places hear none at even ones.
                        Fault::Bridge => link.cut |= sender != 0 && receiver != 0 && sender % 2 != receiver % 2,
                        Fault::Delay => link.delay = Duration::from_millis(15 + 10 * (sender + receiver) as u64),
                        Fault::Loss => link.lost_permille = 200,
                        Fault::Disorder => (link.reordered_permille, link.doubled_permille) = (300, 100),
                        _ => {}
                    }
                }
                relay.set(*from, *to, link);
            }
        }
        Ok(())
    }

    /// Somebody who can be asked about it.
    fn other(&self, name: &str) -> anyhow::Result<&Member> {
        self.cluster.running().find(|it| it.name != name).context("nobody can be asked")
    }

    async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let asked = NodeRequest { node: name.to_owned(), force: true };
        let answer = self.other(name)?.client().await?.cluster().remove_node(asked).await;
        answer.map(drop).map_err(|it| anyhow!("{}", it.message()))
    }

    async fn leave(&self, name: &str) -> anyhow::Result<()> {
        let asked = NodeRequest { node: name.to_owned(), force: false };
        let answer = self.other(name)?.client().await?.cluster().leave_node(asked).await;
        answer.map(drop).map_err(|it| anyhow!("{}", it.message()))
    }

    /// A process that was told to end has done so by itself, and without a complaint.
    async fn reap(&mut self, name: &str) -> anyhow::Result<()> {
        self.terminated.remove(name);
        let member = self.member(name)?;
        let code = timeout(LEAVES_WITHIN, member.wait_exit()).await;
        let code = code.with_context(|| format!("{name} does not end"))??;
        ensure!(code == 0, "{name} ended with {code}: {}", member.log_tail());
        Ok(())
    }

    /// Every fault is over, every node that is to be there runs and is ready, and votes if it may.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        self.timeline.note("everything is mended");
        self.links.clear();
        self.link()?;
        let all: Vec<String> = self.cluster.members.iter().map(|it| it.name.clone()).collect();
        for name in &all {
            let clocks = self.cluster.has_clocks();
            let member = self.member(name)?;
            if let Some(disk) = &member.disk {
                disk.set_read_only(false)?;
                disk.empty()?;
            }
            if clocks {
                member.set_clock(0)?;
            }
            if self.terminated.contains(name) {
                self.go_on(name)?;
                self.reap(name).await?;
            }
            self.go_on(name)?;
            self.start(name)?;
        }
        self.finish_members().await?;
        for member in self.cluster.running() {
            member.wait_ready().await?;
        }
        self.cluster.wait_voters(voters_of(self.cluster.members.len())).await
    }

    async fn finish_members(&mut self) -> anyhow::Result<()> {
        if let Some(joining) = self.joining.take() {
            match joining.await? {
                Ok(mut member) => {
                    member.run()?;
                    self.timeline.note(format!("{} has joined", member.name));
                    self.cluster.members.push(member);
                    self.link()?;
                }
                Err(error) => {
                    // It may be a member all the same: who joins is not told in time.
                    let name = self.joined.clone().context("the name of who joins")?;
                    self.timeline.note(format!("{name} has not joined: {error:#}"));
                    self.forget(&name).await?;
                }
            }
        }
        for name in std::mem::take(&mut self.gone) {
            // One that was killed on its way out leaves no more by itself.
            if self.leaving.remove(&name) && self.member(&name)?.is_running() {
                until(&format!("{name} to leave"), async || {
                    if self.is_member(&name).await? {
                        // Asked again: the first time it may have come to nothing.
                        let asked = self.leave(&name).await;
                        bail!("still a member: {asked:?}");
                    }
                    Ok(())
                })
                .await?;
                self.reap(&name).await?;
            } else {
                self.forget(&name).await?;
            }
            let place = self.place(&name)?;
            let member = self.cluster.members.remove(place);
            self.cluster.former.push(member);
            self.timeline.note(format!("{name} is no member any more"));
        }
        Ok(())
    }

    async fn forget(&self, name: &str) -> anyhow::Result<()> {
        until(&format!("{name} to be removed"), async || {
            if self.is_member(name).await? {
                self.remove(name).await?;
                bail!("still a member");
            }
            Ok(())
        })
        .await
    }

    async fn is_member(&self, name: &str) -> anyhow::Result<bool> {
        Ok(timeout(PATIENCE, self.other(name)?.client().await?.nodes()).await??.nodes.iter().any(|it| it.name == name))
    }

    /// Processes that had no reason to end, and have ended all the same.
    pub fn fallen(&mut self) -> anyhow::Result<Vec<String>> {
        let mut fallen = Vec::new();
        for member in &mut self.cluster.members {
            let may = [&self.disks, &self.terminated, &self.leaving].iter().any(|it| it.contains(&member.name));
            if member.has_ended()? && !may {
                fallen.push(format!("{} has ended by itself\n{}", member.name, member.log_tail()));
            }
        }
        Ok(fallen)
    }
}
