//! A connection behind a 101, or a stream of one: bytes both ways until one side ends, the tunnel stands still, or what let it in no longer
//! holds.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, sleep, timeout},
};

use crate::{
    client_body::BodyState,
    live::Ended,
    record::Record,
    upstream,
    websocket::{CLOSE_GOING_AWAY, CLOSE_POLICY_VIOLATION, Frames, close_frame},
    worker::Worker,
};

/// Neither side says anything for this long: a WebSocket's own pings keep it.
const IDLE_MS_MAX: u64 = 300_000;
/// How long both sides may take to hear that it is over, and the client to say so too.
const FAREWELL: Duration = Duration::from_millis(500);

/// A 101 on its way to the client, with what will stand behind it.
pub(crate) struct Tunnel {
    upstream: upstream::Tunnel,
    record: Box<Record>,
    received: Rc<BodyState>,
}

/// One direction.
struct Flow {
    /// Read and not yet written, from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// Where the stream stands that the receiver has seen.
    frames: Frames,
    bytes: u64,
    ended: bool,
    shut: bool,
}

impl Tunnel {
    pub(crate) fn new(upstream: upstream::Tunnel, mut record: Box<Record>) -> Self {
        let received = Rc::new(BodyState::default());
        received.ended.set(true);
        record.client_body = Some(received.clone());
        Self { upstream, record, received }
    }

    /// On a stream of HTTP/2, which is there as soon as the answer's head is out; it never is if the client has left.
    pub(crate) async fn run_stream(mut self, stream: Option<OnUpgrade>) {
        let Some(stream) = stream else { return };
        match stream.await {
            Ok(stream) => self.run(TokioIo::new(stream), Bytes::new()).await,
            Err(_) => self.record.ended_by("client_gone"),
        }
    }

    /// `early`: what the client has sent behind its request already.
    pub(crate) async fn run(mut self, mut client: impl AsyncRead + AsyncWrite + Unpin, early: Bytes) {
        let worker = self.record.conn.worker.clone();
        worker.metrics.tunnels_open.add(1);
        let _open = OnDrop(|| worker.metrics.tunnels_open.sub(1));
        let Ok((behind, mut target)) = self.upstream.open().await else {
            return self.record.ended_by("upstream_reset");
        };
        let (mut up, mut down) = (Flow::new(&early), Flow::new(&behind));
        let mut last_ms = worker.now_ms();
        let of_stream = self.record.is_multiplexed();
        // The connection's own clock looks after a tunnel that has it for itself.
        let mut idle = of_stream.then(|| Box::pin(sleep(Duration::from_millis(IDLE_MS_MAX))));
        let mut is_over = false;
        let ended = poll_fn(|cx| {
            if let Some(live) = &self.record.live
                && let Some(ended) = live.ended(cx)
            {
                return Poll::Ready(Some(ended));
            }
            let before = up.bytes + down.bytes;
            let to_target = up.poll(&worker, &mut client, &mut target, cx);
            let to_client = down.poll(&worker, &mut target, &mut client, cx);
            if up.bytes + down.bytes != before {
                last_ms = worker.now_ms();
                if !of_stream {
                    self.record.conn.tunnel_moves();
                }
            }
            while let Some(timer) = &mut idle
                && timer.as_mut().poll(cx).is_ready()
            {
                let silent_ms = worker.now_ms().saturating_sub(last_ms);
                if is_idle(silent_ms + 1) {
                    is_over = true;
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(Instant::now() + Duration::from_millis(IDLE_MS_MAX - silent_ms));
            }
            self.received.bytes.set(up.bytes);
            self.record.sent(down.bytes);
            match (to_target, to_client) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(None),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(None),
                // The target has said all: what the client may still send is for nobody.
                (_, Poll::Ready(Ok(()))) => Poll::Ready(None),
                _ => Poll::Pending,
            }
        })
        .await;
        if let Some(ended) = ended {
            self.record.ended_by(ended.code());
            let why = match ended {
                Ended::Draining => CLOSE_GOING_AWAY,
                _ => CLOSE_POLICY_VIOLATION,
            };
            let both = async {
                tokio::join!(
                    down.farewell(&mut client, why, ended, false),
                    up.farewell(&mut target, CLOSE_GOING_AWAY, ended, true)
                );
                drain(&mut client).await;
            };
            // Whoever does not listen is cut off.
            let _ = timeout(FAREWELL, both).await;
        }
        if is_over {
            self.record.ended_by("tunnel_idle");
        }
        self.record.sent(down.bytes);
    }
}

/// The tunnel has been silent for too long.
pub(crate) fn is_idle(silent_ms: u64) -> bool {
    silent_ms > IDLE_MS_MAX
}

/// A socket that is closed with something unread resets, and the other side may lose what it was told.
async fn drain(client: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 1024];
    while matches!(client.read(&mut rest).await, Ok(1..)) {}
}

impl Flow {
    fn new(early: &[u8]) -> Self {
        Self { pending: early.to_vec(), written: 0, frames: Frames::default(), bytes: 0, ended: false, shut: false }
    }

    /// Ready when all that came in has gone out, and the receiver knows that there is no more.
    fn poll<R, W>(&mut self, worker: &Worker, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.shut {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_pending(to, cx))?;
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.shut = true;
                continue;
            }
            let mut scratch = worker.tunnel_scratch.borrow_mut();
            let mut read = ReadBuf::new(&mut scratch);
            if Pin::new(&mut *from).poll_read(cx, &mut read)?.is_pending() {
                // Nothing more for now: what was written must not wait in a buffer.
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                return Poll::Pending;
            }
            match read.filled() {
                [] => self.ended = true,
                // Straight through, if the receiver takes it.
                bytes => match Pin::new(&mut *to).poll_write(cx, bytes)? {
                    Poll::Ready(n) => {
                        self.wrote(&bytes[..n]);
                        self.pending.extend_from_slice(&bytes[n..]);
                    }
                    Poll::Pending => self.pending.extend_from_slice(bytes),
                },
            }
        }
    }

    fn poll_pending<W: AsyncWrite + Unpin>(&mut self, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.frames.feed(&self.pending[self.written..self.written + n]);
            self.bytes += n as u64;
            self.written += n;
        }
        // Memory is kept only by tunnels whose receiver is slow.
        self.pending = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: &[u8]) {
        self.frames.feed(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Says why it is over, behind the frame that is under way if the rest of that is here; else only ends the stream.
    async fn farewell<W: AsyncWrite + Unpin>(&mut self, to: &mut W, code: u16, ended: Ended, masked: bool) {
        let rest = self.frames.rest_of_frame(&self.pending[self.written..]);
        let said = async {
            if let Some(rest) = rest.filter(|_| !self.frames.is_closed() && !self.shut) {
                to.write_all(&self.pending[self.written..self.written + rest]).await?;
                to.write_all(&close_frame(code, ended.code(), masked)).await?;
            }
            to.shutdown().await
        };
        // It is over either way.
        let _ = said.await;
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
