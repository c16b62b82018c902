use rustls::pki_types::UnixTime;
use webpki::KeyUsage;

use super::*;

const CLUSTER: [u8; 16] = [7; 16];

#[test]
fn a_signed_certificate_names_its_node_and_nothing_else_passes() {
    let authority = Authority::generate(CLUSTER).unwrap();
    let anchor = Anchor::new(authority.certificate()).unwrap();
    let key = NodeKey::generate().unwrap();
    let request = key.request(&Names::default()).unwrap();
    assert_eq!(request_spki_sha256(&request).unwrap(), key.spki_sha256());
    let certificate = authority.sign(&request, CLUSTER, 42, Duration::from_secs(60)).unwrap();
    let now = UnixTime::now();
    let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 3600));
    let expected = PeerIdentity { cluster: CLUSTER, node: 42, spki_sha256: key.spki_sha256() };
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        assert_eq!(anchor.verify(&certificate, usage, now), Ok(Presented::Valid(expected)));
        assert_eq!(anchor.verify(&certificate, usage, later), Ok(Presented::Expired(expected)));
    }

    let foreign = Authority::generate(CLUSTER).unwrap().sign(&request, CLUSTER, 42, LIFETIME).unwrap();
    let refused = anchor.verify(&foreign, KeyUsage::client_auth(), now).unwrap_err();
    assert!(
        matches!(
            refused,
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)
                | rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature)
        ),
        "{refused:?}"
    );
}

#[test]
fn a_sealed_secret_opens_for_its_key_and_purpose_only() {
    let key = ClusterKey::generate().unwrap();
    let sealed = key.seal("CA key", b"secret").unwrap();
    assert_eq!(key.open("CA key", &sealed).unwrap(), b"secret");
    key.open("another", &sealed).unwrap_err();
    ClusterKey::generate().unwrap().open("CA key", &sealed).unwrap_err();
    for at in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        key.open("CA key", &flipped).unwrap_err();
        key.open("CA key", &sealed[..at]).unwrap_err();
    }
}

#[test]
fn a_held_certificate_is_due_after_a_third_and_swapped_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::generate(CLUSTER).unwrap();
    let key = NodeKey::generate().unwrap();
    let request = key.request(&Names::default()).unwrap();
    let life = Duration::from_secs(3000);
    let certificate = authority.sign(&request, CLUSTER, 1, life).unwrap();
    Held::write(dir.path(), &key, authority.certificate(), &certificate).unwrap();
    let held = Held::read(dir.path()).unwrap();
    let now = Duration::from_secs(UnixTime::now().as_secs());
    let due = held.renewal_in(now, life).as_secs();
    assert!((998..=1001).contains(&due), "{due}");
    assert!(held.renewal_in(now + Duration::from_secs(1100), life).is_zero());
    assert!(!held.is_expired(now) && held.is_expired(now + Duration::from_secs(3001)));

    let renewed = authority.sign(&request, CLUSTER, 1, life * 2).unwrap();
    held.swap(renewed).unwrap();
    assert!(held.not_after() > (now + life).as_secs() as i64);
    assert_eq!(Held::read(dir.path()).unwrap().not_after(), held.not_after());
}

#[test]
fn keys_are_read_as_they_were_written() {
    let key = |number| ClusterKey::generate().unwrap().numbered(number);
    let first = Keys::of(vec![key(0)]);
    assert_eq!(first.to_bytes().len(), 32);
    for keys in [first, Keys::of(vec![key(7)]), Keys::of(vec![key(9), key(0), key(7)])] {
        let bytes = keys.to_bytes();
        assert_eq!(Keys::from_bytes(&bytes).unwrap(), keys);
        for cut in 0..bytes.len() {
            assert!(!Keys::from_bytes(&bytes[..cut]).is_ok_and(|it| it == keys), "cut at {cut}");
        }
        let sealed = keys.seal("a", b"secret").unwrap();
        assert_eq!(keys.open("a", &sealed).unwrap(), b"secret");
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            keys.open("a", &flipped).unwrap_err();
        }
    }
}
