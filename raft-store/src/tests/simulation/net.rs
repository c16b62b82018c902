//! The lines between members: each way for itself late, lossy or cut, and appends in their order on each line.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use openraft::{
    RaftNetworkFactory,
    async_runtime::watch::WatchReceiver,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption},
    raft::{
        AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use quorumgate_model::NodeId;
use tokio::time::{Instant, sleep, sleep_until};

use super::{ELECTION_MAX, host::Host};
use crate::{RaftNode, Snapshot, SnapshotFile, TypeConfig, Vote, disk::Disk, tests::rng::Rng};

/// Appends that are under way on one line.
const PIPELINE_MAX: usize = 8;
/// How long whoever asks waits for an answer that was lost.
const PATIENCE: Duration = Duration::from_millis(300);
const BACKOFF: Duration = Duration::from_millis(100);

pub struct Lines {
    pub hosts: BTreeMap<NodeId, Host>,
    /// From whom to whom nothing passes.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Of a thousand messages.
    pub lost: u64,
    pub delay_us_max: u64,
    pub rng: Rng,
    pub messages: u64,
    /// Snapshots that were taken over.
    pub installed: u64,
    /// Whoever grants a vote until then is struck down as it answers.
    pub strikes_until: Option<Instant>,
    pub struck: Vec<Struck>,
}

/// A vote was answered, and nobody knows yet.
#[derive(Debug, Clone, Copy)]
pub struct Struck {
    pub voter: NodeId,
    pub candidate: NodeId,
}

#[derive(Clone)]
pub struct Net(pub Arc<Mutex<Lines>>);

type Failed = RPCError<TypeConfig>;

impl Net {
    pub fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap()
    }

    /// When a message arrives that leaves now; None: never.
    fn arrival(&self, from: NodeId, to: NodeId) -> Option<Instant> {
        let mut lines = self.lines();
        lines.messages += 1;
        let lost = lines.lost;
        let is_cut = lines.cut.contains(&(from, to)) || !lines.hosts.contains_key(&from);
        let slowest = lines.delay_us_max;
        let delay = 100 + lines.rng.below(slowest);
        (!is_cut && lines.rng.below(1_000) >= lost).then(|| Instant::now() + Duration::from_micros(delay))
    }

    pub async fn pass(&self, from: NodeId, to: NodeId) -> Result<(), Failed> {
        match self.arrival(from, to) {
            Some(at) => sleep_until(at).await,
            None => {
                sleep(PATIENCE).await;
                return Err(lost());
            }
        }
        Ok(())
    }

    pub fn host(&self, node: NodeId) -> Result<Host, Failed> {
        let host = self.lines().hosts.get(&node).cloned();
        host.ok_or_else(|| RPCError::Unreachable(Unreachable::from_string("nobody listens there")))
    }

    /// Who is asked by another; one that knows that the other was removed shuts it out.
    fn host_for(&self, from: NodeId, to: NodeId) -> Result<Host, Failed> {
        // What was under way when the line was cut does not arrive either.
        if self.lines().cut.contains(&(from, to)) {
            return Err(lost());
        }
        let host = self.host(to)?;
        match host.states.borrow().removed.contains_key(&from) {
            true => Err(RPCError::Unreachable(Unreachable::from_string("it was removed"))),
            false => Ok(host.clone()),
        }
    }

    pub fn anybody(&self, rng: &mut Rng) -> Option<Host> {
        let lines = self.lines();
        let nth = rng.below(lines.hosts.len().max(1) as u64) as usize;
        lines.hosts.values().nth(nth).cloned()
    }
}

fn lost() -> Failed {
    RPCError::Network(NetworkError::from_string("no answer"))
}

pub struct Factory {
    pub net: Net,
    pub me: NodeId,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, _: &RaftNode) -> Line {
        Line { net: self.net.clone(), from: self.me, to: target }
    }
}

/// From one member to another, and back.
#[derive(Clone)]
pub struct Line {
    net: Net,
    from: NodeId,
    to: NodeId,
}

impl Line {
    async fn ask<T>(&self, call: impl AsyncFnOnce(Host) -> Result<T, Failed>) -> Result<T, Failed> {
        self.net.pass(self.from, self.to).await?;
        let answer = call(self.net.host_for(self.from, self.to)?).await?;
        self.net.pass(self.to, self.from).await?;
        Ok(answer)
    }

    /// As `node` does: no vote within an election timeout after the start, since a leader may count on an earlier one.
    async fn vote(&self, rpc: VoteRequest<TypeConfig>, only_asked: bool) -> Result<VoteResponse<TypeConfig>, Failed> {
        self.ask(async |host| {
            if host.started.elapsed() < ELECTION_MAX {
                let vote = host.raft.metrics().borrow_watched().vote;
                return Ok(VoteResponse::new(vote, None, false));
            }
            let answer = match only_asked {
                true => host.raft.pre_vote(rpc).await,
                false => host.raft.vote(rpc).await,
            };
            let answer = answer.map_err(|_| lost())?;
            if answer.vote_granted && !only_asked {
                self.strike();
            }
            Ok(answer)
        })
        .await
    }

    fn strike(&self) {
        let mut lines = self.net.lines();
        if lines.strikes_until.is_some_and(|until| Instant::now() < until) {
            lines.struck.push(Struck { voter: self.to, candidate: self.from });
        }
    }
}

impl NetBackoff<TypeConfig> for Line {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

impl NetVote<TypeConfig> for Line {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Line::vote(self, rpc, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Line::vote(self, rpc, true).await
    }
}

impl NetTransferLeader<TypeConfig> for Line {
    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(async |host| host.raft.handle_transfer_leader(rpc).await.map_err(|_| lost())).await
    }
}

type Appended = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;
type BoxFuture<'s, T> = Pin<Box<dyn Future<Output = T> + Send + 's>>;
type BoxStream<'s, T> = Pin<Box<dyn Stream<Item = T> + Send + 's>>;

impl NetStreamAppend<TypeConfig> for Line {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let line = self.clone();
        let mut before = Instant::now();
        let answers = input.map(move |rpc| {
            // On one line nothing overtakes, unless it is a copy.
            let arrival = line.net.arrival(line.from, line.to).map(|at| at.max(before));
            before = arrival.unwrap_or(before);
            if line.net.lines().rng.chance(20) {
                tokio::spawn(repeat(line.clone(), rpc.clone()));
            }
            let line = line.clone();
            async move {
                let Some(at) = arrival else {
                    sleep(PATIENCE).await;
                    return Err(lost());
                };
                sleep_until(at).await;
                let answer = append(&line, rpc).await?;
                line.net.pass(line.to, line.from).await?;
                Ok(answer)
            }
        });
        // What follows an answer that is not a yes was sent in vain.
        let session = stream::unfold(Some(Box::pin(answers.buffered(PIPELINE_MAX))), |session| async {
            let mut session = session?;
            let answer: Appended = session.next().await?;
            let goes_on = matches!(answer, Ok(Ok(_)));
            Some((answer, goes_on.then_some(session)))
        });
        Box::pin(async move { Ok(Box::pin(session) as BoxStream<'s, Appended>) })
    }
}

async fn append(line: &Line, rpc: AppendEntriesRequest<TypeConfig>) -> Appended {
    let host = line.net.host_for(line.from, line.to)?;
    let mut answers = Box::pin(host.raft.stream_append(stream::once(std::future::ready(rpc))));
    match answers.next().await {
        Some(Ok(answer)) => Ok(answer),
        _ => Err(lost()),
    }
}

/// What was sent comes once more, some time later.
async fn repeat(line: Line, rpc: AppendEntriesRequest<TypeConfig>) {
    let late = Duration::from_micros(line.net.lines().rng.below(2_000_000));
    sleep(late).await;
    // Nobody waits for the answer.
    let _ = append(&line, rpc).await;
}

impl NetSnapshot<TypeConfig> for Line {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let from = self.net.host(self.from)?.disk;
        let sent = self
            .ask(async |host| {
                let SnapshotFile { path, length } = snapshot.snapshot;
                // It may have been replaced on the way.
                let bytes = from.find(&path).ok_or_else(lost)?;
                let path = host.snapshots.join(format!("receive-{}.tmp", self.net.lines().messages));
                let received = host.disk.create(&path).and_then(|file| {
                    file.write_at(&bytes, 0)?;
                    file.sync()
                });
                received.map_err(|_| lost())?;
                let snapshot = Snapshot { meta: snapshot.meta, snapshot: SnapshotFile { path, length } };
                let installed = host.raft.install_full_snapshot(vote, snapshot).await.map_err(|_| lost());
                self.net.lines().installed += u64::from(installed.is_ok());
                installed
            })
            .await?;
        Ok(sent)
    }
}
