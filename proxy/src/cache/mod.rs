//! A shared cache in front of upstreams (RFC 9111, RFC 5861): what may not be stored never is, what may not be used
//! without asking is asked about, and a burst of the same question is one question.
//!
//! It is looked into behind everything that could refuse the request (who asks, what is revoked, limits), and by the
//! request as it goes out, edits of the route included: what the upstream did not see cannot have made its answer.

mod directives;
mod flight;
mod keeping;
mod settle;
mod store;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use quorumgate_model::{
    purge::{PurgeTarget, Purges},
    resource::{Cache, Name},
};

use self::{directives::Directives, flight::Landing, store::Stored};
pub(crate) use self::{
    flight::Flights,
    settle::{Ticket, refresh},
    store::Store,
};
pub use self::{keeping::Keeping, store::CACHE_BYTES_MAX};
use crate::{body::ResponseBody, exchange, metrics::CacheResult, record::Record, refusal::Refusal, traffic::Unsaid};

/// How long a request waits for the answer to another one that asks the same; then it asks for itself.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What the gateway itself does not read as a credential, and others do.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What is asked, as the client put it: noted before the request becomes the one that goes out.
pub(crate) struct Question {
    /// `api.acme.test/orders?x=1`: the name by which answers are purged, and by which changes let go of them.
    url: String,
    /// Route, upstream, scheme and port, and what the route made of the URL by values of the request: answers to one
    /// URL are kept apart by it.
    way: String,
    /// Somebody proved who they are, here or for the upstream to judge.
    with_credentials: bool,
    has_body: bool,
}

/// Where a request came in.
pub(crate) struct Place<'a> {
    pub(crate) tls: bool,
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    pub(crate) path: &'a str,
    /// Without the credentials that were read from it.
    pub(crate) query: Option<&'a str>,
}

/// What the cache has to say before the upstream is asked.
pub(crate) enum Consulted {
    Answer(Response<ResponseBody>),
    /// The answer, and the upstream is to be asked all the same, by nobody who waits.
    AnswerAndRefresh(Response<ResponseBody>, Box<Ticket>),
    Ask(Box<Ticket>),
    /// What is kept of this URL is no longer true once the upstream has done it.
    Changes(Question),
    /// Nothing is looked for, and nothing kept.
    PassesBy,
}

impl Question {
    pub(crate) fn new(record: &Record, upstream: &Name, parts: &Parts, place: &Place<'_>, has_body: bool) -> Self {
        let Place { tls, host, port, path, query } = place;
        // One name for what purges and changes. Answers are kept apart: some link to it as it came.
        let (host, dot) = match host.strip_suffix('.') {
            Some(host) => (host, "."),
            None => (*host, ""),
        };
        let url = match query {
            Some(query) => format!("{host}{path}?{query}"),
            None => format!("{host}{path}"),
        };
        let route = record.plan.as_ref().map_or("", |plan| &plan.rule.route.name);
        let scheme = if *tls { "https" } else { "http" };
        let port = port.unwrap_or(if *tls { 443 } else { 80 });
        let with_credentials = record.identity.is_some() || parts.headers.contains_key(header::AUTHORIZATION);
        Self { url, way: format!("{route} {upstream} {scheme} {port}{dot}"), with_credentials, has_body }
    }
}

/// The request has passed everything that could refuse it, and is what the upstream would get. `beside`: what is kept may
/// be made fresh while nobody waits.
pub(crate) async fn consult(
    record: &mut Record,
    mut question: Question,
    policy: &Cache,
    parts: &Parts,
    beside: bool,
) -> Result<Consulted, Refusal> {
    let headers = &parts.headers;
    if record.plan.as_ref().is_some_and(|plan| plan.rule.transform.is_some()) {
        question.way += &format!(" {}", parts.uri);
    }
    let parted = [header::RANGE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_RANGE];
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    if !is_read || question.has_body || parted.iter().any(|name| headers.contains_key(name)) {
        counted(record, CacheResult::Bypass);
        return Ok(if parts.method.is_safe() { Consulted::PassesBy } else { Consulted::Changes(question) });
    }
    let asked = Directives::of(headers);
    let worker = record.conn.worker.clone();
    let store = &worker.shared.cache;
    let mut landed = false;
    loop {
        // What comes after this is not kept if something is purged meanwhile.
        let purged = store.purged(&question.url);
        let now = Instant::now();
        let found = store.find(&question.url, &question.way, headers);
        let way = found.as_ref().map(|stored| use_of(stored, &asked, policy, now));
        let (stale, why) = match (found, way) {
            (Some(stored), Some(Use::AsItIs)) => {
                let (result, how) = match landed {
                    true => (CacheResult::Collapsed, "fwd=miss; collapsed"),
                    false => (CacheResult::Hit, "hit"),
                };
                counted(record, result);
                return Ok(Consulted::Answer(answer(&stored, headers, &parts.method, how, now)));
            }
            (Some(stored), Some(Use::AndRefresh)) if beside => {
                counted(record, CacheResult::Stale);
                let answer = answer(&stored, headers, &parts.method, "hit; detail=stale-while-revalidate", now);
                // One refresh at a time is enough.
                let Some(flight) = worker.cache_flights.take_off_beside(&question.url, &question.way) else {
                    return Ok(Consulted::Answer(answer));
                };
                let ticket = Ticket::new(question, parts, asked, policy, purged).asks_about(Some(stored), "stale");
                return Ok(Consulted::AnswerAndRefresh(answer, Box::new(ticket.in_flight(flight))));
            }
            (Some(stored), _) => {
                let why = if stored.staleness(now).is_some() { "stale" } else { "request" };
                (Some(stored), why)
            }
            (None, _) => (None, "miss"),
        };
        if asked.only_if_cached {
            return Err(Refusal::NotCached);
        }
        // A HEAD brings nothing that could be kept, nor does what must not be stored.
        let alone = landed || asked.no_store || parts.method == Method::HEAD;
        let landing = match alone {
            true => Landing::Alone,
            false => worker.cache_flights.take_off(&question.url, &question.way),
        };
        let ticket = |question| Ticket::new(question, parts, asked, policy, purged).asks_about(stale, why);
        match landing {
            Landing::Leads(flight) => return Ok(Consulted::Ask(Box::new(ticket(question).in_flight(flight)))),
            Landing::Alone => return Ok(Consulted::Ask(Box::new(ticket(question)))),
            Landing::Follows(other) => {
                exchange::while_admitted(record, tokio::time::timeout(WAIT_MAX, other.wait())).await?.ok();
                landed = true;
            }
        }
    }
}

pub(crate) fn counted(record: &mut Record, result: CacheResult) {
    record.conn.worker.metrics.cached(result);
    if let Some(passing) = &mut record.traffic {
        passing.cached = Some(result);
    }
}

enum Use {
    AsItIs,
    /// Stale, and the upstream is asked beside.
    AndRefresh,
    OnceAsked,
}

/// RFC 9111 4, 5.2.1; RFC 5861 3.
fn use_of(stored: &Stored, asked: &Directives, policy: &Cache, now: Instant) -> Use {
    let age = stored.age(now).as_secs();
    if asked.no_cache || stored.ask_first || asked.max_age.is_some_and(|most| age > most) {
        return Use::OnceAsked;
    }
    let Some(staleness) = stored.staleness(now) else {
        let left = stored.lifetime.as_secs().saturating_sub(age);
        return if asked.min_fresh.is_some_and(|least| left < least) { Use::OnceAsked } else { Use::AsItIs };
    };
    if !stored.may_be_stale || asked.min_fresh.is_some() {
        return Use::OnceAsked;
    }
    if asked.max_stale.is_some_and(|most| staleness.as_secs() <= most) {
        return Use::AsItIs;
    }
    let window = stored.while_revalidate.max(policy.stale_while_revalidate.unwrap_or_default().0);
    if asked.max_age.is_none() && staleness < window { Use::AndRefresh } else { Use::OnceAsked }
}

/// To this very request: a 304 where it has the answer already (RFC 9111 4.3.2).
fn answer(stored: &Stored, asked: &HeaderMap, method: &Method, how: &str, now: Instant) -> Response<ResponseBody> {
    let age = stored.age(now).as_secs();
    let mut response = Response::new(ResponseBody::Empty);
    *response.headers_mut() = stored.headers.clone();
    let headers = response.headers_mut();
    headers.insert(header::AGE, HeaderValue::from(age));
    let ttl = stored.lifetime.as_secs() as i64 - age as i64;
    said(headers, &format!("{how}; ttl={ttl}"));
    if stored.status == StatusCode::OK && has_it_already(stored, asked) {
        headers.remove(header::CONTENT_LENGTH);
        let mut unsaid = HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from(stored.body.len()))]);
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
            if let Some(value) = headers.remove(&name) {
                unsaid.insert(name, value);
            }
        }
        response.extensions_mut().insert(Unsaid(unsaid));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    if stored.status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(stored.body.len()));
    }
    *response.status_mut() = stored.status;
    if *method != Method::HEAD {
        *response.body_mut() = ResponseBody::Full(stored.body.clone());
    }
    response
}

/// RFC 9110 13.1.2, 13.1.3: tags are compared weakly, and dates only where there are no tags.
fn has_it_already(stored: &Stored, request: &HeaderMap) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    if request.contains_key(header::IF_NONE_MATCH) {
        let ours = stored.headers.get(header::ETAG).map(|tag| opaque(tag.as_bytes().trim_ascii()));
        let fields = request.get_all(header::IF_NONE_MATCH).iter();
        let mut tags = fields.flat_map(|field| field.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
        return tags.any(|tag| tag == b"*" || ours.as_ref().is_some_and(|ours| opaque(tag) == *ours));
    }
    let Some(since) = directives::date(request, &header::IF_MODIFIED_SINCE) else { return false };
    let changed = directives::date(&stored.headers, &header::LAST_MODIFIED)
        .or_else(|| directives::date(&stored.headers, &header::DATE));
    changed.is_some_and(|changed| changed <= since)
}

/// RFC 9211.
fn said(headers: &mut HeaderMap, what: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("quorumgate; {what}")) {
        headers.append(CACHE_STATUS, value);
    }
}

impl Store {
    /// Lets go of what is to go; says of how many URLs. An answer that is on its way is not kept either.
    pub(crate) fn purge(&self, targets: &[PurgeTarget]) -> u64 {
        self.purge_begins();
        let urls = targets.iter().map(|target| self.purge_one(target)).sum();
        self.count_purged(urls);
        urls
    }

    fn purge_one(&self, target: &PurgeTarget) -> u64 {
        match target {
            PurgeTarget::Everything => self.forget_where(|_, _| true),
            PurgeTarget::Key(url) => u64::from(self.forget(url)),
            PurgeTarget::Prefix(prefix) => self.forget_where(|url, _| url.starts_with(&**prefix)),
            PurgeTarget::Tag(tag) => {
                let has_it = |stored: &Arc<Stored>| has_tag(&stored.headers, tag.as_bytes());
                self.forget_where(|_, variants| variants.iter().any(has_it))
            }
        }
    }

    /// What the cluster has agreed to purge since `seen`, the index up to which this node has done it.
    pub(crate) fn follow(&self, purges: &Purges, seen: Option<u64>) {
        // At the start nothing is kept.
        let Some(seen) = seen else { return };
        match purges.after(seen) {
            Some(entries) => {
                for entry in entries {
                    self.purge(&entry.targets);
                }
            }
            // More than the state remembers: any of what it forgot may have been meant.
            None => {
                self.purge(&[PurgeTarget::Everything]);
            }
        }
    }

    pub(crate) fn metrics(&self, out: &mut String) {
        use std::fmt::Write;
        let (bytes, count) = self.size();
        let _ = write!(
            out,
            "# HELP quorumgate_cache_bytes Answers that are kept.\n# TYPE quorumgate_cache_bytes gauge\n\
             quorumgate_cache_bytes {bytes}\n\
             # HELP quorumgate_cache_urls URLs that answers are kept of.\n# TYPE quorumgate_cache_urls gauge\n\
             quorumgate_cache_urls {count}\n\
             # HELP quorumgate_cache_evicted_total URLs whose answers went for want of room.\n\
             # TYPE quorumgate_cache_evicted_total counter\nquorumgate_cache_evicted_total {}\n\
             # HELP quorumgate_cache_purged_total URLs whose answers were purged.\n\
             # TYPE quorumgate_cache_purged_total counter\nquorumgate_cache_purged_total {}\n",
            self.evicted(),
            self.purged_urls(),
        );
    }
}

fn has_tag(headers: &HeaderMap, wanted: &[u8]) -> bool {
    let fields = ["cache-tag", "surrogate-key"].into_iter().flat_map(|name| headers.get_all(name));
    fields.into_iter().any(|field| field.as_bytes().split(|b| b", \t".contains(b)).any(|tag| tag == wanted))
}

fn wall() -> SystemTime {
    SystemTime::now()
}
