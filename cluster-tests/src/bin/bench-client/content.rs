//! A body of so many bytes that costs nothing to make.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

const CHUNK: usize = 64 << 10;
static ZEROS: [u8; CHUNK] = [0; CHUNK];

#[derive(Debug, Default)]
pub struct Content {
    left: u64,
    trailers: Option<HeaderMap>,
}

impl Content {
    pub fn of(bytes: u64) -> Self {
        Self { left: bytes, trailers: None }
    }

    /// With trailers it has no declared length.
    pub fn with_trailers(bytes: u64, trailers: HeaderMap) -> Self {
        Self { left: bytes, trailers: Some(trailers) }
    }

    /// None: there is no more.
    pub fn chunk(&mut self) -> Option<Bytes> {
        let length = self.left.min(CHUNK as u64) as usize;
        self.left -= length as u64;
        (length > 0).then(|| Bytes::from_static(&ZEROS[..length]))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.chunk() {
            Some(chunk) => Some(Frame::data(chunk)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.trailers {
            None => SizeHint::with_exact(self.left),
            Some(_) => SizeHint::default(),
        }
    }
}
