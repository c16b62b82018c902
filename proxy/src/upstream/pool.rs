//! One worker's connections to one endpoint: HTTP/1 ones lie idle until taken, HTTP/2 ones are shared.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use quorumgate_model::resource::Protocol;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, oneshot},
    task::AbortHandle,
    time::Instant,
};

use super::{Failure, counters::Gauge, endpoint::Endpoint, outgoing::Outgoing, socket::Socket};

/// Below the 60 s after which common servers close.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(55);
/// Idle HTTP/1 connections that a worker keeps to one endpoint; the one idle for longest goes first.
pub(super) const IDLE_CONNECTIONS_MAX: usize = 256;
/// HTTP/2 connections of a worker to one endpoint, and the streams at which another one is opened.
const H2_CONNECTIONS_MAX: usize = 4;
const H2_STREAMS_PER_CONNECTION: usize = 100;
/// Read and write buffers of a connection; a response head must fit.
const BUFFER_BYTES_MAX: usize = 128 << 10;
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 4 << 20;
const H2_HEADER_LIST_BYTES_MAX: u32 = 64 << 10;

pub(super) struct Pool {
    pub endpoint: Arc<Endpoint>,
    /// The worker's own copies of `endpoint.target`: cloning them touches no memory of other workers.
    pub target: Arc<str>,
    pub host: HeaderValue,
    gauge: Gauge,
    idle: RefCell<VecDeque<Idle>>,
    shared: RefCell<Vec<Rc<Multiplexed>>>,
    /// What the peer allowed on the connection dialed last: a guess for the next, until its SETTINGS are here.
    streams_guess: Cell<usize>,
    /// One HTTP/2 dial at a time: those who wait for it find its connection.
    dialing: Semaphore,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// An HTTP/1 connection; dropped, it is closed.
pub(super) struct Connection {
    pub sender: http1::SendRequest<Outgoing>,
    pub socket: Socket,
    task: AbortHandle,
    gauge: Gauge,
}

type Handshake = (http1::SendRequest<Outgoing>, Socket, http1::Connection<TokioIo<Socket>, Outgoing>);

/// An HTTP/2 connection; it closes when its last stream and its place in the pool are gone.
pub(super) struct Multiplexed {
    pub sender: http2::SendRequest<Outgoing>,
    /// Driven by its task; here only to be asked what the peer allows.
    connection: Rc<RefCell<Driven>>,
    streams: Cell<usize>,
    idle_since: Cell<Instant>,
    gauge: Gauge,
}

/// None once it has ended: requests still queued in it are handed back when it is dropped.
type Driven = Option<http2::Connection<TokioIo<Socket>, Outgoing, Local>>;

/// One stream of an HTTP/2 connection.
pub(super) struct Stream(pub Rc<Multiplexed>);

/// Whether a pooled connection is asked of the kernel before it is trusted with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// The request may not be sent twice, so a closed connection must be noticed before.
    ByPeek,
    /// A closed connection shows when it is used, and the request is sent again on a fresh one.
    ByUse,
}

impl Pool {
    pub fn new(endpoint: Arc<Endpoint>, gauge: Gauge) -> Self {
        let target = Arc::from(&*endpoint.target);
        let host = HeaderValue::from_str(&target).expect("an authority is made of letters, digits and .:-_[]");
        Self {
            endpoint,
            target,
            host,
            gauge,
            idle: RefCell::default(),
            shared: RefCell::default(),
            streams_guess: Cell::new(H2_STREAMS_PER_CONNECTION),
            dialing: Semaphore::new(1),
        }
    }

    /// The connection used last that still stands.
    pub fn take_idle(&self, now: Instant, checked: Checked) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(it) = idle.pop_back() {
            self.gauge.idle(-1);
            let stands = it.connection.sender.is_ready() && now.saturating_duration_since(it.since) < IDLE_MAX;
            if stands && (checked == Checked::ByUse || it.connection.socket.is_quiet()) {
                return Some(it.connection);
            }
        }
        None
    }

    /// Takes a connection back if it has finished its exchange on both sides; else it is closed.
    pub fn give_back(&self, connection: Connection, now: Instant) {
        if !connection.sender.is_ready() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() == IDLE_CONNECTIONS_MAX {
            idle.pop_front();
            self.gauge.idle(-1);
        }
        idle.push_back(Idle { connection, since: now });
        self.gauge.idle(1);
    }

    pub async fn dial(&self, limit: Duration) -> Result<Connection, Failure> {
        let (sender, socket, connection) = self.handshake(limit).await?;
        // Its end shows in `sender`; the error reaches whoever has a request on it.
        let task = tokio::task::spawn_local(connection).abort_handle();
        Ok(self.connection(sender, socket, task))
    }

    /// A connection for one request that asks for another protocol; what comes in behind a 101 is handed over.
    pub async fn dial_upgrade(&self, limit: Duration) -> Result<(Connection, oneshot::Receiver<Bytes>), Failure> {
        let (sender, socket, connection) = self.handshake(limit).await?;
        let (tell, rest) = oneshot::channel();
        let work = async move {
            if let Ok(parts) = connection.without_shutdown().await {
                // Nobody waits any more if the exchange has ended.
                let _ = tell.send(parts.read_buf);
            }
        };
        let task = tokio::task::spawn_local(work).abort_handle();
        Ok((self.connection(sender, socket, task), rest))
    }

    async fn handshake(&self, limit: Duration) -> Result<Handshake, Failure> {
        let stream = self.connect(limit).await?;
        let socket = Socket::new(stream);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(socket.clone())).await?;
        Ok((sender, socket, connection))
    }

    fn connection(&self, sender: http1::SendRequest<Outgoing>, socket: Socket, task: AbortHandle) -> Connection {
        self.gauge.open(1);
        Connection { sender, socket, task, gauge: self.gauge.clone() }
    }

    /// A stream on the least busy connection, on a new one if all are full. The duration is that of a dial.
    pub async fn stream(&self, limit: Duration) -> Result<(Stream, Option<Duration>), Failure> {
        if let Some(stream) = self.shared_stream() {
            return Ok((stream, None));
        }
        let started = Instant::now();
        let alone = tokio::time::timeout(limit, self.dialing.acquire()).await.map_err(|_| Failure::ConnectTimeout)?;
        let _alone = alone.expect("the semaphore is never closed");
        if let Some(stream) = self.shared_stream() {
            return Ok((stream, None));
        }
        let limit = limit.saturating_sub(started.elapsed());
        let dial = tokio::time::timeout(limit, self.dial_shared(limit));
        let connection = Rc::new(dial.await.map_err(|_| Failure::ConnectTimeout)??);
        self.shared.borrow_mut().push(connection.clone());
        Ok((Stream::new(connection), Some(started.elapsed())))
    }

    fn shared_stream(&self) -> Option<Stream> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|it| !it.sender.is_closed());
        let best = shared.iter().min_by_key(|it| it.streams.get())?;
        let room = best.streams.get() < best.streams_max() || shared.len() >= H2_CONNECTIONS_MAX;
        if !room {
            self.streams_guess.set(best.streams_max());
        }
        room.then(|| Stream::new(best.clone()))
    }

    async fn dial_shared(&self, limit: Duration) -> Result<Multiplexed, Failure> {
        let stream = self.connect(limit).await?;
        let mut builder = http2::Builder::new(Local);
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(self.streams_guess.get())
            .keep_alive_interval(H2_PING_INTERVAL)
            .keep_alive_timeout(H2_PING_TIMEOUT)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(H2_HEADER_LIST_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(Socket::new(stream))).await?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        tokio::task::spawn_local(drive(connection.clone()));
        self.gauge.open(1);
        let idle_since = Cell::new(Instant::now());
        Ok(Multiplexed { sender, connection, streams: Cell::new(0), idle_since, gauge: self.gauge.clone() })
    }

    async fn connect(&self, limit: Duration) -> Result<TcpStream, Failure> {
        let connect = TcpStream::connect(self.endpoint.address);
        let stream = match tokio::time::timeout(limit, connect).await {
            Err(_) => return Err(Failure::ConnectTimeout),
            Ok(connected) => connected.map_err(Failure::Connect)?,
        };
        // Fails only on a connection that is already gone, which the request will find out.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Closes what has been idle for too long or was closed by the peer.
    pub fn sweep(&self) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|it| it.connection.sender.is_ready() && it.since.elapsed() < IDLE_MAX);
        self.gauge.idle(idle.len() as i64 - before as i64);
        let fresh = |it: &Rc<Multiplexed>| it.streams.get() > 0 || it.idle_since.get().elapsed() < IDLE_MAX;
        self.shared.borrow_mut().retain(|it| !it.sender.is_closed() && fresh(it));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.gauge.idle(-(self.idle.get_mut().len() as i64));
    }
}

/// The protocol decides which kind of connection `pool` hands out.
pub(super) enum Link {
    Http1(Connection),
    Http2(Stream),
}

impl Pool {
    /// A fresh connection, or a stream of a shared one, and how long a dial took.
    pub async fn link(&self, protocol: Protocol, limit: Duration) -> Result<(Link, Option<Duration>), Failure> {
        if protocol == Protocol::Http2 {
            let (stream, took) = self.stream(limit).await?;
            return Ok((Link::Http2(stream), took));
        }
        let started = Instant::now();
        let connection = self.dial(limit).await?;
        Ok((Link::Http1(connection), Some(started.elapsed())))
    }
}

impl Link {
    /// Whether a response has begun can be told on HTTP/1 only, where the connection serves one at a time.
    pub fn bytes_read(&self) -> u64 {
        match self {
            Self::Http1(connection) => connection.socket.bytes_read(),
            Self::Http2(_) => 0,
        }
    }

    /// An error carries the request if nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        match self {
            Self::Http1(connection) => connection.sender.try_send_request(request).await,
            Self::Http2(stream) => {
                let mut sender = stream.0.sender.clone();
                sender.try_send_request(request).await
            }
        }
    }
}

/// One request in flight, for as long as it lives.
pub(super) struct InFlight(pub Rc<Pool>);

impl InFlight {
    pub fn new(pool: &Rc<Pool>) -> Self {
        pool.endpoint.begin();
        Self(pool.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.endpoint.end();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // An idle task would end by itself; one amid an exchange that nobody waits for any more would not.
        self.task.abort();
        self.gauge.open(-1);
    }
}

impl Multiplexed {
    fn streams_max(&self) -> usize {
        let allowed = self.connection.borrow().as_ref().map_or(0, |it| it.current_max_send_streams());
        allowed.clamp(1, H2_STREAMS_PER_CONNECTION)
    }
}

impl Drop for Multiplexed {
    fn drop(&mut self) {
        self.gauge.open(-1);
    }
}

impl Stream {
    fn new(connection: Rc<Multiplexed>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(connection)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// Errors reach whoever has a request on the connection.
async fn drive(connection: Rc<RefCell<Driven>>) {
    let ended = |cx: &mut Context<'_>| {
        let mut connection = connection.borrow_mut();
        connection.as_mut().map_or(Poll::Ready(()), |it| Pin::new(it).poll(cx).map(drop))
    };
    poll_fn(ended).await;
    let _ended = connection.take();
}

/// Runs an HTTP/2 connection's tasks on its worker.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
