//! The upstream's side of a connection, or of a stream, that has gone over to another protocol.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::{
    Failure,
    pool::{InFlight, Link},
    wire::Wire,
};

/// What stands behind the head that let it be.
pub(super) enum Rest {
    /// The answer is one like any other.
    Nothing,
    /// The connection behind a 101 and what came in there, as soon as its task has let go of it.
    Connection(oneshot::Receiver<(Bytes, Wire)>),
    /// A stream of HTTP/2 (RFC 8441).
    Stream(OnUpgrade),
}

/// Holds the connection, which is closed with it and never used again, or its stream.
pub struct Tunnel {
    _link: Link,
    rest: Rest,
    _in_flight: InFlight,
}

impl Tunnel {
    pub(super) fn new(link: Link, in_flight: InFlight, rest: Rest) -> Self {
        Self { _link: link, rest, _in_flight: in_flight }
    }

    /// The bytes that have been read already, then the way to the other side.
    pub async fn open(&mut self) -> Result<(Bytes, Way), Failure> {
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Nothing => Err(Failure::Protocol("101 on a connection that cannot switch")),
            Rest::Connection(rest) => {
                let (read, wire) = rest.await.map_err(|_| Failure::Reset)?;
                Ok((read, Way::Wire(wire)))
            }
            Rest::Stream(stream) => {
                let stream = stream.await.map_err(|_| Failure::Reset)?;
                Ok((Bytes::new(), Way::Stream(TokioIo::new(stream))))
            }
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

/// What a tunnel's bytes go through.
pub enum Way {
    Wire(Wire),
    Stream(TokioIo<Upgraded>),
}

impl AsyncRead for Way {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Wire(wire) => Pin::new(wire).poll_read(cx, buffer),
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Way {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Wire(wire) => Pin::new(wire).poll_write(cx, bytes),
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Wire(wire) => Pin::new(wire).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Wire(wire) => Pin::new(wire).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
