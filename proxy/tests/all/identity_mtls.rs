//! Client certificates: who is let in by one, and who is not.

use std::{path::Path, sync::Arc};

use crate::identity_streams::{EVENTS, silent_after};
use crate::support::*;
use crate::tokens::{Signer, jwks};
use crate::world::{World, now_s};
use data_encoding::BASE64URL_NOPAD;
use quorumgate_model::revocation::SelectorKind;
use quorumgate_proxy::{ClientAuth, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a client comes with.
struct Client {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    serial: u64,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn client(&self, serial: u64, uri: &str) -> Client {
        self.client_with(serial, uri, |_| ())
    }

    fn client_with(&self, serial: u64, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Client {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let pair = KeyPair::generate().unwrap();
        let der = params.signed_by(&pair, &self.0).unwrap().der().clone();
        Client { der, key: PrivateKeyDer::try_from(pair.serialize_der()).unwrap(), serial }
    }

    fn crl(&self, revoked: &[&Client]) -> String {
        let entry = |client: &&Client| RevokedCertParams {
            serial_number: SerialNumber::from(client.serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn server(dir: &Path) -> (quorumgate_proxy::Settings, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["api.test".to_owned()]).unwrap();
    let (certificate, key) = (dir.join("a.pem"), dir.join("a.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut settings = settings();
    settings.listeners[0].tls = Some(Tls { certificate, key, client_auth: ClientAuth::Request });
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (settings, roots)
}

struct Gate {
    world: World,
    roots: RootCertStore,
    _files: tempfile::TempDir,
}

impl Gate {
    async fn new(words: Value) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (settings, roots) = server(files.path());
        Self { world: World::with(settings, words).await, roots, _files: files }
    }

    async fn connect(&self, client: Option<&Client>) -> TlsStream<TcpStream> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let config = match client {
            Some(client) => config.with_client_auth_cert(vec![client.der.clone()], client.key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.world.gateway.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect("api.test".try_into().unwrap(), stream).await.unwrap()
    }

    /// A stream of events whose first has come.
    async fn events(&self, client: &Client) -> TlsStream<TcpStream> {
        let mut stream = self.connect(Some(client)).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"data: 1\n\n\r\n") {
            read.push(soon("the first event", stream.read_u8()).await.unwrap_or_else(|_| panic!("{read:?}")));
        }
        stream
    }

    async fn ask(&self, client: Option<&Client>, fields: &[&str]) -> String {
        let mut stream = self.connect(client).await;
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon("the answer", stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn words(ca: &Authority, crl: Option<String>) -> Value {
    json!({
        "certificate_authorities": [{"name": "partners", "pem": ca.0.pem(), "crl": crl}],
        "auth": [{"name": "certs", "mtls": {"ca": "partners", "consumer_from": "san_uri"}}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "auth": {"any_of": ["certs"]}}],
    })
}

#[tokio::test]
async fn a_certificate_of_the_right_authority_lets_its_consumer_in() {
    let ca = Authority::new("partners");
    let gate = Gate::new(words(&ca, None)).await;
    let client = ca.client(7, "spiffe://shop.test/ns/x/acme");
    assert_eq!(status(&gate.ask(Some(&client), &["client-cert: :AAAA:"]).await), 200);
    let heard = gate.world.heard.last();
    let forwarded = format!("client-cert: :{}:\n", data_encoding::BASE64.encode(&client.der));
    assert!(heard.contains("x-consumer-name: acme\n") && heard.contains(&forwarded), "{heard}");
    assert!(!heard.contains("AAAA:"), "{heard}");
    check_problem(&gate.ask(None, &[]).await, 401, "credentials_missing");
    // A certificate is nothing that a field could say.
    check_problem(&gate.ask(None, &[forwarded.trim_end()]).await, 401, "credentials_missing");
    let purposes = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (bad, code) in [
        (Authority::new("partners").client(7, "spiffe://shop.test/acme"), "signature_invalid"),
        (Authority::new("others").client(7, "spiffe://shop.test/acme"), "credentials_invalid"),
        (ca.client(8, "spiffe://shop.test/nobody"), "credentials_invalid"),
        (ca.client(8, "spiffe://shop.test/"), "credentials_invalid"),
        (ca.client(8, "spiffe://shop.test/Acme"), "credentials_invalid"),
        (ca.client(8, "https://shop.test/x?as=/acme"), "credentials_invalid"),
        (ca.client(8, "https://shop.test/x#/acme"), "credentials_invalid"),
        (ca.client_with(8, "spiffe://a/acme", |it| it.not_after = date_time_ymd(2024, 1, 1)), "token_expired"),
        (ca.client_with(8, "spiffe://a/acme", |it| it.not_before = date_time_ymd(2090, 1, 1)), "credentials_invalid"),
        (ca.client_with(8, "spiffe://a/acme", |it| it.extended_key_usages = purposes), "credentials_invalid"),
        (
            ca.client_with(8, "spiffe://a/acme", |it| {
                it.subject_alt_names.push(SanType::URI("spiffe://a/other".try_into().unwrap()));
            }),
            "credentials_invalid",
        ),
    ] {
        check_problem(&gate.ask(Some(&bad), &[]).await, 401, code);
    }
}

#[tokio::test]
async fn certificates_are_revoked_by_list_and_by_selector() {
    let ca = Authority::new("partners");
    let (listed, by_serial, by_key) =
        (ca.client(5, "spiffe://a/acme"), ca.client(6, "spiffe://a/acme"), ca.client(0x1234_5678, "spiffe://a/acme"));
    let gate = Gate::new(words(&ca, Some(ca.crl(&[&listed])))).await;
    check_problem(&gate.ask(Some(&listed), &[]).await, 401, "token_revoked");
    let issuer = {
        let (_, parsed) = x509_parser::parse_x509_certificate(&by_serial.der).unwrap();
        sha256(parsed.issuer().as_raw())
    };
    let spki = {
        let (_, parsed) = x509_parser::parse_x509_certificate(&by_key.der).unwrap();
        sha256(parsed.public_key().raw)
    };
    for client in [&by_serial, &by_key] {
        assert_eq!(status(&gate.ask(Some(client), &[]).await), 200);
    }
    gate.world.revoke(SelectorKind::CertificateSerial, &issuer, &[6]);
    check_problem(&gate.ask(Some(&by_serial), &[]).await, 401, "token_revoked");
    assert_eq!(status(&gate.ask(Some(&by_key), &[]).await), 200);
    gate.world.revoke(SelectorKind::CertificateKey, b"", &spki);
    check_problem(&gate.ask(Some(&by_key), &[]).await, 401, "token_revoked");
}

#[tokio::test]
async fn a_list_that_is_replaced_counts_at_once_on_open_connections_and_streams_too() {
    let ca = Authority::new("partners");
    let (client, kept) = (ca.client(5, "spiffe://a/acme"), ca.client(6, "spiffe://a/other"));
    let gate = Gate::new(words(&ca, Some(ca.crl(&[])))).await;
    gate.world.put(json!({"upstreams": [{"name": "u", "targets": [silent_after(EVENTS).await.to_string()]}]}));
    let (mut stream, mut other) = (gate.events(&client).await, gate.events(&kept).await);
    let listed = words(&ca, Some(ca.crl(&[&client])));
    gate.world.put(json!({"certificate_authorities": listed["certificate_authorities"]}));
    let since = std::time::Instant::now();
    let mut rest = Vec::new();
    let _ = soon("the stream ends", stream.read_to_end(&mut rest)).await;
    assert!(rest.ends_with(b"0\r\n\r\n") && since.elapsed() < std::time::Duration::from_secs(3), "{rest:?}");
    check_problem(&gate.ask(Some(&client), &[]).await, 401, "token_revoked");
    // The other's goes on, until its authority is another one.
    gate.world.gateway.metric_becomes("quorumgate_http_requests_in_flight", 1).await;
    let others = words(&Authority::new("others"), None);
    gate.world.put(json!({"certificate_authorities": others["certificate_authorities"]}));
    let _ = soon("the stream ends", other.read_to_end(&mut rest)).await;
    check_problem(&gate.ask(Some(&kept), &[]).await, 401, "credentials_invalid");
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

#[tokio::test]
async fn a_bound_token_is_of_no_use_without_its_certificate() {
    let ca = Authority::new("any");
    let signer = Signer::es256("k1");
    let keys: Value = serde_json::from_str(&jwks(&[&signer])).unwrap();
    let gate = Gate::new(json!({
        "auth": [{"name": "idp", "jwt": {"issuer": "https://idp.test", "audience": ["orders"], "jwks_inline": keys}}],
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "upstream": "u", "auth": {"any_of": ["idp"]}}],
    }))
    .await;
    let (owner, thief) = (ca.client(1, "spiffe://a/acme"), ca.client(2, "spiffe://a/thief"));
    let thumbprint = BASE64URL_NOPAD.encode(&sha256(&owner.der));
    let token = signer.token(&json!({
        "iss": "https://idp.test", "aud": "orders", "exp": now_s() + 600, "cnf": {"x5t#S256": thumbprint},
    }));
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(status(&gate.ask(Some(&owner), &[&bearer]).await), 200);
    for stolen in [gate.ask(Some(&thief), &[&bearer]).await, gate.ask(None, &[&bearer]).await] {
        check_problem(&stolen, 401, "credentials_invalid");
    }
}
