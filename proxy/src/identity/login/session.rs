//! What the sealed cookies say: a sign-in that has begun, and a session.

use std::sync::Arc;

use aws_lc_rs::rand;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{
    Claims, Scopes, TokenMarks,
    claims::claim,
    jwt::{VerifiedToken, sha256},
};

/// Claims of an ID token that say something about that token only.
const PASSING: [&str; 7] = ["nonce", "at_hash", "c_hash", "s_hash", "exp", "nbf", "jti"];

/// Between the browser's leaving for the provider and its coming back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    /// Where the browser wanted to go: path and query.
    pub(super) back: String,
    pub(super) redirect_uri: String,
    pub(super) at_s: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    /// Of this gateway's own.
    pub(super) id: String,
    pub(super) sub: String,
    /// The provider's session.
    pub(super) sid: Option<String>,
    /// Seconds since 1970, all of them.
    pub(super) signed_in_s: u64,
    pub(super) ends_s: u64,
    pub(super) refresh_s: Option<u64>,
    pub(super) refresh_token: Option<String>,
    pub(super) scope: String,
    pub(super) claims: Claims,
}

impl Session {
    /// What the session is to those who ask who is calling: a token that the cookie stands for.
    pub(super) fn token(&self, issuer: &str, client_id: &str, consumer_claim: Option<&str>) -> VerifiedToken {
        let marks = TokenMarks {
            sha256: sha256(self.id.as_bytes()),
            twin_sha256: None,
            issuer: Some(issuer.into()),
            subject: Some(self.sub.as_str().into()),
            jti: None,
            sid: self.sid.as_deref().map(Into::into),
            client: Some(client_id.into()),
            kid: None,
            issued_at: Some(self.signed_in_s),
        };
        let consumer = consumer_claim.and_then(|name| claim(&self.claims, name)?.as_str()).map(Into::into);
        VerifiedToken {
            marks: Arc::new(marks),
            scopes: Scopes::from_words(&self.scope),
            consumer,
            groups: Vec::new(),
            expires: self.ends_s,
            certificate_sha256: None,
            claims: Arc::new(self.claims.clone()),
            signed_by: None,
        }
    }

    /// Takes over what a newer ID token says.
    pub(super) fn take_claims(&mut self, claims: &Claims) {
        self.sid = claims.get("sid").and_then(Value::as_str).map(str::to_owned).or(self.sid.take());
        self.claims = claims.clone();
        self.claims.retain(|name, _| !PASSING.contains(&name.as_str()));
    }
}

/// 256 bits nobody can guess. None without randomness.
pub(super) fn random() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(BASE64URL_NOPAD.encode(&bytes))
}

/// S256 of RFC 7636 §4.2.
pub(super) fn challenge(verifier: &str) -> String {
    BASE64URL_NOPAD.encode(&sha256(verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
