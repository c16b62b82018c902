//! Keys and revocations over the API: what comes back, what is refused, and what the proxy's tables say after.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use quorumgate_proto::admin::v1::{self as admin, new_key::Given, selector::By};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use super::fixture::Fixture;

fn key(consumer: &str) -> admin::NewKey {
    admin::NewKey { consumer: consumer.into(), ..Default::default() }
}

fn create(key: admin::NewKey) -> admin::CreateKeyRequest {
    admin::CreateKeyRequest { key: Some(key), request_id: String::new() }
}

fn check(token: &str) -> admin::CheckTokenRequest {
    admin::CheckTokenRequest { what: Some(admin::check_token_request::What::Token(token.into())), stale: false }
}

fn selector(by: By) -> Option<admin::Selector> {
    Some(admin::Selector { by: Some(by), issuer: String::new() })
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[tokio::test]
async fn a_key_is_made_found_rotated_and_revoked() {
    let fixture = Fixture::with_consumer().await;
    let mut keys = fixture.local().await.keys();
    let wanted = admin::NewKey {
        scopes: vec!["orders:read".into()],
        cidrs: vec!["10.0.0.0/8".into()],
        expires_in: seconds(3_600),
        ..key("acme")
    };
    let made = keys.create_key(create(wanted)).await.unwrap().into_inner();
    assert!(made.secret.starts_with("qg_live_") && made.revision > 0 && made.nodes.len() == 1);
    assert!(made.nodes[0].applied_revision >= made.revision, "{:?}", made.nodes);

    let found = fixture.directory.keys.find(&made.secret).unwrap();
    assert_eq!((found.id.to_string(), &*found.consumer), (made.id.clone(), "acme"));
    assert_eq!(found.scopes(), [Box::from("orders:read")]);

    let rotate = admin::RotateKeyRequest { id: made.id.clone(), overlap: seconds(60), request_id: String::new() };
    let next = keys.rotate_key(rotate).await.unwrap().into_inner();
    let shown = keys.get_key(admin::GetKeyRequest { id: made.id.clone(), stale: false }).await.unwrap().into_inner();
    let shown = shown.key.unwrap();
    assert_eq!((&*shown.state, &*shown.replaced_by, &*shown.prefix), ("rotating", &*next.id, &made.secret[..16]));
    assert!(shown.expires_in.unwrap().seconds <= 60);

    keys.revoke_key(admin::KeyRequest { id: next.id.clone() }).await.unwrap();
    let mut revocations = fixture.local().await.revocations();
    assert!(revocations.check_token(check(&next.secret)).await.unwrap().into_inner().revoked);
    assert!(!revocations.check_token(check(&made.secret)).await.unwrap().into_inner().revoked);
    let again = keys.enable_key(admin::KeyRequest { id: next.id }).await.unwrap_err();
    assert_eq!(again.code(), Code::Aborted);
}

#[tokio::test]
async fn a_repeated_request_shows_the_same_secret_and_another_one_is_refused() {
    let fixture = Fixture::with_consumer().await;
    let mut keys = fixture.local().await.keys();
    let request_id = uuid::Uuid::new_v4().to_string();
    let request = admin::CreateKeyRequest { key: Some(key("acme")), request_id: request_id.clone() };
    let first = keys.create_key(request.clone()).await.unwrap().into_inner();
    let second = keys.create_key(request).await.unwrap().into_inner();
    assert_eq!((&first.id, &first.secret, first.revision), (&second.id, &second.secret, second.revision));
    let other = admin::NewKey { env: "test".into(), ..key("acme") };
    let refused = keys.create_key(admin::CreateKeyRequest { key: Some(other), request_id }).await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    assert_eq!(fixture.consensus.state().credentials.len(), 1);
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_and_comes_in_pages() {
    let fixture = Fixture::with_consumer().await;
    let mut keys = fixture.local().await.keys();
    let batch = |keys| admin::BatchCreateKeysRequest { keys, ..Default::default() };
    let refused = keys.batch_create_keys(batch(vec![key("acme"), key("nobody")])).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let details = refused.get_error_details();
    let violation = &details.bad_request().unwrap().field_violations[0];
    assert_eq!(violation.field, "credentials[1].consumer");
    let refused = keys.batch_create_keys(batch(vec![key("acme"); 1_001])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fixture.consensus.state().credentials.len(), 0);

    let text = "imported-key-0001";
    let brought = admin::NewKey { given: Some(Given::Text(text.into())), ..key("acme") };
    let hash = quorumgate_proxy::identity::keys::key_hash(&pepper(&fixture), "another-imported-key");
    let hashed = admin::NewKey { given: Some(Given::Hash(hash.to_vec())), ..key("acme") };
    let mut all = vec![key("acme"); 23];
    all.extend([brought, hashed]);
    let made = keys.batch_create_keys(batch(all)).await.unwrap().into_inner();
    assert_eq!(made.keys.len(), 25);
    assert!(made.keys[23].secret.is_empty() && made.keys[24].secret.is_empty());
    for text in [text, "another-imported-key", &made.keys[7].secret] {
        assert!(fixture.directory.keys.find(text).is_some(), "{text}");
    }
    for consumer in ["", "acme"] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = admin::ListKeysRequest { consumer: consumer.into(), limit: 10, page_token, stale: false };
            let page = keys.list_keys(request).await.unwrap().into_inner();
            seen.extend(page.keys.into_iter().map(|key| key.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let mut ids: Vec<_> = made.keys.iter().map(|key| key.id.clone()).collect();
        ids.sort();
        assert_eq!(seen, ids, "{consumer:?}");
    }
}

fn pepper(fixture: &Fixture) -> [u8; 32] {
    let consensus = &fixture.consensus;
    crate::secrets::pepper(&consensus.state(), &consensus.keys()).unwrap().unwrap()
}

#[tokio::test]
async fn the_password_of_a_basic_user_is_nowhere() {
    let fixture = Fixture::with_consumer().await;
    let mut keys = fixture.local().await.keys();
    let user = |password: &str| admin::NewKey {
        given: Some(Given::Basic(admin::BasicUser { username: "ann".into(), password: password.into() })),
        ..key("acme")
    };
    assert_eq!(keys.create_key(create(user("short"))).await.unwrap_err().code(), Code::InvalidArgument);
    let made = keys.create_key(create(user("correct horse"))).await.unwrap().into_inner();
    assert_eq!(made.secret, "");
    let stored = fixture.directory.keys.user("ann").unwrap();
    let text = format!("{stored:?}");
    assert!(text.contains("$argon2id$") && !text.contains("correct horse"), "{text}");
    let twice = keys.create_key(create(user("correct horse"))).await.unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn nobody_is_made_who_cannot_show_what_he_is() {
    let fixture = Fixture::with_consumer().await;
    let mut keys = fixture.local().await.keys();
    let basic = |username: &str, password: &str| {
        let user = admin::BasicUser { username: username.into(), password: password.into() };
        create(admin::NewKey { given: Some(Given::Basic(user)), ..key("acme") })
    };
    for (username, password, field) in [
        ("a\tb", "correct horse", "key.basic.username"),
        ("a\0", "correct horse", "key.basic.username"),
        ("ann", "correct\u{7f}horse", "key.basic.password"),
    ] {
        let refused = keys.create_key(basic(username, password)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{username:?}");
        assert_eq!(refused.get_error_details().bad_request().unwrap().field_violations[0].field, field);
    }
    assert_eq!(fixture.consensus.state().credentials.len(), 0);
    keys.create_key(basic("ünï", "größer als")).await.unwrap();
    // The longest key that may be brought is one that a request may show.
    let longest = "k".repeat(quorumgate_proxy::identity::keys::KEY_BYTES_MAX);
    let text = |text: String| create(admin::NewKey { given: Some(Given::Text(text)), ..key("acme") });
    let refused = keys.create_key(text(format!("{longest}k"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    keys.create_key(text(longest)).await.unwrap();
}

#[tokio::test]
async fn what_is_revoked_is_in_the_tables_when_the_call_returns() {
    let fixture = Fixture::with_consumer().await;
    let mut revocations = fixture.local().await.revocations();
    let new =
        |by: By, expires_in, issued_before| admin::NewRevocation { selector: selector(by), expires_in, issued_before };
    let revoke = |revocation| admin::RevokeTokenRequest {
        revocation: Some(revocation),
        reason: "leaked".into(),
        ..Default::default()
    };
    let told = revocations.revoke_token(revoke(new(By::Jti("t1".into()), None, None))).await.unwrap().into_inner();
    assert!(told.warnings.is_empty() && !told.noop && told.nodes[0].applied_revision >= told.revision);
    let checked = admin::CheckTokenRequest {
        what: Some(admin::check_token_request::What::Selector(selector(By::Jti("t1".into())).unwrap())),
        stale: false,
    };
    let found = revocations.check_token(checked).await.unwrap().into_inner();
    assert!(found.revoked);
    assert_eq!((&*found.entries[0].reason, &*found.entries[0].text), ("leaked", "jti=t1"));
    let left = found.entries[0].expires_in.as_ref().unwrap().seconds;
    assert!((86_400..=86_700).contains(&left), "a day and five minutes by default: {left}");

    let short = revocations.revoke_token(revoke(new(By::Sid("s".into()), seconds(60), None))).await.unwrap();
    assert!(short.into_inner().warnings[0].contains("may count again"));

    let subject = new(By::Subject("u".into()), None, None);
    assert_eq!(revocations.revoke_token(revoke(subject)).await.unwrap_err().code(), Code::InvalidArgument);

    let jwt = format!("{}.{}.c2ln", encoded(r#"{"alg":"RS256"}"#), encoded(r#"{"jti":"t1","iss":"i","exp":1}"#));
    assert!(revocations.check_token(check(&jwt)).await.unwrap().into_inner().revoked);
    let inspected =
        revocations.inspect_token(admin::InspectTokenRequest { token: jwt, stale: false }).await.unwrap().into_inner();
    assert_eq!(inspected.kind, "jwt");
    let good = |name: &str| inspected.findings.iter().find(|it| it.check == name).map(|it| it.good);
    assert_eq!(
        [good("form"), good("issuer"), good("expiry"), good("revocation")],
        [true, false, false, false].map(Some)
    );

    let many = (0..30).map(|n| new(By::Kid(format!("k{n}")), None, None)).collect();
    let batch = admin::BatchRevokeRequest { revocations: many, ..Default::default() };
    revocations.batch_revoke(batch).await.unwrap();
    let (mut seen, mut page_token) = (0, String::new());
    loop {
        let request = admin::ListRevocationsRequest { limit: 10, page_token, stale: false };
        let page = revocations.list_revocations(request).await.unwrap().into_inner();
        assert_eq!(page.total, 32);
        seen += page.revocations.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, 32);
}

/// Signed by ES256, with the key that the JWKS beside it calls k1.
struct Issuer {
    pair: EcdsaKeyPair,
    jwks: String,
}

impl Issuer {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|it| data_encoding::BASE64URL_NOPAD.encode(it));
        let key = json!({ "kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y });
        Self { jwks: json!({ "keys": [key] }).to_string(), pair }
    }

    fn token(&self, header: &Value, changed: &[(&str, Value)]) -> String {
        let now_s = crate::publish::wall_ms() / 1_000;
        let mut claims = json!({ "iss": "https://idp.test", "aud": "orders", "exp": now_s + 300, "iat": now_s,
            "app": { "name": "acme" } });
        changed.iter().for_each(|(name, value)| claims[*name] = value.clone());
        let text = format!("{}.{}", encoded(&header.to_string()), encoded(&claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", data_encoding::BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

#[tokio::test]
async fn a_token_is_read_as_the_proxy_reads_it() {
    let fixture = Fixture::with_consumer().await;
    let issuer = Issuer::new();
    let jwt = admin::JwtAuth {
        issuer: "https://idp.test".into(),
        audience: vec!["orders".into()],
        consumer_claim: "app.name".into(),
        keys: Some(admin::jwt_auth::Keys::JwksInline(issuer.jwks.clone())),
        ..Default::default()
    };
    let auth = admin::Auth { name: "idp".into(), kind: Some(admin::auth::Kind::Jwt(jwt)), ..Default::default() };
    let config = Some(admin::ConfigSet { auth: vec![auth], ..Default::default() });
    let applied = fixture.local().await.apply(admin::ApplyConfigRequest { config, ..Default::default() }).await;
    applied.unwrap();
    let mut revocations = fixture.local().await.revocations();
    let header = json!({ "alg": "ES256", "kid": "k1" });
    let now_s = crate::publish::wall_ms() / 1_000;
    let stranger = Issuer::new();
    for (token, bad) in [
        (issuer.token(&header, &[]), None),
        (issuer.token(&header, &[("exp", json!(now_s - 10))]), None),
        (issuer.token(&header, &[("exp", json!(now_s as f64 + 100.5))]), None),
        (
            issuer.token(&header, &[("nbf", json!(now_s + 300))]),
            Some("idp: 401 credentials_invalid: the token is not yet valid"),
        ),
        (
            issuer.token(&header, &[("app", Value::Null)]),
            Some("idp: 401 credentials_invalid: the token names no consumer"),
        ),
        (
            issuer.token(&json!({ "alg": "ES256", "kid": "k2" }), &[("nbf", json!(now_s + 300))]),
            Some(
                "idp: 401 credentials_invalid: no key of the issuer has the token's key id; \
                 with a key 401 credentials_invalid: the token is not yet valid",
            ),
        ),
        (stranger.token(&header, &[]), Some("idp: 401 signature_invalid: the signature does not match")),
    ] {
        let request = admin::InspectTokenRequest { token, stale: false };
        let inspected = revocations.inspect_token(request).await.unwrap().into_inner();
        assert_eq!(inspected.auths, ["idp"]);
        let found: Vec<_> = inspected.findings.iter().filter(|it| !it.good).collect();
        assert_eq!(found.is_empty(), bad.is_none(), "{found:?}");
        let answer = inspected.findings.iter().find(|it| it.check == "answer").unwrap();
        assert_eq!(answer.detail, bad.unwrap_or("idp: taken, as consumer/acme"));
    }

    // By the key that has signed it, though it names none; and by the consumer that a path of claims names.
    let token = issuer.token(&json!({ "alg": "ES256" }), &[]);
    assert!(!revocations.check_token(check(&token)).await.unwrap().into_inner().revoked);
    for by in [By::Kid("k1".into()), By::Consumer("acme".into())] {
        let revocation = Some(admin::NewRevocation { selector: selector(by), ..Default::default() });
        let revoke = admin::RevokeTokenRequest { revocation, ..Default::default() };
        revocations.revoke_token(revoke).await.unwrap();
        let checked = revocations.check_token(check(&token)).await.unwrap().into_inner();
        assert!(checked.revoked);
        let request = admin::InspectTokenRequest { token: token.clone(), stale: false };
        let inspected = revocations.inspect_token(request).await.unwrap().into_inner();
        assert_eq!(inspected.entries.len(), checked.entries.len());
        let answer = inspected.findings.iter().find(|it| it.check == "answer").unwrap();
        assert_eq!(answer.detail, "idp: 401 token_revoked: the credential was revoked");
    }
    let by_both = revocations.check_token(check(&token)).await.unwrap().into_inner();
    let texts: Vec<_> = by_both.entries.iter().map(|it| it.text.split('=').next().unwrap()).collect();
    assert_eq!((texts.len(), texts.contains(&"kid"), texts.contains(&"consumer")), (2, true, true), "{texts:?}");
}

fn encoded(text: &str) -> String {
    data_encoding::BASE64URL_NOPAD.encode(text.as_bytes())
}

#[tokio::test]
async fn a_viewer_sees_and_changes_nothing() {
    let fixture = Fixture::with_consumer().await;
    let token = fixture.admin_token("eye", "viewer", "").await;
    let client = fixture.remote(Some(&token)).await;
    assert!(client.keys().list_keys(admin::ListKeysRequest::default()).await.is_ok());
    let refused = client.keys().create_key(create(key("acme"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = client.revocations().revoke_token(admin::RevokeTokenRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
