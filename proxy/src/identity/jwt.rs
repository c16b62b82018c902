//! Is this token what its issuer signed, for us, now? Pure: the keys and the time are arguments (RFC 7519, RFC 8725).

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest;
use quorumgate_model::mutants::{self, Mutant};
use serde_json::Value;

use super::{
    AuthFailure, Claims, Scopes, TokenMarks,
    algorithm::Algorithm,
    claims::{base64url, claim, object, seconds, words},
    jwks::{KID_BYTES_MAX, KeySet},
    twin::twin,
};

/// Bytes of a token; its field would hold four times as much.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
const TYP: &str = "at+jwt";
pub(crate) const OTHER_ISSUER: &str = "the token is of another issuer";

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What an auth of kind `jwt` asks of a token; without the keys, which change on their own.
#[derive(Debug, Clone)]
pub struct JwtPlan {
    /// Differs between plans, so that a token verified for one is not taken for verified for another.
    pub id: PlanId,
    pub issuer: String,
    /// One of these must be among the token's.
    pub audience: Vec<String>,
    pub algorithms: Vec<Algorithm>,
    pub consumer_claim: Option<String>,
    pub groups_claim: Option<String>,
    pub scopes_claim: String,
    pub skew_s: u64,
    pub max_lifetime_s: u64,
    /// `at+jwt` for access tokens of RFC 9068 only. Without one a token may have none, `JWT` or `at+jwt`.
    pub typ: Option<String>,
}

/// Differs between any two that were made by `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId(u64);

/// A token that was what it has to be when it was verified. Until when that holds is `expires`.
#[derive(Debug, PartialEq)]
pub struct VerifiedToken {
    pub claims: Arc<Claims>,
    pub marks: Arc<TokenMarks>,
    pub scopes: Scopes,
    /// What the consumer claim says.
    pub consumer: Option<Box<str>>,
    pub groups: Vec<Box<str>>,
    /// Seconds since 1970, without skew.
    pub expires: u64,
    /// `cnf.x5t#S256` (RFC 8705): the token is good only with the client certificate that has this SHA-256.
    pub certificate_sha256: Option<[u8; 32]>,
    /// None: no key of an issuer vouches for it, but an endpoint or a cookie.
    pub signed_by: Option<SignedBy>,
}

/// The key that has signed a token, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignedBy {
    /// A hash of what the key is; of a secret too, so it is never shown.
    material: [u8; 32],
    algorithm: Algorithm,
    /// The token has its id.
    is_named: bool,
}

/// As `AuthFailure`, told apart for whoever can fetch keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The token names a key that the set does not have.
    UnknownKey(Box<str>),
    Failure(AuthFailure),
}

impl PlanId {
    pub fn next() -> Self {
        Self(NEXT_ID.fetch_add(1, Ordering::Relaxed))
    }
}

/// `now_s`: seconds since 1970.
pub fn verify(plan: &JwtPlan, keys: &KeySet, token: &str, now_s: u64) -> Result<Arc<VerifiedToken>, AuthFailure> {
    check(plan, keys, token, &sha256(token.as_bytes()), now_s).map_err(AuthFailure::from)
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// `sha256` is that of the token.
pub(super) fn check(
    plan: &JwtPlan,
    keys: &KeySet,
    token: &str,
    sha256: &[u8; 32],
    now_s: u64,
) -> Result<Arc<VerifiedToken>, Fault> {
    let signed = signed(plan, keys, token)?;
    judged(plan, signed, token, sha256, now_s).map(Arc::new).map_err(Fault::Failure)
}

/// What was signed, held against the plan and the time.
pub(super) fn judged(
    plan: &JwtPlan,
    signed: Signed,
    token: &str,
    sha256: &[u8; 32],
    now_s: u64,
) -> Result<VerifiedToken, AuthFailure> {
    let Signed { claims, kid, by } = signed;
    let twin_sha256 = twin(token, by.algorithm).map(|text| self::sha256(text.as_bytes()));
    let marks = TokenMarks { sha256: *sha256, twin_sha256, kid, ..TokenMarks::default() };
    Ok(VerifiedToken { signed_by: Some(by), ..verified(plan, Arc::new(claims), marks, now_s)? })
}

/// What is wrong with a token as far as that can be told without any key.
pub(super) fn judged_unsigned(plan: &JwtPlan, token: &str, now_s: u64) -> Result<(), AuthFailure> {
    let parts = Parts::of(token)?;
    header_fields(plan, &parts.head)?;
    verified(plan, Arc::new(parts.claims()?), TokenMarks::default(), now_s).map(drop)
}

/// Whether a token that was verified before would be so now, for the same consumer: by what is kept of it, which its
/// text and its type are not. When it ends is no part of that: whoever asks has its time.
pub(super) fn still_holds(plan: &JwtPlan, keys: &KeySet, token: &VerifiedToken, now_s: u64) -> bool {
    let is_signed = token.signed_by.is_some_and(|by| {
        let kid = token.marks.kid.as_deref().filter(|_| by.is_named);
        let mut candidates = keys.candidates(kid, by.algorithm);
        plan.algorithms.contains(&by.algorithm) && candidates.any(|key| key.material == by.material)
    });
    is_signed
        && match verified(plan, token.claims.clone(), TokenMarks::default(), now_s) {
            Ok(anew) => anew.consumer == token.consumer,
            Err(failure) => failure == AuthFailure::Expired,
        }
}

/// What the issuer has signed; of the claims nothing is checked yet.
pub(crate) struct Signed {
    pub(crate) claims: Claims,
    /// The key's id.
    pub(super) kid: Option<Box<str>>,
    by: SignedBy,
}

/// A token as it stands.
struct Parts<'a> {
    head: Claims,
    payload: &'a str,
    signature: &'a str,
    /// What is signed.
    message: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, AuthFailure> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthFailure::Invalid("the token is too long"));
        }
        let [header, payload, signature] = three(token).ok_or(AuthFailure::Invalid("the token has not three parts"))?;
        // An address or a key in the header (jku, jwk, x5u, x5c) is not even read: keys come from the plan alone.
        let head = base64url(header).and_then(|json| object(&json));
        let head = head.ok_or(AuthFailure::Invalid("the token's header is malformed"))?;
        let message = &token[..header.len() + 1 + payload.len()];
        Ok(Self { head, payload, signature, message })
    }

    fn claims(&self) -> Result<Claims, AuthFailure> {
        let claims = base64url(self.payload).and_then(|json| object(&json));
        claims.ok_or(AuthFailure::Invalid("the token's payload is malformed"))
    }
}

/// Header, payload and signature.
pub(super) fn three(token: &str) -> Option<[&str; 3]> {
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(payload), Some(signature), None) => Some([header, payload, signature]),
        _ => None,
    }
}

pub(crate) fn signed(plan: &JwtPlan, keys: &KeySet, token: &str) -> Result<Signed, Fault> {
    let parts = Parts::of(token)?;
    let (algorithm, kid) = header_fields(plan, &parts.head)?;
    if base64url(parts.signature).is_none() {
        return Err(invalid("the token's signature is malformed"));
    }
    let mut candidates = keys.candidates(kid, algorithm).peekable();
    if candidates.peek().is_none() {
        return Err(match kid {
            // Keys are looked for anew on behalf of tokens that at least claim to be of this issuer: another's, on a route
            // that takes both, does not wait for them.
            Some(_) if !claims_issuer(&plan.issuer, &parts) => invalid(OTHER_ISSUER),
            Some(kid) if !keys.has(kid) => Fault::UnknownKey(kid.into()),
            _ => invalid("no key of the issuer takes the token's algorithm"),
        });
    }
    let Some(key) = candidates.find(|key| key.verifier.verify(algorithm, parts.message.as_bytes(), parts.signature))
    else {
        return Err(Fault::Failure(AuthFailure::SignatureInvalid));
    };
    // The signature covers the text, not what it decodes to: that is still to be shown to be unambiguous.
    let claims = parts.claims()?;
    let by = SignedBy { material: key.material, algorithm, is_named: kid.is_some() };
    Ok(Signed { claims, kid: key.kid.as_deref().map(Into::into), by })
}

/// Whether a payload that nobody has verified says so.
fn claims_issuer(issuer: &str, parts: &Parts<'_>) -> bool {
    parts.claims().is_ok_and(|claims| claims.get("iss").and_then(Value::as_str) == Some(issuer))
}

fn invalid(reason: &'static str) -> Fault {
    Fault::Failure(AuthFailure::Invalid(reason))
}

fn header_fields<'a>(plan: &JwtPlan, head: &'a Claims) -> Result<(Algorithm, Option<&'a str>), AuthFailure> {
    let invalid = AuthFailure::Invalid;
    let Some(algorithm) = plan.algorithm(head) else {
        return Err(invalid("the token's algorithm is not allowed"));
    };
    // No extension is understood here, so none may be critical (RFC 7515 §4.1.11); `b64` and `zip` change what is read.
    if ["crit", "b64", "zip"].iter().any(|name| head.contains_key(*name)) {
        return Err(invalid("the token's header has crit, b64 or zip"));
    }
    let kid = match head.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.as_str()),
        Some(_) => return Err(invalid("the token's key id is malformed")),
    };
    let typ = match head.get("typ") {
        None => None,
        Some(Value::String(typ)) => Some(typ.strip_prefix("application/").unwrap_or(typ)),
        Some(_) => return Err(invalid("the token's type is malformed")),
    };
    match is_typ_taken(plan.typ.as_deref(), typ) {
        true => Ok((algorithm, kid)),
        false => Err(invalid("the token is of another type")),
    }
}

/// Media types know no case. A type that says what the token is for (`logout+jwt`, `dpop+jwt`) is another one
/// (RFC 8725 §3.11), also for a plan that asks for none.
fn is_typ_taken(wanted: Option<&str>, typ: Option<&str>) -> bool {
    match (wanted, typ) {
        (Some(wanted), typ) => typ.is_some_and(|typ| typ.eq_ignore_ascii_case(wanted)),
        (None, None) => true,
        (None, Some(typ)) => typ.eq_ignore_ascii_case(TYP) || !typ.to_ascii_lowercase().ends_with("+jwt"),
    }
}

/// `marks`: those that are not claims.
fn verified(plan: &JwtPlan, claims: Arc<Claims>, marks: TokenMarks, now_s: u64) -> Result<VerifiedToken, AuthFailure> {
    let text = |name: &'static str, reason| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(AuthFailure::Invalid(reason)),
    };
    if text("iss", "the token's issuer is malformed")? != Some(&plan.issuer) && !mutants::is(Mutant::IssuerIgnored) {
        return Err(AuthFailure::Invalid(OTHER_ISSUER));
    }
    if !plan.is_for(&claims) && !mutants::is(Mutant::AudienceIgnored) {
        return Err(AuthFailure::Invalid("the token is for another audience"));
    }
    let Times { expires, issued_at, .. } = in_time(plan, &claims, now_s)?;
    let subject = text("sub", "the token's subject is malformed")?;
    let jti = text("jti", "the token's id is malformed")?;
    let sid = text("sid", "the token's session id is malformed")?;
    let client = match text("client_id", "the token's client is malformed")? {
        Some(client) => Some(client),
        None => text("azp", "the token's client is malformed")?,
    };
    let marks = TokenMarks {
        issuer: Some(plan.issuer.as_str().into()),
        subject: subject.map(Into::into),
        jti: jti.map(Into::into),
        sid: sid.map(Into::into),
        client: client.map(Into::into),
        issued_at,
        ..marks
    };
    let consumer = plan.consumer_claim.as_deref().and_then(|name| claim(&claims, name)?.as_str()).map(Into::into);
    let groups = plan.groups_claim.as_deref().and_then(|name| claim(&claims, name)).map(words).unwrap_or_default();
    let scopes = claim(&claims, &plan.scopes_claim).map(words).unwrap_or_default();
    Ok(VerifiedToken {
        marks: Arc::new(marks),
        scopes: Scopes::new(scopes),
        consumer,
        groups: groups.into_iter().map(Into::into).collect(),
        expires,
        certificate_sha256: certificate(&claims)?,
        claims,
        signed_by: None,
    })
}

/// One text, or a list of texts (RFC 7519 §4.1.3).
pub(crate) fn is_for_us(ours: &[String], audience: Option<&Value>) -> bool {
    let has = |it: &str| ours.iter().any(|our| our == it);
    match audience {
        Some(Value::String(one)) => has(one),
        Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.iter().filter_map(Value::as_str).any(has),
        _ => false,
    }
}

/// The skew is granted to every comparison with our clock: the issuer's may differ by so much.
fn in_time(plan: &JwtPlan, claims: &Claims, now_s: u64) -> Result<Times, AuthFailure> {
    let times = Times::read(claims)?;
    if plan.has_expired(times.expires, now_s) && !mutants::is(Mutant::TokenExpiryIgnored) {
        return Err(AuthFailure::Expired);
    }
    if plan.outlived_by(times.expires, now_s) {
        return Err(AuthFailure::Invalid("the token lives longer than the auth's max_lifetime"));
    }
    if times.not_before.is_some_and(|it| it > now_s.saturating_add(plan.skew_s)) {
        return Err(AuthFailure::Invalid("the token is not yet valid"));
    }
    // It would pass for newer than a revocation that is yet to come.
    if times.issued_at.is_some_and(|it| it > now_s.saturating_add(plan.skew_s)) {
        return Err(AuthFailure::Invalid("the token was issued in the future"));
    }
    Ok(times)
}

/// What a token says of times, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub expires: u64,
    pub issued_at: Option<u64>,
    pub not_before: Option<u64>,
}

impl Times {
    pub fn read(claims: &Claims) -> Result<Self, AuthFailure> {
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => match seconds(value).and_then(|it| u64::try_from(it).ok()) {
                Some(seconds) => Ok(Some(seconds)),
                None => Err(AuthFailure::Invalid("a time of the token is no number of seconds since 1970")),
            },
        };
        let Some(expires) = time("exp")? else {
            return Err(AuthFailure::Invalid("the token has no expiry"));
        };
        Ok(Self { expires, issued_at: time("iat")?, not_before: time("nbf")? })
    }
}

impl JwtPlan {
    /// The header's, if the plan takes it.
    pub fn algorithm(&self, head: &Claims) -> Option<Algorithm> {
        let algorithm = head.get("alg").and_then(Value::as_str).and_then(|word| Algorithm::from_str(word).ok());
        algorithm.filter(|it| self.algorithms.contains(it) || mutants::is(Mutant::AnyAlgorithm))
    }

    pub fn is_for(&self, claims: &Claims) -> bool {
        is_for_us(&self.audience, claims.get("aud"))
    }

    pub fn has_expired(&self, expires: u64, now_s: u64) -> bool {
        expires.saturating_add(self.skew_s) <= now_s
    }

    /// By a token that ends then: it has more left than the plan lets any token have.
    pub fn outlived_by(&self, expires: u64, now_s: u64) -> bool {
        expires > now_s.saturating_add(self.max_lifetime_s).saturating_add(self.skew_s)
    }
}

impl From<AuthFailure> for Fault {
    fn from(failure: AuthFailure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Fault> for AuthFailure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::UnknownKey(_) => Self::Invalid("no key of the issuer has the token's key id"),
            Fault::Failure(failure) => failure,
        }
    }
}

impl fmt::Debug for SignedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedBy({:?})", self.algorithm)
    }
}

/// A binding that cannot be read is not the same as none.
pub(super) fn certificate(claims: &Claims) -> Result<Option<[u8; 32]>, AuthFailure> {
    let Some(thumbprint) = claims.get("cnf").and_then(|cnf| cnf.get("x5t#S256")) else { return Ok(None) };
    let bytes = thumbprint.as_str().and_then(base64url).and_then(|bytes| bytes.try_into().ok());
    bytes.map(Some).ok_or(AuthFailure::Invalid("the token's certificate binding is malformed"))
}

#[cfg(test)]
mod tests;
