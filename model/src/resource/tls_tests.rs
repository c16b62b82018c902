//! Certificates and listeners: what is taken, and what is refused with its field.

use serde_json::{Value, json};

use super::*;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn parse(kind: Kind, mut words: Value) -> Result<Resource, String> {
    words["name"] = json!("x");
    kind.parse(words).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(kind: Kind, words: Value, field: &str, mention: &str) {
    let error = parse(kind, words).unwrap_err();
    assert!(error.contains(field) && error.contains(mention), "{error}");
}

#[test]
fn a_certificate_is_for_names_that_certificates_may_have() {
    let words = |hosts: Value| json!({ "hosts": hosts, "chain": PEM, "key": "plain:k" });
    let Resource::Certificate(it) = parse(Kind::Certificate, words(json!(["A.test", "*.b.test"]))).unwrap() else {
        panic!("another kind")
    };
    assert_eq!(it.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.test", "*.b.test"]);
    for host in ["*", "*.test", "a.*.test", "*a.test", "", "a test", "https://a.test"] {
        refused(Kind::Certificate, words(json!(["ok.test", host])), "hosts[1]", "a host name");
    }
    refused(Kind::Certificate, words(json!(["a.test", "A.TEST"])), "hosts[1]", "each entry once");
    refused(Kind::Certificate, json!({ "chain": "x", "key": "plain:k" }), "chain", "PEM");
    refused(Kind::Certificate, json!({ "chain": PEM, "key": "plain:" }), "key", "at least one character");
    refused(Kind::Certificate, json!({ "chain": PEM, "key": "plain:k", "ocsp": "?" }), "ocsp", "base64");
    refused(Kind::Certificate, json!({ "chain": PEM, "key": "plain:k", "ocsp": "AAAA" }), "ocsp", "OCSP");
}

#[test]
fn a_listener_has_the_words_of_its_protocol() {
    let listener = |more: Value| {
        let mut words = json!({ "address": "0.0.0.0:8443" });
        for (word, value) in more.as_object().into_iter().flatten() {
            words[word] = value.clone();
        }
        words
    };
    let Resource::Listener(it) = parse(Kind::Listener, listener(json!({ "certificates": ["c"] }))).unwrap() else {
        panic!("another kind")
    };
    assert_eq!((it.protocol, it.client_auth), (ListenerProtocol::Https, ClientAuth::None));
    let with_ca = listener(json!({ "certificates": ["c"], "client_ca": "p" }));
    let Resource::Listener(it) = parse(Kind::Listener, with_ca).unwrap() else { panic!("another kind") };
    assert_eq!(it.client_auth, ClientAuth::Require);
    parse(Kind::Listener, listener(json!({ "protocol": "tls_passthrough" }))).unwrap();
    for (words, field, mention) in [
        (json!({ "address": "8443" }), "address", "an IP address and a port"),
        (json!({ "address": "localhost:8443" }), "address", "an IP address and a port"),
        (json!({ "address": "0.0.0.0:0" }), "address", "from 1 to 65535"),
        (json!({ "protocol": "https" }), "certificates", "at least one"),
        (json!({ "protocol": "http", "certificates": ["c"] }), "certificates", "protocol https"),
        (json!({ "protocol": "http", "http3": true }), "http3", "protocol https"),
        (json!({ "protocol": "tcp", "upstream": "u", "client_auth": "request" }), "client_auth", "protocol https"),
        (json!({ "protocol": "tcp" }), "upstream", "the upstream"),
        (json!({ "protocol": "http", "upstream": "u" }), "upstream", "tcp or tls_passthrough"),
        (json!({ "certificates": ["c"], "client_auth": "require" }), "client_ca", "a certificate authority"),
        (json!({ "certificates": ["c"], "client_ca": "p", "client_auth": "none" }), "client_auth", "request, require"),
        (json!({ "certificates": ["c", "c"] }), "certificates[1]", "each entry once"),
        (json!({ "protocol": "quic" }), "quic", "tls_passthrough"),
        (json!({ "proxy_protocol_from": ["10.0.0.0/99"] }), "", "invalid IP address"),
    ] {
        refused(Kind::Listener, listener(words), field, mention);
    }
}
