//! Answers held against the operation that they are of. Where they are only watched, one of unknown length passes through while
//! it is looked at; where they are enforced it is held until it is whole, or longer than can be held: then it goes on unseen.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use quorumgate_model::resource::{Name, PolicyMode};

use super::{
    Answer, Contract, Visit, Wanted,
    request::{Body, wanted},
    values::violation,
};
use crate::{
    body::ResponseBody,
    exchange,
    held::{Held, Holding},
    inspect::{
        found::{Place, Violation, Violations},
        media::Media,
        read::{self, Plain},
    },
    metrics::{PolicyMetrics, PolicyResult, WorkerMetrics},
    record::Record,
    refusal::Refusal,
    upstream::Failure,
};

/// Not looked at, whether they are listed or not.
const UNREAD: [StatusCode; 4] =
    [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT, StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED];

/// What an operation promises of its answer, until there is one.
pub(crate) struct Promise {
    visit: Visit,
    policy: Name,
    metrics: Arc<PolicyMetrics>,
}

impl Promise {
    /// None: nothing is asked of answers.
    pub(crate) fn new(visit: Visit, policy: &Name, metrics: &Arc<PolicyMetrics>) -> Option<Self> {
        let asks = visit.contract.responses != PolicyMode::Off && !visit.operation().answers.is_empty();
        asks.then(|| Self { visit, policy: policy.clone(), metrics: metrics.clone() })
    }

    fn contract(&self) -> &Contract {
        &self.visit.contract
    }

    fn enforces(&self) -> bool {
        self.contract().responses == PolicyMode::Enforce
    }

    pub(crate) async fn settle(
        self,
        record: &mut Record,
        response: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        settle(record, self, response).await
    }

    /// `200` before `2XX` before `default`.
    fn answer(&self, status: StatusCode) -> Option<&Answer> {
        let answers = &self.visit.operation().answers;
        let class = format!("{}XX", status.as_u16() / 100);
        [status.as_str(), &class, "default"]
            .into_iter()
            .find_map(|it| answers.iter().find(|answer| answer.status == it))
    }

    /// Err: it is not what the operation answers with.
    fn wanted(&self, response: &Response<ResponseBody>, method: &Method) -> Result<Body, Violation> {
        let status = response.status();
        // Hardly a contract lists what caches and ranges are answered with, and none of these has a whole body.
        if *method == Method::HEAD || UNREAD.contains(&status) {
            return Ok(Body::Unread);
        }
        let Some(answer) = self.answer(status) else {
            // What goes wrong behind the gateway is in few contracts.
            return match status.is_server_error() {
                true => Ok(Body::Unread),
                false => Err(violation(Place::Status, String::new(), "status", "the operation has no such answer")),
            };
        };
        if response.body().is_end_stream() || answer.content.is_empty() {
            return Ok(Body::Unread);
        }
        let media = Media::of(response.headers());
        wanted(&answer.content, &media).ok_or_else(|| {
            violation(Place::Header, "/content-type".into(), "content", "the operation answers with no such type")
        })
    }

    fn tell(&self, record: &mut Record, mut found: Vec<Violation>) -> Result<(), Refusal> {
        let Some(first) = found.first() else {
            self.metrics.count(PolicyResult::Passed);
            return Ok(());
        };
        if self.enforces() {
            self.metrics.count(PolicyResult::Refused);
            found.truncate(1);
            return Err(Refusal::AnswerInvalid(Box::new(Violations::new(self.policy.clone(), found))));
        }
        self.metrics.count(PolicyResult::Detected);
        record.detected(first.told(&format!("{}: answer", self.policy)));
        Ok(())
    }

    fn unseen(&self, record: &mut Record, rule: &'static str) {
        self.metrics.count(PolicyResult::Unseen);
        record.detected(violation(Place::Body, String::new(), rule, "").told(&format!("{}: answer", self.policy)));
    }

    fn bytes_max(&self) -> u64 {
        self.contract().body_max
    }
}

/// What the client gets of an answer.
async fn settle(
    record: &mut Record,
    promise: Promise,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let wanted = match promise.wanted(&response, &record.method) {
        Ok(Body::Read(wanted)) => wanted,
        Ok(_) => return promise.tell(record, Vec::new()).map(|()| response),
        Err(found) => return promise.tell(record, vec![found]).map(|()| response),
    };
    let size = response.body().size_hint();
    if size.lower() > promise.bytes_max() {
        promise.unseen(record, "body_max");
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    if size.exact().is_none() && !promise.enforces() {
        let is_coded = head.headers.contains_key(http::header::CONTENT_ENCODING);
        let watched = Watched::new(body, promise, wanted, is_coded, &record.conn.worker.metrics);
        return Ok(Response::from_parts(head, ResponseBody::Watched(Box::new(watched))));
    }
    let (bytes, body) = match whole(record, body, promise.bytes_max()).await? {
        Read::Whole(bytes, body) => (bytes, body),
        Read::TooLarge(body) => {
            promise.unseen(record, "body_max");
            return Ok(Response::from_parts(head, body));
        }
    };
    let worker = record.conn.worker.clone();
    match read::plain(&head.headers, bytes, promise.bytes_max(), &worker).await {
        Ok(Plain::Bytes(bytes)) => {
            promise.tell(record, promise.contract().held_against(wanted, &bytes))?;
        }
        Ok(Plain::Overloaded) => return Err(Refusal::Overloaded),
        Ok(Plain::TooLarge) => promise.unseen(record, "body_max"),
        Ok(Plain::Unknown) => promise.unseen(record, "content_encoding"),
        Err(_) => {
            let detail = "it is not what its content-encoding says";
            promise.tell(record, vec![violation(Place::Body, String::new(), "content_encoding", detail)])?;
        }
    }
    Ok(Response::from_parts(head, body))
}

enum Read {
    Whole(Bytes, ResponseBody),
    TooLarge(ResponseBody),
}

async fn whole(record: &Record, mut body: ResponseBody, bytes_max: u64) -> Result<Read, Refusal> {
    let metrics = record.conn.worker.metrics.clone();
    let (mut bytes, mut trailers) = (Vec::new(), None);
    let mut holding = Holding::new(0, &metrics);
    loop {
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let Some(frame) = exchange::while_admitted(record, next).await? else { break };
        match frame.map_err(|failure| Refusal::from(&failure))?.into_data() {
            Ok(data) => {
                holding.grow(data.len() as u64);
                bytes.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if record.conn.worker.is_overloaded() {
            return Err(Refusal::Overloaded);
        }
        if bytes.len() as u64 > bytes_max {
            let first = Bytes::from_owner(Held::new(bytes.into(), &metrics));
            let again = Again { first, rest: Some(body), trailers };
            return Ok(Read::TooLarge(ResponseBody::Again(Box::new(again))));
        }
    }
    drop(holding);
    let first = Bytes::from_owner(Held::new(bytes.into(), &metrics));
    Ok(match trailers {
        None => Read::Whole(first.clone(), ResponseBody::Full(first)),
        some => Read::Whole(first.clone(), ResponseBody::Again(Box::new(Again { first, rest: None, trailers: some }))),
    })
}

/// What was read of an answer, and what was not.
#[derive(Debug)]
pub struct Again {
    first: Bytes,
    rest: Option<ResponseBody>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.first)))));
        }
        if let Some(rest) = &mut this.rest {
            return Pin::new(rest).poll_frame(cx);
        }
        Poll::Ready(this.trailers.take().map(|it| Ok(Frame::trailers(it))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.trailers.is_none() && self.rest.as_ref().is_none_or(|it| it.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map(|it| it.size_hint()).unwrap_or_default();
        let mut hint = SizeHint::new();
        hint.set_lower(self.first.len() as u64 + rest.lower());
        hint
    }
}

/// An answer that is looked at while it passes. Nothing of it waits.
pub struct Watched {
    inner: ResponseBody,
    /// None: it was told, or nobody can tell.
    looks: Option<(Promise, Wanted)>,
    copy: Vec<u8>,
    holding: Holding,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Watched {
    fn new(
        inner: ResponseBody,
        promise: Promise,
        wanted: Wanted,
        is_coded: bool,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let mut watched =
            Self { inner, looks: Some((promise, wanted)), copy: Vec::new(), holding: Holding::new(0, metrics) };
        if is_coded {
            watched.give_up();
        }
        watched
    }

    fn give_up(&mut self) {
        if let Some((promise, _)) = self.looks.take() {
            promise.metrics.count(PolicyResult::Unseen);
        }
        self.copy = Vec::new();
    }

    fn passes(&mut self, data: &Bytes) {
        let Some((promise, _)) = &self.looks else { return };
        if (self.copy.len() + data.len()) as u64 > promise.bytes_max() {
            return self.give_up();
        }
        self.holding.grow(data.len() as u64);
        self.copy.extend_from_slice(data);
    }

    fn ended(&mut self) {
        let Some((promise, wanted)) = self.looks.take() else { return };
        let copy = std::mem::take(&mut self.copy);
        match promise.contract().held_against(wanted, &copy).first() {
            None => promise.metrics.count(PolicyResult::Passed),
            Some(first) => {
                promise.metrics.count(PolicyResult::Detected);
                let found = first.told(&promise.policy);
                tracing::debug!(%found, "an answer is not as its contract says");
            }
        }
    }
}

impl Drop for Watched {
    /// The client has left, or the upstream broke off.
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.ended();
        }
        self.give_up();
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| this.passes(data)),
            Some(Err(_)) => this.give_up(),
            None => this.ended(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
