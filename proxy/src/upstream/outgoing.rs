//! A request's body as connections get it: kept, up to a bound, while it may have to be sent a second time.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use tokio::time::{Instant, Sleep, sleep};

use crate::{
    body::RequestBody,
    client_body::{ClientBody, ClientFault},
};

/// A body is sent again only while all that was read of it is within this.
pub(super) const REPLAY_BYTES_MAX: usize = 64 << 10;
/// How long a client that waits to be asked for its body waits for the upstream to do so (RFC 9110 10.1.1).
const INVITATION_WAIT: Duration = Duration::from_secs(1);

/// One request's body over all its attempts.
pub(super) enum Source {
    Empty,
    Whole(Bytes),
    Client(Rc<RefCell<Recording>>),
}

pub(super) struct Recording {
    body: ClientBody,
    /// What was read, until the recording stops or overflows.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    recording: bool,
    /// Something was read and is no longer kept.
    lost: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
    fault: Option<ClientFault>,
    /// When an attempt took the last part; None while it waits for the client.
    taken: Option<Instant>,
    invitation: Invitation,
    /// Which attempt may read: a connection that was given up must not eat what the next one needs.
    turn: u32,
}

/// Whether the client may be asked for its body: to read it is to ask for it.
enum Invitation {
    Given,
    /// The upstream was told that the client waits. The timer is made once the connection would take the body.
    Due {
        timer: Option<Pin<Box<Sleep>>>,
        waker: Option<Waker>,
    },
    /// The upstream has answered without it.
    Withheld,
}

/// What one attempt sends.
pub(super) enum Outgoing {
    Empty,
    Whole(Bytes),
    Client(Reader),
}

pub(super) struct Reader {
    recording: Rc<RefCell<Recording>>,
    turn: u32,
    next: usize,
    trailers_sent: bool,
}

impl Source {
    pub fn new(body: RequestBody) -> Self {
        match body {
            RequestBody::Empty => Self::Empty,
            RequestBody::Full(bytes) if bytes.is_empty() => Self::Empty,
            RequestBody::Full(bytes) => Self::Whole(bytes),
            RequestBody::Client(body) if body.is_end_stream() => Self::Empty,
            RequestBody::Client(body) => Self::Client(Rc::new(RefCell::new(Recording::new(body)))),
        }
    }

    /// The body from its start, for the next attempt; ends what an earlier one could read.
    pub fn begin(&self) -> Outgoing {
        match self {
            Self::Empty => Outgoing::Empty,
            Self::Whole(bytes) => Outgoing::Whole(bytes.clone()),
            Self::Client(recording) => {
                let turn = recording.borrow_mut().next_turn();
                Outgoing::Client(Reader { recording: recording.clone(), turn, next: 0, trailers_sent: false })
            }
        }
    }

    /// The client waits to be asked for its body.
    pub fn expect(&self) {
        if let Self::Client(recording) = self {
            recording.borrow_mut().invitation = Invitation::Due { timer: None, waker: None };
        }
    }

    /// It still does.
    pub fn is_expected(&self) -> bool {
        matches!(self, Self::Client(recording) if matches!(recording.borrow().invitation, Invitation::Due { .. }))
    }

    /// Somebody wants the body.
    pub fn invite(&self) {
        let Self::Client(recording) = self else { return };
        let mut recording = recording.borrow_mut();
        if let Invitation::Due { waker, .. } = &mut recording.invitation {
            let waker = waker.take();
            recording.invitation = Invitation::Given;
            drop(recording);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    pub fn can_begin_again(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(_) => true,
            Self::Client(recording) => {
                let recording = recording.borrow();
                !recording.lost && recording.fault.is_none()
            }
        }
    }

    /// The client's body failed.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Client(recording) if recording.borrow().fault.is_some())
    }

    pub fn is_streamed(&self) -> bool {
        matches!(self, Self::Client(_))
    }

    /// When the connection last took a part of a streamed body; now, if the client keeps it waiting. None: not streamed.
    pub fn taken_until(&self) -> Option<Instant> {
        match self {
            Self::Empty | Self::Whole(_) => None,
            Self::Client(recording) => Some(recording.borrow().taken.unwrap_or_else(Instant::now)),
        }
    }

    /// Nothing will be sent again: what was kept for that is let go, and what was not asked for will not be.
    pub fn seal(&self) {
        if let Self::Client(recording) = self {
            let mut recording = recording.borrow_mut();
            recording.recording = false;
            if matches!(recording.invitation, Invitation::Due { .. }) {
                recording.invitation = Invitation::Withheld;
            }
        }
    }
}

impl Recording {
    fn new(body: ClientBody) -> Self {
        Self {
            body,
            kept: Vec::new(),
            kept_bytes: 0,
            recording: true,
            lost: false,
            trailers: None,
            ended: false,
            fault: None,
            taken: Some(Instant::now()),
            invitation: Invitation::Given,
            turn: 0,
        }
    }

    fn next_turn(&mut self) -> u32 {
        self.turn += 1;
        self.turn
    }

    fn poll_invited(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.invitation {
            Invitation::Given => return Poll::Ready(()),
            Invitation::Withheld => return Poll::Pending,
            Invitation::Due { timer, waker } => {
                let timer = timer.get_or_insert_with(|| Box::pin(sleep(INVITATION_WAIT)));
                if timer.as_mut().poll(cx).is_pending() {
                    *waker = Some(cx.waker().clone());
                    // The upstream keeps nobody waiting yet: it may not know how to ask.
                    self.taken = None;
                    return Poll::Pending;
                }
            }
        }
        self.invitation = Invitation::Given;
        Poll::Ready(())
    }

    /// The next bytes from the client, kept if the recording still runs; None at the end of the data.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientFault>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            self.taken = None;
            let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.taken = Some(Instant::now());
            let frame = match next {
                None => {
                    self.ended = true;
                    continue;
                }
                Some(Err(fault)) => {
                    self.fault = Some(fault);
                    return Poll::Ready(Err(fault));
                }
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(bytes) => return Poll::Ready(Ok(Some(bytes))),
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    self.ended = true;
                }
            }
        }
    }

    fn keep(&mut self, bytes: &Bytes) {
        let fits = self.kept_bytes + bytes.len() <= REPLAY_BYTES_MAX;
        if self.recording && fits {
            self.kept_bytes += bytes.len();
            self.kept.push(bytes.clone());
            return;
        }
        self.recording = false;
        self.lost = true;
        self.kept.clear();
    }
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        let mut recording = self.recording.borrow_mut();
        if recording.turn != self.turn {
            return Poll::Ready(Some(Err(ClientFault::Broken)));
        }
        if let Some(bytes) = recording.kept.get(self.next).cloned() {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        ready!(recording.poll_invited(cx));
        let read = match ready!(recording.poll_client(cx)) {
            Err(fault) => return Poll::Ready(Some(Err(fault))),
            Ok(read) => read,
        };
        if let Some(bytes) = read {
            recording.keep(&bytes);
            self.next = recording.kept.len();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if self.trailers_sent {
            return Poll::Ready(None);
        }
        self.trailers_sent = true;
        Poll::Ready(recording.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn kept_ahead(&self) -> u64 {
        let recording = self.recording.borrow();
        recording.kept.iter().skip(self.next).map(|bytes| bytes.len() as u64).sum()
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = ClientFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientFault>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Client(reader) => reader.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Client(reader) => {
                let ended = || {
                    let recording = reader.recording.borrow();
                    let read = recording.ended || recording.body.is_end_stream();
                    read && (recording.trailers.is_none() || reader.trailers_sent)
                };
                reader.kept_ahead() == 0 && ended()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Client(reader) => {
                let ahead = reader.kept_ahead();
                let rest = reader.recording.borrow().body.size_hint();
                let mut hint = SizeHint::new();
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ahead)) {
                    hint.set_upper(upper);
                }
                hint.set_lower(rest.lower().saturating_add(ahead));
                hint
            }
        }
    }
}
