//! Nodes among themselves: one QUIC endpoint, mutual TLS, length-prefixed prost frames. Knows nothing of raft: what
//! comes in goes to an `Inbound`.

pub mod frame;
pub mod hello;
mod link;
mod pinned;
mod serve;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use quorumgate_model::{
    NodeId,
    mutants::{self, Mutant},
};
use quorumgate_proto::peer::v1 as pb;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::time::timeout;

use self::{
    hello::{Me, Use},
    link::Link,
};
pub use self::{
    pinned::{JoinFailure, ask_to_join},
    serve::{Inbound, Rights},
};
use crate::{
    pki::{Anchor, Held, Presented},
    tasks::Tasks,
};

/// Resolution, handshake and hello together.
const DIAL_MAX: Duration = Duration::from_secs(3);
/// A peer of whom nothing has come for this long is taken for unreachable: connections are kept alive each second.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// The close code of a side that refuses the other.
const CLOSE_REFUSED: u32 = 1;

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub id: NodeId,
    /// host:port
    pub address: String,
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There was no connection: the peer has certainly not seen the request.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The peer does not want this node: the reason is its own.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer may have seen the request.
    #[error("connection lost: {0}")]
    Lost(String),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// The endpoint and every connection; cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    member: quinn::ClientConfig,
    me: Me,
    anchor: Anchor,
    tasks: Tasks,
    links: Mutex<BTreeMap<(NodeId, Use), Arc<Link>>>,
    accepted: Mutex<BTreeMap<usize, (NodeId, Connection)>>,
    silent: Mutex<BTreeSet<NodeId>>,
    /// What the system gave the socket, for what comes in and what goes out.
    buffer_bytes: BufferBytes,
}

impl Peers {
    /// Binds the endpoint; `serve` answers.
    pub fn bind(listen: SocketAddr, me: Me, held: Arc<Held>, tasks: Tasks) -> anyhow::Result<Self> {
        let anchor = Anchor::of(&held.cas())?;
        let server = tls::server(held.clone(), anchor.clone())?;
        let member = tls::member(held.clone(), anchor.clone())?;
        let (socket, buffer_bytes) =
            bind_udp(listen).with_context(|| format!("binding the peer listener {listen} (UDP)"))?;
        let runtime = quinn::default_runtime().context("the peers need a tokio runtime")?;
        let endpoint = Endpoint::new(endpoint_config(&held), Some(server), socket, runtime)?;
        let (links, accepted, silent) = Default::default();
        let inner = Inner { endpoint, member, me, anchor, tasks, links, accepted, silent, buffer_bytes };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.inner.endpoint.local_addr()
    }

    /// The CAs whose certificates are taken, from the next handshake on.
    pub fn trust(&self, cas: &[CertificateDer<'_>]) -> anyhow::Result<()> {
        self.inner.anchor.trust(cas)
    }

    /// Of the socket, as the system counts them: for what comes in and what goes out.
    pub fn buffer_bytes(&self) -> BufferBytes {
        self.inner.buffer_bytes
    }

    /// The round trip to a peer, while there is a connection to it.
    pub fn rtt(&self, id: NodeId) -> Option<Duration> {
        Some(self.stats(id)?.path.rtt)
    }

    /// Of the control connection to a peer, while there is one.
    pub fn stats(&self, id: NodeId) -> Option<quinn::ConnectionStats> {
        let links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(&(id, Use::Control))?.stats()
    }

    /// Answers until the tasks are asked to stop.
    pub fn serve<I: Inbound>(&self, inbound: Arc<I>) {
        let server = serve::Server { peers: self.clone(), inbound };
        self.inner.tasks.start("peers", server.run(self.inner.tasks.stop()));
    }

    /// One request and its answer, on a stream of their own.
    pub async fn call(
        &self,
        target: &Target,
        call: pb::request::Call,
        deadline: Duration,
    ) -> Result<pb::response::Answer, CallError> {
        self.call_for(target, Use::Control, call, deadline).await
    }

    /// Asks for a new certificate: the only call for which an expired one is accepted.
    pub async fn call_renew(
        &self,
        target: &Target,
        request: pb::RenewRequest,
        deadline: Duration,
    ) -> Result<pb::response::Answer, CallError> {
        self.call_for(target, Use::Renew, pb::request::Call::Renew(request), deadline).await
    }

    async fn call_for(
        &self,
        target: &Target,
        r#use: Use,
        call: pb::request::Call,
        deadline: Duration,
    ) -> Result<pb::response::Answer, CallError> {
        let opened = timeout(deadline, self.open(target, r#use)).await;
        let (mut to, mut from) =
            opened.unwrap_or_else(|_| Err(CallError::Unreachable(format!("no connection within {deadline:?}"))))?;
        let exchange = async {
            frame::write(&mut to, &pb::Request { call: Some(call) }).await.map_err(lost)?;
            let _ = to.finish();
            let response: pb::Response = frame::expect(&mut from, frame::FRAME_MAX).await.map_err(lost)?;
            response.answer.ok_or_else(|| CallError::Lost("an empty answer".into()))
        };
        timeout(deadline, exchange).await.unwrap_or(Err(CallError::TimedOut(deadline)))
    }

    /// A new stream on the connection for that use, which is dialled if there is none.
    pub async fn open(&self, target: &Target, r#use: Use) -> Result<(SendStream, RecvStream), CallError> {
        let link = {
            let mut links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.entry((target.id, r#use)).or_insert_with(|| Arc::new(Link::new())).clone()
        };
        let connection = link.connection(self, target, r#use).await?;
        connection.open_bi().await.map_err(|error| CallError::Unreachable(error.to_string()))
    }

    /// Looks after the connections to these nodes; to be called about twice a second. Tells once when a peer falls silent,
    /// and once when it is back.
    pub fn look_after(&self, targets: &[Target]) {
        let now = Instant::now();
        for target in targets {
            let link = {
                let links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
                links.get(&(target.id, Use::Control)).cloned()
            };
            let Some(silence) = link.and_then(|link| link.silence(self, target, Use::Control, now)) else { continue };
            let mut silent = self.inner.silent.lock().unwrap_or_else(PoisonError::into_inner);
            match silence > SILENT_AFTER {
                true if silent.insert(target.id) => {
                    tracing::warn!(peer = target.id, address = target.address, ?silence, "a peer is out of reach");
                }
                false if silent.remove(&target.id) => tracing::info!(peer = target.id, "a peer is in reach again"),
                _ => {}
            }
        }
    }

    /// Nothing has come from it for `SILENT_AFTER`, as of the last look.
    pub fn is_silent(&self, id: NodeId) -> bool {
        self.inner.silent.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Closes the connections that nodes have made who are to be shut out.
    pub fn shut_out(&self, is_out: impl Fn(NodeId) -> bool) {
        let accepted = self.inner.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, connection) in accepted.values() {
            if is_out(*id) {
                connection.close(CLOSE_REFUSED.into(), b"removed");
            }
        }
    }

    /// Closes the connections to nodes that nothing is sent to any more.
    pub fn hang_up(&self, is_gone: impl Fn(NodeId) -> bool) {
        self.inner.silent.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| !is_gone(*id));
        let mut links = self.inner.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|(id, _), link| {
            let stays = !is_gone(*id);
            if !stays {
                link.close(b"removed");
            }
            stays
        });
    }

    /// Ends every connection at once.
    pub fn close(&self) {
        self.inner.endpoint.close(0u32.into(), b"shutting down");
    }

    /// Until the other sides have been told, or a short while.
    pub async fn closed(&self, patience: Duration) {
        let _ = timeout(patience, self.inner.endpoint.wait_idle()).await;
    }

    fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    async fn dial(&self, target: &Target, r#use: Use) -> Result<Connection, CallError> {
        let dial = async {
            let address = resolve(&target.address, self.inner.endpoint.local_addr().ok()).await?;
            let connecting = self
                .inner
                .endpoint
                .connect_with(self.inner.member.clone(), address, tls::SERVER_NAME)
                .map_err(|error| CallError::Unreachable(error.to_string()))?;
            let connection = connecting.await.map_err(|error| CallError::Unreachable(error.to_string()))?;
            let refuse = |reason: String| {
                connection.close(CLOSE_REFUSED.into(), reason.as_bytes());
                CallError::Refused(reason)
            };
            let identity = self.identity(&connection);
            let Some(Presented::Valid(identity)) = identity else {
                return Err(refuse("its certificate is missing or has expired".into()));
            };
            let is_it = identity.node == target.id && identity.cluster == self.inner.me.cluster;
            if !is_it && !mutants::is(Mutant::WhoeverAnswers) {
                return Err(refuse(format!("node {} was dialled and node {} answered", target.id, identity.node)));
            }
            let answer = exchange_hello(&connection, self.inner.me.hello(target.id, r#use)).await?;
            if !answer.refused.is_empty() {
                return Err(CallError::Refused(answer.refused));
            }
            self.inner.me.check(&answer, Some(target.id)).map_err(refuse)?;
            Ok(connection)
        };
        let dialled = timeout(DIAL_MAX, dial).await;
        dialled.unwrap_or_else(|_| Err(CallError::Unreachable(format!("no handshake within {DIAL_MAX:?}"))))
    }

    /// What the other side's certificate says, verified now.
    fn identity(&self, connection: &Connection) -> Option<Presented> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        // Both usages are in every node's certificate; the handshake has checked the right one.
        self.inner.anchor.verify(chain.first()?, webpki::KeyUsage::client_auth(), UnixTime::now()).ok()
    }
}

/// The dialler's half: says who it is on the first stream and hears the other.
async fn exchange_hello(connection: &Connection, hello: pb::Hello) -> Result<pb::Hello, CallError> {
    let exchange = async {
        let (mut to, mut from) = connection.open_bi().await.map_err(lost)?;
        frame::write(&mut to, &hello).await.map_err(lost)?;
        let _ = to.finish();
        frame::expect(&mut from, frame::STRANGER_FRAME_MAX).await.map_err(lost)
    };
    match exchange.await {
        // The handshake may end before the other side has judged our certificate.
        Err(CallError::Lost(error)) => {
            Err(CallError::Unreachable(connection.close_reason().map_or(error, |reason| reason.to_string())))
        }
        other => other,
    }
}

async fn resolve(address: &str, local: Option<SocketAddr>) -> Result<SocketAddr, CallError> {
    let found = tokio::net::lookup_host(address).await;
    let mut found = found.map_err(|error| CallError::Unreachable(format!("{address}: {error}")))?;
    found
        .find(|found| local.is_none_or(|local| local.is_ipv6() || found.is_ipv4()))
        .ok_or_else(|| CallError::Unreachable(format!("{address} has no address that this node can reach")))
}

fn lost(error: impl std::fmt::Display) -> CallError {
    CallError::Lost(error.to_string())
}

/// Of a socket, as far as the system says: for receiving, for sending.
pub type BufferBytes = (Option<u64>, Option<u64>);

/// Bound with large buffers where the system allows them; the default ones drop packets under load.
fn bind_udp(listen: SocketAddr) -> std::io::Result<(std::net::UdpSocket, BufferBytes)> {
    const BUFFER_BYTES: usize = 4 << 20;
    let socket = socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::DGRAM, None)?;
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    let bytes = |given: std::io::Result<usize>| given.ok().map(|bytes| bytes as u64);
    let given = (bytes(socket.recv_buffer_size()), bytes(socket.send_buffer_size()));
    Ok((socket.into(), given))
}

/// Resets are derived from a key that survives a restart: peers then learn at once that their connections to the process
/// before this one are gone, instead of waiting for the idle timeout.
fn endpoint_config(held: &Held) -> quinn::EndpointConfig {
    let secret = blake3::derive_key("quorumgate 2026 peer endpoint reset key", held.key().to_der().secret_der());
    let reset = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
    let mut config = quinn::EndpointConfig::new(Arc::new(reset));
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// quinn's own generator ignores packets of ids that it has not made, and so would never reset a connection to the
/// process before.
struct RandomIds;

impl quinn::ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&uuid::Uuid::new_v4().into_bytes())
    }

    fn cid_len(&self) -> usize {
        16
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
