//! The one write path, history and rollback.

use prost::Message;
use quorumgate_proto::admin::v1::{self as admin, rollback_request::Target};
use tonic::{Code, Request};

use super::fixture::{Client, Fixture, config, fields, reason, route, upstream};

async fn current(client: &Client, revision: Option<u64>) -> admin::GetConfigResponse {
    let request = admin::GetConfigRequest { revision, stale: false };
    client.config().get_config(request).await.unwrap().into_inner()
}

async fn two_revisions(client: &Client) -> (u64, u64) {
    let first = client.apply(config(vec![upstream("a", "")], vec![route("a", "a")])).await.unwrap();
    let second = client.apply(config(vec![upstream("b", "")], vec![route("a", "b")])).await.unwrap();
    (first.revision, second.revision)
}

#[tokio::test]
async fn route_match_says_which_network_shuts_an_address_out() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let ip = admin::IpPolicy {
        allow: vec!["10.0.0.0/8".into()],
        deny: vec!["10.6.0.0/16".into(), "10.6.6.0/24".into()],
        ..Default::default()
    };
    let policy = admin::Policy { name: "office".into(), kind: Some(admin::policy::Kind::Ip(ip)), ..Default::default() };
    let route = admin::Route {
        name: "a".into(),
        action: Some(admin::route::Action::Respond(admin::Respond::default())),
        policies: vec!["office".into()],
        ..Default::default()
    };
    let both = admin::ConfigSet { policies: vec![policy], routes: vec![route], ..Default::default() };
    let unheld = admin::ConfigSet { policies: Vec::new(), ..both.clone() };
    let apply = |config| admin::ApplyConfigRequest { config: Some(config), ..Default::default() };
    let refused = client.apply(apply(unheld)).await.unwrap_err();
    assert_eq!(fields(&refused), ["routes[0].policies[0]"]);
    client.apply(apply(both)).await.unwrap();
    let listed = client.config().list_policies(admin::ListObjectsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.policies[0].name, "office");
    for (address, status, told) in [
        ("10.1.2.3", 200, "10.1.2.3 is let in"),
        ("10.6.6.6", 403, "refused: 10.6.6.6 is denied by 10.6.6.0/24"),
        ("192.0.2.1", 403, "refused: 192.0.2.1 is not among those that are allowed"),
    ] {
        let url = "http://h/".to_owned();
        let ask = admin::ExplainMatchRequest { url, client_ip: address.into(), ..Default::default() };
        let found = client.observe().explain_match(ask).await.unwrap().into_inner();
        let phase = found.phases.iter().find(|it| it.phase == "ip").unwrap();
        assert_eq!((found.status, phase.decision.as_str(), phase.rule.as_str()), (status, told, "office"));
    }
    let json = admin::policy::Kind::Json(admin::JsonPolicy { max_depth: Some(7), ..Default::default() });
    let bodies = admin::Policy { name: "bodies".into(), kind: Some(json), ..Default::default() };
    let mut route = client.config().list_routes(admin::ListObjectsRequest::default()).await.unwrap().into_inner();
    route.routes[0].policies.push("bodies".into());
    client
        .apply(apply(admin::ConfigSet { policies: vec![bodies], routes: route.routes, ..Default::default() }))
        .await
        .unwrap();
    let ask =
        admin::ExplainMatchRequest { url: "http://h/".into(), client_ip: "10.1.2.3".into(), ..Default::default() };
    let found = client.observe().explain_match(ask).await.unwrap().into_inner();
    let told: Vec<_> = found.phases.iter().filter(|it| ["ip", "validation"].contains(&it.phase.as_str())).collect();
    assert_eq!((told[0].rule.as_str(), told[1].rule.as_str()), ("office", "bodies"));
    assert!(told[1].decision.starts_with("JSON of depth 7, 1000 keys"), "{}", told[1].decision);
    let gone = admin::DeleteObjectRequest { name: "office".into(), ..Default::default() };
    let refused = client.config().delete_policy(gone).await.unwrap_err();
    assert!(refused.message().contains("it is used by route \"a\""), "{refused}");
}

#[tokio::test]
async fn a_write_answers_with_what_it_did_and_who_serves_it() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let written = client.apply(config(vec![upstream("a", "")], vec![route("a", "a")])).await.unwrap();
    assert_eq!(written.counts.unwrap(), admin::ChangeCounts { created: 2, updated: 0, deleted: 0 });
    assert_eq!(written.changes.len(), 2);
    assert_eq!(written.changes[0].action(), admin::change::Action::Created);
    assert_eq!((written.nodes[0].name.as_str(), written.nodes[0].applied_revision), ("n1", written.revision));
    let header = written.header.unwrap();
    assert_eq!((header.node.as_str(), header.revision), ("n1", written.revision));
    assert_eq!(header.cluster_id.len(), 36);

    let again = client.apply(config(vec![upstream("a", "")], vec![route("a", "a")])).await.unwrap();
    assert!(again.noop && again.changes.is_empty());
    assert_eq!(again.revision, written.revision);
}

#[tokio::test]
async fn validate_only_shows_the_diff_and_writes_nothing() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut request = config(vec![upstream("a", "")], vec![route("a", "a")]);
    request.validate_only = true;
    let shown = client.apply(request.clone()).await.unwrap();
    assert_eq!((shown.changes.len(), shown.noop, shown.revision), (2, false, 0));
    assert_eq!(current(&client, None).await.config.unwrap(), admin::ConfigSet::default());
}

#[tokio::test]
async fn one_bad_object_changes_nothing_and_names_its_field() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let request = config(vec![upstream("a", "")], vec![route("a", "a"), route("b", "nowhere")]);
    let refused = client.apply(request).await.unwrap_err();
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["routes[1].upstream".to_owned()]));

    let mut twin = route("c", "a");
    twin.r#match = route("a", "a").r#match;
    let refused = client.apply(config(vec![upstream("a", "")], vec![route("a", "a"), twin])).await.unwrap_err();
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["routes[1].match".to_owned()]));
    assert!(refused.message().contains("\"a\""), "both are named: {}", refused.message());
    assert_eq!(current(&client, None).await.config.unwrap(), admin::ConfigSet::default());
}

#[tokio::test]
async fn expectations_decide_between_writers() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let first = client.apply(config(vec![upstream("a", "")], vec![])).await.unwrap().revision;
    let racers = ["b", "c", "d", "e"].map(|name| {
        let client = client.clone();
        let mut request = config(vec![upstream(name, "")], vec![]);
        request.expected_revision = Some(first);
        async move { client.apply(request).await }
    });
    let ended = futures_util::future::join_all(racers).await;
    let won = ended.iter().filter(|it| it.is_ok()).count();
    let lost = ended.iter().filter(|it| it.as_ref().is_err_and(|status| status.code() == Code::Aborted)).count();
    assert_eq!((won, lost), (1, 3));

    // The short path of a change that changes nothing compares as well.
    let mut stale = config(vec![upstream("a", "")], vec![]);
    stale.expected_revision = Some(first);
    assert_eq!(reason(&client.apply(stale).await.unwrap_err()), "CONFLICT");
}

#[tokio::test]
async fn a_repeated_request_answers_with_the_first_outcome() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let id = "6f1c2a9e-0d4b-4a63-9a52-0c8f3a1d7e11";
    let mut request = config(vec![upstream("a", "")], vec![]);
    request.request_id = id.into();
    let first = client.apply(request.clone()).await.unwrap();
    client.apply(config(vec![upstream("b", "")], vec![])).await.unwrap();
    let again = client.apply(request).await.unwrap();
    assert_eq!((again.revision, again.noop, again.counts), (first.revision, false, first.counts));
    assert_eq!((again.request_id.as_str(), again.changes), (id, first.changes));

    let mut other = config(vec![upstream("c", "")], vec![]);
    other.request_id = id.into();
    let refused = client.apply(other).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Aborted, "REQUEST_ID_REUSED"));

    let delete = admin::DeleteObjectRequest {
        name: "b".into(),
        request_id: "6f1c2a9e-0d4b-4a63-9a52-0c8f3a1d7e12".into(),
        ..Default::default()
    };
    let gone = client.config().delete_upstream(delete.clone()).await.unwrap().into_inner();
    let again = client.config().delete_upstream(delete.clone()).await.unwrap().into_inner();
    assert_eq!(gone.revision, again.revision);
    let other = admin::DeleteObjectRequest { name: "a".into(), ..delete };
    let refused = client.config().delete_upstream(other).await.unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
    let rollback =
        admin::RollbackRequest { target: Some(Target::Previous(true)), request_id: id.into(), ..Default::default() };
    assert_eq!(reason(&client.config().rollback(rollback).await.unwrap_err()), "REQUEST_ID_REUSED");
    let left = current(&client, None).await.config.unwrap().upstreams;
    assert_eq!(left.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn rollback_restores_byte_for_byte() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let (first, second) = two_revisions(&client).await;
    let before = current(&client, Some(first)).await.config.unwrap().encode_to_vec();
    assert_ne!(before, current(&client, None).await.config.unwrap().encode_to_vec());

    let request = admin::RollbackRequest { target: Some(Target::Previous(true)), ..Default::default() };
    let rolled = client.config().rollback(request).await.unwrap().into_inner();
    assert_eq!(rolled.counts.unwrap(), admin::ChangeCounts { created: 0, updated: 1, deleted: 1 });
    assert_eq!(current(&client, None).await.config.unwrap().encode_to_vec(), before);

    let list = client.config().list_revisions(admin::ListRevisionsRequest::default()).await.unwrap().into_inner();
    let [third, _, oldest] = &list.revisions[..] else { panic!("{list:?}") };
    assert_eq!((third.rollback_of, &third.hash), (first, &oldest.hash));

    // Back to before anything was there, and forth to the second.
    for revision in [0, second] {
        let request = admin::RollbackRequest { target: Some(Target::Revision(revision)), ..Default::default() };
        client.config().rollback(request).await.unwrap();
        let now = current(&client, None).await.config.unwrap();
        assert_eq!(now, current(&client, Some(revision)).await.config.unwrap());
    }
    let request = admin::RollbackRequest { target: Some(Target::Revision(second + 1_000)), ..Default::default() };
    assert_eq!(client.config().rollback(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_diff_between_revisions_goes_both_ways() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let (first, second) = two_revisions(&client).await;
    let diff = |from, to| {
        let client = client.clone();
        let request = admin::DiffRevisionsRequest { from, to: Some(to) };
        async move { client.config().diff_revisions(request).await.unwrap().into_inner().changes }
    };
    let [there, back] = [diff(first, second).await, diff(second, first).await];
    assert_eq!((there.len(), back.len()), (2, 2));
    for (there, back) in there.iter().zip(&back) {
        assert_eq!((&there.before, &there.after), (&back.after, &back.before));
    }
}

#[tokio::test]
async fn a_trial_is_kept_or_undone() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut request = config(vec![upstream("a", "")], vec![]);
    request.trial = Some(prost_types::Duration::default());
    let refused = client.config().apply_config(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "a trial of no time is no permanent write");
    request.trial = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let tried = client.apply(request.clone()).await.unwrap();
    assert!(tried.trial_until.is_some());
    let refused = client.apply(config(vec![upstream("b", "")], vec![])).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Aborted, "TRIAL_OPEN"));

    let aborted = client.config().abort_trial(admin::AbortTrialRequest::default()).await.unwrap().into_inner();
    assert!(aborted.revision > tried.revision);
    assert_eq!(aborted.changes[0].action(), admin::change::Action::Deleted);
    assert_eq!(current(&client, None).await.config.unwrap(), admin::ConfigSet::default());

    let tried = client.apply(request).await.unwrap();
    let confirm = admin::ConfirmTrialRequest { revision: tried.revision };
    client.config().confirm_trial(confirm).await.unwrap();
    let refused = client.config().confirm_trial(admin::ConfirmTrialRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "NO_TRIAL"));
    assert_eq!(current(&client, None).await.config.unwrap().upstreams.len(), 1);
}

#[tokio::test]
async fn prune_deletes_what_the_owner_no_longer_names() {
    let node = Fixture::start().await;
    let client = node.local().await;
    client.apply(config(vec![upstream("a", "team"), upstream("b", "team"), upstream("c", "")], vec![])).await.unwrap();
    let mut request = config(vec![upstream("a", "team")], vec![]);
    (request.prune, request.owner) = (true, "team".into());
    let pruned = client.apply(request.clone()).await.unwrap();
    assert_eq!(pruned.changes.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), ["b"]);

    request.owner.clear();
    assert_eq!(fields(&client.apply(request).await.unwrap_err()), ["owner"]);
}

#[tokio::test]
async fn an_entry_over_eight_mebibytes_is_refused() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut upstreams: Vec<_> = (0..2_000).map(|number| upstream(&format!("u{number}"), "")).collect();
    for upstream in &mut upstreams {
        upstream.meta.as_mut().unwrap().labels = [("k".to_owned(), "x".repeat(200))].into();
        let addresses = (0..500).map(|port| format!("10.0.0.1:{}", port + 1_000));
        upstream.targets =
            addresses.map(|address| admin::Target { address, weight: 1, ..Default::default() }).collect();
    }
    let refused = client.apply(config(upstreams, vec![])).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "ENTRY_TOO_LARGE"), "{refused}");
}

#[tokio::test]
async fn typed_calls_are_the_same_write_path() {
    let node = Fixture::start().await;
    let mut client = node.local().await.config();
    let create = |upstream| admin::WriteUpstreamRequest { upstream: Some(upstream), ..Default::default() };
    client.create_upstream(create(upstream("a", ""))).await.unwrap();
    let refused = client.create_upstream(create(upstream("a", "x"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);

    let get = admin::GetObjectRequest { name: "a".into(), stale: true };
    let seen = client.get_upstream(get.clone()).await.unwrap().into_inner();
    let mut update = create(upstream("a", "team"));
    update.etag = seen.etag.clone();
    client.update_upstream(update.clone()).await.unwrap();
    update.upstream = Some(upstream("a", "other"));
    let refused = client.update_upstream(update).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Aborted, "CONFLICT"));
    assert_eq!(client.update_upstream(create(upstream("z", ""))).await.unwrap_err().code(), Code::NotFound);

    let list = admin::ListObjectsRequest { owner: "team".into(), stale: false };
    let listed = client.list_upstreams(list).await.unwrap().into_inner();
    assert_eq!((listed.upstreams.len(), listed.etags.len()), (1, 1));
    let gone = admin::DeleteObjectRequest { name: "a".into(), ..Default::default() };
    client.delete_upstream(gone.clone()).await.unwrap();
    assert_eq!(client.delete_upstream(gone).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.get_upstream(get).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_read_waits_for_the_revision_that_was_asked_for() {
    let node = Fixture::start().await;
    let mut client = node.local().await.config();
    let mut request = Request::new(admin::GetConfigRequest { revision: None, stale: true });
    request.metadata_mut().insert("quorumgate-min-revision", "1000000".parse().unwrap());
    request.set_timeout(std::time::Duration::from_millis(300));
    let late = client.get_config(request).await.unwrap_err();
    assert_eq!((late.code(), reason(&late).as_str()), (Code::DeadlineExceeded, "DEADLINE"));
}

#[tokio::test]
async fn route_match_names_the_winner_and_the_beaten() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut longer = route("orders", "a");
    longer.r#match.as_mut().unwrap().path = Some(admin::r#match::Path::PathPrefix("/a/orders".into()));
    client.apply(config(vec![upstream("a", "")], vec![route("a", "a"), longer])).await.unwrap();
    let ask = |url: &str| admin::ExplainMatchRequest { method: "GET".into(), url: url.into(), ..Default::default() };
    let found = client.observe().explain_match(ask("http://h/a/orders/1")).await.unwrap().into_inner();
    assert_eq!((found.route.as_str(), found.upstream.as_str(), found.status), ("orders", "a", 0));
    assert_eq!(found.beaten[0].route, "a");

    let none = client.observe().explain_match(ask("http://h/z")).await.unwrap().into_inner();
    assert_eq!((none.status, none.code.as_str()), (404, "no_route"));
    let bad = client.observe().explain_match(ask("not a url")).await.unwrap_err();
    assert_eq!(fields(&bad), ["url"]);
}
