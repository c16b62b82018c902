//! What RFC 9114 and RFC 9204 ask of a client's streams and the library does not check, seen as the bytes pass: the frames
//! of the control stream, that those of QPACK stay and say nothing of a table that is not there, that clients push
//! nothing, and (in `request`) the frames of a request and where its pseudo-fields stand.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, OpenStreams, RecvStream, StreamErrorIncoming, StreamId},
};
use quinn::VarInt;

use super::request::{self, RequestStream};
use crate::held::Held;

const CONTROL: u64 = 0;
const PUSH: u64 = 1;
const QPACK_ENCODER: u64 = 2;
const QPACK_DECODER: u64 = 3;

const CANCEL_PUSH: u64 = 3;
const SETTINGS: u64 = 4;
const GOAWAY: u64 = 7;
const MAX_PUSH_ID: u64 = 0xd;

/// The library's connection, with a look at what comes in.
pub(super) struct Screened {
    inner: h3_quinn::Connection,
    quic: quinn::Connection,
    /// Those of QPACK, which the library takes and does not read.
    qpack: Qpack,
}

type Qpack = Rc<RefCell<Vec<(Words, h3_quinn::RecvStream)>>>;

impl Screened {
    pub fn new(quic: quinn::Connection) -> Self {
        Self { inner: h3_quinn::Connection::new(quic.clone()), quic, qpack: Qpack::default() }
    }
}

pub(super) fn end(quic: &quinn::Connection, code: Code) {
    quic.close(VarInt::from_u64(code.value()).expect("the code is small"), b"");
}

/// Reads what there is on the streams of QPACK, which must never end.
fn read_qpack(quic: &quinn::Connection, qpack: &Qpack, cx: &mut Context<'_>) {
    qpack.borrow_mut().retain_mut(|(words, stream)| {
        loop {
            let failed = match stream.poll_data(cx) {
                Poll::Pending => return true,
                Poll::Ready(Ok(Some(bytes))) => match words.feed(&bytes) {
                    Ok(()) => continue,
                    Err(code) => code,
                },
                Poll::Ready(_) => Code::H3_CLOSED_CRITICAL_STREAM,
            };
            end(quic, failed);
            return false;
        }
    });
}

impl OpenStreams<Held> for Screened {
    type BidiStream = RequestStream;
    type SendStream = h3_quinn::SendStream<Held>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
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

impl quic::Connection<Held> for Screened {
    type RecvStream = Stream;
    type OpenStreams = request::Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionErrorIncoming>> {
        read_qpack(&self.quic, &self.qpack, cx);
        let inner = ready!(quic::Connection::<Held>::poll_accept_recv(&mut self.inner, cx))?;
        let id = inner.recv_id();
        let (quic, qpack) = (self.quic.clone(), self.qpack.clone());
        Poll::Ready(Ok(Stream { id, inner: Some(inner), quic, qpack, kind: Vec::new(), frames: None }))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        quic::Connection::<Held>::poll_accept_bidi(&mut self.inner, cx)
            .map_ok(|stream| RequestStream::new(stream, self.quic.clone()))
    }

    fn opener(&self) -> Self::OpenStreams {
        request::Opener::new(quic::Connection::<Held>::opener(&self.inner), self.quic.clone())
    }
}

/// A one-way stream of the client.
pub(super) struct Stream {
    id: StreamId,
    /// None: it is read elsewhere.
    inner: Option<h3_quinn::RecvStream>,
    quic: quinn::Connection,
    qpack: Qpack,
    /// The bytes of its kind, until they are whole.
    kind: Vec<u8>,
    /// Of a control stream.
    frames: Option<Frames>,
}

impl Stream {
    /// Looks at the first bytes, or those behind them.
    fn look(&mut self, mut bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Code> {
        if let Some(frames) = &mut self.frames {
            return frames.feed(bytes);
        }
        let known = varint(&self.kind).is_some();
        while !known && let Some((first, rest)) = bytes.split_first() {
            self.kind.push(*first);
            bytes = rest;
            match varint(&self.kind) {
                None => continue,
                Some((PUSH, _)) => return Err(Code::H3_STREAM_CREATION_ERROR),
                Some((CONTROL, _)) => return self.frames.insert(Frames::default()).feed(bytes),
                Some((kind @ (QPACK_ENCODER | QPACK_DECODER), _)) => {
                    let mut words =
                        if kind == QPACK_ENCODER { Words::Encoder } else { Words::Decoder { goes_on: false } };
                    words.feed(bytes)?;
                    self.qpack.borrow_mut().extend(self.inner.take().map(|inner| (words, inner)));
                    // So that its next bytes wake this task.
                    read_qpack(&self.quic, &self.qpack, cx);
                    return Ok(());
                }
                Some(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

impl RecvStream for Stream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let Some(inner) = &mut self.inner else { return Poll::Pending };
        let came = ready!(inner.poll_data(cx))?;
        if let Some(bytes) = &came
            && let Err(code) = self.look(bytes, cx)
        {
            end(&self.quic, code);
            return Poll::Pending;
        }
        Poll::Ready(Ok(came))
    }

    fn stop_sending(&mut self, code: u64) {
        if let Some(inner) = &mut self.inner {
            inner.stop_sending(code);
        }
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

/// A variable-length integer (RFC 9000 section 16) and its length, if it is whole.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)), length))
}

/// Where a control stream stands.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    /// Of the payload.
    left: u64,
    /// The frame that is nothing but a number, and what of it is here.
    number: Option<(u64, Vec<u8>)>,
    begun: bool,
    push_id_max: u64,
}

impl Frames {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Code> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
                if let Some((_, payload)) = &mut self.number {
                    payload.extend_from_slice(now);
                }
                self.left -= now.len() as u64;
                bytes = later;
            } else {
                self.head.push(*first);
                bytes = rest;
                let Some((kind, n)) = varint(&self.head) else { continue };
                let Some((length, _)) = varint(&self.head[n..]) else { continue };
                self.head.clear();
                self.begins(kind, length)?;
            }
            if self.left == 0 {
                self.ends()?;
            }
        }
        Ok(())
    }

    fn begins(&mut self, kind: u64, length: u64) -> Result<(), Code> {
        // RFC 9114 6.2.1: none may come before, of whatever kind.
        if !std::mem::replace(&mut self.begun, true) && kind != SETTINGS {
            return Err(Code::H3_MISSING_SETTINGS);
        }
        if matches!(kind, CANCEL_PUSH | GOAWAY | MAX_PUSH_ID) {
            if !(1..=8).contains(&length) {
                return Err(Code::H3_FRAME_ERROR);
            }
            self.number = Some((kind, Vec::new()));
        }
        self.left = length;
        Ok(())
    }

    fn ends(&mut self) -> Result<(), Code> {
        let Some((kind, payload)) = self.number.take() else { return Ok(()) };
        let Some((number, _)) = varint(&payload).filter(|(_, length)| *length == payload.len()) else {
            return Err(Code::H3_FRAME_ERROR);
        };
        if kind == MAX_PUSH_ID {
            // RFC 9114 7.2.7: it only grows.
            if number < self.push_id_max {
                return Err(Code::H3_ID_ERROR);
            }
            self.push_id_max = number;
        }
        Ok(())
    }
}

/// What a stream of QPACK may say where no table has any room (RFC 9204 sections 4.3 and 4.4).
enum Words {
    Encoder,
    Decoder {
        /// Amid the number of a stream.
        goes_on: bool,
    },
}

impl Words {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Code> {
        match self {
            // That the table has no room, and nothing else.
            Self::Encoder => match bytes.iter().all(|byte| *byte == 0x20) {
                true => Ok(()),
                false => Err(Code::QPACK_ENCODER_STREAM_ERROR),
            },
            // That a stream was given up, and nothing else: we never referred to an entry.
            Self::Decoder { goes_on } => {
                for byte in bytes {
                    *goes_on = match (*goes_on, byte >> 6) {
                        (true, _) => byte & 0x80 != 0,
                        (false, 0b01) => byte & 0x3f == 0x3f,
                        (false, _) => return Err(Code::QPACK_DECODER_STREAM_ERROR),
                    };
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_however_long_they_are() {
        for (bytes, expected) in [
            (&[0x25][..], Some((37, 1))),
            (&[0x40, 0x25], Some((37, 2))),
            (&[0x9d, 0x7f, 0x3e, 0x7d, 9], Some((494_878_333, 4))),
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], Some((151_288_809_941_952_652, 8))),
            (&[0x40], None),
            (&[], None),
        ] {
            assert_eq!(varint(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_control_stream_is_judged_alike_however_it_is_cut() {
        let check = |bytes: &[u8], expected: Result<(), Code>| {
            for size in 1..=bytes.len() {
                let mut frames = Frames::default();
                let fed = bytes.chunks(size).try_for_each(|part| frames.feed(part));
                assert_eq!(fed, expected, "{bytes:?} in parts of {size}");
            }
        };
        check(&[4, 0], Ok(()));
        check(&[4, 2, 0x21, 1, 0x21, 3, 1, 2, 3, 0xd, 1, 5, 0xd, 1, 5, 0xd, 2, 0x40, 9, 7, 1, 0], Ok(()));
        check(&[0x21, 1, 1], Err(Code::H3_MISSING_SETTINGS));
        check(&[4, 0, 0xd, 1, 5, 0xd, 1, 4], Err(Code::H3_ID_ERROR));
        check(&[4, 0, 0xd, 2, 1, 1], Err(Code::H3_FRAME_ERROR));
        check(&[4, 0, 7, 1, 0x40], Err(Code::H3_FRAME_ERROR));
        check(&[4, 0, 3, 0], Err(Code::H3_FRAME_ERROR));
    }

    #[test]
    fn qpack_may_say_what_needs_no_table() {
        let decoder = || Words::Decoder { goes_on: false };
        assert_eq!(Words::Encoder.feed(&[0x20, 0x20]), Ok(()));
        assert_eq!(Words::Encoder.feed(&[0x3f, 0xe1, 0x1f]), Err(Code::QPACK_ENCODER_STREAM_ERROR));
        assert_eq!(decoder().feed(&[0x44, 0x7f, 0x81, 0x01, 0x40]), Ok(()));
        assert_eq!(decoder().feed(&[0x84]), Err(Code::QPACK_DECODER_STREAM_ERROR));
        assert_eq!(decoder().feed(&[0x01]), Err(Code::QPACK_DECODER_STREAM_ERROR));
    }
}
