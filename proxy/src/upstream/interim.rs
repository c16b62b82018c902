//! Interim answers of an HTTP/1 upstream (RFC 9110 15.2), as the library calls them out: counted, and handed to whoever
//! asked. Its HTTP/2 side drops them.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use http::{HeaderMap, Request, StatusCode};

use super::{Failure, outgoing::Outgoing};

/// Of one attempt. An upstream that sends more, or larger ones, breaks the rules of the house.
pub const INTERIM_ANSWERS_MAX: usize = 16;
/// Names and values of the fields of all of them.
const INTERIM_BYTES_MAX: usize = 16 << 10;

/// Where those that come in on a connection wait for its exchange. The library asks for something that threads could
/// share; nobody else ever holds the lock.
#[derive(Clone, Default)]
pub(super) struct Mailbox(Arc<Mutex<Mail>>);

#[derive(Default)]
struct Mail {
    heads: Vec<(StatusCode, HeaderMap)>,
    count: usize,
    bytes: usize,
    waker: Option<Waker>,
}

impl Mailbox {
    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the answers to this request.
    pub fn listen(&self, request: &mut Request<Outgoing>) {
        *self.mail() = Mail::default();
        let mailbox = self.clone();
        hyper::ext::on_informational(request, move |head| mailbox.put(head.status(), head.headers()));
    }

    fn put(&self, status: StatusCode, headers: &HeaderMap) {
        let mut mail = self.mail();
        mail.count += 1;
        mail.bytes += headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
        if !mail.is_too_much() {
            mail.heads.push((status, headers.clone()));
        }
        if let Some(waker) = mail.waker.take() {
            waker.wake();
        }
    }

    /// Waits for the answer that comes behind them, and hands on what comes before it.
    pub async fn meanwhile<T>(
        &self,
        answer: impl Future<Output = T>,
        hand_on: impl Fn(StatusCode, HeaderMap),
    ) -> Result<T, Failure> {
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            let polled = answer.as_mut().poll(cx);
            let heads = {
                let mut mail = self.mail();
                if mail.is_too_much() {
                    return Poll::Ready(Err(Failure::Protocol("too many interim answers, or too large ones")));
                }
                mail.waker = polled.is_pending().then(|| cx.waker().clone());
                std::mem::take(&mut mail.heads)
            };
            heads.into_iter().for_each(|(status, headers)| hand_on(status, headers));
            polled.map(Ok)
        })
        .await
    }
}

impl Mail {
    fn is_too_much(&self) -> bool {
        self.count > INTERIM_ANSWERS_MAX || self.bytes > INTERIM_BYTES_MAX
    }
}
