//! Makes keys, the cluster's CA, and the certificates it signs.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use quorumgate_model::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::sha256;
use crate::settings::Settings;

/// The clocks of two nodes may differ by this much before a fresh certificate is refused as not yet valid.
const BACKDATED: Duration = Duration::from_secs(3600);
const CA_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How many names a certificate request may ask for.
const NAMES_MAX: usize = 32;

/// A node's private key; it stays the same for the node's whole life, so that its record can pin it.
pub struct NodeKey(KeyPair);

/// DNS names and addresses under which a node's admin listener is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// The CA, able to sign.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    key_der: Vec<u8>,
}

impl NodeKey {
    pub fn generate() -> anyhow::Result<Self> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        Ok(Self(KeyPair::from_pem(pem)?))
    }

    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    /// DER PKCS#10: the public key and the names; the id is the signer's to set.
    pub fn request(&self, names: &Names) -> anyhow::Result<Vec<u8>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.to_sans()?;
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    pub fn spki_sha256(&self) -> [u8; 32] {
        use rcgen::PublicKeyData;
        sha256(&self.0.subject_public_key_info())
    }
}

impl Names {
    /// Of a node with these settings: loopback, and the hosts that its peer and admin listeners have.
    pub fn of(settings: &Settings) -> Self {
        let mut names = Self {
            dns: vec!["localhost".into()],
            addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        };
        for listener in [settings.peer.listen, settings.admin.listen] {
            names.add_address(listener.ip());
        }
        let advertised = settings.peer_address();
        match advertised.parse::<SocketAddr>() {
            Ok(address) => names.add_address(address.ip()),
            Err(_) => names.add_dns(advertised.rsplit_once(':').map_or(&*advertised, |(host, _)| host)),
        }
        names
    }

    fn add_address(&mut self, address: IpAddr) {
        if !address.is_unspecified() && !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    fn add_dns(&mut self, host: &str) {
        if !self.dns.iter().any(|name| name == host) {
            self.dns.push(host.to_owned());
        }
    }

    fn to_sans(&self) -> anyhow::Result<Vec<SanType>> {
        let mut sans = Vec::new();
        for name in &self.dns {
            sans.push(SanType::DnsName(name.as_str().try_into().with_context(|| format!("the host name {name:?}"))?));
        }
        sans.extend(self.addresses.iter().map(|address| SanType::IpAddress(*address)));
        Ok(sans)
    }
}

impl Authority {
    pub fn generate(cluster: [u8; 16]) -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("quorumgate {}", data_encoding::HEXLOWER.encode(&cluster)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - BACKDATED;
        params.not_after = now + CA_LIFETIME;
        let certificate = params.self_signed(&key)?;
        Self::from_der(certificate.der(), &key.serialize_der())
    }

    /// From the state's CA certificate and its unsealed PKCS#8 key.
    pub fn from_der(certificate: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let certificate = CertificateDer::from(certificate.to_vec());
        let pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key)).context("the cluster CA's key")?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair).context("the cluster CA's certificate")?;
        Ok(Self { certificate, issuer, key_der: key.to_vec() })
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn key_der(&self) -> &[u8] {
        &self.key_der
    }

    /// Signs a DER PKCS#10 request as that node of that cluster; of the request only its key and names count.
    pub fn sign(
        &self,
        request: &[u8],
        cluster: [u8; 16],
        node: NodeId,
        lifetime: Duration,
    ) -> anyhow::Result<CertificateDer<'static>> {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request).context("the certificate request")?;
        let asked = std::mem::take(&mut request.params.subject_alt_names);
        anyhow::ensure!(asked.len() <= NAMES_MAX, "the certificate request has more than {NAMES_MAX} names");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("node {node}"));
        params.subject_alt_names = vec![SanType::URI(uri(cluster, node).try_into()?)];
        let named = asked.into_iter().filter(|name| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_)));
        params.subject_alt_names.extend(named);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - BACKDATED;
        params.not_after = now + lifetime;
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(certificate.der().clone())
    }
}

/// The SPKI's SHA-256 of a certificate request, after its signature was checked.
pub fn request_spki_sha256(request: &[u8]) -> anyhow::Result<[u8; 32]> {
    use rcgen::PublicKeyData;
    let request = CertificateSigningRequestDer::from(request);
    let request = CertificateSigningRequestParams::from_der(&request).context("the certificate request")?;
    Ok(sha256(&request.public_key.subject_public_key_info()))
}

/// What a node's certificate says it is.
pub fn uri(cluster: [u8; 16], node: NodeId) -> String {
    format!("quorumgate://{}/{node}", data_encoding::HEXLOWER.encode(&cluster))
}
