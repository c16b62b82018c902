//! One worker's connections to one endpoint: HTTP/1 ones lie idle until taken, HTTP/2 ones are shared.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
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

use super::{
    Failure,
    counters::Gauge,
    dialer::Dialer,
    endpoint::Endpoint,
    interim::Mailbox,
    outgoing::Outgoing,
    socket::Socket,
    tls::Speaks,
    wire::{Watch, Wire},
};

/// Below the 60 s after which common servers close.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(55);
/// Idle HTTP/1 connections that a worker keeps to one endpoint; the one idle for longest goes first.
pub(super) const IDLE_CONNECTIONS_MAX: usize = 256;
/// HTTP/2 connections of a worker to one endpoint, and the streams at which another one is opened.
const H2_CONNECTIONS_MAX: usize = 4;
const H2_STREAMS_PER_CONNECTION: usize = 100;
/// Read and write buffers of a connection; a response head must fit.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// In the head of an answer over HTTP/1, as many as clients may send. Above 100 the library's room for them is on the heap, two
/// blocks of 4 KiB while it parses, of requests too: it cannot be told to take more only where more come.
const HEADER_FIELDS_MAX: usize = 128;
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 4 << 20;
/// For the SETTINGS of a peer that is asked for more than answers, and how often is looked for them.
const H2_SETTINGS_WAIT: Duration = Duration::from_secs(1);
const H2_SETTINGS_LOOK: Duration = Duration::from_millis(2);
const H2_HEADER_LIST_BYTES_MAX: u32 = 64 << 10;

pub(super) struct Pool {
    pub endpoint: Arc<Endpoint>,
    /// The worker's own copies of `endpoint.target`: cloning them touches no memory of other workers.
    pub target: Arc<str>,
    pub host: HeaderValue,
    dialer: Arc<Dialer>,
    gauge: Gauge,
    idle: RefCell<VecDeque<Idle>>,
    shared: RefCell<Vec<Rc<Multiplexed>>>,
    /// What the peer allowed on the connection dialed last: a guess for the next, until its SETTINGS are here.
    streams_guess: Cell<usize>,
    /// One HTTP/2 dial at a time: those who wait for it find its connection.
    dialing: Semaphore,
    /// TLS agreed on HTTP/1 the last time, where either would do.
    settled_for_http1: Cell<bool>,
}

/// What a new connection is for.
#[derive(Clone, Copy)]
pub(super) struct Purpose {
    /// How long it may take to come about.
    pub limit: Duration,
    /// The client that asks.
    pub whom: Option<SocketAddr>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// An HTTP/1 connection; dropped, it is closed.
pub(super) struct Connection {
    pub sender: http1::SendRequest<Outgoing>,
    pub watch: Watch,
    pub mailbox: Mailbox,
    task: AbortHandle,
    gauge: Gauge,
}

type Handshake = (http1::SendRequest<Outgoing>, Watch, http1::Connection<TokioIo<Wire>, Outgoing>);

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
type Driven = Option<http2::Connection<TokioIo<Wire>, Outgoing, Local>>;

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
    pub fn new(endpoint: Arc<Endpoint>, dialer: Arc<Dialer>, gauge: Gauge) -> Self {
        let target = Arc::from(&*endpoint.target);
        let host = HeaderValue::from_str(&target).expect("an authority is made of letters, digits and .:-_[]");
        Self {
            endpoint,
            target,
            host,
            dialer,
            gauge,
            idle: RefCell::default(),
            shared: RefCell::default(),
            streams_guess: Cell::new(H2_STREAMS_PER_CONNECTION),
            dialing: Semaphore::new(1),
            settled_for_http1: Cell::new(false),
        }
    }

    pub fn is_tls(&self) -> bool {
        self.dialer.is_tls()
    }

    /// The connection used last that still stands.
    pub fn take_idle(&self, now: Instant, checked: Checked) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(it) = idle.pop_back() {
            self.gauge.idle(-1);
            let stands = it.connection.sender.is_ready() && now.saturating_duration_since(it.since) < IDLE_MAX;
            if stands && (checked == Checked::ByUse || it.connection.watch.is_quiet()) {
                return Some(it.connection);
            }
        }
        None
    }

    /// Takes a connection back if it has finished its exchange on both sides; else it is closed.
    pub fn give_back(&self, connection: Connection, now: Instant) {
        if !connection.sender.is_ready() || self.dialer.tells_whom() {
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

    pub async fn dial(&self, purpose: Purpose) -> Result<Connection, Failure> {
        self.single(self.connect(purpose, Speaks::Configured).await?).await
    }

    async fn single(&self, wire: Wire) -> Result<Connection, Failure> {
        let (sender, watch, connection) = handshake(wire).await?;
        // Its end shows in `sender`; the error reaches whoever has a request on it.
        let task = tokio::task::spawn_local(connection).abort_handle();
        Ok(self.connection(sender, watch, task))
    }

    /// A connection for one request that asks for another protocol; behind a 101 it is handed over, with what came in.
    pub async fn dial_upgrade(
        &self,
        purpose: Purpose,
    ) -> Result<(Connection, oneshot::Receiver<(Bytes, Wire)>), Failure> {
        let (sender, watch, connection) = handshake(self.connect(purpose, Speaks::Http1).await?).await?;
        let (tell, rest) = oneshot::channel();
        let work = async move {
            if let Ok(parts) = connection.without_shutdown().await {
                // Nobody waits any more if the exchange has ended.
                let _ = tell.send((parts.read_buf, parts.io.into_inner()));
            }
        };
        let task = tokio::task::spawn_local(work).abort_handle();
        Ok((self.connection(sender, watch, task), rest))
    }

    fn connection(&self, sender: http1::SendRequest<Outgoing>, watch: Watch, task: AbortHandle) -> Connection {
        self.gauge.open(1);
        Connection { sender, watch, mailbox: Mailbox::default(), task, gauge: self.gauge.clone() }
    }

    /// A stream on the least busy connection, on a new one if all are full; where TLS may agree on either protocol, an
    /// HTTP/1 connection if it does so. The duration is that of a dial.
    async fn stream(&self, purpose: Purpose) -> Result<(Link, Option<Duration>), Failure> {
        if let Some(stream) = self.shared_stream() {
            return Ok((Link::Http2(stream), None));
        }
        let started = Instant::now();
        let either = self.dialer.protocol() == Protocol::Auto;
        let _alone = match either && self.settled_for_http1.get() {
            true => None,
            false => {
                let alone = tokio::time::timeout(purpose.limit, self.dialing.acquire()).await;
                Some(alone.map_err(|_| Failure::ConnectTimeout)?.expect("the semaphore is never closed"))
            }
        };
        if let Some(stream) = self.shared_stream() {
            return Ok((Link::Http2(stream), None));
        }
        let rest = Purpose { limit: purpose.limit.saturating_sub(started.elapsed()), ..purpose };
        let link = tokio::time::timeout(rest.limit, async {
            let wire = self.connect(rest, Speaks::Configured).await?;
            match wire.is_http2() {
                Some(false) if either => {
                    self.settled_for_http1.set(true);
                    Ok(Link::Http1(self.single(wire).await?))
                }
                Some(false) => Err(Failure::Tls(io::Error::other("the server has no HTTP/2"))),
                _ => {
                    self.settled_for_http1.set(false);
                    Ok(Link::Http2(self.share(self.multiplex(wire).await?)))
                }
            }
        });
        let link = link.await.map_err(|_| Failure::ConnectTimeout)??;
        Ok((link, Some(started.elapsed())))
    }

    fn share(&self, connection: Multiplexed) -> Stream {
        let connection = Rc::new(connection);
        let mut shared = self.shared.borrow_mut();
        if shared.len() < H2_CONNECTIONS_MAX {
            shared.push(connection.clone());
        }
        Stream::new(connection)
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

    async fn multiplex(&self, wire: Wire) -> Result<Multiplexed, Failure> {
        let mut builder = http2::Builder::new(Local);
        builder
            .timer(TokioTimer::new())
            .initial_max_send_streams(self.streams_guess.get())
            .keep_alive_interval(H2_PING_INTERVAL)
            .keep_alive_timeout(H2_PING_TIMEOUT)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(H2_HEADER_LIST_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(wire)).await?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        tokio::task::spawn_local(drive(connection.clone()));
        self.gauge.open(1);
        let idle_since = Cell::new(Instant::now());
        Ok(Multiplexed { sender, connection, streams: Cell::new(0), idle_since, gauge: self.gauge.clone() })
    }

    /// For bytes that are none of ours: no TLS is put around them.
    pub async fn connect_raw(&self, whom: SocketAddr, limit: Duration) -> Result<TcpStream, Failure> {
        self.dialer.connect(&self.endpoint, Some(whom), limit).await
    }

    async fn connect(&self, purpose: Purpose, speaks: Speaks) -> Result<Wire, Failure> {
        let started = Instant::now();
        let stream = self.dialer.connect(&self.endpoint, purpose.whom, purpose.limit).await?;
        let left = if self.is_tls() { purpose.limit.saturating_sub(started.elapsed()) } else { purpose.limit };
        Ok(Wire::new(self.dialer.secure(Socket::new(stream), &self.endpoint, speaks, left).await?))
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
    pub async fn link(&self, purpose: Purpose) -> Result<(Link, Option<Duration>), Failure> {
        if self.is_single() {
            let started = Instant::now();
            let connection = self.dial(purpose).await?;
            return Ok((Link::Http1(connection), Some(started.elapsed())));
        }
        self.stream(purpose).await
    }

    /// The same for a stream that becomes something else (RFC 8441), which the peer's SETTINGS must allow.
    pub async fn link_upgrade(&self, purpose: Purpose) -> Result<(Link, Option<Duration>), Failure> {
        let (link, dialed) = self.link(purpose).await?;
        match &link {
            Link::Http2(stream) if stream.0.takes_connect().await => Ok((link, dialed)),
            _ => Err(Failure::NoUpgrade),
        }
    }

    /// Every connection is HTTP/1.
    pub fn is_single(&self) -> bool {
        match self.dialer.protocol() {
            Protocol::Http1 => true,
            Protocol::Http2 | Protocol::Grpc => false,
            Protocol::Auto => !self.is_tls(),
        }
    }
}

async fn handshake(wire: Wire) -> Result<Handshake, Failure> {
    let watch = wire.watch();
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX).max_headers(HEADER_FIELDS_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(wire)).await?;
    Ok((sender, watch, connection))
}

impl Link {
    /// Whether a response has begun can be told on HTTP/1 only, where the connection serves one at a time.
    pub fn bytes_read(&self) -> u64 {
        match self {
            Self::Http1(connection) => connection.watch.bytes_read(),
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
    /// None: there are `max` already; 0 is any number.
    pub fn new(pool: &Rc<Pool>, max: u32) -> Option<Self> {
        match max {
            0 => pool.endpoint.begin(),
            max if !pool.endpoint.begin_below(max) => return None,
            _ => (),
        }
        Some(Self(pool.clone()))
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

    /// What a new peer takes shows with its first frame only, of which the library tells nobody.
    async fn takes_connect(&self) -> bool {
        let told = async {
            loop {
                match self.connection.borrow().as_ref().map(|it| it.is_extended_connect_protocol_enabled()) {
                    Some(false) => (),
                    Some(true) => return true,
                    None => return false,
                }
                tokio::time::sleep(H2_SETTINGS_LOOK).await;
            }
        };
        tokio::time::timeout(H2_SETTINGS_WAIT, told).await.unwrap_or(false)
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
