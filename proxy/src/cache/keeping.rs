//! A body that passes through into the cache: bounded, copied, and kept only once it is whole.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::header;
use http_body::{Body, Frame, SizeHint};

use super::{flight::Flight, store::Stored};
use crate::{body::ResponseBody, upstream::Failure, worker::Worker};

/// Room that is made before any of an answer has come, whatever it announces.
const ROOM_AT_FIRST_MAX: usize = 64 << 10;

/// What an answer is to be kept as.
pub(super) struct Kept {
    pub(super) url: String,
    pub(super) stored: Stored,
    pub(super) purged: u64,
}

/// Keeps an answer once it is whole.
pub(super) struct Keeper {
    worker: Rc<Worker>,
    url: String,
    /// Until it is kept.
    stored: Option<Stored>,
    purged: u64,
    bytes_max: usize,
    /// Taken of what all that is on its way may hold.
    held: usize,
    /// Whoever waits looks again when this is gone.
    _flight: Option<Flight>,
}

impl Keeper {
    pub(super) fn new(worker: &Rc<Worker>, kept: Kept, bytes_max: usize, flight: Option<Flight>) -> Self {
        let Kept { url, stored, purged } = kept;
        Self { worker: worker.clone(), url, stored: Some(stored), purged, bytes_max, held: 0, _flight: flight }
    }

    /// Whether so much more may be held.
    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.held + bytes <= self.bytes_max && self.worker.shared.cache.fills(bytes);
        if fits {
            self.held += bytes;
        }
        fits
    }

    pub(super) fn keep(mut self, body: Bytes) {
        let Some(mut stored) = self.stored.take() else { return };
        // What was announced and did not come is no answer.
        let announced = stored.headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        if announced.is_none_or(|announced: usize| announced == body.len()) {
            stored.body = body;
            self.worker.shared.cache.put(&self.url, stored, self.purged);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.worker.shared.cache.filled(self.held);
    }
}

/// A body on its way to the client, and to the cache.
pub struct Keeping {
    inner: ResponseBody,
    /// None: it is kept, or it will not be.
    keeper: Option<Keeper>,
    /// A copy, so that no larger buffer of a connection is kept along.
    bytes: BytesMut,
}

impl Keeping {
    pub(super) fn new(inner: ResponseBody, keeper: Keeper) -> Box<Self> {
        let room = inner.size_hint().exact().map_or(0, |bytes| bytes as usize);
        Box::new(Self { inner, keeper: Some(keeper), bytes: BytesMut::with_capacity(room.min(ROOM_AT_FIRST_MAX)) })
    }

    fn saw(&mut self, next: Option<&Result<Frame<Bytes>, Failure>>) {
        let Some(keeper) = &mut self.keeper else { return };
        match next {
            Some(Ok(frame)) => {
                let fits = frame.data_ref().is_some_and(|data| keeper.takes(data.len()));
                if !fits {
                    return self.give_up();
                }
                self.bytes.extend_from_slice(frame.data_ref().expect("it fits"));
                if self.inner.is_end_stream() {
                    self.keep();
                }
            }
            Some(Err(_)) => self.give_up(),
            None => self.keep(),
        }
    }

    fn give_up(&mut self) {
        (self.keeper, self.bytes) = (None, BytesMut::new());
    }

    fn keep(&mut self) {
        let Some(keeper) = self.keeper.take() else { return };
        let bytes = std::mem::take(&mut self.bytes);
        // Without the room that it grew by.
        keeper.keep(if bytes.capacity() > bytes.len() { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() });
    }
}

impl Body for Keeping {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let next = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        self.saw(next.as_ref());
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeping").field("inner", &self.inner).finish_non_exhaustive()
    }
}
