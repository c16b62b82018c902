//! Requests to models: read, let in by what they may cost at most, sent to the provider that is to answer, and settled by what
//! they cost in the end. Routes without a policy of kind `ai` pay one look at an empty place.

mod accounts;
mod asked;
mod call;
mod counted;
mod endpoint;
mod events;
mod guard;
mod inputs;
mod metered;

use std::{cell::RefCell, collections::HashMap, hash::BuildHasherDefault, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{AiModel, AiPolicy, AiTarget, Name, Policy, PolicyKind, ai_patterns},
    ruleset::Ruleset,
};
use regex::RegexSet;

pub(crate) use self::{
    accounts::{Accounts, metrics, usage},
    call::{Call, Line},
};
pub use self::{
    accounts::{BEYOND, Used},
    metered::Metered,
};
use self::{asked::Asked, call::Stand, endpoint::Endpoint, guard::Window};
use crate::{
    body::{RequestBody, ResponseBody},
    exchange,
    held::Held,
    identity::AuthFailure,
    inspect::{
        Media, Place, Violation, Violations,
        read::{self, Plain, Read},
    },
    limits::Known,
    metrics::{PolicyMetrics, PolicyResult, WorkerMetrics},
    plan::{self, AddressHasher},
    record::Record,
    refusal::Refusal,
    traffic::bodies,
    upstream::Asks,
};

/// Policies that are gone may be kept up to so many in all.
const KEPT_MAX: usize = 256;
/// What is held of an answer, to look at it before any of it goes on.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Why an answer does not go on.
const PACKED: &str = "it is packed, and cannot be looked at";
const TOO_LARGE: &str = "it is too large to be looked at";
const DENIED: &str = "a text of it is not to be said";
/// Answers whose lengths are remembered, and from how many on they say what is usual.
const LENGTHS_KEPT: usize = 128;
const LENGTHS_ENOUGH: usize = 20;

/// What this worker made of policies so far. Each keeps its policy, so that no other can take its address.
pub(crate) struct Models {
    by_address: RefCell<HashMap<usize, Rc<Plan>, BuildHasherDefault<AddressHasher>>>,
    metrics: Arc<WorkerMetrics>,
}

/// One policy as a worker carries it out.
pub(crate) struct Plan {
    policy: Arc<Policy>,
    words: AiPolicy,
    by_name: HashMap<String, usize>,
    prompt: Option<RegexSet>,
    response: Option<RegexSet>,
    /// How long answers were lately, by model.
    lengths: Vec<RefCell<Lengths>>,
    metrics: Arc<PolicyMetrics>,
}

/// Of one model's answers, the last ones.
#[derive(Default)]
struct Lengths {
    tokens: Vec<u64>,
    next: usize,
}

impl Lengths {
    fn add(&mut self, tokens: u64) {
        match self.tokens.get_mut(self.next) {
            Some(place) => *place = tokens,
            None => self.tokens.push(tokens),
        }
        self.next = (self.next + 1) % LENGTHS_KEPT;
    }

    /// What 19 of 20 do not exceed; None: too few are known.
    fn p95(&self) -> Option<u64> {
        if self.tokens.len() < LENGTHS_ENOUGH {
            return None;
        }
        let mut tokens = self.tokens.clone();
        tokens.sort_unstable();
        Some(tokens[(tokens.len() * 95).div_ceil(100) - 1])
    }
}

impl Models {
    pub(crate) fn new(metrics: Arc<WorkerMetrics>) -> Self {
        Self { by_address: RefCell::default(), metrics }
    }

    pub(crate) fn of(&self, policy: &Arc<Policy>) -> Option<Rc<Plan>> {
        let PolicyKind::Ai(words) = &policy.kind else { return None };
        let make = || Rc::new(Plan::new(policy, words, self.metrics.policy(&policy.name)));
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

impl Plan {
    fn new(policy: &Arc<Policy>, words: &AiPolicy, metrics: Arc<PolicyMetrics>) -> Self {
        let by_name = words.models.iter().enumerate().map(|(place, it)| (it.name.clone(), place)).collect();
        // What cannot be compiled was refused when the policy was applied; a set that matches nothing would be no guard.
        let set = |list: &[String]| {
            (!list.is_empty()).then(|| ai_patterns(list).unwrap_or_else(|_| RegexSet::new([""]).expect("a pattern")))
        };
        Self {
            policy: policy.clone(),
            words: words.clone(),
            by_name,
            prompt: set(&words.prompt_deny),
            response: set(&words.response_deny),
            lengths: words.models.iter().map(|_| RefCell::default()).collect(),
            metrics,
        }
    }

    /// What the costs of a request are known for.
    fn endpoint(&self, path: &str) -> Result<Endpoint, Refusal> {
        let all = Endpoint::all(self.words.provider);
        let found = all.iter().copied().find(|it| path.ends_with(it.ending()));
        let taken = found.or_else(|| mutants::is(Mutant::UncountedPath).then_some(all[0]));
        taken.ok_or_else(|| {
            let endings: Vec<_> = all.iter().map(|it| it.ending()).collect();
            let detail = format!("this route asks models by paths that end in {}", endings.join(", "));
            let (place, pointer, rule) = (Place::Path, String::new(), "provider");
            self.refused(Violation { place, pointer, rule, detail: detail.into() })
        })
    }

    fn refused(&self, found: Violation) -> Refusal {
        self.metrics.count(PolicyResult::Refused);
        Refusal::Invalid(Box::new(Violations::new(self.policy.name.clone(), vec![found])))
    }

    fn answer_refused(&self, detail: &'static str) -> Refusal {
        self.metrics.count(PolicyResult::Refused);
        let found = Violation::body(String::new(), "response_deny", detail);
        Refusal::AnswerInvalid(Box::new(Violations::new(self.policy.name.clone(), vec![found])))
    }

    fn place_of(&self, model: &str) -> Result<usize, Refusal> {
        self.by_name.get(model).copied().ok_or_else(|| {
            let shown: String = model.chars().take(64).collect();
            let known: Vec<_> = self.words.models.iter().take(20).map(|it| &*it.name).collect();
            let detail = format!("there is no model {shown:?} here; there are: {}", known.join(", "));
            self.refused(Violation::body("/model".into(), "models", detail))
        })
    }
}

/// Asks the model that the request names, and the next one where it cannot answer. `came` is the head as it came in.
pub(crate) async fn send(
    record: &mut Record,
    plan: &Rc<plan::Plan>,
    upstream: &Name,
    ai: &Rc<Plan>,
    came: &HeaderMap,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let (mut parts, body) = request.into_parts();
    if parts.method != Method::POST {
        return Err(Refusal::MethodNotAllowed(vec![Method::POST.to_string()]));
    }
    let endpoint = ai.endpoint(parts.uri.path())?;
    let bytes = read(record, ai, &parts.headers, body).await?;
    let asked = Asked::read(&ai.words, endpoint, &bytes).map_err(|found| ai.refused(found))?;
    let place = ai.place_of(&asked.model)?;
    let is_alias = || ai.words.models[place].targets.iter().all(|it| it.model != asked.model);
    let is_guarded = !(mutants::is(Mutant::AliasUnguarded) && is_alias());
    if let Some(found) = ai.prompt.as_ref().filter(|_| is_guarded).and_then(|set| guard::request(set, &bytes)) {
        return Err(ai.refused(found));
    }
    let reserved = asked.costs(&ai.words, ai.lengths[place].borrow().p95());
    // All there is to be paid is known: now it is let in or not.
    exchange::within_limits(record, plan, came, Known::Body(reserved)).await?;
    ai.metrics.count(PolicyResult::Passed);
    record.ai = Some(Box::new(Call::new(ai, endpoint, place, reserved, asked.choices)));
    prepare(&mut parts.headers);
    let worker = record.conn.worker.clone();
    let order = in_order(&ai.words.models[place], || worker.ids.random());
    let mut overhead = None;
    for (tried, target) in order.iter().enumerate() {
        let bytes = asked.write(&ai.words, &target.model);
        let mut head = parts.clone();
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        let body = RequestBody::Full(Bytes::from_owner(Held::new(bytes.into(), &worker.metrics)));
        tell(record, |call| call.asks(target));
        let to = target.upstream.as_ref().unwrap_or(upstream);
        let sent = exchange::send(record, plan, to, Request::from_parts(head, body), Asks::Answer).await;
        // What the providers before took is not the gateway's own.
        record.overhead = *overhead.get_or_insert(record.overhead);
        let is_last = tried + 1 == order.len();
        match sent {
            Ok(response) if !is_last && gives_way(response.status()) => {}
            Ok(response) => return answered(record, ai, endpoint, &asked, response).await,
            Err(refusal) => {
                let unsent = was_not_sent(&refusal);
                if unsent {
                    tell(record, |call| call.stand = Stand::Free);
                }
                if is_last || !unsent {
                    return Err(refusal);
                }
            }
        }
    }
    // A model has at least one target.
    Err(Refusal::BrokenRule)
}

fn tell(record: &mut Record, change: impl FnOnce(&mut Call)) {
    if let Some(call) = &mut record.ai {
        change(call);
    }
}

async fn read(record: &Record, ai: &Plan, headers: &HeaderMap, body: RequestBody) -> Result<Bytes, Refusal> {
    let bytes_max = ai.words.body_max.0;
    let too_large = || Refusal::TooLargeToInspect { policy: ai.policy.name.clone(), bytes_max };
    if body.size_hint().lower() > bytes_max {
        return Err(too_large());
    }
    let media = Media::of(headers);
    if !media.is_json() && !media.is_missing() {
        return Err(Refusal::TypeNotTaken { policy: ai.policy.name.clone(), rule: "provider" });
    }
    let bytes = match body {
        RequestBody::Empty => Bytes::new(),
        RequestBody::Full(bytes) => bytes,
        RequestBody::Client(body) => match read::whole(record, body, bytes_max).await? {
            Read::Whole(bytes, _) => bytes,
            Read::TooLarge(_) => return Err(too_large()),
        },
    };
    match read::plain(headers, bytes, bytes_max, &record.conn.worker).await? {
        Plain::Bytes(bytes) if bytes.len() as u64 <= bytes_max => Ok(bytes),
        Plain::Bytes(_) | Plain::TooLarge => Err(too_large()),
        Plain::Unknown => Err(Refusal::CodingNotTaken),
        Plain::Overloaded => Err(Refusal::Overloaded),
    }
}

/// The head of what goes on: another body, with our key and nobody else's.
fn prepare(headers: &mut HeaderMap) {
    let gone = [
        header::AUTHORIZATION,
        header::COOKIE,
        HeaderName::from_static("x-api-key"),
        HeaderName::from_static("api-key"),
        HeaderName::from_static("x-goog-api-key"),
        HeaderName::from_static("openai-organization"),
        HeaderName::from_static("openai-project"),
        // With it a request might be tried again after it was charged for.
        HeaderName::from_static("idempotency-key"),
        // Some servers go by these instead of by the path and the method that were looked at.
        HeaderName::from_static("x-original-url"),
        HeaderName::from_static("x-rewrite-url"),
        HeaderName::from_static("x-http-method-override"),
        HeaderName::from_static("x-http-method"),
        HeaderName::from_static("x-method-override"),
        header::CONTENT_ENCODING,
        header::TRAILER,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ];
    gone.into_iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Of what is packed nothing is counted.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Those of a lower priority first; among equals each by its weight.
fn in_order(model: &AiModel, random: impl Fn() -> u64) -> Vec<&AiTarget> {
    let mut left: Vec<&AiTarget> = model.targets.iter().collect();
    let mut order = Vec::with_capacity(left.len());
    while let Some(first) = left.iter().map(|it| it.priority).min() {
        let all: u64 = left.iter().filter(|it| it.priority == first).map(|it| u64::from(it.weight)).sum();
        let mut point = random() % all.max(1);
        let place = left.iter().position(|it| {
            let is_it = it.priority == first && point < u64::from(it.weight);
            if it.priority == first {
                point = point.saturating_sub(u64::from(it.weight));
            }
            is_it
        });
        match place {
            Some(place) => order.push(left.remove(place)),
            None => break,
        }
    }
    order
}

/// Answers that another target may have a better one for. None of them is charged for. Others that say as much (502, 504) may
/// come from something before the provider, which is still at it.
fn gives_way(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 503 | 529)
}

fn is_free(status: StatusCode) -> bool {
    gives_way(status) || status.is_redirection() || status.is_client_error() && !matches!(status.as_u16(), 408 | 499)
}

/// Whether nothing of the request can have reached a provider.
fn was_not_sent(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::NoHealthyUpstream
            | Refusal::UpstreamTls
            | Refusal::CircuitOpen(_)
            | Refusal::UpstreamOverloaded
            // Our own key is not to be had.
            | Refusal::Unauthenticated(AuthFailure::Unavailable(_), _)
    )
}

/// The answer as it goes on, with what counts it.
async fn answered(
    record: &mut Record,
    ai: &Rc<Plan>,
    endpoint: Endpoint,
    asked: &Asked<'_>,
    mut response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let status = response.status();
    if is_free(status) {
        tell(record, |call| call.stand = Stand::Free);
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        // What it says of our key is not for the client.
        return Err(Refusal::AnswerNotRewritten("the provider does not let this gateway ask that model"));
    }
    if status.is_redirection() {
        // Who follows it takes what was asked to where nobody has looked.
        return Err(Refusal::AnswerNotRewritten("the provider redirects to another place, which is not followed"));
    }
    response.headers_mut().remove(header::LOCATION);
    if !status.is_success() {
        return failed(record, ai, response).await;
    }
    let Some(counted) = record.ai.as_ref().map(|call| call.counted.clone()) else { return Ok(response) };
    let (mut head, body) = response.into_parts();
    let is_packed = is_packed(&head.headers);
    let is_stream = Media::of(&head.headers).only() == Some("text/event-stream");
    // Numbers say nothing.
    let guard = ai.response.as_ref().filter(|_| endpoint != Endpoint::Embeddings);
    if is_packed && guard.is_some() {
        return Err(ai.answer_refused(PACKED));
    }
    let body = match guard {
        _ if is_packed => body,
        response if is_stream => {
            head.headers.remove(header::CONTENT_LENGTH);
            let window = response.cloned().map(Window::new);
            let metered = Metered::events(body, endpoint, counted, asked.hides_usage(), window);
            ResponseBody::Metered(Box::new(metered))
        }
        None => ResponseBody::Metered(Box::new(Metered::json(body, endpoint, counted, &record.conn.worker.metrics))),
        Some(set) => {
            let metered = Metered::json(body, endpoint, counted, &record.conn.worker.metrics);
            let whole = bodies::whole(record, ResponseBody::Metered(Box::new(metered)), ANSWER_BYTES_MAX).await?;
            let Some(bytes) = whole else { return Err(ai.answer_refused(TOO_LARGE)) };
            if !guard::answer(set, &bytes) {
                return Err(ai.answer_refused(DENIED));
            }
            ResponseBody::Full(bytes)
        }
    };
    Ok(Response::from_parts(head, body))
}

/// An answer that says what went wrong: often in words of what was asked.
async fn failed(
    record: &Record,
    ai: &Plan,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let Some(set) = &ai.response else { return Ok(response) };
    let (head, body) = response.into_parts();
    if is_packed(&head.headers) {
        return Err(ai.answer_refused(PACKED));
    }
    let whole = bodies::whole(record, body, ANSWER_BYTES_MAX).await?;
    let Some(bytes) = whole else { return Err(ai.answer_refused(TOO_LARGE)) };
    match guard::failure(set, &bytes) {
        true => Ok(Response::from_parts(head, ResponseBody::Full(bytes))),
        false => Err(ai.answer_refused(DENIED)),
    }
}

fn is_packed(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|it| it.as_bytes() != b"identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(model: &str, weight: u32, priority: u32) -> AiTarget {
        let (input_price, output_price) = (0, 0);
        AiTarget { model: model.into(), upstream: None, weight, priority, input_price, output_price }
    }

    #[test]
    fn targets_are_asked_by_priority_and_weight() {
        let model = AiModel {
            name: "m".into(),
            targets: vec![target("c", 1, 1), target("a", 3, 0), target("b", 1, 0), target("d", 1, 7)],
        };
        let order = |random: u64| in_order(&model, || random).iter().map(|it| &*it.model).collect::<Vec<_>>();
        for (random, expected) in [(0, "abcd"), (2, "abcd"), (3, "bacd"), (7, "bacd"), (u64::MAX, "bacd")] {
            let expected: Vec<_> = expected.split("").filter(|it| !it.is_empty()).collect();
            assert_eq!(order(random), expected, "{random}");
        }
    }

    #[test]
    fn what_may_be_charged_for_is_not_free() {
        for (status, free, gives) in [
            (307, true, false),
            (400, true, false),
            (401, true, false),
            (408, false, false),
            (429, true, true),
            (499, false, false),
            (500, true, true),
            (502, false, false),
            (503, true, true),
            (504, false, false),
            (524, false, false),
            (529, true, true),
        ] {
            let it = StatusCode::from_u16(status).unwrap();
            assert_eq!((is_free(it), gives_way(it)), (free, gives), "{status}");
        }
    }

    #[test]
    fn what_is_usual_is_known_once_there_are_enough() {
        let mut lengths = Lengths::default();
        (1..20).for_each(|it| lengths.add(it));
        assert_eq!(lengths.p95(), None);
        lengths.add(20);
        assert_eq!(lengths.p95(), Some(19));
        (0..LENGTHS_KEPT).for_each(|_| lengths.add(7));
        assert_eq!((lengths.p95(), lengths.tokens.len()), (Some(7), LENGTHS_KEPT));
    }
}
