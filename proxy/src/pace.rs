//! How a client takes one answer over HTTP/2, where a stream can stand still while its connection flows: a stream that
//! takes nothing for too long ends, and what it holds of its upstream with it. Over HTTP/1 the connection itself tells.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::connection::Conn;

#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the client was last offered something, on the worker's clock; None while it waits for us.
    offered_ms: Cell<Option<u64>>,
    stalled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Pace {
    /// A part of the answer is ready; the next will be asked for when this one has been taken.
    pub(crate) fn offered(&self, now_ms: u64) {
        self.offered_ms.set(Some(now_ms));
    }

    pub(crate) fn keeps_client_waiting(&self) {
        self.offered_ms.set(None);
    }

    pub(crate) fn offered_ms(&self) -> Option<u64> {
        self.offered_ms.get().filter(|_| !self.stalled.get())
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.get()
    }

    /// Ends the stream: it is reset when its task drops it.
    pub(crate) fn give_up(&self) {
        self.stalled.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Runs the streams of one connection on its worker, each with a pace that the worker's clock looks at.
#[derive(Clone)]
pub(crate) struct Streams(pub(crate) Rc<Conn>);

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let pace = self.0.stream_begins();
        let watched = Watched { conn: self.0.clone(), pace, is_new: true };
        tokio::task::spawn_local(async move {
            let mut watched = watched;
            let mut stream = std::pin::pin!(stream);
            std::future::poll_fn(|cx| watched.poll(stream.as_mut(), cx)).await
        });
    }
}

struct Watched {
    conn: Rc<Conn>,
    pace: Rc<Pace>,
    is_new: bool,
}

impl Watched {
    fn poll<F: Future>(&mut self, stream: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<()> {
        if self.pace.is_stalled() {
            return Poll::Ready(());
        }
        {
            let mut waker = self.pace.waker.borrow_mut();
            match &mut *waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        if !std::mem::take(&mut self.is_new) {
            return stream.poll(cx).map(drop);
        }
        // The exchange begins with the first poll, and takes this for its own.
        self.conn.polled.replace(Some(self.pace.clone()));
        let polled = stream.poll(cx).map(drop);
        self.conn.polled.take();
        polled
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.conn.stream_ends(&self.pace);
    }
}
