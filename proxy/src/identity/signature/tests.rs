use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512,
        RsaKeyPair,
    },
};
use data_encoding::BASE64;
use http::{HeaderName, HeaderValue};

use super::*;

/// When the RFC's examples were signed.
const CREATED: u64 = 1_618_884_473;

/// The request of RFC 9421, appendix B.2.
fn rfc_headers() -> HeaderMap {
    let fields = [
        ("host", "example.com"),
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("content-type", "application/json"),
        ("content-length", "18"),
        (
            "content-digest",
            "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
        ),
    ];
    fields.into_iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn message(headers: &HeaderMap) -> Message<'_> {
    Message {
        method: &Method::POST,
        scheme: "https",
        authority: "example.com",
        path: "/foo",
        query: Some("param=Value&Pet=dog"),
        headers,
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der))
}

fn consumer() -> Name {
    "acme".parse().unwrap()
}

fn plan(components: &[&str], key: SignatureKey) -> SignaturePlan {
    SignaturePlan {
        components: components.iter().map(|it| (*it).to_owned()).collect(),
        max_age_s: 300,
        keys: vec![key],
    }
}

const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
";

fn rfc_ed25519() -> SignatureKey {
    let id = "test-key-ed25519".to_owned();
    SignatureKey::public(id, consumer(), SignatureAlgorithm::Ed25519, ED25519_PEM).unwrap()
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(name, HeaderValue::from_str(value).unwrap());
}

/// B.2.6.
fn rfc_signed() -> HeaderMap {
    let mut headers = rfc_headers();
    let input = r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
    put(&mut headers, "signature-input", input);
    let signature =
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:";
    put(&mut headers, "signature", signature);
    headers
}

#[test]
fn the_examples_of_the_rfc_are_good() {
    let plan_ed = plan(&["@method", "date"], rfc_ed25519());
    let headers = rfc_signed();
    let signed = verify(&plan_ed, &message(&headers), CREATED + 10).unwrap();
    assert_eq!((&*signed.key.id, signed.expires, signed.covers_body), ("test-key-ed25519", CREATED + 300, false));

    // B.2.5.
    let secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
    let secret = BASE64.decode(secret.as_bytes()).unwrap();
    let key = SignatureKey::secret("test-shared-secret".into(), consumer(), &secret).unwrap();
    let mut headers = rfc_headers();
    let input = r#"sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#;
    put(&mut headers, "signature-input", input);
    put(&mut headers, "signature", "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:");
    verify(&plan(&["date"], key), &message(&headers), CREATED).unwrap();
}

#[test]
fn what_is_covered_cannot_be_changed() {
    let plan = plan(&["@method"], rfc_ed25519());
    let headers = rfc_signed();
    let good = message(&headers);
    let check = |message: Message<'_>| {
        assert_eq!(verify(&plan, &message, CREATED), Err(AuthFailure::SignatureInvalid), "{message:?}");
    };
    check(Message { method: &Method::PUT, ..good });
    check(Message { path: "/foo/", ..good });
    check(Message { authority: "example.org", ..good });
    let mut changed = headers.clone();
    changed.append("content-type", HeaderValue::from_static("text/html"));
    check(message(&changed));
    // What is not covered can.
    verify(&plan, &Message { query: None, ..good }, CREATED).unwrap();
    let mut gone = headers.clone();
    gone.remove("date");
    let missing = AuthFailure::Invalid("the signature covers what the request does not have, or is not known here");
    assert_eq!(verify(&plan, &message(&gone), CREATED), Err(missing));
}

#[test]
fn a_signature_covers_what_it_must() {
    let headers = rfc_signed();
    let lacking = Err(AuthFailure::Invalid("the signature does not cover all that it must"));
    for component in ["@query", "@target-uri", "content-digest"] {
        assert_eq!(verify(&plan(&["@method", component], rfc_ed25519()), &message(&headers), CREATED), lacking);
    }
}

#[test]
fn a_signature_is_good_for_its_time() {
    let plan = plan(&[], rfc_ed25519());
    let headers = rfc_signed();
    let check = |now_s: u64, expected: Result<(), AuthFailure>| {
        assert_eq!(verify(&plan, &message(&headers), now_s).map(|_| ()), expected, "{now_s}");
    };
    check(CREATED - 31, Err(AuthFailure::Invalid("the signature was created in the future")));
    check(CREATED - 30, Ok(()));
    check(CREATED + 329, Ok(()));
    check(CREATED + 330, Err(AuthFailure::Expired));
}

/// Signs whatever is asked for with a key of its own.
struct Signer {
    pair: Ed25519KeyPair,
    plan: SignaturePlan,
}

impl Signer {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let key = SignatureKey::public("k".into(), consumer(), SignatureAlgorithm::Ed25519, &pem(der.as_ref()));
        let plan = plan(&[], key.unwrap());
        Self { pair, plan }
    }

    /// The outcome for a signature that is right for this list and these values.
    fn check(&self, list: &str, lines: &str) -> Result<bool, AuthFailure> {
        let base = format!("{lines}\"@signature-params\": {list}");
        let signature = BASE64.encode(self.pair.sign(base.as_bytes()).as_ref());
        let mut headers = rfc_headers();
        put(&mut headers, "signature-input", &format!("other=(\"x\");keyid=\"unknown\", s={list}"));
        put(&mut headers, "signature", &format!("s=:{signature}:"));
        verify(&self.plan, &message(&headers), CREATED).map(|signed| signed.covers_body)
    }
}

#[test]
fn every_derived_component_has_its_value() {
    let signer = Signer::new();
    let check = |name: &str, value: &str| {
        let list = format!("(\"{name}\");created={CREATED};keyid=\"k\"");
        let covers_body = name == "content-digest";
        assert_eq!(signer.check(&list, &format!("\"{name}\": {value}\n")), Ok(covers_body), "{name}");
    };
    check("@method", "POST");
    check("@scheme", "https");
    check("@authority", "example.com");
    check("@path", "/foo");
    check("@query", "?param=Value&Pet=dog");
    check("@request-target", "/foo?param=Value&Pet=dog");
    check("@target-uri", "https://example.com/foo?param=Value&Pet=dog");
    check("content-length", "18");
    check("content-digest", rfc_headers()["content-digest"].to_str().unwrap());
    let headers = HeaderMap::new();
    let bare = Message { authority: "EXAMPLE.com:443", path: "", query: None, ..message(&headers) };
    let value = |name: &str| component(&bare, &Item { bare: Bare::Text(name.into()), parameters: Vec::new() });
    assert_eq!(value("@target-uri").as_deref(), Some("https://example.com/"));
    assert_eq!(value("@query").as_deref(), Some("?"));
    assert_eq!(value("@status"), None);
    assert_eq!(value("@query-param"), None);
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    let signer = Signer::new();
    let check = |list: &str, reason: &'static str| {
        let lines = if list.starts_with("()") { "" } else { "\"@method\": POST\n" };
        assert_eq!(signer.check(list, lines), Err(AuthFailure::Invalid(reason)), "{list}");
    };
    check("();keyid=\"k\"", "the signature does not say when it was created");
    check("();created=\"1\";keyid=\"k\"", "a time of the signature is no number of seconds since 1970");
    check("();created=-1;keyid=\"k\"", "a time of the signature is no number of seconds since 1970");
    check("();created=1618884473;keyid=\"x\"", "no signature is of a known key");
    check("();created=1618884473", "no signature is of a known key");
    check("();created=1618884473;keyid=k", "no signature is of a known key");
    let alg = "the signature's algorithm is not its key's";
    check("();created=1618884473;keyid=\"k\";alg=\"hmac-sha256\"", alg);
    check("();created=1618884473;keyid=\"k\";alg=ed25519", alg);
    let twice = "the signature covers a component twice";
    check("(\"@method\" \"@method\");created=1618884473;keyid=\"k\"", twice);
    let unknown = "the signature covers what the request does not have, or is not known here";
    check("(\"@method\";req);created=1618884473;keyid=\"k\"", unknown);
    check("(\"date\";sf);created=1618884473;keyid=\"k\"", unknown);
    check("(\"Date\");created=1618884473;keyid=\"k\"", unknown);
    check("(\"@signature-params\");created=1618884473;keyid=\"k\"", unknown);
    let expired = signer.check("();created=1618884473;expires=1618884400;keyid=\"k\"", "");
    assert_eq!(expired, Err(AuthFailure::Expired));
    assert_eq!(signer.check("();created=1618884473;keyid=\"k\";alg=\"ed25519\";nonce=\"n\";tag=\"t\"", ""), Ok(false));
}

#[test]
fn fields_that_are_missing_or_malformed_are_told_apart() {
    let plan = plan(&[], rfc_ed25519());
    let check = |input: Option<&str>, signature: Option<&str>, expected: AuthFailure| {
        let mut headers = rfc_signed();
        for (name, value) in [("signature-input", input), ("signature", signature)] {
            match value {
                Some(value) => put(&mut headers, name, value),
                None => drop(headers.remove(name)),
            }
        }
        assert_eq!(verify(&plan, &message(&headers), CREATED).unwrap_err(), expected, "{input:?} {signature:?}");
    };
    check(None, None, AuthFailure::Missing);
    let input = "s=();created=1618884473;keyid=\"test-key-ed25519\"";
    check(Some(input), None, AuthFailure::Invalid("signature-input and signature belong together"));
    let malformed = AuthFailure::Invalid("signature-input or signature is malformed");
    check(Some(input), Some("t=:AAAA:"), malformed);
    check(Some(input), Some("s=AAAA"), malformed);
    check(Some("s=1"), Some("s=:AAAA:"), malformed);
    check(Some("s=("), Some("s=:AAAA:"), malformed);
    check(Some(input), Some("s=:AAAA:"), AuthFailure::SignatureInvalid);
    check(Some(input), Some("s=::"), AuthFailure::SignatureInvalid);
    let many = AuthFailure::Invalid("the request has too many signatures");
    check(Some("a=(), b=(), c=(), d=(), e=()"), Some("s=::"), many);
}

#[test]
fn every_algorithm_verifies_and_none_takes_another_key() {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_pem = pem(AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap().as_ref());
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ec_pem = pem(AsDer::<PublicKeyX509Der<'_>>::as_der(ec.public_key()).unwrap().as_ref());
    let rsa_sign = |padding, base: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(padding, &random, base, &mut signature).unwrap();
        signature
    };
    let key = |algorithm, pem: &str| SignatureKey::public("k".into(), consumer(), algorithm, pem);
    let base = b"base";
    let pss = key(SignatureAlgorithm::RsaPssSha512, &rsa_pem).unwrap();
    assert!(pss.verify(base, &rsa_sign(&RSA_PSS_SHA512, base)));
    assert!(!pss.verify(base, &rsa_sign(&RSA_PKCS1_SHA256, base)));
    let v15 = key(SignatureAlgorithm::RsaV15Sha256, &rsa_pem).unwrap();
    assert!(v15.verify(base, &rsa_sign(&RSA_PKCS1_SHA256, base)));
    let p256 = key(SignatureAlgorithm::EcdsaP256Sha256, &ec_pem).unwrap();
    assert!(p256.verify(base, ec.sign(&random, base).unwrap().as_ref()));
    assert!(key(SignatureAlgorithm::EcdsaP256Sha256, &rsa_pem).is_err());
    assert!(key(SignatureAlgorithm::RsaPssSha512, ED25519_PEM).is_err());
    assert!(key(SignatureAlgorithm::Ed25519, "no PEM").is_err());
    assert!(key(SignatureAlgorithm::HmacSha256, ED25519_PEM).is_err());
    assert!(SignatureKey::secret("k".into(), consumer(), &[7; 31]).is_err());
}
