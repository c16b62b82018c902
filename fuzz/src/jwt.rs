//! Signed tokens: nobody makes one without the key, nothing of one can be changed, and what is taken says what the plan
//! asks for to a plain reading too.

use std::sync::LazyLock;

use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use quorumgate_proxy::identity::{
    algorithm::Algorithm,
    jwks::KeySet,
    jwt::{JwtPlan, PlanId, verify},
};
use serde_json::Value;

const NOW_S: u64 = 1_800_000_000;
const SKEW_S: u64 = 30;

struct Issuer {
    pair: Ed25519KeyPair,
    keys: KeySet,
    plan: JwtPlan,
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed has 32 bytes");
    let x = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#);
    let plan = JwtPlan {
        id: PlanId::next(),
        issuer: "https://idp.test".into(),
        audience: vec!["orders".into()],
        algorithms: Algorithm::ALL.to_vec(),
        consumer_claim: Some("azp".into()),
        groups_claim: Some("realm_access.roles".into()),
        scopes_claim: "scope".into(),
        skew_s: SKEW_S,
        max_lifetime_s: 86_400,
        typ: None,
    };
    Issuer { pair, keys: KeySet::parse(jwks.as_bytes()).expect("it is a key set"), plan }
});

/// The header, a line feed, the payload. Anything else is taken for a token as it stands.
pub fn check(input: &[u8]) {
    let Issuer { pair, keys, plan } = &*ISSUER;
    let Some(cut) = input.iter().position(|byte| *byte == b'\n') else {
        if let Ok(token) = std::str::from_utf8(input) {
            assert!(verify(plan, keys, token, NOW_S).is_err(), "nobody has signed {token:?}");
        }
        return;
    };
    let (header, payload) = (&input[..cut], &input[cut + 1..]);
    let message = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(payload));
    let signed = |signature: &[u8]| format!("{message}.{}", BASE64URL_NOPAD.encode(signature));

    // The public key is no secret, and neither is what the key set says.
    for secret in [pair.public_key().as_ref(), &[0; 32], b""] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        assert!(verify(plan, keys, &signed(tag.as_ref()), NOW_S).is_err(), "signed with what everybody knows");
    }
    let mut signature = pair.sign(message.as_bytes()).as_ref().to_vec();
    let token = signed(&signature);
    let Ok(verified) = verify(plan, keys, &token, NOW_S) else { return };
    let [header, claims]: [Value; 2] =
        [header, payload].map(|json| serde_json::from_slice(json).expect("what was taken is JSON"));
    assert_eq!(header["alg"], "EdDSA");
    assert!(["crit", "b64", "zip"].iter().all(|name| header.get(name).is_none()), "{header}");
    assert_eq!(claims["iss"], "https://idp.test");
    let audience = &claims["aud"];
    assert!(audience == "orders" || audience.as_array().is_some_and(|it| it.contains(&"orders".into())), "{audience}");
    let time = |name: &str| claims.get(name).map(|it| it.as_f64().expect("a number").floor() as u64);
    assert_eq!(time("exp"), Some(verified.expires));
    assert!((NOW_S - SKEW_S + 1..=NOW_S + 86_400 + SKEW_S).contains(&verified.expires), "{claims}");
    for name in ["nbf", "iat"] {
        assert!(time(name).is_none_or(|it| it <= NOW_S + SKEW_S), "{name} of {claims}");
    }
    assert_eq!(verified.consumer.as_deref(), claims["azp"].as_str());

    // One bit elsewhere, and it is nobody's.
    let at = payload.len() % signature.len();
    signature[at] ^= 1 << (payload.len() % 8);
    assert!(verify(plan, keys, &signed(&signature), NOW_S).is_err(), "with another signature");
    let mut other = token.into_bytes();
    let at = payload.len() % message.len();
    other[at] = if other[at] == b'A' { b'B' } else { b'A' };
    let other = String::from_utf8(other).expect("base64url");
    assert!(verify(plan, keys, &other, NOW_S).is_err(), "with another message: {other}");
}
