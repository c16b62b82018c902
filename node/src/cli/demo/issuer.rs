//! The identity provider of the demo, as far as it needs one: a key made for this run, and tokens signed with it.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;

/// As `examples/demo.yaml` has them.
pub const ISSUER: &str = "https://idp.shop.test";
const AUDIENCE: &str = "shop";
const KEY_ID: &str = "demo";
const LIFE_S: u64 = 600;

pub struct Issuer {
    pair: EcdsaKeyPair,
}

impl Issuer {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)? })
    }

    /// The public key's coordinates, as a JWK has them.
    pub fn coordinates(&self) -> [String; 2] {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        [x, y].map(|it| BASE64URL_NOPAD.encode(it))
    }

    pub fn token(&self, subject: &str, jti: &str) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": KEY_ID});
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "jti": jti, "client_id": "acme", "iat": now,
            "exp": now + LIFE_S, "scope": "account:read",
        });
        let part = |it: serde_json::Value| BASE64URL_NOPAD.encode(it.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes())?;
        Ok(format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref())))
    }
}
