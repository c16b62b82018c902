//! Interim answers on their way to the client (RFC 9110 15.2): they wait here until what sends them has taken them, and
//! the answer proper waits behind them. HTTP/1.0 has none; the library that serves HTTP/2 has no way to send one.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderMap, Response, StatusCode};
use tokio::time::timeout;

use crate::connection::Conn;

/// Who sends them.
#[derive(Clone)]
pub(crate) enum Way {
    /// Over HTTP/1, between what the library writes.
    Connection(Rc<Conn>),
    /// Over HTTP/3, where the stream's task does.
    #[cfg(feature = "http3")]
    Stream(Rc<Outbox>),
}

/// Of one exchange: as many as upstreams may send (`upstream::INTERIM_ANSWERS_MAX`) and one of our own.
#[derive(Default)]
pub(crate) struct Outbox {
    heads: RefCell<VecDeque<Response<()>>>,
    /// One is being sent.
    sending: Cell<bool>,
    /// Of the exchange, which waits until all are sent.
    behind: RefCell<Option<Waker>>,
    /// Of the stream's task, which waits for the next.
    #[cfg(feature = "http3")]
    ahead: RefCell<Option<Waker>>,
}

impl Way {
    pub(crate) fn push(&self, head: Response<()>) {
        let outbox = match self {
            Self::Connection(conn) => conn.interim.get_or_init(Box::default),
            #[cfg(feature = "http3")]
            Self::Stream(outbox) => &**outbox,
        };
        outbox.heads.borrow_mut().push_back(head);
        match self {
            Self::Connection(conn) => conn.wake(),
            #[cfg(feature = "http3")]
            Self::Stream(outbox) => wake(&outbox.ahead),
        }
    }

    /// Until the client was sent all of them. One that takes nothing is given up on elsewhere, by then at the latest.
    pub(crate) async fn sent(&self, limit: Duration) {
        let outbox = match self {
            Self::Connection(conn) => conn.interim.get().map(|outbox| &**outbox),
            #[cfg(feature = "http3")]
            Self::Stream(outbox) => Some(&**outbox),
        };
        let Some(outbox) = outbox.filter(|outbox| outbox.holds()) else { return };
        let all = poll_fn(|cx| match outbox.holds() {
            true => {
                *outbox.behind.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            false => Poll::Ready(()),
        });
        let _ = timeout(limit, all).await;
    }
}

impl Outbox {
    /// Something is to be sent, or under way.
    pub(crate) fn holds(&self) -> bool {
        self.sending.get() || !self.heads.borrow().is_empty()
    }

    /// The next to send, as HTTP/1 has it.
    pub(crate) fn next_as_text(&self) -> Option<Vec<u8>> {
        let head = self.heads.borrow_mut().pop_front()?;
        self.sending.set(true);
        Some(as_text(&head))
    }

    /// The one that was taken last is out.
    pub(crate) fn is_sent(&self) {
        self.sending.set(false);
        if self.heads.borrow().is_empty() {
            wake(&self.behind);
        }
    }

    #[cfg(feature = "http3")]
    pub(crate) async fn next(&self) -> Response<()> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    #[cfg(feature = "http3")]
    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Response<()>> {
        match self.heads.borrow_mut().pop_front() {
            Some(head) => {
                self.sending.set(true);
                Poll::Ready(head)
            }
            None => {
                *self.ahead.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.borrow_mut().take() {
        waker.wake();
    }
}

fn as_text(head: &Response<()>) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} ", head.status().as_str()).into_bytes();
    text.extend_from_slice(head.status().canonical_reason().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    for (name, value) in head.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

pub(crate) fn head(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = headers;
    head
}

/// Made with the first that a connection has to send, since most have none.
pub(crate) type OfConnection = OnceCell<Box<Outbox>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_written_as_http1_has_it() {
        let mut hints = head(StatusCode::EARLY_HINTS, HeaderMap::new());
        for link in ["</a.css>; rel=preload", "</b.js>; rel=preload"] {
            hints.headers_mut().append("link", link.parse().unwrap());
        }
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n";
        assert_eq!(String::from_utf8(as_text(&hints)).unwrap(), expected);
        let unknown = head(StatusCode::from_u16(199).unwrap(), HeaderMap::new());
        assert_eq!(as_text(&unknown), b"HTTP/1.1 199 \r\n\r\n");
    }
}
