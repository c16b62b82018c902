//! What handshakes show and ask: certificates by name, replaced under way; who may come; sessions that resume elsewhere.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use quorumgate_proxy::tls::TicketKeys;
use rustls::{HandshakeKind, NamedGroup};
use serde_json::{Value, json};

use crate::{support::*, tls::*};

const BOTH: &[&rustls::SupportedProtocolVersion] = rustls::DEFAULT_VERSIONS;
const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn https(address: std::net::SocketAddr, certificates: &[&str]) -> Value {
    json!({ "name": "h", "address": address.to_string(), "certificates": certificates })
}

#[tokio::test]
async fn the_exact_name_wins_over_the_wildcard_and_that_over_the_default() {
    let ca = Authority::new("names");
    let all = ["a.shop.test", "b.shop.test", "x.a.shop.test", "other.test"];
    let [exact, wild, default] = [ca.server(&all), ca.server(&all), ca.server(&all)];
    let at = address();
    let certificates = |with_default: bool| {
        let mut all = vec![certificate("w", &["*.shop.test"], &wild), certificate("e", &["a.shop.test"], &exact)];
        all.extend(with_default.then(|| certificate("d", &[], &default)));
        all
    };
    let it =
        Listening::new(json!({ "certificates": certificates(true), "listeners": [https(at, &["w", "e", "d"])] })).await;
    let client = ca.trusting(None, BOTH);
    for (name, expected) in
        [("a.shop.test", &exact), ("b.shop.test", &wild), ("x.a.shop.test", &default), ("other.test", &default)]
    {
        let (answer, stream) = client.ask(at, name).await.unwrap();
        assert_eq!((status(&answer), leaf_of(&stream) == expected.der), (200, true), "{name}");
    }
    it.publish(json!({ "certificates": certificates(false), "listeners": [https(at, &["w", "e"])] }));
    assert!(client.ask(at, "A.Shop.Test").await.is_ok());
    for name in ["x.a.shop.test", "other.test"] {
        assert!(client.connect(at, name).await.is_err(), "{name}");
    }
    it.gateway.metric_becomes("quorumgate_rejects_total{reason=\"tls_handshake\"}", 2).await;
}

#[tokio::test]
async fn a_certificate_is_replaced_under_connections_that_go_on() {
    let ca = Authority::new("replaced");
    let [before, after] = [ca.server(&["api.test"]), ca.server(&["api.test"])];
    let at = address();
    let words =
        |leaf| json!({ "certificates": [certificate("c", &["api.test"], leaf)], "listeners": [https(at, &["c"])] });
    let it = Listening::new(words(&before)).await;
    let client = ca.trusting(None, BOTH);
    let mut kept = client.connect(at, "api.test").await.unwrap();
    ask_on(&mut kept, "api.test").await;
    for leaf in [&after, &before, &after] {
        it.publish(words(leaf));
        let stream = ca.trusting(None, BOTH).connect(at, "api.test").await.unwrap();
        assert_eq!(leaf_of(&stream), leaf.der);
        assert_eq!(field(&ask_on(&mut kept, "api.test").await, "connection"), None);
    }
    let until = it.gateway.metric("quorumgate_tls_cert_not_after_seconds{certificate=\"c\"}");
    assert!(until > 4_000_000_000, "{until}");
}

#[tokio::test]
async fn only_clients_of_the_authority_come_in() {
    let (ca, clients, others) = (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let own = ca.server(&["api.test"]);
    let at = address();
    let words = |authority: &Authority, auth: &str| {
        let mut listener = https(at, &["c"]);
        listener["client_ca"] = json!("clients");
        listener["client_auth"] = json!(auth);
        json!({
            "certificate_authorities": [{ "name": "clients", "pem": authority.0.pem() }],
            "certificates": [certificate("c", &[], &own)], "listeners": [listener],
        })
    };
    let it = Listening::new(words(&clients, "require")).await;
    let (friend, stranger) = (clients.client("spiffe://a/friend"), others.client("spiffe://a/stranger"));
    for versions in [TLS12, TLS13] {
        let [with, without, wrong] = [Some(&friend), None, Some(&stranger)].map(|client| ca.trusting(client, versions));
        assert_eq!(status(&with.ask(at, "api.test").await.unwrap().0), 200);
        assert!(without.ask(at, "api.test").await.is_err());
        assert!(wrong.ask(at, "api.test").await.is_err());

        // What is only asked for must be right too.
        it.publish(words(&clients, "request"));
        assert_eq!(status(&without.ask(at, "api.test").await.unwrap().0), 200);
        assert!(wrong.ask(at, "api.test").await.is_err());

        // A session that was let in by other rules is no way in.
        it.publish(words(&clients, "require"));
        assert!(without.ask(at, "api.test").await.is_err());
        let (_, stream) = with.ask(at, "api.test").await.unwrap();
        drop(stream);
        let (_, stream) = with.ask(at, "api.test").await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let mut kept = with.connect(at, "api.test").await.unwrap();
        ask_on(&mut kept, "api.test").await;
        it.publish(words(&others, "require"));
        assert!(with.ask(at, "api.test").await.is_err());
        // Connections that stand are asked to come again.
        let asked = async { while field(&ask_on(&mut kept, "api.test").await, "connection") != Some("close") {} };
        soon("the connection is asked to go", asked).await;
        it.publish(words(&clients, "require"));
    }
}

#[tokio::test]
async fn a_session_resumes_at_another_node() {
    let ca = Authority::new("resumed");
    let own = ca.server(&["api.test"]);
    let [here, there] = [address(), address()];
    let words = |at| json!({ "certificates": [certificate("c", &[], &own)], "listeners": [https(at, &["c"])] });
    let nodes = [Listening::new(words(here)).await, Listening::new(words(there)).await];
    let keys: [Arc<TicketKeys>; 2] = [&nodes[0], &nodes[1]].map(|node| node.gateway.proxy.ticket_keys());
    keys.iter().for_each(|keys| keys.set(&[[7; 32]]));
    for versions in [TLS12, TLS13] {
        let client = ca.trusting(None, versions);
        let kind = |stream: &Stream| stream.get_ref().1.handshake_kind();
        let (_, stream) = client.ask(here, "api.test").await.unwrap();
        assert_ne!(kind(&stream), Some(HandshakeKind::Resumed));
        let (answer, stream) = client.ask(there, "api.test").await.unwrap();
        assert_eq!((status(&answer), kind(&stream)), (200, Some(HandshakeKind::Resumed)));
        // A key that is gone opens nothing.
        keys[0].set(&[[8; 32]]);
        let (answer, stream) = client.ask(here, "api.test").await.unwrap();
        assert_eq!((status(&answer), kind(&stream) == Some(HandshakeKind::Resumed)), (200, false));
        keys[0].set(&[[7; 32]]);
    }
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_where_the_client_has_it() {
    let ca = Authority::new("hybrid");
    let at = address();
    let own = ca.server(&["api.test"]);
    let _it =
        Listening::new(json!({ "certificates": [certificate("c", &[], &own)], "listeners": [https(at, &["c"])] }))
            .await;
    let group = |stream: &Stream| stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    let stream = ca.trusting(None, TLS13).connect(at, "api.test").await.unwrap();
    assert_eq!(group(&stream), NamedGroup::X25519MLKEM768);
    let stream = ca.trusting(None, TLS12).connect(at, "api.test").await.unwrap();
    assert_eq!(group(&stream), NamedGroup::X25519);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_certificate_changes_under_load_fail_no_request() {
    let ca = Authority::new("changes");
    let leaves = [ca.server(&["api.test"]), ca.server(&["api.test"])];
    let at = address();
    let words =
        |leaf: &Leaf| json!({ "certificates": [certificate("c", &[], leaf)], "listeners": [https(at, &["c"])] });
    let it = Listening::new(words(&leaves[0])).await;
    let (done, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|requests| {
            let (client, done, over) = (ca.trusting(None, BOTH), done.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let mut stream = client.connect(at, "api.test").await.unwrap();
                    for _ in 0..=requests {
                        ask_on(&mut stream, "api.test").await;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for change in 0..20 {
        let before = done.load(Ordering::Relaxed);
        it.publish(words(&leaves[(change + 1) % 2]));
        until("requests go on", || (done.load(Ordering::Relaxed) >= before + 20).then_some(())).await;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}
