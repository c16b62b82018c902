//! A client's byte stream as hyper reads it: the bytes that were read to tell HTTP/2 from HTTP/1 come first, the connection
//! hears of what passes and of what cannot be written, and may have the last word.

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
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::{connection::Conn, unread::Instead, worker::SCRATCH_BYTES};

/// What an HTTP/2 client begins with (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read, and for how long, behind the end of our side: a socket that is closed with something unread resets its
/// peer, which then loses the answer that it has not read yet (RFC 9112 9.6).
const LINGER_BYTES_MAX: usize = 32 << 20;
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long an HTTP/1 client that has ended its side behind a whole request is waited for, since it was sent something last. It may
/// want the answer all the same (TCP can say so), but one that has left looks no different until it is sent something.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(2);
/// What is read and waited for behind a flood, which may go on.
const PARTING_BYTES_MAX: usize = 1 << 20;
const PARTING_TIME_MAX: Duration = Duration::from_secs(1);

/// Up to here a copy into one piece costs less than what the kernel does for several.
const GATHERED_BYTES_MAX: usize = 4 << 10;
const _: () = assert!(GATHERED_BYTES_MAX <= SCRATCH_BYTES, "the pieces are gathered in the scratch buffer");

pub(crate) struct ClientIo<T> {
    inner: TokioIo<Tap<T>>,
    conn: Rc<Conn>,
    sniffed: Vec<u8>,
    /// Read and looked at already, and to be read again.
    put_back: Vec<u8>,
    /// Once the HTTP library has refused a request by itself.
    instead: Option<Instead>,
    /// An interim answer that is being written, and how much of it is.
    interim: Option<Box<(Vec<u8>, usize)>>,
    /// Since our side has ended.
    lingering: Option<Lingering>,
    /// Since this gateway ended the connection over the library's head.
    parting: Option<Parting>,
}

/// Where all that passes is looked at.
struct Tap<T> {
    stream: T,
    conn: Rc<Conn>,
    /// Since the client has ended its side before it was answered: until when the library does not hear of it, which would
    /// take the client for gone.
    half_closed: Option<Pin<Box<Sleep>>>,
}

/// What is still said to a client that is turned away, and the end behind it.
struct Parting {
    words: Vec<u8>,
    written: usize,
    shut: bool,
    bytes: usize,
    timer: Pin<Box<Sleep>>,
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
        let inner = TokioIo::new(Tap { stream, conn: conn.clone(), half_closed: None });
        let (sniffed, put_back) = (Vec::new(), Vec::new());
        Self { inner, conn, sniffed, put_back, instead: None, interim: None, lingering: None, parting: None }
    }

    /// Reads no further than needed to tell; an end of the stream counts as HTTP/1.
    pub(crate) async fn sniff(&mut self) -> io::Result<Protocol> {
        let mut start = [0; PREFACE.len()];
        let mut len = 0;
        while len < PREFACE.len() && start[..len] == PREFACE[..len] {
            match self.inner.inner_mut().stream.read(&mut start[len..]).await? {
                0 => break,
                n => len += n,
            }
            self.conn.heard();
        }
        self.sniffed = start[..len].to_vec();
        Ok(if start[..len] == *PREFACE { Protocol::Http2 } else { Protocol::Http1 })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientIo<T> {
    /// What the HTTP library had read, for the next that reads here.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        self.put_back.splice(..0, bytes.iter().copied());
    }

    /// Until the client says something, which is put back, or has ended its side.
    pub(crate) async fn rest(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            if !self.put_back.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let worker = self.conn.worker.clone();
            let mut scratch = worker.scratch.borrow_mut();
            let mut came = ReadBuf::new(&mut scratch);
            ready!(Pin::new(self.inner.inner_mut()).poll_read(cx, &mut came))?;
            self.put_back.extend_from_slice(came.filled());
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Read for ClientIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.parts() {
            return self.poll_part(cx);
        }
        if !self.sniffed.is_empty() {
            let n = self.sniffed.len().min(buf.remaining());
            self.conn.came_in(&self.sniffed[..n]);
            buf.put_slice(&self.sniffed[..n]);
            self.sniffed.drain(..n);
            return Poll::Ready(Ok(()));
        }
        if !self.put_back.is_empty() {
            let n = self.put_back.len().min(buf.remaining());
            buf.put_slice(&self.put_back[..n]);
            match n == self.put_back.len() {
                // Its memory too.
                true => self.put_back = Vec::new(),
                false => drop(self.put_back.drain(..n)),
            }
            return Poll::Ready(Ok(()));
        }
        let was_wrong = self.conn.wrong().is_some();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.parts() {
            // The library does not see what was too much.
            return self.poll_part(cx);
        }
        match self.conn.wrong() {
            // In the body that is being read: it breaks off here, so that nobody hears of its end. Once, since a read that
            // fails later, when the library waits for the end of the client, would cost the answer.
            Some(wrong) if !was_wrong => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, wrong))),
            _ => read,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientIo<T> {
    /// Whether the connection has the last word.
    fn parts(&self) -> bool {
        self.parting.is_some() || self.conn.parts()
    }

    /// Says the last words, ends our side, and waits until the client has heard it, or for a while. Always an error.
    fn poll_part<R>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        let parting = self.parting.get_or_insert_with(|| Parting {
            words: self.conn.last_words(),
            written: 0,
            shut: false,
            bytes: 0,
            timer: Box::pin(tokio::time::sleep(PARTING_TIME_MAX)),
        });
        let stream = &mut self.inner.inner_mut().stream;
        let mut scratch = self.conn.worker.scratch.borrow_mut();
        while parting.timer.as_mut().poll(cx).is_pending() && parting.bytes < PARTING_BYTES_MAX {
            if parting.written < parting.words.len() {
                match ready!(Pin::new(&mut *stream).poll_write(cx, &parting.words[parting.written..])) {
                    Ok(n @ 1..) => parting.written += n,
                    _ => break,
                }
            } else if !parting.shut {
                if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
                    break;
                }
                parting.shut = true;
            } else {
                let mut scratch = ReadBuf::new(&mut scratch);
                match ready!(Pin::new(&mut *stream).poll_read(cx, &mut scratch)) {
                    Ok(()) if !scratch.filled().is_empty() => parting.bytes += scratch.filled().len(),
                    _ => break,
                }
            }
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    /// Writes what waits for the client in front of its answer.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let conn = self.conn.clone();
        let Some(outbox) = conn.interim.get() else { return Poll::Ready(Ok(())) };
        loop {
            if self.interim.is_none() {
                let Some(text) = outbox.next_as_text() else { return Poll::Ready(Ok(())) };
                self.interim = Some(Box::new((text, 0)));
            }
            let Some((text, written)) = self.interim.as_deref_mut() else { continue };
            while *written < text.len() {
                match ready!(Pin::new(&mut self.inner).poll_write(cx, &text[*written..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => *written += n,
                }
            }
            self.interim = None;
            outbox.is_sent();
        }
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
            let mut scratch = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.inner.inner_mut().stream).poll_read(cx, &mut scratch)) {
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
        if self.parts() {
            return self.poll_part(cx);
        }
        if self.conn.owes_nothing()
            && let Some(poll) = self.poll_instead(cx, &[io::IoSlice::new(buf)])
        {
            return poll;
        }
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.parts() {
            return self.poll_part(cx);
        }
        // All that the library had to write is out.
        if self.conn.interim.get().is_some_and(|outbox| outbox.holds()) {
            let poll = self.poll_interim(cx);
            ready!(self.wrote(poll))?;
        }
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        if poll.is_ready() {
            self.conn.flushed();
            if self.conn.owes_nothing() && self.inner.inner_mut().half_closed.take().is_some() {
                // The library may hear of the end now.
                cx.waker().wake_by_ref();
            }
        }
        self.wrote(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.parts() {
            return self.poll_part(cx);
        }
        if self.conn.goes_to_rest() {
            return Poll::Ready(Ok(()));
        }
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
        if self.parts() {
            return self.poll_part(cx);
        }
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

impl<T> Tap<T> {
    /// The client is, as far as anybody knows who could send it something.
    fn is_still_there(&mut self) {
        if let Some(patience) = &mut self.half_closed {
            patience.as_mut().reset(Instant::now() + HALF_CLOSED_MAX);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tap<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, conn, half_closed } = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 && conn.owes_an_answer() {
            let patience = half_closed.get_or_insert_with(|| Box::pin(sleep(HALF_CLOSED_MAX)));
            // Whether it takes something is for another clock.
            if conn.is_write_blocked() {
                patience.as_mut().reset(Instant::now() + HALF_CLOSED_MAX);
            }
            ready!(patience.as_mut().poll(cx));
        }
        conn.came_in(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tap<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.is_still_there();
        self.conn.went_out([buf], written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.is_still_there();
        self.conn.went_out(bufs.iter().map(|buf| &**buf), written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
