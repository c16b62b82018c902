//! Tenants and guardrails by the calls that write: every way is held to them.

use quorumgate_proto::admin::v1 as admin;
use tonic::Code;

use super::fixture::{Client, Fixture, config, fields, reason, route, upstream};

fn tenant(name: &str, host: &str) -> admin::Tenant {
    admin::Tenant { name: name.into(), hosts: vec![host.into()], ..Default::default() }
}

fn at(name: &str, host: &str, owner: &str) -> admin::Route {
    let mut route = route(name, "common");
    route.meta = Some(admin::Meta { owner: owner.into(), ..Default::default() });
    route.r#match.as_mut().unwrap().hosts = vec![host.into()];
    route
}

fn guardrail(effect: &str) -> admin::Guardrail {
    admin::Guardrail {
        name: "described".into(),
        kinds: vec!["routes".into()],
        require: "object.description != '' && kind == 'routes'".into(),
        effect: effect.into(),
        message: "every route says what it is for".into(),
        ..Default::default()
    }
}

fn described(name: &str) -> admin::Route {
    let mut route = route(name, "common");
    route.meta.get_or_insert_default().description = "for a test".into();
    route
}

async fn write_guardrail(client: &Client, effect: &str) -> Result<admin::WriteResponse, tonic::Status> {
    let write = admin::WriteGuardrailRequest { guardrail: Some(guardrail(effect)), ..Default::default() };
    client.config().update_guardrail(write).await.map(|answer| answer.into_inner())
}

#[tokio::test]
async fn no_call_takes_what_a_tenant_owns() {
    let node = Fixture::start().await;
    let admin = node.local().await;
    let mut whole = config(vec![upstream("common", "")], vec![at("theirs", "shop.test", "shop")]);
    whole.config.as_mut().unwrap().tenants = vec![tenant("shop", "shop.test")];
    admin.apply(whole).await.unwrap();
    let taken = at("x", "shop.test", "bank");
    // A revision in which the bank had it, as before there was a tenant.
    let remove = admin::DeleteObjectRequest { name: "shop".into(), ..Default::default() };
    admin.config().delete_tenant(remove).await.unwrap();
    let before = admin.apply(config(vec![], vec![taken.clone()])).await.unwrap().revision;
    let mut again = config(vec![], vec![]);
    again.config.as_mut().unwrap().tenants = vec![tenant("shop", "shop.test")];
    again.delete = vec![admin::ResourceRef { kind: admin::Kind::Route.into(), name: "x".into() }];
    admin.apply(again).await.unwrap();

    let bank = node.remote(Some(&node.admin_token("bank", "operator", "bank").await)).await;
    let refused = bank.apply(config(vec![], vec![taken.clone()])).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "OWNER_FORBIDDEN"), "{refused}");
    assert_eq!(fields(&refused), ["routes[0].match"]);
    let write = admin::WriteRouteRequest { route: Some(taken), ..Default::default() };
    let refused = bank.config().create_route(write).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), fields(&refused)), ("OWNER_FORBIDDEN", vec!["route.match".to_owned()]));
    // A rollback writes the tenant too, which is not for one owner, nor for an operator.
    let target = Some(admin::rollback_request::Target::Revision(before));
    let rollback = admin::RollbackRequest { target, ..Default::default() };
    let refused = bank.config().rollback(rollback.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "OWNER_FORBIDDEN", "{refused}");
    let operator = node.remote(Some(&node.admin_token("op", "operator", "").await)).await;
    assert_eq!(reason(&operator.config().rollback(rollback).await.unwrap_err()), "ROLE_TOO_LOW");
    let write = admin::WriteTenantRequest { tenant: Some(tenant("bank", "bank.test")), ..Default::default() };
    assert_eq!(reason(&operator.config().create_tenant(write).await.unwrap_err()), "ROLE_TOO_LOW");
    bank.apply(config(vec![], vec![at("x", "bank.test", "bank")])).await.unwrap();
}

#[tokio::test]
async fn no_call_gets_past_a_guardrail() {
    let node = Fixture::start().await;
    let admin = node.local().await;
    let bad = admin.apply(config(vec![upstream("common", "")], vec![route("bare", "common")])).await.unwrap().revision;
    let write = admin::WriteGuardrailRequest { guardrail: Some(guardrail("warn")), ..Default::default() };
    let warned = admin.config().create_guardrail(write).await.unwrap().into_inner();
    let warning = "guardrail \"described\" warns of route/bare: every route says what it is for";
    assert_eq!(warned.warnings, [warning]);

    // What is there must hold to one that denies.
    let refused = write_guardrail(&admin, "deny").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "GUARDRAIL_DENIED"), "{refused}");
    assert_eq!(fields(&refused), ["routes/bare"]);
    assert!(refused.message().contains("denies route/bare: every route says"), "{refused}");
    let mut mended = config(vec![], vec![described("bare")]);
    mended.config.as_mut().unwrap().guardrails = vec![guardrail("deny")];
    admin.apply(mended).await.unwrap();

    let operator = node.remote(Some(&node.admin_token("op", "operator", "").await)).await;
    let mut new = config(vec![], vec![described("good"), route("worse", "common")]);
    let refused = operator.apply(new.clone()).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), fields(&refused)), ("GUARDRAIL_DENIED", vec!["routes[1]".to_owned()]));
    new.validate_only = true;
    assert_eq!(reason(&operator.apply(new).await.unwrap_err()), "GUARDRAIL_DENIED", "a dry run says the same");
    let write = admin::WriteRouteRequest { route: Some(route("worse", "common")), ..Default::default() };
    assert_eq!(reason(&operator.config().create_route(write).await.unwrap_err()), "GUARDRAIL_DENIED");
    let rollback = |revision| admin::RollbackRequest {
        target: Some(admin::rollback_request::Target::Revision(revision)),
        ..Default::default()
    };
    let refused = operator.config().rollback(rollback(bad)).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_TOO_LOW", "it would take the guardrail away: {refused}");
    operator.apply(config(vec![], vec![described("good")])).await.unwrap();
    assert_eq!(reason(&write_guardrail(&operator, "audit").await.unwrap_err()), "ROLE_TOO_LOW");

    // The audit trail has what was let pass, though nobody is told.
    write_guardrail(&admin, "audit").await.unwrap();
    let let_pass = operator.apply(config(vec![], vec![route("worse", "common")])).await.unwrap();
    assert_eq!(let_pass.warnings, [""; 0]);
    let state = node.consensus.state();
    let list = admin::ListAuditRequest { limit: 1, ..Default::default() };
    let entries = admin.observe().list_audit(list).await.unwrap().into_inner().entries;
    assert!(entries[0].summary.ends_with("; guardrail described (audit): route/worse"), "{:?}", entries[0].summary);
    assert!(state.guardrails().is_some());
}

#[tokio::test]
async fn a_guardrail_that_cannot_be_asked_is_not_taken() {
    let node = Fixture::start().await;
    let admin = node.local().await;
    for (require, mention) in [
        ("object.", "a CEL expression"),
        ("request.path == '/'", "an expression over object, kind"),
        ("size(object.limits)", "true or false"),
        ("object.limits.all(a, object.policies.all(b, a != b))", "steps"),
    ] {
        let wrong = admin::Guardrail { require: require.into(), ..guardrail("deny") };
        let write = admin::WriteGuardrailRequest { guardrail: Some(wrong), ..Default::default() };
        let refused = admin.config().create_guardrail(write).await.unwrap_err();
        assert_eq!(fields(&refused), ["guardrail.require"], "{refused}");
        assert!(refused.message().contains(mention), "{refused}");
    }
    let viewer = node.remote(Some(&node.admin_token("watcher", "viewer", "").await)).await;
    let mut rehearsal = config(vec![], vec![]);
    rehearsal.config.as_mut().unwrap().guardrails = vec![guardrail("deny")];
    rehearsal.validate_only = true;
    assert_eq!(reason(&viewer.apply(rehearsal).await.unwrap_err()), "ROLE_TOO_LOW", "nobody else brings expressions");
    // What comes to no answer does not hold.
    let write = admin::WriteGuardrailRequest {
        guardrail: Some(admin::Guardrail { require: "object.nothing == 1".into(), ..guardrail("deny") }),
        ..Default::default()
    };
    admin.config().create_guardrail(write).await.unwrap();
    let refused = admin.apply(config(vec![upstream("common", "")], vec![route("a", "common")])).await.unwrap_err();
    assert_eq!(reason(&refused), "GUARDRAIL_DENIED");
    admin.apply(config(vec![upstream("common", "")], vec![])).await.unwrap();
}

#[tokio::test]
async fn a_trial_of_what_binds_all_is_ended_by_who_may_write_it() {
    let node = Fixture::start().await;
    let admin = node.local().await;
    let operator = node.remote(Some(&node.admin_token("op", "operator", "").await)).await;
    let mut tried = config(vec![upstream("common", "")], vec![]);
    tried.config.as_mut().unwrap().guardrails = vec![guardrail("deny")];
    tried.trial = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let revision = admin.apply(tried).await.unwrap().revision;
    let abort = admin::AbortTrialRequest { revision };
    assert_eq!(reason(&operator.config().abort_trial(abort).await.unwrap_err()), "ROLE_TOO_LOW");
    let confirm = admin::ConfirmTrialRequest { revision };
    assert_eq!(reason(&operator.config().confirm_trial(confirm).await.unwrap_err()), "ROLE_TOO_LOW");
    admin.config().abort_trial(abort).await.unwrap();
    assert_eq!(node.consensus.state().guardrails(), None);
}
