//! What is remembered of one exchange, written to metrics and access log exactly once: on its one exit, or on drop when
//! the client left or the exchange panicked.

use std::{
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::upgrade::OnUpgrade;
use quorumgate_model::resource::PathPattern;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    ai,
    anomaly::Watching,
    body::ResponseBody,
    client_body::BodyState,
    codes,
    connection::Conn,
    exchange,
    grpc_web::{self, GrpcWeb},
    held::Held,
    identity::Identity,
    interim::Way,
    limits::{Admitted, Stood},
    live::{Ended, Live},
    pace::Pace,
    plan::Plan,
    received::Received,
    recent::{self, Brief, More, Traced},
    redaction::Redaction,
    refusal::{self, Refusal},
    rfc3339::rfc3339,
    told,
    traffic::{Passing, mask::Veils},
    upstream::{Failure, Trail},
    versions::Version as ApiVersion,
    worker::Worker,
};

/// What the log says of a client that left before it had the whole answer.
const CLIENT_GONE: &str = "client_gone";
const CLIENT_GONE_STATUS: u16 = 499;
/// What it says of one that was given up on because it took nothing more of its answer.
pub(crate) const STALLED_CLIENT: &str = "stalled_client";

pub(crate) struct Record {
    pub(crate) conn: Rc<Conn>,
    /// Over HTTP/2.
    pace: Option<Rc<Pace>>,
    started: Instant,
    pub(crate) method: Method,
    version: Version,
    /// A gRPC call, which is answered in gRPC's own way.
    pub(crate) grpc: bool,
    /// The client speaks gRPC-Web.
    pub(crate) grpc_web: Option<GrpcWeb>,
    /// Its answer is turned into that.
    pub(crate) web: Option<grpc_web::Encoder>,
    /// What becomes of the stream of a WebSocket over HTTP/2 (RFC 8441).
    pub(crate) connect: Option<OnUpgrade>,
    /// How the client hears of interim answers; None: not at all.
    pub(crate) interim: Option<Way>,
    /// What of them is hidden from this caller.
    pub(crate) veils: Veils,
    /// It waits to be asked for its body, and can hear that.
    pub(crate) expects: bool,
    /// The answer is a stream of server-sent events.
    pub(crate) event_stream: bool,
    has_body: bool,
    pub(crate) plan: Option<Rc<Plan>>,
    pub(crate) request_id: Uuid,
    /// The same as a field's value, once it was asked for: both sides get it.
    request_id_value: Option<HeaderValue>,
    /// Of the ruleset that it is served from.
    pub(crate) revision: u64,
    pub(crate) client_ip: IpAddr,
    pub(crate) trail: Trail,
    pub(crate) client_body: Option<Rc<BodyState>>,
    /// Who asks, where the route wants to know.
    pub(crate) identity: Option<Rc<Identity>>,
    pub(crate) decision: Option<Decision>,
    /// What the answer says of it, where it was refused or cut.
    detail: &'static str,
    /// What the client is to keep, whatever the answer is.
    pub(crate) cookies: Vec<HeaderValue>,
    /// Where it waits to be told that what let it in no longer holds.
    pub(crate) live: Option<Live>,
    /// What its route wants to know of it for later; None: nothing.
    pub(crate) traffic: Option<Box<Passing>>,
    /// The version of an API that its route is of.
    pub(crate) of_api: Option<Rc<ApiVersion>>,
    /// The model that it asks.
    pub(crate) ai: Option<Box<ai::Call>>,
    /// What its route's policies make of how its caller behaves.
    pub(crate) watching: Option<Box<Watching>>,
    /// What it took of limits.
    pub(crate) admitted: Option<Box<Admitted>>,
    /// Until the request was handed to the upstream.
    pub(crate) overhead: Option<Duration>,
    /// Waited for slots of limits.
    pub(crate) queued: Duration,
    /// What it is in its trace, where traces are sampled.
    pub(crate) traced: Traced,
    /// What is asked for, once it was read.
    pub(crate) logged: Option<Box<Logged>>,
    /// The access log gets a line of it.
    pub(crate) has_line: bool,
    /// What the route says of Strict-Transport-Security is not for a client without TLS.
    pub(crate) withholds_hsts: bool,
    status: u16,
    code: &'static str,
    sent_bytes: u64,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// No answer yet.
    Open,
    /// The head of the answer is out of our hands.
    Answered,
    Written,
}

/// Which phase decided about the request, and by what.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Decision {
    pub(crate) phase: &'static str,
    /// The auth, or the route whose rules they are.
    pub(crate) policy: Option<Arc<str>>,
    pub(crate) rule: Option<Arc<str>>,
    /// Rules that decide nothing yet and would have held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) shadow: Vec<Box<str>>,
    /// What was compared: a limit and what is left of it, a size and how much is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub(crate) numbers: Vec<(&'static str, u64)>,
}

fn as_map<S: serde::Serializer>(numbers: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(numbers.iter().copied())
}

/// What only the access log and `explain` need.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) trace_id: String,
}

impl Logged {
    pub(crate) fn clear(&mut self) {
        [&mut self.host, &mut self.path, &mut self.trace_id].into_iter().for_each(String::clear);
    }

    /// Each of its texts has room for no more than that.
    pub(crate) fn holds_at_most(&self, bytes: usize) -> bool {
        [&self.host, &self.path, &self.trace_id].iter().all(|text| text.capacity() <= bytes)
    }
}

impl Record {
    pub(crate) fn begin(conn: Rc<Conn>, request: &Request<Received>) -> Self {
        conn.exchange_begins();
        let client_ip = conn.peer.ip().to_canonical();
        let pace = conn.polled.take();
        let conn_logs = conn.worker.shared.settings.access_log.default_on;
        Self {
            conn,
            pace,
            started: Instant::now(),
            method: request.method().clone(),
            version: request.version(),
            grpc: refusal::is_grpc(request.headers()),
            grpc_web: GrpcWeb::of(request.headers()),
            web: None,
            connect: None,
            interim: None,
            veils: Veils::default(),
            expects: false,
            event_stream: false,
            has_body: !request.body().is_end_stream(),
            plan: None,
            request_id: Uuid::nil(),
            request_id_value: None,
            revision: 0,
            client_ip,
            trail: Trail::default(),
            client_body: None,
            identity: None,
            decision: None,
            detail: "",
            cookies: Vec::new(),
            live: None,
            traffic: None,
            of_api: None,
            ai: None,
            watching: None,
            admitted: None,
            overhead: None,
            queued: Duration::ZERO,
            traced: Traced::default(),
            logged: None,
            has_line: conn_logs,
            withholds_hsts: false,
            status: CLIENT_GONE_STATUS,
            code: CLIENT_GONE,
            sent_bytes: 0,
            outcome: Outcome::Open,
        }
    }

    /// The route that takes the request: from here on its counters are used.
    pub(crate) fn matched(&mut self, plan: &Rc<Plan>) {
        self.plan = Some(plan.clone());
    }

    pub(crate) fn request_id_value(&mut self) -> HeaderValue {
        self.request_id_value.get_or_insert_with(|| exchange::id_value(self.request_id)).clone()
    }

    /// Over HTTP/2 or HTTP/3: one of several at once on its connection.
    pub(crate) fn is_multiplexed(&self) -> bool {
        matches!(self.version, Version::HTTP_2 | Version::HTTP_3)
    }

    /// What tells a client of another protocol that HTTP/3 is spoken here (RFC 7838).
    pub(crate) fn offers_http3(&self) -> Option<HeaderValue> {
        let offered = self.conn.reception.alt_svc.as_ref()?;
        let open = self.conn.listener.quic.load(Ordering::Relaxed) && !self.conn.is_draining();
        (self.version != Version::HTTP_3 && open).then(|| offered.clone())
    }

    /// The worker's clock gave the client up, and has counted that.
    fn is_stalled(&self) -> bool {
        self.outcome != Outcome::Written
            && (self.pace.as_ref().is_some_and(|pace| pace.is_stalled()) || self.conn.is_stalled())
    }

    /// From now on it is the upstream's turn.
    pub(crate) fn forwarding(&mut self) -> Instant {
        let now = Instant::now();
        self.overhead = Some(now - self.started);
        now
    }

    /// Unless something has said so in more detail.
    pub(crate) fn decided(&mut self, phase: &'static str) {
        let policy = self.plan.as_ref().map(|plan| plan.name.clone());
        self.decision.get_or_insert(Decision { phase, policy, rule: None, shadow: Vec::new(), numbers: Vec::new() });
    }

    /// What the rules of the route said.
    pub(crate) fn authorized(&mut self, rule: Option<&str>, shadow: &[&str]) {
        let policy = self.plan.as_ref().map(|plan| plan.name.clone());
        let shadow = shadow.iter().map(|rule| Box::from(*rule)).collect();
        let rule = rule.map(Arc::from);
        self.decision = Some(Decision { phase: "authorization", policy, rule, shadow, numbers: Vec::new() });
    }

    /// What there is to tell of its client, in which phase; it goes on.
    pub(crate) fn noticed(&mut self, phase: &'static str, what: Box<str>) {
        self.decided(phase);
        if let Some(decision) = &mut self.decision {
            decision.shadow.push(what);
        }
    }

    /// What a policy found and lets pass, beside whatever decides.
    pub(crate) fn detected(&mut self, what: Box<str>) {
        self.decided("validation");
        if let Some(decision) = &mut self.decision {
            decision.shadow.push(what);
        }
    }

    pub(crate) fn refused(&mut self, code: &'static str) {
        self.code = code;
        self.conn.worker.metrics.reject(code);
    }

    /// The same, with all that is known of why.
    pub(crate) fn refused_by(&mut self, refusal: &Refusal) {
        let words = refusal.words();
        self.refused(words.code);
        if self.revision == 0 {
            // Refused before it was given its rules: what would have served it.
            self.revision = self.conn.worker.shared.ruleset.load().revision;
        }
        self.detail = words.detail;
        let phase = refusal.phase().unwrap_or_else(|| codes::phase(words.code));
        if self.decision.as_ref().is_some_and(|decision| decision.phase != phase) {
            // The rules let it pass, and something behind them did not.
            self.decision = None;
        }
        self.decided(phase);
        let told = told::Told::of(refusal, self.plan.as_deref(), &self.conn.worker, &self.trail);
        if let Some(decision) = &mut self.decision {
            decision.numbers = told.numbers;
            decision.policy = told.policy.or(decision.policy.take());
            decision.rule = told.rule.or(decision.rule.take());
        }
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
        if self.code == CLIENT_GONE {
            self.code = "";
        }
        self.outcome = Outcome::Answered;
    }

    /// Cut off behind the head of its answer.
    pub(crate) fn ended_by(&mut self, code: &'static str) {
        self.refused(code);
        self.decision = None;
        self.decided(codes::phase(code));
        self.outcome = Outcome::Answered;
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent_bytes = bytes;
    }

    /// Whether there is more to come of the request than was read.
    pub(crate) fn leaves_body_unread(&self) -> bool {
        self.has_body && !self.client_body.as_ref().is_some_and(|state| state.ended.get())
    }

    /// The body was read to its end, for nobody.
    pub(crate) fn body_discarded(&mut self) {
        self.has_body = false;
    }

    fn write(&mut self) {
        if self.outcome == Outcome::Written {
            return;
        }
        let panicked = std::thread::panicking();
        if self.outcome == Outcome::Open {
            (self.code, self.status) =
                if panicked { ("internal_error", 500) } else { (CLIENT_GONE, CLIENT_GONE_STATUS) };
        }
        self.outcome = Outcome::Written;
        let took = self.started.elapsed();
        let metrics = &self.conn.worker.metrics;
        let route = self.plan.as_ref().map_or(&self.conn.worker.unmatched, |plan| &plan.metrics);
        route.ended(&self.method, self.status, took, self.overhead.unwrap_or(took));
        metrics.sent_bytes.add(self.sent_bytes);
        metrics.received_bytes.add(self.received_bytes());
        if panicked {
            metrics.panics.add(1);
        }
        if self.code == CLIENT_GONE {
            metrics.reject(CLIENT_GONE);
        }
        if let Some(mut call) = self.ai.take() {
            call.settle(self);
            self.ai = Some(call);
        }
        if let Some(mut logged) = self.logged.take() {
            let template = self.plan.as_ref().and_then(|plan| template(&plan.rule.route.matches.path));
            self.redaction().path(&mut logged.path, template);
            if self.has_line {
                self.log(&logged, took);
            }
            self.remember(&logged, took);
            self.conn.worker.recent.spared(logged);
        }
        if let Some(watching) = self.watching.take() {
            watching.ended(self, self.status, self.code, self.sent_bytes);
        }
        if self.leaves_body_unread() {
            self.conn.body_left_unread();
        }
        self.live = None;
        // Permits go back.
        self.admitted = None;
        self.conn.exchange_ends();
    }

    fn received_bytes(&self) -> u64 {
        self.client_body.as_ref().map_or(0, |state| state.bytes.get())
    }

    fn redaction(&self) -> &Redaction {
        &self.conn.worker.shared.settings.redaction
    }

    /// For `explain` and `tap`.
    fn remember(&mut self, text: &Logged, took: Duration) {
        let brief = Brief {
            request_id: self.request_id,
            ended_ms: self.conn.worker.wall_ms(self.started + took),
            revision: self.revision,
            route: self.plan.as_ref().map(|plan| plan.name.clone()),
            client_ip: self.redaction().address(self.client_ip),
            method: self.method.clone(),
            version: self.version,
            tls: self.conn.tls,
            status: self.status,
            code: self.code,
            received_bytes: self.received_bytes(),
            sent_bytes: self.sent_bytes,
            gateway: self.overhead.unwrap_or(took),
            connect: self.trail.connect,
            ttfb: self.trail.header,
            total: took,
            upstream: self.trail.target.take(),
            attempts: self.trail.attempts,
            more: self.more(),
        };
        self.conn.worker.recent.remember(brief, text);
    }

    fn more(&mut self) -> Option<Box<More>> {
        let (caller, decision) = (self.identity.as_ref().map(|it| &it.caller), self.decision.take());
        if caller.is_none() && decision.is_none() && self.detail.is_empty() && self.traced == Traced::default() {
            return None;
        }
        let mut more = Box::new(More { traced: self.traced, detail: self.detail, ..Default::default() });
        if let Some(caller) = caller {
            let redaction = self.redaction();
            let consumer = caller.consumer.as_ref().filter(|_| !redaction.consumer);
            more.consumer = consumer.map(|it| Arc::from(&it.name));
            more.credential = caller.credential.as_ref().filter(|_| !redaction.credential).map(|it| it.id.clone());
            more.auth_method = Some(caller.method.word());
        }
        if let Some(Decision { phase, policy, rule, shadow, numbers }) = decision {
            (more.phase, more.policy, more.rule, more.shadow, more.numbers) = (phase, policy, rule, shadow, numbers);
        }
        Some(more)
    }

    fn log(&self, logged: &Logged, took: Duration) {
        let settings = &self.conn.worker.shared.settings;
        let redaction = &settings.redaction;
        let rule = self.plan.as_ref().map(|plan| &plan.rule);
        let caller = self.identity.as_ref().map(|identity| &identity.caller);
        let micros = |it: Duration| it.as_micros() as u64;
        let line = Line {
            time: rfc3339(SystemTime::now()),
            request_id: self.request_id,
            trace_id: &logged.trace_id,
            node: &settings.node,
            region: &settings.region,
            revision: self.revision,
            route: rule.map(|rule| &*rule.route.name),
            client_ip: redaction.address(self.client_ip),
            method: self.method.as_str(),
            host: &logged.host,
            path: &logged.path,
            path_template: rule.and_then(|rule| template(&rule.route.matches.path)),
            protocol: protocol(self.version),
            tls: self.conn.tls,
            status: self.status,
            code: self.code,
            consumer: caller.filter(|_| !redaction.consumer).and_then(|it| Some(&*it.consumer.as_ref()?.name)),
            credential: caller.filter(|_| !redaction.credential).and_then(|it| Some(&*it.credential.as_ref()?.id)),
            auth_method: caller.map(|caller| caller.method.word()),
            decision: self.decision.as_ref(),
            limits: self.admitted.as_ref().map(|it| it.stood(&self.conn.worker.shared.limits)).unwrap_or_default(),
            received_bytes: self.received_bytes(),
            sent_bytes: self.sent_bytes,
            timings_us: Timings {
                queue: micros(self.queued),
                gateway: micros(self.overhead.unwrap_or(took)),
                connect: self.trail.connect.map(micros),
                ttfb: self.trail.header.map(micros),
                total: micros(took),
            },
            arm: self.traffic.as_ref().and_then(|it| it.arm()).map(|arm| &**arm),
            cache: self.traffic.as_ref().and_then(|it| it.cached).map(|it| it.word()),
            ai: self.ai.as_ref().map(|call| call.line()),
            anomaly: self.watching.as_ref().and_then(|it| it.found_by()),
            upstream: (self.trail.attempts > 0)
                .then_some(UpstreamLine { address: self.trail.target.as_deref(), attempts: self.trail.attempts }),
        };
        line.write(&self.conn.worker);
    }
}

/// A request that the HTTP library could not read, and that we answered all the same: counted, and logged with the little
/// that is known of it.
pub(crate) fn unread(conn: &Conn, refusal: &Refusal, reason: &str, request_id: Uuid) {
    let words = refusal.words();
    let worker = &conn.worker;
    worker.metrics.reject(reason);
    // As of any method that has no label of its own.
    worker.unmatched.count(&Method::TRACE, words.status.as_u16());
    let settings = &worker.shared.settings;
    worker.recent.remember(unread_brief(conn, refusal, &words, request_id), &Logged::default());
    if !settings.access_log.default_on {
        return;
    }
    let line = Line {
        time: rfc3339(SystemTime::now()),
        request_id,
        trace_id: "",
        node: &settings.node,
        region: &settings.region,
        revision: worker.shared.ruleset.load().revision,
        route: None,
        client_ip: conn.worker.shared.settings.redaction.address(conn.peer.ip().to_canonical()),
        method: "",
        host: "",
        path: "",
        path_template: None,
        protocol: protocol(Version::HTTP_11),
        tls: conn.tls,
        status: words.status.as_u16(),
        code: words.code,
        consumer: None,
        credential: None,
        auth_method: None,
        decision: None,
        limits: Vec::new(),
        received_bytes: 0,
        sent_bytes: 0,
        timings_us: Timings { queue: 0, gateway: 0, connect: None, ttfb: None, total: 0 },
        arm: None,
        cache: None,
        ai: None,
        anomaly: None,
        upstream: None,
    };
    line.write(worker);
}

fn unread_brief(conn: &Conn, refusal: &Refusal, words: &refusal::Words, request_id: Uuid) -> Brief {
    let more = More {
        detail: words.detail,
        phase: codes::phase(words.code),
        numbers: told::numbers(refusal, None, &conn.worker),
        ..Default::default()
    };
    Brief {
        request_id,
        ended_ms: recent::now_ms(),
        revision: conn.worker.shared.ruleset.load().revision,
        route: None,
        client_ip: conn.worker.shared.settings.redaction.address(conn.peer.ip().to_canonical()),
        method: Method::default(),
        version: Version::HTTP_11,
        tls: conn.tls,
        status: words.status.as_u16(),
        code: words.code,
        received_bytes: 0,
        sent_bytes: 0,
        gateway: Duration::ZERO,
        connect: None,
        ttfb: None,
        total: Duration::ZERO,
        upstream: None,
        attempts: 0,
        more: Some(Box::new(more)),
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.write();
    }
}

/// What the path was matched by, under which requests for one resource are alike.
fn template(pattern: &PathPattern) -> Option<&str> {
    match pattern {
        PathPattern::Any => None,
        PathPattern::Prefix(it) | PathPattern::Exact(it) | PathPattern::Template(it) | PathPattern::Regex(it) => {
            Some(it)
        }
    }
}

pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: Uuid,
    trace_id: &'a str,
    node: &'a str,
    region: &'a str,
    revision: u64,
    route: Option<&'a str>,
    client_ip: IpAddr,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    path_template: Option<&'a str>,
    protocol: &'a str,
    tls: bool,
    status: u16,
    code: &'a str,
    consumer: Option<&'a str>,
    credential: Option<&'a str>,
    auth_method: Option<&'static str>,
    decision: Option<&'a Decision>,
    limits: Vec<Stood>,
    received_bytes: u64,
    sent_bytes: u64,
    timings_us: Timings,
    /// Of a split.
    #[serde(skip_serializing_if = "Option::is_none")]
    arm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ai: Option<ai::Line<'a>>,
    /// The policy that has found its caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    anomaly: Option<&'a str>,
    upstream: Option<UpstreamLine<'a>>,
}

impl Line<'_> {
    fn write(&self, worker: &Worker) {
        if let Ok(mut bytes) = serde_json::to_vec(self) {
            bytes.push(b'\n');
            worker.access_log.line(bytes);
        }
    }
}

#[derive(Serialize)]
struct Timings {
    queue: u64,
    gateway: u64,
    connect: Option<u64>,
    ttfb: Option<u64>,
    total: u64,
}

#[derive(Serialize)]
struct UpstreamLine<'a> {
    address: Option<&'a str>,
    attempts: u32,
}

/// The answer's body with the record, which it closes.
pub(crate) struct Answer {
    inner: ResponseBody,
    /// None: what stands behind a 101 has it.
    record: Option<Box<Record>>,
}

impl Answer {
    pub(crate) fn new(inner: ResponseBody, record: Box<Record>) -> Self {
        Self { inner, record: Some(record) }
    }

    /// The head of a 101.
    pub(crate) fn switching() -> Self {
        Self { inner: ResponseBody::Empty, record: None }
    }

    /// What the client gets instead of the rest, once the exchange may not go on.
    fn cut_off(&mut self, cx: &mut Context<'_>) -> Option<Ended> {
        let record = self.record.as_mut()?;
        let ended = record.live.as_ref()?.ended(cx)?;
        record.live = None;
        record.ended_by(ended.code());
        Some(ended)
    }
}

impl Answer {
    /// A gRPC call ends with its status and an event stream in good order, so that both may be asked for anew; of anything
    /// else the client must know that a part is missing.
    fn last_frame(&mut self, ended: Ended) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.inner = ResponseBody::Empty;
        let Some(record) = &mut self.record else { return Poll::Ready(None) };
        record.write();
        match record {
            record if record.grpc => Poll::Ready(Some(Ok(Frame::trailers(refusal::grpc_trailers(&ended.into()))))),
            record if record.event_stream => Poll::Ready(None),
            _ => Poll::Ready(Some(Err(Failure::CutOff))),
        }
    }
}

impl Answer {
    fn poll_bytes(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        if let Some(ended) = this.cut_off(cx) {
            return this.last_frame(ended);
        }
        let next = Pin::new(&mut this.inner).poll_frame(cx);
        let Some(record) = &mut this.record else { return next };
        if let Some(pace) = &record.pace {
            match &next {
                Poll::Pending => pace.keeps_client_waiting(),
                Poll::Ready(_) => pace.offered(record.conn.worker.now_ms()),
            }
        }
        match &next {
            Poll::Pending => (),
            Poll::Ready(None) => record.write(),
            Poll::Ready(Some(Ok(frame))) => {
                record.sent_bytes += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => {
                let refusal = Refusal::from(error);
                record.refused_by(&refusal);
                record.write();
                if record.grpc && (record.is_multiplexed() || record.web.is_some()) {
                    this.inner = ResponseBody::Empty;
                    let mut trailers = refusal::grpc_trailers(&refusal);
                    if matches!(error, Failure::IdleTimeout) {
                        // No deadline has passed: UNAVAILABLE.
                        trailers.insert("grpc-status", HeaderValue::from_static("14"));
                    }
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
        next
    }
}

impl Body for Answer {
    type Data = Held;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Held>, Failure>>> {
        let frame = ready!(self.as_mut().poll_bytes(cx));
        let Some(record) = &self.record else { return Poll::Ready(None) };
        let frame = match record.web {
            Some(web) => frame.map(|frame| frame.map(|frame| web.encode(frame))),
            None => frame,
        };
        let metrics = &record.conn.worker.metrics;
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|bytes| Held::new(bytes, metrics)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.record.as_ref().is_some_and(|record| record.web.is_some()) {
            // As a message more, and perhaps in base64.
            true => SizeHint::default(),
            false => self.inner.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(record) = &mut self.record else { return };
        let bodyless = record.method == Method::HEAD || matches!(record.status, 204 | 304);
        if !bodyless && !self.inner.is_end_stream() && self.inner.size_hint().exact() != Some(0) {
            record.code = CLIENT_GONE;
        }
        if record.is_stalled() {
            record.code = STALLED_CLIENT;
        }
        record.write();
    }
}
