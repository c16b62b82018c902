//! A TCP connection that its hyper task owns and its pool can still look at: has it been closed, has anything come in?

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

#[derive(Clone)]
pub struct Socket(Rc<Shared>);

struct Shared {
    stream: RefCell<TcpStream>,
    bytes_read: Cell<u64>,
    /// The peer takes nothing more.
    deaf: Cell<bool>,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        Self(Rc::new(Shared { stream: RefCell::new(stream), bytes_read: Cell::new(0), deaf: Cell::new(false) }))
    }

    pub fn bytes_read(&self) -> u64 {
        self.0.bytes_read.get()
    }

    /// Neither closed nor anything to read, asked of the kernel itself: the reactor may not have seen it yet.
    pub fn is_quiet(&self) -> bool {
        let stream = self.0.stream.borrow();
        let peeked = SockRef::from(&*stream).peek(&mut [MaybeUninit::uninit(); 1]);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Socket {
    /// A peer that has gone may have answered before: a write that fails is not the end, what there is to read is.
    fn write(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.0.deaf.get() {
            return Poll::Pending;
        }
        match write(Pin::new(&mut *self.0.stream.borrow_mut()), cx) {
            Poll::Ready(Err(error)) if is_end(&error) => {
                self.0.deaf.set(true);
                // To read once more, which now comes to an end.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            written => written,
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buffer);
        let read = (buffer.filled().len() - before) as u64;
        self.0.bytes_read.set(self.0.bytes_read.get() + read);
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head alone, mostly: the kernel does less for one piece than for a list of one.
        match slices {
            [only] => self.poll_write(cx, only),
            _ => self.write(cx, |stream, cx| stream.poll_write_vectored(cx, slices)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}
