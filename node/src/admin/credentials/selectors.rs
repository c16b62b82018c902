//! Selectors between the API's words and the state's compact form.

use quorumgate_model::{
    invalid::Invalid,
    revocation::{Selector, SelectorKind, SelectorParts},
};
use quorumgate_proto::admin::v1::{self as admin, selector::By};

pub fn from_message(it: &admin::Selector) -> Result<Selector, Invalid> {
    let issuer = it.issuer.as_bytes();
    let Some(by) = &it.by else {
        return Err(Invalid::field("selector").found("none").allowed("one of jti, sha256, subject, sid, client, …"));
    };
    let (kind, issuer, value) = match by {
        By::Jti(text) => (SelectorKind::Jti, issuer, text.as_bytes()),
        By::Sha256(hash) => (SelectorKind::TokenHash, issuer, &hash[..]),
        By::Subject(text) => (SelectorKind::Subject, issuer, text.as_bytes()),
        By::Sid(text) => (SelectorKind::Sid, issuer, text.as_bytes()),
        By::Client(text) => (SelectorKind::Client, issuer, text.as_bytes()),
        By::Consumer(name) => (SelectorKind::Consumer, issuer, name.as_bytes()),
        By::Credential(id) => (SelectorKind::Credential, issuer, id.as_bytes()),
        By::Kid(text) => (SelectorKind::SigningKid, issuer, text.as_bytes()),
        By::CertificateKey(hash) => (SelectorKind::CertificateKey, issuer, &hash[..]),
        By::CertificateSerial(it) => (SelectorKind::CertificateSerial, &it.issuer_sha256[..], &it.serial[..]),
    };
    let checked = SelectorParts { kind, issuer, value }.checked();
    checked.map_err(|invalid| invalid.under(format!("selector.{}", kind.word())))
}

pub fn to_message(parts: SelectorParts<'_>) -> admin::Selector {
    let SelectorParts { kind, issuer, value } = parts;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let by = match kind {
        SelectorKind::Jti => By::Jti(text(value)),
        SelectorKind::TokenHash => By::Sha256(value.to_vec()),
        SelectorKind::Subject => By::Subject(text(value)),
        SelectorKind::Sid => By::Sid(text(value)),
        SelectorKind::Client => By::Client(text(value)),
        SelectorKind::Consumer => By::Consumer(text(value)),
        SelectorKind::Credential => By::Credential(text(value)),
        SelectorKind::SigningKid => By::Kid(text(value)),
        SelectorKind::CertificateKey => By::CertificateKey(value.to_vec()),
        SelectorKind::CertificateSerial => {
            By::CertificateSerial(admin::CertificateSerial { issuer_sha256: issuer.to_vec(), serial: value.to_vec() })
        }
    };
    let issuer = if kind == SelectorKind::CertificateSerial { String::new() } else { text(issuer) };
    admin::Selector { by: Some(by), issuer }
}
