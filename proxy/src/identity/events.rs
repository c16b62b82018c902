//! What an identity provider tells a gateway by itself: a logout token (OpenID Connect Back-Channel Logout 1.0) or a
//! security event token (RFC 8417, with the events of CAEP and RISC), read as what is to be shut out. Pure.

use quorumgate_model::revocation::{Selector, SelectorKind, SelectorParts};
use serde_json::Value;

use super::{
    Claims,
    claims::seconds,
    jwt::{JwtPlan, is_for_us},
};

/// What the header of a logout token must say; one that says less could be an ID token.
pub(crate) const LOGOUT_TYP: &str = "logout+jwt";
pub(crate) const EVENT_TYP: &str = "secevent+jwt";
/// Of a logout token that has no expiry.
const LOGOUT_AGE_MAX_S: i64 = 600;
/// Events in one token, and identifiers of one subject.
const EVENTS_MAX: usize = 32;
/// Times of early drafts are in milliseconds: such a number of seconds is far away.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";

/// One thing that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shut {
    pub(crate) selector: Selector,
    /// Seconds since 1970: what was issued from then on is not meant.
    pub(crate) not_before_s: Option<u64>,
}

/// Why a token is not believed, in the words that RFC 8935 §2.4 tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Issuer,
    Audience,
    Request(&'static str),
}

/// What a believed token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) jti: String,
    pub(crate) shuts: Vec<Shut>,
    /// Events that say that something is over which nothing here can be told by.
    pub(crate) unheeded: usize,
}

/// The rules of Back-Channel Logout §2.6 behind the signature.
pub(crate) fn logout(plan: &JwtPlan, claims: &Claims, now_s: u64) -> Result<Notice, Wrong> {
    let (jti, issued_at) = common(plan, claims, now_s)?;
    let skew_s = i64::try_from(plan.skew_s).unwrap_or(i64::MAX);
    if claims.get("exp").is_none() && issued_at.saturating_add(LOGOUT_AGE_MAX_S + skew_s) <= now(now_s) {
        return Err(Wrong::Request("the token is too old"));
    }
    if claims.contains_key("nonce") {
        return Err(Wrong::Request("a logout token has no nonce"));
    }
    let events = claims.get("events").and_then(Value::as_object);
    if !events.is_some_and(|events| events.get(LOGOUT_EVENT).is_some_and(Value::is_object)) {
        return Err(Wrong::Request("the token is of no logout event"));
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let shut = match (text("sid"), text("sub")) {
        // One session, not all that the subject has.
        (Some(sid), _) => shut(SelectorKind::Sid, &plan.issuer, sid, None),
        (None, Some(subject)) => shut(SelectorKind::Subject, &plan.issuer, subject, Some(issued_at)),
        (None, None) => return Err(Wrong::Request("the token names neither a session nor a subject")),
    };
    let shut = shut.ok_or(Wrong::Request("the session or subject is empty or too long"))?;
    Ok(Notice { jti, shuts: vec![shut], unheeded: 0 })
}

/// A security event token behind its signature.
pub(crate) fn security_event(plan: &JwtPlan, claims: &Claims, now_s: u64) -> Result<Notice, Wrong> {
    let (jti, issued_at) = common(plan, claims, now_s)?;
    let events = claims.get("events").and_then(Value::as_object);
    let events = events.filter(|events| (1..=EVENTS_MAX).contains(&events.len()));
    let events = events.ok_or(Wrong::Request("the token has no events, or more than 32"))?;
    let mut notice = Notice { jti, shuts: Vec::new(), unheeded: 0 };
    for (event, says) in events {
        let Some(ends) = ends(event) else { continue };
        let at = says.get("event_timestamp").and_then(seconds).unwrap_or(issued_at);
        let at = if at >= MILLISECONDS_FROM { at / 1_000 } else { at };
        // An instant that is yet to come would shut out who signs in until then.
        let told = Told { issuer: &plan.issuer, ends, at: at.min(now(now_s)) };
        let subject = says.get("subject").or_else(|| claims.get("sub_id"));
        let found = subject.map(|subject| told.subject(subject)).unwrap_or_default();
        if found.is_empty() {
            notice.unheeded += 1;
        }
        notice.shuts.extend(found);
    }
    Ok(notice)
}

/// What an event says is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Session,
    /// Everything that was issued to the subject so far.
    Tokens,
}

/// None: nothing is over, as with the events by which a transmitter tries the stream.
fn ends(event: &str) -> Option<Ends> {
    let caep = event.strip_prefix(CAEP).and_then(|name| match name {
        "session-revoked" => Some(Ends::Session),
        "credential-change" | "token-claims-change" => Some(Ends::Tokens),
        _ => None,
    });
    let risc = || {
        event.strip_prefix(RISC).and_then(|name| match name {
            "account-disabled" | "account-purged" | "credential-compromise" | "sessions-revoked" => Some(Ends::Tokens),
            _ => None,
        })
    };
    caep.or_else(risc)
}

struct Told<'a> {
    issuer: &'a str,
    ends: Ends,
    at: i64,
}

impl Told<'_> {
    /// A subject identifier of RFC 9493, or one of several parts as the Shared Signals Framework has it.
    fn subject(&self, subject: &Value) -> Vec<Shut> {
        let text = |name: &str| subject.get(name).and_then(Value::as_str);
        match text("format").or_else(|| text("subject_type")) {
            Some("iss_sub") => self.user(text("iss"), text("sub")).into_iter().collect(),
            Some("opaque") => match self.ends {
                Ends::Session => text("id").and_then(|sid| self.session(sid)).into_iter().collect(),
                Ends::Tokens => self.user(Some(self.issuer), text("id")).into_iter().collect(),
            },
            Some("jwt_id") => {
                let own = text("iss").filter(|issuer| *issuer == self.issuer);
                let jti = text("jti").and_then(|jti| shut(SelectorKind::Jti, own?, jti, None));
                jti.into_iter().collect()
            }
            Some("aliases") => {
                let all = subject.get("identifiers").and_then(Value::as_array);
                all.into_iter().flatten().take(EVENTS_MAX).flat_map(|one| self.simple(one)).collect()
            }
            // Where a session is named, it alone is meant.
            Some("complex") | None => match subject.get("session") {
                Some(session) => {
                    let sid = session.get("id").and_then(Value::as_str);
                    sid.and_then(|sid| self.session(sid)).into_iter().collect()
                }
                None => subject.get("user").map(|user| self.as_user(user)).unwrap_or_default(),
            },
            Some(_) => Vec::new(),
        }
    }

    /// Not a list again: nobody outside decides how deep this goes.
    fn simple(&self, subject: &Value) -> Vec<Shut> {
        match subject.get("format").and_then(Value::as_str) {
            Some("iss_sub" | "opaque" | "jwt_id") => self.subject(subject),
            _ => Vec::new(),
        }
    }

    /// What is opaque is a user's name here.
    fn as_user(&self, user: &Value) -> Vec<Shut> {
        Told { ends: Ends::Tokens, ..*self }.simple(user)
    }

    fn session(&self, sid: &str) -> Option<Shut> {
        shut(SelectorKind::Sid, self.issuer, sid, None)
    }

    /// An issuer speaks of its own subjects only.
    fn user(&self, issuer: Option<&str>, subject: Option<&str>) -> Option<Shut> {
        let issuer = issuer.filter(|issuer| *issuer == self.issuer)?;
        shut(SelectorKind::Subject, issuer, subject?, Some(self.at))
    }
}

/// `issued_at`: what was issued in this second is shut out too, since tokens know no smaller time.
fn shut(kind: SelectorKind, issuer: &str, value: &str, issued_at: Option<i64>) -> Option<Shut> {
    let selector = SelectorParts { kind, issuer: issuer.as_bytes(), value: value.as_bytes() }.checked().ok()?;
    let not_before_s = issued_at.map(|at| u64::try_from(at).unwrap_or(0) + 1);
    Some(Shut { selector, not_before_s })
}

/// The id, and when it was issued.
fn common(plan: &JwtPlan, claims: &Claims, now_s: u64) -> Result<(String, i64), Wrong> {
    if claims.get("iss").and_then(Value::as_str) != Some(&plan.issuer) {
        return Err(Wrong::Issuer);
    }
    if !is_for_us(&plan.audience, claims.get("aud")) {
        return Err(Wrong::Audience);
    }
    let latest = now(now_s.saturating_add(plan.skew_s));
    let issued_at =
        claims.get("iat").and_then(seconds).ok_or(Wrong::Request("the token does not say when it was issued"))?;
    if issued_at > latest {
        return Err(Wrong::Request("the token was issued in the future"));
    }
    if let Some(expires) = claims.get("exp") {
        let expires = seconds(expires).ok_or(Wrong::Request("the token's expiry is no number"))?;
        if expires.saturating_add(i64::try_from(plan.skew_s).unwrap_or(0)) <= now(now_s) {
            return Err(Wrong::Request("the token has expired"));
        }
    }
    match claims.get("jti").and_then(Value::as_str) {
        Some(jti) if (1..=256).contains(&jti.len()) => Ok((jti.to_owned(), issued_at)),
        _ => Err(Wrong::Request("the token has no id of 1 to 256 bytes")),
    }
}

fn now(now_s: u64) -> i64 {
    i64::try_from(now_s).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
