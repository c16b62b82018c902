//! Certificates and listeners between prost and model.

use quorumgate_proto::admin::v1 as admin;

use super::{
    resource::{meta_to, name_from, optional_name, word},
    smaller::{secret_from, secret_to},
};
use crate::{
    invalid::Invalid,
    resource::{
        Certificate, CertificateHost, CertificateWords, ClientAuth, Listener, ListenerProtocol, ListenerWords, Name,
    },
};

pub fn certificate_from(it: admin::Certificate) -> Result<Certificate, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let words = CertificateWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        hosts: it.hosts,
        chain: it.chain,
        key: secret_from("key", it.key)?,
        ocsp: (!it.ocsp.is_empty()).then(|| data_encoding::BASE64.encode(&it.ocsp)),
    };
    words.try_into()
}

pub fn certificate_to(it: &Certificate) -> admin::Certificate {
    admin::Certificate {
        name: it.name.to_string(),
        meta: meta_to(&it.labels, &it.owner, &it.description),
        hosts: it.hosts.iter().map(CertificateHost::to_string).collect(),
        chain: it.chain.clone(),
        key: secret_to(&it.key),
        ocsp: it.ocsp.clone().unwrap_or_default(),
    }
}

pub fn listener_from(it: admin::Listener) -> Result<Listener, Invalid> {
    let meta = it.meta.unwrap_or_default();
    let networks = it.proxy_protocol_from.iter().enumerate().map(|(place, text)| {
        text.parse::<ipnet::IpNet>().map_err(|_| {
            let field = format!("proxy_protocol_from[{place}]");
            Invalid::field(field).found(format!("{text:?}")).allowed("a network such as 10.0.0.0/8 or 2001:db8::/32")
        })
    });
    let certificates = it.certificates.iter().enumerate();
    let words = ListenerWords {
        name: name_from("name", &it.name)?,
        labels: meta.labels,
        owner: meta.owner,
        description: meta.description,
        address: it.address,
        protocol: word("protocol", &it.protocol, ListenerProtocol::ALL, ListenerProtocol::word)?,
        certificates: certificates
            .map(|(place, text)| name_from(&format!("certificates[{place}]"), text))
            .collect::<Result<_, _>>()?,
        client_ca: optional_name("client_ca", &it.client_ca)?,
        client_auth: word("client_auth", &it.client_auth, ClientAuth::ALL, ClientAuth::word)?,
        http3: it.http3,
        proxy_protocol_from: networks.collect::<Result<_, _>>()?,
        upstream: optional_name("upstream", &it.upstream)?,
        merge_slashes: it.merge_slashes.unwrap_or(true),
    };
    words.try_into()
}

pub fn listener_to(it: &Listener) -> admin::Listener {
    let text = |name: &Option<Name>| name.as_ref().map(Name::to_string).unwrap_or_default();
    admin::Listener {
        name: it.name.to_string(),
        meta: meta_to(&it.labels, &it.owner, &it.description),
        address: it.address.to_string(),
        protocol: it.protocol.word().to_owned(),
        certificates: it.certificates.iter().map(Name::to_string).collect(),
        client_ca: text(&it.client_ca),
        client_auth: it.client_auth.word().to_owned(),
        http3: it.http3,
        proxy_protocol_from: it.proxy_protocol_from.iter().map(ToString::to_string).collect(),
        upstream: text(&it.upstream),
        merge_slashes: Some(it.merge_slashes),
    }
}
