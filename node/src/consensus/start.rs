//! Puts a member together: certificates, peers, raft, and the tasks around them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use openraft::{Config, SnapshotPolicy, StepDownPolicy};
use prost::Message;
use quorumgate_model::{
    command::{Body, Bootstrap, Refound},
    convert,
    timing::Timing,
};
use quorumgate_proto::{peer::v1 as pb, store::v1 as store};
use quorumgate_raft_store::{Opened, RaftNode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Consensus, ProposeError, StartOptions,
    clock::LogClock,
    drive,
    gather::{self, Gather},
    member::{Member, Raft},
    network::Factory,
    probe, renew, sealing, tell,
};
use crate::{
    access::Access,
    denials::Denials,
    keyring::Keyring,
    peer::{Peers, hello::Me},
    pki::{self, Held, Names},
    telemetry::histogram::Histogram,
};

/// A founder's first command, kept until it is applied.
const BOOTSTRAP_FILE: &str = "bootstrap.bin";
/// The first command of a cluster that goes on from an old one's state, kept until it is applied.
const REFOUND_FILE: &str = "refound.bin";
/// What a joiner was told and needs until it has the state: the cluster's longest round trip, and some nodes.
const WELCOME_FILE: &str = "welcome.bin";

const FOUND_MAX: Duration = Duration::from_secs(10);

impl Consensus {
    /// Binds the peer listener, starts raft, the peers' server, the membership driver, the probes and the renewal of
    /// certificates. A founder initializes its cluster.
    pub async fn start(options: StartOptions) -> anyhow::Result<Self> {
        let StartOptions { dir, settings, opened, tasks, freshness } = options;
        let Opened {
            identity,
            log,
            machine,
            states,
            health,
            snapshot_due,
            journal,
            snapshots_dir,
            pristine,
            purge_floor,
        } = opened;
        let syncs = log.syncs();
        let denials = Arc::new(Denials::new(&dir));
        let access = Arc::new(Access::new(&dir, settings.audit.clone()));
        let me = Me { cluster: identity.cluster, node: identity.node, incarnation: identity.incarnation };
        let state = states.borrow().clone();
        let bootstrap = read_bootstrap(&dir)?;
        let welcome = read_welcome(&dir)?;
        let keyring = Arc::new(Keyring::read(&dir)?);
        let held = Arc::new(Held::read(&dir)?);
        if let Err(error) = renew::renew_if_due(&held, &Names::of(&settings), &state, &keyring.at(&state), me.node) {
            tracing::warn!(error = format!("{error:#}"), "this node's certificate was not renewed at start");
        }
        let timing = match (&state.cluster, &bootstrap, &welcome) {
            (None, Some(bootstrap), _) => Timing::from_max_rtt(bootstrap.max_rtt),
            (None, None, Some(welcome)) => Timing::from_max_rtt(Duration::from_micros(welcome.max_rtt_us)),
            _ => state.timing(),
        };

        let peers = Peers::bind(settings.peer.listen, me, held.clone(), tasks.clone())?;
        let peer_address = peers.local_address()?;
        let refused = watch::Sender::new(None);
        let factory = Factory { peers: peers.clone(), refused: refused.clone() };
        let config = Arc::new(config(&me, &timing).validate().context("raft's settings")?);
        let raft = Raft::build(me.node, config, factory, log, machine).await.context("starting raft")?;
        let member = Arc::new(Member {
            me,
            dir,
            settings,
            raft,
            peers,
            peer_address,
            first_peers: welcome.map(|welcome| welcome.peers).unwrap_or_default(),
            held,
            keyring,
            clock: LogClock::starting_at(state.clock_us),
            states,
            health,
            published: watch::Sender::default(),
            halted: watch::Sender::new(None),
            refused,
            ready: AtomicBool::new(false),
            problems: watch::Sender::default(),
            journal,
            snapshots_dir,
            freshness,
            timing,
            started: Instant::now(),
            heard_ns: AtomicU64::new(0),
            spent: OnceLock::new(),
            gather: Gather::default(),
            departures: Default::default(),
            proxy: Default::default(),
            syncs,
            denials,
            refused_joins: Default::default(),
            access,
            propagation: Histogram::default(),
            lately: OnceLock::new(),
            anomalies: OnceLock::new(),
            audit_export: OnceLock::new(),
        });
        let consensus = Self { member: member.clone() };
        member.raft.run();
        if pristine && let Some(bootstrap) = &bootstrap {
            initialize(&member, bootstrap).await?;
        }
        member.peers.serve(Arc::new(consensus.clone()));
        let stop = tasks.stop();
        tasks.start("membership", drive::run(member.clone(), stop.clone()));
        tasks.start("log clock", drive::watch_clock(member.clone(), stop.clone()));
        tasks.start("removals", drive::watch_removals(member.clone(), stop.clone()));
        tasks.start("reach", drive::watch_peers(member.clone(), stop.clone()));
        tasks.start("store health", drive::watch_health(member.clone(), stop.clone()));
        tasks.start("snapshots", drive::take_snapshots(member.clone(), snapshot_due, purge_floor, stop.clone()));
        tasks.start("ledger batches", gather::run(member.clone(), stop.clone()));
        tasks.start("freshness", probe::run(member.clone(), stop.clone()));
        tasks.start("certificates", renew::run(member.clone(), stop.clone()));
        tasks.start("sealing keys", sealing::run(consensus.clone(), stop.clone()));
        tasks.start("own build", tell::build(consensus.clone(), stop.clone()));
        tasks.start("own chains", tell::chains(consensus.clone(), stop.clone()));
        let first = match (bootstrap, read_refound(&consensus.member.dir)?) {
            (_, Some(refound)) => Some((Body::Refound(Arc::new(refound)), REFOUND_FILE)),
            (Some(bootstrap), None) => Some((Body::Bootstrap(Arc::new(bootstrap)), BOOTSTRAP_FILE)),
            (None, None) => None,
        };
        if let Some((body, file)) = first {
            tasks.detach(found(consensus.clone(), body, file, stop));
        }
        Ok(consensus)
    }
}

/// storage.md says why for each.
fn config(me: &Me, timing: &Timing) -> Config {
    let ms = |duration: Duration| duration.as_millis() as u64;
    Config {
        cluster_name: data_encoding::HEXLOWER.encode(&me.cluster),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        install_snapshot_timeout: 60_000,
        max_payload_entries: 1024,
        max_append_entries: Some(4096),
        // The store says when one is due, and the log is purged up to the one before.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(2 * ms(timing.election_max)),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        removed_leader_step_down: StepDownPolicy::After(ms(timing.election_max)),
        ..Config::default()
    }
}

async fn initialize(member: &Member, bootstrap: &Bootstrap) -> anyhow::Result<()> {
    let node = RaftNode {
        name: bootstrap.node.name.to_string(),
        address: bootstrap.node.peer_address.clone(),
        incarnation: bootstrap.node.incarnation,
    };
    let members = BTreeMap::from([(bootstrap.node.id, node)]);
    member.raft.initialize(members).await.context("founding the cluster")
}

/// Proposes the cluster's first command until the state has it; applying it twice is refused and does no harm.
async fn found(consensus: Consensus, body: Body, file: &str, stop: CancellationToken) {
    let me = consensus.member.me.cluster;
    let founded = || consensus.state().cluster.as_ref().is_some_and(|facts| facts.id == me);
    while !founded() {
        let proposed = stop.run_until_cancelled(consensus.propose(drive::draft(body.clone()), FOUND_MAX)).await;
        match proposed {
            None => return,
            Some(Err(ProposeError::OutcomeUnknown(_) | ProposeError::NoQuorum(_))) => {}
            Some(Ok(applied)) => match applied.outcome {
                Ok(_) => {}
                // A cluster that was founded before says no to a second time: the loop's condition sees it.
                Err(_) if founded() => {}
                Err(rejected) => return tracing::error!(%rejected, "the cluster was not founded"),
            },
            Some(Err(error)) => return tracing::error!(%error, "the cluster was not founded"),
        }
    }
    if let Err(error) = std::fs::remove_file(consensus.member.dir.join(file)) {
        tracing::debug!(%error, file, "the file of the first command was not removed");
    }
}

pub fn write_bootstrap(dir: &Path, bootstrap: &Bootstrap) -> anyhow::Result<()> {
    let message = store::Bootstrap {
        cluster_id: bootstrap.cluster_id.to_vec(),
        cluster_name: bootstrap.cluster_name.clone(),
        max_rtt_us: bootstrap.max_rtt.as_micros() as u64,
        ca_certificate: bootstrap.ca_certificate.clone(),
        sealed_ca_key: bootstrap.sealed_ca_key.clone(),
        node: Some(convert::node_to(&bootstrap.node)),
    };
    pki::write_private(&dir.join(BOOTSTRAP_FILE), &message.encode_to_vec())
}

fn read_bootstrap(dir: &Path) -> anyhow::Result<Option<Bootstrap>> {
    let file = dir.join(BOOTSTRAP_FILE);
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    let bootstrap = parse_bootstrap(&bytes).with_context(|| format!("in {}", file.display()))?;
    Ok(Some(bootstrap))
}

fn parse_bootstrap(bytes: &[u8]) -> anyhow::Result<Bootstrap> {
    let message = store::Bootstrap::decode(bytes)?;
    Ok(Bootstrap {
        cluster_id: message.cluster_id[..].try_into().context("a cluster id has 16 bytes")?,
        cluster_name: message.cluster_name,
        max_rtt: Duration::from_micros(message.max_rtt_us),
        ca_certificate: message.ca_certificate,
        sealed_ca_key: message.sealed_ca_key,
        node: convert::node_from(message.node.context("a bootstrap names its node")?)?,
    })
}

pub fn write_refound(dir: &Path, refound: &Refound) -> anyhow::Result<()> {
    pki::write_private(&dir.join(REFOUND_FILE), &convert::refound_to(refound).encode_to_vec())
}

fn read_refound(dir: &Path) -> anyhow::Result<Option<Refound>> {
    let file = dir.join(REFOUND_FILE);
    let read = |bytes: Vec<u8>| Ok::<_, anyhow::Error>(convert::refound_from(store::Refound::decode(&bytes[..])?)?);
    match std::fs::read(&file) {
        Ok(bytes) => read(bytes).map(Some).with_context(|| format!("in {}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

/// Keeps what a joiner needs before it has the state; the secrets lie elsewhere.
pub fn write_welcome(dir: &Path, welcome: &pb::JoinResponse) -> anyhow::Result<()> {
    let kept = pb::JoinResponse { cluster_key: Vec::new(), ..welcome.clone() };
    pki::write_private(&dir.join(WELCOME_FILE), &kept.encode_to_vec())
}

/// The founder has none.
fn read_welcome(dir: &Path) -> anyhow::Result<Option<pb::JoinResponse>> {
    let file = dir.join(WELCOME_FILE);
    match std::fs::read(&file) {
        Ok(bytes) => Ok(Some(pb::JoinResponse::decode(&bytes[..]).with_context(|| format!("in {}", file.display()))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}
