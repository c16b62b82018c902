//! One request from its head to its answer: the phases of docs/ARCHITECTURE.md in their order, and one exit.

mod forward;
mod forwarded;
mod head;
pub(crate) mod hops;
mod local;
mod origin;
mod receive;

use std::{
    borrow::Cow,
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, request::Parts};
use http_body::Body;
use quorumgate_model::{
    canonical,
    mutants::{self, Mutant},
    resource::{Action, EncodedSlash, OnStale},
    ruleset::{Found, HeaderLookup, Unwelcome, View},
};

use self::hops::Seen;
pub(crate) use self::{
    forward::{PASSES_MAX, quietly, send, take_body, while_admitted},
    origin::id_value,
};
#[cfg(feature = "compression")]
use crate::unpack::Coded;
use crate::{
    ai,
    anomaly::Watching,
    body::ResponseBody,
    cache::{self, Consulted},
    connection::Conn,
    identity::{
        authorize::{Asked, Authorization, Callers, Verdict},
        ladder::{self, Admission},
        login::{Whence, cookie},
        shown::{Place, query_without},
    },
    inspect,
    interim::Way,
    limits,
    live::{Grant, Live},
    metrics::PolicyResult,
    plan::Plan,
    received::Received,
    record::{Answer, Logged, Record},
    refusal::{self, Refusal},
    settings::TrustedField,
    traffic::{self, mask::Masks},
    tunnel::Tunnel,
    upstream::Asks,
    websocket,
    worker::Worker,
};

/// What is read, and for how long, of a body that nobody wants, so that its connection can serve the next request.
const DISCARD_BYTES_MAX: u64 = 64 << 10;
const DISCARD_TIME_MAX: Duration = Duration::from_millis(250);
/// Of a refused request's host and path, in the log.
const LOGGED_CHARS_MAX: usize = 1024;

/// Never fails: what goes wrong is an answer too. (That the type says so spares the connection a future around this one,
/// which would hold it twice and copy it once.)
pub(crate) async fn handle(
    conn: Rc<Conn>,
    mut request: Request<Received>,
    interim: Option<Way>,
) -> Result<Response<Answer>, Infallible> {
    let connect = websocket::extended_connect(&mut request, &conn.worker.ids);
    // In one place: it is handed from the exchange to its answer, or to what follows a 101.
    let mut record = Box::new(Record::begin(conn, &request));
    record.connect = connect;
    record.interim = interim;
    let (parts, body) = request.into_parts();
    // To read the body would ask for it.
    let waits = parts.headers.contains_key(header::EXPECT);
    let mut body = Some(body);
    let outcome = serve(&mut record, parts, &mut body).await;
    let closes = outcome.as_ref().is_err_and(|refusal| refusal.words().close);
    if closes {
        record.conn.linger();
    }
    if let Some(body) = body.filter(|_| record.leaves_body_unread() && !record.is_multiplexed() && !waits && !closes)
        && discard(body).await
    {
        record.body_discarded();
    }
    Ok(exit(record, outcome))
}

/// Whether the body came to its end within the bounds.
async fn discard(mut body: Received) -> bool {
    if body.size_hint().lower() > DISCARD_BYTES_MAX {
        return false;
    }
    let rest = async {
        let mut bytes = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > DISCARD_BYTES_MAX {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(DISCARD_TIME_MAX, rest).await.unwrap_or(false)
}

async fn serve(
    record: &mut Record,
    mut parts: Parts,
    body: &mut Option<Received>,
) -> Result<Response<ResponseBody>, Refusal> {
    #[cfg(test)]
    assert!(!parts.headers.contains_key("x-panic"), "as the test of panics asks for");
    let conn = record.conn.clone();
    let settings = &conn.worker.shared.settings;

    // Before anything can be refused: every answer names its request.
    let trusted = origin::is_trusted(conn.peer.ip(), &settings.trusted_proxies);
    record.request_id = origin::request_id(&parts.headers, trusted, &conn.worker.ids);
    let trace_below = conn.worker.shared.trace_below.load(Relaxed);
    if trace_below > 0 {
        record.traced = origin::join_trace(&mut parts.headers, trace_below, &conn.worker.ids);
    }
    let told_by = trusted.then_some(settings.trusted_field);
    record.client_ip = origin::client_ip(&parts.headers, conn.peer.ip(), told_by, &settings.trusted_proxies);
    if told_by == Some(TrustedField::Forwarded) {
        origin::retell(&mut parts.headers, &settings.trusted_proxies);
    }
    let (seen, host, path) = match understood(&conn, &parts) {
        Ok(Understood::Request(seen, host, path)) => (seen, host, path),
        other => {
            record.logged = Some(as_it_came(&parts));
            return other.map(|_server_options| local::options());
        }
    };
    record.logged = Some(logged(&conn.worker, &parts, &host, &path));
    let directory = &conn.worker.shared.directory;
    let (plan, shut_out, unwelcome, inspections, version, watches, seed, ai, masks) = {
        // One ruleset for the whole exchange: a change mid-request is for the next request.
        let rules = conn.worker.shared.ruleset.load();
        record.revision = rules.revision;
        // By the name that the listener has by now: a connection may be older than it.
        let by = conn.reception.name.as_ref().map(|_| conn.listener.reception.load());
        let found = rules.find(&View {
            method: parts.method.as_str(),
            host: &host.name,
            path: &path,
            query: parts.uri.query(),
            headers: &Fields(&parts.headers),
            client_ip: record.client_ip,
            sni: conn.sni.get().map(String::as_str),
            listener: by.as_ref().and_then(|it| it.name.as_deref()),
        });
        match found {
            Found::Rule(rule) => {
                let version = rules.version(rule).map(|policy| conn.worker.versions.of(policy));
                let ai = rules.ai(rule).and_then(|policy| conn.worker.models.of(policy));
                let shut_out = rules.shut_out(rule, record.client_ip, |it| directory.geo.place(it));
                let unwelcome = rules.unwelcome(rule, || agents(&parts.headers));
                let (inspections, watches, masks) = (rules.inspections(rule), rules.watches(rule), rules.masks(rule));
                let plan = conn.worker.plans.of(rule);
                (plan, shut_out, unwelcome, inspections, version, watches, rules.seed(), ai, masks)
            }
            Found::MethodNotAllowed(methods) => return Err(Refusal::MethodNotAllowed(methods)),
            Found::NoRoute => return Err(Refusal::NoRoute),
        }
    };
    record.matched(&plan);
    record.has_line = plan.rule.route.access_log.unwrap_or(record.has_line);
    record.withholds_hsts = plan.response.says_hsts && !whence(&conn, &parts, trusted, &host, &path).tls;
    if let Some(traffic) = &plan.traffic {
        record.traffic =
            Some(traffic.enter(&parts, &host.name, &path, whence(&conn, &parts, trusted, &host, &path).tls));
    }
    if !watches.is_empty() {
        record.watching = Watching::enter(record, watches, &plan.rule, seed, &parts, &path);
    }
    if let Some(shut_out) = shut_out.filter(|_| !mutants::is(Mutant::AddressLetIn)) {
        return Err(Refusal::IpDenied(shut_out));
    }
    if let Some(ban) = directory.bans.of_address(record.client_ip, || directory.now_us()) {
        return Err(Refusal::Banned(Some(ban)));
    }
    if let Some(watching) = &record.watching {
        watching.before(record)?;
    }
    unwelcome.into_iter().try_for_each(|found| called(record, found))?;
    admit(record, &plan, &parts.headers, &path)?;
    let preview = match version {
        Some(version) => version.enter(record)?,
        None => None,
    };
    if record.traffic.is_some()
        && let Some(answer) = traffic::preflight(record)
    {
        return Ok(answer);
    }
    let route = &plan.rule.route;
    let fresh_only = route.on_stale == OnStale::Deny && !mutants::is(Mutant::OnStaleIgnored);
    // Before anybody proves who he is, which costs more; behind preflights, which let nobody in.
    if fresh_only && !conn.worker.shared.freshness.is_fresh() {
        return Err(Refusal::StateStale);
    }
    let (mut used, mut digest) = (Vec::new(), None);
    if let Some(wanted) = &route.auth {
        let whence = whence(&conn, &parts, trusted, &host, &path);
        match ladder::authenticate(&conn, wanted, &parts, record.client_ip, whence).await? {
            Admission::Proven(proven) => {
                let banned = |caller| directory.bans.of_caller(caller, || directory.now_us());
                let ban = proven.identity.callers().find_map(banned);
                record.identity = Some(proven.identity);
                if let Some(ban) = ban {
                    return Err(Refusal::Banned(Some(ban)));
                }
                record.cookies = proven.cookies;
                used = proven.used;
                digest = proven.digest;
            }
            Admission::Answered(response) => return Ok(response),
        }
    }
    if let Some(version) = preview
        && !version.lets_in(record.identity.as_deref())
    {
        return Err(Refusal::NoRoute);
    }
    if let Ok(Some(rules)) = &plan.authorization {
        let (method, query, headers) = (parts.method.as_str(), parts.uri.query(), &parts.headers);
        let asked = Asked { method, host: &host.name, path: &path, query, headers, client_ip: record.client_ip };
        authorize(record, rules, &asked)?;
    }
    if let Some(mut watching) = record.watching.take() {
        let behind = watching.behind(record);
        record.watching = Some(watching);
        behind?;
    }
    if fresh_only || record.identity.is_some() {
        let identity = record.identity.clone();
        let ends_at = identity.as_ref().and_then(|identity| identity.ends_at);
        // Nothing is waited for between the look-up of revocations and here: what is revoked later finds it.
        let grant = Grant { conn: conn.key(), client_ip: record.client_ip, identity, fresh_only, ends_at };
        record.live = Some(Live::enter(&conn.worker, grant));
    }

    let known = if ai.is_some() { limits::Known::HeadBefore } else { limits::Known::Head };
    within_limits(record, &plan, &parts.headers, known).await?;
    // Limits go by the head as it came in.
    let came = ai.is_some().then(|| Box::new(parts.headers.clone()));

    let receives = matches!(route.action, Action::Receive(_));
    let has_body = body.as_ref().is_some_and(|body| !body.is_end_stream());
    let (mut seen_through, mut promises) = (None, Vec::new());
    if !inspections.is_empty() && !receives {
        // Apart, so that exchanges without it are no larger.
        let inspected = inspect::inspect(record, &plan, &inspections, &parts, &path, body, &mut digest);
        let inspected = Box::pin(inspected).await?;
        seen_through = inspected.body;
        if !seen.websocket {
            promises = inspected.promises;
        }
    }

    match &plan.rule.route.action {
        Action::Forward { .. } | Action::Split(_) => {
            let upstream = match &plan.rule.route.action {
                Action::Forward { upstream } => upstream,
                _ => traffic::choose(record, &plan.rule, &parts.headers).ok_or(Refusal::BrokenRule)?,
            };
            let policy = plan.traffic.as_ref().and_then(|it| it.cache.as_ref()).filter(|_| !seen.websocket);
            let question = policy.map(|policy| {
                let Whence { tls, .. } = whence(&conn, &parts, trusted, &host, &path);
                let query = query(&parts.uri, &used);
                let place =
                    cache::Place { tls, host: &host.name, port: host.port, path: &path, query: query.as_deref() };
                (policy, cache::Question::new(record, upstream, &parts, &place, has_body))
            });
            let target = forward::target(record, &parts.uri, path, query(&parts.uri, &used).as_deref(), &plan)?;
            let host = forward::host(&parts, &seen, &plan);
            // Who proved who they are is known behind us by name, not by what could be used again.
            for place in &used {
                if let Place::Field(name) = place
                    && !mutants::is(Mutant::CredentialPassedOn)
                {
                    parts.headers.remove(name);
                }
            }
            cookie::strip(&mut parts.headers);
            if let Some(watching) = &mut record.watching {
                watching.tell(&mut parts.headers);
            }
            // A body that is read here is asked for here.
            let bodies = plan.rule.bodies.as_ref().filter(|_| !seen.websocket);
            // Calls of gRPC go on in both directions at once.
            let is_call = record.grpc || record.grpc_web.is_some();
            let is_held = route.body.buffer && !is_call && !seen.websocket;
            let is_read =
                seen_through.is_some() || is_held || bodies.is_some_and(|it| it.request.is_some()) || ai.is_some();
            let expects = seen.expect && !is_read;
            record.expects = expects && record.interim.is_some() && head::expects_continue(&parts.headers);
            forward::prepare(record, &mut parts, &seen, trusted, target, host)?;
            if bodies.is_some() {
                traffic::bodies::prepare(&plan, &mut parts.headers);
            }
            let masks = Masks::new(masks, record.identity.as_deref());
            masks.prepare(&mut parts.headers);
            record.veils = masks.veils();
            if let Some(logged) = &mut record.logged {
                logged.trace_id.clear();
                logged.trace_id.push_str(origin::trace_id(&parts.headers));
            }
            let answer = 'answer: {
                let mut known = None;
                if let Some((policy, question)) = question {
                    // What comes of no client's request is held against no promise.
                    let beside = !inspect::looks_at_answers(&inspections);
                    match cache::consult(record, question, policy, &parts, beside).await? {
                        Consulted::Answer(answer) => break 'answer answer,
                        Consulted::AnswerAndRefresh(answer, ticket) => {
                            cache::refresh(record, &plan, upstream, parts, ticket);
                            break 'answer answer;
                        }
                        Consulted::Ask(mut ticket) => {
                            ticket.condition(&mut parts.headers);
                            known = Some(Consulted::Ask(ticket));
                        }
                        other => known = Some(other),
                    }
                }
                let mut body = match seen_through {
                    Some(body) => body,
                    None => take_body(record, &plan, &parts.headers, body, &mut digest)?,
                };
                if is_held {
                    body = Box::pin(inspect::read::held(record, body, route.body.max.0)).await?;
                }
                if let Some(text) = bodies.and_then(|it| it.request.as_ref()) {
                    body = Box::pin(traffic::bodies::request(record, &plan, text, &mut parts.headers, body)).await?;
                }
                if let Some(mirror) =
                    plan.traffic.as_ref().and_then(|it| it.mirror.as_ref()).filter(|_| !seen.websocket && ai.is_none())
                {
                    traffic::mirror::begin(record, &plan, mirror, &parts, &mut body);
                }
                let request = Request::from_parts(parts, body);
                let asks = if seen.websocket { Asks::Upgrade } else { Asks::Answer };
                let mut sent = match (&ai, &came) {
                    (Some(models), Some(came)) => {
                        Box::pin(ai::send(record, &plan, upstream, models, came, request)).await
                    }
                    _ => forward::send(record, &plan, upstream, request, asks).await,
                };
                if !promises.is_empty()
                    && let Ok(response) = &mut sent
                {
                    let response = std::mem::take(response);
                    sent = Box::pin(inspect::settle(record, promises, response)).await;
                }
                match known {
                    Some(known) => known.settle(record, sent)?,
                    None => sent?,
                }
            };
            let answer = match masks.is_empty() {
                true => answer,
                false => Box::pin(masks.answer(record, answer)).await?,
            };
            match bodies.and_then(|it| it.response.as_ref()) {
                None => Ok(answer),
                Some(text) => Box::pin(traffic::bodies::answer(record, &plan, text, answer)).await,
            }
        }
        Action::Redirect(redirect) => {
            local::redirect(redirect, conn.tls, &host, &path, query(&parts.uri, &used).as_deref())
        }
        Action::Respond(respond) => Ok(local::respond(respond)),
        Action::Receive(receive) => {
            let whence = whence(&conn, &parts, trusted, &host, &path);
            receive::receive(record, &plan, receive, &parts, body, whence, digest).await
        }
    }
}

/// Where a browser would have to come back to; a trusted proxy in front may be the one that speaks TLS.
fn whence<'a>(conn: &Conn, parts: &Parts, trusted: bool, host: &'a Host<'_>, path: &'a str) -> Whence<'a> {
    let said = parts.headers.get("x-forwarded-proto").filter(|_| trusted);
    let tls = said.map_or(conn.tls, |scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
    Whence { tls, host: &host.name, port: host.port, path }
}

enum Understood<'a> {
    Request(Seen, Host<'a>, Cow<'a, str>),
    /// `OPTIONS *`
    ServerOptions,
}

/// Smuggling and sizes, then whom it asks for what.
fn understood<'a>(conn: &Conn, parts: &'a Parts) -> Result<Understood<'a>, Refusal> {
    if let Some(wrong) = conn.wrong() {
        return Err(wrong.into());
    }
    let seen = head::check(parts, &conn.worker.shared.settings.limits)?;
    let host = head::host(parts)?;
    // A trusted proxy asks in its own name for others'.
    let trusted_proxies = &conn.worker.shared.settings.trusted_proxies;
    if conn.is_wrong_for(&host.name) && !origin::is_trusted(conn.peer.ip(), trusted_proxies) {
        return Err(Refusal::Misdirected);
    }
    if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
        return Ok(Understood::ServerOptions);
    }
    let path = canonical::path(parts.uri.path(), conn.slashes).map_err(head::bad_path)?;
    Ok(Understood::Request(seen, host, path))
}

/// For `fuzzing`.
pub(crate) fn is_head_served(parts: &Parts) -> bool {
    head::check(parts, &crate::settings::ClientLimits::default()).is_ok() && head::host(parts).is_ok()
}

/// What the log has of a request that is refused before its host and path are known in their canonical form.
fn as_it_came(parts: &Parts) -> Box<Logged> {
    let host = parts.headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    let host = host.or_else(|| parts.uri.authority().map(|it| it.as_str().into())).unwrap_or_default();
    let short = |text: &str| text.chars().take(LOGGED_CHARS_MAX).collect();
    let trace_id = origin::trace_id(&parts.headers).to_owned();
    Box::new(Logged { host: short(&host), path: short(parts.uri.path()), trace_id })
}

/// What the route's rules say of this caller and this request.
fn authorize(record: &mut Record, rules: &Authorization, asked: &Asked<'_>) -> Result<(), Refusal> {
    let identity = record.identity.clone();
    let callers = match &identity {
        Some(identity) => Callers { first: Some(&identity.caller), also: &identity.also },
        None => Callers::default(),
    };
    let decision = rules.decide(asked, callers);
    record.authorized(decision.rule, &decision.logged);
    match decision.verdict {
        Verdict::Allow => Ok(()),
        Verdict::LacksScope => Err(Refusal::InsufficientScope(ladder::lacks_scope(identity.as_deref()))),
        Verdict::Deny | Verdict::Failed => Err(Refusal::AccessDenied),
    }
}

/// What it calls itself.
fn agents(headers: &HeaderMap) -> Vec<Cow<'_, str>> {
    headers.get_all(header::USER_AGENT).iter().map(|agent| String::from_utf8_lossy(agent.as_bytes())).collect()
}

/// A policy does not like what it calls itself.
fn called(record: &mut Record, found: Unwelcome) -> Result<(), Refusal> {
    let metrics = record.conn.worker.metrics.policy(&found.policy);
    if found.is_refused {
        metrics.count(PolicyResult::Refused);
        return Err(Refusal::BotDenied(found));
    }
    metrics.count(PolicyResult::Detected);
    let what = format!("{}: {} {}", found.policy, found.how.word(), found.how.detail());
    record.noticed("before_authentication", what.trim_end().into());
    Ok(())
}

/// The query without the credentials that were used.
fn query<'a>(uri: &'a Uri, used: &[Place]) -> Option<Cow<'a, str>> {
    let mut query = uri.query().map(Cow::Borrowed);
    for place in used {
        if let Place::Query(parameter) = place {
            let rest = query.as_deref().and_then(|query| query_without(query, parameter));
            query = rest.map(Cow::Owned);
        }
    }
    query
}

fn logged(worker: &Worker, parts: &Parts, host: &Host<'_>, path: &str) -> Box<Logged> {
    let mut logged = worker.recent.spare();
    logged.host.push_str(&host.name);
    logged.path.push_str(path);
    logged.trace_id.push_str(origin::trace_id(&parts.headers));
    logged
}

/// What a route asks before the request may go anywhere.
fn admit(record: &Record, plan: &Plan, headers: &HeaderMap, path: &str) -> Result<(), Refusal> {
    let route = &plan.rule.route;
    if plan.rule.broken.is_some() || plan.authorization.is_err() {
        return Err(Refusal::BrokenRule);
    }
    let worker = &record.conn.worker;
    let held = worker.held();
    if held > 1.0 || !worker.overload.takes(route.priority, held) {
        return Err(Refusal::Overloaded);
    }
    if route.encoded_slash == EncodedSlash::Refuse && canonical::has_encoded_slash(path) {
        return Err(Refusal::BadPath("the path has an encoded slash or backslash"));
    }
    if refusal::declared_too_large(headers, route.body.max.0) {
        return Err(Refusal::BodyTooLarge);
    }
    #[cfg(feature = "compression")]
    if route.body.decompressed_max.0 != 0 && Coded::of(headers) == Coded::Unknown {
        return Err(Refusal::CodingNotTaken);
    }
    Ok(())
}

/// Phase 12. A permit ends with its exchange, and the exchange with its permit.
pub(crate) async fn within_limits(
    record: &mut Record,
    plan: &Plan,
    headers: &HeaderMap,
    known: limits::Known,
) -> Result<(), Refusal> {
    let route = &plan.rule.route;
    if route.limits.is_empty() {
        return Ok(());
    }
    let identity = record.identity.clone();
    let callers = identity.as_deref().map(|it| Callers { first: Some(&it.caller), also: &it.also }).unwrap_or_default();
    let asked = limits::Asked { route: &route.name, callers, client_ip: record.client_ip, headers };
    let before = record.admitted.take();
    let mut admitting = pin!(limits::admit(&record.conn.worker.shared.limits, &route.limits, &asked, known, before));
    // Hardly any request waits: the clock is read for those that do.
    let mut waits = None;
    let admitted = poll_fn(|cx| {
        let polled = admitting.as_mut().poll(cx);
        if polled.is_pending() {
            waits.get_or_insert_with(Instant::now);
        }
        polled
    })
    .await;
    record.queued += waits.map_or(Duration::ZERO, |since| since.elapsed());
    record.admitted = admitted?;
    if let Some(until_us) = record.admitted.as_ref().and_then(|it| it.ends_at_us) {
        let worker = &record.conn.worker;
        let grant = by_address(record);
        let nothing_else = || Live::enter(worker, grant);
        record.live.get_or_insert_with(nothing_else).hold_until(until_us);
    }
    Ok(())
}

/// Whoever asks goes on by their address alone.
fn by_address(record: &Record) -> Grant {
    let (conn, client_ip) = (record.conn.key(), record.client_ip);
    Grant { conn, client_ip, identity: None, fresh_only: false, ends_at: None }
}

/// The one exit: every answer leaves through here, with its record.
fn exit(mut record: Box<Record>, outcome: Result<Response<ResponseBody>, Refusal>) -> Response<Answer> {
    // Then the connection ends behind the answer, which the client must know before it sends its next request.
    let ends = record.leaves_body_unread() && (outcome.is_err() || record.client_body.is_none() || record.expects)
        || record.conn.is_ambiguous();
    // A success would say that the stream is a WebSocket.
    let is_none = |response: &Response<ResponseBody>| {
        response.status().is_success() && !matches!(response.body(), ResponseBody::Tunnel(_))
    };
    let outcome = match outcome {
        Ok(response) if record.connect.is_some() && is_none(&response) => Err(Refusal::UpgradeNotSupported),
        outcome => outcome,
    };
    let mut response = outcome.unwrap_or_else(|refusal| {
        let wanted = record.plan.as_ref().and_then(|plan| plan.rule.route.auth.as_ref());
        let refusal = ladder::challenged(refusal, &record.conn.worker.shared.directory, wanted);
        record.refused_by(&refusal);
        // Nobody needs to end what is said here.
        record.live = None;
        let grpc = (record.grpc || record.grpc_web.is_some()) && record.connect.is_none();
        let mut answer = refusal.answer(record.request_id, grpc).map(ResponseBody::Full);
        if let Some(web) = record.grpc_web {
            web.answer(answer.headers_mut());
        }
        if let Refusal::OverLimit(over) = &refusal {
            over.fields(record.conn.worker.shared.settings.limits.rate_limit_style, answer.headers_mut());
        }
        answer
    });
    if let Some(admitted) = &mut record.admitted {
        let shared = &record.conn.worker.shared;
        admitted.settle(&shared.limits, response.headers());
        admitted.fields(&shared.limits, shared.settings.limits.rate_limit_style, response.headers_mut());
    }
    if let Some(version) = &record.of_api {
        version.told(&record, response.headers_mut());
    }
    if record.traffic.is_some() {
        traffic::decorate(&record, response.headers_mut());
    }
    if let Some(plan) = &record.plan {
        plan.response.carry_out(response.headers_mut(), |variable| traffic::value(&record, variable));
        // RFC 6797 7.2: never over what anybody on the way could have written.
        if record.withholds_hsts {
            response.headers_mut().remove(header::STRICT_TRANSPORT_SECURITY);
        }
    }
    if record.traffic.is_some() {
        response = traffic::compress(&record, response);
    }
    for cookie in std::mem::take(&mut record.cookies) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    let switches = matches!(response.body(), ResponseBody::Tunnel(_));
    let headers = response.headers_mut();
    headers.insert(hops::X_REQUEST_ID, record.request_id_value());
    if let Some(alt_svc) = record.offers_http3() {
        headers.insert(header::ALT_SVC, alt_svc);
    }
    match record.is_multiplexed() {
        true => drop(headers.remove(header::CONNECTION)),
        false if switches => (),
        false if ends || record.conn.is_draining() => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        false => (),
    }
    record.event_stream = is_event_stream(headers);
    if (record.event_stream || switches) && record.live.is_none() {
        // It may last: a ban of its address ends it, and the end of its node or listener.
        record.live = Some(Live::enter(&record.conn.worker, by_address(&record)));
    }
    record.answered(response.status());
    let (mut head, body) = response.into_parts();
    match body {
        ResponseBody::Tunnel(upstream) if record.connect.is_some() => {
            websocket::connected(&mut head);
            record.answered(head.status);
            let stream = record.connect.take();
            tokio::task::spawn_local(Tunnel::new(upstream, record).run_stream(stream));
            Response::from_parts(head, Answer::switching())
        }
        ResponseBody::Tunnel(upstream) => {
            let conn = record.conn.clone();
            conn.tunnel.replace(Some(Tunnel::new(upstream, record)));
            Response::from_parts(head, Answer::switching())
        }
        body => Response::from_parts(head, Answer::new(body, record)),
    }
}

pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Headers as routing looks them up.
struct Fields<'a>(&'a HeaderMap);

impl HeaderLookup for Fields<'_> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.0.get_all(name).iter().any(|value| std::str::from_utf8(value.as_bytes()).is_ok_and(&mut *test))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// A request's authority, as routing and redirects see it.
pub(crate) struct Host<'a> {
    /// Lower case, without a port; empty if the request has none.
    name: Cow<'a, str>,
    port: Option<u16>,
}
