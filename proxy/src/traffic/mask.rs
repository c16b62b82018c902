//! Policies of kind `mask`: what of an upstream's answer this caller is not to see. It is hidden behind the cache, which keeps
//! answers as they came, and before the route makes another body of it. What cannot be looked through goes nowhere. Fields are
//! hidden in the answer's head, in what comes behind its body, and in interim answers, which no cache has.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use quorumgate_model::{
    mutants::{self, Mutant},
    resource::{Tolerance, Veil},
    ruleset::{Mask, Unfit, veiled},
};

use super::bodies;
use crate::{
    body::ResponseBody,
    exchange,
    identity::Identity,
    inspect::{
        Media,
        read::{self, Plain},
    },
    record::Record,
    refusal::Refusal,
    upstream::Failure,
};

/// Of one exchange.
#[derive(Default)]
pub(crate) struct Masks {
    /// Those that hide something from this caller.
    all: Vec<Arc<Mask>>,
    /// Some other one of the route hides nothing from him.
    is_lifted: bool,
}

impl Masks {
    pub(crate) fn new(mut all: Vec<Arc<Mask>>, identity: Option<&Identity>) -> Self {
        let before = all.len();
        all.retain(|mask| !mutants::is(Mutant::MaskLifted) && !is_exempt(mask, identity));
        Self { is_lifted: all.len() < before, all }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty() && !self.is_lifted
    }

    /// Those that hide fields.
    pub(crate) fn veils(&self) -> Veils {
        Veils(self.all.iter().filter(|mask| !mask.headers.is_empty()).cloned().collect())
    }

    /// The head of a request whose answer will be looked through.
    pub(crate) fn prepare(&self, headers: &mut HeaderMap) {
        if self.all.iter().any(|mask| mask.looks_inside) {
            bodies::prepare_for_whole(headers);
        }
    }

    /// What the client gets of it.
    pub(crate) async fn answer(
        self,
        record: &Record,
        response: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let veils = self.veils();
        let mut response = self.looked_through(record, response).await?;
        if self.is_lifted {
            keep_private(response.headers_mut());
        }
        if veils.is_empty() {
            return Ok(response);
        }
        veils.hide(response.headers_mut());
        Ok(response.map(|body| match body {
            // Of these nothing comes behind.
            ResponseBody::Empty | ResponseBody::Full(_) | ResponseBody::Tunnel(_) => body,
            body => ResponseBody::Veiled(Box::new(Veiled { body, veils })),
        }))
    }

    async fn looked_through(
        &self,
        record: &Record,
        response: Response<ResponseBody>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let looking = || self.all.iter().filter(|mask| mask.looks_inside);
        if looking().next().is_none() {
            return Ok(response);
        }
        let (mut head, mut body) = response.into_parts();
        let has_none = record.method == Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || !matches!(body, ResponseBody::Tunnel(_)) && body.is_end_stream();
        if has_none {
            bodies::undescribe(&mut head.headers);
            return Ok(Response::from_parts(head, body));
        }
        let is_json = Media::of(&head.headers).is_json() && !matches!(body, ResponseBody::Tunnel(_));
        let takers: Vec<&Mask> =
            looking().map(|it| &**it).filter(|it| is_json || it.other_types == Tolerance::Refuse).collect();
        let Some(first) = takers.first() else { return Ok(Response::from_parts(head, body)) };
        let not_masked = |why| Refusal::AnswerNotMasked { policy: first.policy.clone(), why };
        let is_part = head.headers.contains_key(header::CONTENT_RANGE);
        if !is_json && !is_part && is_nothing(record, &mut body).await? {
            bodies::undescribe(&mut head.headers);
            return Ok(Response::from_parts(head, ResponseBody::Empty));
        }
        if !is_json || is_part {
            return Err(not_masked(
                "the upstream's answer is not JSON and whole, as this route needs to hide values in it",
            ));
        }
        let too_large = || not_masked("the upstream's answer is larger or deeper than this route can look through");
        let bytes_max = takers.iter().map(|it| it.body_max.0).min().unwrap_or_default();
        let Some(bytes) = bodies::whole(record, body, bytes_max).await? else { return Err(too_large()) };
        if bytes.is_empty() {
            bodies::undescribe(&mut head.headers);
            return Ok(Response::from_parts(head, ResponseBody::Full(bytes)));
        }
        let mut bytes = match read::plain(&head.headers, bytes, bytes_max, &record.conn.worker).await {
            Ok(Plain::Bytes(bytes)) if bytes.len() as u64 <= bytes_max => bytes,
            Ok(Plain::Bytes(_) | Plain::TooLarge) => return Err(too_large()),
            Ok(Plain::Overloaded) => return Err(Refusal::Overloaded),
            Ok(Plain::Unknown) | Err(_) => {
                return Err(not_masked("the upstream's answer is in a coding that cannot be looked into"));
            }
        };
        for mask in takers {
            let hidden = mask.hide(&bytes, bodies::bound(mask.body_max));
            bytes = match hidden {
                Ok(hidden) => bodies::held(record, hidden),
                Err(Unfit::TooLarge) => return Err(too_large()),
                Err(Unfit::NotJson) => {
                    return Err(not_masked("the upstream's answer says that it is JSON, and is not"));
                }
            };
        }
        bodies::undescribe(&mut head.headers);
        Ok(Response::from_parts(head, ResponseBody::Full(bytes)))
    }
}

/// Whether it comes to its end without any bytes, or fields behind them: often nobody says so beforehand.
async fn is_nothing(record: &Record, body: &mut ResponseBody) -> Result<bool, Refusal> {
    if matches!(body, ResponseBody::Tunnel(_)) {
        return Ok(false);
    }
    loop {
        let next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let Some(frame) = exchange::while_admitted(record, next).await? else { return Ok(true) };
        let frame = frame.map_err(|failure| Refusal::from(&failure))?;
        if frame.data_ref().is_none_or(|data| !data.is_empty()) {
            return Ok(false);
        }
    }
}

/// Masks that hide fields, for one caller.
#[derive(Clone, Default)]
pub(crate) struct Veils(Vec<Arc<Mask>>);

impl Veils {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What hides more counts, in whichever order.
    pub(crate) fn hide(&self, fields: &mut HeaderMap) {
        for named in self.0.iter().flat_map(|mask| &mask.headers).filter(|_| !mutants::is(Mutant::MaskedHeadersShown)) {
            if named.with == Veil::Remove {
                fields.remove(&named.name);
            } else if let Ok(header::Entry::Occupied(mut values)) = fields.try_entry(&named.name) {
                values.iter_mut().for_each(|value| *value = stand_in(value, named.with));
            }
        }
    }
}

/// What no text is has no last characters.
fn stand_in(value: &HeaderValue, veil: Veil) -> HeaderValue {
    let text = veiled(value.to_str().unwrap_or_default(), veil);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("***"))
}

/// A body that goes on as it comes, but for the fields behind it.
pub struct Veiled {
    body: ResponseBody,
    veils: Veils,
}

impl std::fmt::Debug for Veiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Veiled").field(&self.body).finish()
    }
}

impl Body for Veiled {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|mut frame| {
            if let Some(fields) = frame.trailers_mut().filter(|_| !mutants::is(Mutant::MaskedTrailersShown)) {
                self.veils.hide(fields);
            }
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn is_exempt(mask: &Mask, identity: Option<&Identity>) -> bool {
    let (groups, scopes) = (&mask.unless.groups, &mask.unless.scopes_any);
    let mut callers = identity.into_iter().flat_map(Identity::callers);
    callers.any(|caller| {
        caller.groups().any(|it| groups.iter().any(|group| group == it))
            || scopes.iter().any(|it| caller.scopes.has(it))
    })
}

/// Caches behind this gateway would show it to all (RFC 9111 5.2.2.7, RFC 9213).
fn keep_private(headers: &mut HeaderMap) {
    for name in ["cdn-cache-control", "surrogate-control"] {
        headers.remove(name);
    }
    let said = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|it| it.to_str().ok());
    let directives = said.flat_map(|it| it.split(',')).map(str::trim).filter(|it| {
        let name = it.split('=').next().unwrap_or_default().trim();
        !["", "public", "private", "s-maxage"].iter().any(|gone| name.eq_ignore_ascii_case(gone))
    });
    let directives: Vec<&str> = std::iter::once("private").chain(directives).collect();
    if let Ok(value) = HeaderValue::try_from(directives.join(", ")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}
