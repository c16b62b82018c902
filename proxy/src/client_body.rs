//! The body that a client sends, as it is passed on: counted, limited, and given up on when it stalls.

use std::{
    cell::Cell,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

#[cfg(feature = "compression")]
use quorumgate_model::mutants::{self, Mutant};

use crate::unpack::Unpacked;
use crate::{
    grpc_web::Decoder,
    held::Held,
    identity::content_digest::Digested,
    metrics::WorkerMetrics,
    received::Received,
    traffic::mirror::Copy,
    trailers::{self, Unfit},
};

/// After this long a body must have come in at `FLOOR_BYTES_PER_S` on average.
const FLOOR_GRACE: Duration = Duration::from_secs(5);
const FLOOR_BYTES_PER_S: u64 = 240;

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientFault {
    /// More than the route allows.
    TooLarge,
    /// The sender was silent for too long, or too slow.
    Stalled,
    /// The sender broke the message off or framed it wrongly.
    Broken,
    /// It unpacks into more than the route allows.
    UnpacksTooLarge,
    /// Not what its Content-Encoding says.
    Packed,
    /// Not what the digest says that was signed.
    Digest,
    /// Too many fields, or too much of them, behind the body.
    TrailersTooLarge,
}

/// What became of a client's body: shared by the body, which may be given to a connection's task, and its exchange.
#[derive(Debug, Default)]
pub struct BodyState {
    pub bytes: Cell<u64>,
    pub failed: Cell<Option<ClientFault>>,
    /// All frames have been read.
    pub ended: Cell<bool>,
}

/// How long a client may keep us waiting for the next part of its body.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// Idle for this long at most, and never slower than the floor rate.
    Floor(Duration),
    /// Idle for this long at most.
    Idle(Duration),
}

pub struct ClientBody {
    inner: Received,
    /// Where the route limits what it unpacks into.
    #[cfg(feature = "compression")]
    unpacked: Option<Box<Unpacked>>,
    digest: Option<Box<Digested>>,
    /// Of a body that comes in base64.
    decoder: Option<Box<Decoder>>,
    /// What was read of it before it goes on.
    ahead: Option<Bytes>,
    /// For a mirror.
    copy: Option<Box<Copy>>,
    /// Trailers that wait for the last part.
    behind: Option<Box<Frame<Bytes>>>,
    state: Rc<BodyState>,
    /// 0: no limit.
    bytes_max: u64,
    patience: Patience,
    /// Where what is held of it is counted.
    metrics: Option<Arc<WorkerMetrics>>,
    /// Made when the client first keeps us waiting.
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    waited: Duration,
}

impl ClientBody {
    pub fn new(inner: impl Into<Received>, bytes_max: u64, patience: Patience) -> Self {
        let state = Rc::default();
        Self {
            inner: inner.into(),
            #[cfg(feature = "compression")]
            unpacked: None,
            digest: None,
            decoder: None,
            ahead: None,
            copy: None,
            behind: None,
            state,
            bytes_max,
            patience,
            metrics: None,
            timer: None,
            waiting_since: None,
            waited: Duration::ZERO,
        }
    }

    pub(crate) fn counted(mut self, metrics: &Arc<WorkerMetrics>) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Looks at what it unpacks into while it passes.
    #[cfg(feature = "compression")]
    pub(crate) fn unpacked_by(&mut self, unpacked: Unpacked) {
        self.unpacked = Some(Box::new(unpacked));
    }

    /// What comes in is base64 of what is passed on.
    pub(crate) fn decode_by(&mut self, decoder: Decoder) {
        self.decoder = Some(Box::new(decoder));
    }

    pub fn state(&self) -> Rc<BodyState> {
        self.state.clone()
    }

    fn fail(&self, error: ClientFault) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        self.state.failed.set(Some(error));
        Poll::Ready(Some(Err(error)))
    }

    /// Only the time that we waited for the client counts, not that in which the upstream would not take more.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            let left = match self.patience {
                Patience::Idle(idle) => idle,
                Patience::Floor(idle) => {
                    let earned = Duration::from_millis(self.state.bytes.get().saturating_mul(1000) / FLOOR_BYTES_PER_S);
                    idle.min((FLOOR_GRACE + earned).saturating_sub(self.waited))
                }
            };
            self.waiting_since = Some(now);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(now + left),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(now + left))),
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn stop_waiting(&mut self) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }
}

impl ClientBody {
    /// Holds the body against its digest while it passes through.
    pub fn digested(mut self, digest: Option<Digested>) -> Self {
        self.digest = digest.map(Box::new);
        self
    }

    /// Gives back what was read from its start, and its trailers if they were. Not for a body that is decoded on its way.
    pub(crate) fn put_back(&mut self, bytes: Bytes, trailers: Option<Frame<Bytes>>) {
        self.ahead = Some(bytes).filter(|bytes| !bytes.is_empty());
        self.behind = trailers.map(Box::new);
    }

    pub(crate) fn copied_to(&mut self, copy: Box<Copy>) {
        self.copy = Some(copy);
    }

    fn poll_digested(
        &mut self,
        mut digest: Box<Digested>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        loop {
            let Poll::Ready(next) = self.poll_part(cx) else {
                self.digest = Some(digest);
                return Poll::Pending;
            };
            match next.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(bytes))) => {
                    if let Some(before) = digest.pass(bytes) {
                        self.digest = Some(digest);
                        return Poll::Ready(Some(Ok(Frame::data(before))));
                    }
                    continue;
                }
                Some(Ok(Err(trailers))) => self.behind = Some(Box::new(trailers)),
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                None => (),
            }
            return match digest.finish() {
                Err(_) => self.fail(ClientFault::Digest),
                Ok(Some(last)) => Poll::Ready(Some(Ok(Frame::data(last)))),
                Ok(None) => Poll::Ready(self.behind.take().map(|trailers| Ok(*trailers))),
            };
        }
    }

    #[cfg(feature = "compression")]
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        let Some(mut unpacked) = self.unpacked.take() else { return self.poll_received(cx) };
        let polled = self.poll_unpacked(&mut unpacked, cx);
        self.unpacked = Some(unpacked);
        polled
    }

    #[cfg(not(feature = "compression"))]
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        self.poll_received(cx)
    }

    #[cfg(feature = "compression")]
    fn poll_unpacked(
        &mut self,
        unpacked: &mut Unpacked,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        if !unpacked.is_waiting() {
            match ready!(self.poll_received(cx)) {
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                next => unpacked.give(next.and_then(Result::ok)),
            }
        }
        match unpacked.look() {
            Ok(Some(frame)) => Poll::Ready(frame.map(Ok)),
            Ok(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(fault) => self.fail(fault),
        }
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        let Poll::Ready(next) = Pin::new(&mut self.inner).poll_frame(cx) else {
            ready!(self.poll_patience(cx));
            return self.fail(ClientFault::Stalled);
        };
        self.stop_waiting();
        let frame = match next {
            None => {
                self.state.ended.set(true);
                return Poll::Ready(None);
            }
            Some(Err(fault)) => return self.fail(fault),
            Some(Ok(frame)) => frame,
        };
        if let Some(bytes) = frame.data_ref() {
            let total = self.state.bytes.get() + bytes.len() as u64;
            self.state.bytes.set(total);
            if self.bytes_max != 0 && total > self.bytes_max && !mutants::is(Mutant::BodyLimitIgnored) {
                return self.fail(ClientFault::TooLarge);
            }
        }
        if self.inner.is_end_stream() {
            self.state.ended.set(true);
        }
        let frame = match frame.into_trailers().map(trailers::passed_on) {
            Ok(Ok(trailers)) => Frame::trailers(trailers),
            Ok(Err(Unfit::TooLarge)) => return self.fail(ClientFault::TrailersTooLarge),
            Ok(Err(Unfit::Padded)) => return self.fail(ClientFault::Broken),
            Err(frame) => frame,
        };
        Poll::Ready(Some(Ok(match &self.metrics {
            Some(metrics) => frame.map_data(|bytes| Bytes::from_owner(Held::new(bytes, metrics))),
            None => frame,
        })))
    }
}

impl ClientBody {
    fn poll_encoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        if self.digest.is_none()
            && let Some(trailers) = self.behind.take()
        {
            return Poll::Ready(Some(Ok(*trailers)));
        }
        match self.digest.take() {
            Some(digest) => self.poll_digested(digest, cx),
            None => self.poll_part(cx),
        }
    }

    /// As the upstream gets it.
    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        if let Some(bytes) = self.ahead.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        loop {
            let next = ready!(self.poll_encoded(cx));
            let Some(decoder) = &mut self.decoder else { return Poll::Ready(next) };
            let decoded = match &next {
                Some(Ok(frame)) if frame.is_data() => decoder.decode(frame.data_ref().map_or(&[], |bytes| bytes)),
                Some(Err(_)) => return Poll::Ready(next),
                _ if decoder.is_empty() => return Poll::Ready(next),
                _ => return self.fail(ClientFault::Broken),
            };
            match decoded {
                Ok(bytes) if bytes.is_empty() => continue,
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(_) => return self.fail(ClientFault::Broken),
            }
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        let next = ready!(self.poll_decoded(cx));
        let ended = self.copy.is_some() && self.is_end_stream();
        if let Some(copy) = &mut self.copy {
            copy.saw(next.as_ref(), ended);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        #[cfg(feature = "compression")]
        if self.unpacked.as_ref().is_some_and(|it| it.is_waiting()) {
            return false;
        }
        let decoded = self.decoder.as_ref().is_none_or(|decoder| decoder.is_empty());
        self.digest.is_none() && self.ahead.is_none() && self.behind.is_none() && decoded && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.decoder.is_some() {
            return SizeHint::default();
        }
        let rest = self.inner.size_hint();
        let ahead = self.ahead.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let held = self.digest.as_ref().map_or(0, |digest| digest.held_bytes());
        match rest.exact() {
            _ if ahead == 0 && self.digest.is_none() => rest,
            Some(exact) => SizeHint::with_exact(exact + ahead + held),
            None => SizeHint::default(),
        }
    }
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientFault::TooLarge => "the body is larger than the route allows",
            ClientFault::UnpacksTooLarge => "the body unpacks into more than the route allows",
            ClientFault::Packed => "the body is not what its content-encoding says",
            ClientFault::Stalled => "the body stalled",
            ClientFault::Broken => "the body was broken off",
            ClientFault::TrailersTooLarge => "the trailers are larger than allowed",
            ClientFault::Digest => "the body is not what its content-digest says",
        })
    }
}

impl std::error::Error for ClientFault {}
