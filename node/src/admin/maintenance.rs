//! The Maintenance service: backups, and the proof that all nodes hold the same state.

use std::{io, pin::Pin};

use futures_util::Stream;
use prost::Message;
use quorumgate_proto::admin::v1::{self as admin, maintenance_server::Maintenance};
use quorumgate_raft_store::backup::{self, BackupHead};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::{
    config::taken,
    desk::{Desk, Read},
    failure,
};
use crate::{VERSION, consensus::Consensus, tasks::Tasks};

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait for the client.
const CHUNKS_MAX: usize = 4;

pub struct Service {
    desk: Desk,
    tasks: Tasks,
}

type Answer<T> = Result<Response<T>, Status>;
type Chunk = Result<admin::BackupChunk, Status>;

impl Service {
    pub fn new(consensus: Consensus, tasks: Tasks) -> Self {
        Self { desk: Desk { consensus }, tasks }
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    type BackupStream = Pin<Box<dyn Stream<Item = Chunk> + Send>>;

    async fn backup(&self, request: Request<admin::BackupRequest>) -> Answer<Self::BackupStream> {
        let (call, request) = taken(request)?;
        // Before the state: what it is sealed under is not forgotten in between.
        let keys = self.desk.consensus.keys();
        let state = self.desk.read(&call, Read::stale(request.stale)).await?;
        let keys = self.desk.consensus.keyring().at(&state).and(&keys);
        let unknown =
            || failure::status(Code::Unavailable, "NOT_BOOTSTRAPPED", "this node does not know its cluster yet");
        let facts = state.cluster.clone().ok_or_else(unknown)?;
        let consensus = self.desk.consensus.clone();
        let header = Some(self.desk.header_at(&state));
        let (chunks, received) = mpsc::channel(CHUNKS_MAX);
        tracing::info!(actor = call.actor.name, index = state.index, "a backup is taken");
        let written = tokio::task::spawn_blocking(move || {
            let past = consensus.past(&state);
            let head = BackupHead {
                cluster_id: facts.id.to_vec(),
                cluster_name: facts.name.clone(),
                node: consensus.view().name,
                version: VERSION.into(),
                index: state.index,
                revision: state.revision,
                state_hash: state.hash().0.to_vec(),
                wall_ms: state.wall_ms,
                level: facts.level,
                cluster_key: keys.to_bytes(),
                passphrase_salt: Vec::new(),
            };
            let first = admin::BackupChunk { header, head: head.encode_to_vec(), ..Default::default() };
            let mut sink = Sink { chunks, held: Vec::with_capacity(CHUNK_BYTES), hasher: blake3::Hasher::new() };
            sink.send(first)?;
            backup::write_records(&state, &past, &mut sink)?;
            sink.end()
        });
        self.tasks.detach(async move {
            if let Ok(Err(error)) = written.await {
                tracing::info!(%error, "a backup was not taken to its end");
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(received))))
    }

    async fn rotate_ca(&self, request: Request<admin::RotateCaRequest>) -> Answer<admin::RotateCaResponse> {
        let (call, request) = taken(request)?;
        self.desk.rotate_ca(&call, request.step()).await.map(Response::new)
    }

    async fn rotate_sealing_key(
        &self,
        request: Request<admin::RotateSealingKeyRequest>,
    ) -> Answer<admin::RotateSealingKeyResponse> {
        let (call, request) = taken(request)?;
        self.desk.rotate_sealing_key(&call, request.step()).await.map(Response::new)
    }

    async fn verify_state(&self, request: Request<admin::VerifyStateRequest>) -> Answer<admin::VerifyStateResponse> {
        let (call, _) = taken(request)?;
        let hashes = self.desk.consensus.state_hashes(call.left()).await;
        let known = hashes.iter().filter_map(|it| it.at);
        let (index, hash) = known.clone().max_by_key(|(index, _)| *index).unwrap_or_default();
        let verdict = match hashes.iter().all(|it| it.at.is_some_and(|(at, _)| at == index)) {
            _ if known.clone().any(|(at, found)| at == index && found != hash) => "different",
            true => "equal",
            false => "unknown",
        };
        let nodes = hashes.into_iter().map(|it| admin::verify_state_response::NodeHash {
            node: it.node,
            index: it.at.map_or(0, |(index, _)| index),
            hash: it.at.map(|(_, hash)| hash.to_string()).unwrap_or_default(),
            unreachable: it.at.is_none(),
        });
        Ok(Response::new(admin::VerifyStateResponse {
            header: Some(self.desk.header()),
            verdict: verdict.into(),
            nodes: nodes.collect(),
        }))
    }
}

/// Gathers records into chunks. Its end without a checksum tells the client that the backup is not whole.
struct Sink {
    chunks: mpsc::Sender<Chunk>,
    held: Vec<u8>,
    hasher: blake3::Hasher,
}

impl Sink {
    fn send(&self, chunk: admin::BackupChunk) -> io::Result<()> {
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| io::Error::other("the client has left"))
    }

    fn end(mut self) -> io::Result<()> {
        let records = std::mem::take(&mut self.held);
        let checksum = self.hasher.finalize().as_bytes().to_vec();
        self.send(admin::BackupChunk { records, checksum, ..Default::default() })
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.held.extend(bytes);
        if self.held.len() >= CHUNK_BYTES {
            let records = std::mem::take(&mut self.held);
            self.send(admin::BackupChunk { records, ..Default::default() })?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
