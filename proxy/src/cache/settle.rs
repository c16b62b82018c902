//! What becomes of the upstream's answer: kept while it passes through, taken as word that what is kept is good still, or
//! replaced by what is kept.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{Cache, Name},
};

use super::{
    Consulted, Question, X_API_KEY, answer, counted,
    directives::{self, Directives},
    flight::Flight,
    keeping::{Keeper, Keeping, Kept},
    said,
    store::{Stored, selecting},
    wall,
};
use crate::{
    body::{RequestBody, ResponseBody},
    exchange::quietly,
    metrics::CacheResult,
    plan::Plan,
    record::Record,
    refusal::Refusal,
    traffic::Asker,
    worker::Worker,
};

/// How long a refresh that nobody waits for may take.
const REFRESH_TIME_MAX: Duration = Duration::from_secs(30);

/// What an answer may not be kept with or updated from: it belongs to one hop, or to one exchange.
const PASSING: [HeaderName; 3] = [header::AGE, header::CONNECTION, header::TRANSFER_ENCODING];

/// What a 304 cannot say anew of what is kept: it is about the body, or of this exchange.
const STAYS: [HeaderName; 8] = [
    header::AGE,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    header::VIA,
];

/// What to make of the upstream's answer.
pub(crate) struct Ticket {
    question: Question,
    /// As the upstream gets it: what answers vary on.
    request: HeaderMap,
    method: Method,
    asked: Directives,
    /// Something in the request may have made the answer one for this client, so that it must say that it is not.
    personal: bool,
    stale: Option<Arc<Stored>>,
    why: &'static str,
    /// The upstream is asked by what is kept, not by what the client has.
    conditioned: bool,
    flight: Option<Flight>,
    policy: Cache,
    purged: u64,
    sent: Instant,
}

impl Ticket {
    pub(super) fn new(question: Question, parts: &Parts, asked: Directives, policy: &Cache, purged: u64) -> Self {
        let headers = &parts.headers;
        let personal =
            question.with_credentials || headers.contains_key(header::COOKIE) || headers.contains_key(X_API_KEY);
        Self {
            question,
            request: headers.clone(),
            method: parts.method.clone(),
            asked,
            personal,
            stale: None,
            why: "miss",
            conditioned: false,
            flight: None,
            policy: policy.clone(),
            purged,
            sent: Instant::now(),
        }
    }

    pub(super) fn asks_about(mut self, stale: Option<Arc<Stored>>, why: &'static str) -> Self {
        (self.stale, self.why) = (stale, why);
        self
    }

    pub(super) fn in_flight(mut self, flight: Flight) -> Self {
        self.flight = Some(flight);
        self
    }

    /// Asks whether what is kept is good still, in the place of what the client asked (RFC 9111 4.3.1).
    pub(crate) fn condition(&mut self, headers: &mut HeaderMap) {
        self.sent = Instant::now();
        let Some(stale) = &self.stale else { return };
        let tag = stale.headers.get(header::ETAG);
        let changed = stale.headers.get(header::LAST_MODIFIED);
        self.conditioned = tag.is_some() || changed.is_some();
        if !self.conditioned {
            return;
        }
        for (name, value) in [(header::IF_NONE_MATCH, tag), (header::IF_MODIFIED_SINCE, changed)] {
            match value {
                Some(value) => drop(headers.insert(name, value.clone())),
                None => drop(headers.remove(name)),
            }
        }
    }

    /// What the client gets of what the upstream said, and what that was for the cache.
    fn settle(
        mut self: Box<Self>,
        worker: &Rc<Worker>,
        sent: Result<Response<ResponseBody>, Refusal>,
    ) -> (CacheResult, Result<Response<ResponseBody>, Refusal>) {
        let now = Instant::now();
        let mut response = match sent {
            Ok(response) => response,
            // Only where the upstream is at fault: who is shut out meanwhile gets nothing that is kept either.
            Err(refusal) => {
                let kept = is_of_the_upstream(&refusal).then(|| self.on_error(None, now)).flatten();
                return match kept {
                    Some(answer) => (CacheResult::Stale, Ok(answer)),
                    None => (CacheResult::Miss, Err(refusal)),
                };
            }
        };
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED
            && let Some(stale) = self.stale.take_if(|_| self.conditioned)
        {
            return (CacheResult::Revalidated, Ok(self.good_still(worker, &stale, response.headers(), now)));
        }
        if matches!(status.as_u16(), 500 | 502 | 503 | 504)
            && let Some(answer) = self.on_error(Some(status), now)
        {
            return (CacheResult::Stale, Ok(answer));
        }
        let size = response.body().size_hint().lower();
        let kept = self.method == Method::GET && self.may_keep(status, response.headers(), size);
        let stored = kept.then(|| self.stored(&response, now));
        let fwd = format!("fwd={}; fwd-status={}{}", self.why, status.as_u16(), if kept { "; stored" } else { "" });
        said(response.headers_mut(), &fwd);
        let Some(stored) = stored else {
            if let Some(flight) = self.flight.take() {
                flight.was_in_vain();
            }
            return (CacheResult::Miss, Ok(response));
        };
        (CacheResult::Miss, Ok(self.keeping(worker, response, stored)))
    }

    fn keeping(
        mut self: Box<Self>,
        worker: &Rc<Worker>,
        response: Response<ResponseBody>,
        stored: Stored,
    ) -> Response<ResponseBody> {
        let mut flight = self.flight.take();
        if stored.ask_first || stored.staleness(Instant::now()).is_some() {
            // Kept to be asked about: who waits for it would ask all the same.
            if let Some(flight) = flight.take() {
                flight.was_in_vain();
            }
        }
        let bytes_max = self.policy.object_max.0 as usize;
        let kept = Kept { url: self.question.url, stored, purged: self.purged };
        let keeper = Keeper::new(worker, kept, bytes_max, flight);
        response.map(|inner| match inner {
            ResponseBody::Full(bytes) => {
                keeper.keep(bytes.clone());
                ResponseBody::Full(bytes)
            }
            // What has no body is whole as it is: nobody will read it.
            inner if inner.is_end_stream() => {
                keeper.keep(Bytes::new());
                inner
            }
            inner => ResponseBody::Keeping(Keeping::new(inner, keeper)),
        })
    }

    /// RFC 5861 4: what is kept, while the upstream cannot say better.
    fn on_error(&self, status: Option<StatusCode>, now: Instant) -> Option<Response<ResponseBody>> {
        let stale = self.stale.as_ref().filter(|it| it.may_be_stale && !self.asked.no_cache)?;
        let window = stale.if_error.max(self.policy.stale_if_error.unwrap_or_default().0);
        let window = window.max(Duration::from_secs(self.asked.stale_if_error.unwrap_or(0)));
        let staleness = stale.staleness(now).unwrap_or_default();
        let status = status.map(|it| format!("; fwd-status={}", it.as_u16())).unwrap_or_default();
        let how = format!("fwd={}{status}; detail=stale-if-error", self.why);
        (staleness < window).then(|| answer(stale, &self.request, &self.method, &how, now))
    }

    /// RFC 9111 3, for a cache that many share, and strictly: whoever sets a cookie talks to one browser, and where a
    /// client may be known by what it sent, the answer itself must say that others may have it.
    fn may_keep(&self, status: StatusCode, headers: &HeaderMap, bytes: u64) -> bool {
        if status.is_informational() || matches!(status.as_u16(), 101 | 206 | 304) || bytes > self.policy.object_max.0 {
            return false;
        }
        let said = Directives::of(headers);
        if said.must_understand && !directives::is_understood(status) {
            return false;
        }
        let said_so = said.lifetime(headers, wall()).is_some();
        let timed = said_so || (directives::is_kept_by_default(status) && self.policy.default_ttl.is_some());
        let asked_about = headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED);
        self.may_be_shared(&said, said_so, headers) && (timed || (asked_about && status == StatusCode::OK))
    }

    fn may_be_shared(&self, said: &Directives, timed: bool, headers: &HeaderMap) -> bool {
        let forbidden = self.asked.no_store || said.no_store || said.private;
        let for_one = self.question.with_credentials && !said.is_for_all() || self.personal && !timed && !said.public;
        let for_one = for_one && !mutants::is(Mutant::OnesAnswerForAll);
        !forbidden
            && !for_one
            && (!headers.contains_key(header::SET_COOKIE) || mutants::is(Mutant::CookieKept))
            && varies_on(headers).is_some()
    }

    /// Without its body.
    fn stored(&self, response: &Response<ResponseBody>, now: Instant) -> Stored {
        let mut headers = response.headers().clone();
        PASSING.iter().for_each(|name| drop(headers.remove(name)));
        self.timed(response.status(), headers, response.headers(), Bytes::new(), now)
    }

    /// `came`: what says how old it is.
    fn timed(&self, status: StatusCode, headers: HeaderMap, came: &HeaderMap, body: Bytes, now: Instant) -> Stored {
        let said = Directives::of(&headers);
        let wall = wall();
        let by_default = self.policy.default_ttl.filter(|_| directives::is_kept_by_default(status));
        let lifetime = said.lifetime(&headers, wall).or(by_default.map(|it| it.0)).unwrap_or_default();
        let may_be_stale = said.may_be_stale();
        let window = |seconds: Option<u64>| Duration::from_secs(seconds.filter(|_| may_be_stale).unwrap_or(0));
        let value = |name: HeaderName| (name.clone(), selecting(&self.request, &name));
        Stored {
            way: self.question.way.as_str().into(),
            status,
            body,
            vary: varies_on(&headers).unwrap_or_default().into_iter().map(value).collect(),
            since: now,
            age_then: directives::initial_age(came, now.saturating_duration_since(self.sent), wall),
            lifetime,
            ask_first: said.no_cache,
            while_revalidate: window(said.stale_while_revalidate),
            if_error: window(said.stale_if_error),
            may_be_stale,
            headers,
        }
    }

    /// RFC 9111 4.3.4, 3.2. What a 304 says to this client alone is passed on, and not kept.
    fn good_still(
        &mut self,
        worker: &Rc<Worker>,
        stale: &Arc<Stored>,
        said_now: &HeaderMap,
        now: Instant,
    ) -> Response<ResponseBody> {
        let how = format!("fwd={}; fwd-status=304", self.why);
        let store = &worker.shared.cache;
        // Known there by another tag: it is not about what we keep, which answers once more and is gone.
        if said_now.get(header::ETAG).is_some_and(|tag| Some(tag) != stale.headers.get(header::ETAG)) {
            store.forget(&self.question.url);
            return answer(stale, &self.request, &self.method, &how, now);
        }
        let mut headers = stale.headers.clone();
        let names: Vec<_> = said_now.keys().filter(|name| !STAYS.contains(name)).cloned().collect();
        for name in names {
            headers.remove(&name);
            for value in said_now.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let said = Directives::of(&headers);
        let timed = said.lifetime(&headers, wall()).is_some();
        let shared = self.may_be_shared(&said, timed, &headers);
        let fresh = self.timed(stale.status, headers, said_now, stale.body.clone(), now);
        let answer = answer(&fresh, &self.request, &self.method, &how, now);
        if shared {
            store.put(&self.question.url, fresh, self.purged);
        } else if said.no_store || said.private {
            store.forget(&self.question.url);
        }
        self.flight = None;
        answer
    }
}

/// The names in Vary, in order; None: the answer varies on more than a request says, or nobody can read on what.
fn varies_on(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let fields = headers.get_all(header::VARY).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let names = fields.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
    let named = |name: &[u8]| if name == b"*" { None } else { HeaderName::from_bytes(name).ok() };
    let mut names = names.map(named).collect::<Option<Vec<_>>>()?;
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(names)
}

fn is_of_the_upstream(refusal: &Refusal) -> bool {
    use Refusal as R;
    matches!(
        refusal,
        R::UpstreamProtocol
            | R::UpstreamReset
            | R::UpstreamTls
            | R::UpstreamTimeout
            | R::UpstreamOverloaded
            | R::NoHealthyUpstream
            | R::CircuitOpen(_)
    )
}

impl Consulted {
    /// The upstream has answered, or will not.
    pub(crate) fn settle(
        self,
        record: &mut Record,
        sent: Result<Response<ResponseBody>, Refusal>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let worker = record.conn.worker.clone();
        match self {
            Self::Ask(ticket) => {
                let (result, sent) = ticket.settle(&worker, sent);
                counted(record, result);
                sent
            }
            Self::Changes(question) => sent.map(|mut response| {
                question.invalidate(&worker, &response);
                said(response.headers_mut(), "fwd=method");
                response
            }),
            Self::PassesBy => sent.map(|mut response| {
                said(response.headers_mut(), "fwd=bypass");
                response
            }),
            Self::Answer(_) | Self::AnswerAndRefresh(..) => sent,
        }
    }
}

impl Question {
    /// RFC 9111 4.4.
    fn invalidate(&self, worker: &Worker, response: &Response<ResponseBody>) {
        if response.status().is_client_error() || response.status().is_server_error() {
            return;
        }
        let store = &worker.shared.cache;
        store.changed(&self.url);
        let host = self.url.split('/').next().unwrap_or_default();
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let uri = response.headers().get(name).and_then(|value| value.to_str().ok());
            let uri = uri.and_then(|text| text.parse::<http::Uri>().ok());
            let here = |uri: &http::Uri| uri.host().is_none_or(|it| it.eq_ignore_ascii_case(host));
            if let Some(target) = uri.as_ref().filter(|uri| here(uri)).and_then(|uri| uri.path_and_query()) {
                store.changed(&format!("{host}{target}"));
            }
        }
    }
}

/// Asks the upstream what a client was answered already.
pub(crate) fn refresh(record: &Record, plan: &Rc<Plan>, upstream: &Name, mut parts: Parts, mut ticket: Box<Ticket>) {
    // Not whether the client has it.
    for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
        parts.headers.remove(name);
    }
    // A HEAD was answered; a GET brings what can be kept.
    parts.method = Method::GET;
    ticket.method = Method::GET;
    ticket.condition(&mut parts.headers);
    let request = Request::from_parts(parts, RequestBody::Empty);
    let (asker, worker) = (Asker::of(record), record.conn.worker.clone());
    let (plan, upstream) = (plan.clone(), upstream.clone());
    tokio::task::spawn_local(async move {
        let deadline = tokio::time::Instant::now() + REFRESH_TIME_MAX;
        let Some(response) = quietly(&worker, &plan, &upstream, request, asker.caller(), deadline).await else {
            return;
        };
        let (_, Ok(response)) = ticket.settle(&worker, Ok(response)) else { return };
        let mut body = response.into_body();
        let rest = async { while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {} };
        let _ = tokio::time::timeout_at(deadline, rest).await;
    });
}
