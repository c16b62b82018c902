//! A request's body as it comes in, whichever protocol brings it; concrete, so that the path of most requests boxes nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

pub enum Received {
    /// HTTP/1 and HTTP/2.
    Hyper(Incoming),
    /// Apart: it is several times as large.
    #[cfg(feature = "http3")]
    Http3(Box<crate::http3::Body>),
}

/// It was broken off, or framed wrongly.
#[derive(Debug)]
pub struct Broken;

impl From<Incoming> for Received {
    fn from(body: Incoming) -> Self {
        Self::Hyper(body)
    }
}

#[cfg(feature = "http3")]
impl From<crate::http3::Body> for Received {
    fn from(body: crate::http3::Body) -> Self {
        Self::Http3(Box::new(body))
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(|_| Broken),
            #[cfg(feature = "http3")]
            Self::Http3(body) => Pin::new(&mut **body).poll_frame(cx).map_err(|_| Broken),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            #[cfg(feature = "http3")]
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            #[cfg(feature = "http3")]
            Self::Http3(body) => body.size_hint(),
        }
    }
}
