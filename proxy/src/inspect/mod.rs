//! Phase 13: what a route's policies find in a request. Its body is read once, whole and up to a bound, and each of them looks
//! through it before any of it goes anywhere. Routes without such policies pay one look at an empty list.

mod found;
mod graphql;
mod injection;
mod json;
mod media;
mod multipart;
pub(crate) mod read;
mod strings;
mod xml;

use std::{cell::RefCell, collections::HashMap, hash::BuildHasherDefault, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::request::Parts;
use http_body::Body;
use quorumgate_model::{
    resource::{Look, Policy, PolicyKind, PolicyMode, Tolerance},
    ruleset::Ruleset,
};

use self::{
    found::Violation,
    injection::Scan,
    read::{Plain, Read},
};
pub(crate) use self::{found::Violations, media::Media};
use crate::{
    body::RequestBody,
    exchange,
    identity::content_digest::Digested,
    metrics::{PolicyMetrics, PolicyResult, WorkerMetrics},
    plan::{AddressHasher, Plan},
    received::Received,
    record::Record,
    refusal::Refusal,
};

/// One policy as a worker asks it.
struct Inspector {
    policy: Arc<Policy>,
    how: Look,
    metrics: Arc<PolicyMetrics>,
}

/// What this worker made of policies so far. Each keeps its policy, so that no other can take its address.
pub(crate) struct Inspectors {
    by_address: RefCell<HashMap<usize, Rc<Inspector>, BuildHasherDefault<AddressHasher>>>,
    metrics: Arc<WorkerMetrics>,
}

/// Policies that are gone may be kept up to so many in all.
const KEPT_MAX: usize = 256;

impl Inspectors {
    pub(crate) fn new(metrics: Arc<WorkerMetrics>) -> Self {
        Self { by_address: RefCell::default(), metrics }
    }

    /// None: it goes by something else than what requests say.
    fn of(&self, policy: &Arc<Policy>) -> Option<Rc<Inspector>> {
        let how = policy.kind.look()?;
        let make = || Rc::new(Inspector { policy: policy.clone(), how, metrics: self.metrics.policy(&policy.name) });
        Some(self.by_address.borrow_mut().entry(Arc::as_ptr(policy) as usize).or_insert_with(make).clone())
    }

    /// Lets go of policies that are gone, once they are many.
    pub(crate) fn prune(&self, rules: &Ruleset) {
        let mut kept = self.by_address.borrow_mut();
        if kept.len() > KEPT_MAX {
            kept.retain(|_, it| rules.asks(&it.policy));
        }
    }
}

/// Makes what requests will need and what takes a while to make.
pub(crate) fn prepare(rules: &Ruleset) {
    if rules.has_inspection(|kind| matches!(kind, PolicyKind::Injection(_))) {
        injection::prepare();
    }
}

/// How much one value looks like an attack, for the benchmark.
pub fn injection_score(text: &[u8]) -> u32 {
    injection::score_of(text)
}

/// The body as it goes on; None: nobody has looked at it, and it is where it was.
pub(crate) async fn inspect(
    record: &mut Record,
    plan: &Plan,
    policies: &[Arc<Policy>],
    parts: &Parts,
    body: &mut Option<Received>,
    digest: &mut Option<Digested>,
) -> Result<Option<RequestBody>, Refusal> {
    let worker = record.conn.worker.clone();
    let all: Vec<_> = policies.iter().filter_map(|policy| worker.inspectors.of(policy)).collect();
    let has_body = body.as_ref().is_some_and(|it| !it.is_end_stream());
    for it in &all {
        let errors = it.look_at_head(parts);
        // Without a body the head is all there is to look at.
        if !errors.is_empty() {
            it.settle(record, errors)?;
        }
    }
    let Some(body_bytes) = body.as_ref().filter(|_| has_body).map(|it| it.size_hint().lower()) else {
        return Ok(None);
    };
    let media = Media::of(&parts.headers);
    let mut takers: Vec<_> = all.iter().filter(|it| it.may_take(&media)).cloned().collect();
    if takers.is_empty() {
        return nobodys(record, &all).map(|()| None);
    }
    let bound = Bound::of(&takers);
    if body_bytes > bound.bytes_max {
        bound.exceeded(record, &takers)?;
        return Ok(None);
    }
    let RequestBody::Client(body) = exchange::take_body(record, plan, &parts.headers, body, digest)? else {
        return Ok(None);
    };
    let (bytes, body) = match read::whole(record, body, bound.bytes_max).await? {
        Read::Whole(bytes, body) => (bytes, body),
        Read::TooLarge(body) => {
            bound.exceeded(record, &takers)?;
            return Ok(Some(body));
        }
    };
    if bytes.is_empty() {
        return Ok(Some(body));
    }
    let plain = match read::plain(&parts.headers, bytes, bound.bytes_max, &worker).await {
        Ok(plain) => plain,
        // Where nobody enforces it goes on, as what else cannot be looked into.
        Err(_) if !takers.iter().any(|it| it.enforces()) => Plain::Unknown,
        Err(fault) => return Err(fault.into()),
    };
    let bytes = match plain {
        Plain::Overloaded => return Err(Refusal::Overloaded),
        Plain::Bytes(bytes) => bytes,
        Plain::TooLarge => {
            bound.exceeded(record, &takers)?;
            return Ok(Some(body));
        }
        Plain::Unknown => {
            for it in &takers {
                it.unseen(record, "content_encoding", || Refusal::CodingNotTaken)?;
            }
            return Ok(Some(body));
        }
    };
    takers.retain(|it| it.takes(&media, &bytes));
    if takers.is_empty() {
        nobodys(record, &all)?;
    }
    for it in &takers {
        if bytes.len() as u64 > it.body_max() {
            it.unseen(record, "body_max", || it.too_large())?;
            continue;
        }
        it.settle(record, it.look(parts, &media, &bytes))?;
    }
    Ok(Some(body))
}

/// Without the byte order mark of UTF-8, which readers pass over (RFC 8259 8.1).
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// A body of a type that no policy of the route looks through.
fn nobodys(record: &mut Record, all: &[Rc<Inspector>]) -> Result<(), Refusal> {
    for it in all.iter().filter(|it| it.how.other_types == Tolerance::Refuse) {
        it.unseen(record, "other_types", || Refusal::TypeNotTaken(it.policy.name.clone()))?;
    }
    Ok(())
}

/// How much is read: what each policy that enforces can take, else what any can.
struct Bound {
    bytes_max: u64,
}

impl Bound {
    fn of(takers: &[Rc<Inspector>]) -> Self {
        let enforced = takers.iter().filter(|it| it.enforces()).map(|it| it.body_max()).min();
        let any = || takers.iter().map(|it| it.body_max()).max();
        Self { bytes_max: enforced.or_else(any).unwrap_or(0) }
    }

    /// Beyond it no policy is asked: it is refused where one enforces, else told.
    fn exceeded(&self, record: &mut Record, takers: &[Rc<Inspector>]) -> Result<(), Refusal> {
        let enforces = takers.iter().find(|it| it.enforces() && it.body_max() == self.bytes_max);
        for it in enforces.into_iter().chain(takers) {
            it.unseen(record, "body_max", || it.too_large())?;
        }
        Ok(())
    }
}

impl Inspector {
    fn enforces(&self) -> bool {
        self.how.mode == PolicyMode::Enforce
    }

    fn body_max(&self) -> u64 {
        self.how.body_max.0
    }

    /// By what it says that it is.
    fn may_take(&self, media: &Media) -> bool {
        match &self.policy.kind {
            PolicyKind::Json(_) => media.is_json() || media.is_missing(),
            PolicyKind::Xml(_) => media.is_xml() || media.is_missing(),
            PolicyKind::Multipart(_) => media.is_multipart(),
            PolicyKind::Graphql(_) => media.is_json() || media.is_graphql() || media.is_missing(),
            PolicyKind::Injection(_) => {
                media.is_json()
                    || media.is_form()
                    || media.is_multipart()
                    || media.is_plain_text()
                    || media.is_xml()
                    || media.is_missing()
            }
            PolicyKind::Ip(_) | PolicyKind::Version(_) => false,
        }
    }

    /// By what it is too, where it says nothing.
    fn takes(&self, media: &Media, bytes: &[u8]) -> bool {
        let first = || without_mark(bytes).trim_ascii_start().first();
        // UTF-16 and UTF-32, which a server may take for what they are.
        let is_wide =
            || bytes.iter().take(4).any(|byte| *byte == 0) || matches!(bytes, [0xfe, 0xff, ..] | [0xff, 0xfe, ..]);
        match &self.policy.kind {
            _ if !media.is_missing() || is_wide() => self.may_take(media),
            PolicyKind::Json(_) | PolicyKind::Graphql(_) => matches!(first(), Some(b'{' | b'[' | b'"')),
            PolicyKind::Xml(_) => first() == Some(&b'<'),
            PolicyKind::Injection(_) => true,
            PolicyKind::Multipart(_) | PolicyKind::Ip(_) | PolicyKind::Version(_) => false,
        }
    }

    /// What there is before any body.
    fn look_at_head(&self, parts: &Parts) -> Vec<Violation> {
        match &self.policy.kind {
            PolicyKind::Graphql(it) => graphql::check_head(&parts.uri, it),
            PolicyKind::Injection(it) => {
                let mut scan = Scan::new(it);
                scan.head(parts);
                scan.found()
            }
            _ => Vec::new(),
        }
    }

    fn look(&self, parts: &Parts, media: &Media, bytes: &Bytes) -> Vec<Violation> {
        let bytes = &bytes.slice_ref(without_mark(bytes));
        match &self.policy.kind {
            PolicyKind::Json(it) => json::check(bytes, it),
            PolicyKind::Xml(it) => xml::check(bytes, it),
            PolicyKind::Multipart(it) => multipart::check(&parts.headers, bytes, it),
            PolicyKind::Graphql(it) => graphql::check(media, bytes, it),
            PolicyKind::Injection(it) => {
                let mut scan = Scan::new(it);
                scan.body(&parts.headers, media, bytes);
                scan.found()
            }
            PolicyKind::Ip(_) | PolicyKind::Version(_) => Vec::new(),
        }
    }

    fn too_large(&self) -> Refusal {
        Refusal::TooLargeToInspect { policy: self.policy.name.clone(), bytes_max: self.body_max() }
    }

    /// It could not look: that is never silent.
    fn unseen(&self, record: &mut Record, rule: &'static str, refusal: impl Fn() -> Refusal) -> Result<(), Refusal> {
        if self.enforces() {
            self.metrics.count(PolicyResult::Refused);
            return Err(refusal());
        }
        self.metrics.count(PolicyResult::Unseen);
        let violation = Violation::body(String::new(), rule, "");
        record.detected(violation.told(&self.policy.name));
        Ok(())
    }

    fn settle(&self, record: &mut Record, errors: Vec<Violation>) -> Result<(), Refusal> {
        let Some(first) = errors.first() else {
            self.metrics.count(PolicyResult::Passed);
            return Ok(());
        };
        if self.enforces() {
            self.metrics.count(PolicyResult::Refused);
            return Err(Refusal::Invalid(Box::new(Violations::new(self.policy.name.clone(), errors))));
        }
        self.metrics.count(PolicyResult::Detected);
        record.detected(first.told(&self.policy.name));
        Ok(())
    }
}
