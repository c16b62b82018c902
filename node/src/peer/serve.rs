//! The listening side: who may ask for what, and one task for each connection and each call.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use quinn::{Connection, Incoming, RecvStream, SendStream};
use quorumgate_model::{
    NodeId,
    mutants::{self, Mutant},
};
use quorumgate_proto::peer::v1::{self as pb, failure::Reason, request::Call, response::Answer};
use tokio::{io::AsyncWriteExt, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{CLOSE_REFUSED, Peers, frame, hello::Use, lost};
use crate::pki::{PeerIdentity, Presented};

/// From the first packet to the hello.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// How long a refused side may take to read why.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Connections that are not yet a member's.
const STRANGERS_MAX: usize = 64;
/// How long a stranger may stay: one call.
const STRANGER_MAX: Duration = Duration::from_secs(30);
/// A snapshot's next chunk.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(30);

/// What a connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    Member(PeerIdentity),
    /// An expired certificate of a member: a new one.
    Renew(PeerIdentity),
    /// No certificate.
    Join,
}

/// What answers the peers.
pub trait Inbound: Send + Sync + 'static {
    /// Whether the certificate's holder belongs to the cluster as this node knows it; the reason if not.
    fn admit(&self, identity: &PeerIdentity, incarnation: &[u8]) -> Result<(), String>;

    fn call(&self, rights: Rights, from: SocketAddr, call: Call) -> impl Future<Output = Answer> + Send;

    /// Answers come in the order of the requests.
    fn append(&self, requests: BoxStream<'static, pb::AppendRequest>) -> BoxStream<'static, pb::AppendResponse>;

    /// A file that does not exist yet, for the next snapshot that comes in.
    fn snapshot_file(&self) -> PathBuf;

    /// Takes over a file that is complete, but was not verified.
    fn snapshot(&self, head: pb::SnapshotRequest, file: PathBuf) -> impl Future<Output = Answer> + Send;
}

pub(super) struct Server<I> {
    pub peers: Peers,
    pub inbound: Arc<I>,
}

impl<I: Inbound> Server<I> {
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        while let Some(Some(incoming)) = stop.run_until_cancelled(self.peers.inner.endpoint.accept()).await {
            let Ok(slot) = strangers.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let (peers, inbound) = (self.peers.clone(), self.inbound.clone());
            self.peers.tasks().detach(async move {
                let from = incoming.remote_address();
                let greeted = timeout(HELLO_MAX, greet(&peers, &*inbound, incoming)).await;
                match greeted.unwrap_or_else(|_| Err(format!("no hello within {HELLO_MAX:?}"))) {
                    Ok((connection, Rights::Member(identity), r#use)) => {
                        drop(slot);
                        peers.keep(identity.node, connection.clone());
                        tracing::debug!(peer = identity.node, %from, ?r#use, "peer connected");
                        serve_member(&peers, inbound, connection.clone(), identity).await;
                        peers.forget(&connection);
                    }
                    Ok((connection, rights, _)) => serve_stranger(inbound, connection, rights).await,
                    Err(reason) => tracing::info!(%from, reason, "refused a peer connection"),
                }
            });
        }
        Ok(())
    }
}

impl Peers {
    fn keep(&self, node: NodeId, connection: Connection) {
        let mut accepted = self.inner.accepted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        accepted.insert(connection.stable_id(), (node, connection));
    }

    fn forget(&self, connection: &Connection) {
        let mut accepted = self.inner.accepted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        accepted.remove(&connection.stable_id());
    }
}

/// The handshake and both hellos.
async fn greet<I: Inbound>(
    peers: &Peers,
    inbound: &I,
    incoming: Incoming,
) -> Result<(Connection, Rights, Use), String> {
    let connection = incoming.await.map_err(|error| error.to_string())?;
    let (mut to, mut from) = connection.accept_bi().await.map_err(|error| error.to_string())?;
    let hello: pb::Hello = frame::expect(&mut from, frame::STRANGER_FRAME_MAX).await.map_err(|e| e.to_string())?;
    let judged = rights(peers, inbound, &connection, &hello);
    let mut answer = peers.inner.me.hello(hello.node_id, hello.r#use());
    if let Err(reason) = &judged {
        answer.refused = reason.clone();
    }
    frame::write(&mut to, &answer).await.map_err(|error| error.to_string())?;
    let _ = to.finish();
    match judged {
        Ok(rights) => Ok((connection, rights, hello.r#use())),
        Err(reason) => {
            // The refused side hangs up once it has read why.
            let _ = timeout(FAREWELL_MAX, connection.closed()).await;
            connection.close(CLOSE_REFUSED.into(), reason.as_bytes());
            Err(reason)
        }
    }
}

fn rights<I: Inbound>(
    peers: &Peers,
    inbound: &I,
    connection: &Connection,
    hello: &pb::Hello,
) -> Result<Rights, String> {
    let r#use = hello.r#use();
    if r#use == Use::Join {
        return Ok(Rights::Join);
    }
    let presented = peers.identity(connection).ok_or("no certificate of this cluster")?;
    let (Presented::Valid(identity) | Presented::Expired(identity)) = presented;
    peers.inner.me.check(hello, None)?;
    let is_its = (identity.node, identity.cluster) == (hello.node_id, peers.inner.me.cluster);
    if !is_its && !mutants::is(Mutant::CertificateBorrowed) {
        return Err("the certificate is of another node or cluster".into());
    }
    inbound.admit(&identity, &hello.incarnation)?;
    match (r#use, presented) {
        (Use::Renew, _) => Ok(Rights::Renew(identity)),
        (Use::Control | Use::Bulk, Presented::Valid(_)) => Ok(Rights::Member(identity)),
        (Use::Control | Use::Bulk, Presented::Expired(_)) => Err("the certificate has expired".into()),
        (Use::Join | Use::Unspecified, _) => Err("an unknown use".into()),
    }
}

/// Until the connection ends; the number of streams is bounded by the transport.
async fn serve_member<I: Inbound>(peers: &Peers, inbound: Arc<I>, connection: Connection, identity: PeerIdentity) {
    let from = connection.remote_address();
    while let Ok((to, recv)) = connection.accept_bi().await {
        let inbound = inbound.clone();
        peers.tasks().detach(async move {
            if let Err(error) = serve_stream(&*inbound, identity, from, to, recv).await {
                tracing::debug!(peer = identity.node, error, "a peer's stream ended early");
            }
        });
    }
}

async fn serve_stream<I: Inbound>(
    inbound: &I,
    identity: PeerIdentity,
    from: SocketAddr,
    mut to: SendStream,
    mut recv: RecvStream,
) -> Result<(), String> {
    let Some(request) = frame::read::<pb::Request>(&mut recv, frame::FRAME_MAX).await.map_err(|e| e.to_string())?
    else {
        return Ok(());
    };
    let answer = match request.call {
        Some(Call::Append(first)) => return serve_append(inbound, first, to, recv).await,
        Some(Call::Snapshot(head)) => receive_snapshot(inbound, head, recv).await,
        Some(call) => inbound.call(Rights::Member(identity), from, call).await,
        None => failure(Reason::Invalid, "an unknown call"),
    };
    frame::write(&mut to, &pb::Response { answer: Some(answer) }).await.map_err(|error| error.to_string())?;
    let _ = to.finish();
    Ok(())
}

/// A replication session: requests as they come, answers in their order, until either side ends it.
async fn serve_append<I: Inbound>(
    inbound: &I,
    first: pb::AppendRequest,
    mut to: SendStream,
    recv: RecvStream,
) -> Result<(), String> {
    let rest = futures_util::stream::unfold(recv, |mut recv| async move {
        match frame::read::<pb::Request>(&mut recv, frame::FRAME_MAX).await {
            Ok(Some(pb::Request { call: Some(Call::Append(request)) })) => Some((request, recv)),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "a replication stream ended early");
                None
            }
        }
    });
    let requests = futures_util::stream::once(std::future::ready(first)).chain(rest);
    let mut answers = inbound.append(requests.boxed());
    while let Some(answer) = answers.next().await {
        let response = pb::Response { answer: Some(Answer::Append(answer)) };
        frame::write(&mut to, &response).await.map_err(|error| error.to_string())?;
    }
    let _ = to.finish();
    Ok(())
}

async fn receive_snapshot<I: Inbound>(inbound: &I, head: pb::SnapshotRequest, recv: RecvStream) -> Answer {
    let file = inbound.snapshot_file();
    if let Err(error) = store_snapshot(&file, head.length, recv).await {
        let _ = tokio::fs::remove_file(&file).await;
        return failure(Reason::Refused, &format!("receiving the snapshot: {error}"));
    }
    inbound.snapshot(head, file).await
}

async fn store_snapshot(file: &std::path::Path, length: u64, mut recv: RecvStream) -> anyhow::Result<()> {
    let mut out = tokio::fs::File::create_new(file).await?;
    let mut left = length;
    while left > 0 {
        let allowed = left.min(frame::CHUNK_MAX as u64) as usize;
        let chunk = timeout(CHUNK_WAIT_MAX, frame::read_bytes(&mut recv, allowed)).await??;
        let chunk = chunk.ok_or_else(|| anyhow::anyhow!("it ended {left} bytes early"))?;
        left -= chunk.len() as u64;
        out.write_all(&chunk).await?;
    }
    out.sync_all().await?;
    Ok(())
}

/// One call of a joiner, or of a member whose certificate has expired.
async fn serve_stranger<I: Inbound>(inbound: Arc<I>, connection: Connection, rights: Rights) {
    let from = connection.remote_address();
    let serve = async {
        let (mut to, mut recv) = connection.accept_bi().await.map_err(lost)?;
        let request: pb::Request = frame::expect(&mut recv, frame::STRANGER_FRAME_MAX).await.map_err(lost)?;
        let answer = match (rights, request.call) {
            (Rights::Join, Some(call @ Call::Join(_))) => inbound.call(rights, from, call).await,
            (Rights::Renew(_), Some(call @ Call::Renew(_))) => inbound.call(rights, from, call).await,
            _ => failure(Reason::Refused, "not with this certificate"),
        };
        frame::write(&mut to, &pb::Response { answer: Some(answer) }).await.map_err(lost)?;
        let _ = to.finish();
        connection.closed().await;
        Ok::<(), super::CallError>(())
    };
    match timeout(STRANGER_MAX, serve).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, %error, "a stranger's call ended early"),
        Err(_) => connection.close(CLOSE_REFUSED.into(), b"too slow"),
    }
}

fn failure(reason: Reason, message: &str) -> Answer {
    Answer::Failure(pb::Failure { reason: reason.into(), message: message.into(), ..Default::default() })
}
