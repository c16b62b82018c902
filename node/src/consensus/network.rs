//! openraft's network over the peers: appends on one long stream for each replication session, everything else on
//! streams of its own, snapshots on the bulk connection.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt, stream};
use openraft::{
    RaftNetworkFactory,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption},
    raft::{
        AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use quinn::{RecvStream, SendStream};
use quorumgate_model::NodeId;
use quorumgate_proto::peer::v1::{self as pb, request::Call, response::Answer};
use quorumgate_raft_store::{RaftNode, Snapshot, SnapshotFile, TypeConfig, Vote, wire};
use tokio::{
    io::AsyncReadExt,
    sync::{Semaphore, watch},
};

use super::{REMOVED, convert};
use crate::peer::{CallError, Peers, Target, frame, hello::Use};

/// The pause before an unreachable node is tried again.
const BACKOFF: Duration = Duration::from_millis(200);
/// How long an append may go unanswered before its stream is taken for dead: disks stall, but not for this long.
const APPEND_MAX: Duration = Duration::from_secs(5);
/// Appends that are sent before the first of them is answered.
const PIPELINE_MAX: usize = 64;
/// For a snapshot to be verified and installed after its last byte.
const INSTALL_MAX: Duration = Duration::from_secs(60);
/// For one chunk of a snapshot to be taken by the other side.
const CHUNK_MAX: Duration = Duration::from_secs(10);

pub(super) struct Factory {
    pub peers: Peers,
    /// Set when a peer says that this node was removed.
    pub refused: watch::Sender<Option<String>>,
}

pub(super) struct Network {
    peers: Peers,
    target: Target,
    refused: watch::Sender<Option<String>>,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &RaftNode) -> Network {
        let target = Target { id: target, address: node.address.clone() };
        Network { peers: self.peers.clone(), target, refused: self.refused.clone() }
    }
}

impl Network {
    async fn call(&self, call: Call, option: &RPCOption) -> Result<Answer, RPCError<TypeConfig>> {
        self.peers.call(&self.target, call, option.hard_ttl()).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::Refused(reason) => {
                if reason == REMOVED {
                    self.refused.send_if_modified(|is| is.replace(reason.clone()).is_none());
                }
                RPCError::Unreachable(Unreachable::from_string(reason))
            }
            CallError::Unreachable(reason) => RPCError::Unreachable(Unreachable::from_string(reason)),
            CallError::Lost(_) | CallError::TimedOut(_) => RPCError::Network(NetworkError::from_string(error)),
        }
    }
}

fn network(error: impl std::fmt::Display) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(error))
}

fn unexpected(answer: &Answer) -> RPCError<TypeConfig> {
    match answer {
        Answer::Failure(failure) => network(&failure.message),
        _ => network("an answer of another kind"),
    }
}

impl NetBackoff<TypeConfig> for Network {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

impl NetVote<TypeConfig> for Network {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Call::Vote(convert::vote_request_to(&rpc)), &option).await? {
            Answer::Vote(response) => convert::vote_response_from(&response).map_err(network),
            other => Err(unexpected(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Call::PreVote(convert::vote_request_to(&rpc)), &option).await? {
            Answer::Vote(response) => convert::vote_response_from(&response).map_err(network),
            other => Err(unexpected(&other)),
        }
    }
}

impl NetTransferLeader<TypeConfig> for Network {
    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Call::TransferLeader(convert::transfer_to(&rpc)), &option).await? {
            Answer::TransferLeader(_) => Ok(Ok(())),
            other => Err(unexpected(&other)),
        }
    }
}

type Appended = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;
type BoxFuture<'s, T> = Pin<Box<dyn Future<Output = T> + Send + 's>>;
type BoxStream<'s, T> = Pin<Box<dyn Stream<Item = T> + Send + 's>>;

impl NetStreamAppend<TypeConfig> for Network {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            // The pause after a failure is in the input: taking from it first is what waits.
            let mut input = input;
            let Some(first) = input.next().await else {
                let none: BoxStream<'s, Appended> = Box::pin(stream::empty());
                return Ok(none);
            };
            let opened = tokio::time::timeout(option.hard_ttl(), self.peers.open(&self.target, Use::Control)).await;
            let opened =
                opened.map_err(|_| RPCError::Unreachable(Unreachable::from_string("no connection in time")))?;
            let (to, from) = opened.map_err(|error| self.failed(error))?;
            let input = stream::once(std::future::ready(first)).chain(input);
            let session: BoxStream<'s, Appended> = Box::pin(pipelined(to, from, input));
            Ok(session)
        })
    }
}

/// Sends requests as they come and yields the answers in their order; both halves live and die with the stream.
fn pipelined<S>(to: SendStream, from: RecvStream, input: S) -> impl Stream<Item = Appended> + Send
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let in_flight = InFlight::default();
    let mut sender = Some(Box::pin(send_appends(to, input, in_flight.clone())));
    let mut answers = Box::pin(receive_appends(from));
    let mut watchdog = tokio::time::interval(Duration::from_secs(1));
    let mut ended = false;
    stream::poll_fn(move |cx| {
        if ended {
            return Poll::Ready(None);
        }
        if let Some(Poll::Ready(result)) = sender.as_mut().map(|sender| sender.as_mut().poll(cx)) {
            sender = None;
            if let Err(error) = result {
                ended = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
        if watchdog.poll_tick(cx).is_ready() {
            if in_flight.is_overdue() {
                ended = true;
                return Poll::Ready(Some(Err(network(format!("an append had no answer for {APPEND_MAX:?}")))));
            }
            cx.waker().wake_by_ref();
        }
        match answers.as_mut().poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) if sender.is_some() => {
                ended = true;
                Poll::Ready(Some(Err(network("the peer ended the replication stream"))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(answer)) => {
                in_flight.answered();
                ended = !matches!(answer, Ok(Ok(_)));
                Poll::Ready(Some(answer))
            }
        }
    })
}

async fn send_appends<S>(mut to: SendStream, mut input: S, in_flight: InFlight) -> Result<(), RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    while let Some(request) = input.next().await {
        in_flight.sent().await;
        let request = pb::Request { call: Some(Call::Append(convert::append_to(&request))) };
        frame::write(&mut to, &request).await.map_err(network)?;
    }
    let _ = to.finish();
    Ok(())
}

fn receive_appends(from: RecvStream) -> impl Stream<Item = Appended> {
    stream::unfold(from, |mut from| async move {
        let answer = match frame::read::<pb::Response>(&mut from, frame::FRAME_MAX).await {
            Ok(None) => return None,
            Ok(Some(response)) => match response.answer {
                Some(Answer::Append(response)) => convert::appended_from(&response).map_err(network),
                Some(other) => Err(unexpected(&other)),
                None => Err(network("an empty answer")),
            },
            Err(error) => Err(network(error)),
        };
        Some((answer, from))
    })
}

/// When the requests that still lack an answer were sent, the oldest first; at most `PIPELINE_MAX`.
#[derive(Clone)]
struct InFlight {
    sent: Arc<Mutex<VecDeque<Instant>>>,
    slots: Arc<Semaphore>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { sent: Arc::default(), slots: Arc::new(Semaphore::new(PIPELINE_MAX)) }
    }
}

impl InFlight {
    async fn sent(&self) {
        self.slots.acquire().await.expect("it is never closed").forget();
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
    }

    fn answered(&self) {
        if self.sent.lock().unwrap_or_else(PoisonError::into_inner).pop_front().is_some() {
            self.slots.add_permits(1);
        }
    }

    fn is_overdue(&self) -> bool {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.front().is_some_and(|sent| sent.elapsed() > APPEND_MAX)
    }
}

impl NetSnapshot<TypeConfig> for Network {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = async {
            let opened = tokio::time::timeout(option.hard_ttl(), self.peers.open(&self.target, Use::Bulk)).await;
            let opened =
                opened.map_err(|_| RPCError::Unreachable(Unreachable::from_string("no connection in time")))?;
            let (to, from) = opened.map_err(|error| self.failed(error))?;
            send_snapshot(vote, snapshot, to, from).await
        };
        tokio::select! {
            sent = send => Ok(sent?),
            closed = cancel => Err(closed.into()),
        }
    }
}

async fn send_snapshot(
    vote: Vote,
    snapshot: Snapshot,
    mut to: SendStream,
    mut from: RecvStream,
) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
    let file = snapshot.snapshot;
    let mut source = tokio::fs::File::open(&file.path).await.map_err(network)?;
    let head = pb::SnapshotRequest {
        vote: Some(wire::vote_to(&vote)),
        meta: Some(wire::snapshot_meta_to(&snapshot.meta)),
        length: file.length,
    };
    frame::write(&mut to, &pb::Request { call: Some(Call::Snapshot(head)) }).await.map_err(network)?;
    let mut chunk = vec![0; frame::CHUNK_MAX];
    let mut left = file.length;
    while left > 0 {
        let length = left.min(frame::CHUNK_MAX as u64) as usize;
        source.read_exact(&mut chunk[..length]).await.map_err(network)?;
        let written = tokio::time::timeout(CHUNK_MAX, frame::write_bytes(&mut to, &chunk[..length])).await;
        written.map_err(network)?.map_err(network)?;
        left -= length as u64;
    }
    let _ = to.finish();
    let response = tokio::time::timeout(INSTALL_MAX, frame::expect::<pb::Response>(&mut from, frame::FRAME_MAX)).await;
    match response.map_err(network)?.map_err(network)?.answer {
        Some(Answer::Snapshot(response)) => {
            Ok(SnapshotResponse::new(convert::vote_from(response.vote.as_ref()).map_err(network)?))
        }
        Some(other) => Err(unexpected(&other)),
        None => Err(network("an empty answer")),
    }
}
