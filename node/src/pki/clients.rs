//! Certificate authorities that operators bring: read once before they are proposed, so that none is stored that no
//! proxy could use.

use quorumgate_model::{invalid::Invalid, resource::CertificateAuthority};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use webpki::{BorrowedCertRevocationList, anchor_from_trusted_cert};

/// Every certificate must do for a trust anchor, and every revocation list be one.
pub fn check_authority(it: &CertificateAuthority) -> Result<(), Invalid> {
    for (place, certificate) in CertificateDer::pem_slice_iter(it.pem.as_bytes()).enumerate() {
        let read = certificate.map_err(|error| error.to_string());
        let anchored = read.and_then(|it| anchor_from_trusted_cert(&it).map(drop).map_err(|error| error.to_string()));
        anchored.map_err(|why| wrong("pem", "certificate", place, &why))?;
    }
    let lists = it.crl.as_deref().unwrap_or_default();
    for (place, list) in CertificateRevocationListDer::pem_slice_iter(lists.as_bytes()).enumerate() {
        let read = list.map_err(|error| error.to_string());
        let parsed =
            read.and_then(|it| BorrowedCertRevocationList::from_der(&it).map(drop).map_err(|error| error.to_string()));
        parsed.map_err(|why| wrong("crl", "revocation list", place, &why))?;
    }
    Ok(())
}

fn wrong(field: &str, what: &str, place: usize, why: &str) -> Invalid {
    let found = format!("block {} of it, which is no {what} ({why})", place + 1);
    Invalid::field(field).found(found).allowed(format!("X.509 {what}s"))
}
