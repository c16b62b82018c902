//! An identity provider in the test's own hands: one ES256 key, its JWKS, and tokens signed with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://idp.test";
pub const AUDIENCE: &str = "orders";
const KEY_ID: &str = "k1";
/// How long ago tokens were issued, seconds.
const AGE_S: i64 = 1_800;

pub struct Issuer {
    signing: EncodingKey,
    public: Vec<u8>,
}

impl Issuer {
    pub fn new() -> anyhow::Result<Self> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref())?;
        let public = pair.public_key().as_ref().to_vec();
        Ok(Self { signing: EncodingKey::from_ec_der(document.as_ref()), public })
    }

    /// RFC 7517, one key.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.public[1..].split_at(32);
        let [x, y] = [x, y].map(|it| BASE64URL_NOPAD.encode(it));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y }] })
    }

    /// A token of `subject`, good for `life` from now on, with `jti` as its id. It was issued some time ago: a node whose
    /// clock is behind takes it too.
    pub fn token(&self, subject: &str, jti: &str, life: Duration) -> anyhow::Result<String> {
        self.token_until(subject, jti, i64::try_from(life.as_secs())?)
    }

    /// As `token`; it ends so many seconds from now, or has ended that many ago.
    pub fn token_until(&self, subject: &str, jti: &str, ends_s: i64) -> anyhow::Result<String> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "jti": jti,
            "iat": now - AGE_S, "exp": now + ends_s, "scope": "orders:read",
        });
        self.sign(&claims)
    }

    /// A token that says just this.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = Header { kid: Some(KEY_ID.into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.signing).context("signing a token")
    }
}
