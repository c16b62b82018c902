//! The listeners: sockets, handshakes and connections, each within bounds: HTTP/2 for gRPC, either HTTP for JSON.

use std::{
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    fs,
    future::Future,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{gate::Gate, identity::Peer, tls::Acceptor};
use crate::tasks::Tasks;

/// Per listener, so that strangers on TCP cannot lock operators out of the socket.
const CONNECTIONS_MAX: usize = 512;
/// Of those, from one address: one client cannot take all the room.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;
const STREAMS_MAX: u32 = 256;
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Head and what is read ahead of a body.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// A silent connection is pinged after this, and closed when it does not answer in as long again.
const PING_AFTER: Duration = Duration::from_secs(20);
/// After a failed accept (mostly for want of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long calls in flight may take to end at shutdown.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Binds beside and renames over: a socket that a killed daemon left is replaced, and nobody sees one with wider rights.
pub fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    let fresh = path.with_extension("new");
    let bind = || {
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        fs::rename(&fresh, path)?;
        std::io::Result::Ok(listener)
    };
    bind().with_context(|| format!("binding the admin socket {} (at most 103 bytes)", path.display()))
}

/// Takes connections in and serves them.
#[derive(Clone)]
pub struct Door {
    gate: Arc<Gate>,
    tasks: Tasks,
}

impl Door {
    pub fn new(gate: Arc<Gate>, tasks: Tasks) -> Self {
        Self { gate, tasks }
    }

    pub async fn serve_unix(self, listener: UnixListener) -> anyhow::Result<()> {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let stop = self.tasks.stop();
        while let Some(permit) = stop.run_until_cancelled(room.clone().acquire_owned()).await {
            let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
            match accepted {
                Ok((stream, _)) => self.tasks.detach(self.clone().open_unix(stream, permit?)),
                Err(error) => pause(error).await,
            }
        }
        Ok(())
    }

    pub async fn serve_tls(self, listener: TcpListener, tls: Acceptor) -> anyhow::Result<()> {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let shares = Shares::default();
        let stop = self.tasks.stop();
        while let Some(permit) = stop.run_until_cancelled(room.clone().acquire_owned()).await {
            let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
            match accepted {
                Ok((stream, address)) => match shares.take(address.ip()) {
                    Some(share) => self.tasks.detach(self.clone().open_tls(stream, tls.clone(), (permit?, share))),
                    None => tracing::debug!(%address, "admin connection refused: its address has too many"),
                },
                Err(error) => pause(error).await,
            }
        }
        Ok(())
    }

    async fn open_unix(self, stream: UnixStream, _permit: OwnedSemaphorePermit) {
        match stream.peer_cred() {
            Ok(credentials) => self.serve(stream, Peer::Unix { uid: credentials.uid() }).await,
            Err(error) => tracing::debug!(%error, "admin socket without peer credentials"),
        }
    }

    async fn open_tls(self, stream: TcpStream, tls: Acceptor, _room: (OwnedSemaphorePermit, Share)) {
        let Ok(address) = stream.peer_addr() else { return };
        let _ = stream.set_nodelay(true);
        match timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = chain.and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
                self.serve(stream, Peer::Tls { address, certificate }).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "admin TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "admin TLS handshake not in time"),
        }
    }

    async fn serve<S>(self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { gate, tasks } = self;
        let stop = tasks.stop();
        let peer = Arc::new(peer);
        let source = peer.source();
        let service = service_fn(move |request| {
            let (gate, peer) = (gate.clone(), peer.clone());
            async move { Ok::<_, Infallible>(gate.handle(&peer, request).await) }
        });
        // Whoever connects and says nothing is not kept.
        let mut stream = BufReader::new(stream);
        if !matches!(timeout(HANDSHAKE_WITHIN, stream.fill_buf()).await, Ok(Ok(first)) if !first.is_empty()) {
            return;
        }
        let mut builder = auto::Builder::new(OnTasks(tasks));
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_WITHIN).max_buf_size(HTTP1_BUFFER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_AFTER);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = match stop.run_until_cancelled(connection.as_mut()).await {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                timeout(CLOSE_WITHIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(source, %error, "admin connection ended");
        }
    }
}

/// How many connections each address has; at most `CONNECTIONS_MAX` addresses have any.
#[derive(Clone, Default)]
struct Shares(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address, until it is dropped.
struct Share {
    address: IpAddr,
    of: Shares,
}

impl Shares {
    /// None when the address has as many as it may.
    fn take(&self, address: IpAddr) -> Option<Share> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Share { address, of: self.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

async fn pause(error: std::io::Error) {
    tracing::warn!(%error, "admin listener could not accept");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// hyper's streams as tasks of ours.
#[derive(Clone)]
struct OnTasks(Tasks);

impl<F> hyper::rt::Executor<F> for OnTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.detach(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_share_and_gives_it_back() {
        let shares = Shares::default();
        let [a, b] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut held: Vec<_> = (0..CONNECTIONS_PER_ADDRESS_MAX).map(|_| shares.take(a).unwrap()).collect();
        assert!(shares.take(a).is_none(), "it has its share");
        assert!(shares.take(b).is_some(), "others have theirs");
        held.pop();
        assert!(shares.take(a).is_some());
        drop(held);
        assert!(shares.0.lock().unwrap().is_empty(), "nothing is left of who has left");
    }
}
