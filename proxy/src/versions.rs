//! Versions of APIs as requests meet them: drafts that are not there for strangers, fields that announce the end, brown-outs, and
//! who still calls what is on its way out. Routes of no version pay one look at an empty place.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    hash::BuildHasherDefault,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use quorumgate_model::{
    resource::{Name, Policy, PolicyKind, VersionPolicy, VersionState},
    ruleset::Ruleset,
    units::Moment,
};

use crate::{
    identity::Identity, metrics::WorkerMetrics, plan::AddressHasher, recent::now_ms, record::Record, refusal::Refusal,
};

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");
/// Versions that are gone may be kept up to so many in all.
const KEPT_MAX: usize = 256;
/// How many callers a worker knows; those beyond are counted together, by version.
const CALLERS_MAX: usize = 4_096;
/// What stands for them.
pub const BEYOND: &str = "*";

/// What this worker made of versions so far. Each keeps its policy, so that no other can take its address.
#[derive(Default)]
pub(crate) struct Versions {
    by_address: RefCell<HashMap<usize, Rc<Version>, BuildHasherDefault<AddressHasher>>>,
}

/// One version, with the fields of its answers ready.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) policy: Arc<Policy>,
    deprecation: Option<HeaderValue>,
    sunset: Option<HeaderValue>,
    links: Vec<HeaderValue>,
}

/// A brown-out that is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) status: StatusCode,
    /// Until it is over; at least one.
    pub(crate) left_s: u64,
}

/// Equal are those of one policy.
impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.policy, &other.policy)
    }
}

impl Eq for Version {}

impl Versions {
    pub(crate) fn of(&self, policy: &Arc<Policy>) -> Rc<Version> {
        let make = || Rc::new(Version::new(policy));
        self.by_address.borrow_mut().entry(Arc::as_ptr(policy) as usize).or_insert_with(make).clone()
    }

    /// Lets go of versions that are gone, once they are many.
    pub(crate) fn prune(&self, rules: &Ruleset) {
        let mut kept = self.by_address.borrow_mut();
        if kept.len() > KEPT_MAX {
            kept.retain(|_, it| rules.asks(&it.policy));
        }
    }
}

impl Version {
    fn new(policy: &Arc<Policy>) -> Self {
        let mut it = Self { policy: policy.clone(), deprecation: None, sunset: None, links: Vec::new() };
        let Some(words) = it.words().cloned() else { return it };
        if words.state == VersionState::Draft {
            return it;
        }
        // RFC 9745 2.1: a date of RFC 9651 3.3.7.
        let is_leaving = matches!(words.state, VersionState::Deprecated | VersionState::Retired);
        let since = words.deprecated_at.filter(|_| is_leaving);
        it.deprecation = since.and_then(|at| HeaderValue::try_from(format!("@{}", at.0 / 1_000)).ok());
        it.sunset = words.sunset.and_then(|at| HeaderValue::try_from(http_date(at)).ok());
        for (rel, url) in [
            ("successor-version", &words.successor_url),
            ("deprecation", &words.deprecation_url),
            ("sunset", &words.sunset_url),
        ] {
            if !url.is_empty() {
                it.links.extend(HeaderValue::try_from(format!("<{url}>; rel=\"{rel}\"")));
            }
        }
        it
    }

    fn words(&self) -> Option<&VersionPolicy> {
        match &self.policy.kind {
            PolicyKind::Version(it) => Some(it),
            _ => None,
        }
    }

    /// Whether it serves now. Itself, where that is to be told once it is known who asks.
    pub(crate) fn enter(self: Rc<Self>, record: &mut Record) -> Result<Option<Rc<Self>>, Refusal> {
        let Some(words) = self.words() else { return Ok(None) };
        if words.state == VersionState::Published && words.sunset.is_none() {
            return Ok(None);
        }
        if words.state == VersionState::Draft {
            return match words.preview_groups.is_empty() {
                true => Err(Refusal::NoRoute),
                false => Ok(Some(self)),
            };
        }
        record.of_api = Some(self.clone());
        let now = Moment(now_ms());
        if words.state == VersionState::Retired || words.sunset.is_some_and(|sunset| sunset <= now) {
            return Err(Refusal::Retired(self));
        }
        if let Some(it) = words.brownouts.iter().find(|it| it.start <= now && now < it.end) {
            let status = if it.status == 410 { StatusCode::GONE } else { StatusCode::SERVICE_UNAVAILABLE };
            let left_s = (it.end.0 - now.0).div_ceil(1_000);
            return Err(Refusal::Brownout(self, Window { status, left_s }));
        }
        Ok(None)
    }

    /// Whether the caller is of those who may see a draft.
    pub(crate) fn lets_in(&self, identity: Option<&Identity>) -> bool {
        let (Some(words), Some(identity)) = (self.words(), identity) else { return false };
        let mut callers = std::iter::once(&identity.caller).chain(&identity.also);
        callers.any(|caller| {
            let consumers = caller.consumer.iter().flat_map(|it| it.groups.iter().map(|group| &**group));
            let mut groups = consumers.chain(caller.groups.iter().map(|group| &**group));
            groups.any(|group| words.preview_groups.iter().any(|it| it == group))
        })
    }

    /// What the answer says of it, and who has called. What the upstream says of its own dates does not count.
    pub(crate) fn told(&self, record: &Record, headers: &mut HeaderMap) {
        for (name, value) in [(DEPRECATION, &self.deprecation), (SUNSET, &self.sunset)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        for link in &self.links {
            headers.append(header::LINK, link.clone());
        }
        let Some(plan) = &record.plan else { return };
        let consumer = record.identity.as_ref().and_then(|it| it.caller.consumer.as_ref());
        record.conn.worker.metrics.callers.count(Who {
            policy: self.policy.name.clone(),
            route: Some(plan.rule.route.name.clone()),
            method: method(&record.method),
            consumer: consumer.map(|it| it.name.clone()),
        });
    }

    /// Members of a problem, with their commas. Words and URLs need no escape.
    pub(crate) fn member(&self) -> String {
        let Some(words) = self.words() else { return String::new() };
        let mut member = format!(",\"api\":\"{}\",\"version\":\"{}\"", words.api, words.version);
        let some = [("version", &words.successor), ("url", &words.successor_url)].into_iter();
        let some: Vec<_> =
            some.filter(|(_, text)| !text.is_empty()).map(|(key, text)| format!("\"{key}\":\"{text}\"")).collect();
        if !some.is_empty() {
            member += &format!(",\"successor\":{{{}}}", some.join(","));
        }
        member
    }
}

fn http_date(at: Moment) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(at.0))
}

/// Those of RFC 9110 and PATCH; whatever else a client says is one.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|it| *it == method.as_str()).unwrap_or("OTHER")
}

/// Who called what; without a route and a consumer: all beyond the bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Who {
    policy: Name,
    route: Option<Name>,
    method: &'static str,
    consumer: Option<Name>,
}

/// By one worker. Locked for a moment by its own requests to versions that are on their way out, and by who asks for all.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<BTreeMap<Who, Tally>>);

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    count: u64,
    last_ms: u64,
}

impl Callers {
    fn count(&self, who: Who) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let who = match known.len() < CALLERS_MAX || known.contains_key(&who) {
            true => who,
            false => Who { route: None, method: BEYOND, consumer: None, ..who },
        };
        let tally = known.entry(who).or_default();
        tally.count += 1;
        tally.last_ms = now_ms();
    }

    /// Versions that are gone have no callers.
    pub(crate) fn keep_only(&self, rules: &Ruleset) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|who, _| rules.has_policy(&who.policy));
    }
}

/// How often a consumer called an operation of a version, on this node since it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The version's.
    pub policy: Name,
    /// `*`: all whom there was no place for.
    pub route: String,
    pub method: &'static str,
    /// Empty: nobody who is known.
    pub consumer: String,
    pub count: u64,
    /// Milliseconds since 1970.
    pub last_ms: u64,
}

pub(crate) fn callers(workers: &[Arc<WorkerMetrics>]) -> Vec<Called> {
    let mut all: BTreeMap<Who, Tally> = BTreeMap::new();
    for worker in workers {
        for (who, tally) in worker.callers.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let sum = all.entry(who.clone()).or_default();
            sum.count += tally.count;
            sum.last_ms = sum.last_ms.max(tally.last_ms);
        }
    }
    let called = |(who, tally): (Who, Tally)| Called {
        route: who.route.as_ref().map_or_else(|| BEYOND.to_owned(), Name::to_string),
        method: who.method,
        consumer: who.consumer.as_ref().map(Name::to_string).unwrap_or_default(),
        policy: who.policy,
        count: tally.count,
        last_ms: tally.last_ms,
    };
    let mut called: Vec<_> = all.into_iter().map(called).collect();
    called.sort_by_key(|it| std::cmp::Reverse(it.last_ms));
    called
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_beyond_the_bound_are_counted_together() {
        let callers = Callers::default();
        let who = |n: usize| Who {
            policy: "v1".parse().unwrap(),
            route: Some("r".parse().unwrap()),
            method: "GET",
            consumer: Some(format!("c{n}").parse().unwrap()),
        };
        for n in 0..CALLERS_MAX + 10 {
            callers.count(who(n));
        }
        callers.count(who(7));
        let known = callers.0.lock().unwrap();
        assert_eq!(known.len(), CALLERS_MAX + 1);
        assert_eq!(known[&who(7)].count, 2);
        let beyond = Who { route: None, method: BEYOND, consumer: None, ..who(0) };
        assert_eq!(known[&beyond].count, 10);
    }
}
