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

async fn json(node: &Fixture, method: &str, path: String, token: &str) -> (u16, serde_json::Value) {
    let request = http::Request::builder().method(method).uri(format!("{}/api/v1/{path}", node.origin()));
    let request = request.header("authorization", format!("Bearer {token}")).body(String::new()).unwrap();
    let answer = node.browse(request).await;
    (answer.status().as_u16(), serde_json::from_str(answer.body()).unwrap())
}

fn gold(name: &str, path: &str) -> admin::Route {
    let mut route = route(name, "common");
    route.meta.get_or_insert_default().labels = [("tier".to_owned(), "gold".to_owned())].into();
    route.r#match.as_mut().unwrap().path = Some(admin::r#match::Path::PathPrefix(path.into()));
    route
}

#[tokio::test]
async fn what_is_protected_waits_for_somebody_else_whichever_call_it_comes_by() {
    let node = Fixture::start().await;
    let root = node.local().await;
    let before = root.apply(config(vec![upstream("common", "")], vec![route("pay", "common")])).await.unwrap().revision;
    let mut whole = config(vec![], vec![gold("pay", "/pay"), route("free", "common")]);
    let rail = admin::Guardrail {
        name: "four-eyes".into(),
        message: "two of us".into(),
        approval_labels: vec!["tier=gold".into()],
        ..Default::default()
    };
    whole.config.as_mut().unwrap().guardrails = vec![rail];
    let revision = root.apply(whole).await.unwrap().revision;
    let ann = node.remote(Some(&node.admin_token("ann", "admin", "").await)).await;
    let ben = node.remote(Some(&node.admin_token("ben", "admin", "").await)).await;

    let delete = || admin::DeleteObjectRequest { name: "pay".into(), ..Default::default() };
    let typed = admin::WriteRouteRequest { route: Some(gold("pay", "/typed")), ..Default::default() };
    let target = Some(admin::rollback_request::Target::Revision(before));
    let rollback = admin::RollbackRequest { target, ..Default::default() };
    let bare = config(vec![], vec![route("pay", "common")]);
    let pruning = admin::ApplyConfigRequest { prune: true, owner: "team".into(), ..bare.clone() };
    let unlock = admin::DeleteObjectRequest { name: "four-eyes".into(), ..Default::default() };
    let held = [
        ann.apply(config(vec![], vec![gold("pay", "/paid")])).await.map(drop),
        ann.apply(bare).await.map(drop),
        ann.apply(pruning).await.map(drop),
        ann.config().delete_route(delete()).await.map(drop),
        ann.config().update_route(typed).await.map(drop),
        ann.config().rollback(rollback).await.map(drop),
        // Nor does root get past it.
        root.config().delete_guardrail(unlock).await.map(drop),
        root.config().delete_route(delete()).await.map(drop),
    ];
    for held in &held {
        let refused = held.as_ref().unwrap_err();
        assert_eq!((refused.code(), &*reason(refused)), (Code::FailedPrecondition, "APPROVAL_REQUIRED"), "{refused}");
    }
    assert_eq!(node.consensus.state().revision, revision, "nothing was written");
    ann.apply(config(vec![], vec![route("free2", "common")])).await.unwrap();

    let id = |status: &tonic::Status| -> u64 {
        let details = tonic_types::StatusExt::get_error_details(status);
        details.error_info().unwrap().metadata["id"].parse().unwrap()
    };
    let first = id(held[0].as_ref().unwrap_err());
    // Asked again it is the same that waits, also under the same request id.
    for _ in 0..2 {
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let again = admin::ApplyConfigRequest { request_id, ..config(vec![], vec![gold("pay", "/paid")]) };
        assert_eq!(id(&ann.apply(again).await.unwrap_err()), first);
    }
    let mut dry = config(vec![], vec![gold("pay", "/paid")]);
    dry.validate_only = true;
    assert!(ann.apply(dry).await.unwrap().warnings[0].contains("route/pay is protected"));

    let viewer = node.remote(Some(&node.admin_token("eve", "viewer", "").await)).await;
    let listed = viewer.approvals().list_pending(admin::ListPendingRequest {}).await.unwrap().into_inner().pending;
    assert!(listed.iter().any(|it| it.id == first && it.actor.ends_with("ann")), "{listed:?}");
    let shown = viewer.approvals().get_pending(admin::GetPendingRequest { id: first }).await.unwrap().into_inner();
    assert_eq!(shown.pending.unwrap().changes[0].name, "pay");
    let decide = |id| admin::DecideRequest { id, reason: "looked at".into() };
    let code = |answer: Result<tonic::Response<admin::WriteResponse>, tonic::Status>| reason(&answer.unwrap_err());
    assert_eq!(code(viewer.approvals().approve(decide(first)).await), "ROLE_TOO_LOW");
    assert_eq!(code(ann.approvals().approve(decide(first)).await), "OWN_APPROVAL");
    let done = ben.approvals().approve(decide(first)).await.unwrap().into_inner();
    assert!(done.revision > revision && done.changes[0].name == "pay");
    assert_eq!(code(ben.approvals().approve(decide(first)).await), "NOT_FOUND");
    // The others were of the route as it was.
    assert_eq!(code(ben.approvals().approve(decide(id(held[3].as_ref().unwrap_err()))).await), "CONFLICT");
    // What was asked for is held against guardrails of now.
    let strict = admin::Guardrail { name: "described".into(), ..guardrail("deny") };
    let late = id(&ann.apply(config(vec![], vec![gold("new", "/new")])).await.unwrap_err());
    let write = admin::WriteGuardrailRequest {
        guardrail: Some(admin::Guardrail { effect: "warn".into(), ..strict.clone() }),
        ..Default::default()
    };
    root.config().create_guardrail(write).await.unwrap();
    let mut mended = config(vec![], vec![described("free"), described("free2")]);
    mended.config.as_mut().unwrap().guardrails =
        vec![admin::Guardrail { require: "kind != 'routes' || object.name != 'new'".into(), ..strict }];
    root.apply(mended).await.unwrap();
    assert_eq!(code(ben.approvals().approve(decide(late)).await), "GUARDRAIL_DENIED");
    // Who looks is told so before.
    let shown = viewer.approvals().get_pending(admin::GetPendingRequest { id: late }).await.unwrap().into_inner();
    assert!(shown.pending.unwrap().obstacle.contains("denies route/new"));
    let rejected = ben.approvals().reject(decide(late)).await.unwrap().into_inner();
    assert_eq!((rejected.nodes.len(), rejected.request_id.as_str()), (1, ""), "{rejected:?}");

    // The same as JSON: asked for, looked at, approved.
    let root_asks = id(&root.apply(config(vec![], vec![gold("pay", "/json")])).await.unwrap_err());
    let refused = node.local().await.approvals().approve(decide(root_asks)).await;
    assert_eq!(code(refused), "OWN_APPROVAL");
    let deletes = ann.config().delete_route(delete()).await.unwrap_err();
    let token = node.admin_token("cem", "operator", "").await;
    let ask = |method: &'static str, path: String| json(&node, method, path, &token);
    let (status, listed) = ask("GET", "approvals".into()).await;
    let listed: Vec<_> = listed["pending"].as_array().unwrap().iter().map(|it| it["id"].as_u64().unwrap()).collect();
    assert!(status == 200 && listed.contains(&root_asks) && !listed.contains(&first), "{listed:?}");
    let (_, shown) = ask("GET", format!("approvals/{root_asks}")).await;
    assert_eq!(shown["objects"][0]["after"]["match"]["path_prefix"], "/json", "{shown}");
    let (status, written) = ask("POST", format!("approvals/{root_asks}/approve?reason=read")).await;
    assert_eq!((status, &written["noop"]), (200, &serde_json::json!(false)), "{written}");
    let (status, refused) = ask("POST", format!("approvals/{}/approve", id(&deletes))).await;
    assert_eq!((status, &refused["code"]), (409, &serde_json::json!("conflict")), "{refused}");
    let (status, _) = ask("POST", format!("approvals/{}/reject", id(&deletes))).await;
    assert_eq!(status, 200);
    let (status, refused) = ask("DELETE", "routes/pay".into()).await;
    assert_eq!((status, &refused["code"]), (412, &serde_json::json!("approval_required")), "{refused}");
    let (_, shown) = ask("GET", format!("approvals/{}", refused["id"])).await;
    assert_eq!(shown["actor"], "token/cem");

    // Another token of the same name is another one: it asks for itself, and nobody approves what the first asked for.
    let asked = id(&ann.config().delete_route(delete()).await.unwrap_err());
    root.cluster().remove_admin_token(admin::RemoveAdminTokenRequest { name: "ann".into() }).await.unwrap();
    let other = node.remote(Some(&node.admin_token("ann", "operator", "").await)).await;
    assert_ne!(id(&other.config().delete_route(delete()).await.unwrap_err()), asked);
    assert_eq!(code(ben.approvals().approve(decide(asked)).await), "CONFLICT");

    let list = admin::ListAuditRequest { limit: 50, ..Default::default() };
    let entries = root.observe().list_audit(list).await.unwrap().into_inner().entries;
    let told = |words: &str| entries.iter().any(|it| it.summary.contains(words));
    assert!(told(&format!("change {first} waits for an approval: 1 updated; route/pay")), "{entries:?}");
    assert!(told(&format!("change {first} of")) && told("approved: 1 updated") && told("rejected"), "{entries:?}");
}
