//! One exchange's upstream call: attempts, their deadlines, and which of them may be followed by another.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use http_body::Body as _;
use hyper::body::Incoming;
use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{HashOn, HostRewrite, Protocol, RetryOn, Upstream},
    ruleset::Rule,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    Body, Failure, Registry, affinity,
    balance::{Choice, Random},
    body::{Lease, STREAM_IDLE},
    breaker::{IsOpen, Passage},
    budget::Permit,
    endpoint::nanos,
    head,
    interim::Mailbox,
    local::{View, Worker},
    outgoing::{Outgoing, Source},
    pool::{Checked, InFlight, Link, Pool, Purpose},
    tunnel::{Rest, Tunnel},
};
use crate::{
    body::{RequestBody, ResponseBody},
    exchange::is_event_stream,
    refusal::is_grpc,
    websocket,
};

const BACKOFF_FIRST: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// How often a request that waits for its answer looks whether its target is still one to wait for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Of an answer's body that comes in with its head: no more of it needs to be waited for.
const BODY_AT_HAND_BYTES_MAX: u64 = 8 << 10;

/// One per worker thread, made and used inside its `LocalSet` or `LocalRuntime`: connections and what they learn.
pub struct Pools {
    worker: Rc<Worker>,
}

/// What `send` needs to know beside the request.
pub struct Call<'a> {
    pub rule: &'a Arc<Rule>,
    pub upstream: &'a str,
    /// Now, as whoever asks has just read the clock.
    pub started: Instant,
    /// When the client stops waiting, on top of the route's and upstream's `total`.
    pub deadline: Option<Instant>,
    pub asks: Asks,
    /// The client waits to be asked for its body (`Expect: 100-continue`).
    pub expects: bool,
    /// Gets each interim answer; None: nobody wants them.
    pub interim: Option<&'a dyn Fn(StatusCode, HeaderMap)>,
    pub caller: Caller<'a>,
    pub trail: &'a mut Trail,
}

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The client's address, with the port that its last hop came from.
    pub address: SocketAddr,
    pub consumer: Option<&'a str>,
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
        let started = call.started;
        let view = self.view(call.upstream).await?;
        let config = &*view.origin.config;
        if call.asks == Asks::Upgrade && config.protocol == Protocol::Grpc {
            return Err(Failure::NoUpgrade);
        }
        let passage = self.passage(&view, started)?;
        let route = &call.rule.route;
        let total = [route.timeouts.total.0, config.timeouts.total.0].into_iter().find(|total| !total.is_zero());
        let total = total.map(|total| started + total);
        let deadline = call.deadline.into_iter().chain(total).min();
        let key = key(config, &call.caller, request.headers());
        let (head, body) = request.into_parts();
        let body = Source::new(body);
        if call.expects {
            body.expect();
        }
        let idempotent = head.method.is_idempotent() || mutants::is(Mutant::RetriedThoughUnsafe);
        let mut exchange = Exchange {
            worker: &self.worker,
            view: &view,
            config,
            rule: call.rule,
            asks: call.asks,
            interim: call.interim,
            whom: call.caller.address,
            key,
            trail: RefCell::new(call.trail),
            started,
            deadline,
            hurried: call.deadline.is_some(),
            idempotent,
            statuses: view.retries_statuses && (idempotent || head.headers.contains_key("idempotency-key")),
            head: RefCell::new(head),
            body,
            tried: RefCell::default(),
            retries_left: route.retries.attempts.unwrap_or(config.retries.attempts),
            permit: None,
            backoff: BACKOFF_FIRST,
            spared: Cell::new(false),
        };
        let outcome = match deadline {
            None => exchange.run().await,
            Some(deadline) => timeout_at(deadline, exchange.run()).await.unwrap_or(Err(Failure::TotalTimeout)),
        };
        match &outcome {
            Ok(response) => view.gauge.answered(response.status()),
            Err(failure) => {
                view.gauge.unanswered();
                view.gauge.refused(failure);
            }
        }
        if let Some(passage) = passage {
            let now_ns = nanos(Instant::now().into_std());
            // Whoever asks may wait as little as he likes.
            let hurried = call.deadline.is_some_and(|it| total.is_none_or(|total| it < total));
            let left = |failure: &Failure| hurried && matches!(failure, Failure::TotalTimeout);
            match &outcome {
                Ok(response) => passage.tell(now_ns, is_error(config, response, call.deadline.is_some())),
                Err(failure) if failure.blames_upstream() && !left(failure) => passage.tell(now_ns, true),
                // It says nothing of the upstream.
                Err(_) => drop(passage),
            }
        }
        outcome
    }

    /// Whether its targets are spoken to over HTTP/2, whatever TLS might agree on.
    pub fn speaks_http2(&self, upstream: &str) -> bool {
        let protocol = self.worker.view(upstream).map(|view| view.origin.config.protocol);
        matches!(protocol, Some(Protocol::Http2 | Protocol::Grpc))
    }

    fn passage(&self, view: &View, now: Instant) -> Result<Option<Passage>, Failure> {
        let Some(rules) = &view.origin.config.breaker else { return Ok(None) };
        let admitted = view.origin.standing.breaker.admit(rules, nanos(now.into_std()));
        admitted.map(Some).map_err(|IsOpen(left)| {
            let failure = Failure::CircuitOpen(left);
            view.gauge.unanswered();
            view.gauge.refused(&failure);
            failure
        })
    }

    pub(super) fn random(&self) -> &Random {
        &self.worker.random
    }

    /// Waits for the first look-up of the upstream's names, at most as long as a connect may take.
    pub(super) async fn view(&self, name: &str) -> Result<Rc<View>, Failure> {
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
    interim: Option<&'a dyn Fn(StatusCode, HeaderMap)>,
    whom: SocketAddr,
    /// What keeps the caller with its target.
    key: Option<u64>,
    trail: RefCell<&'a mut Trail>,
    started: Instant,
    deadline: Option<Instant>,
    /// Whoever asks says until when.
    hurried: bool,
    idempotent: bool,
    /// It may be sent again because of an answer's status.
    statuses: bool,
    head: RefCell<request::Parts>,
    body: Source,
    /// Slots that failed in this exchange.
    tried: RefCell<Vec<usize>>,
    retries_left: u32,
    /// Held while a retry is under way.
    permit: Option<Permit>,
    backoff: Duration,
    /// The one retry after a stale connection was used.
    spared: Cell<bool>,
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

/// A target, and the place that the request takes there.
struct Turn {
    slot: usize,
    in_flight: InFlight,
}

type Answered = Result<Response<ResponseBody>, (usize, Miss)>;

impl Exchange<'_> {
    async fn run(&mut self) -> Result<Response<ResponseBody>, Failure> {
        let mut next = (self.choose()?, Connect::Pooled);
        loop {
            let (turn, connect) = next;
            let slot = turn.slot;
            let answered = match self.config.retries.hedge && self.may_hedge() {
                true => Box::pin(self.hedged(turn, connect)).await,
                false => self.attempt(turn, connect).await.map_err(|miss| (slot, miss)),
            };
            next = match answered {
                Ok(response) if self.is_unwanted(&response) && !(self.is_over() && is_at_hand(&response)) => {
                    match self.again(slot).await {
                        Some(turn) => {
                            drop(response);
                            self.wait().await;
                            (turn, Connect::Pooled)
                        }
                        None => return Ok(self.sealed(response)),
                    }
                }
                Ok(response) => return Ok(self.sealed(response)),
                Err((slot, miss)) => self.after(slot, miss).await?,
            };
        }
    }

    /// Nothing will be sent again.
    fn sealed(&self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        self.body.seal();
        response
    }

    /// A target not tried yet, where there is one.
    fn choose(&self) -> Result<Turn, Failure> {
        if let Some(turn) = self.choose_other(&self.tried.borrow())? {
            return Ok(turn);
        }
        let turn = if self.tried.borrow().is_empty() { None } else { self.choose_other(&[])? };
        turn.ok_or(Failure::NoHealthyTarget)
    }

    /// None: every one that may be asked was tried.
    fn choose_other(&self, tried: &[usize]) -> Result<Option<Turn>, Failure> {
        let max = self.view.origin.in_flight_max();
        let now = if self.trail.borrow().attempts == 0 { self.started } else { Instant::now() };
        loop {
            let choice = self.choice(tried, now);
            let Some(slot) = self.view.balancer.choose(&choice) else {
                return match self.view.balancer.is_full(&choice) {
                    true => Err(Failure::Overloaded),
                    false => Ok(None),
                };
            };
            // Else another worker was faster, and the target is full now.
            if let Some(in_flight) = InFlight::new(&self.view.slots[slot].pool, max) {
                return Ok(Some(Turn { slot, in_flight }));
            }
        }
    }

    fn choice<'c>(&'c self, tried: &'c [usize], now: Instant) -> Choice<'c> {
        Choice {
            slots: &self.view.slots,
            origin: &self.view.origin,
            tried,
            now: now.into_std(),
            key: self.key,
            random: &self.worker.random,
        }
    }

    /// Where to go after a miss, or its failure if the request must not, or may not, be sent again.
    async fn after(&mut self, slot: usize, miss: Miss) -> Result<(Turn, Connect), Failure> {
        if self.body.is_broken() {
            return Err(Failure::RequestBody);
        }
        let stale = miss.reused && matches!(miss.failure, Failure::Reset);
        if stale {
            self.view.gauge.stale_connection();
        }
        let unanswered = matches!(miss.failure, Failure::Reset | Failure::HeaderTimeout);
        let safe = miss.unprocessed || (self.idempotent && unanswered);
        if !safe || !self.body.can_begin_again() {
            return Err(miss.failure);
        }
        // The pool's doing, not the target's: neither policy nor budget is asked, and nobody waits.
        if stale && !self.spared.replace(true) {
            let pool = &self.view.slots[slot].pool;
            let in_flight = InFlight::new(pool, self.view.origin.in_flight_max()).ok_or(Failure::Overloaded)?;
            return Ok((Turn { slot, in_flight }, Connect::Fresh));
        }
        let covered = miss.failure.retry_word().is_some_and(|word| self.config.retries.on.contains(&word));
        if !covered {
            return Err(miss.failure);
        }
        // To ask one that is silent again would only take as long again.
        let elsewhere = matches!(miss.failure, Failure::HeaderTimeout);
        let Some(turn) = self.retry(slot, elsewhere).await else { return Err(miss.failure) };
        self.wait().await;
        Ok((turn, Connect::Pooled))
    }

    /// The answer's status is one that is to be tried again.
    fn is_unwanted(&self, response: &Response<ResponseBody>) -> bool {
        let status = response.status().as_u16();
        self.statuses
            && self.config.retries.on.iter().any(|on| on.takes(status))
            && self.body.can_begin_again()
            && !self.body.is_broken()
    }

    /// Another target in place of one whose answer is unwanted.
    async fn again(&mut self, slot: usize) -> Option<Turn> {
        self.retry(slot, true).await
    }

    /// One more attempt within number and budget. None: what there is must do.
    async fn retry(&mut self, slot: usize, elsewhere: bool) -> Option<Turn> {
        if self.retries_left == 0 {
            return None;
        }
        self.permit = None;
        self.tried.borrow_mut().push(slot);
        let turn = match elsewhere {
            true => self.choose_other(&self.tried.borrow()).ok().flatten()?,
            false => self.choose().ok()?,
        };
        self.permit = match Permit::acquire(&self.view.origin) {
            // It cannot multiply a fault where there is none.
            None if self.is_sound(turn.slot) => Permit::wait(&self.view.origin).await,
            permit => permit,
        };
        if self.permit.is_none() {
            self.view.gauge.over_budget();
            return None;
        }
        self.retries_left -= 1;
        self.view.gauge.retried();
        Some(turn)
    }

    /// Not tried yet, and its last answer was none to complain of.
    fn is_sound(&self, slot: usize) -> bool {
        !self.tried.borrow().contains(&slot) && self.view.slots[slot].endpoint.is_in_good_standing()
    }

    /// A request with a body is sent once at a time.
    fn may_hedge(&self) -> bool {
        self.idempotent && self.asks == Asks::Answer && matches!(self.body, Source::Empty)
    }

    /// As `attempt`; once that is slower than most are, a second target is asked too, and the first good answer counts.
    async fn hedged(&self, turn: Turn, connect: Connect) -> Answered {
        let slot = turn.slot;
        let asked = Instant::now();
        let mut first = pin!(self.attempt(turn, connect));
        let Some(patience) = self.view.latencies.p95() else {
            return first.await.map_err(|miss| (slot, miss));
        };
        if let Ok(done) = timeout(patience, first.as_mut()).await {
            return done.map_err(|miss| (slot, miss));
        }
        let other = self.choose_other(&[self.tried.borrow().as_slice(), &[slot]].concat());
        let (Ok(Some(other)), permit) = (other, Permit::acquire(&self.view.origin)) else {
            return first.await.map_err(|miss| (slot, miss));
        };
        let Some(_permit) = permit else {
            self.view.gauge.over_budget();
            drop(other);
            return first.await.map_err(|miss| (slot, miss));
        };
        self.view.gauge.hedged();
        let other_slot = other.slot;
        let mut second = pin!(self.attempt(other, Connect::Pooled));
        let (mut first_waits, mut second_waits) = (true, true);
        let (mut miss, mut poor) = (None, None);
        poll_fn(|cx| {
            if first_waits && let Poll::Ready(done) = first.as_mut().poll(cx) {
                first_waits = false;
                match done {
                    Ok(response) if second_waits && self.is_poor(&response) => poor = Some((slot, response)),
                    Ok(response) => return Poll::Ready(Ok(self.won(slot, response))),
                    Err(it) => miss = Some((slot, it)),
                }
            }
            if second_waits && let Poll::Ready(done) = second.as_mut().poll(cx) {
                second_waits = false;
                if done.as_ref().map_or(true, |response| self.is_poor(response)) {
                    self.tried.borrow_mut().push(other_slot);
                }
                match done {
                    Ok(response)
                        if first_waits
                            && self.is_poor(&response)
                            && !self.may_ask_a_third(&response, [slot, other_slot]) =>
                    {
                        poor = Some((other_slot, response));
                    }
                    Ok(response) => {
                        if first_waits {
                            // How slow the first is will never be known; it is this slow at least.
                            let now = Instant::now();
                            self.view.slots[slot].endpoint.answered(now.into_std(), now - asked);
                        }
                        return Poll::Ready(Ok(self.won(other_slot, response)));
                    }
                    Err(_) => (),
                }
            }
            let is_the_last = || poor.as_ref().is_some_and(|(_, response)| is_at_hand(response)) && self.is_over();
            if (first_waits || second_waits) && !is_the_last() {
                return Poll::Pending;
            }
            // Nothing better will come.
            match poor.take() {
                Some((slot, mut response)) => {
                    if self.is_over()
                        && let ResponseBody::Upstream(body) = response.body_mut()
                    {
                        body.spare();
                    }
                    Poll::Ready(Ok(self.won(slot, response)))
                }
                None => miss.take().map_or(Poll::Pending, |missed| Poll::Ready(Err(missed))),
            }
        })
        .await
    }

    /// Nobody waits any longer. The timer around all attempts wakes their task, and is looked at behind them.
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Not worth more than what another target may still answer.
    fn is_poor(&self, response: &Response<ResponseBody>) -> bool {
        is_error(self.config, response, self.hurried) || self.is_unwanted(response)
    }

    /// In place of this answer, so that nobody waits for the first target, which may be silent.
    fn may_ask_a_third(&self, response: &Response<ResponseBody>, asked: [usize; 2]) -> bool {
        let tried = [self.tried.borrow().as_slice(), &asked].concat();
        self.retries_left > 0 && self.is_unwanted(response) && matches!(self.choose_other(&tried), Ok(Some(_)))
    }

    fn won(&self, slot: usize, response: Response<ResponseBody>) -> Response<ResponseBody> {
        self.trail.borrow_mut().target = Some(self.view.slots[slot].pool.target.clone());
        response
    }

    /// Full jitter.
    async fn wait(&mut self) {
        let most = self.backoff.as_micros() as u64;
        sleep(Duration::from_micros(self.worker.random.below(most + 1))).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    async fn attempt(&self, turn: Turn, connect: Connect) -> Result<Response<ResponseBody>, Miss> {
        let Turn { slot, in_flight } = turn;
        let pool = &self.view.slots[slot].pool;
        let started = {
            let mut trail = self.trail.borrow_mut();
            trail.attempts += 1;
            trail.target = Some(pool.target.clone());
            trail.connect = None;
            if trail.attempts == 1 { self.started } else { Instant::now() }
        };
        let outcome = self.exchange(slot, connect, started).await;
        let now = Instant::now();
        let took = now - started;
        match outcome {
            Ok((response, link, rest)) => {
                pool.endpoint.answered(now.into_std(), took);
                match is_error(self.config, &response, self.hurried) {
                    true => self.blame(pool, now),
                    false => pool.endpoint.went_well(),
                }
                if self.config.retries.hedge {
                    self.view.latencies.observe(took);
                }
                self.trail.borrow_mut().header = Some(now - self.started);
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    let tunnel = Tunnel::new(link, in_flight, rest);
                    return Ok(response.map(|_| ResponseBody::Tunnel(tunnel)));
                }
                let headers = response.headers();
                let is_stream = is_grpc(headers) || is_event_stream(headers);
                let idle = self.config.timeouts.idle.0.max(if is_stream { STREAM_IDLE } else { Duration::ZERO });
                let lease = Lease { link, in_flight };
                let body = |inner| ResponseBody::Upstream(Body::new(inner, lease, now, idle, self.deadline));
                Ok(response.map(body))
            }
            Err(miss) => {
                self.view.gauge.attempt_failed(&miss.failure);
                // An idle connection that ended says nothing about its target.
                let stale = miss.reused && matches!(miss.failure, Failure::Reset | Failure::Refused);
                if miss.failure.blames_target() && !stale {
                    pool.endpoint.failed(now.into_std(), took);
                    self.blame(pool, now);
                }
                Err(miss)
            }
        }
    }

    fn blame(&self, pool: &Pool, now: Instant) {
        if self.view.origin.failed(&pool.endpoint, now.into_std()) {
            self.view.gauge.ejected();
        }
    }

    async fn exchange(
        &self,
        slot: usize,
        connect: Connect,
        started: Instant,
    ) -> Result<(Response<Incoming>, Link, Rest), Miss> {
        let pool = &self.view.slots[slot].pool;
        let purpose = Purpose { limit: self.config.timeouts.connect.0, whom: Some(self.whom) };
        let pooled = connect == Connect::Pooled && self.asks == Asks::Answer;
        let idle = if pooled { pool.take_idle(started, self.check()) } else { None };
        let mut rest = Rest::Nothing;
        let (mut link, dialed) = match (idle, self.asks) {
            (Some(connection), _) => (Link::Http1(connection), None),
            (None, Asks::Answer) => pool.link(purpose).await.map_err(Miss::unconnected)?,
            (None, Asks::Upgrade) if self.config.protocol == Protocol::Http2 => {
                pool.link_upgrade(purpose).await.map_err(Miss::unconnected)?
            }
            (None, Asks::Upgrade) => {
                let dialing = Instant::now();
                let (connection, behind) = pool.dial_upgrade(purpose).await.map_err(Miss::unconnected)?;
                rest = Rest::Connection(behind);
                (Link::Http1(connection), Some(dialing.elapsed()))
            }
        };
        self.trail.borrow_mut().connect = dialed;
        let reused = dialed.is_none();
        let sent_at = dialed.map_or(started, |_| Instant::now());
        // Only a request that may have been sent, and may be sent again, needs a copy of its head.
        let copied = self.idempotent || self.statuses || matches!(link, Link::Http2(_));
        let mut request = self.request(pool, &link, copied);
        let connects = self.asks == Asks::Upgrade && matches!(link, Link::Http2(_));
        let accept = if connects { websocket::connect(&mut request) } else { None };
        let mailbox = self.listens(&link, &mut request);
        let bytes_before = link.bytes_read();
        let failed = |failure, unprocessed| Miss { failure, reused, unprocessed };
        let sent = match mailbox {
            None => self.head_in_time(slot, sent_at, pin!(link.send(request))).await,
            Some(mailbox) => {
                let sending = mailbox.meanwhile(link.send(request), |status, fields| self.hand_on(status, fields));
                self.head_in_time(slot, sent_at, pin!(sending)).await.and_then(|sent| sent)
            }
        };
        let response = sent.map_err(|failure| failed(failure, false))?.map_err(|mut error| {
            let unsent = error.take_message();
            let unprocessed = unsent.is_some();
            // A head that was not copied comes back.
            if let Some(request) = unsent.filter(|_| !copied) {
                self.head.borrow_mut().headers = request.into_parts().0.headers;
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
        let mut response = response;
        if let Some(accept) = accept.filter(|_| response.status() == StatusCode::OK) {
            rest = Rest::Stream(hyper::upgrade::on(&mut response));
            websocket::switched(&mut response, accept);
        }
        Ok((response, link, rest))
    }

    /// Where interim answers will come in. The library tells of those over HTTP/1 alone, so nobody waits for any other.
    fn listens(&self, link: &Link, request: &mut Request<Outgoing>) -> Option<Mailbox> {
        let interim = self.interim?;
        let Link::Http1(connection) = link else {
            if self.body.is_expected() {
                self.body.invite();
                interim(StatusCode::CONTINUE, HeaderMap::new());
            }
            return None;
        };
        if self.body.is_expected() {
            request.headers_mut().insert(http::header::EXPECT, HeaderValue::from_static("100-continue"));
        }
        connection.mailbox.listen(request);
        Some(connection.mailbox.clone())
    }

    fn hand_on(&self, status: StatusCode, fields: HeaderMap) {
        if status == StatusCode::CONTINUE {
            self.body.invite();
        }
        if let Some(interim) = self.interim {
            interim(status, fields);
        }
    }

    /// A request that may be sent twice finds out by use whether its connection was stale, for the price of a rare
    /// second attempt; any other looks first.
    fn check(&self) -> Checked {
        match self.idempotent && !self.body.is_streamed() && !self.spared.get() {
            true => Checked::ByUse,
            false => Checked::ByPeek,
        }
    }

    /// The head may come until `timeouts.response_header` after the upstream took the last part of the request; unless
    /// the target is found to be gone before, and another can be asked.
    async fn head_in_time<T>(
        &self,
        slot: usize,
        sent_at: Instant,
        mut sending: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Failure> {
        let limit = self.config.timeouts.response_header.0;
        let mut until = sent_at + limit;
        let mut look = sent_at + LOOK_INTERVAL;
        loop {
            if let Ok(sent) = timeout_at(until.min(look), sending.as_mut()).await {
                return Ok(sent);
            }
            if look < until {
                if self.is_better_elsewhere(slot) {
                    return Err(Failure::HeaderTimeout);
                }
                look += LOOK_INTERVAL;
                continue;
            }
            match self.body.taken_until().map(|taken| taken + limit) {
                Some(later) if later > until => until = later,
                _ => return Err(Failure::HeaderTimeout),
            }
        }
    }

    /// The target has been taken out since it was asked, and what it was asked may be asked of another.
    fn is_better_elsewhere(&self, slot: usize) -> bool {
        let endpoint = &self.view.slots[slot].endpoint;
        let now = Instant::now();
        let out = !endpoint.is_healthy() || endpoint.is_ejected(nanos(now.into_std()));
        let may = || self.idempotent && self.retries_left > 0 && self.body.can_begin_again();
        let tried = || [self.tried.borrow().as_slice(), &[slot]].concat();
        out && may()
            && self.config.retries.on.contains(&RetryOn::Reset)
            && self.view.balancer.choose(&self.choice(&tried(), now)).is_some()
    }

    /// The request for the next attempt.
    fn request(&self, pool: &Pool, link: &Link, copied: bool) -> Request<Outgoing> {
        let mut head = self.head.borrow_mut();
        let headers = match copied {
            true => head.headers.clone(),
            false => std::mem::take(&mut head.headers),
        };
        let mut request = Request::new(self.body.begin());
        *request.method_mut() = head.method.clone();
        *request.headers_mut() = headers;
        // Of HTTP/1.0 there may be none, and many servers take an empty one for an error.
        let no_host = request.headers().get(http::header::HOST).is_none_or(|host| host.is_empty());
        if no_host || self.rule.route.rewrite.host == HostRewrite::Target {
            let target: &HeaderValue = &pool.host;
            request.headers_mut().insert(http::header::HOST, target.clone());
        }
        let form = match link {
            Link::Http1(_) => head::Form::Http1,
            Link::Http2(_) => head::Form::Http2(if pool.is_tls() { "https" } else { "http" }),
        };
        head::address(&mut request, &head.uri, form);
        head::frame(&mut request, form);
        request
    }
}

/// None: nothing keeps this caller with a target.
pub(super) fn key(config: &Upstream, caller: &Caller<'_>, headers: &HeaderMap) -> Option<u64> {
    use quorumgate_model::resource::BalancePolicy;
    match (&config.balance.hash_on, config.balance.policy) {
        (Some(on), _) => affinity::key(on, caller, headers),
        (None, BalancePolicy::Maglev) => affinity::key(&HashOn::Ip, caller, headers),
        (None, _) => None,
    }
}

fn is_at_hand(response: &Response<ResponseBody>) -> bool {
    response.body().size_hint().exact().is_some_and(|bytes| bytes <= BODY_AT_HAND_BYTES_MAX)
}

/// What counts against a target: that it failed, not that the client did. gRPC says so in a field of its own, which an
/// answer without messages has in its head. `hurried`: a deadline may be one that nobody could keep.
fn is_error<B>(config: &Upstream, response: &Response<B>, hurried: bool) -> bool {
    /// UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS.
    const GRPC_ERRORS: [&[u8]; 4] = [b"2", b"13", b"14", b"15"];
    const GRPC_DEADLINE_EXCEEDED: &[u8] = b"4";
    let grpc = || {
        let status = response.headers().get("grpc-status").map(HeaderValue::as_bytes);
        status.is_some_and(|it| GRPC_ERRORS.contains(&it) || it == GRPC_DEADLINE_EXCEEDED && !hurried)
    };
    response.status().is_server_error() || (config.protocol == Protocol::Grpc && grpc())
}

impl Miss {
    fn unconnected(failure: Failure) -> Self {
        Self { failure, reused: false, unprocessed: true }
    }
}
