//! The words of an auth in a file, where one of several fields may be given, and the checks that make an `Auth` of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    super::{Name, Secret, check},
    Algorithm, ApiKeyAuth, Auth, AuthKind, BasicAuth, ClientCredentialsAuth, INTROSPECTION_CACHE_MAX,
    IntrospectionAuth, JWKS_BYTES_MAX, JwtAuth, JwtKeys, MAX_LIFETIME_MAX, MtlsAuth, OidcLoginAuth, SESSION_MAX,
    SKEW_MAX, SignatureAlgorithm, SignatureAuth, SignatureKey, UpstreamKeyAuth, VerifyingKey,
};
use crate::{invalid::Invalid, units::Span};

const KIND_FIELDS: &str = "exactly one of api_key, jwt, mtls, basic, signature, introspection, oidc_login, \
                           client_credentials and upstream_key";
const KEYS_FIELDS: &str = "exactly one of jwks_url, discovery: true, jwks_inline (or jwks_file), secret_file (for HS*)";
const KEY_FIELDS: &str = "exactly one of public_key (or public_key_file), secret_file";
const BY_SECRET: &str = "HS256, HS384 and HS512 with a secret, and no others";
const BY_KEY: &str = "HS256, HS384 and HS512 only with a secret: one who may verify could sign as well";
/// A claim's name may be a path: `realm_access.roles`.
const CLAIM_BYTES_MAX: usize = 256;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthWords {
    pub name: Name,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub api_key: Option<ApiKeyAuth>,
    #[serde(default)]
    pub jwt: Option<JwtWords>,
    #[serde(default)]
    pub mtls: Option<MtlsAuth>,
    #[serde(default)]
    pub basic: Option<BasicAuth>,
    #[serde(default)]
    pub signature: Option<SignatureWords>,
    #[serde(default)]
    pub introspection: Option<IntrospectionAuth>,
    #[serde(default)]
    pub oidc_login: Option<OidcLoginAuth>,
    #[serde(default)]
    pub client_credentials: Option<ClientCredentialsAuth>,
    #[serde(default)]
    pub upstream_key: Option<UpstreamKeyAuth>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtWords {
    pub issuer: String,
    pub audience: Vec<String>,
    #[serde(default = "JwtWords::algorithms_default")]
    pub algorithms: Vec<Algorithm>,
    #[serde(default)]
    pub jwks_url: Option<String>,
    #[serde(default)]
    pub discovery: Option<bool>,
    #[serde(default)]
    pub jwks_inline: Option<serde_json::Value>,
    #[serde(default)]
    pub secret: Option<Secret>,
    #[serde(default)]
    pub consumer_claim: Option<String>,
    #[serde(default)]
    pub groups_claim: Option<String>,
    #[serde(default = "JwtWords::scopes_claim_default")]
    pub scopes_claim: String,
    #[serde(default = "JwtWords::skew_default")]
    pub skew: Span,
    #[serde(default = "JwtWords::max_lifetime_default")]
    pub max_lifetime: Span,
    #[serde(default)]
    pub typ: Option<String>,
    #[serde(default)]
    pub allow_private: bool,
}

impl JwtWords {
    pub fn algorithms_default() -> Vec<Algorithm> {
        Algorithm::DEFAULT.to_vec()
    }
    pub fn scopes_claim_default() -> String {
        "scope".into()
    }
    pub fn skew_default() -> Span {
        Span::secs(30)
    }
    pub fn max_lifetime_default() -> Span {
        Span::secs(24 * 3600)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignatureWords {
    pub components: Vec<String>,
    pub max_age: Span,
    pub keys: Vec<SignatureKeyWords>,
}

impl Default for SignatureWords {
    fn default() -> Self {
        SignatureAuth::default().into()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureKeyWords {
    pub id: String,
    pub algorithm: SignatureAlgorithm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    pub consumer: Name,
}

impl TryFrom<AuthWords> for Auth {
    type Error = Invalid;

    fn try_from(it: AuthWords) -> Result<Self, Invalid> {
        check::meta(&it.labels, &it.owner, &it.description)?;
        let jwt = it.jwt.map(|it| jwt(it).map_err(|invalid| invalid.under("jwt"))).transpose()?;
        let signature =
            it.signature.map(|it| signature(it).map_err(|invalid| invalid.under("signature"))).transpose()?;
        let given = [
            it.api_key.map(AuthKind::ApiKey),
            jwt.map(AuthKind::Jwt),
            it.mtls.map(AuthKind::Mtls),
            it.basic.map(AuthKind::Basic),
            signature.map(AuthKind::Signature),
            it.introspection.map(AuthKind::Introspection),
            it.oidc_login.map(AuthKind::OidcLogin),
            it.client_credentials.map(AuthKind::ClientCredentials),
            it.upstream_key.map(AuthKind::UpstreamKey),
        ];
        let mut given = given.into_iter().flatten();
        let Some(kind) = given.next() else {
            return Err(Invalid::field("").found("none of them").allowed(KIND_FIELDS));
        };
        if let Some(second) = given.next() {
            let found = format!("{} and {}", kind.word(), second.word());
            return Err(Invalid::field(second.word()).found(found).allowed(KIND_FIELDS));
        }
        let word = kind.word();
        let kind = checked(kind).map_err(|invalid| invalid.under(word))?;
        Ok(Self { name: it.name, labels: it.labels, owner: it.owner, description: it.description, kind })
    }
}

fn checked(mut kind: AuthKind) -> Result<AuthKind, Invalid> {
    match &mut kind {
        AuthKind::ApiKey(it) => api_key(it)?,
        // Checked with their words.
        AuthKind::Jwt(_) | AuthKind::Mtls(_) | AuthKind::Signature(_) => {}
        AuthKind::Basic(it) => basic(it)?,
        AuthKind::Introspection(it) => introspection(it)?,
        AuthKind::OidcLogin(it) => oidc_login(it)?,
        AuthKind::ClientCredentials(it) => client_credentials(it)?,
        AuthKind::UpstreamKey(it) => upstream_key(it)?,
    }
    Ok(kind)
}

fn api_key(it: &mut ApiKeyAuth) -> Result<(), Invalid> {
    it.header = check::header_name("header", &it.header)?;
    match it.query.as_deref() {
        Some("") => Err(Invalid::field("query").found("\"\"").allowed("a parameter's name, or null")),
        Some(name) => check::length("query", name, check::WORD_BYTES_MAX),
        None => Ok(()),
    }
}

fn jwt(it: JwtWords) -> Result<JwtAuth, Invalid> {
    check::text("issuer", &it.issuer, check::PATH_BYTES_MAX)?;
    if it.audience.is_empty() {
        return Err(Invalid::field("audience")
            .found("none")
            .allowed("at least one: a token for others is none for us"));
    }
    check::tags("audience", &it.audience, super::AUTH_LIST_MAX)?;
    let keys = jwt_keys(it.jwks_url, it.discovery, it.jwks_inline, it.secret)?;
    match &keys {
        JwtKeys::Url(url) => check::url("jwks_url", url, it.allow_private)?,
        JwtKeys::Discovery => check::url("issuer", &it.issuer, it.allow_private)?,
        JwtKeys::Secret(secret) => secret.check_signing("secret")?,
        JwtKeys::Inline(_) => {}
    }
    if it.algorithms.is_empty() {
        return Err(Invalid::field("algorithms").found("none").allowed(check::words(Algorithm::ALL, Algorithm::word)));
    }
    check::once("algorithms", &it.algorithms, |algorithm| algorithm.word().to_owned())?;
    let by_secret = matches!(keys, JwtKeys::Secret(_));
    if let Some(place) = it.algorithms.iter().position(|algorithm| algorithm.is_by_secret() != by_secret) {
        let wrong = Invalid::field(format!("algorithms[{place}]")).found(it.algorithms[place].word());
        return Err(wrong.allowed(if by_secret { BY_SECRET } else { BY_KEY }));
    }
    for (field, claim) in [("consumer_claim", &it.consumer_claim), ("groups_claim", &it.groups_claim)] {
        claim.as_ref().map_or(Ok(()), |claim| check::text(field, claim, CLAIM_BYTES_MAX))?;
    }
    check::text("scopes_claim", &it.scopes_claim, CLAIM_BYTES_MAX)?;
    check::span_up_to("skew", it.skew, Span::default(), SKEW_MAX)?;
    check::span_up_to("max_lifetime", it.max_lifetime, Span::secs(1), MAX_LIFETIME_MAX)?;
    it.typ.as_ref().map_or(Ok(()), |typ| check::text("typ", typ, check::WORD_BYTES_MAX))?;
    Ok(JwtAuth {
        issuer: it.issuer,
        audience: it.audience,
        algorithms: it.algorithms,
        keys,
        consumer_claim: it.consumer_claim,
        groups_claim: it.groups_claim,
        scopes_claim: it.scopes_claim,
        skew: it.skew,
        max_lifetime: it.max_lifetime,
        typ: it.typ,
        allow_private: it.allow_private,
    })
}

fn jwt_keys(
    url: Option<String>,
    discovery: Option<bool>,
    inline: Option<serde_json::Value>,
    secret: Option<Secret>,
) -> Result<JwtKeys, Invalid> {
    if discovery == Some(false) {
        return Err(Invalid::field("discovery").found("false").allowed(KEYS_FIELDS));
    }
    let inline = inline.map(|jwks| self::jwks(&jwks)).transpose()?;
    let given = [
        ("jwks_url", url.map(JwtKeys::Url)),
        ("discovery", discovery.map(|_| JwtKeys::Discovery)),
        ("jwks_inline", inline.map(JwtKeys::Inline)),
        ("secret", secret.map(JwtKeys::Secret)),
    ];
    let mut given = given.into_iter().filter_map(|(field, keys)| Some((field, keys?)));
    let Some((first, keys)) = given.next() else {
        return Err(Invalid::field("").found("no keys").allowed(KEYS_FIELDS));
    };
    match given.next() {
        None => Ok(keys),
        Some((second, _)) => Err(Invalid::field(second).found(format!("{first} and {second}")).allowed(KEYS_FIELDS)),
    }
}

/// RFC 7517 section 5, as compact JSON. What the keys are worth is found where they are used.
fn jwks(jwks: &serde_json::Value) -> Result<String, Invalid> {
    const FIELD: &str = "jwks_inline";
    let keys = jwks.get("keys").and_then(serde_json::Value::as_array);
    if !keys.is_some_and(|keys| !keys.is_empty() && keys.iter().all(serde_json::Value::is_object)) {
        let allowed = "a JWKS: a map with `keys`, a list of at least one key";
        return Err(Invalid::field(FIELD).found("another form").allowed(allowed));
    }
    // RFC 7518: what only one who signs knows. It has no business in a configuration.
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    for (place, key) in keys.into_iter().flatten().enumerate() {
        if let Some(part) = private.iter().find(|part| key.get(**part).is_some()) {
            let field = format!("{FIELD}.keys[{place}].{part}");
            return Err(Invalid::field(field).found("a private or secret key").allowed("public keys only"));
        }
    }
    let text = jwks.to_string();
    check::length(FIELD, &text, JWKS_BYTES_MAX)?;
    Ok(text)
}

fn basic(it: &BasicAuth) -> Result<(), Invalid> {
    let Some(realm) = &it.realm else { return Ok(()) };
    check::text("realm", realm, check::WORD_BYTES_MAX)?;
    match realm.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        true => Ok(()),
        false => Err(Invalid::field("realm").found(format!("{realm:?}")).allowed("visible ASCII without \" and \\")),
    }
}

/// RFC 9421 section 2: derived components begin with `@`, the others are headers.
const DERIVED: [&str; 7] = ["@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query"];

fn signature(mut it: SignatureWords) -> Result<SignatureAuth, Invalid> {
    check::count("components", it.components.len(), super::AUTH_LIST_MAX)?;
    if it.components.is_empty() {
        let allowed = "at least one: a signature over nothing can be moved to any request";
        return Err(Invalid::field("components").found("none").allowed(allowed));
    }
    for (place, component) in it.components.iter_mut().enumerate() {
        let field = format!("components[{place}]");
        if component.starts_with('@') && !DERIVED.contains(&component.as_str()) {
            let allowed = format!("a header's name, {}", DERIVED.join(", "));
            return Err(Invalid::field(field).found(format!("{component:?}")).allowed(allowed));
        }
        if !component.starts_with('@') {
            *component = check::header_name(&field, component)?;
        }
    }
    check::once("components", &it.components, String::clone)?;
    check::span("max_age", it.max_age)?;
    check::count("keys", it.keys.len(), super::AUTH_LIST_MAX)?;
    let ids: Vec<_> = it.keys.iter().map(|key| key.id.clone()).collect();
    check::once("keys", &ids, String::clone)?;
    let key = |(place, words): (usize, SignatureKeyWords)| {
        SignatureKey::try_from(words).map_err(|invalid| invalid.under(format!("keys[{place}]")))
    };
    let keys = it.keys.into_iter().enumerate().map(key).collect::<Result<_, _>>()?;
    Ok(SignatureAuth { components: it.components, max_age: it.max_age, keys })
}

impl From<SignatureAuth> for SignatureWords {
    fn from(it: SignatureAuth) -> Self {
        let keys = it.keys.into_iter().map(SignatureKeyWords::from).collect();
        Self { components: it.components, max_age: it.max_age, keys }
    }
}

impl TryFrom<SignatureKeyWords> for SignatureKey {
    type Error = Invalid;

    fn try_from(it: SignatureKeyWords) -> Result<Self, Invalid> {
        check::tag("id", &it.id)?;
        let key = match (it.public_key, it.secret) {
            (Some(pem), None) => VerifyingKey::Public(pem),
            (None, Some(secret)) => VerifyingKey::Secret(secret),
            (None, None) => return Err(Invalid::field("").found("no key").allowed(KEY_FIELDS)),
            (Some(_), Some(_)) => {
                return Err(Invalid::field("secret").found("public_key and secret").allowed(KEY_FIELDS));
            }
        };
        match (&key, it.algorithm) {
            (VerifyingKey::Secret(secret), SignatureAlgorithm::HmacSha256) => secret.check_signing("secret")?,
            (VerifyingKey::Public(_), SignatureAlgorithm::HmacSha256) => {
                let found = "hmac-sha256 with a public key";
                return Err(Invalid::field("algorithm").found(found).allowed("hmac-sha256 only with a secret"));
            }
            (VerifyingKey::Public(pem), _) => check::pem("public_key", pem, "PUBLIC KEY", 16 << 10)?,
            (VerifyingKey::Secret(_), other) => {
                let found = format!("{} with a secret", other.word());
                return Err(Invalid::field("algorithm").found(found).allowed("hmac-sha256 with a secret"));
            }
        }
        Ok(Self { id: it.id, algorithm: it.algorithm, key, consumer: it.consumer })
    }
}

impl From<SignatureKey> for SignatureKeyWords {
    fn from(it: SignatureKey) -> Self {
        let (public_key, secret) = match it.key {
            VerifyingKey::Public(pem) => (Some(pem), None),
            VerifyingKey::Secret(secret) => (None, Some(secret)),
        };
        Self { id: it.id, algorithm: it.algorithm, public_key, secret, consumer: it.consumer }
    }
}

fn client(client_id: &str, secret: &Secret) -> Result<(), Invalid> {
    check::text("client_id", client_id, check::WORD_BYTES_MAX)?;
    secret.check("client_secret")
}

fn introspection(it: &IntrospectionAuth) -> Result<(), Invalid> {
    check::url("endpoint", &it.endpoint, it.allow_private)?;
    client(&it.client_id, &it.client_secret)?;
    check::span_up_to("cache", it.cache, Span::default(), INTROSPECTION_CACHE_MAX)?;
    it.consumer_claim.as_ref().map_or(Ok(()), |claim| check::text("consumer_claim", claim, CLAIM_BYTES_MAX))
}

fn oidc_login(it: &OidcLoginAuth) -> Result<(), Invalid> {
    check::url("issuer", &it.issuer, it.allow_private)?;
    client(&it.client_id, &it.client_secret)?;
    check::tags("scopes", &it.scopes, super::AUTH_LIST_MAX)?;
    if !it.scopes.iter().any(|scope| scope == "openid") {
        return Err(Invalid::field("scopes").found(it.scopes.join(" ")).allowed("openid among them"));
    }
    check::canonical_path("callback_path", &it.callback_path)?;
    check::canonical_path("logout_path", &it.logout_path)?;
    if it.callback_path == it.logout_path {
        return Err(Invalid::field("logout_path").found(&it.logout_path).allowed("another path than callback_path"));
    }
    check::span_up_to("session", it.session, Span::secs(60), SESSION_MAX)?;
    it.consumer_claim.as_ref().map_or(Ok(()), |claim| check::text("consumer_claim", claim, CLAIM_BYTES_MAX))
}

fn client_credentials(it: &ClientCredentialsAuth) -> Result<(), Invalid> {
    check::url("token_endpoint", &it.token_endpoint, it.allow_private)?;
    client(&it.client_id, &it.client_secret)?;
    check::tags("scopes", &it.scopes, super::AUTH_LIST_MAX)
}

fn upstream_key(it: &mut UpstreamKeyAuth) -> Result<(), Invalid> {
    it.header = check::edited_header_name("header", &it.header)?;
    if let Some(scheme) = it.scheme.as_ref().filter(|scheme| !scheme.is_empty())
        && !check::is_token(scheme)
    {
        let allowed = "one word such as Bearer, \"\" for none, or null";
        return Err(Invalid::field("scheme").found(format!("{scheme:?}")).allowed(allowed));
    }
    it.key.check("key")?;
    match &it.key {
        // The key itself is never repeated.
        Secret::Plain(key) if !key.bytes().all(|b| matches!(b, b'!'..=b'~')) => {
            Err(Invalid::field("key").found("other characters").allowed("visible ASCII without spaces"))
        }
        _ => Ok(()),
    }
}

impl From<Auth> for AuthWords {
    fn from(it: Auth) -> Self {
        let mut words = Self {
            name: it.name,
            labels: it.labels,
            owner: it.owner,
            description: it.description,
            api_key: None,
            jwt: None,
            mtls: None,
            basic: None,
            signature: None,
            introspection: None,
            oidc_login: None,
            client_credentials: None,
            upstream_key: None,
        };
        match it.kind {
            AuthKind::ApiKey(it) => words.api_key = Some(it),
            AuthKind::Jwt(it) => words.jwt = Some(it.into()),
            AuthKind::Mtls(it) => words.mtls = Some(it),
            AuthKind::Basic(it) => words.basic = Some(it),
            AuthKind::Signature(it) => words.signature = Some(it.into()),
            AuthKind::Introspection(it) => words.introspection = Some(it),
            AuthKind::OidcLogin(it) => words.oidc_login = Some(it),
            AuthKind::ClientCredentials(it) => words.client_credentials = Some(it),
            AuthKind::UpstreamKey(it) => words.upstream_key = Some(it),
        }
        words
    }
}

impl From<JwtAuth> for JwtWords {
    fn from(it: JwtAuth) -> Self {
        let mut words = Self {
            issuer: it.issuer,
            audience: it.audience,
            algorithms: it.algorithms,
            jwks_url: None,
            discovery: None,
            jwks_inline: None,
            secret: None,
            consumer_claim: it.consumer_claim,
            groups_claim: it.groups_claim,
            scopes_claim: it.scopes_claim,
            skew: it.skew,
            max_lifetime: it.max_lifetime,
            typ: it.typ,
            allow_private: it.allow_private,
        };
        match it.keys {
            JwtKeys::Url(url) => words.jwks_url = Some(url),
            JwtKeys::Discovery => words.discovery = Some(true),
            JwtKeys::Inline(jwks) => words.jwks_inline = serde_json::from_str(&jwks).ok(),
            JwtKeys::Secret(secret) => words.secret = Some(secret),
        }
        words
    }
}
