//! Ways to prove who is calling, and one to prove who we are to an upstream.

mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use words::{AuthWords, JwtWords, SignatureKeyWords, SignatureWords};

use super::{Name, Secret, word::word_enum};
use crate::units::Span;

/// How many audiences, scopes, components and keys an auth may list, each.
pub const AUTH_LIST_MAX: usize = 64;
/// Bytes of a JWKS, fetched or written down.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// The longest lifetime that may be allowed to a token.
pub const MAX_LIFETIME_MAX: Span = Span::secs(366 * 24 * 3600);
/// The most that two clocks may differ by.
pub const SKEW_MAX: Span = Span::secs(300);
/// RFC 7662 answers are reused for this long at most: a revoked token lives no longer than that here.
pub const INTROSPECTION_CACHE_MAX: Span = Span::secs(30);
/// The longest that a browser may stay signed in.
pub const SESSION_MAX: Span = Span::secs(30 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AuthWords", into = "AuthWords")]
pub struct Auth {
    pub name: Name,
    pub labels: BTreeMap<String, String>,
    pub owner: String,
    pub description: String,
    pub kind: AuthKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthKind {
    ApiKey(ApiKeyAuth),
    Jwt(JwtAuth),
    Mtls(MtlsAuth),
    /// Users are credentials of kind basic.
    Basic(BasicAuth),
    Signature(SignatureAuth),
    Introspection(IntrospectionAuth),
    OidcLogin(OidcLoginAuth),
    /// For an upstream's `auth`, not for a route's.
    ClientCredentials(ClientCredentialsAuth),
    UpstreamKey(UpstreamKeyAuth),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKeyAuth {
    /// Lower case. `Authorization: Bearer|ApiKey` is always read too.
    pub header: String,
    /// The query parameter that is read too.
    pub query: Option<String>,
}

impl Default for ApiKeyAuth {
    fn default() -> Self {
        Self { header: "x-api-key".into(), query: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuth {
    pub issuer: String,
    /// At least one; a token must name one of them.
    pub audience: Vec<String>,
    /// At least one; all of them for secrets, or none.
    pub algorithms: Vec<Algorithm>,
    pub keys: JwtKeys,
    /// None: a token's bearer is no consumer, and only its claims and scopes tell who it is.
    pub consumer_claim: Option<String>,
    pub groups_claim: Option<String>,
    pub scopes_claim: String,
    pub skew: Span,
    /// A token that lives longer than this from now is refused: revocations must outlive tokens.
    pub max_lifetime: Span,
    /// What the header's `typ` must be, such as `at+jwt` (RFC 9068).
    pub typ: Option<String>,
    /// Keys may be fetched from loopback and private addresses, and by http.
    pub allow_private: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    Url(String),
    /// OpenID Connect Discovery 1.0 at the issuer.
    Discovery,
    /// A JWKS as compact JSON.
    Inline(String),
    /// For HS256, HS384 and HS512.
    Secret(Secret),
}

word_enum!(Algorithm {
    Rs256 = "RS256", Rs384 = "RS384", Rs512 = "RS512",
    Ps256 = "PS256", Ps384 = "PS384", Ps512 = "PS512",
    Es256 = "ES256", Es384 = "ES384", Es512 = "ES512", EdDsa = "EdDSA",
    Hs256 = "HS256", Hs384 = "HS384", Hs512 = "HS512",
});

impl Algorithm {
    pub const DEFAULT: [Self; 2] = [Self::Rs256, Self::Es256];

    pub fn is_by_secret(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MtlsAuth {
    /// A certificate authority.
    pub ca: Name,
    #[serde(default)]
    pub consumer_from: ConsumerFrom,
}

word_enum!(
    /// Which part of a client's certificate names the consumer.
    #[derive(Default)]
    ConsumerFrom {
        #[default]
        SanUri = "san_uri",
        SanDns = "san_dns",
        SanEmail = "san_email",
        SubjectCn = "subject_cn",
        Subject = "subject",
        /// SHA-256 of the certificate in lower-case hex.
        Fingerprint = "fingerprint",
    }
);

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    pub realm: Option<String>,
}

/// RFC 9421.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureAuth {
    /// What a signature must cover at least.
    pub components: Vec<String>,
    /// Since its `created`.
    pub max_age: Span,
    pub keys: Vec<SignatureKey>,
}

impl Default for SignatureAuth {
    fn default() -> Self {
        Self { components: vec!["@method".into(), "@target-uri".into()], max_age: Span::secs(300), keys: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureKey {
    /// The signature's `keyid`.
    pub id: String,
    pub algorithm: SignatureAlgorithm,
    pub key: VerifyingKey,
    pub consumer: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyingKey {
    /// PEM, SubjectPublicKeyInfo.
    Public(String),
    Secret(Secret),
}

word_enum!(
    /// RFC 9421 section 6.2.2.
    SignatureAlgorithm {
        Ed25519 = "ed25519",
        EcdsaP256Sha256 = "ecdsa-p256-sha256",
        RsaPssSha512 = "rsa-pss-sha512",
        RsaV15Sha256 = "rsa-v1_5-sha256",
        HmacSha256 = "hmac-sha256",
    }
);

/// RFC 7662.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionAuth {
    pub endpoint: String,
    pub client_id: String,
    pub client_secret: Secret,
    /// 0s: every request asks.
    #[serde(default = "IntrospectionAuth::cache_default")]
    pub cache: Span,
    #[serde(default)]
    pub on_error: OnError,
    #[serde(default)]
    pub consumer_claim: Option<String>,
    #[serde(default)]
    pub allow_private: bool,
}

impl IntrospectionAuth {
    pub fn cache_default() -> Span {
        INTROSPECTION_CACHE_MAX
    }
}

word_enum!(
    /// What becomes of a request while the introspection endpoint does not answer.
    #[derive(Default)]
    OnError {
        #[default]
        Deny = "deny",
        /// An answer that was good a short time ago is good.
        AllowCached = "allow_cached",
    }
);

/// A browser's login: authorization code with PKCE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcLoginAuth {
    pub issuer: String,
    pub client_id: String,
    pub client_secret: Secret,
    #[serde(default = "OidcLoginAuth::scopes_default")]
    pub scopes: Vec<String>,
    #[serde(default = "OidcLoginAuth::callback_path_default")]
    pub callback_path: String,
    #[serde(default = "OidcLoginAuth::logout_path_default")]
    pub logout_path: String,
    #[serde(default = "OidcLoginAuth::session_default")]
    pub session: Span,
    #[serde(default)]
    pub consumer_claim: Option<String>,
    #[serde(default)]
    pub allow_private: bool,
}

impl OidcLoginAuth {
    pub fn scopes_default() -> Vec<String> {
        vec!["openid".into()]
    }
    pub fn callback_path_default() -> String {
        "/callback".into()
    }
    pub fn logout_path_default() -> String {
        "/logout".into()
    }
    pub fn session_default() -> Span {
        Span::secs(8 * 3600)
    }
}

/// RFC 6749 section 4.4: a token of our own for an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentialsAuth {
    pub token_endpoint: String,
    pub client_id: String,
    pub client_secret: Secret,
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub allow_private: bool,
}

/// A key of ours that an upstream is shown with every request, such as a provider of models gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamKeyAuth {
    #[serde(default = "UpstreamKeyAuth::header_default")]
    pub header: String,
    /// The word before the key; None: `Bearer` in Authorization, else none. Empty: none.
    #[serde(default)]
    pub scheme: Option<String>,
    pub key: Secret,
}

impl UpstreamKeyAuth {
    pub fn header_default() -> String {
        "authorization".into()
    }

    /// What stands before the key.
    pub fn scheme(&self) -> &str {
        let usual = if self.header == "authorization" { "Bearer" } else { "" };
        self.scheme.as_deref().unwrap_or(usual)
    }
}

impl AuthKind {
    /// The word of the file: `api_key`.
    pub fn word(&self) -> &'static str {
        match self {
            AuthKind::ApiKey(_) => "api_key",
            AuthKind::Jwt(_) => "jwt",
            AuthKind::Mtls(_) => "mtls",
            AuthKind::Basic(_) => "basic",
            AuthKind::Signature(_) => "signature",
            AuthKind::Introspection(_) => "introspection",
            AuthKind::OidcLogin(_) => "oidc_login",
            AuthKind::ClientCredentials(_) => "client_credentials",
            AuthKind::UpstreamKey(_) => "upstream_key",
        }
    }
}

impl Auth {
    /// Every secret with its field, such as `jwt.secret`.
    pub fn secrets(&self) -> Vec<(String, &Secret)> {
        match &self.kind {
            AuthKind::Jwt(JwtAuth { keys: JwtKeys::Secret(it), .. }) => vec![("jwt.secret".into(), it)],
            AuthKind::Introspection(it) => vec![("introspection.client_secret".into(), &it.client_secret)],
            AuthKind::OidcLogin(it) => vec![("oidc_login.client_secret".into(), &it.client_secret)],
            AuthKind::ClientCredentials(it) => vec![("client_credentials.client_secret".into(), &it.client_secret)],
            AuthKind::UpstreamKey(it) => vec![("upstream_key.key".into(), &it.key)],
            AuthKind::Signature(it) => it
                .keys
                .iter()
                .filter_map(|key| match &key.key {
                    VerifyingKey::Secret(secret) => Some((key.secret_field(), secret)),
                    VerifyingKey::Public(_) => None,
                })
                .collect(),
            AuthKind::ApiKey(_) | AuthKind::Jwt(_) | AuthKind::Mtls(_) | AuthKind::Basic(_) => Vec::new(),
        }
    }

    /// The same places as `secrets`, to be written to.
    pub fn secrets_mut(&mut self) -> Vec<(String, &mut Secret)> {
        match &mut self.kind {
            AuthKind::Jwt(JwtAuth { keys: JwtKeys::Secret(it), .. }) => vec![("jwt.secret".into(), it)],
            AuthKind::Introspection(it) => vec![("introspection.client_secret".into(), &mut it.client_secret)],
            AuthKind::OidcLogin(it) => vec![("oidc_login.client_secret".into(), &mut it.client_secret)],
            AuthKind::ClientCredentials(it) => {
                vec![("client_credentials.client_secret".into(), &mut it.client_secret)]
            }
            AuthKind::UpstreamKey(it) => vec![("upstream_key.key".into(), &mut it.key)],
            AuthKind::Signature(it) => it
                .keys
                .iter_mut()
                .filter_map(|key| {
                    let field = key.secret_field();
                    match &mut key.key {
                        VerifyingKey::Secret(secret) => Some((field, secret)),
                        VerifyingKey::Public(_) => None,
                    }
                })
                .collect(),
            AuthKind::ApiKey(_) | AuthKind::Jwt(_) | AuthKind::Mtls(_) | AuthKind::Basic(_) => Vec::new(),
        }
    }
}

impl SignatureKey {
    /// By the key's id, not its place: a list that is put in another order keeps its secrets.
    fn secret_field(&self) -> String {
        format!("signature.keys.{}.secret", self.id)
    }
}
