//! An identity provider's keys: makes tokens as good, or as bad, as a test wants them.
#![allow(dead_code)]

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::{KeySize, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Value, json};

pub enum Signer {
    Rsa { kid: &'static str, pair: RsaKeyPair },
    Ec { kid: &'static str, pair: EcdsaKeyPair, algorithm: &'static str },
    Ed { kid: &'static str, pair: Ed25519KeyPair },
    Secret(Vec<u8>),
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl Signer {
    pub fn rsa(kid: &'static str) -> Self {
        Self::Rsa { kid, pair: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    pub fn es256(kid: &'static str) -> Self {
        Self::ec(kid, "ES256", &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    pub fn es384(kid: &'static str) -> Self {
        Self::ec(kid, "ES384", &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    pub fn es512(kid: &'static str) -> Self {
        Self::ec(kid, "ES512", &ECDSA_P521_SHA512_FIXED_SIGNING)
    }

    pub fn ed25519(kid: &'static str) -> Self {
        Self::Ed { kid, pair: Ed25519KeyPair::generate().unwrap() }
    }

    fn ec(kid: &'static str, algorithm: &'static str, signing: &'static EcdsaSigningAlgorithm) -> Self {
        Self::Ec { kid, algorithm, pair: EcdsaKeyPair::generate(signing).unwrap() }
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::Ec { algorithm, .. } => algorithm,
            Self::Ed { .. } => "EdDSA",
            Self::Secret(_) => "HS256",
        }
    }

    pub fn kid(&self) -> &'static str {
        match self {
            Self::Rsa { kid, .. } | Self::Ec { kid, .. } | Self::Ed { kid, .. } => kid,
            Self::Secret(_) => "",
        }
    }

    /// The public key as a provider publishes it.
    pub fn jwk(&self) -> Value {
        match self {
            Self::Rsa { kid, pair } => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "use": "sig", "kid": kid, "n": base64url(&parts.n), "e": base64url(&parts.e)})
            }
            Self::Ec { kid, pair, algorithm } => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match *algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                json!({"kty": "EC", "crv": curve, "kid": kid, "x": base64url(x), "y": base64url(y)})
            }
            Self::Ed { kid, pair } => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(pair.public_key())})
            }
            Self::Secret(secret) => json!({"kty": "oct", "k": base64url(secret)}),
        }
    }

    /// The public key as a file has it: SubjectPublicKeyInfo of Ed25519 (RFC 8410 4).
    pub fn public_pem(&self) -> String {
        let Self::Ed { pair, .. } = self else { panic!("only Ed25519 is asked for") };
        let spki = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], pair.public_key().as_ref()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&spki))
    }

    pub fn header(&self) -> Value {
        json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.kid()})
    }

    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&self.header(), claims)
    }

    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&base64url(header.to_string()), &base64url(claims.to_string()))
    }

    /// Signs two parts that are already encoded, rightly or wrongly.
    pub fn token_of(&self, header: &str, payload: &str) -> String {
        let message = format!("{header}.{payload}");
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", base64url(signature))
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa { pair, .. } => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec { pair, .. } => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed { pair, .. } => pair.sign(message).as_ref().to_vec(),
            Self::Secret(secret) => hmac_sha256(secret, message),
        }
    }

    pub fn sign_pss(&self, message: &[u8]) -> Vec<u8> {
        let Self::Rsa { pair, .. } = self else { panic!("only RSA has PSS") };
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }
}

pub fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

pub fn jwks(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|it| it.jwk()).collect();
    json!({ "keys": keys }).to_string()
}
