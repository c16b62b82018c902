//! A request's body as it comes in, whichever protocol brings it; concrete, so that the path of most requests boxes nothing.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{client_body::ClientFault, headscan::Wrong};

pub enum Received {
    /// HTTP/1 and HTTP/2.
    Hyper(Incoming),
    /// Apart: it is several times as large.
    #[cfg(feature = "http3")]
    Http3(Box<crate::http3::Body>),
}

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
    type Error = ClientFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        match self.get_mut() {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(|error| fault(&error)),
            #[cfg(feature = "http3")]
            Self::Http3(body) => Pin::new(&mut **body).poll_frame(cx).map_err(|_| ClientFault::Broken),
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

/// It was broken off, or framed wrongly; or it is what we told the library ourselves.
fn fault(error: &hyper::Error) -> ClientFault {
    let told = error.source().and_then(|it| it.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
    match told.and_then(|it| it.downcast_ref::<Wrong>()) {
        Some(Wrong::TrailersTooLarge) => ClientFault::TrailersTooLarge,
        _ => ClientFault::Broken,
    }
}
