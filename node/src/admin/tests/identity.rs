//! Consumers, auths and their secrets by the admin API.

use prost::Message;
use quorumgate_proto::admin::v1 as admin;
use tonic::Code;

use super::fixture::{Fixture, fields, route, upstream};

fn to_billing(secret: admin::Secret) -> admin::Auth {
    let kind = admin::ClientCredentialsAuth {
        token_endpoint: "https://idp.test/token".into(),
        client_id: "gateway".into(),
        client_secret: Some(secret),
        ..Default::default()
    };
    admin::Auth {
        name: "to-billing".into(),
        kind: Some(admin::auth::Kind::ClientCredentials(kind)),
        ..Default::default()
    }
}

fn plain(text: &str) -> admin::Secret {
    admin::Secret { plain: text.into(), ..Default::default() }
}

fn apply(config: admin::ConfigSet) -> admin::ApplyConfigRequest {
    admin::ApplyConfigRequest { config: Some(config), ..Default::default() }
}

fn auths(auth: Vec<admin::Auth>) -> admin::ApplyConfigRequest {
    apply(admin::ConfigSet { auth, ..Default::default() })
}

#[tokio::test]
async fn a_secret_goes_in_and_only_its_fingerprint_comes_out() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let first = client.apply(auths(vec![to_billing(plain("hunter2"))])).await.unwrap();
    assert!(!String::from_utf8_lossy(&first.encode_to_vec()).contains("hunter2"));
    assert!(client.apply(auths(vec![to_billing(plain("hunter2"))])).await.unwrap().noop);

    let got = client.config().get_auth(admin::GetObjectRequest { name: "to-billing".into(), stale: false }).await;
    let auth = got.unwrap().into_inner().auth.unwrap();
    let Some(admin::auth::Kind::ClientCredentials(kind)) = &auth.kind else { panic!("{auth:?}") };
    let shown = kind.client_secret.clone().unwrap();
    assert!(shown.plain.is_empty() && shown.sealed.is_empty() && shown.fingerprint.len() == 16, "{shown:?}");
    assert!(client.apply(auths(vec![auth.clone()])).await.unwrap().noop, "an export applies back unchanged");

    let state = node.consensus.state();
    let stored = crate::sealed::open_all(&node.consensus.keys(), &state.resources);
    assert_eq!(stored.into_values().collect::<Vec<_>>(), [Box::from(*b"hunter2")]);

    // Neither another's secret by its fingerprint nor bytes that were sealed elsewhere.
    let foreign = admin::Auth { name: "mine".into(), ..auth };
    let refused = client.apply(auths(vec![foreign])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fields(&refused), ["auth[0].client_credentials.client_secret"]);
    let bytes = admin::Secret { sealed: vec![1; 64], ..Default::default() };
    assert_eq!(client.apply(auths(vec![to_billing(bytes)])).await.unwrap_err().code(), Code::InvalidArgument);

    // A rollback brings the older one back, sealed as it was.
    client.apply(auths(vec![to_billing(plain("hunter3"))])).await.unwrap();
    let target = Some(admin::rollback_request::Target::Revision(first.revision));
    client.config().rollback(admin::RollbackRequest { target, ..Default::default() }).await.unwrap();
    let stored = crate::sealed::open_all(&node.consensus.keys(), &node.consensus.state().resources);
    assert_eq!(stored.into_values().collect::<Vec<_>>(), [Box::from(*b"hunter2")]);
}

#[tokio::test]
async fn references_lead_somewhere_and_hold_what_they_name() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut guarded = route("a", "a");
    guarded.auth =
        Some(admin::RouteAuth { any_of: vec!["keys".into()], anonymous: "visitor".into(), ..Default::default() });
    guarded.limits = vec!["slow".into()];
    let keys = admin::Auth {
        name: "keys".into(),
        kind: Some(admin::auth::Kind::ApiKey(admin::ApiKeyAuth::default())),
        ..Default::default()
    };
    let visitor = admin::Consumer { name: "visitor".into(), ..Default::default() };
    let slow = admin::Limit {
        name: "slow".into(),
        per: vec![admin::LimitKey { part: Some(admin::limit_key::Part::Word("global".into())) }],
        limit: 1,
        window: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    let whole = admin::ConfigSet {
        upstreams: vec![upstream("a", "")],
        routes: vec![guarded],
        consumers: vec![visitor],
        auth: vec![keys],
        limits: vec![slow],
        ..Default::default()
    };
    for (field, without) in [
        ("routes[0].auth.any_of[0]", admin::ConfigSet { auth: vec![], ..whole.clone() }),
        ("routes[0].auth.anonymous", admin::ConfigSet { consumers: vec![], ..whole.clone() }),
        ("routes[0].limits[0]", admin::ConfigSet { limits: vec![], ..whole.clone() }),
        (
            "routes[0].auth.any_of[0]",
            admin::ConfigSet {
                auth: vec![admin::Auth { name: "keys".into(), ..to_billing(plain("s")) }],
                ..whole.clone()
            },
        ),
    ] {
        let refused = client.apply(apply(without)).await.unwrap_err();
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
    client.apply(apply(whole.clone())).await.unwrap();

    for (kind, name) in [(admin::Kind::Auth, "keys"), (admin::Kind::Consumer, "visitor"), (admin::Kind::Limit, "slow")]
    {
        let delete = vec![admin::ResourceRef { kind: kind.into(), name: name.into() }];
        let refused = client.apply(admin::ApplyConfigRequest { delete, ..Default::default() }).await.unwrap_err();
        assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["delete[0]".to_owned()]));
        assert!(refused.message().contains("it is used by route \"a\""), "{}", refused.message());
    }
    // What a route asks callers for does not become what we prove ourselves by.
    let other = admin::Auth { name: "keys".into(), ..to_billing(plain("s")) };
    let refused = client.apply(auths(vec![other])).await.unwrap_err();
    assert!(refused.message().contains("kind client_credentials in place of api_key"), "{}", refused.message());

    let listed = client.config().list_consumers(admin::ListObjectsRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.consumers[0].name.as_str(), listed.etags.len()), ("visitor", 1));
    let consumer = Some(admin::Consumer { name: "acme".into(), ..Default::default() });
    let create = admin::WriteConsumerRequest { consumer, ..Default::default() };
    client.config().create_consumer(create.clone()).await.unwrap();
    assert_eq!(client.config().create_consumer(create).await.unwrap_err().code(), Code::AlreadyExists);
}

#[tokio::test]
async fn a_broken_expression_is_refused_with_its_place() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut wrong = route("a", "a");
    let condition = admin::Condition { cel: "request.pth(".into(), ..Default::default() };
    let effect = Some(admin::authorize_rule::Effect::Deny(condition));
    wrong.authorize = vec![admin::AuthorizeRule { effect, ..Default::default() }];
    let config = admin::ConfigSet { upstreams: vec![upstream("a", "")], routes: vec![wrong], ..Default::default() };
    let refused = client.apply(apply(config)).await.unwrap_err();
    assert_eq!(
        (refused.code(), fields(&refused)),
        (Code::InvalidArgument, vec!["routes[0].authorize[0].deny.cel".to_owned()])
    );
}

/// `status code; phase: decision (rule); …` for the phases about the caller.
async fn explained(client: &super::fixture::Client, request: admin::ExplainMatchRequest) -> String {
    let request = admin::ExplainMatchRequest { method: "GET".into(), url: "http://h/users/7".into(), ..request };
    let answer = client.observe().explain_match(request).await.unwrap().into_inner();
    let told =
        answer.phases.iter().filter(|it| ["authentication", "authorization", "limit"].contains(&it.phase.as_str()));
    let told: Vec<_> = told.map(|it| format!("{}: {} ({})", it.phase, it.decision, it.rule)).collect();
    format!("{} {}; {}", answer.status, answer.code, told.join("; "))
}

#[tokio::test]
async fn route_match_says_what_is_asked_and_which_rule_decides() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut guarded = route("users", "a");
    guarded.r#match = Some(admin::Match {
        path: Some(admin::r#match::Path::PathTemplate("/users/{id}".into())),
        ..Default::default()
    });
    guarded.auth = Some(admin::RouteAuth { any_of: vec!["keys".into()], ..Default::default() });
    let allow = |condition| admin::AuthorizeRule {
        name: String::new(),
        effect: Some(admin::authorize_rule::Effect::Allow(condition)),
    };
    let own = [("id".to_owned(), "jwt.sub".to_owned())].into();
    guarded.authorize = vec![
        allow(admin::Condition { scopes_all: vec!["admin".into()], ..Default::default() }),
        allow(admin::Condition { params_equal: own, ..Default::default() }),
    ];
    let keys = admin::Auth {
        name: "keys".into(),
        kind: Some(admin::auth::Kind::ApiKey(admin::ApiKeyAuth::default())),
        ..Default::default()
    };
    let whole = admin::ConfigSet {
        upstreams: vec![upstream("a", "")],
        routes: vec![guarded],
        consumers: vec![admin::Consumer { name: "acme".into(), ..Default::default() }],
        auth: vec![keys],
        ..Default::default()
    };
    client.apply(apply(whole)).await.unwrap();
    let ask = || admin::ExplainMatchRequest::default();
    let nobody = explained(&client, ask()).await;
    assert_eq!(
        nobody,
        "401 credentials_missing; authentication: refused: no credentials; asked for: one of keys (api_key) ()"
    );
    let key = admin::HeaderField { name: "X-API-Key".into(), value: "k".into() };
    let unchecked = explained(&client, admin::ExplainMatchRequest { headers: vec![key], ..ask() }).await;
    assert!(unchecked.starts_with("0 ; ") && unchecked.contains("authorization: goes with the caller"), "{unchecked}");
    let acme = || admin::ExplainMatchRequest { consumer: "acme".into(), ..ask() };
    let lacking = explained(&client, acme()).await;
    assert!(lacking.starts_with("403 insufficient_scope; ") && lacking.contains("taken as acme"), "{lacking}");
    let admin = admin::ExplainMatchRequest { scopes: vec!["admin".into()], ..acme() };
    assert!(explained(&client, admin).await.contains("authorization: allowed (authorize[0])"));
    let own = admin::ExplainMatchRequest { claims: r#"{ "sub": "7" }"#.into(), ..acme() };
    assert!(explained(&client, own).await.contains("authorization: allowed (authorize[1])"));
    let other = admin::ExplainMatchRequest { claims: r#"{ "sub": "8" }"#.into(), ..acme() };
    assert!(explained(&client, other).await.starts_with("403 insufficient_scope"));
    let unknown = admin::ExplainMatchRequest { consumer: "nobody".into(), ..ask() };
    assert!(explained(&client, unknown).await.starts_with("401 credentials_invalid"));
    let wrong = admin::ExplainMatchRequest { url: "http://h/".into(), claims: "[]".into(), ..ask() };
    assert_eq!(fields(&client.observe().explain_match(wrong).await.unwrap_err()), ["claims"]);
}
