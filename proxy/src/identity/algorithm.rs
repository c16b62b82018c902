//! The algorithms of signed tokens (RFC 7518 §3, RFC 8037) and the one place where a signature is verified.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, VerificationAlgorithm};
use jsonwebtoken::DecodingKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

/// What a key can do. Decided by the key, never by the token that comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// A secret; only ever one that the operator gave.
    Hmac,
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

/// A public key or a secret, ready to verify with.
#[derive(Clone)]
pub(super) enum Verifier {
    Library(DecodingKey),
    /// An uncompressed point: the library knows no ES512.
    P521(Vec<u8>),
}

impl Algorithm {
    pub const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    fn library(self) -> Option<jsonwebtoken::Algorithm> {
        use jsonwebtoken::Algorithm as Library;
        Some(match self {
            Self::HS256 => Library::HS256,
            Self::HS384 => Library::HS384,
            Self::HS512 => Library::HS512,
            Self::RS256 => Library::RS256,
            Self::RS384 => Library::RS384,
            Self::RS512 => Library::RS512,
            Self::PS256 => Library::PS256,
            Self::PS384 => Library::PS384,
            Self::PS512 => Library::PS512,
            Self::ES256 => Library::ES256,
            Self::ES384 => Library::ES384,
            Self::EdDSA => Library::EdDSA,
            Self::ES512 => return None,
        })
    }
}

impl Family {
    pub(super) fn takes(self, algorithm: Algorithm) -> bool {
        use Algorithm::*;
        match self {
            Self::Hmac => matches!(algorithm, HS256 | HS384 | HS512),
            Self::Rsa => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Self::P256 => algorithm == ES256,
            Self::P384 => algorithm == ES384,
            Self::P521 => algorithm == ES512,
            Self::Ed25519 => algorithm == EdDSA,
        }
    }
}

impl Verifier {
    /// `signature` in base64url, as the token has it.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        match self {
            Self::Library(key) => algorithm.library().is_some_and(|algorithm| {
                jsonwebtoken::crypto::verify(signature, message, key, algorithm).unwrap_or(false)
            }),
            Self::P521(point) => {
                let signature = super::claims::base64url(signature);
                algorithm == Algorithm::ES512
                    && signature.is_some_and(|it| ECDSA_P521_SHA512_FIXED.verify_sig(point, message, &it).is_ok())
            }
        }
    }
}

/// Exact words only: `none`, in whatever case, is no algorithm.
impl FromStr for Algorithm {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|it| it.word() == word).ok_or(())
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::resource::Algorithm as Word;

    use super::*;

    #[test]
    fn every_word_of_the_configuration_is_an_algorithm() {
        let words: Vec<&str> = Word::ALL.iter().map(|it| it.word()).collect();
        assert!(words.iter().all(|word| word.parse::<Algorithm>().is_ok_and(|it| it.word() == *word)), "{words:?}");
        assert!(Algorithm::ALL.iter().all(|it| words.contains(&it.word())), "{words:?}");
    }
}
