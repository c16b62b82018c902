//! A request's stream, with a look at its field sections as they pass: one that is malformed in a way that the library does
//! not see ends the stream as RFC 9114 4.1.2 has it, before the library reads it.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::{
    error::Code,
    quic::{BidiStream, OpenStreams, RecvStream, SendStream, StreamErrorIncoming, StreamId, WriteBuf},
};

use super::sections::Sections;
use crate::held::Held;

pub(super) struct RequestStream {
    send: h3_quinn::SendStream<Held>,
    recv: Received,
}

/// What the client sends.
pub(super) struct Received {
    inner: h3_quinn::RecvStream,
    sections: Sections,
}

impl RequestStream {
    pub(super) fn new(inner: h3_quinn::BidiStream<Held>) -> Self {
        let (send, inner) = BidiStream::split(inner);
        Self { send, recv: Received { inner, sections: Sections::default() } }
    }
}

impl RecvStream for Received {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let came = ready!(self.inner.poll_data(cx))?;
        if let Some(bytes) = &came
            && self.sections.feed(bytes).is_err()
        {
            let error_code = Code::H3_MESSAGE_ERROR.value();
            self.inner.stop_sending(error_code);
            return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
        }
        Poll::Ready(Ok(came))
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
pub(super) struct Opener(h3_quinn::OpenStreams);

impl Opener {
    pub(super) fn new(inner: h3_quinn::OpenStreams) -> Self {
        Self(inner)
    }
}

impl OpenStreams<Held> for Opener {
    type BidiStream = RequestStream;
    type SendStream = h3_quinn::SendStream<Held>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestStream, StreamErrorIncoming>> {
        OpenStreams::<Held>::poll_open_bidi(&mut self.0, cx).map_ok(RequestStream::new)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        OpenStreams::<Held>::poll_open_send(&mut self.0, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        OpenStreams::<Held>::close(&mut self.0, code, reason);
    }
}
