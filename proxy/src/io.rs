//! A client's byte stream as hyper reads it: the bytes that were read to tell HTTP/2 from HTTP/1 come first, and the
//! connection hears of what arrives and of what cannot be written.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::Sleep,
};

use crate::{connection::Conn, unread::Instead, worker::SCRATCH_BYTES};

/// What an HTTP/2 client begins with (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read, and for how long, behind the end of our side: a socket that is closed with something unread resets its
/// peer, which then loses the answer that it has not read yet (RFC 9112 9.6).
const LINGER_BYTES_MAX: usize = 32 << 20;
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);

/// Up to here a copy into one piece costs less than what the kernel does for several.
const GATHERED_BYTES_MAX: usize = 4 << 10;
const _: () = assert!(GATHERED_BYTES_MAX <= SCRATCH_BYTES, "the pieces are gathered in the scratch buffer");

pub(crate) struct ClientIo<T> {
    inner: TokioIo<T>,
    conn: Rc<Conn>,
    sniffed: Vec<u8>,
    /// Once the HTTP library has refused a request by itself.
    instead: Option<Instead>,
    /// Since our side has ended.
    lingering: Option<Lingering>,
}

struct Lingering {
    bytes: usize,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientIo<T> {
    pub(crate) fn new(stream: T, conn: Rc<Conn>) -> Self {
        Self { inner: TokioIo::new(stream), conn, sniffed: Vec::new(), instead: None, lingering: None }
    }

    /// Reads no further than needed to tell; an end of the stream counts as HTTP/1.
    pub(crate) async fn sniff(&mut self) -> io::Result<Protocol> {
        let mut start = [0; PREFACE.len()];
        let mut len = 0;
        while len < PREFACE.len() && start[..len] == PREFACE[..len] {
            match self.inner.inner_mut().read(&mut start[len..]).await? {
                0 => break,
                n => len += n,
            }
            self.conn.heard();
        }
        self.sniffed = start[..len].to_vec();
        Ok(if start[..len] == *PREFACE { Protocol::Http2 } else { Protocol::Http1 })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Read for ClientIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.sniffed.is_empty() {
            let n = self.sniffed.len().min(buf.remaining());
            self.conn.scan(&self.sniffed[..n]);
            buf.put_slice(&self.sniffed[..n]);
            self.sniffed.drain(..n);
            return Poll::Ready(Ok(()));
        }
        if self.conn.wants_scan() {
            return self.poll_read_scanned(cx, buf);
        }
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            self.conn.heard();
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientIo<T> {
    /// Reads by way of the worker's own buffer, where the bytes can be looked at.
    fn poll_read_scanned(&mut self, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let worker = self.conn.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let n = scratch.len().min(buf.remaining());
        let mut scratch = tokio::io::ReadBuf::new(&mut scratch[..n]);
        ready!(Pin::new(self.inner.inner_mut()).poll_read(cx, &mut scratch))?;
        self.conn.scan(scratch.filled());
        self.conn.heard();
        buf.put_slice(scratch.filled());
        Poll::Ready(Ok(()))
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let worker = self.conn.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let mut bytes = 0;
        for buf in bufs {
            scratch[bytes..bytes + buf.len()].copy_from_slice(buf);
            bytes += buf.len();
        }
        Pin::new(&mut self.inner).poll_write(cx, &scratch[..bytes])
    }

    /// Reads what the client still sends, until it has heard that nobody listens.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| {
            let timer = Box::pin(tokio::time::sleep(LINGER_TIME_MAX));
            Lingering { bytes: 0, timer }
        });
        let mut scratch = self.conn.worker.scratch.borrow_mut();
        while lingering.bytes < LINGER_BYTES_MAX && lingering.timer.as_mut().poll(cx).is_pending() {
            let mut scratch = tokio::io::ReadBuf::new(&mut scratch);
            match ready!(Pin::new(self.inner.inner_mut()).poll_read(cx, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => lingering.bytes += scratch.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Replaces what the HTTP library says by itself. None: it does not.
    fn poll_instead(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            self.instead = Instead::of(&self.conn, bufs.iter().find(|buf| !buf.is_empty())?);
        }
        let written = self.instead.as_mut()?.poll_write(&mut self.inner, cx);
        Some(self.wrote(written).map_ok(|()| bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn wrote<R>(&self, poll: Poll<R>) -> Poll<R> {
        self.conn.write_blocked(poll.is_pending());
        poll
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Write for ClientIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.conn.owes_nothing()
            && let Some(poll) = self.poll_instead(cx, &[io::IoSlice::new(buf)])
        {
            return poll;
        }
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        if poll.is_ready() {
            self.conn.flushed();
        }
        self.wrote(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(self.wrote(poll))?;
        }
        match self.conn.lingers() {
            true => self.poll_linger(cx).map(Ok),
            false => Poll::Ready(Ok(())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.conn.owes_nothing()
            && let Some(poll) = self.poll_instead(cx, bufs)
        {
            return poll;
        }
        let poll = match bufs.iter().map(|buf| buf.len()).sum::<usize>() <= GATHERED_BYTES_MAX {
            true => self.poll_write_gathered(cx, bufs),
            false => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
        };
        self.wrote(poll)
    }
}
