//! What a text that a client would send says, without any verification: for operators who ask what would decide.

use std::time::{SystemTime, UNIX_EPOCH};

use quorumgate_model::{
    resource::{Auth, AuthKind, JwtAuth, Key, Kind, Resource, Resources},
    state::State,
    units::Span,
};
use quorumgate_proto::admin::v1::{self as admin, inspect_token_response::Finding};
use quorumgate_proxy::identity::{RevocationSubject, TokenMarks, directory::Directory, twin::twin_sha256};
use serde_json::{Map, Value};

use super::{of_kind, reports};
use crate::pki;

type Claims = Map<String, Value>;

struct Jwt {
    header: Claims,
    claims: Claims,
}

/// Everything by which the token or the key could be revoked, taken at its word.
pub fn subject(text: &str, directory: &Directory) -> RevocationSubject {
    let key = directory.keys.find(text);
    let jwt = parse(text);
    let consumer_claim = |jwt: &Jwt| {
        let facts = directory.facts();
        let named = jwt_auths(&facts.resources, jwt).find_map(|(_, auth)| auth.consumer_claim.clone())?;
        jwt.claims.get(&named)?.as_str()?.parse().ok()
    };
    RevocationSubject {
        consumer: key.as_ref().map(|key| key.consumer.clone()).or_else(|| jwt.as_ref().and_then(consumer_claim)),
        credential: key.map(|key| key.id.to_string().into()),
        token: Some(marks(text, jwt.as_ref()).into()),
        certificate: None,
    }
}

pub fn inspect(text: &str, state: &State, directory: &Directory) -> admin::InspectTokenResponse {
    let now_us = directory.now_us();
    let subject = subject(text, directory);
    let entries = directory.revoked.entries_of(&subject, now_us);
    let key = directory.keys.find(text);
    let jwt = parse(text);
    let mut findings = Vec::new();
    let mut say = |check: &str, good: bool, detail: String| {
        findings.push(Finding { check: check.to_owned(), good, detail });
    };
    let kind = match (&jwt, &key) {
        (_, Some(_)) => "api_key",
        (Some(_), None) => "jwt",
        (None, None) => "unknown",
    };
    match (&key, &jwt) {
        (Some(key), _) => {
            let standing = key.standing(now_us);
            say("form", true, format!("a key of {}", key.consumer));
            say("expiry", standing.is_good(), format!("it is {}", standing.word()));
        }
        (None, Some(jwt)) => jwt_findings(jwt, state, &mut say),
        (None, None) => say("form", false, "neither a key that is known nor a JWT".into()),
    }
    match entries.first() {
        Some(entry) => say("revocation", false, format!("revoked by {}", entry.selector)),
        None => say("revocation", true, "no entry holds for it".into()),
    }
    if let Some(consumer) = &subject.consumer {
        let key = Key { kind: Kind::Consumer, name: consumer.clone() };
        let known = state.resources.contains_key(&key);
        say("consumer", known, format!("{key} {}", if known { "exists" } else { "does not exist" }));
    }
    let json = |part: &Claims| Value::Object(part.clone()).to_string();
    admin::InspectTokenResponse {
        header: None,
        kind: kind.to_owned(),
        jwt_header: jwt.as_ref().map(|jwt| json(&jwt.header)).unwrap_or_default(),
        claims: jwt.as_ref().map(|jwt| json(&jwt.claims)).unwrap_or_default(),
        auths: match &jwt {
            Some(jwt) => jwt_auths(&state.resources, jwt).map(|(auth, _)| auth.name.to_string()).collect(),
            None => Vec::new(),
        },
        findings,
        entries: entries.iter().map(|it| reports::revocation(it, now_us)).collect(),
        key: key.map(|key| reports::key(&key, now_us)),
    }
}

fn jwt_findings(jwt: &Jwt, state: &State, say: &mut impl FnMut(&str, bool, String)) {
    let text = |map: &Claims, name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
    say("form", true, "a JWT; its signature is not verified here".into());
    let issuer = text(&jwt.claims, "iss");
    let auths: Vec<_> = jwt_auths(&state.resources, jwt).collect();
    let names: Vec<_> = auths.iter().map(|(auth, _)| auth.name.to_string()).collect();
    match (&issuer, names.is_empty()) {
        (None, _) => say("issuer", false, "it has no iss".into()),
        (Some(issuer), true) => say("issuer", false, format!("no auth has the issuer {issuer}")),
        (Some(issuer), false) => say("issuer", true, format!("{issuer}: {}", names.join(", "))),
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let expires = jwt.claims.get("exp").and_then(Value::as_u64);
    match expires {
        None => say("expiry", false, "it has no exp".into()),
        Some(at) if at <= now_s => say("expiry", false, format!("it expired {} s ago", now_s - at)),
        Some(at) => say("expiry", true, format!("it expires in {} s", at - now_s)),
    }
    let algorithm = text(&jwt.header, "alg").unwrap_or_default();
    for (auth, rules) in auths {
        let takes = rules.algorithms.iter().any(|it| it.word() == algorithm);
        say("algorithm", takes, format!("{}: {algorithm:?}", auth.name));
        let left = expires.unwrap_or_default().saturating_sub(now_s);
        let longest = rules.max_lifetime.0.as_secs() + rules.skew.0.as_secs();
        if expires.is_some() && left > longest {
            say(
                "lifetime",
                false,
                format!("{}: {left} s left, max_lifetime is {}", auth.name, Span(rules.max_lifetime.0)),
            );
        }
        let audience = audiences(&jwt.claims);
        let meets = rules.audience.iter().any(|it| audience.contains(&it.as_str()));
        say("audience", meets, format!("{}: the token has {audience:?}", auth.name));
    }
}

fn audiences(claims: &Claims) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The auths whose issuer the token names.
fn jwt_auths<'r>(resources: &'r Resources, jwt: &Jwt) -> impl Iterator<Item = (&'r Auth, &'r JwtAuth)> {
    let issuer = jwt.claims.get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
    of_kind(resources, Kind::Auth).filter_map(move |resource| match resource {
        Resource::Auth(auth) => match &auth.kind {
            AuthKind::Jwt(jwt) if jwt.issuer == issuer => Some((&**auth, jwt)),
            _ => None,
        },
        _ => None,
    })
}

fn marks(text: &str, jwt: Option<&Jwt>) -> TokenMarks {
    let sha256 = pki::sha256(text.as_bytes());
    let twin_sha256 = twin_sha256(text);
    let Some(Jwt { header, claims }) = jwt else { return TokenMarks { sha256, ..TokenMarks::default() } };
    let word = |map: &Claims, name: &str| map.get(name).and_then(Value::as_str).map(Box::<str>::from);
    TokenMarks {
        sha256,
        twin_sha256,
        issuer: word(claims, "iss"),
        subject: word(claims, "sub"),
        jti: word(claims, "jti"),
        sid: word(claims, "sid"),
        client: word(claims, "client_id").or_else(|| word(claims, "azp")),
        kid: word(header, "kid"),
        issued_at: claims.get("iat").and_then(|at| at.as_u64().or_else(|| at.as_f64().map(|at| at as u64))),
    }
}

fn parse(text: &str) -> Option<Jwt> {
    let mut parts = text.split('.');
    let (header, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let object = |part: &str| {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).ok()?;
        serde_json::from_slice::<Claims>(&bytes).ok()
    };
    Some(Jwt { header: object(header)?, claims: object(claims)? })
}
