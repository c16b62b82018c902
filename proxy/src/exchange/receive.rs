//! Standard endpoints that the gateway serves itself, by which others tell it what is over: token revocation (RFC 7009),
//! Back-Channel Logout, pushed security events (RFC 8935); the keys of an issuer; and the portal, which is a module of its own.

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body::Body;
use quorumgate_model::{
    command::NewRevocation,
    resource::{AuthKind, JwtKeys, Receive, Receiver},
    revocation::{SelectorKind, SelectorParts, TTL_MAX},
};
use serde_json::json;

use super::forward;
use crate::{
    body::ResponseBody,
    identity::{
        AuthFailure, Caller, RevocationSubject, TokenMarks,
        auths::{self, Kind},
        content_digest::Digested,
        directory::{Directory, Facts},
        events::{self, EVENT_TYP, LOGOUT_TYP, Notice, Shut, Wrong},
        form,
        handed::{Asker, NotAgreed},
        jwt::{JwtPlan, OTHER_ISSUER, VerifiedToken, signed},
        ladder,
        login::Whence,
        streams,
        verified::Keys,
    },
    live::Ended,
    plan::Plan,
    portal,
    received::Received,
    record::Record,
    refusal::Refusal,
    worker::wall_s,
};

/// A form or a token, with room.
const BODY_BYTES_MAX: usize = 64 << 10;
/// What a key set may be kept for by those who fetch it here.
const JWKS_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// Who may revoke tokens of others too: the scope of its credential.
const REVOKE_SCOPE: &str = "tokens:revoke";
/// An entry must outlive what it shuts out, whatever the clocks say.
const SLACK: Duration = Duration::from_secs(5 * 60);

pub(super) async fn receive(
    record: &mut Record,
    plan: &Plan,
    receive: &Receive,
    parts: &Parts,
    body: &mut Option<Received>,
    whence: Whence<'_>,
    digest: Option<Digested>,
) -> Result<Response<ResponseBody>, Refusal> {
    if receive.receiver == Receiver::Portal {
        return Box::pin(portal(record, plan, receive, parts, body, whence, digest)).await;
    }
    let directory = record.conn.worker.shared.directory.clone();
    let facts = directory.facts();
    let Some(auth) = facts.auths.find(&receive.auth).cloned() else { return Err(Refusal::BrokenRule) };
    if receive.receiver == Receiver::LoginCallback {
        let Kind::OidcLogin(login) = &auth.kind else { return Err(Refusal::BrokenRule) };
        let step = ladder::sign_in_step(login, &directory, parts, record.client_ip, whence, wall_s()).await;
        let answer = step.ok_or(Refusal::NoRoute)?;
        return answer.map_err(|failure| Refusal::Unauthenticated(failure, Vec::new()));
    }
    let methods: &[Method] = match receive.receiver {
        Receiver::Jwks => &[Method::GET, Method::HEAD],
        _ => &[Method::POST],
    };
    if !methods.contains(&parts.method) {
        return Err(Refusal::MethodNotAllowed(methods.iter().map(Method::to_string).collect()));
    }
    if receive.receiver == Receiver::Jwks {
        return jwks(&facts, &auth);
    }
    let body = read(record, plan, body, digest, BODY_BYTES_MAX).await?;
    let at = At { record, directory: &directory, facts: &facts, auth: &auth };
    match receive.receiver {
        Receiver::Revocation => at.revocation(parts, &body).await,
        Receiver::BackchannelLogout => at.logout(parts, &body).await,
        Receiver::SecurityEvents => at.security_event(parts, &body).await,
        Receiver::Jwks | Receiver::LoginCallback | Receiver::Portal => Err(Refusal::BrokenRule),
    }
}

async fn portal(
    record: &mut Record,
    plan: &Plan,
    receive: &Receive,
    parts: &Parts,
    body: &mut Option<Received>,
    whence: Whence<'_>,
    digest: Option<Digested>,
) -> Result<Response<ResponseBody>, Refusal> {
    let form = match parts.method == Method::POST {
        true => {
            let form = read(record, plan, body, digest, portal::BODY_BYTES_MAX).await?;
            still_let_in(record)?;
            form
        }
        false => Bytes::new(),
    };
    portal::Visit::new(record, plan, &receive.auth, parts, whence)?.answer(&form, wall_s()).await
}

/// A body may be long in coming: what let its head in holds no more if it was revoked or has ended since.
fn still_let_in(record: &Record) -> Result<(), Refusal> {
    let Some(identity) = record.identity.as_deref() else { return Ok(()) };
    let directory = &record.conn.worker.shared.directory;
    let facts = directory.facts();
    if streams::is_over(directory, &facts, identity) {
        return Err(ladder::over(directory, Some(identity), Ended::Revoked));
    }
    if identity.ends_at.is_some_and(|at| wall_s() >= at) {
        return Err(ladder::over(directory, Some(identity), Ended::Expired));
    }
    Ok(())
}

async fn read(
    record: &mut Record,
    plan: &Plan,
    body: &mut Option<Received>,
    digest: Option<Digested>,
    bytes_max: usize,
) -> Result<Bytes, Refusal> {
    let limits = record.conn.worker.shared.settings.limits.clone();
    let mut body =
        forward::body(record, body, plan, &limits, digest).map_err(|it| Refusal::Unauthenticated(it, Vec::new()))?;
    let mut bytes = Vec::new();
    loop {
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let Some(frame) = forward::while_admitted(record, next).await? else { break };
        let frame = frame?;
        let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
        if bytes.len() + data.len() > bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes.into())
}

/// The last good set of the auth's issuer.
fn jwks(facts: &Facts, auth: &auths::Plan) -> Result<Response<ResponseBody>, Refusal> {
    let inline = match &auth.auth.kind {
        AuthKind::Jwt(jwt) => match &jwt.keys {
            JwtKeys::Inline(json) => Some(Bytes::copy_from_slice(json.as_bytes())),
            // What verifies by a secret has nothing to show.
            JwtKeys::Secret(_) => return Err(Refusal::NoRoute),
            JwtKeys::Url(_) | JwtKeys::Discovery => None,
        },
        _ => None,
    };
    let stored = || facts.jwks.get(&auth.auth.name).map(|jwks| Bytes::copy_from_slice(&jwks.body));
    let Some(body) = inline.or_else(stored) else { return Ok(come_again()) };
    let mut response = Response::new(ResponseBody::Full(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    headers.insert(header::CACHE_CONTROL, JWKS_CACHE);
    Ok(response)
}

/// One message at its receiver.
struct At<'a> {
    record: &'a Record,
    directory: &'a Directory,
    facts: &'a Facts,
    auth: &'a auths::Plan,
}

/// What may be revoked, and whose it is.
struct Found {
    entries: Vec<NewRevocation>,
    owners: Vec<String>,
}

type Answer = Result<Response<ResponseBody>, Refusal>;

impl At<'_> {
    /// RFC 7009. The route's own auth says which client asks.
    async fn revocation(&self, parts: &Parts, body: &[u8]) -> Answer {
        let Some(identity) = &self.record.identity else {
            let mut refused = error(StatusCode::UNAUTHORIZED, "invalid_client", "this endpoint needs a credential");
            let challenge = HeaderValue::from_static("Basic realm=\"revocation\"");
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return Ok(refused);
        };
        let bad = |why| Ok(error(StatusCode::BAD_REQUEST, "invalid_request", why));
        let Some(form) = form_of(parts, body) else { return bad("the body is not a form that says each name once") };
        let Some(token) = form.get("token").filter(|token| !token.is_empty()) else { return bad("no token") };
        let found = match self.find(token).await {
            Ok(Some(found)) => found,
            // §2.2: what is no token, or not one any more, is as good as revoked.
            Ok(None) | Err(None) => return Ok(done(StatusCode::OK)),
            Err(Some(answer)) => return Ok(*answer),
        };
        let caller: &Caller = &identity.caller;
        let own = caller.consumer.as_ref().is_some_and(|it| found.owners.iter().any(|owner| **owner == *it.name));
        if !own && !caller.scopes.has(REVOKE_SCOPE) {
            let why = "the token was issued to another client";
            return Ok(error(StatusCode::BAD_REQUEST, "unauthorized_client", why));
        }
        self.hand(found.entries, "revoked by its client (RFC 7009)", StatusCode::OK).await
    }

    async fn find(&self, token: &str) -> Result<Option<Found>, Option<Box<Response<ResponseBody>>>> {
        let now_s = wall_s();
        let verified = match &self.auth.kind {
            Kind::Jwt { plan, keys } => self.directory.verified.verify(plan, keys, token, now_s).await,
            Kind::Introspection(it) => it.introspect(token, now_s).await,
            Kind::ApiKey { .. } => {
                let Some(key) = self.directory.keys.find(token) else { return Ok(None) };
                let id = key.id.to_string();
                // As long as the key itself may be shown.
                let ttl = key.left(self.directory.now_us()).map_or(TTL_MAX, |left| (left + SLACK).min(TTL_MAX));
                let entry = self.entry(SelectorKind::Credential, "", id.as_bytes(), ttl);
                return Ok(Some(Found {
                    entries: entry.into_iter().collect(),
                    owners: vec![key.consumer.to_string()],
                }));
            }
            _ => {
                let why = "the auth of this endpoint has no tokens to revoke";
                return Err(Some(Box::new(error(StatusCode::BAD_REQUEST, "unsupported_token_type", why))));
            }
        };
        match verified {
            Ok(token) => Ok(Some(self.found(&token, now_s))),
            Err(AuthFailure::Unavailable(_)) => Err(Some(Box::new(come_again()))),
            Err(_) => Ok(None),
        }
    }

    fn found(&self, token: &VerifiedToken, now_s: u64) -> Found {
        let marks = &token.marks;
        let ttl = Duration::from_secs(token.expires.saturating_sub(now_s)) + SLACK;
        let issuer = marks.issuer.as_deref().unwrap_or_default();
        let jti = marks.jti.as_deref().and_then(|jti| self.entry(SelectorKind::Jti, issuer, jti.as_bytes(), ttl));
        let hash = self.entry(SelectorKind::TokenHash, "", &marks.sha256, ttl);
        let owners = [token.consumer.as_deref(), marks.client.as_deref()];
        Found {
            entries: hash.into_iter().chain(jti).collect(),
            owners: owners.into_iter().flatten().map(str::to_owned).collect(),
        }
    }

    fn entry(&self, kind: SelectorKind, issuer: &str, value: &[u8], ttl: Duration) -> Option<NewRevocation> {
        let selector = SelectorParts { kind, issuer: issuer.as_bytes(), value }.checked().ok()?;
        Some(NewRevocation { selector, ttl, not_before_s: None })
    }

    /// What a token or session of any auth may still live for.
    fn longest(&self) -> Duration {
        auths::longest_life(&self.facts.resources) + SLACK
    }

    /// OpenID Connect Back-Channel Logout 1.0 §2.5 to §2.8.
    async fn logout(&self, parts: &Parts, body: &[u8]) -> Answer {
        let bad = |why| Ok(error(StatusCode::BAD_REQUEST, "invalid_request", why));
        let Some(form) = form_of(parts, body) else { return bad("the body is not a form that says each name once") };
        let Some(token) = form.get("logout_token") else { return bad("no logout_token") };
        let Some((plan, keys)) = self.signers(LOGOUT_TYP) else { return Err(Refusal::BrokenRule) };
        let judge = |set: &_| signed(&plan, set, token).map(|it| it.claims);
        let claims = match keys.judge(judge).await {
            Ok(claims) => claims,
            Err(AuthFailure::Unavailable(_)) => return Ok(come_again()),
            Err(AuthFailure::Invalid(why)) => return bad(why),
            Err(_) => return bad("the signature does not match"),
        };
        let notice = match events::logout(&plan, &claims, wall_s()) {
            Ok(notice) => notice,
            Err(Wrong::Issuer) => return bad("the token is of another issuer"),
            Err(Wrong::Audience) => return bad("the token is for another audience"),
            Err(Wrong::Request(why)) => return bad(why),
        };
        // The id is revoked with what the token ends: no node takes it a second time.
        let once = format!("logout:{}", notice.jti);
        let marks = TokenMarks {
            issuer: Some(plan.issuer.as_str().into()),
            jti: Some(once.as_str().into()),
            ..TokenMarks::default()
        };
        let subject = RevocationSubject { token: Some(marks.into()), ..RevocationSubject::default() };
        if self.directory.is_revoked(&subject).is_some() {
            return bad("the token was used before");
        }
        let mut entries = self.entries(notice);
        entries.extend(self.entry(SelectorKind::Jti, &plan.issuer, once.as_bytes(), self.longest()));
        self.hand(entries, "signed out at the identity provider", StatusCode::OK).await
    }

    /// RFC 8935. The same event may come again: it ends nothing more than it has.
    async fn security_event(&self, parts: &Parts, body: &[u8]) -> Answer {
        let bad = |err: &str, why: &str| Ok(set_error(err, why));
        if !is_of_type(parts, "application/secevent+jwt") {
            return bad("invalid_request", "the content type is not application/secevent+jwt");
        }
        let Ok(token) = std::str::from_utf8(body) else { return bad("invalid_request", "the body is no token") };
        let Some((plan, keys)) = self.signers(EVENT_TYP) else { return Err(Refusal::BrokenRule) };
        let judge = |set: &_| signed(&plan, set, token).map(|it| it.claims);
        let claims = match keys.judge(judge).await {
            Ok(claims) => claims,
            Err(AuthFailure::Unavailable(_)) => return Ok(come_again()),
            Err(AuthFailure::Invalid(why)) if why.starts_with("no key") => return bad("invalid_key", why),
            Err(AuthFailure::Invalid(OTHER_ISSUER)) => return bad("invalid_issuer", OTHER_ISSUER),
            Err(AuthFailure::Invalid(why)) => return bad("invalid_request", why),
            Err(_) => return bad("invalid_key", "the signature does not match"),
        };
        let notice = match events::security_event(&plan, &claims, wall_s()) {
            Ok(notice) => notice,
            Err(Wrong::Issuer) => return bad("invalid_issuer", "the token is of another issuer"),
            Err(Wrong::Audience) => return bad("invalid_audience", "the token is for another audience"),
            Err(Wrong::Request(why)) => return bad("invalid_request", why),
        };
        if notice.unheeded > 0 {
            let (auth, jti) = (&self.auth.auth.name, &notice.jti);
            tracing::warn!(%auth, jti, "a security event names its subject in a way that no token can be told by");
        }
        self.hand(self.entries(notice), "a security event of the identity provider", StatusCode::ACCEPTED).await
    }

    /// Whose tokens of this type are believed here, and by which keys.
    fn signers(&self, typ: &str) -> Option<(JwtPlan, &Keys)> {
        let (plan, keys) = match &self.auth.kind {
            Kind::Jwt { plan, keys } => (plan, keys),
            Kind::OidcLogin(login) => login.signers(),
            _ => return None,
        };
        Some((JwtPlan { typ: Some(typ.to_owned()), ..plan.clone() }, keys))
    }

    fn entries(&self, notice: Notice) -> Vec<NewRevocation> {
        let ttl = self.longest();
        let entry = |it: Shut| NewRevocation { selector: it.selector, ttl, not_before_s: it.not_before_s };
        notice.shuts.into_iter().map(entry).collect()
    }

    /// Answers when it is committed, and not before.
    async fn hand(&self, entries: Vec<NewRevocation>, reason: &str, status: StatusCode) -> Answer {
        let consumer = self.record.identity.as_ref().and_then(|it| it.caller.consumer.as_ref());
        let asker = Asker {
            route: self.record.plan.as_ref().map_or_else(String::new, |plan| plan.rule.route.name.to_string()),
            who: consumer.map_or_else(|| self.auth.auth.name.to_string(), |it| it.name.to_string()),
            client_ip: self.record.client_ip,
        };
        match self.directory.revoke(entries, reason, asker).await {
            Ok(()) => Ok(done(status)),
            Err(NotAgreed) => Ok(come_again()),
        }
    }
}

fn is_of_type(parts: &Parts, wanted: &str) -> bool {
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.and_then(|kind| kind.split(';').next()).is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

fn form_of(parts: &Parts, body: &[u8]) -> Option<std::collections::BTreeMap<String, String>> {
    if !is_of_type(parts, "application/x-www-form-urlencoded") {
        return None;
    }
    form::decode(std::str::from_utf8(body).ok()?)
}

fn done(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// RFC 6749 §5.2.
fn error(status: StatusCode, error: &str, why: &str) -> Response<ResponseBody> {
    with_json(status, &json!({"error": error, "error_description": why}))
}

/// RFC 8935 §2.3.
fn set_error(err: &str, why: &str) -> Response<ResponseBody> {
    let mut response = with_json(StatusCode::BAD_REQUEST, &json!({"err": err, "description": why}));
    response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    response
}

/// RFC 7009 §2.2.1: the client must take it that the token is still good.
fn come_again() -> Response<ResponseBody> {
    let why = "the cluster could not agree on it now";
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn with_json(status: StatusCode, body: &serde_json::Value) -> Response<ResponseBody> {
    let mut response = done(status);
    *response.body_mut() = ResponseBody::Full(body.to_string().into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
