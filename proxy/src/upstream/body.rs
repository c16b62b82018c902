//! The upstream's response body: it holds the connection, gives it back at its end, and gives up when it stands still.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{
    Failure,
    pool::{InFlight, Link},
};
use crate::trailers;

/// How long a stream of messages may be silent, such as a gRPC call in which the other side speaks.
pub(crate) const STREAM_IDLE: Duration = Duration::from_secs(300);

/// What an answer gets to come in that is given though the time for it is over.
const SPARED: Duration = Duration::from_millis(250);

pub struct Body {
    inner: Incoming,
    /// None once the body has ended, well or not.
    lease: Option<Lease>,
    idle: Duration,
    deadline: Option<Instant>,
    /// Made when the upstream first keeps us waiting.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// When the head came in, or we last began to wait: not long ago, and known without reading the clock again.
    recently: Instant,
}

/// What one exchange holds of its target.
pub(super) struct Lease {
    pub link: Link,
    pub in_flight: InFlight,
}

impl Lease {
    /// The response is complete: the connection may serve the next.
    fn end(self, now: Instant) {
        if let Link::Http1(connection) = self.link {
            self.in_flight.0.give_back(connection, now);
        }
    }
}

impl Body {
    pub(super) fn new(inner: Incoming, lease: Lease, now: Instant, idle: Duration, deadline: Option<Instant>) -> Self {
        let mut body = Self { inner, lease: Some(lease), idle, deadline, timer: None, waiting: false, recently: now };
        if body.inner.is_end_stream() {
            body.end();
        }
        body
    }

    /// It is given when its time is over: what is on its way may still come in.
    pub(super) fn spare(&mut self) {
        self.deadline = Some(Instant::now() + SPARED);
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end(self.recently);
        }
    }

    fn fail(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.lease = None;
        Poll::Ready(Some(Err(failure)))
    }

    /// The upstream's silence counts, not the time in which the client would not take more.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        if !self.waiting {
            self.waiting = true;
            self.recently = Instant::now();
            let idle = self.recently + self.idle;
            let until = self.deadline.map_or(idle, |deadline| deadline.min(idle));
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(until))),
            }
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        let late = self.deadline.is_some_and(|deadline| deadline <= timer.deadline());
        Poll::Ready(if late { Failure::TotalTimeout } else { Failure::IdleTimeout })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = Pin::new(&mut self.inner).poll_frame(cx) else {
            let failure = ready!(self.poll_timer(cx));
            return self.fail(failure);
        };
        self.waiting = false;
        match next {
            Some(Ok(frame)) => {
                if self.inner.is_end_stream() {
                    self.end();
                }
                match frame.into_trailers().map(trailers::passed_on) {
                    Ok(Ok(left)) if left.is_empty() => self.poll_frame(cx),
                    Ok(Ok(left)) => Poll::Ready(Some(Ok(Frame::trailers(left)))),
                    Ok(Err(_)) => self.fail(Failure::Protocol("trailers that are not taken")),
                    Err(frame) => Poll::Ready(Some(Ok(frame))),
                }
            }
            Some(Err(error)) => self.fail(error.into()),
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("ended", &self.lease.is_none()).finish_non_exhaustive()
    }
}
