//! HTTP/1 from clients: our look at the raw lines against the HTTP library, and against a third reading of the same
//! bytes on top of httparse. What the edge serves must begin, end and say the same to all of them.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, rt, service::service_fn};
use quorumgate_proxy::fuzzing;

/// As one reader understood one request.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    method: String,
    target: String,
    body: Vec<u8>,
}

/// The first byte says into what parts the stream is cut.
pub fn check(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else { return };
    let heads = fuzzing::heads(stream);
    let whole = (heads.ends.len() as u64, heads.verdict);
    assert_eq!(fuzzing::heads_of_parts([stream]), whole, "all at once");
    assert_eq!(fuzzing::heads_of_parts(crate::parts(stream, *cut)), whole, "in parts of {cut}");

    let served = served(stream, *cut);
    let (read, ends) = read(stream);
    for (at, message) in served.iter().enumerate() {
        // The edge lets through what the look found nothing wrong with, and follows no further than it can.
        if at as u64 >= heads.good || at >= heads.ends.len() {
            break;
        }
        assert_eq!(Some(message), read.get(at), "request {at}: the library's reading and httparse's");
        assert_eq!(Some(&heads.ends[at]), ends.get(at), "request {at}: where its head ends");
    }
}

/// What hyper hands to exchanges, up to the first that the edge refuses.
fn served(stream: &[u8], cut: u8) -> Vec<Message> {
    let served = Rc::new(RefCell::new(Vec::new()));
    let refused = Rc::new(Cell::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let (served, refused) = (served.clone(), refused.clone());
        async move {
            let (parts, body) = request.into_parts();
            refused.set(refused.get() || !fuzzing::is_head_served(&parts));
            if let Ok(body) = body.collect().await
                && !refused.get()
            {
                let (method, target) = (parts.method.to_string(), parts.uri.to_string());
                served.borrow_mut().push(Message { method, target, body: body.to_bytes().to_vec() });
            }
            let answer = Response::builder().status(404).body(Empty::<Bytes>::new()).expect("the status is one");
            Ok::<_, Infallible>(answer)
        }
    });
    let wire = Wire { left: stream.to_vec(), at: 0, part: if cut == 0 { usize::MAX } else { usize::from(cut) } };
    run(fuzzing::http1().serve_connection(wire, service));
    served.take()
}

/// Polls until it is done, or waits for what never comes.
fn run(connection: impl Future) {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    let mut connection = pin!(connection);
    while woken.0.swap(false, Ordering::Relaxed) {
        if connection.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client that says its bytes and then nothing more, and takes whatever it is told.
struct Wire {
    left: Vec<u8>,
    at: usize,
    part: usize,
}

impl rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let end = self.left.len().min(self.at.saturating_add(self.part.min(into.remaining())));
        if end == self.at {
            return Poll::Pending;
        }
        into.put_slice(&self.left[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl rt::Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The whole messages of a stream, as RFC 9112 6 frames them, and where each head ended; up to the first that is not
/// whole or that a strict server refuses.
fn read(stream: &[u8]) -> (Vec<Message>, Vec<usize>) {
    let (mut messages, mut ends, mut at) = (Vec::new(), Vec::new(), 0);
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 256];
        let mut head = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(bytes)) = head.parse(&stream[at..]) else { break };
        at += bytes;
        ends.push(at);
        let (Some(method), Some(target)) = (head.method, head.path) else { break };
        let (method, target) = (method.to_owned(), target.to_owned());
        let values = |name: &str| {
            let named = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| field.value.trim_ascii()).collect::<Vec<_>>()
        };
        let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
            ([], []) => Some((Vec::new(), at)),
            ([length], []) => by_length(stream, at, length),
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && head.version == Some(1) => chunked(stream, at),
            _ => None,
        };
        let Some((body, end)) = body else { break };
        messages.push(Message { method, target, body });
        at = end;
    }
    (messages, ends)
}

fn by_length(stream: &[u8], at: usize, length: &[u8]) -> Option<(Vec<u8>, usize)> {
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    let end = at.checked_add(length)?;
    Some((stream.get(at..end)?.to_vec(), end))
}

fn chunked(stream: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(stream.get(at..)?) else {
            return None;
        };
        at += line;
        let size = usize::try_from(size).ok()?;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size)?;
        body.extend(stream.get(at..end)?);
        if stream.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    // Trailers, up to an empty line.
    loop {
        let line = stream[at..].windows(2).position(|pair| pair == b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some((body, at));
        }
    }
}
