//! Rounds of faults on real processes under load of every kind. What clients were told must be explained by one order of
//! what they did; nobody who was revoked gets in past the bound; no window is over its limit; nodes that live fail no
//! request; and once all is mended the cluster takes writes, and all its nodes are the same.

mod breaker;
mod clients;
mod counter;
mod line;
mod logs;
mod plan;
mod round;
mod world;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;

pub use self::plan::Fault;
use self::{
    clients::{Log, Values},
    logs::{Facts, Logs},
    plan::Needs,
    world::Timeline,
};
use super::{
    limits::{self, get_on},
    revocation,
};
use crate::{
    Cluster, Plan,
    cluster::libfaketime,
    disk::Disk,
    history::{self, Broken, Findings, Operation},
    issuer::Issuer,
    origin::Origin,
};

/// A cluster is kept for so many rounds.
const EPOCH: u64 = 10;
/// Every third cluster begins with five nodes, the others with three.
const SIZES: [usize; 3] = [3, 3, 5];
/// Members come and go within these.
const NODES: std::ops::RangeInclusive<usize> = 3..=5;
const DISK_MIB: u32 = 256;
/// Operations that are told around a violation.
const TOLD: usize = 12;

#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    /// The first round; a round's faults follow from it, the seed and the number of nodes.
    pub from: u64,
    pub rounds: Option<u64>,
    pub minutes: Option<u64>,
    /// Instead of three, three, five, and so on.
    pub nodes: Option<usize>,
    pub plant: Option<Plant>,
}

/// A mistake on purpose, which has to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Clients take reads of a node's own state for consistent ones.
    StaleReads,
    /// The limit admits half as many again as the auditor allows.
    LooseLimit,
    /// A token is never revoked.
    NeverRevoked,
}

/// What was seen in all rounds.
#[derive(Debug, Default)]
pub struct Report {
    pub rounds: u64,
    pub clusters: u64,
    pub took: Duration,
    pub faults: BTreeMap<Fault, u64>,
    pub skipped: Vec<String>,
    pub operations: usize,
    pub unknown: usize,
    pub registers: usize,
    pub undecided: Vec<String>,
    pub counter_reads: u64,
    pub guarded: usize,
    /// The latest admission after a revocation was acknowledged, by when it was sent.
    pub latest: Duration,
    pub bound: Duration,
    pub admitted: usize,
    pub plain: u64,
    /// From the mending to writes through every node, and one revision on all.
    pub slowest: Duration,
    pub expected: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        writeln!(
            f,
            "{} rounds on {} clusters in {:.0?}: {}",
            self.rounds,
            self.clusters,
            self.took,
            faults.join(", ")
        )?;
        writeln!(
            f,
            "{} operations on {} registers, {} of unknown outcome: linearizable but for {} histories that are undecided",
            self.operations,
            self.registers,
            self.unknown,
            self.undecided.len()
        )?;
        writeln!(f, "{} reads of a growing number by HTTP: none went back within a process", self.counter_reads)?;
        writeln!(
            f,
            "{} requests with tokens that get revoked: the latest that was let in was sent {:?} after; the bound is {:?}",
            self.guarded, self.latest, self.bound
        )?;
        writeln!(f, "{} requests admitted by an exact limit, no window over it", self.admitted)?;
        writeln!(f, "{} requests without conditions on nodes whose process nobody touched: none failed", self.plain)?;
        writeln!(f, "after each round writes through every node, equal states; the slowest took {:?}", self.slowest)?;
        let expected: Vec<String> = self.expected.iter().map(|(words, count)| format!("{count} × {words:?}")).collect();
        write!(f, "warnings and errors in logs, all of the list: {}", expected.join(", "))?;
        self.skipped.iter().try_for_each(|it| write!(f, "\nSKIPPED: {it}"))
    }
}

/// What all rounds on one cluster share.
struct Epoch {
    cluster: Cluster,
    issuer: Issuer,
    /// What the routes lead to, for as long as it lives.
    _origin: Origin,
    since: Instant,
    timeline: Timeline,
    values: Values,
    logs: Logs,
    all: Log,
    bound: Duration,
    able: Vec<Fault>,
}

/// Rounds until so many are done or the time is over; the first violation ends it.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let began = Instant::now();
    let (able, skipped) = able();
    let mut report = Report { skipped, ..Report::default() };
    let ends = options.minutes.map(|minutes| began + Duration::from_secs(minutes * 60));
    let rounds = options.rounds.unwrap_or(if ends.is_some() { u64::MAX } else { EPOCH });
    let over = |done: u64| done >= rounds || ends.is_some_and(|ends| Instant::now() >= ends);
    while !over(report.rounds) {
        let nodes = options.nodes.unwrap_or(SIZES[(report.clusters % 3) as usize]);
        report.clusters += 1;
        let mut epoch = Epoch::begin(nodes, able.clone(), options.plant).await?;
        let last = report.rounds.saturating_add(EPOCH).min(rounds);
        while report.rounds < last && !over(report.rounds) {
            let number = options.from + report.rounds;
            let before = epoch.cluster.members.len();
            if let Err(error) = round::play(&mut epoch, number, options, &mut report).await {
                let again = format!("prove chaos --seed {} --from {number} --rounds 1 --nodes {before}", options.seed);
                return Err(epoch.fail(error, &again));
            }
            report.rounds += 1;
        }
        let findings = history::check(&epoch.all.operations);
        report.operations += findings.operations;
        report.unknown += findings.unknown;
        report.registers += findings.registers;
        report.undecided.extend(findings.undecided.clone());
        for (words, count) in std::mem::take(&mut epoch.logs.expected) {
            *report.expected.entry(words).or_default() += count;
        }
    }
    report.took = began.elapsed();
    Ok(report)
}

/// The faults that this machine can do, and why not the others.
fn able() -> (Vec<Fault>, Vec<String>) {
    let (clocks, disks) = (libfaketime().is_some(), Disk::missing());
    let mut skipped = Vec::new();
    if !clocks {
        skipped.push("faults of clocks, since libfaketime is not installed".to_owned());
    }
    if let Some(why) = &disks {
        skipped.push(format!("faults of disks, since this user can mount none: {why}"));
    }
    let can = |fault: &Fault| match fault.needs() {
        Needs::Clocks => clocks,
        Needs::Disks => disks.is_none(),
        _ => true,
    };
    (Fault::ALL.into_iter().filter(can).collect(), skipped)
}

impl Epoch {
    async fn begin(nodes: usize, able: Vec<Fault>, plant: Option<Plant>) -> anyhow::Result<Self> {
        let disks = able.iter().any(|it| it.needs() == Needs::Disks);
        let plan = Plan {
            round_trip: Some(|_, _| Duration::ZERO),
            clocks: libfaketime(),
            disk_mib: disks.then_some(DISK_MIB),
            ..Plan::of(nodes)
        };
        let cluster = Cluster::start(plan).await?;
        let (issuer, origin) = (Issuer::new()?, Origin::start("origin").await?);
        revocation::guard(&cluster, &issuer, origin.address).await?;
        let admits = if plant == Some(Plant::LooseLimit) { round::LIMIT * 3 / 2 } else { round::LIMIT };
        let window = format!("{}ms", round::WINDOW.as_millis());
        limits::apply(&cluster, &limits::config(round::LIMITED, json!({ "limit": admits, "window": window }))).await?;
        let mut config = super::config(1, origin.address);
        config.routes.push(counter::route(0));
        cluster.members[0].client().await?.apply(config).await?;
        limits::wait_sessions(&cluster).await?;
        let status = cluster.members[0].client().await?.status().await?;
        let bound = revocation::bound_of(Duration::try_from(status.max_staleness.context("max_staleness")?)?);
        let since = Instant::now();
        Ok(Self {
            cluster,
            issuer,
            _origin: origin,
            since,
            timeline: Timeline::new(since),
            values: Values::default(),
            logs: Logs::default(),
            all: Log::default(),
            bound,
            able,
        })
    }

    /// The faults that the cluster as it is can have.
    fn able(&self) -> Vec<Fault> {
        let nodes = self.cluster.members.len();
        let can = |fault: &Fault| match fault.needs() {
            Needs::Spare => nodes > *NODES.start(),
            Needs::Room => nodes < *NODES.end(),
            _ => true,
        };
        self.able.iter().copied().filter(can).collect()
    }

    /// What went wrong, how to have it again, and where the logs are.
    fn fail(mut self, error: anyhow::Error, again: &str) -> anyhow::Error {
        for member in &mut self.cluster.members {
            member.kill();
        }
        // Perhaps the logs say why.
        let facts = Facts { disk: true, members: true };
        let told = round::unexpected(&mut self, facts).unwrap_or_default();
        let mut told = told.iter().take(TOLD).map(|line| format!("\n  {line}")).collect::<String>();
        if !told.is_empty() {
            told.insert_str(0, "\nlines in them that are not on the list:");
        }
        let kept = self.cluster.keep_logs();
        let logs = kept.map_or_else(|error| format!("{error:#}"), |dir| dir.display().to_string());
        error.context(format!("once more: {again}\nthe nodes' logs: {logs}{told}\nwhat is wrong"))
    }
}

/// The first history that no order explains, as a text: what was explained last, what could not follow, and the faults
/// around it.
fn hold(findings: &Findings, timeline: &Timeline) -> anyhow::Result<()> {
    let told: Vec<String> =
        findings.broken.iter().map(|(what, all, broken)| tell(what, all, broken, timeline)).collect();
    ensure!(told.is_empty(), "{}", told.join("\n"));
    Ok(())
}

fn tell(what: &str, all: &[Operation], broken: &Broken, timeline: &Timeline) -> String {
    let explained = &broken.explained[broken.explained.len().saturating_sub(TOLD)..];
    let around: Vec<&Operation> = explained.iter().chain(&broken.stuck).map(|at| &all[*at]).collect();
    let from_us = around.iter().map(|it| it.invoked_us).min().unwrap_or(0).saturating_sub(3_000_000);
    let until_us = around.iter().map(|it| it.returned_us).max().unwrap_or(0) + 1_000_000;
    let mut lines: Vec<(u64, String)> = timeline.events();
    lines.retain(|(at_us, _)| (from_us..until_us).contains(at_us));
    for line in &mut lines {
        line.1 = format!("{:>10.6}  *** {}", line.0 as f64 / 1e6, line.1);
    }
    lines.extend(explained.iter().map(|at| (all[*at].invoked_us, format!("{}", all[*at]))));
    lines.extend(broken.stuck.iter().map(|at| (all[*at].invoked_us, format!("{}   ← cannot follow", all[*at]))));
    lines.sort_by_key(|(at_us, _)| *at_us);
    let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    format!(
        "{what}: of {} operations no order explains more than {}; the last of them, and those that cannot come next:\n{}",
        all.len(),
        broken.explained.len(),
        lines.join("\n")
    )
}
