//! A request's two directions as the library wants them: as its crate for QUIC has them, but that one lets nobody ask whether
//! the client has given the answer up.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{ConnectionErrorIncoming, RecvStream, SendStream, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::{Chunk, ConnectionError, ReadError, VarInt, WriteError};
use tokio_util::sync::ReusableBoxFuture;

use crate::held::Held;

/// Ends when nobody waits for the answer any more.
pub(super) type GivenUp = Pin<Box<dyn Future<Output = ()>>>;

pub(super) fn given_up(stream: &quinn::SendStream) -> GivenUp {
    let stopped = stream.stopped();
    Box::pin(async move {
        // By the client, or with the connection. Whatever code it names, it reads no more.
        let _ = stopped.await;
    })
}

/// Reset when it is dropped before its end: whoever reads it must not take what has come for all of it.
pub(super) struct Sending {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Held>>,
    /// What comes behind an interim answer whose end nobody waited for.
    behind: Option<WriteBuf<Held>>,
    has_ended: bool,
}

impl Sending {
    pub(super) fn new(stream: quinn::SendStream) -> Self {
        Self { stream, writing: None, behind: None, has_ended: false }
    }
}

impl SendStream<Held> for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(of_write)?;
                data.advance(written);
            }
            self.writing = self.behind.take();
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Held>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        match (&self.writing, &self.behind) {
            (None, _) => self.writing = Some(data.into()),
            (Some(_), None) => self.behind = Some(data.into()),
            (Some(_), Some(_)) => {
                let why = std::io::Error::other("a third frame before the first is written");
                return Err(StreamErrorIncoming::Unknown(Box::new(why)));
            }
        }
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.has_ended = true;
        Poll::Ready(self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        self.has_ended = true;
        // It may be over already.
        let _ = self.stream.reset(VarInt::from_u64(code).unwrap_or(VarInt::MAX));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.has_ended {
            self.reset(Code::H3_INTERNAL_ERROR.value());
        }
    }
}

type Reading = ReusableBoxFuture<'static, (quinn::RecvStream, Result<Option<Chunk>, ReadError>)>;

pub(super) struct Receiving {
    id: StreamId,
    /// None: it is with `reading`.
    stream: Option<quinn::RecvStream>,
    /// Allocated once.
    reading: Option<Reading>,
}

impl Receiving {
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self { id: id(stream.id()), stream: Some(stream), reading: None }
    }
}

impl RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if let Some(mut stream) = self.stream.take() {
            let read = async move {
                let chunk = stream.read_chunk(usize::MAX, true).await;
                (stream, chunk)
            };
            match &mut self.reading {
                Some(reading) => reading.set(read),
                None => self.reading = Some(ReusableBoxFuture::new(read)),
            }
        }
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        let (stream, chunk) = ready!(reading.poll(cx));
        self.stream = Some(stream);
        Poll::Ready(chunk.map(|chunk| chunk.map(|chunk| chunk.bytes)).map_err(of_read))
    }

    fn stop_sending(&mut self, code: u64) {
        if let Some(stream) = &mut self.stream {
            // It may be over already.
            let _ = stream.stop(VarInt::from_u64(code).unwrap_or(VarInt::MAX));
        }
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

fn id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("the same numbers")
}

fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: of_connection(error) }
}

pub(super) fn of_connection(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn of_write(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn of_read(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
