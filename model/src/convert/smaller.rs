//! Consumers, certificate authorities and secrets between prost and model.

use quorumgate_proto::admin::v1 as admin;

use super::resource::{meta_to, name_from, optional};
use crate::{
    digest::Digest,
    invalid::Invalid,
    resource::{CertificateAuthority, CertificateAuthorityWords, Consumer, ConsumerWords, Fingerprint, Secret},
    sealed,
};

pub fn consumer_from(it: admin::Consumer) -> Result<Consumer, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let words = ConsumerWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        groups: it.groups,
        plan: optional(it.plan),
    };
    words.try_into()
}

pub fn consumer_to(it: &Consumer) -> admin::Consumer {
    admin::Consumer {
        name: it.name.to_string(),
        meta: meta_to(&it.labels, &it.owner, &it.description),
        groups: it.groups.clone(),
        plan: it.plan.clone().unwrap_or_default(),
    }
}

pub fn certificate_authority_from(it: admin::CertificateAuthority) -> Result<CertificateAuthority, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let words = CertificateAuthorityWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        pem: it.pem,
        crl: optional(it.crl),
    };
    words.try_into()
}

pub fn certificate_authority_to(it: &CertificateAuthority) -> admin::CertificateAuthority {
    admin::CertificateAuthority {
        name: it.name.to_string(),
        meta: meta_to(&it.labels, &it.owner, &it.description),
        pem: it.pem.clone(),
        crl: it.crl.clone().unwrap_or_default(),
    }
}

/// A stored secret is known by its sealed bytes, whatever fingerprint comes with them, unless they were sealed anew.
pub fn secret_from(field: &str, it: Option<admin::Secret>) -> Result<Secret, Invalid> {
    let it = it.unwrap_or_default();
    match (it.sealed.is_empty(), it.plain.is_empty(), it.fingerprint.as_str()) {
        (false, true, text) => Ok(match text.parse() {
            Ok(fingerprint) if sealed::key_number(&it.sealed) != 0 => {
                let etag = Digest::from_bytes(&it.object_etag);
                Secret::Sealed { bytes: it.sealed.into(), fingerprint, etag }
            }
            _ => Secret::sealed(it.sealed),
        }),
        (true, false, "") => Ok(Secret::Plain(it.plain.into())),
        (true, true, "") => Err(Invalid::field(field).found("none").allowed("a secret")),
        (true, true, text) => match text.parse::<Fingerprint>() {
            Ok(fingerprint) => Ok(Secret::Kept(fingerprint)),
            Err(()) => Err(Invalid::field(field).found("another text").allowed("a fingerprint of 16 hex digits")),
        },
        _ => Err(Invalid::field(field).found("several forms at once").allowed("a plain secret, or a fingerprint")),
    }
}

pub fn secret_to(it: &Secret) -> Option<admin::Secret> {
    Some(match it {
        Secret::Plain(plain) => admin::Secret { plain: plain.to_string(), ..Default::default() },
        Secret::Sealed { bytes, fingerprint, etag } => admin::Secret {
            sealed: bytes.to_vec(),
            fingerprint: fingerprint.to_string(),
            object_etag: etag.map(|etag| etag.0.into()).unwrap_or_default(),
            plain: String::new(),
        },
        Secret::Kept(fingerprint) => admin::Secret { fingerprint: fingerprint.to_string(), ..Default::default() },
    })
}

/// As clients are shown it: its fingerprint alone.
pub fn hide(secret: &mut admin::Secret) {
    secret.sealed.clear();
    secret.object_etag.clear();
}
