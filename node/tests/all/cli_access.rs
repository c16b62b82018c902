//! Keys, tokens and what configuration files say of callers: the words and shapes that scripts depend on.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli_node::{Node, keys};

/// The examples of the configuration page about who may call, with what they refer to.
const ACCESS: &str = r#"
upstreams:
  - { name: orders-svc, targets: [10.1.0.4:9000] }
  - { name: billing-svc, targets: [10.1.0.5:9000], auth: to-billing }
routes:
  - name: orders
    match:
      hosts: [api.acme.test, "*.shop.test"]
      path_template: /orders/{user_id}
      methods: [GET, POST]
    upstream: orders-svc
    auth: { any_of: [partner-keys, idp] }
    authorize:
      - deny:  { cel: "request.path.startsWith('/orders/internal')" }
      - allow: { scopes_all: [orders:read], methods: [GET] }
      - allow: { groups: [partners], params_equal: { user_id: jwt.sub } }
    on_stale: deny
  - { name: both, match: { path_exact: /both }, upstream: billing-svc, auth: { all_of: [partners-mtls, idp] } }
  - { name: anyone, match: { path_exact: /anyone }, upstream: orders-svc, auth: { any_of: [people, opaque], anonymous: acme } }
  - { name: signed, match: { path_exact: /signed }, upstream: orders-svc, auth: { any_of: [signed] }, on_stale: allow }
  - { name: page, match: { path_prefix: /page }, upstream: orders-svc, auth: { any_of: [login] } }
  - { name: revoke, match: { path_exact: /revoke }, respond: { receiver: revocation, auth: idp }, auth: { any_of: [partner-keys] } }
  - { name: bye, match: { path_exact: /bye }, respond: { receiver: backchannel_logout, auth: login } }
  - { name: events, match: { path_exact: /events }, respond: { receiver: security_events, auth: idp } }
  - { name: jwks, match: { path_exact: /jwks }, respond: { receiver: jwks, auth: idp } }
  - { name: callback, match: { path_exact: /callback }, respond: { receiver: login_callback, auth: login } }
certificate_authorities:
  - { name: partners-ca, file: ca.pem, crl_file: ca.crl }
consumers:
  - { name: acme, groups: [partners], plan: free }
auth:
  - { name: partner-keys, api_key: { header: x-api-key, query: null } }
  - { name: idp, jwt: { issuer: "https://idp.test", audience: [orders], algorithms: [RS256, ES256], jwks_url: "https://idp.test/jwks", consumer_claim: azp, skew: 30s, max_lifetime: 24h, allow_private: false } }
  - { name: found, jwt: { issuer: "https://idp.test", audience: [orders], discovery: true } }
  - { name: filed, jwt: { issuer: "https://idp.test", audience: [orders], jwks_file: jwks.json } }
  - { name: opaque, introspection: { endpoint: "https://idp.test/introspect", client_id: gw, client_secret_file: s, cache: 30s, on_error: deny } }
  - { name: partners-mtls, mtls: { ca: partners-ca, consumer_from: "san_uri" } }
  - { name: signed, signature: { components: ["@method", "@target-uri", "content-digest"], max_age: 300s } }
  - { name: people, basic: {} }
  - { name: login, oidc_login: { issuer: "https://idp.test", client_id: web, client_secret_file: s, scopes: [openid], callback_path: /callback, logout_path: /logout, session: 8h } }
  - { name: to-billing, client_credentials: { token_endpoint: "https://idp.test/token", client_id: gw, client_secret_file: s, scopes: [billing] } }
"#;

/// The file, with those that it names beside it.
fn access_file(dir: &Path) -> String {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/files");
    for (from, to) in [("partners-ca.pem", "ca.pem"), ("partners-ca.crl", "ca.crl"), ("idp-jwks.json", "jwks.json")] {
        std::fs::copy(files.join(from), dir.join(to)).unwrap();
    }
    std::fs::write(dir.join("s"), "a-secret-of-the-test\n").unwrap();
    let file = dir.join("access.yaml");
    std::fs::write(&file, ACCESS).unwrap();
    file.to_str().unwrap().to_owned()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

/// The receipt of a write that every node serves.
#[track_caller]
fn check_receipt(told: &Value) {
    let revision = told["revision"].as_u64().unwrap();
    let nodes = told["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1, "{told}");
    assert_eq!(nodes[0]["name"], "n1");
    assert!(nodes[0]["applied_revision"].as_u64().unwrap() >= revision && revision > 0, "{told}");
    assert!(text(&nodes[0], "applied_at").ends_with('Z'), "{told}");
}

#[test]
fn callers_are_configured_keyed_and_revoked_in_words_that_scripts_depend_on() {
    let node = Node::start();
    let dir = tempfile::tempdir().unwrap();
    let file = access_file(dir.path());
    node.check(&["validate", "-f", &file], "", 0, &[]);
    check_receipt(&node.json(&["apply", "-f", &file], ""));
    // Applied once more, as it is and as it is exported, it changes nothing.
    assert_eq!(node.json(&["apply", "-f", &file], "")["noop"], json!(true));
    let exported = node.check(&["export"], "", 0, &[]);
    assert!(exported.contains("sealed:") && !exported.contains("a-secret-of-the-test"), "{exported}");
    assert_eq!(node.json(&["apply", "-f", "-"], &exported)["noop"], json!(true));

    let made = node.json(&["key", "create", "acme", "--scopes", "orders:read"], "");
    check_receipt(&made);
    assert!(["id", "secret", "revision", "noop", "changes", "nodes"].iter().all(|name| keys(&made).contains(name)));
    let (id, secret) = (text(&made, "id").to_owned(), text(&made, "secret").to_owned());
    let parts: Vec<&str> = secret.split('_').collect();
    assert!(matches!(parts[..], ["qg", _, random, crc] if random.len() >= 32 && crc.len() >= 6), "{secret}");
    let listed = node.json(&["key", "ls", "--consumer", "acme"], "");
    let listed = &listed["keys"][0];
    assert_eq!(
        (&listed["id"], &listed["state"], &listed["scopes"]),
        (&json!(id), &json!("active"), &json!(["orders:read"]))
    );
    assert!(!listed.to_string().contains(&secret), "a secret is shown once: {listed}");
    let rotated = node.json(&["key", "rotate", &id, "--overlap", "1h"], "");
    assert_ne!(rotated["secret"], json!(secret));
    assert_eq!(node.json(&["key", "get", &id], "")["state"], "rotating");
    assert_eq!(node.json(&["token", "check", &secret], "")["revoked"], json!(false));
    check_receipt(&node.json(&["key", "revoke", &id], ""));
    node.check(&["token", "check", &secret], "", 1, &[]);

    for by in [
        &["--jti", "j-1", "--expires-in", "1h"][..],
        &["--jti", "j-2", "--expires-in", "1h", "--wait", "all-live"],
        &["--issuer", "https://idp.test", "--subject", "ann", "--issued-before", "now"],
        &["--sha256", &"ab".repeat(32), "--reason", "leaked"],
    ] {
        let told = node.json(&[&["token", "revoke"], by].concat(), "");
        check_receipt(&told);
        assert_eq!(told["noop"], json!(false));
    }
    let listed = node.json(&["token", "ls"], "");
    assert_eq!(listed["total"], json!(4), "{listed}");
    node.check(&["token", "revoke", "--subject", "ann"], "", 2, &["--issuer"]);
    node.check(&["token", "revoke", "--issuer", "https://idp.test"], "", 2, &["--jti"]);
    node.check(&["key", "create", "nobody"], "", 4, &["nobody"]);
}
