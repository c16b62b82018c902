//! A request's stream, with a look at its frames and field sections as they pass: a section that is malformed in a way that
//! the library does not see ends the stream as RFC 9114 4.1.2 has it, before the library reads it; a frame that has no place
//! there ends the connection.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::{
    error::Code,
    quic::{BidiStream, OpenStreams, RecvStream, SendStream, StreamErrorIncoming, StreamId, WriteBuf},
};

use super::{
    screen,
    sections::{Ends, Sections},
};
use crate::held::Held;

pub(super) struct RequestStream {
    send: h3_quinn::SendStream<Held>,
    recv: Received,
}

/// What the client sends.
pub(super) struct Received {
    inner: h3_quinn::RecvStream,
    quic: quinn::Connection,
    sections: Sections,
}

impl RequestStream {
    pub(super) fn new(inner: h3_quinn::BidiStream<Held>, quic: quinn::Connection) -> Self {
        let (send, inner) = BidiStream::split(inner);
        Self { send, recv: Received { inner, quic, sections: Sections::default() } }
    }
}

impl RecvStream for Received {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let came = ready!(self.inner.poll_data(cx))?;
        let Some(Err(ends)) = came.as_deref().map(|bytes| self.sections.feed(bytes)) else {
            return Poll::Ready(Ok(came));
        };
        let code = match ends {
            Ends::Stream => Code::H3_MESSAGE_ERROR,
            Ends::Connection => {
                screen::end(&self.quic, Code::H3_FRAME_UNEXPECTED);
                Code::H3_FRAME_UNEXPECTED
            }
        };
        self.inner.stop_sending(code.value());
        Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code: code.value() }))
    }

    fn stop_sending(&mut self, code: u64) {
        self.inner.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.inner.recv_id()
    }
}

impl RecvStream for RequestStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let came = ready!(self.recv.poll_data(cx));
        // Only the head is read before the two sides part.
        if let Err(StreamErrorIncoming::StreamTerminated { error_code }) = &came
            && *error_code == Code::H3_MESSAGE_ERROR.value()
        {
            self.send.reset(*error_code);
        }
        Poll::Ready(came)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl SendStream<Held> for RequestStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Held>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl BidiStream<Held> for RequestStream {
    type SendStream = h3_quinn::SendStream<Held>;
    type RecvStream = Received;

    fn split(self) -> (Self::SendStream, Received) {
        (self.send, self.recv)
    }
}

/// Opens the streams of this side.
pub(super) struct Opener {
    inner: h3_quinn::OpenStreams,
    quic: quinn::Connection,
}

impl Opener {
    pub(super) fn new(inner: h3_quinn::OpenStreams, quic: quinn::Connection) -> Self {
        Self { inner, quic }
    }
}

impl OpenStreams<Held> for Opener {
    type BidiStream = RequestStream;
    type SendStream = h3_quinn::SendStream<Held>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestStream, StreamErrorIncoming>> {
        OpenStreams::<Held>::poll_open_bidi(&mut self.inner, cx)
            .map_ok(|stream| RequestStream::new(stream, self.quic.clone()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        OpenStreams::<Held>::poll_open_send(&mut self.inner, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        OpenStreams::<Held>::close(&mut self.inner, code, reason);
    }
}
