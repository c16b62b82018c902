//! The two bodies of an exchange, concrete so that the request path boxes nothing: what the client sends, and what it gets.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    client_body::{ClientBody, ClientFault},
    upstream::{self, Failure},
};

/// From the client to the upstream.
#[derive(Default)]
pub enum RequestBody {
    #[default]
    Empty,
    Full(Bytes),
    Client(ClientBody),
}

/// From the upstream, or from this gateway, to the client.
#[derive(Debug, Default)]
pub enum ResponseBody {
    #[default]
    Empty,
    Full(Bytes),
    Upstream(upstream::Body),
    #[cfg(feature = "compression")]
    Compressed(Box<crate::traffic::compress::Body>),
    /// On its way into the cache too.
    Keeping(Box<crate::cache::Keeping>),
    /// Looked at while it passes.
    Watched(Box<crate::inspect::Watched>),
    /// What was looked at, and what comes behind it.
    Again(Box<crate::inspect::Again>),
    /// What a model answers, counted while it passes.
    Metered(Box<crate::ai::Metered>),
    /// Behind it come fields that are hidden.
    Veiled(Box<crate::traffic::mask::Veiled>),
    /// Of a 101: what follows is no body.
    Tunnel(upstream::Tunnel),
}

fn whole<E>(bytes: &mut Bytes) -> Poll<Option<Result<Frame<Bytes>, E>>> {
    match bytes.is_empty() {
        true => Poll::Ready(None),
        false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ClientFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => whole(bytes),
            Self::Client(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Client(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Client(body) => body.size_hint(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => whole(bytes),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            #[cfg(feature = "compression")]
            Self::Compressed(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Keeping(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Watched(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Again(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Metered(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Veiled(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Upstream(body) => body.is_end_stream(),
            #[cfg(feature = "compression")]
            Self::Compressed(body) => body.is_end_stream(),
            Self::Keeping(body) => body.is_end_stream(),
            Self::Watched(body) => body.is_end_stream(),
            Self::Again(body) => body.is_end_stream(),
            Self::Metered(body) => body.is_end_stream(),
            Self::Veiled(body) => body.is_end_stream(),
            Self::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(body) => body.size_hint(),
            #[cfg(feature = "compression")]
            Self::Compressed(body) => body.size_hint(),
            Self::Keeping(body) => body.size_hint(),
            Self::Watched(body) => body.size_hint(),
            Self::Again(body) => body.size_hint(),
            Self::Metered(body) => body.size_hint(),
            Self::Veiled(body) => body.size_hint(),
            Self::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
