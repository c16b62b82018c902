//! What an upstream connection's bytes go through: the socket itself, or TLS over it.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::{dialer::Dialed, socket::Socket, tls};

pub struct Wire {
    stream: Stream,
    /// What TLS has made readable; the socket counts for itself.
    bytes_read: Rc<Cell<u64>>,
}

enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A look at a connection that its hyper task owns.
pub(super) struct Watch {
    socket: Socket,
    /// None: the socket's own.
    bytes_read: Option<Rc<Cell<u64>>>,
}

impl Wire {
    pub(super) fn new(dialed: Dialed<Socket>) -> Self {
        let stream = match dialed {
            Dialed::Plain(socket) => Stream::Plain(socket),
            Dialed::Tls(stream) => Stream::Tls(stream),
        };
        Self { stream, bytes_read: Rc::default() }
    }

    pub(super) fn watch(&self) -> Watch {
        match &self.stream {
            Stream::Plain(socket) => Watch { socket: socket.clone(), bytes_read: None },
            Stream::Tls(stream) => {
                Watch { socket: stream.get_ref().0.clone(), bytes_read: Some(self.bytes_read.clone()) }
            }
        }
    }

    /// None: nothing was agreed on, since there is no TLS.
    pub(super) fn is_http2(&self) -> Option<bool> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => Some(tls::agreed_on_http2(stream)),
        }
    }
}

impl Watch {
    /// Of what was said, without TLS's own words.
    pub fn bytes_read(&self) -> u64 {
        match &self.bytes_read {
            None => self.socket.bytes_read(),
            Some(bytes) => bytes.get(),
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.socket.is_quiet()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Tls(stream) => {
                let before = buffer.filled().len();
                let polled = Pin::new(stream).poll_read(cx, buffer);
                self.bytes_read.set(self.bytes_read.get() + (buffer.filled().len() - before) as u64);
                polled
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(socket) => socket.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
