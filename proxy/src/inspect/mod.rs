//! Phase 13: what a route's policies find in a request. Its body is read once, whole and up to a bound, and each of them looks
//! through it before any of it goes anywhere. Routes without such policies pay one look at an empty list.

mod contract;
mod disposition;
mod found;
mod graphql;
mod injection;
mod json;
mod media;
mod multipart;
pub(crate) mod read;
pub mod schema;
pub(crate) mod strings;
mod well_formed;
mod xml;

use std::{cell::RefCell, collections::HashMap, hash::BuildHasherDefault, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body::Body as _;
use quorumgate_model::{
    resource::{Look, Policy, PolicyKind, PolicyMode, Tolerance},
    ruleset::Ruleset,
};

pub use self::contract::{Again, Watched, check};
use self::{
    contract::{Body, Compiled, Entry, Visit},
    injection::Scan,
    read::{Plain, Read},
};
pub(crate) use self::{
    contract::{Contracts, Promise},
    found::{Place, Step, Violation, Violations, pointer},
    media::Media,
};
use crate::{
    body::{RequestBody, ResponseBody},
    exchange,
    identity::content_digest::Digested,
    metrics::{PolicyMetrics, PolicyResult, WorkerMetrics},
    plan::{AddressHasher, Plan},
    received::Received,
    record::Record,
    refusal::Refusal,
    worker::Shared,
};

/// One policy as a worker asks it.
struct Inspector {
    policy: Arc<Policy>,
    how: Look,
    metrics: Arc<PolicyMetrics>,
    /// Of kind `contract`.
    contract: Compiled,
}

/// What this worker made of policies so far. Each keeps its policy, so that no other can take its address.
pub(crate) struct Inspectors {
    by_address: RefCell<HashMap<usize, Rc<Inspector>, BuildHasherDefault<AddressHasher>>>,
    metrics: Arc<WorkerMetrics>,
    shared: Arc<Shared>,
}

/// Policies that are gone may be kept up to so many in all.
const KEPT_MAX: usize = 256;

impl Inspectors {
    pub(crate) fn new(metrics: Arc<WorkerMetrics>, shared: Arc<Shared>) -> Self {
        Self { by_address: RefCell::default(), metrics, shared }
    }

    /// None: it goes by something else than what requests say.
    fn of(&self, policy: &Arc<Policy>) -> Option<Rc<Inspector>> {
        let how = policy.kind.look()?;
        let make = || {
            let metrics = self.metrics.policy(&policy.name);
            Rc::new(Inspector { policy: policy.clone(), how, metrics, contract: self.shared.contracts.of(policy) })
        };
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

/// A contract among them is held against answers.
pub(crate) fn looks_at_answers(policies: &[Arc<Policy>]) -> bool {
    policies.iter().any(|it| matches!(&it.kind, PolicyKind::Contract(it) if it.responses != PolicyMode::Off))
}

/// What the client gets of an answer that was promised, to each contract in its turn.
pub(crate) async fn settle(
    record: &mut Record,
    promises: Vec<Promise>,
    mut response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    for promise in promises {
        response = promise.settle(record, response).await?;
    }
    Ok(response)
}

/// How much one value looks like an attack, for the benchmark.
pub fn injection_score(text: &[u8]) -> u32 {
    injection::score_of(text)
}

/// What is known of a request that its policies have let pass.
pub(crate) struct Inspected {
    /// The body as it goes on; None: nobody has looked at it, and it is where it was.
    pub(crate) body: Option<RequestBody>,
    /// What its answer has to be, to each contract.
    pub(crate) promises: Vec<Promise>,
}

/// A policy for one request.
struct Asked {
    it: Rc<Inspector>,
    mode: PolicyMode,
    /// The operation, of kind `contract`.
    visit: Option<Visit>,
}

/// `path` is the canonical one.
pub(crate) async fn inspect(
    record: &mut Record,
    plan: &Plan,
    policies: &[Arc<Policy>],
    parts: &Parts,
    path: &str,
    body: &mut Option<Received>,
    digest: &mut Option<Digested>,
) -> Result<Inspected, Refusal> {
    let worker = record.conn.worker.clone();
    let has_body = body.as_ref().is_some_and(|it| !it.is_end_stream());
    let mut all = Vec::new();
    for it in policies.iter().filter_map(|policy| worker.inspectors.of(policy)) {
        let asked = match matches!(it.policy.kind, PolicyKind::Contract(_)) {
            true => it.enter(record, parts, path, has_body)?,
            false => Some(it.look_at_head(record, parts)?),
        };
        all.extend(asked);
    }
    let body = look_through(record, plan, &all, parts, body, digest).await?;
    let visits = all.into_iter().filter_map(|it| Some((it.visit?, it.it)));
    let promises = visits.filter_map(|(visit, it)| Promise::new(visit, &it.policy.name, &it.metrics)).collect();
    Ok(Inspected { body, promises })
}

async fn look_through(
    record: &mut Record,
    plan: &Plan,
    all: &[Asked],
    parts: &Parts,
    body: &mut Option<Received>,
    digest: &mut Option<Digested>,
) -> Result<Option<RequestBody>, Refusal> {
    let worker = record.conn.worker.clone();
    let unread = body.as_ref().filter(|it| !it.is_end_stream());
    let Some(body_bytes) = unread.map(|it| it.size_hint().lower()) else {
        return Ok(None);
    };
    let media = Media::of(&parts.headers);
    let mut takers: Vec<_> = all.iter().filter(|it| it.may_take(&media)).collect();
    if takers.is_empty() {
        return nobodys(record, all).map(|()| None);
    }
    if media.is_foreign() {
        for it in &takers {
            let policy = || it.it.policy.name.clone();
            it.unseen(record, "charset", || Refusal::TypeNotTaken { policy: policy(), rule: "charset" })?;
        }
        return Ok(None);
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
        for it in takers.iter().filter(|it| it.visit.is_some()) {
            it.settle(record, it.look(parts, &media, &bytes))?;
        }
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
        nobodys(record, all)?;
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
fn nobodys(record: &mut Record, all: &[Asked]) -> Result<(), Refusal> {
    for it in all.iter().filter(|it| it.it.how.other_types == Tolerance::Refuse) {
        let policy = || it.it.policy.name.clone();
        it.unseen(record, "other_types", || Refusal::TypeNotTaken { policy: policy(), rule: "other_types" })?;
    }
    Ok(())
}

/// How much is read: what each policy that enforces can take, else what any can.
struct Bound {
    bytes_max: u64,
}

impl Bound {
    fn of(takers: &[&Asked]) -> Self {
        let enforced = takers.iter().filter(|it| it.enforces()).map(|it| it.body_max()).min();
        let any = || takers.iter().map(|it| it.body_max()).max();
        Self { bytes_max: enforced.or_else(any).unwrap_or(0) }
    }

    /// Beyond it no policy is asked: it is refused where one enforces, else told.
    fn exceeded(&self, record: &mut Record, takers: &[&Asked]) -> Result<(), Refusal> {
        let enforces = takers.iter().find(|it| it.enforces() && it.body_max() == self.bytes_max);
        for it in enforces.into_iter().chain(takers) {
            it.unseen(record, "body_max", || it.too_large())?;
        }
        Ok(())
    }
}

impl Inspector {
    /// What there is before any body.
    fn look_at_head(self: Rc<Self>, record: &mut Record, parts: &Parts) -> Result<Asked, Refusal> {
        let errors = match &self.policy.kind {
            PolicyKind::Graphql(it) => graphql::check_head(&parts.uri, it),
            PolicyKind::Injection(it) => {
                let mut scan = Scan::new(it);
                scan.head(parts);
                scan.found()
            }
            _ => Vec::new(),
        };
        let asked = Asked { mode: self.how.mode, it: self, visit: None };
        // Without a body the head is all there is to look at.
        if !errors.is_empty() {
            asked.settle(record, errors)?;
        }
        Ok(asked)
    }

    /// None: nothing more is asked of it.
    fn enter(
        self: Rc<Self>,
        record: &mut Record,
        parts: &Parts,
        path: &str,
        has_body: bool,
    ) -> Result<Option<Asked>, Refusal> {
        let Some(contract) = self.contract.clone() else { return Err(Refusal::BrokenRule) };
        let media = Media::of(&parts.headers);
        let (visit, errors) = match contract.enter(parts, path, &media, has_body) {
            Entry::Visit(visit, errors) => (visit, errors),
            Entry::Passes => {
                self.metrics.count(PolicyResult::Unseen);
                return Ok(None);
            }
            Entry::Unknown(methods) => {
                let policy = self.policy.name.clone();
                let asked = Asked { mode: contract.mode(), it: self, visit: None };
                asked.found_at_all(record, "unknown_operations", Refusal::UnknownOperation { policy, methods })?;
                return Ok(None);
            }
        };
        let asked = Asked { mode: visit.mode(), it: self, visit: Some(visit) };
        if asked.mode == PolicyMode::Off {
            return Ok(Some(asked));
        }
        let body = asked.visit.as_ref().map(|it| it.body);
        // What its body comes to is told once that was read.
        if !errors.is_empty() || !has_body || body == Some(Body::Unread) {
            asked.settle(record, errors)?;
        }
        if body == Some(Body::NotTaken) {
            let policy = asked.it.policy.name.clone();
            asked.found_at_all(record, "content", Refusal::TypeNotTaken { policy, rule: "content" })?;
        }
        Ok(Some(asked))
    }
}

impl Asked {
    fn enforces(&self) -> bool {
        self.mode == PolicyMode::Enforce
    }

    fn body_max(&self) -> u64 {
        self.it.how.body_max.0
    }

    /// By what it says that it is.
    fn may_take(&self, media: &Media) -> bool {
        match &self.it.policy.kind {
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
            PolicyKind::Contract(_) => self.reads_body(),
            PolicyKind::Ip(_) | PolicyKind::Version(_) | PolicyKind::Ai(_) | PolicyKind::Mask(_) => false,
            PolicyKind::Anomaly(_) | PolicyKind::Bot(_) | PolicyKind::Portal(_) => false,
        }
    }

    fn reads_body(&self) -> bool {
        self.mode != PolicyMode::Off && self.visit.as_ref().is_some_and(|it| matches!(it.body, Body::Read(_)))
    }

    /// By what it is too, where it says nothing.
    fn takes(&self, media: &Media, bytes: &[u8]) -> bool {
        let first = || without_mark(bytes).trim_ascii_start().first();
        // UTF-16 and UTF-32, which a server may take for what they are.
        let is_wide =
            || bytes.iter().take(4).any(|byte| *byte == 0) || matches!(bytes, [0xfe, 0xff, ..] | [0xff, 0xfe, ..]);
        match &self.it.policy.kind {
            PolicyKind::Contract(_) => self.reads_body(),
            _ if !media.is_missing() || is_wide() => self.may_take(media),
            PolicyKind::Json(_) | PolicyKind::Graphql(_) => matches!(first(), Some(b'{' | b'[' | b'"')),
            PolicyKind::Xml(_) => first() == Some(&b'<'),
            PolicyKind::Injection(_) => true,
            PolicyKind::Multipart(_) | PolicyKind::Ip(_) | PolicyKind::Version(_) | PolicyKind::Ai(_) => false,
            PolicyKind::Anomaly(_) | PolicyKind::Bot(_) | PolicyKind::Mask(_) | PolicyKind::Portal(_) => false,
        }
    }

    fn look(&self, parts: &Parts, media: &Media, bytes: &Bytes) -> Vec<Violation> {
        let bytes = &bytes.slice_ref(without_mark(bytes));
        match &self.it.policy.kind {
            PolicyKind::Json(it) => json::check(bytes, it),
            PolicyKind::Xml(it) => xml::check(bytes, it),
            PolicyKind::Multipart(it) => multipart::check(&parts.headers, bytes, it),
            PolicyKind::Graphql(it) => graphql::check(media, bytes, it),
            PolicyKind::Injection(it) => {
                let mut scan = Scan::new(it);
                scan.body(&parts.headers, media, bytes);
                scan.found()
            }
            PolicyKind::Contract(_) => self.visit.as_ref().map(|it| it.look(&parts.headers, bytes)).unwrap_or_default(),
            PolicyKind::Ip(_) | PolicyKind::Version(_) | PolicyKind::Ai(_) | PolicyKind::Mask(_) => Vec::new(),
            PolicyKind::Anomaly(_) | PolicyKind::Bot(_) | PolicyKind::Portal(_) => Vec::new(),
        }
    }

    fn too_large(&self) -> Refusal {
        Refusal::TooLargeToInspect { policy: self.it.policy.name.clone(), bytes_max: self.body_max() }
    }

    /// It could not look: that is never silent.
    fn unseen(&self, record: &mut Record, rule: &'static str, refusal: impl Fn() -> Refusal) -> Result<(), Refusal> {
        if self.enforces() {
            self.it.metrics.count(PolicyResult::Refused);
            return Err(refusal());
        }
        self.it.metrics.count(PolicyResult::Unseen);
        let violation = Violation::body(String::new(), rule, "");
        record.detected(violation.told(&self.it.policy.name));
        Ok(())
    }

    /// Something that is refused in its own words.
    fn found_at_all(&self, record: &mut Record, rule: &'static str, refusal: Refusal) -> Result<(), Refusal> {
        match self.mode {
            PolicyMode::Enforce => {
                self.it.metrics.count(PolicyResult::Refused);
                Err(refusal)
            }
            PolicyMode::Detect => {
                self.it.metrics.count(PolicyResult::Detected);
                record.detected(format!("{}: {rule}", self.it.policy.name).into());
                Ok(())
            }
            PolicyMode::Off => Ok(()),
        }
    }

    fn settle(&self, record: &mut Record, errors: Vec<Violation>) -> Result<(), Refusal> {
        let Some(first) = errors.first() else {
            self.it.metrics.count(PolicyResult::Passed);
            return Ok(());
        };
        if self.enforces() {
            self.it.metrics.count(PolicyResult::Refused);
            return Err(Refusal::Invalid(Box::new(Violations::new(self.it.policy.name.clone(), errors))));
        }
        self.it.metrics.count(PolicyResult::Detected);
        record.detected(first.told(&self.it.policy.name));
        Ok(())
    }
}
