//! Until when the certificates are good that operators have written into the configuration.

use quorumgate_model::{
    resource::{Key, Kind, Resource},
    state::State,
};
use quorumgate_proxy::tls;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// `certificate/shop` and `certificate_authority/partners`, each with the end of its first to end, in seconds since 1970.
pub fn of(state: &State) -> Vec<(String, i64)> {
    let of_kind = |kind: Kind| {
        let first = Key { kind, name: "0".parse().expect("the least of all names is one") };
        state.resources.range(first..).take_while(move |(key, _)| key.kind == kind)
    };
    let all = [Kind::CertificateAuthority, Kind::Certificate].into_iter().flat_map(of_kind);
    let ends = all.filter_map(|(key, stored)| {
        let ends = match &stored.resource {
            Resource::Certificate(it) => tls::chain_not_after(it)?,
            Resource::CertificateAuthority(it) => first_end(&it.pem)?,
            _ => return None,
        };
        Some((key.to_string(), ends))
    });
    ends.collect()
}

fn first_end(pem: &str) -> Option<i64> {
    let end = |der: &CertificateDer<'_>| Some(X509Certificate::from_der(der).ok()?.1.validity().not_after.timestamp());
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).filter_map(|der| end(&der)).min()
}
