//! What the upstream is told of who asks, and what nobody else may tell it: X-Consumer-*, X-Credential-Id, and the
//! client's certificate (RFC 9440).

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Caller;

const X_CONSUMER_NAME: HeaderName = HeaderName::from_static("x-consumer-name");
const X_CONSUMER_ID: HeaderName = HeaderName::from_static("x-consumer-id");
const X_CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
const X_CREDENTIAL_ID: HeaderName = HeaderName::from_static("x-credential-id");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The values of one identity, made once.
#[derive(Debug, Default, Clone)]
pub(crate) struct Fields {
    name: Option<HeaderValue>,
    groups: Option<HeaderValue>,
    credential: Option<HeaderValue>,
}

impl Fields {
    /// What cannot be a field's value is left out: groups and ids may come from a token.
    pub(crate) fn of(caller: &Caller) -> Self {
        let name = caller.consumer.as_ref().and_then(|it| HeaderValue::from_str(&it.name).ok());
        // Each by itself: one that cannot be said takes nobody else's with it.
        let can_be_said = |group: &&str| !group.contains(',') && HeaderValue::from_bytes(group.as_bytes()).is_ok();
        let groups = caller.groups().filter(can_be_said);
        let groups = groups.collect::<Vec<_>>().join(",");
        let groups = Some(groups).filter(|groups| !groups.is_empty());
        let credential = caller.credential.as_ref().and_then(|it| HeaderValue::from_str(&it.id).ok());
        Self { name, groups: groups.and_then(|groups| HeaderValue::try_from(groups).ok()), credential }
    }

    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        let mut put = |name, value: &Option<HeaderValue>| {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        };
        put(X_CONSUMER_NAME, &self.name);
        // A consumer is its name, for as long as it lives.
        put(X_CONSUMER_ID, &self.name);
        put(X_CONSUMER_GROUPS, &self.groups);
        put(X_CREDENTIAL_ID, &self.credential);
    }
}

/// A Byte Sequence of RFC 8941: the certificate in DER, in base64 between colons.
pub(crate) fn put_certificate(headers: &mut HeaderMap, der: &[u8]) {
    if let Ok(value) = HeaderValue::try_from(format!(":{}:", BASE64.encode(der))) {
        headers.insert(CLIENT_CERT, value);
    }
}

/// Whether only this gateway may say it. An underscore counts as a hyphen: many servers take one for the other.
pub(crate) fn is_ours(name: &str) -> bool {
    let starts = |start: &str| {
        name.len() >= start.len()
            && name.bytes().zip(start.bytes()).all(|(b, wanted)| if b == b'_' { b'-' == wanted } else { b == wanted })
    };
    match name.as_bytes().first() {
        Some(b'x') => starts("x-consumer-") || (name.len() == "x-credential-id".len() && starts("x-credential-id")),
        Some(b'c') => starts("client-cert"),
        _ => false,
    }
}

pub(crate) fn remove_all(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use quorumgate_model::resource::Name;

    use super::*;
    use crate::identity::{AuthMethod, RevocationSubject, Scopes};

    #[test]
    fn a_group_that_cannot_be_said_is_left_out_alone() {
        let check = |groups: &[&str], expected: Option<&[u8]>| {
            let caller = Caller {
                consumer: None,
                credential: None,
                method: AuthMethod::Jwt,
                auth: "idp".parse::<Name>().unwrap(),
                scopes: Scopes::default(),
                groups: groups.iter().map(|group| Box::from(*group)).collect(),
                claims: None,
                subject: RevocationSubject::default(),
                expires: None,
            };
            let mut headers = HeaderMap::new();
            Fields::of(&caller).put(&mut headers);
            assert_eq!(headers.get(X_CONSUMER_GROUPS).map(HeaderValue::as_bytes), expected, "{groups:?}");
        };
        check(&["partners", "a,b", "c d", "x\r\ny", "eu"], Some(b"partners,c d,eu"));
        check(&["\u{7f}", "ünï"], Some("ünï".as_bytes()));
        check(&["x\0"], None);
        check(&[], None);
    }

    #[test]
    fn copies_are_known_in_every_spelling() {
        for name in ["x-consumer-name", "x_consumer_name", "x-consumer_id", "x-consumer-anything", "x_credential_id"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["client-cert", "client_cert", "client-cert-chain"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["x-consume", "x-credential", "x-api-key", "client", "client-id", "cookie"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
