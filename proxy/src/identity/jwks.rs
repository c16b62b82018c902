//! A set of public keys (RFC 7517) as verification needs it: what cannot be used is left out, what is too weak too.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use jsonwebtoken::DecodingKey;
use serde_json::Value;

use super::{
    Claims,
    algorithm::{Algorithm, Family, Verifier},
    claims::{base64url, object},
    jwt::sha256,
};

/// Bytes of a whole document.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Usable keys of one set.
pub const KEYS_MAX: usize = 128;
/// Bytes of a key's id, here and in a token.
pub const KID_BYTES_MAX: usize = 256;
/// Keys that are tried for one token: those of one id, or all that fit if the token names none.
const TRIES_MAX: usize = 4;
/// As long as the hash of HS256 (RFC 7518 §3.2); a shorter one can be guessed from any token.
pub const SECRET_BYTES_MIN: usize = 32;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const RSA_EXPONENT_BYTES_MAX: usize = 4;

/// Numbers key sets, so that what was verified with one is not taken for verified with another.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub struct KeySet {
    id: u64,
    keys: Vec<Key>,
    skipped: usize,
}

pub(super) struct Key {
    pub(super) kid: Option<Arc<str>>,
    family: Family,
    /// The key's own `alg`, if it has one: then no other.
    algorithm: Option<Algorithm>,
    pub(super) verifier: Verifier,
    /// SHA-256 of what it verifies with, in whatever words and under whatever id it is listed.
    pub(super) material: [u8; 32],
    /// SHA-256 of all that matters here.
    mark: [u8; 32],
}

/// Why a document is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    #[error("the key set has more than {JWKS_BYTES_MAX} bytes")]
    TooLarge,
    #[error("not a JSON object with a list `keys`, each name once")]
    Malformed,
    #[error("more than {KEYS_MAX} usable keys")]
    TooManyKeys,
    #[error("no usable key: RSA of 2048 to 8192 bits, EC P-256, P-384, P-521 or Ed25519, for signatures")]
    NoUsableKey,
    #[error("a secret has {SECRET_BYTES_MIN} bytes or more")]
    WeakSecret,
}

impl KeySet {
    /// Keys of unknown kinds, for encryption, with a private part or too weak are skipped (RFC 7517 §5).
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLarge);
        }
        let document = object(json).ok_or(JwksError::Malformed)?;
        let listed = document.get("keys").and_then(Value::as_array).ok_or(JwksError::Malformed)?;
        let keys: Vec<Key> = listed.iter().filter_map(|it| Key::parse(it.as_object()?)).take(KEYS_MAX + 1).collect();
        match keys.len() {
            0 => Err(JwksError::NoUsableKey),
            len if len > KEYS_MAX => Err(JwksError::TooManyKeys),
            len => Ok(Self::new(keys, listed.len() - len)),
        }
    }

    /// The one secret of an issuer whose tokens are HS*. No document makes such a key.
    pub fn secret(secret: &[u8]) -> Result<Self, JwksError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(JwksError::WeakSecret);
        }
        let verifier = Verifier::Library(DecodingKey::from_secret(secret));
        let mark = sha256(secret);
        let key = Key { kid: None, family: Family::Hmac, algorithm: None, verifier, material: mark, mark };
        Ok(Self::new(vec![key], 0))
    }

    fn new(keys: Vec<Key>, skipped: usize) -> Self {
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), keys, skipped }
    }

    /// Differs from that of every other set of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys of the document that are not used.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The id only selects; whether the key takes the algorithm is the key's decision. A secret has no id and takes
    /// every one, for there is no other to choose.
    pub(super) fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        let chosen = move |key: &&Key| key.family == Family::Hmac || kid.is_none() || key.kid.as_deref() == kid;
        self.keys.iter().filter(chosen).filter(move |key| key.takes(algorithm)).take(TRIES_MAX)
    }

    /// What the keys are, in whatever order and words they were listed.
    pub(super) fn marks(&self) -> Vec<[u8; 32]> {
        let mut marks: Vec<_> = self.keys.iter().map(|key| key.mark).collect();
        marks.sort_unstable();
        marks
    }

    pub(super) fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.family == Family::Hmac || key.kid.as_deref() == Some(kid))
    }
}

impl Key {
    fn takes(&self, algorithm: Algorithm) -> bool {
        self.family.takes(algorithm) && self.algorithm.is_none_or(|own| own == algorithm)
    }

    fn parse(jwk: &Claims) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| base64url(text(name)?);
        if !is_for_verifying(jwk) {
            return None;
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().filter(|kid| kid.len() <= KID_BYTES_MAX)?.into()),
        };
        let (family, (verifier, material)) = match (text("kty")?, text("crv")) {
            ("RSA", _) => (Family::Rsa, rsa(bytes("n")?, bytes("e")?)?),
            ("EC", Some("P-256")) => (Family::P256, point(32, bytes("x")?, bytes("y")?)?),
            ("EC", Some("P-384")) => (Family::P384, point(48, bytes("x")?, bytes("y")?)?),
            ("EC", Some("P-521")) => (Family::P521, point(66, bytes("x")?, bytes("y")?)?),
            ("OKP", Some("Ed25519")) => {
                let point = bytes("x").filter(|it| it.len() == 32)?;
                (Family::Ed25519, (Verifier::Library(DecodingKey::from_ed_der(&point)), sha256(&point)))
            }
            // Above all `oct`: a secret that a document tells everybody is none.
            _ => return None,
        };
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(word) => Some(word.as_str()?.parse().ok().filter(|it| family.takes(*it))?),
        };
        let all = ["kid", "kty", "crv", "alg", "n", "e", "x", "y"].map(|name| text(name).unwrap_or_default());
        Some(Self { kid, family, algorithm, verifier, material, mark: sha256(all.join("\0").as_bytes()) })
    }
}

/// `use` and `key_ops` (RFC 7517 §4.2, §4.3), and no private part: whoever publishes it has given the key away.
fn is_for_verifying(jwk: &Claims) -> bool {
    let signs = jwk.get("use").is_none_or(|it| it == "sig");
    let verifies = match jwk.get("key_ops") {
        None => true,
        Some(operations) => operations.as_array().is_some_and(|list| list.iter().any(|it| it == "verify")),
    };
    signs && verifies && !jwk.contains_key("d")
}

/// With the hash of its numbers: those of other families have other lengths, or are points of other curves.
fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<(Verifier, [u8; 32])> {
    let significant = |bytes: &[u8]| bytes.iter().position(|it| *it != 0).map(|zeros| bytes[zeros..].to_vec());
    let (n, e) = (significant(&n)?, significant(&e)?);
    let bits = n.len() * 8 - n[0].leading_zeros() as usize;
    let odd = e.last().is_some_and(|last| last % 2 == 1) && e != [1];
    let usable = RSA_BITS.contains(&bits) && e.len() <= RSA_EXPONENT_BYTES_MAX && odd;
    let material = || sha256(&[&(n.len() as u64).to_be_bytes()[..], &n[..], &e[..]].concat());
    usable.then(|| (Verifier::Library(DecodingKey::from_rsa_raw_components(&n, &e)), material()))
}

/// Coordinates have the full length (RFC 7518 §6.2.1.2). That the point lies on the curve is checked at each use.
fn point(len: usize, x: Vec<u8>, y: Vec<u8>) -> Option<(Verifier, [u8; 32])> {
    if x.len() != len || y.len() != len {
        return None;
    }
    let bytes = [&[4], &x[..], &y[..]].concat();
    let material = sha256(&bytes);
    let verifier = match len {
        66 => Verifier::P521(bytes),
        _ => Verifier::Library(DecodingKey::from_ec_der(&bytes)),
    };
    Some((verifier, material))
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids = self.keys.iter().map(|key| key.kid.as_deref().unwrap_or("-"));
        f.debug_list().entries(kids).finish()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use serde_json::json;

    use super::*;

    fn number(bits: usize) -> String {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] = 0xff >> (bytes.len() * 8 - bits);
        BASE64URL_NOPAD.encode(&bytes)
    }

    fn rsa_key(bits: usize) -> Value {
        json!({"kty": "RSA", "kid": "a", "n": number(bits), "e": "AQAB"})
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn usable(keys: &[Value]) -> Result<usize, JwksError> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).map(|set| set.len())
    }

    #[test]
    fn only_keys_that_can_verify_are_taken() {
        let check = |key: Value, expected: bool| {
            assert_eq!(usable(std::slice::from_ref(&key)).is_ok(), expected, "{key}");
        };
        check(rsa_key(2048), true);
        check(rsa_key(2047), false);
        check(rsa_key(1024), false);
        check(rsa_key(8192), true);
        check(rsa_key(8193), false);
        check(with(rsa_key(2048), "e", json!("AQ")), false);
        check(with(rsa_key(2048), "e", json!("AA")), false);
        check(with(rsa_key(2048), "e", json!("Ag")), false);
        check(with(rsa_key(2048), "e", json!("AQAB=")), false);
        check(with(rsa_key(2048), "use", json!("sig")), true);
        check(with(rsa_key(2048), "use", json!("enc")), false);
        check(with(rsa_key(2048), "key_ops", json!(["verify"])), true);
        check(with(rsa_key(2048), "key_ops", json!(["encrypt"])), false);
        check(with(rsa_key(2048), "key_ops", json!("verify")), false);
        check(with(rsa_key(2048), "alg", json!("PS256")), true);
        check(with(rsa_key(2048), "alg", json!("ES256")), false);
        check(with(rsa_key(2048), "alg", json!("HS256")), false);
        check(with(rsa_key(2048), "alg", json!("none")), false);
        check(with(rsa_key(2048), "d", json!("AQAB")), false);
        check(with(rsa_key(2048), "kid", json!("k".repeat(KID_BYTES_MAX + 1))), false);
        check(with(rsa_key(2048), "kid", json!(7)), false);
        let x = |len| BASE64URL_NOPAD.encode(&vec![7; len]);
        check(json!({"kty": "EC", "crv": "P-256", "x": x(32), "y": x(32)}), true);
        check(json!({"kty": "EC", "crv": "P-256", "x": x(31), "y": x(32)}), false);
        check(json!({"kty": "EC", "crv": "P-384", "x": x(32), "y": x(32)}), false);
        check(json!({"kty": "EC", "crv": "P-521", "x": x(66), "y": x(66)}), true);
        check(json!({"kty": "EC", "crv": "secp256k1", "x": x(32), "y": x(32)}), false);
        check(json!({"kty": "OKP", "crv": "Ed25519", "x": x(32)}), true);
        check(json!({"kty": "OKP", "crv": "X25519", "x": x(32)}), false);
        check(json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}), false);
        check(json!({"kty": "AKP", "pub": "AQAB"}), false);
    }

    #[test]
    fn what_is_unknown_is_skipped_and_the_rest_stands() {
        let keys = [json!({"kty": "AKP"}), rsa_key(2048), json!(7), rsa_key(512)];
        let set = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        assert_eq!((set.len(), set.skipped()), (1, 3));
    }

    #[test]
    fn a_document_is_bounded_and_unambiguous() {
        let check = |json: &str, expected: JwksError| {
            assert_eq!(KeySet::parse(json.as_bytes()).unwrap_err(), expected);
        };
        check(r#"{"keys":[],"keys":[]}"#, JwksError::Malformed);
        check(r#"{"keys":{}}"#, JwksError::Malformed);
        check(r#"{"keys":[]}"#, JwksError::NoUsableKey);
        check("<html>", JwksError::Malformed);
        check(&" ".repeat(JWKS_BYTES_MAX + 1), JwksError::TooLarge);
        let x = BASE64URL_NOPAD.encode(&[7; 32]);
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
        assert_eq!(usable(&vec![key.clone(); KEYS_MAX]), Ok(KEYS_MAX));
        assert_eq!(usable(&vec![key; KEYS_MAX + 1]), Err(JwksError::TooManyKeys));
    }

    #[test]
    fn a_short_secret_is_no_key() {
        assert_eq!(KeySet::secret(b"").unwrap_err(), JwksError::WeakSecret);
        assert_eq!(KeySet::secret(&[7; SECRET_BYTES_MIN - 1]).unwrap_err(), JwksError::WeakSecret);
        assert_eq!(KeySet::secret(&[7; SECRET_BYTES_MIN]).unwrap().len(), 1);
    }

    #[test]
    fn an_id_selects_and_few_are_tried() {
        let keys: Vec<Value> = (0..100).map(|_| rsa_key(2048)).collect();
        let set = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        assert_eq!(set.candidates(Some("a"), Algorithm::RS256).count(), TRIES_MAX);
        assert_eq!(set.candidates(None, Algorithm::RS256).count(), TRIES_MAX);
        assert_eq!(set.candidates(Some("b"), Algorithm::RS256).count(), 0);
        assert_eq!(set.candidates(Some("a"), Algorithm::HS256).count(), 0);
    }
}
