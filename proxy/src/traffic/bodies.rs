//! `rewrite.body`: JSON that goes on in the place of what came in. The body is read whole, up to a bound, before any of it
//! goes anywhere. What nothing can be made of goes nowhere: who relies on a rewrite may rely on it for what it leaves out.

use std::{borrow::Cow, future::poll_fn, pin::Pin};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use http_body::Body;
use quorumgate_model::{
    ruleset::{JsonText, Unfit},
    template::Variable,
    units::Size,
};

use super::value;
use crate::{
    body::{RequestBody, ResponseBody},
    exchange,
    held::Held,
    inspect::{
        Media,
        read::{self, Plain, Read, Text},
    },
    plan::Plan,
    record::Record,
    refusal::Refusal,
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The head of a request whose body, or whose answer's body, will be another one.
pub(crate) fn prepare(plan: &Plan, headers: &mut HeaderMap) {
    if plan.rule.bodies.as_ref().is_some_and(|it| it.response.is_some()) {
        prepare_for_whole(headers);
    }
}

/// Of a part, or of what is packed, nothing can be made.
pub(super) fn prepare_for_whole(headers: &mut HeaderMap) {
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove(header::RANGE);
    headers.remove(header::IF_RANGE);
}

/// What the upstream gets instead. What has no body keeps none.
pub(crate) async fn request(
    record: &Record,
    plan: &Plan,
    text: &JsonText,
    headers: &mut HeaderMap,
    body: RequestBody,
) -> Result<RequestBody, Refusal> {
    let max = plan.rule.route.rewrite.body.max;
    let too_large = || Refusal::NotRewritten(Unfit::TooLarge);
    let bytes = match body {
        RequestBody::Empty => return Ok(RequestBody::Empty),
        RequestBody::Full(bytes) => bytes,
        RequestBody::Client(body) => match read::whole(record, body, max.0).await? {
            Read::Whole(bytes, _) => bytes,
            Read::TooLarge(_) => return Err(too_large()),
        },
    };
    if bytes.is_empty() {
        return Ok(RequestBody::Empty);
    }
    let media = Media::of(headers);
    if !media.is_json() && !media.is_missing() {
        return Err(Refusal::JsonAlone);
    }
    let bytes = match read::plain(headers, bytes, max.0, &record.conn.worker).await? {
        Plain::Bytes(bytes) if bytes.len() as u64 <= max.0 => bytes,
        Plain::Bytes(_) | Plain::TooLarge => return Err(too_large()),
        Plain::Unknown => return Err(Refusal::CodingNotTaken),
        Plain::Overloaded => return Err(Refusal::Overloaded),
    };
    let made = text.fill(&bytes, 0, bound(max), values(record)).map_err(Refusal::NotRewritten)?;
    describe(headers);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(made.len()));
    Ok(RequestBody::Full(held(record, made)))
}

/// What the client gets instead, of answers that say success.
pub(crate) async fn answer(
    record: &Record,
    plan: &Plan,
    text: &JsonText,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Refusal> {
    let max = plan.rule.route.rewrite.body.max;
    let (mut head, body) = response.into_parts();
    let is_bodiless = matches!(body, ResponseBody::Empty | ResponseBody::Tunnel(_)) || body.is_end_stream();
    if !head.status.is_success() || is_bodiless && record.method != Method::HEAD {
        return Ok(Response::from_parts(head, body));
    }
    let media = Media::of(&head.headers);
    let is_packed = head.headers.get_all(header::CONTENT_ENCODING).iter().any(|it| it.as_bytes() != b"identity");
    if !media.is_json() || is_packed || head.headers.contains_key(header::CONTENT_RANGE) {
        return Err(Refusal::AnswerNotRewritten(
            "the upstream's answer is not JSON, plain and whole, as this route needs",
        ));
    }
    if record.method == Method::HEAD {
        describe(&mut head.headers);
        return Ok(Response::from_parts(head, body));
    }
    let too_large = Refusal::AnswerNotRewritten("the upstream's answer is larger than this route can rewrite");
    let Some(bytes) = whole(record, body, max.0).await? else { return Err(too_large) };
    let made = match text.fill(&bytes, head.status.as_u16(), bound(max), values(record)) {
        Ok(made) => made,
        Err(Unfit::TooLarge) => return Err(too_large),
        Err(Unfit::NotJson) => {
            return Err(Refusal::AnswerNotRewritten("the upstream's answer says that it is JSON, and is not"));
        }
    };
    describe(&mut head.headers);
    Ok(Response::from_parts(head, ResponseBody::Full(held(record, made))))
}

/// None: more than the bound.
pub(crate) async fn whole(record: &Record, mut body: ResponseBody, bytes_max: u64) -> Result<Option<Bytes>, Refusal> {
    let metrics = &record.conn.worker.metrics;
    let mut text = Text::Nothing;
    loop {
        if body.size_hint().lower() + text.len() as u64 > bytes_max {
            return Ok(None);
        }
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let Some(frame) = exchange::while_admitted(record, next).await? else { break };
        if let Ok(data) = frame.map_err(|failure| Refusal::from(&failure))?.into_data() {
            text.push(data, metrics);
        }
        if record.conn.worker.is_overloaded() {
            return Err(Refusal::Overloaded);
        }
    }
    Ok(Some(text.finish(metrics)).filter(|bytes| bytes.len() as u64 <= bytes_max))
}

fn describe(headers: &mut HeaderMap) {
    undescribe(headers);
    headers.insert(header::CONTENT_TYPE, JSON);
}

/// What was true of the bytes that came in and is not of these.
pub(super) fn undescribe(headers: &mut HeaderMap) {
    let gone = [
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::ACCEPT_RANGES,
        header::TRAILER,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ];
    gone.into_iter().for_each(|name| drop(headers.remove(name)));
    super::weaken(headers);
}

fn values<'r>(record: &'r Record) -> impl Fn(&Variable) -> Cow<'r, str> {
    |variable| value(record, variable)
}

pub(super) fn bound(max: Size) -> usize {
    usize::try_from(max.0).unwrap_or(usize::MAX)
}

/// Counted as held until it is taken.
pub(super) fn held(record: &Record, made: String) -> Bytes {
    Bytes::from_owner(Held::new(made.into(), &record.conn.worker.metrics))
}
