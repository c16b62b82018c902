//! Certificates and listeners by the admin API: what is checked before anything is proposed, and what comes out.

use prost::Message;
use quorumgate_proto::admin::v1 as admin;
use tonic::Code;

use super::fixture::{Fixture, fields};

/// A chain and its key, as PEM.
fn made(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn certificate(chain: &str, key: admin::Secret) -> admin::Certificate {
    let hosts = vec!["api.test".into()];
    admin::Certificate { name: "c".into(), hosts, chain: chain.into(), key: Some(key), ..Default::default() }
}

fn plain(text: &str) -> admin::Secret {
    admin::Secret { plain: text.into(), ..Default::default() }
}

fn listener(name: &str, address: &str) -> admin::Listener {
    admin::Listener { name: name.into(), address: address.into(), certificates: vec!["c".into()], ..Default::default() }
}

fn apply(certificates: Vec<admin::Certificate>, listeners: Vec<admin::Listener>) -> admin::ApplyConfigRequest {
    let config = admin::ConfigSet { certificates, listeners, ..Default::default() };
    admin::ApplyConfigRequest { config: Some(config), ..Default::default() }
}

#[tokio::test]
async fn a_key_is_sealed_and_held_against_its_chain() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let ((chain, key), (other_chain, other_key)) = (made("api.test"), made("api.test"));
    let refused = client.apply(apply(vec![certificate(&chain, plain(&other_key))], vec![])).await.unwrap_err();
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["certificates[0].key".to_owned()]));
    assert!(!refused.message().contains("PRIVATE"), "{refused}");
    let broken = chain.replacen("MII", "MIJ", 1);
    let refused = client.apply(apply(vec![certificate(&broken, plain(&key))], vec![])).await.unwrap_err();
    assert_eq!(fields(&refused), ["certificates[0].chain"]);

    let written = client.apply(apply(vec![certificate(&chain, plain(&key))], vec![])).await.unwrap();
    assert!(!String::from_utf8_lossy(&written.encode_to_vec()).contains("PRIVATE KEY"));
    let get = admin::GetObjectRequest { name: "c".into(), stale: false };
    let shown = client.config().get_certificate(get).await.unwrap().into_inner().certificate.unwrap();
    let kept = shown.key.clone().unwrap();
    assert!(kept.plain.is_empty() && kept.sealed.is_empty() && kept.fingerprint.len() == 16, "{kept:?}");
    assert!(client.apply(apply(vec![shown], vec![])).await.unwrap().noop, "an export applies back unchanged");

    // The key that is there is none for another chain.
    let refused = client.apply(apply(vec![certificate(&other_chain, kept)], vec![])).await.unwrap_err();
    assert_eq!(fields(&refused), ["certificates[0].key"]);
    client.apply(apply(vec![certificate(&other_chain, plain(&other_key))], vec![])).await.unwrap();
}

#[tokio::test]
async fn listeners_hold_what_they_name_and_have_an_address_each() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let (chain, key) = made("api.test");
    let refused = client.apply(apply(vec![], vec![listener("a", "127.0.0.1:8443")])).await.unwrap_err();
    assert_eq!(fields(&refused), ["listeners[0].certificates[0]"]);
    let both = vec![listener("a", "127.0.0.1:1"), listener("b", "127.0.0.1:1")];
    let refused = client.apply(apply(vec![certificate(&chain, plain(&key))], both)).await.unwrap_err();
    assert_eq!(fields(&refused), ["listeners[1].address"]);

    let certificates = vec![certificate(&chain, plain(&key))];
    client.apply(apply(certificates, vec![listener("a", "127.0.0.1:1")])).await.unwrap();
    let delete = admin::DeleteObjectRequest { name: "c".into(), ..Default::default() };
    let refused = client.config().delete_certificate(delete.clone()).await.unwrap_err();
    assert!(refused.message().contains("it is used by listener \"a\""), "{refused}");
    let listed = client.config().list_listeners(admin::ListObjectsRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.listeners[0].protocol.as_str(), listed.listeners[0].client_auth.as_str()), ("https", "none"));
    let gone = admin::DeleteObjectRequest { name: "a".into(), ..Default::default() };
    client.config().delete_listener(gone).await.unwrap();
    client.config().delete_certificate(delete).await.unwrap();
}

#[tokio::test]
async fn the_leader_makes_a_key_for_session_tickets() {
    let node = Fixture::start().await;
    let mut states = node.consensus.states();
    let state = states.wait_for(|state| !state.ticket_keys.is_empty()).await.unwrap().clone();
    let key = &node.consensus.keys();
    let opened = crate::secrets::Opener::new(node.consensus.keyring().clone()).open(&state);
    assert_eq!(opened.ticket_keys.len(), 1);
    // The next one is due on the log clock, and replaces none whose tickets are still good.
    let made_at = state.ticket_keys.back().unwrap().made_at_us;
    assert!(crate::secrets::rotated(&state, key, made_at + 1).is_none());
    let due = made_at + quorumgate_model::state::TICKET_KEY_EVERY_US;
    assert!(crate::secrets::rotated(&state, key, due).is_some());
}
