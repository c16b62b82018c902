//! The request as the upstream gets it, and its answer as the client does.

use std::{
    borrow::Cow,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header, request::Parts,
    uri::PathAndQuery,
};
use http_body::Body;
use quorumgate_model::{
    resource::{Name, PathPattern},
    ruleset::Transform,
    template::Variable,
};
use tokio::time::Instant;

use super::{
    hops::{
        Seen, TRACEPARENT, TRACESTATE, VIA_H1, VIA_H2, VIA_H3, VIA_H10, X_FORWARDED_FOR, X_FORWARDED_HOST,
        X_FORWARDED_PROTO, X_REQUEST_ID,
    },
    origin,
};
#[cfg(feature = "compression")]
use crate::unpack::{Coded, Unpacked};
use crate::{
    body::{RequestBody, ResponseBody},
    client_body::{ClientBody, Patience},
    identity::{
        AuthFailure, AuthMethod, auths::Kind, client_credentials::ClientCredentials, content_digest::Digested, fields,
        ladder,
    },
    interim::{self, Way},
    live::{Ended, Live},
    plan::Plan,
    received::Received,
    record::Record,
    refusal::Refusal,
    settings::{ClientLimits, TrustedField},
    traffic,
    upstream::{Asks, Call, Caller, STREAM_IDLE, Trail},
    websocket,
    worker::Worker,
};

/// How often a request may pass through gateways of this kind.
pub(crate) const PASSES_MAX: usize = 8;

/// The origin-form target to ask for; None: the one that came in is it already.
pub(super) fn target(
    record: &Record,
    uri: &Uri,
    path: Cow<'_, str>,
    query: Option<&str>,
    plan: &Plan,
) -> Result<Option<Uri>, Refusal> {
    let route = &plan.rule.route;
    if let Some(transform) = &plan.rule.transform {
        return transformed(record, transform, path, query, plan).map(Some);
    }
    let path = match &route.rewrite.path_prefix {
        Some(prefix) => Cow::Owned(replace_prefix(&route.matches.path, &path, prefix)),
        None => path,
    };
    if path == uri.path() && query == uri.query() && uri.authority().is_none() && uri.scheme().is_none() {
        return Ok(None);
    }
    origin_form(path, query).map(Some)
}

fn origin_form(path: Cow<'_, str>, query: Option<&str>) -> Result<Uri, Refusal> {
    let target = match query {
        Some(query) => Bytes::from(format!("{path}?{query}")),
        None => Bytes::from(path.into_owned()),
    };
    let target = PathAndQuery::from_maybe_shared(target).map_err(|_| Refusal::BadPath("the path is not a URI path"))?;
    Ok(Uri::from(target))
}

fn transformed(
    record: &Record,
    transform: &Transform,
    path: Cow<'_, str>,
    query: Option<&str>,
    plan: &Plan,
) -> Result<Uri, Refusal> {
    let route = &plan.rule.route;
    let value = |variable: &Variable| traffic::value(record, variable);
    let query = match transform.query(query, value) {
        Some(edited) => edited.map(Cow::Owned),
        None => query.map(Cow::Borrowed),
    };
    let path = match (transform.path(&path, value), &route.rewrite.path_prefix) {
        (Some(Ok(path)), _) => Cow::Owned(path),
        (Some(Err(_)), _) => return Err(Refusal::BadPath("the path that the route makes of it cannot be asked for")),
        (None, Some(prefix)) => Cow::Owned(replace_prefix(&route.matches.path, &path, prefix)),
        (None, None) => path,
    };
    origin_form(path, query.as_deref())
}

/// Puts `prefix` in the place of what the pattern matched literally: of the prefix, of the whole of an exact path, of
/// nothing for the other patterns.
fn replace_prefix(pattern: &PathPattern, path: &str, prefix: &str) -> String {
    let rest = match pattern {
        PathPattern::Prefix(matched) => path.strip_prefix(matched.trim_end_matches('/')).unwrap_or(path),
        PathPattern::Exact(_) => "",
        PathPattern::Any | PathPattern::Template(_) | PathPattern::Regex(_) => path,
    };
    let prefix = if rest.is_empty() { prefix } else { prefix.trim_end_matches('/') };
    match (prefix, rest) {
        ("", "") => "/".into(),
        _ => format!("{prefix}{rest}"),
    }
}

/// Host as the upstream gets it; None: as it came in.
pub(super) fn host(parts: &Parts, seen: &Seen, plan: &Plan) -> Option<HeaderValue> {
    let missing = || parts.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    match &plan.host {
        Some(host) => Some(host.clone()),
        None if seen.host => None,
        None => missing(),
    }
}

/// Turns the head that came in into the one that goes out, in place.
pub(super) fn prepare(
    record: &mut Record,
    parts: &mut Parts,
    seen: &Seen,
    trusted: bool,
    target: Option<Uri>,
    host: Option<HeaderValue>,
) -> Result<(), Refusal> {
    let headers = &mut parts.headers;
    if seen.via && passes(headers) >= PASSES_MAX {
        return Err(Refusal::LoopDetected);
    }
    seen.strip(headers);
    if seen.identity {
        fields::remove_all(headers);
    }
    if seen.expect {
        // Said again to an upstream that can answer it; for any other this gateway asks for the body.
        headers.remove(header::EXPECT);
    }
    if seen.cookies > 1 && matches!(parts.version, Version::HTTP_2 | Version::HTTP_3) {
        join_cookies(headers);
    }
    let id = record.request_id_value();
    forwarded(record, headers, seen, trusted, host.as_ref());
    headers.insert(X_REQUEST_ID, id);
    if !seen.traceparent || !headers.get(TRACEPARENT).is_some_and(|it| origin::is_traceparent(it.as_bytes())) {
        if seen.tracestate {
            headers.remove(TRACESTATE);
        }
        headers.insert(TRACEPARENT, origin::traceparent(&record.conn.worker.ids));
    }
    let via = match parts.version {
        Version::HTTP_2 => VIA_H2,
        Version::HTTP_3 => VIA_H3,
        Version::HTTP_10 => VIA_H10,
        _ => VIA_H1,
    };
    headers.append(header::VIA, via);
    match host {
        Some(host) => drop(headers.insert(header::HOST, host)),
        None if seen.host => (),
        None => drop(headers.insert(header::HOST, HeaderValue::from_static(""))),
    }
    if let Some(identity) = &record.identity {
        identity.fields.put(headers);
        let by_certificate = identity.callers().any(|caller| caller.method == AuthMethod::Mtls);
        if let Some(leaf) = record.conn.client_chain.get().and_then(|chain| chain.first()).filter(|_| by_certificate) {
            fields::put_certificate(headers, leaf);
        }
    }
    if seen.websocket {
        websocket::offer(headers);
    }
    if let Some(target) = target {
        parts.uri = target;
    }
    parts.version = Version::HTTP_11;
    if let Some(plan) = &record.plan {
        plan.request.carry_out(headers, |variable| traffic::value(record, variable));
    }
    Ok(())
}

/// HTTP/2 clients may send each cookie on its own, which HTTP/1 servers do not expect (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// X-Forwarded-*: a trusted peer's are continued, anybody else's are replaced.
fn forwarded(record: &Record, headers: &mut HeaderMap, seen: &Seen, trusted: bool, host: Option<&HeaderValue>) {
    let conn = &record.conn;
    if seen.forwarded && !trusted {
        headers.remove(header::FORWARDED);
    }
    let chain = match conn.worker.shared.settings.trusted_field {
        TrustedField::XForwardedFor if seen.x_forwarded_for && trusted => continued(headers, &conn.peer_value),
        TrustedField::Forwarded if record.client_ip != conn.peer.ip().to_canonical() => {
            told_of(record.client_ip, &conn.peer_value)
        }
        _ => conn.peer_value.clone(),
    };
    headers.insert(X_FORWARDED_FOR, chain);
    if !(seen.x_forwarded_proto && trusted) {
        let proto = if conn.tls { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    if !(seen.x_forwarded_host && trusted) {
        match headers.get(header::HOST).or(host).cloned() {
            Some(host) => drop(headers.insert(X_FORWARDED_HOST, host)),
            None => drop(headers.remove(X_FORWARDED_HOST)),
        }
    }
}

/// All of X-Forwarded-For and the peer in one field: many servers read the first one only.
fn continued(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    let mut chain = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.as_bytes());
    HeaderValue::try_from(chain).unwrap_or_else(|_| peer.clone())
}

/// The client, and the peer that has told of it by another field.
fn told_of(client: IpAddr, peer: &HeaderValue) -> HeaderValue {
    let chain = [client.to_string().as_bytes(), b", ", peer.as_bytes()].concat();
    HeaderValue::try_from(chain).unwrap_or_else(|_| peer.clone())
}

fn passes(headers: &HeaderMap) -> usize {
    let hops = headers.get_all(header::VIA).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    hops.filter(|hop| hop.trim_ascii().ends_with(b" quorumgate")).count()
}

pub(super) fn body(
    record: &mut Record,
    body: &mut Option<Received>,
    plan: &Plan,
    limits: &ClientLimits,
    digest: Option<Digested>,
) -> Result<RequestBody, AuthFailure> {
    let Some(body) = body.take().filter(|body| !body.is_end_stream()) else {
        return digest.map_or(Ok(None), Digested::finish).map(|_| RequestBody::Empty);
    };
    let patience = match record.grpc || record.grpc_web.is_some() {
        true => Patience::Idle(STREAM_IDLE),
        false => Patience::Floor(limits.body_idle),
    };
    let body = ClientBody::new(body, plan.rule.route.body.max.0, patience)
        .counted(&record.conn.worker.metrics)
        .digested(digest);
    record.client_body = Some(body.state());
    Ok(RequestBody::Client(body))
}

/// The body as it goes on, unless somebody has looked at it before.
pub(crate) fn take_body(
    record: &mut Record,
    plan: &Plan,
    headers: &HeaderMap,
    received: &mut Option<Received>,
    digest: &mut Option<Digested>,
) -> Result<RequestBody, Refusal> {
    let conn = record.conn.clone();
    let limits = &conn.worker.shared.settings.limits;
    let taken = body(record, received, plan, limits, digest.take());
    #[cfg_attr(not(feature = "compression"), expect(unused_mut))]
    let mut taken = taken.map_err(|failure| Refusal::Unauthenticated(failure, Vec::new()))?;
    #[cfg(feature = "compression")]
    look_into(record, &mut taken, plan, headers);
    #[cfg(not(feature = "compression"))]
    let _ = headers;
    Ok(taken)
}

/// What it unpacks into is limited too, as the upstream will read it.
#[cfg(feature = "compression")]
fn look_into(record: &Record, body: &mut RequestBody, plan: &Plan, headers: &HeaderMap) {
    let max = plan.rule.route.body.decompressed_max.0;
    if let (1.., RequestBody::Client(body)) = (max, body)
        && let Some(unpacked) = Unpacked::new(Coded::of(headers), max, &record.conn.worker.metrics)
    {
        body.unpacked_by(unpacked);
    }
}

pub(crate) async fn send(
    record: &mut Record,
    plan: &Rc<Plan>,
    upstream: &Name,
    mut request: Request<RequestBody>,
    asks: Asks,
) -> Result<Response<ResponseBody>, Refusal> {
    let forwarded = record.forwarding();
    let accept = if asks == Asks::Upgrade { websocket::accept(request.headers()) } else { None };
    let worker = record.conn.worker.clone();
    let web = record.grpc_web.filter(|_| worker.pools.speaks_http2(upstream));
    if let Some(web) = web {
        // What speaks HTTP/1 has no trailers to speak gRPC with: it gets what came in.
        record.grpc = true;
        if let (Some(decoder), RequestBody::Client(body)) = (web.ask(request.headers_mut()), request.body_mut()) {
            body.decode_by(decoder);
        }
    }
    let shown = bearer(&worker, upstream).await?;
    if let Some(shown) = &shown {
        shown.put(request.headers_mut());
    }
    let deadline = record.grpc.then(|| grpc_timeout(request.headers())).flatten().map(|left| Instant::now() + left);
    let identity = record.identity.clone();
    let consumer = identity.as_ref().and_then(|identity| identity.caller.consumer.as_ref());
    let caller = Caller {
        address: SocketAddr::new(record.client_ip, record.conn.peer.port()),
        consumer: consumer.map(|consumer| &*consumer.name),
    };
    // The token may have been waited for.
    let started = if shown.is_some() { Instant::now() } else { forwarded.into() };
    let (way, expects) = (record.interim.clone(), record.expects);
    let veils = record.veils.clone();
    let hand_on = |status, mut fields| {
        veils.hide(&mut fields);
        pass_interim(way.as_ref(), plan, expects, status, fields);
    };
    let interim = way.is_some().then_some(&hand_on as &dyn Fn(StatusCode, HeaderMap));
    let trail = &mut record.trail;
    let call = Call { rule: &plan.rule, upstream, started, deadline, asks, expects, interim, caller, trail };
    let sent = while_granted(record.live.as_ref(), worker.pools.send(call, request)).await;
    if let Some(way) = &way {
        way.sent(worker.shared.settings.limits.write_stall).await;
    }
    let over = |ended| ladder::over(&worker.shared.directory, record.identity.as_deref(), ended);
    let sent = sent.map_err(over)?;
    let mut response = match sent {
        Ok(response) => response,
        Err(failure) => {
            // If the client's body is at fault, the upstream's failure only follows from that.
            let fault = record.client_body.as_ref().and_then(|state| state.failed.get());
            return Err(fault.map_or_else(|| Refusal::from(&failure), Refusal::from));
        }
    };
    if let Some(Shown { value, of: Some(credentials), .. }) =
        shown.filter(|_| response.status() == StatusCode::UNAUTHORIZED)
    {
        credentials.refused(&value);
    }
    let via = match response.version() {
        Version::HTTP_2 => VIA_H2,
        Version::HTTP_10 => VIA_H10,
        _ => VIA_H1,
    };
    *response.version_mut() = Version::HTTP_11;
    let switches = matches!(response.body(), ResponseBody::Tunnel(_));
    let headers = response.headers_mut();
    if switches && !accept.is_some_and(|accept| websocket::is_accepted(headers, &accept)) {
        return Err(Refusal::UpstreamProtocol);
    }
    Seen::look(headers).strip(headers);
    if switches {
        websocket::offer(headers);
    }
    headers.append(header::VIA, via);
    record.web = web.and_then(|web| web.answer(headers));
    Ok(response)
}

/// An interim answer as the client gets it: like an answer, without what frames one (RFC 9110 8.6).
fn pass_interim(way: Option<&Way>, plan: &Plan, expects: bool, status: StatusCode, mut fields: HeaderMap) {
    let Some(way) = way else { return };
    // Whoever has not asked for it may take it for his answer. Over HTTP/1 the library says so by itself, once the body is
    // read.
    if status == StatusCode::CONTINUE && (!expects || matches!(way, Way::Connection(_))) {
        return;
    }
    Seen::look(&fields).strip(&mut fields);
    fields.remove(header::CONTENT_LENGTH);
    plan.response.take_out(&mut fields);
    way.push(interim::head(status, fields));
}

/// Asks an upstream for nobody who waits: for a mirror, or for the cache. None: it has nothing to say.
pub(crate) async fn quietly(
    worker: &Worker,
    plan: &Plan,
    upstream: &Name,
    mut request: Request<RequestBody>,
    caller: Caller<'_>,
    deadline: Instant,
) -> Option<Response<ResponseBody>> {
    let shown = bearer(worker, upstream).await.ok()?;
    if let Some(shown) = &shown {
        shown.put(request.headers_mut());
    }
    let (deadline, asks, mut trail) = (Some(deadline), Asks::Answer, Trail::default());
    let trail = &mut trail;
    let (started, expects, interim) = (Instant::now(), false, None);
    let call = Call { rule: &plan.rule, upstream, started, deadline, asks, expects, interim, caller, trail };
    let mut response = worker.pools.send(call, request).await.ok()?;
    let via = if response.version() == Version::HTTP_2 { VIA_H2 } else { VIA_H1 };
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    Seen::look(headers).strip(headers);
    headers.append(header::VIA, via);
    Some(response)
}

/// Who we are to an upstream.
struct Shown {
    header: HeaderName,
    value: HeaderValue,
    /// What gave it to us, and gives another once it is refused.
    of: Option<Arc<ClientCredentials>>,
}

impl Shown {
    fn put(&self, headers: &mut HeaderMap) {
        headers.insert(self.header.clone(), self.value.clone());
    }
}

/// Where the upstream's `auth` says that it wants to know.
async fn bearer(worker: &Worker, upstream: &str) -> Result<Option<Shown>, Refusal> {
    let Some(plan) = worker.shared.directory.load_facts().auths.for_upstream(upstream).cloned() else {
        return Ok(None);
    };
    let (credentials, bearer) = match &plan.kind {
        Kind::ClientCredentials(credentials) => (credentials, credentials.bearer(Instant::now()).await),
        Kind::UpstreamKey(header, value) => {
            return Ok(Some(Shown { header: header.clone(), value: value.clone(), of: None }));
        }
        _ => return Err(Refusal::Unauthenticated(AuthFailure::Unavailable("the upstream's auth"), Vec::new())),
    };
    match bearer {
        Ok(value) => Ok(Some(Shown { header: header::AUTHORIZATION, value, of: Some(credentials.clone()) })),
        Err(failure) => Err(Refusal::Unauthenticated(failure, Vec::new())),
    }
}

/// Waits for something else than the upstream's answer, as long as what lets the request in holds.
pub(crate) async fn while_admitted<T>(record: &Record, work: impl Future<Output = T>) -> Result<T, Refusal> {
    let directory = &record.conn.worker.shared.directory;
    let waited = while_granted(record.live.as_ref(), work).await;
    waited.map_err(|ended| ladder::over(directory, record.identity.as_deref(), ended))
}

/// What lets the request in may end before the upstream answers.
async fn while_granted<T>(live: Option<&Live>, work: impl Future<Output = T>) -> Result<T, Ended> {
    let Some(live) = live else { return Ok(work.await) };
    let mut work = pin!(work);
    poll_fn(|cx| match live.ended(cx) {
        Some(ended) => Poll::Ready(Err(ended)),
        None => work.as_mut().poll(cx).map(Ok),
    })
    .await
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_by_segments() {
        let prefix = PathPattern::Prefix("/orders".into());
        let root = PathPattern::Prefix("/".into());
        let exact = PathPattern::Exact("/a".into());
        for (pattern, path, with, expected) in [
            (&prefix, "/orders/7", "/v1", "/v1/7"),
            (&prefix, "/orders", "/v1", "/v1"),
            (&prefix, "/orders", "/", "/"),
            (&prefix, "/orders/7", "/", "/7"),
            (&prefix, "/orders/", "/v1/", "/v1/"),
            (&root, "/x", "/v1", "/v1/x"),
            (&root, "/", "/v1", "/v1/"),
            (&exact, "/a", "/b", "/b"),
            (&PathPattern::Any, "/x", "/v1", "/v1/x"),
        ] {
            assert_eq!(replace_prefix(pattern, path, with), expected, "{pattern:?} {path} {with}");
        }
    }

    #[test]
    fn grpc_timeouts_are_read() {
        let read = |text: &'static str| {
            let value = HeaderValue::from_static(text);
            grpc_timeout(&HeaderMap::from_iter([(header::HeaderName::from_static("grpc-timeout"), value)]))
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        for bad in ["", "m", "1", "1x", "-1m", "123456789m"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
