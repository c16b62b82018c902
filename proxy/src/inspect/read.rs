//! A body that is held until policies have looked through it: all of it, up to a bound, in one piece.

use std::{future::poll_fn, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

#[cfg(feature = "compression")]
use crate::unpack::{self, Coded};
use crate::{
    body::RequestBody,
    client_body::{ClientBody, ClientFault},
    exchange,
    held::{Held, Holding},
    metrics::WorkerMetrics,
    record::Record,
    refusal::Refusal,
    worker::Worker,
};

/// What is there of a body.
pub(crate) enum Read {
    /// All of it, and as it goes on.
    Whole(Bytes, RequestBody),
    /// More than the bound. It goes on with what was read of it.
    TooLarge(RequestBody),
}

/// What a body is without its Content-Encoding.
pub(crate) enum Plain {
    Bytes(Bytes),
    /// It unpacks into more than the bound.
    TooLarge,
    /// In a coding that cannot be looked into.
    Unknown,
    /// The worker holds as much as it may.
    Overloaded,
}

/// Waits for the body's end, as long as what lets the request in holds.
pub(crate) async fn whole(record: &Record, mut body: ClientBody, bytes_max: u64) -> Result<Read, Refusal> {
    let metrics = record.conn.worker.metrics.clone();
    let mut text = Text::Nothing;
    let mut trailers = None;
    loop {
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let Some(frame) = exchange::while_admitted(record, next).await? else { break };
        match frame?.into_data() {
            Ok(data) => text.push(data, &metrics),
            Err(frame) => trailers = Some(frame),
        }
        // Many such bodies are held at once, each within its own bound.
        if record.conn.worker.is_overloaded() {
            return Err(Refusal::Overloaded);
        }
        if text.len() as u64 > bytes_max {
            let bytes = text.finish(&metrics);
            body.put_back(bytes, trailers);
            return Ok(Read::TooLarge(RequestBody::Client(body)));
        }
    }
    let bytes = text.finish(&metrics);
    let body = match trailers {
        None => RequestBody::Full(bytes.clone()),
        some => {
            body.put_back(bytes.clone(), some);
            RequestBody::Client(body)
        }
    };
    Ok(Read::Whole(bytes, body))
}

/// The same body once all of it is here.
pub(crate) async fn held(record: &Record, body: RequestBody, bytes_max: u64) -> Result<RequestBody, Refusal> {
    let RequestBody::Client(body) = body else { return Ok(body) };
    match whole(record, body, bytes_max).await? {
        Read::Whole(_, body) => Ok(body),
        Read::TooLarge(_) => Err(Refusal::BodyTooLarge),
    }
}

/// One piece, which is not copied where it came as one.
pub(crate) enum Text {
    Nothing,
    One(Bytes),
    Many(Vec<u8>, Holding),
}

impl Text {
    pub(crate) fn push(&mut self, data: Bytes, metrics: &Arc<WorkerMetrics>) {
        if data.is_empty() {
            return;
        }
        match self {
            Self::Nothing => *self = Self::One(data),
            Self::One(first) => {
                let bytes = [&first[..], &data].concat();
                let holding = Holding::new(bytes.len() as u64, metrics);
                *self = Self::Many(bytes, holding);
            }
            Self::Many(bytes, holding) => {
                holding.grow(data.len() as u64);
                bytes.extend_from_slice(&data);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes, _) => bytes.len(),
        }
    }

    pub(crate) fn finish(self, metrics: &Arc<WorkerMetrics>) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            // Counted as it is.
            Self::One(bytes) => bytes,
            Self::Many(bytes, _holding) => Bytes::from_owner(Held::new(bytes.into(), metrics)),
        }
    }
}

#[cfg(feature = "compression")]
pub(crate) async fn plain(
    headers: &HeaderMap,
    bytes: Bytes,
    bytes_max: u64,
    worker: &Worker,
) -> Result<Plain, ClientFault> {
    match Coded::of(headers) {
        Coded::Plain => Ok(Plain::Bytes(bytes)),
        Coded::Unknown => Ok(Plain::Unknown),
        coded => match unpack::whole(coded, bytes, bytes_max, &worker.metrics, || worker.is_overloaded()).await {
            Ok(Some(bytes)) => Ok(Plain::Bytes(bytes)),
            Ok(None) => Ok(Plain::Overloaded),
            Err(ClientFault::UnpacksTooLarge) => Ok(Plain::TooLarge),
            Err(fault) => Err(fault),
        },
    }
}

#[cfg(not(feature = "compression"))]
pub(crate) async fn plain(headers: &HeaderMap, bytes: Bytes, _: u64, _: &Worker) -> Result<Plain, ClientFault> {
    let mut codings = headers.get_all(http::header::CONTENT_ENCODING).iter();
    match codings.all(|it| it.as_bytes().eq_ignore_ascii_case(b"identity")) {
        true => Ok(Plain::Bytes(bytes)),
        false => Ok(Plain::Unknown),
    }
}
