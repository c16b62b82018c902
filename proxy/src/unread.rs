//! Requests whose head the HTTP library cannot read: it answers them itself, with a bare status and unseen by us. Here
//! that answer is replaced on its way out by one of ours, counted and logged.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use hyper::rt::Write;

use crate::{connection::Conn, exchange::id_value, record, refusal::Refusal};

/// Our words, on their way out in the place of the library's.
pub(crate) struct Instead {
    rest: Bytes,
}

impl Instead {
    /// For what the library says to a client that nobody has answered yet; None: it is no refusal.
    pub(crate) fn of(conn: &Conn, said: &[u8]) -> Option<Self> {
        let status = StatusCode::from_bytes(said.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?;
        let refusal = match (conn.wrong_behind(), status) {
            (Some(wrong), _) => Refusal::from(wrong),
            (None, StatusCode::BAD_REQUEST) => Refusal::Malformed("the head is not HTTP as RFC 9112 has it"),
            (None, StatusCode::URI_TOO_LONG) => Refusal::UriTooLong,
            (None, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) if conn.is_uri_too_long() => Refusal::UriTooLong,
            (None, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) if conn.declares_too_much() => Refusal::BodyTooLarge,
            (None, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => Refusal::HeadersTooLarge,
            _ => return None,
        };
        conn.linger();
        Some(Self { rest: answer(conn, &refusal, refusal.words().code, date(said)).into() })
    }

    pub(crate) fn poll_write<W: Write + Unpin>(&mut self, io: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            match ready!(Pin::new(&mut *io).poll_write(cx, &self.rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => drop(self.rest.split_to(n)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// For a client that has not sent its request's head in time.
pub(crate) fn late(conn: &Conn) -> Vec<u8> {
    answer(conn, &Refusal::LateHead, "slow_header", None)
}

/// Counted for `reason`, and logged.
fn answer(conn: &Conn, refusal: &Refusal, reason: &str, date: Option<&str>) -> Vec<u8> {
    let id = conn.worker.ids.request_id();
    record::unread(conn, refusal, reason, id);
    let mut response = refusal.answer(id, false);
    let headers = response.headers_mut();
    headers.insert("x-request-id", id_value(id));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let status = response.status();
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    for (name, value) in response.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    if let Some(date) = date {
        head.push_str(&format!("date: {date}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", response.body().len()));
    let mut answer = head.into_bytes();
    answer.extend_from_slice(response.body());
    answer
}

fn date(said: &[u8]) -> Option<&str> {
    let said = std::str::from_utf8(said).ok()?;
    said.lines().find_map(|line| line.strip_prefix("date: "))
}
