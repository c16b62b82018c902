//! One test for each attack on tokens that has a name.

use serde_json::json;

use super::*;
use crate::identity::tokens::{Signer, base64url, hmac_sha256, jwks};

const NOW: u64 = 1_800_000_000;

fn plan() -> JwtPlan {
    JwtPlan {
        id: PlanId::next(),
        issuer: "https://idp.test".into(),
        audience: vec!["orders".into(), "billing".into()],
        algorithms: Algorithm::ALL.to_vec(),
        consumer_claim: Some("azp".into()),
        groups_claim: Some("realm_access.roles".into()),
        scopes_claim: "scope".into(),
        skew_s: 30,
        max_lifetime_s: 86_400,
        typ: None,
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://idp.test", "aud": "orders", "exp": NOW + 300, "iat": NOW - 5, "sub": "u-1", "azp": "acme",
        "jti": "j-1", "sid": "s-1", "scope": "orders:read orders:write", "realm_access": {"roles": ["ops", "dev"]},
    })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

fn keys(signers: &[&Signer]) -> KeySet {
    KeySet::parse(jwks(signers).as_bytes()).unwrap()
}

struct Case {
    signer: Signer,
    keys: KeySet,
    plan: JwtPlan,
}

impl Case {
    fn new() -> Self {
        Self::of(Signer::es256("k1"))
    }

    fn of(signer: Signer) -> Self {
        Self { keys: keys(&[&signer]), plan: plan(), signer }
    }

    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, AuthFailure> {
        verify(&self.plan, &self.keys, token, NOW)
    }

    #[track_caller]
    fn claims(&self, claims: Value, expected: Result<(), AuthFailure>) {
        assert_eq!(self.verify(&self.signer.token(&claims)).map(|_| ()), expected, "{claims}");
    }

    #[track_caller]
    fn header(&self, header: Value, expected: Result<(), AuthFailure>) {
        assert_eq!(self.verify(&self.signer.token_with(&header, &claims())).map(|_| ()), expected, "{header}");
    }
}

const fn invalid(reason: &'static str) -> Result<(), AuthFailure> {
    Err(AuthFailure::Invalid(reason))
}

const ALGORITHM: Result<(), AuthFailure> = invalid("the token's algorithm is not allowed");
const NO_KEY: Result<(), AuthFailure> = invalid("no key of the issuer has the token's key id");
const KEY_ALGORITHM: Result<(), AuthFailure> = invalid("no key of the issuer takes the token's algorithm");
const HEADER: Result<(), AuthFailure> = invalid("the token's header is malformed");
const PAYLOAD: Result<(), AuthFailure> = invalid("the token's payload is malformed");
const SIGNATURE: Result<(), AuthFailure> = invalid("the token's signature is malformed");
const PARTS: Result<(), AuthFailure> = invalid("the token has not three parts");

#[test]
fn a_good_token_of_every_algorithm_is_taken() {
    for signer in [Signer::rsa("r"), Signer::es256("a"), Signer::es384("b"), Signer::es512("c"), Signer::ed25519("d")] {
        Case::of(signer).claims(claims(), Ok(()));
    }
    let rsa = Case::of(Signer::rsa("r"));
    let message = format!("{}.{}", base64url(r#"{"alg":"PS256","kid":"r"}"#), base64url(claims().to_string()));
    let token = format!("{message}.{}", base64url(rsa.signer.sign_pss(message.as_bytes())));
    rsa.verify(&token).unwrap();
}

#[test]
fn a_verified_token_tells_who_and_what() {
    let case = Case::new();
    let token = case.signer.token(&claims());
    let verified = case.verify(&token).unwrap();
    assert_eq!(verified.consumer.as_deref(), Some("acme"));
    assert_eq!(verified.groups, ["ops".into(), "dev".into()]);
    assert!(verified.scopes.has("orders:read") && verified.scopes.has("orders:write"));
    assert_eq!(verified.expires, NOW + 300);
    let marks = &verified.marks;
    assert_eq!(marks.sha256, sha256(token.as_bytes()));
    let texts = [&marks.issuer, &marks.subject, &marks.jti, &marks.sid, &marks.client, &marks.kid];
    let texts: Vec<_> = texts.into_iter().map(|it| it.as_deref().unwrap()).collect();
    assert_eq!(texts, ["https://idp.test", "u-1", "j-1", "s-1", "acme", "k1"]);
    assert_eq!(marks.issued_at, Some(NOW - 5));
}

#[test]
fn a_key_that_is_listed_in_other_words_is_the_same_key() {
    let signers = [Signer::es256("k1"), Signer::rsa("k1"), Signer::ed25519("k1")];
    let strangers = [Signer::es256("k1"), Signer::rsa("k1"), Signer::ed25519("k1")];
    for (signer, stranger) in signers.iter().zip(&strangers) {
        let algorithm = signer.algorithm();
        let named = verify(&plan(), &keys(&[signer]), &signer.token(&claims()), NOW).unwrap();
        let unnamed = signer.token_with(&json!({"alg": algorithm}), &claims());
        let unnamed = verify(&plan(), &keys(&[signer]), &unnamed, NOW).unwrap();
        let check = |jwk: Value, expected: [bool; 2]| {
            let set = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
            let found = [&named, &unnamed].map(|token| still_holds(&plan(), &set, token, NOW + 5));
            assert_eq!(found, expected, "{jwk}");
        };
        check(signer.jwk(), [true, true]);
        check(with(signer.jwk(), "alg", json!(algorithm)), [true, true]);
        check(with(signer.jwk(), "kid", json!("k2")), [false, true]);
        check(without(signer.jwk(), "kid"), [false, true]);
        check(stranger.jwk(), [false, false]);
    }
    let rsa = &signers[1];
    let verified = verify(&plan(), &keys(&[rsa]), &rsa.token(&claims()), NOW).unwrap();
    let n = super::base64url(rsa.jwk()["n"].as_str().unwrap()).unwrap();
    let longer = with(rsa.jwk(), "n", json!(base64url([&[0][..], &n[..]].concat())));
    let set = KeySet::parse(json!({"keys": [longer]}).to_string().as_bytes()).unwrap();
    assert!(still_holds(&plan(), &set, &verified, NOW));
}

#[test]
fn alg_none_is_never_taken() {
    let case = Case::new();
    for word in ["none", "None", "NONE", "nOnE", "", "es256", "ES256K", "RS1", "dir"] {
        case.header(json!({"alg": word, "kid": "k1"}), ALGORITHM);
        let parts = (base64url(json!({"alg": word}).to_string()), base64url(claims().to_string()));
        assert_eq!(case.verify(&format!("{}.{}.", parts.0, parts.1)).map(|_| ()), ALGORITHM, "{word}");
    }
    case.header(json!({"kid": "k1"}), ALGORITHM);
    case.header(json!({"alg": ["ES256"], "kid": "k1"}), ALGORITHM);
    case.header(json!({"alg": null, "kid": "k1"}), ALGORITHM);
}

#[test]
fn an_empty_or_zero_signature_is_not_taken() {
    let case = Case::new();
    let good = case.signer.token(&claims());
    let message = good.rsplit_once('.').unwrap().0;
    for signature in [String::new(), base64url([0; 64]), base64url([0; 63]), base64url([0xff; 64])] {
        let outcome = case.verify(&format!("{message}.{signature}")).map(|_| ());
        assert_eq!(outcome, Err(AuthFailure::SignatureInvalid), "{signature:?}");
    }
}

#[test]
fn hs256_with_the_rsa_public_key_as_secret_is_not_taken() {
    let case = Case::of(Signer::rsa("r"));
    let jwk = case.signer.jwk();
    let secrets = [
        jwk.to_string(),
        jwks(&[&case.signer]),
        jwk["n"].as_str().unwrap().to_owned(),
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", jwk["n"].as_str().unwrap()),
    ];
    for secret in secrets {
        for kid in [json!("r"), json!(null)] {
            let mut header = json!({"alg": "HS256", "typ": "JWT"});
            if kid.is_string() {
                header["kid"] = kid;
            }
            let token = Signer::Secret(secret.clone().into_bytes()).token_with(&header, &claims());
            assert_eq!(case.verify(&token).map(|_| ()), KEY_ALGORITHM);
        }
    }
}

#[test]
fn a_key_takes_its_own_algorithm_only() {
    let case = Case::of(Signer::rsa("r"));
    case.header(json!({"alg": "ES256", "kid": "r"}), KEY_ALGORITHM);
    // The RSA key could do both; the signature is one of RS256.
    case.header(json!({"alg": "PS256", "kid": "r"}), Err(AuthFailure::SignatureInvalid));
    case.header(json!({"alg": "RS512", "kid": "r"}), Err(AuthFailure::SignatureInvalid));
    let jwk = with(case.signer.jwk(), "alg", json!("PS256"));
    let strict = Case { keys: KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap(), ..case };
    strict.claims(claims(), KEY_ALGORITHM);
}

#[test]
fn an_algorithm_that_the_plan_does_not_name_is_not_taken() {
    let mut case = Case::of(Signer::es384("k"));
    case.plan.algorithms = vec![Algorithm::RS256, Algorithm::ES256];
    case.claims(claims(), ALGORITHM);
}

#[test]
fn hs256_is_taken_with_the_operators_secret_only() {
    let secret = b"0123456789abcdef0123456789abcdef".to_vec();
    let signer = Signer::Secret(secret.clone());
    let mut case = Case { keys: KeySet::secret(&secret).unwrap(), plan: plan(), signer };
    case.header(json!({"alg": "HS256"}), Ok(()));
    case.header(json!({"alg": "HS256", "kid": "any"}), Ok(()));
    case.header(json!({"alg": "HS512"}), Err(AuthFailure::SignatureInvalid));
    case.header(json!({"alg": "RS256"}), KEY_ALGORITHM);
    case.signer = Signer::Secret(Vec::new());
    case.header(json!({"alg": "HS256"}), Err(AuthFailure::SignatureInvalid));
    case.plan.algorithms = vec![Algorithm::RS256, Algorithm::ES256];
    case.header(json!({"alg": "HS256"}), ALGORITHM);
}

#[test]
fn a_key_id_only_selects() {
    let case = Case::new();
    for kid in [
        "../../../../dev/null",
        "/dev/null",
        "k1\0",
        "k1' UNION SELECT 'secret",
        "| cat /etc/passwd",
        "http://127.0.0.1/jwks",
        "K1",
        "",
    ] {
        case.header(json!({"alg": "ES256", "kid": kid}), NO_KEY);
        // Whoever steers the key to an empty file signs with an empty secret.
        let forged = Signer::Secret(Vec::new()).token_with(&json!({"alg": "HS256", "kid": kid}), &claims());
        assert_eq!(case.verify(&forged).map(|_| ()), NO_KEY);
    }
    for kid in [json!(["k1"]), json!(1), json!({}), json!(null), json!("k".repeat(KID_BYTES_MAX + 1))] {
        case.header(json!({"alg": "ES256", "kid": kid}), invalid("the token's key id is malformed"));
    }
    case.header(json!({"alg": "ES256"}), Ok(()));
}

#[test]
fn keys_and_addresses_in_the_header_are_ignored() {
    let case = Case::new();
    let attacker = Signer::es256("k1");
    let certificate = base64url([0x30, 0x03, 0x02, 0x01, 0x00]);
    for (name, value) in [
        ("jwk", attacker.jwk()),
        ("jku", json!("https://attacker.test/jwks")),
        ("x5u", json!("https://attacker.test/cert.pem")),
        ("x5c", json!([certificate])),
    ] {
        let forged = attacker.token_with(&with(attacker.header(), name, value.clone()), &claims());
        assert_eq!(case.verify(&forged).map(|_| ()), Err(AuthFailure::SignatureInvalid), "{name}");
        let own = Signer::es256("attacker");
        let forged = own.token_with(&with(own.header(), name, value.clone()), &claims());
        assert_eq!(case.verify(&forged).map(|_| ()), NO_KEY, "{name}");
        // And they do no harm where the issuer itself writes them.
        case.header(with(case.signer.header(), name, value), Ok(()));
    }
}

#[test]
fn critical_extensions_are_refused() {
    let case = Case::new();
    let refused = invalid("the token's header has crit, b64 or zip");
    for (name, value) in [("crit", json!(["exp"])), ("crit", json!([])), ("b64", json!(false)), ("zip", json!("DEF"))] {
        case.header(with(case.signer.header(), name, value), refused);
    }
}

#[test]
fn times_hold_with_the_skew_and_no_longer() {
    let case = Case::new();
    let check = |name: &str, value: i64, expected: Result<(), AuthFailure>| {
        case.claims(with(claims(), name, json!(value)), expected);
    };
    let now = NOW as i64;
    check("exp", now - 29, Ok(()));
    check("exp", now - 30, Err(AuthFailure::Expired));
    check("exp", 0, Err(AuthFailure::Expired));
    check("exp", now + 86_400, Ok(()));
    check("exp", now + 86_431, invalid("the token lives longer than the auth's max_lifetime"));
    check("exp", i64::MAX, invalid("the token lives longer than the auth's max_lifetime"));
    check("nbf", now + 30, Ok(()));
    check("nbf", now + 31, invalid("the token is not yet valid"));
    check("iat", now + 31, invalid("the token was issued in the future"));
    case.claims(without(claims(), "exp"), invalid("the token has no expiry"));
    case.claims(without(claims(), "iat"), Ok(()));
    let malformed = invalid("a time of the token is no number of seconds since 1970");
    for name in ["exp", "nbf", "iat"] {
        for value in [json!("1900000000"), json!(null), json!(true), json!(-1), json!([NOW + 300])] {
            case.claims(with(claims(), name, value), malformed);
        }
    }
    case.claims(with(claims(), "exp", json!(NOW as f64 + 60.5)), Ok(()));
}

#[test]
fn the_issuer_and_the_audience_are_ours() {
    let case = Case::new();
    let issuer = invalid("the token is of another issuer");
    case.claims(without(claims(), "iss"), issuer);
    case.claims(with(claims(), "iss", json!("https://idp.test/")), issuer);
    case.claims(with(claims(), "iss", json!("https://IDP.test")), issuer);
    case.claims(with(claims(), "iss", json!(["https://idp.test"])), invalid("the token's issuer is malformed"));
    let audience = invalid("the token is for another audience");
    case.claims(without(claims(), "aud"), audience);
    for wrong in
        [json!("order"), json!("orders2"), json!([]), json!(["x"]), json!(7), json!(["orders", 7]), json!(null)]
    {
        case.claims(with(claims(), "aud", wrong), audience);
    }
    case.claims(with(claims(), "aud", json!(["x", "billing"])), Ok(()));
}

#[test]
fn duplicate_names_are_refused() {
    let case = Case::new();
    let text = claims().to_string();
    let doubled = text.replacen('{', r#"{"sub":"admin","#, 1);
    let token = case.signer.token_of(&base64url(case.signer.header().to_string()), &base64url(doubled));
    assert_eq!(case.verify(&token).map(|_| ()), PAYLOAD);
    let token = case.signer.token_of(&base64url(r#"{"alg":"none","alg":"ES256","kid":"k1"}"#), &base64url(text));
    assert_eq!(case.verify(&token).map(|_| ()), HEADER);
}

#[test]
fn an_oversized_token_is_refused_before_it_is_read() {
    let case = Case::new();
    let long = case.signer.token(&with(claims(), "pad", json!("x".repeat(TOKEN_BYTES_MAX))));
    assert_eq!(case.verify(&long).map(|_| ()), invalid("the token is too long"));
    let most = case.signer.token(&with(claims(), "pad", json!("x".repeat(TOKEN_BYTES_MAX / 2))));
    assert_eq!(case.verify(&most).map(|_| ()), Ok(()));
}

#[test]
fn the_type_says_what_a_token_is_for() {
    let mut case = Case::new();
    let other = invalid("the token is of another type");
    let typ = |it: &str| json!({"alg": "ES256", "kid": "k1", "typ": it});
    for taken in ["JWT", "jwt", "at+jwt", "application/at+jwt", "Bearer"] {
        case.header(typ(taken), Ok(()));
    }
    for refused in ["logout+jwt", "secevent+jwt", "DPoP+JWT", "application/logout+jwt"] {
        case.header(typ(refused), other);
    }
    case.plan.typ = Some("at+jwt".into());
    for taken in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        case.header(typ(taken), Ok(()));
    }
    case.header(typ("JWT"), other);
    case.header(json!({"alg": "ES256", "kid": "k1"}), other);
    case.header(json!({"alg": "ES256", "kid": "k1", "typ": 7}), invalid("the token's type is malformed"));
}

/// The kinds of malformed base64url that Wycheproof's web token vectors have, in each of the three parts.
#[test]
fn malformed_base64url_is_refused_in_every_part() {
    let case = Case::new();
    let (header, payload) = (case.signer.header().to_string(), claims().to_string());
    // The signature is right for what is sent, so that nothing but the form can be the reason.
    let check = |header: &str, payload: &str, expected: Result<(), AuthFailure>| {
        let token = case.signer.token_of(header, payload);
        assert_eq!(case.verify(&token).map(|_| ()), expected, "{token}");
    };
    let (good_header, good_payload) = (base64url(&header), base64url(&payload));
    check(&good_header, &good_payload, Ok(()));
    let spoil = |good: &str| {
        let (start, end) = good.split_at(8);
        [
            format!("{good}="),
            format!("{good}=="),
            format!("{good}\n"),
            format!("{start}\r\n{end}"),
            format!("{start} {end}"),
            format!("{start}+{end}"),
            format!("{start}/{end}"),
            format!("{start}%{end}"),
            format!("{start}\0{end}"),
            format!("{start}é{end}"),
            format!("{start}={end}"),
            good[1..].to_owned(),
            String::new(),
        ]
    };
    spoil(&good_header).iter().for_each(|it| check(it, &good_payload, HEADER));
    spoil(&good_payload).iter().for_each(|it| check(&good_header, it, PAYLOAD));
    // Bits behind the last byte: the same bytes, another text. Pads the JSON so that the last group has two spare bits.
    let loose = |json: &str| {
        let text = base64url(format!("{json}{}", " ".repeat((3 - json.len() % 3) % 3 + 2)));
        let last = text.chars().last().unwrap();
        assert_eq!(text.len() % 4, 3);
        format!("{}{}", &text[..text.len() - 1], char::from(last as u8 + 1))
    };
    check(&loose(&header), &good_payload, HEADER);
    check(&good_header, &loose(&payload), PAYLOAD);
    let token = case.signer.token(&claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    for signature in spoil(signature).iter().filter(|it| !it.is_empty()) {
        let outcome = case.verify(&format!("{message}.{signature}")).map(|_| ());
        assert_eq!(outcome, SIGNATURE, "{signature:?}");
    }
}

#[test]
fn a_token_has_three_parts() {
    let case = Case::new();
    let token = case.signer.token(&claims());
    for text in ["", ".", "a.b", "a.b.c.d", "a.b.c.d.e", &format!("{token}."), &format!(".{token}")] {
        assert_eq!(case.verify(text).map(|_| ()), PARTS, "{text}");
    }
    assert_eq!(case.verify("..").map(|_| ()), HEADER);
}

#[test]
fn a_changed_payload_is_not_taken() {
    let case = Case::new();
    let token = case.signer.token(&claims());
    let parts: Vec<&str> = token.split('.').collect();
    let admin = base64url(with(claims(), "sub", json!("admin")).to_string());
    let outcome = case.verify(&format!("{}.{admin}.{}", parts[0], parts[2])).map(|_| ());
    assert_eq!(outcome, Err(AuthFailure::SignatureInvalid));
}

#[test]
fn the_binding_to_a_certificate_is_read_or_refused() {
    let case = Case::new();
    let verify = |cnf: Value| case.verify(&case.signer.token(&with(claims(), "cnf", cnf)));
    assert_eq!(verify(json!({"x5t#S256": base64url([7; 32])})).unwrap().certificate_sha256, Some([7; 32]));
    assert_eq!(verify(json!({"jkt": "x"})).unwrap().certificate_sha256, None);
    let malformed = Err(AuthFailure::Invalid("the token's certificate binding is malformed"));
    for thumbprint in [json!(base64url([7; 31])), json!(7), json!(""), json!(null)] {
        assert_eq!(verify(json!({ "x5t#S256": thumbprint })), malformed);
    }
}

#[test]
fn a_mac_that_is_cut_short_is_not_taken() {
    let secret = [7; 32];
    let case = Case { keys: KeySet::secret(&secret).unwrap(), plan: plan(), signer: Signer::Secret(secret.to_vec()) };
    let message = format!("{}.{}", base64url(r#"{"alg":"HS256"}"#), base64url(claims().to_string()));
    let mac = hmac_sha256(&secret, message.as_bytes());
    for len in [0, 1, 16, 31] {
        let token = format!("{message}.{}", base64url(&mac[..len]));
        assert_eq!(case.verify(&token).map(|_| ()), Err(AuthFailure::SignatureInvalid), "{len}");
    }
}
