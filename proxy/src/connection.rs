//! One client connection: TLS, telling HTTP/2 from HTTP/1, hyper's server, and the clocks that end it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Version};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use quorumgate_model::canonical::Slashes;
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    exchange,
    framescan::{FrameScan, LibraryError},
    headscan::{HeadScan, Wrong},
    identity::{
        AuthFailure, auths,
        mtls::{self, Certificate},
    },
    interim::{OfConnection, Way},
    io::{ClientIo, Protocol},
    pace::{Pace, Streams},
    proxy_protocol,
    received::Received,
    reception::{Open, Reception, Speaks},
    record::STALLED_CLIENT,
    relay,
    settings::ClientLimits,
    tls::Setup,
    tunnel::{self, Tunnel},
    unread,
    worker::Worker,
};

/// After so long without a request an HTTP/1 connection is put to rest: what the HTTP library holds for it is given back.
const REST_AFTER: Duration = Duration::from_secs(1);
/// While draining, a connection that says nothing for this long has no request on the way.
const DRAIN_IDLE: Duration = Duration::from_secs(1);
/// What a client that is turned away for its slowness may take to hear it.
const SLOW_HEADER_SLACK: Duration = Duration::from_secs(2);
pub(crate) const H2_STREAMS_MAX: u32 = 100;
const H2_PENDING_RESETS_MAX: usize = 20;
const H2_LOCAL_RESETS_MAX: usize = 500;
/// Of one answer, beyond what its client lets in.
const H2_UNSENT_BYTES_MAX: usize = 64 << 10;

/// What is known about one connection, and what it is doing: shared by its task, its exchanges and the worker's clock.
pub(crate) struct Conn {
    pub(crate) worker: Rc<Worker>,
    pub(crate) peer: SocketAddr,
    /// The peer's address as X-Forwarded-For has it.
    pub(crate) peer_value: HeaderValue,
    pub(crate) tls: bool,
    pub(crate) sni: OnceCell<String>,
    /// The client's certificate and what came with it; that the client has its key is proven, and nothing else.
    pub(crate) client_chain: OnceCell<Rc<[CertificateDer<'static>]>>,
    client_sha256: OnceCell<[u8; 32]>,
    /// The last judgement on the certificate: by which auth, and when.
    judged: RefCell<Option<Judged>>,
    pub(crate) slashes: Slashes,
    pub(crate) listener: Arc<Open>,
    /// What it came in by, whatever the listener does by now.
    pub(crate) reception: Arc<Reception>,
    http2: Cell<bool>,
    heads: RefCell<HeadScan>,
    /// Of HTTP/2.
    frames: RefCell<Option<Box<FrameScan>>>,
    /// A request's head has not come in whole for as long as it may take.
    head_is_late: Cell<bool>,
    phase: Cell<Phase>,
    /// When the phase began, on the worker's clock.
    since_ms: Cell<u64>,
    blocked_since_ms: Cell<Option<u64>>,
    in_flight: Cell<usize>,
    /// That have begun.
    exchanges: Cell<u64>,
    /// Set by the exchange whose answer is a 101.
    pub(crate) tunnel: RefCell<Option<Tunnel>>,
    /// Over HTTP/1, where one exchange is served at a time.
    pub(crate) interim: OfConnection,
    /// Of the HTTP/2 streams whose tasks live, at most `H2_STREAMS_MAX` and those that were reset just now.
    paces: RefCell<Vec<Rc<Pace>>>,
    /// Of the HTTP/2 stream that is polled for the first time.
    pub(crate) polled: RefCell<Option<Rc<Pace>>>,
    stalled: Cell<bool>,
    lingers: Cell<bool>,
    /// All that was written for the exchanges so far is out.
    flushed: Cell<bool>,
    rest: Cell<Rest>,
    ask: Cell<Ask>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was heard yet (a TLS handshake is not counted as hearing).
    Silent,
    /// A part of a request's head has come in.
    Head,
    Exchange,
    /// Behind a 101.
    Tunnel,
    /// Bytes that are none of ours.
    Relay,
    /// Between requests.
    Idle,
}

struct Judged {
    by: Arc<auths::Plan>,
    at_s: u64,
    judgement: Result<Arc<Certificate>, AuthFailure>,
}

/// Whether an HTTP/1 connection is to be put to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    NotYet,
    /// It has been idle for `REST_AFTER`.
    Due,
    /// The HTTP library is asked to let go of it.
    Begins,
    /// It has been woken, or has something to read: not before its next request has been served.
    Over,
}

/// What the worker wants of a connection, the more the further down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    Nothing,
    Drain,
    Close,
}

impl Ask {
    /// Nothing is taken back: what is to close does so, though it is asked to drain before its task has looked.
    fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Conn {
    pub(crate) fn new(worker: Rc<Worker>, peer: SocketAddr, listener: Arc<Open>, reception: Arc<Reception>) -> Self {
        let ip = peer.ip().to_canonical().to_string();
        let leaves = worker.is_draining() || !listener.lets_stay(&reception);
        Self {
            peer,
            peer_value: HeaderValue::try_from(ip).expect("an address is ASCII"),
            tls: reception.tls().is_some(),
            sni: OnceCell::new(),
            client_chain: OnceCell::new(),
            client_sha256: OnceCell::new(),
            judged: RefCell::new(None),
            slashes: reception.slashes,
            listener,
            reception,
            http2: Cell::new(false),
            heads: RefCell::default(),
            frames: RefCell::default(),
            head_is_late: Cell::new(false),
            phase: Cell::new(Phase::Silent),
            since_ms: Cell::new(worker.now_ms()),
            blocked_since_ms: Cell::new(None),
            in_flight: Cell::new(0),
            exchanges: Cell::new(0),
            tunnel: RefCell::new(None),
            interim: OfConnection::new(),
            paces: RefCell::default(),
            polled: RefCell::default(),
            stalled: Cell::new(false),
            lingers: Cell::new(false),
            flushed: Cell::new(true),
            rest: Cell::new(Rest::NotYet),
            ask: Cell::new(if leaves { Ask::Drain } else { Ask::Nothing }),
            waker: RefCell::new(None),
            worker,
        }
    }

    /// By which its worker knows it, for as long as it is there.
    pub(crate) fn key(self: &Rc<Self>) -> usize {
        Rc::as_ptr(self) as usize
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since_ms.set(self.worker.now_ms());
    }

    /// An HTTP/2 client may send here what is for any name of the certificate that it was shown, and for no other: it
    /// asked for one name, and took this connection for another (RFC 9110 7.4).
    pub(crate) fn is_wrong_for(&self, host: &str) -> bool {
        let shown = || self.reception.tls().map(|setup| &setup.names);
        self.http2.get()
            && self.sni.get().is_some_and(|sni| sni != host && shown().is_some_and(|names| !names.covers(sni, host)))
    }

    /// From here on frames come in.
    fn begin_http2(&self) {
        self.http2.set(true);
        *self.frames.borrow_mut() = Some(Box::new(FrameScan::new(self.worker.now_ms())));
        self.enter(Phase::Silent);
    }

    /// Bytes for the HTTP library.
    pub(crate) fn came_in(&self, bytes: &[u8]) {
        let mut frames = self.frames.borrow_mut();
        let Some(frames) = &mut *frames else {
            self.scan(bytes);
            return self.heard();
        };
        frames.came_in(bytes, self.worker.now_ms());
        if self.phase.get() == Phase::Silent && frames.has_begun() {
            self.enter(Phase::Idle);
        }
    }

    /// The first `bytes` bytes of these went to the client.
    pub(crate) fn went_out<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>, mut bytes: usize) {
        let mut frames = self.frames.borrow_mut();
        let Some(frames) = &mut *frames else { return };
        for part in parts {
            let n = bytes.min(part.len());
            frames.went_out(&part[..n], self.worker.now_ms());
            bytes -= n;
        }
    }

    /// Whether this gateway ends the connection by itself now, whatever the HTTP library is about to do.
    pub(crate) fn parts(&self) -> bool {
        self.head_is_late.get() || self.frames.borrow().as_ref().is_some_and(|frames| frames.flood().is_some())
    }

    /// What it then says.
    pub(crate) fn last_words(&self) -> Vec<u8> {
        let frames = self.frames.borrow();
        let Some(frames) = &*frames else { return unread::late(self) };
        let Some(flood) = frames.flood() else { return Vec::new() };
        self.worker.metrics.reject("h2_flood");
        tracing::debug!(peer = %self.peer, flood, "an HTTP/2 connection is ended");
        frames.go_away(flood).unwrap_or_default()
    }

    /// The HTTP library has ended an HTTP/2 connection by itself.
    fn count_library_error(&self) {
        match self.frames.borrow().as_ref().and_then(|frames| frames.library_error()) {
            Some(LibraryError::Flood) => self.worker.metrics.reject("h2_flood"),
            Some(LibraryError::Protocol) => self.worker.metrics.reject("h2_protocol_error"),
            None => (),
        }
    }

    /// Bytes came in.
    pub(crate) fn heard(&self) {
        // What comes in behind an answer that did not wait for it is no head.
        if matches!(self.phase.get(), Phase::Silent | Phase::Idle) && !self.http2.get() && !self.lingers.get() {
            self.enter(Phase::Head);
        }
    }

    fn scan(&self, bytes: &[u8]) {
        let between = self.is_between_requests().then(|| self.exchanges.get());
        self.heads.borrow_mut().feed(bytes, between);
    }

    /// What comes in next may be the rest of a body.
    pub(crate) fn body_left_unread(&self) {
        self.heads.borrow_mut().give_up();
        self.linger();
    }

    /// The client may be sending what nobody will read, when this connection ends.
    pub(crate) fn linger(&self) {
        self.lingers.set(!self.http2.get());
    }

    pub(crate) fn lingers(&self) -> bool {
        self.lingers.get()
    }

    /// Why nothing that this connection sent can be trusted, if so.
    pub(crate) fn wrong(&self) -> Option<Wrong> {
        self.heads.borrow().verdict_within(self.exchanges.get())
    }

    /// Something is wrong with what came in, if only behind the requests so far.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.heads.borrow().verdict().is_some()
    }

    /// Why the HTTP library refuses what comes behind the last request, if we know better.
    pub(crate) fn wrong_behind(&self) -> Option<Wrong> {
        self.heads.borrow().verdict()
    }

    pub(crate) fn is_uri_too_long(&self) -> bool {
        self.heads.borrow().request_line_bytes() > self.worker.shared.settings.limits.uri_bytes_max
    }

    pub(crate) fn declares_too_much(&self) -> bool {
        self.heads.borrow().declares_too_much()
    }

    fn is_between_requests(&self) -> bool {
        matches!(self.phase.get(), Phase::Silent | Phase::Idle)
    }

    /// SHA-256 of the client's certificate.
    pub(crate) fn certificate_sha256(&self) -> Option<&[u8; 32]> {
        let leaf = self.client_chain.get()?.first()?;
        Some(self.client_sha256.get_or_init(|| mtls::sha256(leaf)))
    }

    /// What an auth says of the certificate, looked into anew from time to time.
    pub(crate) fn judged(
        &self,
        plan: &Arc<auths::Plan>,
        now_s: u64,
        judge: impl FnOnce() -> Result<Arc<Certificate>, AuthFailure>,
    ) -> Result<Arc<Certificate>, AuthFailure> {
        let mut judged = self.judged.borrow_mut();
        if let Some(Judged { by, at_s, judgement }) = &*judged
            && Arc::ptr_eq(by, plan)
            && (*at_s..*at_s + mtls::JUDGED_FOR_S).contains(&now_s)
        {
            return judgement.clone();
        }
        let judgement = judge();
        *judged = Some(Judged { by: plan.clone(), at_s: now_s, judgement: judgement.clone() });
        judgement
    }

    /// From here on nothing is HTTP.
    fn enter_tunnel(&self) {
        self.heads.borrow_mut().give_up();
        self.enter(Phase::Tunnel);
    }

    /// From here on it has streams (HTTP/2, HTTP/3), of which each waits for itself.
    pub(crate) fn enter_multiplexed(&self) {
        self.http2.set(true);
        self.enter(Phase::Idle);
    }

    #[cfg(feature = "http3")]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub(crate) fn enter_relay(&self) {
        self.enter(Phase::Relay);
    }

    /// Bytes went through the tunnel.
    pub(crate) fn tunnel_moves(&self) {
        self.since_ms.set(self.worker.now_ms());
    }

    pub(crate) fn write_blocked(&self, blocked: bool) {
        match (blocked, self.blocked_since_ms.get()) {
            (true, None) => self.blocked_since_ms.set(Some(self.worker.now_ms())),
            (false, Some(_)) => self.blocked_since_ms.set(None),
            _ => (),
        }
    }

    /// The client takes what it is sent later than it could be sent.
    pub(crate) fn is_write_blocked(&self) -> bool {
        self.blocked_since_ms.get().is_some()
    }

    pub(crate) fn stream_begins(&self) -> Rc<Pace> {
        let pace = Rc::<Pace>::default();
        self.paces.borrow_mut().push(pace.clone());
        pace
    }

    pub(crate) fn stream_ends(&self, pace: &Rc<Pace>) {
        let mut paces = self.paces.borrow_mut();
        if let Some(at) = paces.iter().position(|it| Rc::ptr_eq(it, pace)) {
            paces.swap_remove(at);
        }
    }

    /// The client was given up on because it took nothing more of what it asked for.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.get()
    }

    pub(crate) fn exchange_begins(&self) {
        self.worker.metrics.in_flight.add(1);
        self.in_flight.set(self.in_flight.get() + 1);
        self.exchanges.set(self.exchanges.get() + 1);
        self.flushed.set(false);
        self.rest.set(Rest::NotYet);
        self.lingers.set(false);
        self.enter(Phase::Exchange);
    }

    /// Nothing is under way that the HTTP library would know of: no part of a request, of an answer, or of a body.
    fn may_rest(&self) -> bool {
        self.rest.get() == Rest::Due
            && self.phase.get() == Phase::Idle
            && self.in_flight.get() == 0
            && self.flushed.get()
            && self.blocked_since_ms.get().is_none()
            && !self.lingers.get()
            && !self.is_ambiguous()
            && self.tunnel.borrow().is_none()
    }

    /// What the HTTP library ends then is not the connection.
    pub(crate) fn goes_to_rest(&self) -> bool {
        self.rest.get() == Rest::Begins
    }

    pub(crate) fn flushed(&self) {
        self.flushed.set(self.in_flight.get() == 0);
    }

    /// What is written now on an HTTP/1 connection is no exchange's answer.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.flushed.get() && !self.http2.get()
    }

    pub(crate) fn exchange_ends(&self) {
        self.worker.metrics.in_flight.sub(1);
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 {
            self.enter(Phase::Idle);
        }
    }

    /// All that came in over HTTP/1 are whole requests, and one of them is not answered to its end.
    pub(crate) fn owes_an_answer(&self) -> bool {
        let heads = self.heads.borrow();
        let begins = heads.heads() > self.exchanges.get();
        !self.http2.get() && heads.is_between_requests() && (begins || !self.flushed.get())
    }

    /// HTTP/1 clients are told to go with the next answer.
    pub(crate) fn is_draining(&self) -> bool {
        self.ask.get() == Ask::Drain
    }

    pub(crate) fn drain(&self) {
        self.tell(Ask::Drain);
    }

    pub(crate) fn close(&self, reason: &str) {
        if self.ask.get() != Ask::Close {
            self.worker.metrics.reject(reason);
            self.tell(Ask::Close);
        }
    }

    fn tell(&self, ask: Ask) {
        self.ask.set(self.ask.get().and(ask));
        self.wake();
    }

    /// Its task looks at what there is to do.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ends the connection if it overstays; called a few times a second.
    pub(crate) fn check_clocks(&self, limits: &ClientLimits) {
        let now = self.worker.now_ms();
        let longer = |since: u64, limit: Duration| now.saturating_sub(since) > limit.as_millis() as u64;
        if self.blocked_since_ms.get().is_some_and(|since| longer(since, limits.write_stall)) {
            self.stalled.set(true);
            return self.close(STALLED_CLIENT);
        }
        for pace in &*self.paces.borrow() {
            if pace.offered_ms().is_some_and(|since| longer(since, limits.write_stall)) {
                self.worker.metrics.reject(STALLED_CLIENT);
                pace.give_up();
            }
        }
        let waits_since = self.frames.borrow().as_ref().and_then(|it| it.waits_since_ms(self.in_flight.get()));
        if self.http2.get() && waits_since.is_some_and(|since| longer(since, limits.header_read)) {
            return self.close("slow_header");
        }
        let since = self.since_ms.get();
        match self.phase.get() {
            Phase::Silent if longer(since, limits.header_read) => self.close("silent_connection"),
            Phase::Head if longer(since, limits.header_read) => self.head_is_slow(since),
            // A client that still takes the last answer is not idle.
            Phase::Idle if self.blocked_since_ms.get().is_none() => {
                let keep = match (self.is_draining(), self.http2.get()) {
                    (true, _) => DRAIN_IDLE,
                    (false, true) => limits.keep_alive_idle_h2,
                    (false, false) => limits.keep_alive_idle_h1,
                };
                if longer(since, keep) {
                    self.tell(Ask::Close);
                } else if !self.http2.get() && longer(since, REST_AFTER) && self.rest.get() == Rest::NotYet {
                    self.rest.set(Rest::Due);
                    self.tell(self.ask.get());
                }
            }
            Phase::Relay if relay::is_idle(now.saturating_sub(since)) => self.close("tunnel_idle"),
            Phase::Tunnel if tunnel::is_idle(now.saturating_sub(since)) => self.close("tunnel_idle"),
            Phase::Silent if self.is_draining() && longer(since, DRAIN_IDLE) => self.tell(Ask::Close),
            _ => (),
        }
    }

    /// An answer is due where a request has begun, if the client takes it.
    fn head_is_slow(&self, since_ms: u64) {
        if !self.head_is_late.replace(true) {
            return self.tell(self.ask.get());
        }
        let longest = self.worker.shared.settings.limits.header_read + SLOW_HEADER_SLACK;
        if self.worker.now_ms().saturating_sub(since_ms) > longest.as_millis() as u64 {
            self.tell(Ask::Close);
        }
    }

    /// Runs until the connection's work is done or it is told to close.
    pub(crate) async fn until_closed(&self, mut work: Pin<&mut impl Future<Output = ()>>) {
        std::future::poll_fn(|cx| {
            if self.ask.get() == Ask::Close {
                return Poll::Ready(());
            }
            {
                let mut waker = self.waker.borrow_mut();
                match &mut *waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
            }
            work.as_mut().poll(cx)
        })
        .await
    }
}

/// Serves one accepted connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, mut stream: TcpStream, mut peer: SocketAddr, listener: Arc<Open>) {
    let reception = listener.reception.load_full();
    let speaker = peer.ip().to_canonical();
    if reception.proxy_protocol_from.iter().any(|net| net.contains(&speaker)) {
        // Boxed, here and below: what is over must not be paid for as long as the client is there.
        match Box::pin(proxy_protocol::read(&mut stream, worker.shared.settings.limits.header_read)).await {
            Ok(client) => peer = client.unwrap_or(peer),
            Err(_) => return worker.metrics.reject("proxy_protocol"),
        }
    }
    let ip = peer.ip().to_canonical();
    let Some(_place) = worker.shared.per_ip.enter(ip, worker.shared.settings.limits.connections_per_ip_max) else {
        worker.metrics.reject("too_many_connections");
        return;
    };
    // Latency over packet count; a failure means that the peer is gone, which the first read will tell.
    let _ = stream.set_nodelay(true);
    let conn = Rc::new(Conn::new(worker, peer, listener, reception));
    let _registered = Registered::new(conn.clone());
    // Pinned here: as an argument it would be kept twice.
    conn.until_closed(pin!(serve_stream(&conn, stream))).await;
}

async fn serve_stream(conn: &Rc<Conn>, stream: TcpStream) {
    match &conn.reception.speaks {
        Speaks::Http => {
            let mut io = ClientIo::new(stream, conn.clone());
            match io.sniff().await {
                Ok(Protocol::Http1) => serve_http1(conn, io).await,
                Ok(Protocol::Http2) => Box::pin(serve_http2(conn, io)).await,
                Err(_) => (),
            }
        }
        Speaks::Https(setup) => Box::pin(serve_tls(conn, stream, setup)).await,
        Speaks::Passthrough(otherwise) => Box::pin(relay::by_server_name(conn, stream, otherwise.as_ref())).await,
        Speaks::Tcp(upstream) => Box::pin(relay::to_upstream(conn, stream, upstream, Bytes::new())).await,
    }
}

async fn serve_tls(conn: &Rc<Conn>, stream: TcpStream, setup: &Setup) {
    let deadline = conn.worker.shared.settings.limits.tls_handshake;
    let Ok(Ok(stream)) = Box::pin(tokio::time::timeout(deadline, setup.acceptor.accept(stream))).await else {
        return conn.worker.metrics.reject("tls_handshake");
    };
    let session = stream.get_ref().1;
    if !setup.still_takes(session) {
        return conn.worker.metrics.reject("tls_handshake");
    }
    let http2 = session.alpn_protocol() == Some(b"h2");
    if let Some(name) = session.server_name() {
        let _ = conn.sni.set(name.to_ascii_lowercase());
    }
    if let Some(chain) = session.peer_certificates() {
        let _ = conn.client_chain.set(chain.iter().map(|it| it.clone().into_owned()).collect());
    }
    conn.enter(Phase::Silent);
    let io = ClientIo::new(Box::new(stream), conn.clone());
    match http2 {
        true => Box::pin(serve_http2(conn, io)).await,
        false => serve_http1(conn, io).await,
    }
}

async fn serve_http1<T: AsyncRead + AsyncWrite + Unpin + 'static>(conn: &Rc<Conn>, mut io: ClientIo<T>) {
    loop {
        let service = {
            let conn = conn.clone();
            service_fn(move |request: Request<Incoming>| {
                let way = (request.version() == Version::HTTP_11).then(|| Way::Connection(conn.clone()));
                exchange::handle(conn.clone(), request.map(Received::from), way)
            })
        };
        // Apart from this task's own memory, which is there for as long as the client is.
        let mut connection = Box::new(conn.worker.http1.serve_connection(io, service));
        // An error here is the client's: it left, or sent what is not HTTP.
        let served = std::future::poll_fn(|cx| {
            let mut connection = Pin::new(&mut *connection);
            let polled = connection.as_mut().poll(cx);
            if polled.is_ready() || !conn.may_rest() {
                return polled.map(Some);
            }
            // Ends at once if nothing is under way for the library either; else with what is, which then is the last.
            conn.rest.set(Rest::Begins);
            connection.as_mut().graceful_shutdown();
            match connection.poll(cx) {
                Poll::Ready(Ok(())) if conn.goes_to_rest() => Poll::Ready(None),
                polled => {
                    conn.rest.set(Rest::Over);
                    polled.map(Some)
                }
            }
        });
        let served = served.await;
        let parts = match served {
            None => connection.into_parts(),
            Some(Ok(())) => {
                let Some(tunnel) = conn.tunnel.take() else { return };
                let parts = connection.into_parts();
                conn.enter_tunnel();
                return Box::pin(tunnel.run(TokioIo::new(parts.io), parts.read_buf)).await;
            }
            Some(Err(_)) => return drop(conn.tunnel.take()),
        };
        conn.rest.set(Rest::Over);
        io = parts.io;
        io.put_back(&parts.read_buf);
        drop(parts.service);
        let resting = Resting::new(conn);
        if io.rest().await.is_err() {
            return;
        }
        drop(resting);
    }
}

/// Counts a connection that is at rest.
struct Resting<'a>(&'a Conn);

impl<'a> Resting<'a> {
    fn new(conn: &'a Conn) -> Self {
        conn.worker.metrics.connections_resting.add(1);
        Self(conn)
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.worker.metrics.connections_resting.sub(1);
    }
}

async fn serve_http2<T: AsyncRead + AsyncWrite + Unpin + 'static>(conn: &Rc<Conn>, io: ClientIo<T>) {
    conn.begin_http2();
    let service = {
        let conn = conn.clone();
        service_fn(move |request: Request<Incoming>| exchange::handle(conn.clone(), request.map(Received::from), None))
    };
    let http2 = http2(&conn.worker.shared.settings.limits, Streams(conn.clone()));
    let mut connection = pin!(http2.serve_connection(io, service));
    let mut told = false;
    std::future::poll_fn(|cx| {
        if conn.is_draining() && !told {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
    if !conn.parts() {
        conn.count_library_error();
    }
}

pub(crate) fn http1(limits: &ClientLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The worker's clock does this for all connections, without a timer per request.
        .header_read_timeout(None)
        .max_headers(limits.header_fields_max)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(limits.header_bytes_max.max(64 << 10) * 2);
    builder
}

fn http2(limits: &ClientLimits, streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(H2_LOCAL_RESETS_MAX)
        .max_send_buf_size(H2_UNSENT_BYTES_MAX)
        .max_header_list_size(header_list_bytes_max(limits))
        .enable_connect_protocol()
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// The library counts pseudo-fields too and adds 32 to each field (RFC 9113 6.5.2); what it refuses gets a bare answer. So
/// it lets through what is up to us, and somewhat more.
pub(crate) fn header_list_bytes_max(limits: &ClientLimits) -> u32 {
    let bytes = limits.header_bytes_max + limits.header_fields_max * 64 + limits.uri_bytes_max * 2;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Keeps the connection in its worker's table while it is served.
pub(crate) struct Registered(Rc<Conn>);

impl Registered {
    pub(crate) fn new(conn: Rc<Conn>) -> Self {
        conn.worker.metrics.connections.add(1);
        conn.worker.metrics.connections_open.add(1);
        conn.worker.conns.borrow_mut().insert(conn.key(), conn.clone());
        if !conn.listener.lets_stay(&conn.reception) {
            conn.worker.has_to_go(&conn);
        }
        Self(conn)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // It holds the connection that holds it.
        drop(self.0.tunnel.take());
        self.0.worker.conns.borrow_mut().remove(&self.0.key());
        self.0.worker.metrics.connections_open.sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_is_to_close_is_not_kept_by_a_drain() {
        for (before, then, expected) in [
            (Ask::Nothing, Ask::Drain, Ask::Drain),
            (Ask::Drain, Ask::Close, Ask::Close),
            (Ask::Close, Ask::Drain, Ask::Close),
            (Ask::Drain, Ask::Nothing, Ask::Drain),
        ] {
            assert_eq!(before.and(then), expected, "{before:?}, then {then:?}");
        }
    }

    #[test]
    fn a_connection_that_does_nothing_is_small() {
        let (task, known) = (bytes_of(serve), size_of::<Conn>());
        assert!(task <= 2 << 10 && known <= 3 << 9, "{task} bytes of a task, {known} of what is known");
    }
}
