//! A copy of a request for another upstream: sent beside the exchange, never waited for, its answer read by nobody.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, request::Parts};
use http_body::{Body, Frame};
use quorumgate_model::resource::{Mirror, Name};
use tokio::time::{Instant, timeout_at};

use crate::{
    body::{RequestBody, ResponseBody},
    client_body::ClientFault,
    exchange::quietly,
    metrics::MirrorResult,
    plan::Plan,
    record::Record,
    upstream::Caller,
    worker::Worker,
};

/// Copies that one worker has under way: collected, waiting or sent. What is more is not mirrored.
pub(crate) const COPIES_MAX: usize = 64;
/// How long a copy may take.
const TIME_MAX: Duration = Duration::from_secs(30);
/// What is read of an answer, so that its connection can serve the next copy.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Copies the request as it goes out, now or once its body is whole; `percent` of all, by chance.
pub(crate) fn begin(record: &Record, plan: &Rc<Plan>, mirror: &Mirror, parts: &Parts, body: &mut RequestBody) {
    let worker = &record.conn.worker;
    if worker.ids.random() % 100 >= u64::from(mirror.percent) {
        return;
    }
    let count = |result| worker.metrics.mirrored(result);
    let too_large = |body: &RequestBody| body.size_hint().lower() > mirror.body_max.0;
    if too_large(body) {
        return count(MirrorResult::TooLarge);
    }
    let Some(place) = Place::take(worker) else { return count(MirrorResult::Busy) };
    let mut head = Request::new(());
    *head.method_mut() = parts.method.clone();
    *head.uri_mut() = parts.uri.clone();
    *head.headers_mut() = parts.headers.clone();
    let mut copy = Copy {
        launch: Some(Launch { head, plan: plan.clone(), asker: Asker::of(record), place }),
        chunks: Vec::new(),
        bytes: 0,
        bytes_max: mirror.body_max.0,
    };
    match body {
        RequestBody::Client(body) => body.copied_to(Box::new(copy)),
        RequestBody::Full(bytes) => {
            copy.chunks.push(bytes.clone());
            copy.whole();
        }
        RequestBody::Empty => copy.whole(),
    }
}

/// One of `COPIES_MAX`.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let taken = worker.mirrors.get();
        (taken < COPIES_MAX).then(|| {
            worker.mirrors.set(taken + 1);
            Self(worker.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get() - 1);
    }
}

/// What is read of a client's body, until it is whole.
pub(crate) struct Copy {
    launch: Option<Launch>,
    /// They stay counted as held, since they are the very bytes that are passed on.
    chunks: Vec<Bytes>,
    bytes: u64,
    bytes_max: u64,
}

impl Copy {
    /// What the body came to next, and whether that was its end.
    pub(crate) fn saw(&mut self, next: Option<&Result<Frame<Bytes>, ClientFault>>, ended: bool) {
        if self.launch.is_none() {
            return;
        }
        match next {
            Some(Err(_)) => self.give_up(MirrorResult::Incomplete),
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.bytes += bytes.len() as u64;
                    self.chunks.push(bytes.clone());
                }
                if self.bytes > self.bytes_max {
                    self.give_up(MirrorResult::TooLarge);
                } else if ended {
                    self.whole();
                }
            }
            None => self.whole(),
        }
    }

    fn give_up(&mut self, why: MirrorResult) {
        if let Some(launch) = self.launch.take() {
            launch.place.0.metrics.mirrored(why);
        }
        self.chunks = Vec::new();
    }

    /// Trailers stay behind.
    fn whole(&mut self) {
        let Some(launch) = self.launch.take() else { return };
        let body = match &mut self.chunks[..] {
            [] => RequestBody::Empty,
            [one] => RequestBody::Full(std::mem::take(one)),
            many => {
                let mut all = BytesMut::with_capacity(self.bytes as usize);
                many.iter().for_each(|chunk| all.extend_from_slice(chunk));
                RequestBody::Full(all.freeze())
            }
        };
        self.chunks = Vec::new();
        tokio::task::spawn_local(launch.send(body));
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.give_up(MirrorResult::Incomplete);
    }
}

/// Whose request it was, for upstreams that are chosen by that.
pub(crate) struct Asker {
    address: SocketAddr,
    consumer: Option<Name>,
}

impl Asker {
    pub(crate) fn of(record: &Record) -> Self {
        let consumer = record.identity.as_ref().and_then(|identity| identity.caller.consumer.as_ref());
        Self {
            address: SocketAddr::new(record.client_ip, record.conn.peer.port()),
            consumer: consumer.map(|consumer| consumer.name.clone()),
        }
    }

    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller { address: self.address, consumer: self.consumer.as_deref() }
    }
}

struct Launch {
    head: Request<()>,
    plan: Rc<Plan>,
    asker: Asker,
    place: Place,
}

impl Launch {
    async fn send(self, body: RequestBody) {
        let Self { head, plan, asker, place } = self;
        let Some(mirror) = plan.traffic.as_ref().and_then(|it| it.mirror.as_ref()) else { return };
        let worker = &place.0;
        let deadline = Instant::now() + TIME_MAX;
        let request = head.map(|()| body);
        let result = match quietly(worker, &plan, &mirror.upstream, request, asker.caller(), deadline).await {
            Some(response) => {
                let _ = timeout_at(deadline, read(response.into_body())).await;
                MirrorResult::Sent
            }
            None => MirrorResult::Failed,
        };
        worker.metrics.mirrored(result);
    }
}

/// To the end, or to where it is enough.
async fn read(mut body: ResponseBody) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}
