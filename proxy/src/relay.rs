//! Connections whose bytes are none of ours: to one upstream, or to the one that the server name of their TLS leads to.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use quorumgate_model::resource::Name;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use crate::{
    connection::Conn,
    live::{Grant, Live},
    passthrough,
};

/// Neither side says anything for this long.
const IDLE_MS_MAX: u64 = 3_600_000;

pub(crate) fn is_idle(silent_ms: u64) -> bool {
    silent_ms > IDLE_MS_MAX
}

/// `otherwise`: where what no route takes is sent.
pub(crate) async fn by_server_name(conn: &Rc<Conn>, mut stream: TcpStream, otherwise: Option<&Name>) {
    let limit = conn.worker.shared.settings.limits.tls_handshake;
    let Ok(Some((name, hello))) = timeout(limit, passthrough::hello(&mut stream)).await else {
        return conn.worker.metrics.reject("tls_handshake");
    };
    // Neither rules nor names are kept for as long as the connection goes on.
    let found = {
        let shared = &conn.worker.shared;
        let (rules, client_ip) = (shared.ruleset.load_full(), conn.peer.ip().to_canonical());
        let names = conn.worker.server_names.of(&rules);
        let by = conn.listener.reception.load_full();
        let way = name.as_deref().and_then(|name| names.find(name, client_ip, by.name.as_ref()));
        let place = |it| shared.directory.geo.place(it);
        if way.is_some_and(|way| rules.shut_out(&way.rule, client_ip, place).is_some()) {
            return conn.worker.metrics.reject("ip_denied");
        }
        way.map(|way| way.upstream.clone())
    };
    match found.as_ref().or(otherwise) {
        Some(upstream) => to_upstream(conn, stream, upstream, hello).await,
        None => conn.worker.metrics.reject("no_route"),
    }
}

/// Both ways until both sides have ended, one breaks, or nothing moves. `early` was read from the client already.
pub(crate) async fn to_upstream(conn: &Rc<Conn>, stream: TcpStream, upstream: &Name, early: Bytes) {
    conn.enter_relay();
    let (metrics, directory) = (&conn.worker.metrics, &conn.worker.shared.directory);
    let client_ip = conn.peer.ip().to_canonical();
    // Before the question: a ban that comes behind it ends this one.
    let grant = Grant { conn: conn.key(), identity: None, client_ip, fresh_only: false, ends_at: None };
    let live = Live::enter(&conn.worker, grant);
    if directory.bans.of_address(client_ip, || directory.now_us()).is_some() {
        return metrics.reject("banned");
    }
    let mut raw = match conn.worker.pools.connect(upstream, conn.peer).await {
        Ok(raw) => raw,
        Err(error) => {
            tracing::debug!(%upstream, %error, peer = %conn.peer, "a connection found no upstream");
            return metrics.reject("no_healthy_upstream");
        }
    };
    if raw.stream.write_all(&early).await.is_err() {
        return metrics.reject("upstream_reset");
    }
    metrics.tunnels_open.add(1);
    let mut client = Moving { inner: stream, conn: conn.clone() };
    let _open = Open(conn);
    let mut copying = pin!(tokio::io::copy_bidirectional(&mut client, &mut raw.stream));
    let ended = poll_fn(|cx| match live.ended(cx) {
        Some(ended) => Poll::Ready(Some(ended)),
        // An error is the end of one side, which the other hears of.
        None => copying.as_mut().poll(cx).map(|_| None),
    })
    .await;
    if let Some(ended) = ended {
        metrics.reject(ended.code());
    }
}

struct Open<'a>(&'a Rc<Conn>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.worker.metrics.tunnels_open.sub(1);
    }
}

/// Tells its connection that bytes go through.
struct Moving {
    inner: TcpStream,
    conn: Rc<Conn>,
}

impl AsyncRead for Moving {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            self.conn.tunnel_moves();
        }
        read
    }
}

impl AsyncWrite for Moving {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if written.is_ready() {
            self.conn.tunnel_moves();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
