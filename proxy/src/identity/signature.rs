//! Was this request signed by one of the auth's keys, over all that it must be over, a moment ago (RFC 9421)? Pure: the
//! time is an argument.

use aws_lc_rs::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512,
        VerificationAlgorithm,
    },
};
use http::{HeaderMap, Method};
use quorumgate_model::resource::{Name, SignatureAlgorithm};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use super::{
    AuthFailure, content_digest,
    structured::{Bare, Item, Member, Parameters, dictionary, write_item, write_list},
};

/// What clocks may differ by.
const SKEW_S: u64 = 30;
/// Bytes of each of the two fields.
const FIELD_BYTES_MAX: usize = 8 * 1024;
/// Signatures of one request: of the client, and of what it came through.
const SIGNATURES_MAX: usize = 4;

/// What an auth of kind `signature` says.
pub struct SignaturePlan {
    /// Lower case. What a signature must cover at least.
    pub components: Vec<String>,
    pub max_age_s: u64,
    pub keys: Vec<SignatureKey>,
}

pub struct SignatureKey {
    pub id: String,
    pub consumer: Name,
    verifier: Verifier,
}

enum Verifier {
    Public(ParsedPublicKey, SignatureAlgorithm),
    Secret(Box<hmac::Key>),
}

/// What is signed of a request, as the client sent it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub method: &'a Method,
    /// `https` or `http`, by what the client speaks to us.
    pub scheme: &'a str,
    /// The Host or `:authority`.
    pub authority: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
}

/// A signature that is good.
#[derive(Debug, PartialEq)]
pub struct Signed<'a> {
    pub key: &'a SignatureKey,
    /// Seconds since 1970 after which it is not good any more.
    pub expires: u64,
    /// It covers the Content-Digest: the body must be held against it.
    pub covers_body: bool,
}

impl SignatureKey {
    /// `public_key` as PEM.
    pub fn public(
        id: String,
        consumer: Name,
        algorithm: SignatureAlgorithm,
        public_key: &str,
    ) -> Result<Self, &'static str> {
        let verification = verification(algorithm).ok_or("the algorithm wants a secret, not a public key")?;
        let der = SubjectPublicKeyInfoDer::from_pem_slice(public_key.as_bytes());
        let der = der.map_err(|_| "the public key is not PEM")?;
        let parsed = ParsedPublicKey::new(verification, der.as_ref());
        let parsed = parsed.map_err(|_| "the public key is not of the algorithm")?;
        Ok(Self { id, consumer, verifier: Verifier::Public(parsed, algorithm) })
    }

    /// For `hmac-sha256`.
    pub fn secret(id: String, consumer: Name, secret: &[u8]) -> Result<Self, &'static str> {
        if secret.len() < super::jwks::SECRET_BYTES_MIN {
            return Err("the secret has less than 32 bytes");
        }
        Ok(Self { id, consumer, verifier: Verifier::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))) })
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match &self.verifier {
            Verifier::Public(_, algorithm) => *algorithm,
            Verifier::Secret(_) => SignatureAlgorithm::HmacSha256,
        }
    }

    fn verify(&self, base: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Public(key, _) => key.verify_sig(base, signature).is_ok(),
            Verifier::Secret(key) => hmac::verify(key, base, signature).is_ok(),
        }
    }
}

fn verification(algorithm: SignatureAlgorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        SignatureAlgorithm::Ed25519 => &ED25519,
        SignatureAlgorithm::EcdsaP256Sha256 => &ECDSA_P256_SHA256_FIXED,
        SignatureAlgorithm::RsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
        SignatureAlgorithm::RsaV15Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        SignatureAlgorithm::HmacSha256 => return None,
    })
}

/// The first signature whose key is known decides; others are not ours to judge. `now_s`: seconds since 1970.
pub fn verify<'a>(plan: &'a SignaturePlan, message: &Message<'_>, now_s: u64) -> Result<Signed<'a>, AuthFailure> {
    let fields = (combined(message.headers, "signature-input"), combined(message.headers, "signature"));
    let (inputs, signatures) = match fields {
        (None, None) => return Err(AuthFailure::Missing),
        (Some(inputs), Some(signatures)) => (inputs, signatures),
        _ => return Err(AuthFailure::Invalid("signature-input and signature belong together")),
    };
    let malformed = AuthFailure::Invalid("signature-input or signature is malformed");
    let (inputs, signatures) = (dictionary(&inputs).ok_or(malformed)?, dictionary(&signatures).ok_or(malformed)?);
    if inputs.len() > SIGNATURES_MAX || signatures.len() > SIGNATURES_MAX {
        return Err(AuthFailure::Invalid("the request has too many signatures"));
    }
    for (label, input) in &inputs {
        let Member::List { items, parameters } = input else { return Err(malformed) };
        let Some(Bare::Text(key_id)) = parameter(parameters, "keyid") else { continue };
        let Some(key) = plan.keys.iter().find(|key| key.id == *key_id) else { continue };
        let signature = signatures.iter().find(|(other, _)| other == label).map(|(_, member)| member);
        let Some(Member::Item(Item { bare: Bare::Bytes(signature), .. })) = signature else { return Err(malformed) };
        return signed(plan, message, key, (items, parameters), signature, now_s);
    }
    Err(AuthFailure::Invalid("no signature is of a known key"))
}

fn signed<'a>(
    plan: &SignaturePlan,
    message: &Message<'_>,
    key: &'a SignatureKey,
    (items, parameters): (&[Item], &Parameters),
    signature: &[u8],
    now_s: u64,
) -> Result<Signed<'a>, AuthFailure> {
    let algorithm = parameter(parameters, "alg");
    if algorithm.is_some_and(|it| *it != Bare::Text(key.algorithm().word().into())) {
        return Err(AuthFailure::Invalid("the signature's algorithm is not its key's"));
    }
    let covers = |name: &str| items.iter().any(|it| it.parameters.is_empty() && it.bare == Bare::Text(name.into()));
    if !plan.components.iter().all(|name| covers(name)) {
        return Err(AuthFailure::Invalid("the signature does not cover all that it must"));
    }
    let expires = times(plan, parameters, now_s)?;
    let base = base(message, items, parameters)?;
    match key.verify(base.as_bytes(), signature) {
        true => Ok(Signed { key, expires, covers_body: covers(content_digest::FIELD) }),
        false => Err(AuthFailure::SignatureInvalid),
    }
}

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a Bare> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Until when it is good.
fn times(plan: &SignaturePlan, parameters: &Parameters, now_s: u64) -> Result<u64, AuthFailure> {
    let time = |name: &str| match parameter(parameters, name) {
        None => Ok(None),
        Some(Bare::Integer(seconds)) if *seconds >= 0 => Ok(Some(*seconds as u64)),
        Some(_) => Err(AuthFailure::Invalid("a time of the signature is no number of seconds since 1970")),
    };
    let Some(created) = time("created")? else {
        return Err(AuthFailure::Invalid("the signature does not say when it was created"));
    };
    if created > now_s + SKEW_S {
        return Err(AuthFailure::Invalid("the signature was created in the future"));
    }
    let expires = (created + plan.max_age_s).min(time("expires")?.unwrap_or(u64::MAX));
    match expires + SKEW_S > now_s {
        true => Ok(expires),
        false => Err(AuthFailure::Expired),
    }
}

/// RFC 9421 §2.5.
fn base(message: &Message<'_>, items: &[Item], parameters: &Parameters) -> Result<String, AuthFailure> {
    let mut base = String::new();
    for (place, item) in items.iter().enumerate() {
        if items[..place].contains(item) {
            return Err(AuthFailure::Invalid("the signature covers a component twice"));
        }
        let value = component(message, item)
            .ok_or(AuthFailure::Invalid("the signature covers what the request does not have, or is not known here"))?;
        write_item(&mut base, item);
        base.push_str(": ");
        base.push_str(&value);
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(&write_list(items, parameters));
    Ok(base)
}

/// Components with parameters (`sf`, `key`, `bs`, `tr`, `req`) and `@query-param` are not known here.
fn component(message: &Message<'_>, item: &Item) -> Option<String> {
    let Bare::Text(name) = &item.bare else { return None };
    if !item.parameters.is_empty() {
        return None;
    }
    let path = if message.path.is_empty() { "/" } else { message.path };
    let query = message.query.map(|query| format!("?{query}"));
    let authority = || {
        let default = if message.scheme == "https" { ":443" } else { ":80" };
        let lower = message.authority.to_ascii_lowercase();
        lower.strip_suffix(default).map(str::to_owned).unwrap_or(lower)
    };
    let target = || format!("{path}{}", query.as_deref().unwrap_or_default());
    Some(match name.as_str() {
        "@method" => message.method.to_string(),
        "@scheme" => message.scheme.to_owned(),
        "@authority" => authority(),
        "@path" => path.to_owned(),
        "@query" => query.unwrap_or_else(|| "?".into()),
        "@request-target" => target(),
        "@target-uri" => format!("{}://{}{}", message.scheme, authority(), target()),
        name if name.starts_with('@') || name.bytes().any(|it| it.is_ascii_uppercase()) => return None,
        name => combined_any_len(message.headers, name)?,
    })
}

/// All lines of a field as one; None where there is none, or too much.
pub(super) fn combined(headers: &HeaderMap, name: &str) -> Option<String> {
    combined_any_len(headers, name).filter(|text| text.len() <= FIELD_BYTES_MAX)
}

fn combined_any_len(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    let lines: Option<Vec<&str>> =
        lines.map(|line| line.to_str().ok().map(|it| it.trim_matches([' ', '\t']))).collect();
    Some(lines?.join(", "))
}

impl std::fmt::Debug for SignatureKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignatureKey({:?})", self.id)
    }
}

impl PartialEq for SignatureKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

#[cfg(test)]
mod tests;
