//! One round: load of every kind, faults at their moments, mending, and every check.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use quorumgate_proto::admin::v1::{ListRevisionsRequest, NewRevocation, RevokeTokenRequest, Selector, selector::By};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Epoch, Options, Plant, Report,
    breaker::Breaker,
    clients::{Clients, Field, Log, Shared},
    counter::{self, Counter},
    hold,
    line::{Line, Said, Way, Words},
    logs::Facts,
    plan::{self, Dice},
    world::{Node, Processes},
};
use crate::{
    Admin,
    cluster::{PATIENCE, until},
    history::{self, Call, Operation, Outcome},
    issuer::ISSUER,
    load::Load,
    scenarios::{
        limits::{Crowd, auditor},
        revocation::Hammers,
    },
};

pub const LIMITED: &str = "chaos";
const LIMITED_HOST: &str = "chaos.test";
pub const LIMIT: usize = 40;
pub const WINDOW: Duration = Duration::from_secs(2);
/// Registers a round.
const KEYS: u32 = 5;
/// Requests without conditions, a second, over all nodes.
const PLAIN_RATE: u32 = 60;
const REVOKED_MS: std::ops::Range<u64> = 500..2_500;
const REVOKE_MAX: Duration = Duration::from_secs(2);
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);
const HAMMER_PAUSE: Duration = Duration::from_millis(20);
/// From the mending to writes through every node and one revision on all.
const LIVE_WITHIN: Duration = Duration::from_secs(30);
/// What rolls which dice.
const FAULTS: u64 = 0;
const BREAKER: u64 = 1;
const MOMENTS: u64 = 2;
const COUNTER: u64 = 3;
const CLIENTS: u64 = 100;
/// Who asks after the mending.
const PROBER: u32 = 200;

/// The load of one round.
struct Traffic {
    clients: Clients,
    counter: Counter,
    hammers: Hammers,
    crowd: Crowd,
    plain: Load,
}

pub async fn play(epoch: &mut Epoch, number: u64, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let dice = |what: u64| Dice::new(options.seed, number, what);
    let nodes: Arc<[Node]> = epoch.cluster.members.iter().map(Node::of).collect();
    let log = Shared::default();
    let field = Field {
        since: epoch.since,
        nodes: nodes.clone(),
        keys: number as u32 * KEYS..(number as u32 + 1) * KEYS,
        values: epoch.values.clone(),
        log: log.clone(),
        stale: options.plant == Some(Plant::StaleReads),
    };
    let processes = Processes::new(nodes.len());
    let injuries = plan::injuries(&mut dice(FAULTS), &epoch.able());
    let told: Vec<String> = injuries.iter().map(|it| format!("{it}")).collect();
    println!("round {number}, {} nodes: {}", nodes.len(), told.join(", "));
    epoch.timeline.note(format!("round {number} begins"));

    let jti = format!("chaos-{}-{number}", options.seed);
    let token = epoch.issuer.token("carol", &jti, TOKEN_LIFE)?;
    let load = Traffic::start(epoch, &field, &processes, &token, &dice).await?;
    let began = Instant::now();
    let revoking = match options.plant {
        Some(Plant::NeverRevoked) => tokio::spawn(async { Ok(Instant::now()) }),
        _ => tokio::spawn(revoke(nodes.clone(), jti, dice(MOMENTS))),
    };
    let timeline = epoch.timeline.clone();
    let mut breaker = Breaker::new(&mut epoch.cluster, timeline.clone(), processes.clone(), dice(BREAKER));
    breaker.run(began, &injuries).await?;
    tokio::time::sleep_until((began + plan::OVER).into()).await;
    let fallen = breaker.fallen()?;
    ensure!(fallen.is_empty(), "{}", fallen.join("\n"));
    breaker.heal().await.context("after the mending")?;
    let mended = Instant::now();
    let (hit, disks, done) = (breaker.hit, breaker.disks, breaker.done);
    live(&epoch.cluster.members.iter().map(Node::of).collect::<Vec<_>>(), &field).await?;
    let lived = mended.elapsed();
    let revoked = settle(revoking).await?;
    let members = !epoch.cluster.former.is_empty();

    let still: Vec<usize> = (0..nodes.len()).filter(|at| epoch.has(&nodes[*at])).collect();
    if options.plant != Some(Plant::NeverRevoked) {
        load.hammers.wait_refused_since(mended, &still).await?;
    }
    let spared: Vec<usize> = still.iter().copied().filter(|at| !hit.contains(&*nodes[*at].name)).collect();
    let seen = load.stop(&field, &spared).await?;
    last_reads(epoch, &field).await?;
    verify(epoch).await?;

    let log = std::mem::take(&mut *log.lock().expect("no panic while it is held"));
    ensure!(log.strange.is_none(), "an unexpected answer: {}", log.strange.unwrap_or_default());
    let latest = seen.guard.check(revoked, epoch.bound)?;
    ensure!(seen.overshoot == 0, "{} admitted over the limit of {LIMIT} in {WINDOW:?}", seen.overshoot);
    let asked = log.operations.len();
    check_requests(epoch, &log).await?;
    epoch.all.operations.extend(log.operations);
    let findings = history::check(&epoch.all.operations);
    hold(&findings, &timeline)?;
    check_logs(epoch, Facts { disk: !disks.is_empty(), members })?;
    epoch.cluster.former.clear();

    println!(
        "  {asked} operations, {} guarded, {} limited, {} plain; live again after {lived:.1?}",
        seen.guard.requests(),
        seen.admitted,
        seen.plain
    );
    done.into_iter().for_each(|fault| *report.faults.entry(fault).or_default() += 1);
    report.counter_reads += seen.counted;
    report.guarded += seen.guard.requests();
    report.latest = report.latest.max(latest);
    report.bound = epoch.bound;
    report.admitted += seen.admitted;
    report.plain += seen.plain;
    report.slowest = report.slowest.max(lived);
    Ok(())
}

/// What the load of a round has seen.
struct Seen {
    guard: crate::scenarios::revocation::Log,
    admitted: usize,
    overshoot: u64,
    plain: u64,
    counted: u64,
}

impl Traffic {
    async fn start(
        epoch: &Epoch,
        field: &Field,
        processes: &Processes,
        token: &str,
        dice: &impl Fn(u64) -> Dice,
    ) -> anyhow::Result<Self> {
        let addresses: Vec<SocketAddr> = field.nodes.iter().map(|node| node.proxy).collect();
        let hammers = Hammers::with_pause(&epoch.cluster, token, HAMMER_PAUSE);
        hammers.wait_let_in().await?;
        let offered = LIMIT as f64 / WINDOW.as_secs_f64() * 1.5 / addresses.len() as f64;
        Ok(Self {
            clients: Clients::start(field, |client| dice(CLIENTS + client)),
            counter: Counter::start(field, processes, dice(COUNTER)),
            hammers,
            crowd: Crowd::start(&addresses, LIMITED_HOST, &vec![offered; addresses.len()]),
            plain: Load::start(&addresses, "load.test", "/", PLAIN_RATE),
        })
    }

    async fn stop(self, field: &Field, spared: &[usize]) -> anyhow::Result<Seen> {
        self.clients.stop().await?;
        let counted = self.counter.stop().await?;
        let guard = self.hammers.stop().await?;
        let admissions = self.crowd.stop().await?;
        let window_us = WINDOW.as_micros() as u64;
        let mut plain = 0;
        for at in spared {
            let tally = &self.plain.tallies[*at];
            let failures = tally.failures.lock().expect("no panic while it is held").clone();
            ensure!(failures.is_empty(), "requests failed on {}: {failures:?}", field.nodes[*at].name);
            plain += tally.good.load(Ordering::Relaxed);
        }
        let overshoot = auditor::audit(&admissions, window_us, LIMIT).overshoot;
        Ok(Seen { guard, admitted: admissions.len(), overshoot, plain, counted })
    }
}

impl Epoch {
    fn has(&self, node: &Node) -> bool {
        self.cluster.members.iter().any(|it| it.name == *node.name)
    }
}

/// When a node acknowledged it.
async fn revoke(nodes: Arc<[Node]>, jti: String, mut dice: Dice) -> anyhow::Result<Instant> {
    tokio::time::sleep(Duration::from_millis(dice.within(REVOKED_MS))).await;
    let selector = Selector { by: Some(By::Jti(jti)), issuer: ISSUER.into() };
    let expires_in = Duration::from_secs(7_200).try_into().ok();
    loop {
        let node = &nodes[dice.roll(nodes.len() as u64) as usize];
        let revocation = NewRevocation { selector: Some(selector.clone()), expires_in, ..Default::default() };
        let mut asked = tonic::Request::new(RevokeTokenRequest { revocation: Some(revocation), ..Default::default() });
        asked.set_timeout(REVOKE_MAX);
        let asking = async { anyhow::Ok(Admin::connect(&node.socket).await?.revocations().revoke_token(asked).await?) };
        if let Ok(Ok(_)) = timeout(REVOKE_MAX * 2, asking).await {
            return Ok(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn settle(revoking: JoinHandle<anyhow::Result<Instant>>) -> anyhow::Result<Instant> {
    timeout(PATIENCE, revoking).await.context("a revocation is not acknowledged")??
}

/// A write through every node, and all of them at its revision.
async fn live(nodes: &[Node], field: &Field) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut newest = 0;
    for node in nodes {
        let (value, unique) = (field.values.fresh(), field.values.fresh());
        let request = format!("{PROBER:08x}-0000-4000-8000-{unique:012x}");
        let words = Words {
            name: format!("register-{}", field.keys.start),
            call: Call::Write(value),
            etag: None,
            request: request.clone(),
            stale: false,
        };
        let invoked_us = field.now_us();
        let revision = loop {
            let said = match Line::open(&node.socket, Way::Grpc).await {
                Ok(line) => line.ask(&words, Duration::from_secs(5)).await.0,
                Err(_) => Said::Failed,
            };
            match said {
                Said::Written { revision } => break revision,
                said if began.elapsed() > LIVE_WITHIN => {
                    bail!("{} takes no write {:?} after the mending: {said:?}", node.name, began.elapsed())
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        newest = newest.max(revision);
        note(field, node, &words, invoked_us, Outcome::Written { revision });
    }
    for node in nodes {
        until(&format!("{} at revision {newest}", node.name), async || {
            let asked = ListRevisionsRequest { stale: true, limit: 1 };
            let header = Admin::connect(&node.socket).await?.config().list_revisions(asked).await?.into_inner().header;
            let at = header.map_or(0, |header| header.revision);
            ensure!(at >= newest, "it is at {at}");
            Ok(())
        })
        .await?;
    }
    ensure!(began.elapsed() <= LIVE_WITHIN, "alive only {:?} after the mending", began.elapsed());
    Ok(())
}

fn note(field: &Field, node: &Node, words: &Words, invoked_us: u64, outcome: Outcome) {
    let key = words.name.trim_start_matches("register-").parse().expect("registers are numbered");
    let operation = Operation {
        client: PROBER,
        node: node.name.clone(),
        key,
        call: words.call,
        invoked_us,
        returned_us: field.now_us(),
        outcome,
    };
    field.log.lock().expect("no panic while it is held").note(operation, words.request.clone());
}

/// Every register through every node, those of earlier rounds through one of them.
async fn last_reads(epoch: &Epoch, field: &Field) -> anyhow::Result<()> {
    for (at, member) in epoch.cluster.members.iter().enumerate() {
        let node = Node::of(member);
        let earlier = if at == 0 { epoch.first_key(field) } else { field.keys.start };
        for key in earlier..field.keys.end {
            let words = Words {
                name: format!("register-{key}"),
                call: Call::Read,
                etag: None,
                request: String::new(),
                stale: field.stale,
            };
            until(&format!("a read through {}", node.name), async || {
                let invoked_us = field.now_us();
                let line = Line::open(&node.socket, Way::Grpc).await?;
                match line.ask(&words, Duration::from_secs(5)).await.0 {
                    Said::Found { value, revision, .. } => {
                        note(field, &node, &words, invoked_us, Outcome::Found { value, revision });
                        Ok(())
                    }
                    said => bail!("{said:?}"),
                }
            })
            .await?;
        }
    }
    Ok(())
}

impl Epoch {
    fn first_key(&self, field: &Field) -> u32 {
        let keys = self.all.operations.iter().map(|it| it.key).filter(|key| *key != counter::KEY);
        keys.min().unwrap_or(field.keys.start)
    }
}

async fn verify(epoch: &Epoch) -> anyhow::Result<()> {
    let member = &epoch.cluster.members[0];
    until("cluster verify", async || {
        let told = member.cli(&["cluster", "verify", "-o", "json"])?;
        let json: serde_json::Value = serde_json::from_str(&told)?;
        ensure!(json["verdict"] == "equal", "{told}");
        let nodes = json["nodes"].as_array().map_or(0, Vec::len);
        ensure!(nodes == epoch.cluster.members.len(), "not of all: {told}");
        Ok(())
    })
    .await
}

/// Each write is in the history of revisions as often as its client was told: once, never, or, unknown, at most once.
async fn check_requests(epoch: &Epoch, log: &Log) -> anyhow::Result<()> {
    let client = epoch.cluster.members[0].client().await?;
    let listed = client.config().list_revisions(ListRevisionsRequest::default()).await?.into_inner().revisions;
    let oldest = listed.iter().map(|it| it.revision).min().unwrap_or(0);
    let mut made: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for revision in &listed {
        made.entry(&revision.message).or_default().push(revision.revision);
    }
    for (operation, request) in log.operations.iter().zip(&log.requests).filter(|(it, _)| it.call != Call::Read) {
        let made = made.get(request.as_str()).map_or(&[][..], Vec::as_slice);
        let fits = match operation.outcome {
            Outcome::Written { revision } => made == [revision] || revision < oldest,
            Outcome::Unknown => made.len() < 2,
            _ => made.is_empty(),
        };
        ensure!(fits, "{operation}: the history of revisions has it at {made:?} (request {request})");
    }
    Ok(())
}

fn check_logs(epoch: &mut Epoch, facts: Facts) -> anyhow::Result<()> {
    let lines = unexpected(epoch, facts)?;
    ensure!(lines.is_empty(), "lines in logs that are not on the list:\n{}", lines.join("\n"));
    Ok(())
}

pub fn unexpected(epoch: &mut Epoch, facts: Facts) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for member in epoch.cluster.members.iter().chain(&epoch.cluster.former) {
        let unexpected = epoch.logs.check(&member.log_file(), facts)?;
        lines.extend(unexpected.into_iter().map(|line| format!("{}: {line}", member.name)));
    }
    Ok(lines)
}
