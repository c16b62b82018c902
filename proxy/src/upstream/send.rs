//! One exchange's upstream call: attempts, their deadlines, and which of them may be followed by another.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use quorumgate_model::{
    resource::{HostRewrite, Protocol, Upstream},
    ruleset::Rule,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    Body, Failure, Registry,
    body::Lease,
    budget::Permit,
    head,
    local::{View, Worker},
    outgoing::{Outgoing, Source},
    pool::{Checked, InFlight, Link, Pool},
    tunnel::{Rest, Tunnel},
};
use crate::body::{RequestBody, ResponseBody};

const BACKOFF_FIRST: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// One per worker thread, made and used inside its `LocalSet` or `LocalRuntime`: connections and what they learn.
pub struct Pools {
    worker: Rc<Worker>,
}

/// What `send` needs to know beside the request.
pub struct Call<'a> {
    pub rule: &'a Arc<Rule>,
    pub upstream: &'a str,
    /// When the client stops waiting, on top of the route's and upstream's `total`.
    pub deadline: Option<Instant>,
    pub asks: Asks,
    pub trail: &'a mut Trail,
}

/// What kind of answer the request may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    Answer,
    /// Or a 101, behind which both sides speak another protocol.
    Upgrade,
}

/// What happened on the way, for the access log; filled in even if the call fails or is dropped.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    pub attempts: u32,
    /// The configured `host:port` of the last target tried.
    pub target: Option<Arc<str>>,
    /// None: a pooled connection.
    pub connect: Option<Duration>,
    /// From the call to the response head.
    pub header: Option<Duration>,
}

impl Pools {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { worker: Rc::new(Worker::new(registry)) }
    }

    /// The request is in origin-form or absolute-form, its hop-by-hop fields are already gone, and it has a Host.
    /// `rewrite.host: target` is done here, since only here the target is known.
    pub async fn send(&self, call: Call<'_>, request: Request<RequestBody>) -> Result<Response<ResponseBody>, Failure> {
        let started = Instant::now();
        let view = self.view(call.upstream).await?;
        let config = &*view.origin.config;
        if call.asks == Asks::Upgrade && config.protocol == Protocol::Http2 {
            return Err(Failure::NoUpgrade);
        }
        let route = &call.rule.route;
        let total = [route.timeouts.total.0, config.timeouts.total.0].into_iter().find(|total| !total.is_zero());
        let deadline = call.deadline.into_iter().chain(total.map(|total| started + total)).min();
        let (head, body) = request.into_parts();
        let mut exchange = Exchange {
            worker: &self.worker,
            view: &view,
            config,
            rule: call.rule,
            asks: call.asks,
            trail: call.trail,
            started,
            deadline,
            idempotent: head.method.is_idempotent(),
            head,
            body: Source::new(body),
            tried: Vec::new(),
            retries_left: route.retries.attempts.unwrap_or(config.retries.attempts),
            permit: None,
            backoff: BACKOFF_FIRST,
            spared: false,
        };
        let outcome = match deadline {
            None => exchange.run().await,
            Some(deadline) => timeout_at(deadline, exchange.run()).await.unwrap_or(Err(Failure::TotalTimeout)),
        };
        match &outcome {
            Ok(response) => view.gauge.answered(response.status()),
            Err(_) => view.gauge.unanswered(),
        }
        outcome
    }

    /// How its targets are spoken to; None: there is no such upstream.
    pub fn speaks(&self, upstream: &str) -> Option<Protocol> {
        Some(self.worker.view(upstream)?.origin.config.protocol)
    }

    /// Waits for the first look-up of the upstream's names, at most as long as a connect may take.
    async fn view(&self, name: &str) -> Result<Rc<View>, Failure> {
        let view = self.worker.view(name).ok_or(Failure::NoHealthyTarget)?;
        if !view.slots.is_empty() || !view.origin.resolving {
            return Ok(view);
        }
        let mut changes = self.worker.registry.changes();
        let resolved = async {
            loop {
                let view = self.worker.view(name)?;
                if !view.origin.resolving {
                    return Some(view);
                }
                changes.changed().await.ok()?;
            }
        };
        let resolved = timeout(view.origin.config.timeouts.connect.0, resolved).await;
        resolved.ok().flatten().ok_or(Failure::NoHealthyTarget)
    }
}

struct Exchange<'a> {
    worker: &'a Worker,
    view: &'a View,
    config: &'a Upstream,
    rule: &'a Rule,
    asks: Asks,
    trail: &'a mut Trail,
    started: Instant,
    deadline: Option<Instant>,
    idempotent: bool,
    head: request::Parts,
    body: Source,
    /// Slots that failed in this exchange.
    tried: Vec<usize>,
    retries_left: u32,
    /// Held while a retry is under way.
    permit: Option<Permit>,
    backoff: Duration,
    /// The one retry after a stale connection was used.
    spared: bool,
}

/// An attempt without a response.
struct Miss {
    failure: Failure,
    /// The request was on a connection that had served others before.
    reused: bool,
    /// The target cannot have begun to process the request.
    unprocessed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connect {
    Pooled,
    Fresh,
}

impl Exchange<'_> {
    async fn run(&mut self) -> Result<Response<ResponseBody>, Failure> {
        let mut next = (self.choose()?, Connect::Pooled);
        loop {
            let (slot, connect) = next;
            let miss = match self.attempt(slot, connect).await {
                Ok(response) => return Ok(response),
                Err(miss) => miss,
            };
            next = self.after(slot, miss).await?;
        }
    }

    /// A target not tried yet, where there is one.
    fn choose(&self) -> Result<usize, Failure> {
        let choose = |tried| self.view.balancer.choose(&self.view.slots, tried, &self.worker.random);
        choose(&self.tried).or_else(|| choose(&[])).ok_or(Failure::NoHealthyTarget)
    }

    /// Where to go after a miss, or its failure if the request must not, or may not, be sent again.
    async fn after(&mut self, slot: usize, miss: Miss) -> Result<(usize, Connect), Failure> {
        if self.body.is_broken() {
            return Err(Failure::RequestBody);
        }
        let stale = miss.reused && matches!(miss.failure, Failure::Reset);
        if stale {
            self.view.gauge.stale_connection();
        }
        let safe = miss.unprocessed || (self.idempotent && matches!(miss.failure, Failure::Reset));
        if !safe || !self.body.can_begin_again() {
            return Err(miss.failure);
        }
        // The pool's doing, not the target's: neither policy nor budget is asked, and nobody waits.
        if stale && !self.spared {
            self.spared = true;
            return Ok((slot, Connect::Fresh));
        }
        let covered = miss.failure.retry_word().is_some_and(|word| self.config.retries.on.contains(&word));
        if !covered || self.retries_left == 0 {
            return Err(miss.failure);
        }
        self.permit = None;
        let Some(permit) = Permit::acquire(&self.view.origin) else { return Err(miss.failure) };
        self.permit = Some(permit);
        self.retries_left -= 1;
        self.view.gauge.retried();
        self.tried.push(slot);
        self.wait().await;
        Ok((self.choose()?, Connect::Pooled))
    }

    /// Full jitter.
    async fn wait(&mut self) {
        let most = self.backoff.as_micros() as u64;
        sleep(Duration::from_micros(self.worker.random.below(most + 1))).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    async fn attempt(&mut self, slot: usize, connect: Connect) -> Result<Response<ResponseBody>, Miss> {
        let pool = &self.view.slots[slot].pool;
        let started = if self.trail.attempts == 0 { self.started } else { Instant::now() };
        let in_flight = InFlight::new(pool);
        self.trail.attempts += 1;
        self.trail.target = Some(pool.target.clone());
        self.trail.connect = None;
        let outcome = self.exchange(pool, connect, started).await;
        let now = Instant::now();
        let took = now - started;
        match outcome {
            Ok((response, link, rest)) => {
                self.body.seal();
                pool.endpoint.answered(now.into_std(), took);
                self.trail.header = Some(now - self.started);
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    let tunnel = Tunnel::new(link, in_flight, rest);
                    return Ok(response.map(|_| ResponseBody::Tunnel(tunnel)));
                }
                let (lease, idle) = (Lease { link, in_flight }, self.config.timeouts.idle.0);
                let body = |inner| ResponseBody::Upstream(Body::new(inner, lease, now, idle, self.deadline));
                Ok(response.map(body))
            }
            Err(miss) => {
                self.view.gauge.attempt_failed(&miss.failure);
                if miss.failure.blames_target() && !miss.reused {
                    pool.endpoint.failed(now.into_std(), took);
                }
                Err(miss)
            }
        }
    }

    async fn exchange(
        &mut self,
        pool: &Pool,
        connect: Connect,
        started: Instant,
    ) -> Result<(Response<Incoming>, Link, Rest), Miss> {
        let protocol = self.config.protocol;
        let limit = self.config.timeouts.connect.0;
        let pooled = connect == Connect::Pooled && protocol == Protocol::Http1 && self.asks == Asks::Answer;
        let idle = if pooled { pool.take_idle(started, self.check()) } else { None };
        let mut rest = None;
        let (mut link, dialed) = match (idle, self.asks) {
            (Some(connection), _) => (Link::Http1(connection), None),
            (None, Asks::Answer) => pool.link(protocol, limit).await.map_err(Miss::unconnected)?,
            (None, Asks::Upgrade) => {
                let dialing = Instant::now();
                let (connection, behind) = pool.dial_upgrade(limit).await.map_err(Miss::unconnected)?;
                rest = Some(behind);
                (Link::Http1(connection), Some(dialing.elapsed()))
            }
        };
        self.trail.connect = dialed;
        let reused = dialed.is_none();
        let sent_at = dialed.map_or(started, |_| Instant::now());
        // Only a request that may have been sent, and may be sent again, needs a copy of its head.
        let copied = self.idempotent || protocol == Protocol::Http2;
        let request = self.request(&pool.host, copied);
        let bytes_before = link.bytes_read();
        let failed = |failure, unprocessed| Miss { failure, reused, unprocessed };
        let sent = self.head_in_time(sent_at, pin!(link.send(request))).await;
        let response = sent.map_err(|failure| failed(failure, false))?.map_err(|mut error| {
            let unsent = error.take_message();
            let unprocessed = unsent.is_some();
            // A head that was not copied comes back.
            if let Some(request) = unsent.filter(|_| !copied) {
                self.head.headers = request.into_parts().0.headers;
            }
            let failure = match Failure::from(error.into_error()) {
                // The response had begun: what came of it cannot be taken back.
                Failure::Reset if link.bytes_read() != bytes_before => Failure::Protocol("the response head broke off"),
                failure => failure,
            };
            let unprocessed = unprocessed || matches!(failure, Failure::Refused);
            failed(failure, unprocessed)
        })?;
        head::check(&response, self.asks).map_err(|failure| failed(failure, false))?;
        Ok((response, link, rest))
    }

    /// A request that may be sent twice finds out by use whether its connection was stale, for the price of a rare
    /// second attempt; any other looks first.
    fn check(&self) -> Checked {
        match self.idempotent && !self.body.is_streamed() && !self.spared {
            true => Checked::ByUse,
            false => Checked::ByPeek,
        }
    }

    /// The head may come until `timeouts.response_header` after the upstream took the last part of the request.
    async fn head_in_time<T>(
        &self,
        sent_at: Instant,
        mut sending: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Failure> {
        let limit = self.config.timeouts.response_header.0;
        let mut until = sent_at + limit;
        loop {
            if let Ok(sent) = timeout_at(until, sending.as_mut()).await {
                return Ok(sent);
            }
            match self.body.taken_until().map(|taken| taken + limit) {
                Some(later) if later > until => until = later,
                _ => return Err(Failure::HeaderTimeout),
            }
        }
    }

    /// The request for the next attempt.
    fn request(&mut self, target: &HeaderValue, copied: bool) -> Request<Outgoing> {
        let headers = match copied {
            true => self.head.headers.clone(),
            false => std::mem::take(&mut self.head.headers),
        };
        let mut request = Request::new(self.body.begin());
        *request.method_mut() = self.head.method.clone();
        *request.headers_mut() = headers;
        // Of HTTP/1.0 there may be none, and many servers take an empty one for an error.
        let no_host = request.headers().get(http::header::HOST).is_none_or(|host| host.is_empty());
        if no_host || self.rule.route.rewrite.host == HostRewrite::Target {
            request.headers_mut().insert(http::header::HOST, target.clone());
        }
        head::address(&mut request, &self.head.uri, self.config.protocol);
        head::frame(&mut request, self.config.protocol);
        request
    }
}

impl Miss {
    fn unconnected(failure: Failure) -> Self {
        Self { failure, reused: false, unprocessed: true }
    }
}
