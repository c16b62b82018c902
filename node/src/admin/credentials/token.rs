//! What a text that a client would send says, and what the proxy would answer to it: the proxy's own reading, in words
//! for operators.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use quorumgate_model::{
    resource::{Key, Kind, Name},
    revocation::Revocation,
    units::Span,
};
use quorumgate_proto::admin::v1::{self as admin, inspect_token_response::Finding};
use quorumgate_proxy::identity::{
    Claims,
    directory::Directory,
    inspected::{Inspected, Opinion, Said, Signature},
    jwt::Times,
};
use serde_json::Value;

use super::reports;

/// As the proxy's tables are now.
pub fn look(text: &str, directory: &Directory) -> Inspected {
    Inspected::of(directory, text, now_s())
}

/// All entries that requests with it could be refused by, each once.
pub fn entries(inspected: &Inspected, directory: &Directory, now_us: u64) -> Vec<Arc<Revocation>> {
    let mut entries: Vec<Arc<Revocation>> = Vec::new();
    for subject in inspected.subjects() {
        for entry in directory.revoked.entries_of(&subject, now_us) {
            if !entries.iter().any(|it| it.selector == entry.selector) {
                entries.push(entry);
            }
        }
    }
    entries
}

pub fn inspect(text: &str, directory: &Directory) -> admin::InspectTokenResponse {
    let now_us = directory.now_us();
    let inspected = look(text, directory);
    let entries = entries(&inspected, directory, now_us);
    let mut findings = Vec::new();
    let mut say = |check: &str, good: bool, detail: String| {
        findings.push(Finding { check: check.to_owned(), good, detail });
    };
    let kind = match (&inspected.key, &inspected.said) {
        (Some(key), _) => {
            let standing = key.standing(now_us);
            say("form", true, format!("a key of {}", key.consumer));
            say("expiry", standing.is_good(), format!("it is {}", standing.word()));
            "api_key"
        }
        (None, Some(said)) => {
            of_jwt(said, &inspected.opinions, &mut say);
            "jwt"
        }
        (None, None) => {
            say("form", false, "neither a key that is known nor a JWT".into());
            "unknown"
        }
    };
    match entries.first() {
        Some(entry) => say("revocation", false, format!("revoked by {}", entry.selector)),
        None => say("revocation", true, "no entry holds for it".into()),
    }
    let facts = directory.facts();
    let consumers: BTreeSet<Name> = inspected.subjects().into_iter().filter_map(|it| it.consumer).collect();
    for name in consumers {
        let key = Key { kind: Kind::Consumer, name };
        let known = facts.resources.contains_key(&key);
        say("consumer", known, format!("{key} {}", if known { "exists" } else { "does not exist" }));
    }
    let json = |part: Option<&Claims>| part.map(|it| Value::Object(it.clone()).to_string()).unwrap_or_default();
    let said = inspected.said.as_ref();
    let of_issuer = inspected.opinions.iter().filter(|it| it.is_of_issuer);
    admin::InspectTokenResponse {
        header: None,
        kind: kind.to_owned(),
        jwt_header: json(said.and_then(|it| it.header.as_ref())),
        claims: json(said.and_then(|it| it.claims.as_ref())),
        auths: of_issuer.map(|it| it.auth.to_string()).collect(),
        findings,
        entries: entries.iter().map(|it| reports::revocation(it, now_us)).collect(),
        key: inspected.key.as_ref().map(|key| reports::key(key, now_us)),
    }
}

fn of_jwt(said: &Said, opinions: &[Opinion], say: &mut impl FnMut(&str, bool, String)) {
    const UNREADABLE: &str = "cannot be read: base64url without padding, of a JSON object that has each name once";
    match (&said.header, &said.claims) {
        (None, _) => say("form", false, format!("a JWT whose header {UNREADABLE}")),
        (_, None) => say("form", false, format!("a JWT whose payload {UNREADABLE}")),
        _ => say("form", true, "a JWT".into()),
    }
    let of_issuer: Vec<&Opinion> = opinions.iter().filter(|it| it.is_of_issuer).collect();
    let names: Vec<&str> = of_issuer.iter().map(|it| &*it.auth).collect();
    match (said.issuer(), names.is_empty()) {
        (None, _) => say("issuer", false, "it has no iss that can be read".into()),
        (Some(issuer), true) => say("issuer", false, format!("no auth has the issuer {issuer}")),
        (Some(issuer), false) => say("issuer", true, format!("{issuer}: {}", names.join(", "))),
    }
    let times = said.claims.as_ref().map(Times::read);
    if let Some(times) = &times {
        let (good, detail) = match times {
            Ok(times) => expiry(times.expires, &of_issuer),
            Err(failure) => (false, failure.to_string()),
        };
        say("expiry", good, detail);
    }
    for opinion in &of_issuer {
        facts(said, times.and_then(Result::ok), opinion, say);
    }
    for opinion in opinions {
        let (good, detail) = answer(opinion);
        say("answer", good, format!("{}: {detail}", opinion.auth));
    }
}

fn expiry(at: u64, of_issuer: &[&Opinion]) -> (bool, String) {
    let now_s = now_s();
    let in_skew = of_issuer.iter().any(|it| !it.plan.has_expired(at, now_s));
    match at.checked_sub(now_s).filter(|left| *left > 0) {
        Some(left) => (true, format!("it expires in {left} s")),
        None if in_skew => (true, format!("it expired {} s ago, within the skew", now_s - at)),
        None => (false, format!("it expired {} s ago", now_s - at)),
    }
}

/// What an auth of the token's issuer finds, one by one: the first that is bad is what it answers with.
fn facts(said: &Said, times: Option<Times>, opinion: &Opinion, say: &mut impl FnMut(&str, bool, String)) {
    let (auth, plan) = (&opinion.auth, &opinion.plan);
    if let Some(header) = &said.header {
        let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        say("algorithm", plan.algorithm(header).is_some(), format!("{auth}: {algorithm:?}"));
    }
    let now_s = now_s();
    if let Some(times) = times.filter(|it| plan.outlived_by(it.expires, now_s)) {
        let left = times.expires.saturating_sub(now_s);
        say("lifetime", false, format!("{auth}: {left} s left, max_lifetime is {}", Span::secs(plan.max_lifetime_s)));
    }
    if let Some(claims) = &said.claims {
        say("audience", plan.is_for(claims), format!("{auth}: the token has {:?}", audiences(claims)));
    }
    let (good, detail) = match &opinion.signature {
        Signature::Good(Some(kid)) => (true, format!("of the issuer's key {kid:?}")),
        Signature::Good(None) => (true, "of a key of the issuer".into()),
        Signature::Bad => (false, "of no key of the issuer".into()),
        Signature::Unverified(failure) => (false, format!("not verified: {failure}")),
    };
    say("signature", good, format!("{auth}: {detail}"));
}

/// To a request that shows nothing but the token.
fn answer(opinion: &Opinion) -> (bool, String) {
    let Some(refusal) = opinion.refusal else {
        let whom = match &opinion.subject.consumer {
            Some(name) => format!("taken, as consumer/{name}"),
            None => "taken, as no consumer".into(),
        };
        let bound = if opinion.is_bound { ", with its client certificate alone" } else { "" };
        return (true, format!("{whom}{bound}"));
    };
    let beside = match opinion.beside {
        None => String::new(),
        Some(Ok(())) => "; header and claims are good".into(),
        Some(Err(beside)) => format!("; with a key {beside}"),
    };
    (false, format!("{refusal}{beside}"))
}

fn audiences(claims: &Claims) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Seconds since 1970, as the proxy reads the clock.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
