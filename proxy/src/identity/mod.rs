//! Who asks: credentials and what is proven by them. Looked up in tables that the control plane publishes; works without
//! it.

pub mod algorithm;
pub mod authorize;
pub(crate) mod auths;
mod claims;
pub mod client_credentials;
pub mod content_digest;
pub mod directory;
pub mod discovery;
pub mod egress;
pub(crate) mod events;
pub mod fetch;
pub(crate) mod fields;
mod flights;
pub(crate) mod form;
mod guard;
pub mod handed;
pub mod inspected;
pub mod introspection;
pub mod jwks;
pub mod jwt;
pub mod keeper;
pub mod keys;
pub(crate) mod ladder;
mod log_clock;
pub(crate) mod login;
pub(crate) mod mtls;
pub(crate) mod passwords;
mod presented;
mod recent;
mod replaced;
pub mod revoked;
pub mod schedule;
pub(crate) mod shown;
pub mod signature;
pub(crate) mod streams;
mod structured;
#[cfg(test)]
#[path = "../../tests/all/tokens/mod.rs"]
mod tokens;
pub mod twin;
pub mod verified;

pub use self::login::sign_in;

use std::{fmt, sync::Arc};

use quorumgate_model::resource::{Consumer, Name};

/// The verified claims of a token.
pub type Claims = serde_json::Map<String, serde_json::Value>;

/// Who asks, as far as was proven.
#[derive(Debug, Clone)]
pub struct Caller {
    pub consumer: Option<Arc<Consumer>>,
    pub credential: Option<CredentialRef>,
    pub method: AuthMethod,
    /// The auth that took the credential.
    pub auth: Name,
    pub scopes: Scopes,
    /// Beside those of the consumer: what a token says.
    pub groups: Arc<[Box<str>]>,
    pub claims: Option<Arc<Claims>>,
    pub subject: RevocationSubject,
    /// Seconds since 1970 after which the credential proves nothing any more, without skew. None: it does not end, or
    /// the cluster's own clock says when.
    pub expires: Option<u64>,
}

/// Everyone that a request has shown itself to be: more than one where a route asks for all of several auths.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The first one with a consumer, else the first one.
    pub(crate) caller: Caller,
    pub(crate) also: Vec<Caller>,
    /// When streams must end: seconds since 1970, with the skew that was granted at the start.
    pub(crate) ends_at: Option<u64>,
    /// What the upstream is told.
    pub(crate) fields: fields::Fields,
    /// What may be judged anew while a stream goes on; stored credentials are looked up instead.
    presented: Vec<presented::Presented>,
}

/// Which credential, for logs, limits and the upstream; never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRef {
    /// A key's id, a token's jti, a certificate's fingerprint.
    pub id: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    ApiKey,
    Jwt,
    Mtls,
    Basic,
    Signature,
    Introspection,
    OidcLogin,
    /// Nothing was shown, and the route has a consumer for that.
    Anonymous,
}

/// Why a credential proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// The request has none of this kind.
    Missing,
    /// What is wrong with it, for the log and the client; says nothing of secrets.
    Invalid(&'static str),
    Expired,
    Revoked,
    SignatureInvalid,
    /// It cannot be told now: what is needed for that is out of reach.
    Unavailable(&'static str),
}

/// What the caller may do, in the order of the credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Option<Arc<[Box<str>]>>);

/// Every value by which a caller can be revoked. Made once for a credential or a verified token, read on every request,
/// and cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationSubject {
    pub consumer: Option<Name>,
    /// The id of a stored credential (API key or Basic user).
    pub credential: Option<Arc<str>>,
    pub token: Option<Arc<TokenMarks>>,
    pub certificate: Option<Arc<CertificateMarks>>,
}

/// By what a token can be revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenMarks {
    pub sha256: [u8; 32],
    /// Of the one other text that says the same and is signed as well.
    pub twin_sha256: Option<[u8; 32]>,
    pub issuer: Option<Box<str>>,
    pub subject: Option<Box<str>>,
    pub jti: Option<Box<str>>,
    pub sid: Option<Box<str>>,
    /// `client_id`, else `azp`.
    pub client: Option<Box<str>>,
    pub kid: Option<Box<str>>,
    /// Seconds since 1970. None: it counts as issued before any instant.
    pub issued_at: Option<u64>,
}

/// By what a client certificate can be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMarks {
    /// SHA-256 of the issuer's name in DER.
    pub issuer_sha256: [u8; 32],
    /// Big-endian without leading zeros.
    pub serial: Box<[u8]>,
    pub spki_sha256: [u8; 32],
    /// SHA-256 of the whole certificate in DER: the `x5t#S256` of RFC 8705.
    pub sha256: [u8; 32],
}

impl Caller {
    /// Of the consumer, and of the token.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        let of_consumer = self.consumer.iter().flat_map(|consumer| consumer.groups.iter().map(String::as_str));
        of_consumer.chain(self.groups.iter().map(|group| &**group))
    }
}

impl Scopes {
    pub fn new<T: Into<Box<str>>>(scopes: impl IntoIterator<Item = T>) -> Self {
        let scopes: Arc<[Box<str>]> = scopes.into_iter().map(Into::into).collect();
        Self(Some(scopes).filter(|scopes| !scopes.is_empty()))
    }

    pub fn shared(scopes: Option<Arc<[Box<str>]>>) -> Self {
        Self(scopes.filter(|scopes| !scopes.is_empty()))
    }

    /// The `scope` of RFC 8693: words with spaces between them.
    pub fn from_words(words: &str) -> Self {
        Self::new(words.split(' ').filter(|word| !word.is_empty()))
    }

    pub fn has(&self, scope: &str) -> bool {
        self.iter().any(|it| it == scope)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|scopes| scopes.iter()).map(|scope| &**scope)
    }
}

impl AuthMethod {
    /// As logs and metrics name it: the word of the auth's kind.
    pub fn word(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Mtls => "mtls",
            Self::Basic => "basic",
            Self::Signature => "signature",
            Self::Introspection => "introspection",
            Self::OidcLogin => "oidc_login",
            Self::Anonymous => "anonymous",
        }
    }
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no credential",
            Self::Invalid(reason) | Self::Unavailable(reason) => reason,
            Self::Expired => "the credential has expired",
            Self::Revoked => "the credential was revoked",
            Self::SignatureInvalid => "the signature does not match",
        })
    }
}

impl std::error::Error for AuthFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_whole_words() {
        let scopes = Scopes::from_words("orders:read  orders:write");
        assert!(scopes.has("orders:read") && scopes.has("orders:write"));
        assert!(!scopes.has("orders") && !scopes.has(""));
        assert_eq!(Scopes::from_words(" "), Scopes::default());
    }
}
