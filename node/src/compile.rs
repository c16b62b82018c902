//! Whether this build can carry an object out: expressions, keys and certificates are read once before anything is
//! proposed, by the very code that will use them. What can be said without that, the model has said.

use quorumgate_model::{
    invalid::Invalid,
    ledger::bucket::SLOTS_MAX,
    resource::{
        Auth, AuthKind, Guardrail, JwtKeys, LIMIT_MAX, Limit, LimitCost, LimitKind, PolicyKind, Resource, Secret,
        VerifyingKey,
    },
    ruleset,
};
use quorumgate_proxy::{
    identity::{authorize, jwks::KeySet, signature},
    inspect, tls, traffic,
};

use crate::{calendar, pki};

/// Field paths are relative to the object.
pub fn check(resource: &Resource) -> Result<(), Invalid> {
    match resource {
        Resource::Route(route) => {
            ruleset::check(route)?;
            authorize::check(route)?;
            traffic::check(route)
        }
        Resource::Auth(auth) => keys(auth),
        Resource::CertificateAuthority(it) => pki::check_authority(it),
        Resource::Certificate(it) => match &it.key {
            Secret::Plain(key) => tls::Shown::read(it, key.as_bytes()).map(drop),
            // The node that has the cluster's key looks at it when it is sealed (`sealed::check`).
            Secret::Sealed { .. } | Secret::Kept(_) => tls::check_chain(it),
        },
        Resource::Guardrail(it) => guardrail(it),
        Resource::Policy(it) => {
            if let PolicyKind::Version(version) = &it.kind {
                segment("version.version", &version.version)?;
                segment("version.successor", &version.successor)?;
            }
            inspect::check(it)
        }
        Resource::Upstream(_) | Resource::Consumer(_) | Resource::Listener(_) | Resource::Tenant(_) => Ok(()),
        Resource::Limit(limit) => amounts(limit),
    }
}

/// Stored limits may have larger ones: they are read all the same.
fn amounts(limit: &Limit) -> Result<(), Invalid> {
    let of_kind = format!("1 to {SLOTS_MAX} with this kind; kind calendar takes up to {LIMIT_MAX}");
    match &limit.kind {
        LimitKind::Calendar { zone, .. } => calendar::check(zone)?,
        LimitKind::Sliding { limit, .. } | LimitKind::Concurrency { limit, .. } => slots("limit", *limit, &of_kind)?,
        LimitKind::Bucket { rate, burst, .. } => {
            slots("rate", *rate, &of_kind)?;
            slots("burst", *burst, &of_kind)?;
        }
    }
    let at_once = format!("1 to {SLOTS_MAX}");
    match &limit.cost {
        LimitCost::Fixed(cost) => slots("cost", *cost, &at_once),
        LimitCost::ResponseHeader { reserve, .. } => slots("cost.reserve", *reserve, &at_once),
        LimitCost::RequestHeader(_) | LimitCost::AiTokens(_) => Ok(()),
    }
}

/// A node counts no more of one key; of a calendar's budget it never has all.
fn slots(field: &str, found: u64, allowed: &str) -> Result<(), Invalid> {
    if found > u64::from(SLOTS_MAX) { Err(Invalid::field(field).found(found).allowed(allowed)) } else { Ok(()) }
}

/// It is one of the portal's paths.
fn segment(field: &str, found: &str) -> Result<(), Invalid> {
    match found {
        "." | ".." => Err(Invalid::field(field).found(format!("{found:?}")).allowed("a word such as v1")),
        _ => Ok(()),
    }
}

fn guardrail(it: &Guardrail) -> Result<(), Invalid> {
    authorize::Statement::compile(&it.require).map(drop).map_err(|invalid| invalid.under("require"))
}

fn keys(auth: &Auth) -> Result<(), Invalid> {
    match &auth.kind {
        AuthKind::Jwt(it) => match &it.keys {
            JwtKeys::Inline(jwks) => KeySet::parse(jwks.as_bytes()).map(drop).map_err(|error| {
                Invalid::field("jwt.jwks_inline").found("keys of no use").allowed(format!("usable ones ({error})"))
            }),
            _ => Ok(()),
        },
        AuthKind::Signature(it) => it.keys.iter().enumerate().try_for_each(|(place, key)| {
            let VerifyingKey::Public(pem) = &key.key else { return Ok(()) };
            let parsed = signature::SignatureKey::public(key.id.clone(), key.consumer.clone(), key.algorithm, pem);
            parsed.map(drop).map_err(|why| {
                let field = format!("signature.keys[{place}].public_key");
                Invalid::field(field).found("another key").allowed(format!("one for {} ({why})", key.algorithm.word()))
            })
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::resource::Kind;
    use serde_json::{Value, json};

    const CA: &str = include_str!("../../examples/files/partners-ca.pem");
    const CRL: &str = include_str!("../../examples/files/partners-ca.crl");
    const ED25519: &str = include_str!("../../examples/files/acme-signing.pem");

    fn check(kind: Kind, words: Value, expected: Result<(), &str>) {
        let found = super::check(&kind.parse(words).unwrap());
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(invalid), Err(field)) => {
                assert_eq!(invalid.field, field);
                assert!(!invalid.found.is_empty() && !invalid.allowed.is_empty(), "{invalid}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn what_no_proxy_could_use_is_refused() {
        let ca = |pem: &str, crl: Value| json!({ "name": "a", "pem": pem, "crl": crl });
        check(Kind::CertificateAuthority, ca(CA, json!(CRL)), Ok(()));
        check(Kind::CertificateAuthority, ca(&format!("{CA}{CA}"), Value::Null), Ok(()));
        let no_certificate = CA.replacen("MII", "MIJ", 1);
        check(Kind::CertificateAuthority, ca(&no_certificate, Value::Null), Err("pem"));
        let no_list = CRL.replacen("MI", "MJ", 1);
        check(Kind::CertificateAuthority, ca(CA, json!(no_list)), Err("crl"));

        let zone = |zone: &str| json!({ "name": "a", "per": "global", "kind": "calendar", "limit": 1, "every": "day", "zone": zone });
        check(Kind::Limit, zone("America/New_York"), Ok(()));
        check(Kind::Limit, zone("America/Gotham"), Err("zone"));
        let bucket = |rate: u64, burst: u64| json!({ "name": "a", "per": "global", "kind": "bucket", "rate": rate, "burst": burst });
        check(Kind::Limit, bucket(268_435_455, 268_435_455), Ok(()));
        check(Kind::Limit, bucket(268_435_456, 1), Err("rate"));
        check(Kind::Limit, bucket(1, 268_435_456), Err("burst"));
        let a_second = json!({ "name": "a", "per": "global", "limit": 1_000_000_000, "window": "1s" });
        check(Kind::Limit, a_second, Err("limit"));
        let a_day =
            json!({ "name": "a", "per": "global", "kind": "calendar", "every": "day", "limit": 10_000_000_000_u64 });
        check(Kind::Limit, a_day, Ok(()));
        let costs = |cost: Value| json!({ "name": "a", "per": "global", "limit": 9, "window": "1s", "cost": cost });
        check(Kind::Limit, costs(json!(268_435_456)), Err("cost"));
        check(Kind::Limit, costs(json!({ "response_header": "x", "reserve": 268_435_456 })), Err("cost.reserve"));

        let version = |version: &str, successor: &str| json!({ "name": "a", "version": { "api": "a", "version": version, "successor": successor } });
        check(Kind::Policy, version("v1.0", "v2"), Ok(()));
        check(Kind::Policy, version("..", ""), Err("version.version"));
        check(Kind::Policy, version("v1", "."), Err("version.successor"));

        let key = |algorithm: &str| {
            let key = json!({ "id": "k", "algorithm": algorithm, "public_key": ED25519, "consumer": "c" });
            json!({ "name": "a", "signature": { "keys": [key] } })
        };
        check(Kind::Auth, key("ed25519"), Ok(()));
        check(Kind::Auth, key("rsa-pss-sha512"), Err("signature.keys[0].public_key"));

        let jwks = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }] });
        let jwt = json!({ "name": "a", "jwt": { "issuer": "i", "audience": ["a"], "jwks_inline": jwks } });
        check(Kind::Auth, jwt, Err("jwt.jwks_inline"));
    }
}
