//! The body of a request over HTTP/3, held against the length that its head declares (RFC 9114 section 4.1.2).

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::error::Code;
use http_body::{Frame, SizeHint};

use super::{RecvStream, check};

pub struct Body {
    stream: RecvStream,
    /// Read before anybody asked for it.
    ahead: Option<Frame<Bytes>>,
    /// Of the declared length, what is not read yet.
    left: Option<u64>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    End,
    Broken,
}

/// The client broke it off, or framed it wrongly.
#[derive(Debug)]
pub struct Broken;

impl Body {
    /// Most requests have no body, and end with their head: that is known at once.
    pub(super) async fn begin(stream: RecvStream, left: Option<u64>) -> Self {
        let mut body = Self { stream, ahead: None, left, stage: Stage::Data };
        poll_fn(|cx| {
            if let Poll::Ready(Some(Ok(frame))) = body.poll_next(cx) {
                body.ahead = Some(frame);
            }
            // What is wrong is told again to whoever reads it.
            Poll::Ready(())
        })
        .await;
        body
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.stage == Stage::Data {
            match ready!(self.stream.poll_recv_data(cx)) {
                Ok(Some(mut data)) => {
                    let bytes = data.copy_to_bytes(data.remaining());
                    return self.counted(bytes);
                }
                Ok(None) if matches!(self.left, Some(1..)) => return self.fail(),
                Ok(None) => self.stage = Stage::Trailers,
                Err(_) => return self.fail(),
            }
        }
        match self.stage {
            Stage::End => return Poll::Ready(None),
            Stage::Broken => return Poll::Ready(Some(Err(Broken))),
            Stage::Data | Stage::Trailers => {}
        }
        match ready!(self.stream.poll_recv_trailers(cx)) {
            Ok(Some(trailers)) if check::trailers(&trailers) => {
                self.stage = Stage::End;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Ok(None) => {
                self.stage = Stage::End;
                Poll::Ready(None)
            }
            Ok(Some(_)) | Err(_) => self.fail(),
        }
    }

    fn counted(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(left) = &mut self.left {
            match left.checked_sub(bytes.len() as u64) {
                Some(rest) => *left = rest,
                None => return self.fail(),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn fail(&mut self) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.stage = Stage::Broken;
        self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        Poll::Ready(Some(Err(Broken)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.ahead.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.stage == Stage::End
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().and_then(Frame::data_ref).map_or(0, |bytes| bytes.len() as u64);
        match (self.stage, self.left) {
            (Stage::Data, Some(left)) => SizeHint::with_exact(ahead + left),
            (Stage::Data | Stage::Broken, _) => SizeHint::default(),
            (Stage::Trailers | Stage::End, _) => SizeHint::with_exact(ahead),
        }
    }
}
