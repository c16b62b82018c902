use serde_json::json;

use super::*;
use crate::identity::jwt::PlanId;

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://idp.test";

fn plan() -> JwtPlan {
    JwtPlan {
        id: PlanId::next(),
        issuer: ISSUER.into(),
        audience: vec!["web".into()],
        algorithms: Vec::new(),
        consumer_claim: None,
        groups_claim: None,
        scopes_claim: "scope".into(),
        skew_s: 30,
        max_lifetime_s: 86_400,
        typ: None,
    }
}

fn claims(value: Value) -> Claims {
    value.as_object().unwrap().clone()
}

fn with(mut base: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(base.as_object_mut().unwrap().remove(name)),
        value => base[name] = value,
    }
    base
}

/// `sid=s issuer=… before N`
fn said(outcome: Result<Notice, Wrong>) -> Result<String, Wrong> {
    let shuts = outcome?.shuts.into_iter().map(|it| match it.not_before_s {
        Some(not_before) => format!("{} before {}", it.selector, not_before as i64 - NOW as i64),
        None => it.selector.to_string(),
    });
    Ok(shuts.collect::<Vec<_>>().join(", ").replace(" issuer=https://idp.test", ""))
}

#[test]
fn a_logout_token_is_all_that_it_must_be() {
    let good = json!({
        "iss": ISSUER, "aud": "web", "iat": NOW - 5, "exp": NOW + 100, "jti": "j", "sid": "s", "sub": "ann",
        "events": {LOGOUT_EVENT: {}},
    });
    let check = |token: Value, expected: Result<&str, Wrong>| {
        let outcome = said(logout(&plan(), &claims(token.clone()), NOW));
        assert_eq!(outcome.as_deref().map_err(|it| *it), expected, "{token}");
    };
    let no = |reason| Err(Wrong::Request(reason));
    check(good.clone(), Ok("sid=s"));
    check(with(good.clone(), "sub", Value::Null), Ok("sid=s"));
    check(with(good.clone(), "sid", Value::Null), Ok("subject=ann before -4"));
    check(with(good.clone(), "aud", json!(["other", "web"])), Ok("sid=s"));
    check(with(good.clone(), "exp", Value::Null), Ok("sid=s"));
    let old = with(with(good.clone(), "exp", Value::Null), "iat", json!(NOW - 631));
    check(old, no("the token is too old"));
    check(with(good.clone(), "exp", json!(NOW - 30)), no("the token has expired"));
    check(with(good.clone(), "iss", json!("https://idp.test/")), Err(Wrong::Issuer));
    check(with(good.clone(), "aud", json!("other")), Err(Wrong::Audience));
    check(with(good.clone(), "aud", Value::Null), Err(Wrong::Audience));
    check(with(good.clone(), "iat", Value::Null), no("the token does not say when it was issued"));
    check(with(good.clone(), "iat", json!(NOW + 31)), no("the token was issued in the future"));
    check(with(good.clone(), "jti", Value::Null), no("the token has no id of 1 to 256 bytes"));
    check(with(good.clone(), "nonce", json!("n")), no("a logout token has no nonce"));
    check(with(good.clone(), "events", json!({})), no("the token is of no logout event"));
    check(with(good.clone(), "events", json!({LOGOUT_EVENT: "x"})), no("the token is of no logout event"));
    check(with(good.clone(), "events", json!([LOGOUT_EVENT])), no("the token is of no logout event"));
    let nobody = with(with(good.clone(), "sid", Value::Null), "sub", Value::Null);
    check(nobody, no("the token names neither a session nor a subject"));
    check(with(good, "sid", json!("")), no("the session or subject is empty or too long"));
}

#[test]
fn security_events_end_what_they_name() {
    let check = |event: String, subject: Value, expected: &str| {
        let set = json!({
            "iss": ISSUER, "aud": ["web"], "iat": NOW - 5, "jti": "j", "sub_id": subject,
            "events": {event.clone(): {"event_timestamp": NOW - 60}},
        });
        let notice = security_event(&plan(), &claims(set), NOW).unwrap();
        assert_eq!(notice.unheeded, usize::from(expected.is_empty() && ends(&event).is_some()), "{event} {subject}");
        assert_eq!(said(Ok(notice)).unwrap(), expected, "{event} {subject}");
    };
    let caep = |name: &str| format!("{CAEP}{name}");
    let ann = json!({"format": "iss_sub", "iss": ISSUER, "sub": "ann"});
    let session = json!({"format": "opaque", "id": "s1"});
    check(caep("session-revoked"), session.clone(), "sid=s1");
    check(caep("session-revoked"), ann.clone(), "subject=ann before -59");
    check(caep("session-revoked"), json!({"format": "complex", "user": ann, "session": session}), "sid=s1");
    check(caep("session-revoked"), json!({"user": ann}), "subject=ann before -59");
    check(caep("session-revoked"), json!({"format": "complex", "user": session}), "subject=s1 before -59");
    check(caep("credential-change"), ann.clone(), "subject=ann before -59");
    check(caep("credential-change"), session.clone(), "subject=s1 before -59");
    check(caep("token-claims-change"), json!({"format": "jwt_id", "iss": ISSUER, "jti": "t1"}), "jti=t1");
    let aliases = json!({"format": "aliases", "identifiers": [ann, {"format": "email", "email": "a@b"}, session]});
    check(caep("credential-change"), aliases.clone(), "subject=ann before -59, subject=s1 before -59");
    check(caep("credential-change"), json!({"format": "aliases", "identifiers": [aliases]}), "");
    check(format!("{RISC}account-disabled"), ann.clone(), "subject=ann before -59");
    // Of another issuer's subjects, and of what no token has, nothing can be said here.
    check(caep("session-revoked"), json!({"format": "iss_sub", "iss": "https://evil.test", "sub": "ann"}), "");
    check(caep("token-claims-change"), json!({"format": "jwt_id", "iss": "https://evil.test", "jti": "t1"}), "");
    check(caep("token-claims-change"), json!({"format": "jwt_id", "iss": "", "jti": "t1"}), "");
    check(caep("token-claims-change"), json!({"format": "jwt_id", "jti": "t1"}), "");
    check(caep("session-revoked"), json!({"format": "email", "email": "a@b.test"}), "");
    check(caep("assurance-level-change"), ann.clone(), "");
    check("https://schemas.openid.net/secevent/ssf/event-type/verification".into(), session, "");
}

#[test]
fn an_event_is_of_no_time_to_come() {
    let set = |says: Value| {
        let ann = json!({"format": "iss_sub", "iss": ISSUER, "sub": "ann"});
        let events = json!({format!("{CAEP}credential-change"): with(says, "subject", ann)});
        let set = json!({"iss": ISSUER, "aud": "web", "iat": NOW - 5, "jti": "j", "events": events});
        said(security_event(&plan(), &claims(set), NOW)).unwrap()
    };
    assert_eq!(set(json!({})), "subject=ann before -4");
    assert_eq!(set(json!({"event_timestamp": NOW + 3600})), "subject=ann before 1");
    assert_eq!(set(json!({"event_timestamp": (NOW - 60) * 1000})), "subject=ann before -59");
}
