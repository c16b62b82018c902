//! The body of an answer that is counted while it passes; where something of it is not for the client, event by event.

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    counted::{Counted, Event},
    endpoint::Endpoint,
    events::{self, Events, Piece},
    guard::Window,
};
use crate::{body::ResponseBody, held::Holding, metrics::WorkerMetrics, upstream::Failure};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// What is held of an answer that is one object, until it says what it has cost.
const JSON_BYTES_MAX: usize = 4 << 20;
/// What ends a stream of which the rest is not to be said.
const CUT: &[u8] =
    b"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"response_denied\",\"code\":\"response_denied\",\
\"message\":\"the gateway has ended this answer: it said what is not to be said\"}}\n\n";

pub struct Metered {
    inner: ResponseBody,
    counted: Rc<RefCell<Counted>>,
    how: How,
    ended: bool,
}

enum How {
    Json {
        endpoint: Endpoint,
        /// None: it is longer than can be held.
        text: Option<(Vec<u8>, Holding)>,
    },
    Events {
        endpoint: Endpoint,
        events: Events,
        hides_usage: bool,
        window: Option<Window>,
    },
}

impl Metered {
    pub(super) fn json(
        inner: ResponseBody,
        endpoint: Endpoint,
        counted: Rc<RefCell<Counted>>,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let how = How::Json { endpoint, text: Some((Vec::new(), Holding::new(0, metrics))) };
        let mut it = Self { inner, counted, how, ended: false };
        // One piece is never polled for more.
        if it.inner.is_end_stream() {
            it.ends();
        }
        it
    }

    pub(super) fn events(
        inner: ResponseBody,
        endpoint: Endpoint,
        counted: Rc<RefCell<Counted>>,
        hides_usage: bool,
        window: Option<Window>,
    ) -> Self {
        let how = How::Events { endpoint, events: Events::default(), hides_usage, window };
        Self { inner, counted, how, ended: false }
    }

    /// What of it goes on.
    fn pass(&mut self, bytes: Bytes) -> Bytes {
        let counted = &mut *self.counted.borrow_mut();
        match &mut self.how {
            How::Json { endpoint, text } => {
                // What is embedded is no output.
                if *endpoint != Endpoint::Embeddings {
                    counted.passes(bytes.len());
                }
                if let Some((whole, holding)) = text {
                    match whole.len() + bytes.len() <= JSON_BYTES_MAX {
                        true => {
                            whole.extend_from_slice(&bytes);
                            holding.grow(bytes.len() as u64);
                        }
                        false => *text = None,
                    }
                }
                bytes
            }
            How::Events { endpoint, events, hides_usage, window } => {
                let mut out = Vec::new();
                let mut cut = false;
                events.push(&bytes, |piece| match piece {
                    _ if cut => {}
                    Piece::Event(event) => {
                        let data = events::data(event);
                        if window.as_mut().is_some_and(|window| !window.takes(event, &data)) {
                            cut = true;
                            return;
                        }
                        let is_hidden = counted.event(*endpoint, &data) == Event::UsageAlone && *hides_usage;
                        if !is_hidden {
                            out.extend_from_slice(event);
                        }
                    }
                    // Of what nobody can look at nothing is said.
                    Piece::Part(_) if window.is_some() => cut = true,
                    Piece::Part(part) => {
                        counted.passes(part.len());
                        out.extend_from_slice(part);
                    }
                });
                if cut {
                    out.extend_from_slice(CUT);
                    // The provider is told by the end of its connection.
                    self.inner = ResponseBody::Empty;
                    self.ended = true;
                }
                out.into()
            }
        }
    }

    /// The inner body has come to its end; what is left to go on.
    fn ends(&mut self) -> Bytes {
        if std::mem::replace(&mut self.ended, true) {
            return Bytes::new();
        }
        let counted = &mut *self.counted.borrow_mut();
        match &mut self.how {
            How::Json { endpoint, text } => {
                if let Some((whole, _)) = text.take() {
                    counted.answer(*endpoint, &whole);
                }
                Bytes::new()
            }
            How::Events { endpoint, events, window, .. } => {
                let rest = events.rest();
                let data = events::data(&rest);
                if window.as_mut().is_some_and(|window| !window.takes(&rest, &data)) {
                    return Bytes::from_static(CUT);
                }
                // The end of its bytes is not the end of what it says: that has a word of its own.
                counted.event(*endpoint, &data);
                rest.into()
            }
        }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            let out = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        let out = this.pass(bytes);
                        match !this.ended && this.inner.is_end_stream() {
                            true => [out, this.ends()].concat().into(),
                            false => out,
                        }
                    }
                    // Trailers end it too.
                    Err(trailers) => match this.ends() {
                        rest if rest.is_empty() => return Poll::Ready(Some(Ok(trailers))),
                        rest => rest,
                    },
                },
                None => this.ends(),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.how, self.ended) {
            (_, true) => SizeHint::with_exact(0),
            (How::Json { .. }, false) => self.inner.size_hint(),
            // Some of it may stay here.
            (How::Events { .. }, false) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("ended", &self.ended).finish_non_exhaustive()
    }
}
