//! The watch: what was missed, in order, then live.

use quorumgate_proto::admin::v1::{self as admin, watch_config_response::Event};
use tonic::{Code, Streaming};

use super::fixture::{Fixture, config, reason, upstream};

/// The next revision of the stream; progress notes are passed over.
async fn next(events: &mut Streaming<admin::WatchConfigResponse>) -> admin::watch_config_response::Changed {
    loop {
        match events.message().await.unwrap().unwrap().event.unwrap() {
            Event::Changed(changed) => return changed,
            Event::Progress(_) => {}
            Event::Compacted(compacted) => panic!("{compacted:?}"),
        }
    }
}

#[tokio::test]
async fn a_watch_replays_what_was_missed_and_goes_on() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let mut revisions = Vec::new();
    for name in ["a", "b", "c"] {
        revisions.push(client.apply(config(vec![upstream(name, "")], vec![])).await.unwrap().revision);
    }
    let request = admin::WatchConfigRequest { since: Some(revisions[0]) };
    let mut events = client.config().watch_config(request).await.unwrap().into_inner();
    let mut seen = vec![next(&mut events).await, next(&mut events).await];
    revisions.push(client.apply(config(vec![upstream("d", "")], vec![])).await.unwrap().revision);
    seen.push(next(&mut events).await);

    let order: Vec<_> = seen.iter().map(|it| it.revision.as_ref().unwrap().revision).collect();
    assert_eq!(order, revisions[1..]);
    let names: Vec<_> = seen.iter().map(|it| it.changes[0].name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d"]);
}

#[tokio::test]
async fn a_watch_without_a_start_begins_now_with_a_progress_note() {
    let node = Fixture::start().await;
    let client = node.local().await;
    let revision = client.apply(config(vec![upstream("a", "")], vec![])).await.unwrap().revision;
    let mut events = client.config().watch_config(admin::WatchConfigRequest::default()).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(first.event, Some(Event::Progress(admin::watch_config_response::Progress { revision })));
    client.apply(config(vec![upstream("b", "")], vec![])).await.unwrap();
    assert_eq!(next(&mut events).await.changes[0].name, "b");
}

#[tokio::test]
async fn a_watch_ends_with_its_token() {
    let node = Fixture::start().await;
    let token = node.admin_token("watcher", "viewer", "").await;
    let watcher = node.remote(Some(&token)).await;
    let mut events = watcher.config().watch_config(admin::WatchConfigRequest::default()).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    let remove = admin::RemoveAdminTokenRequest { name: "watcher".into() };
    node.local().await.cluster().remove_admin_token(remove).await.unwrap();
    let ended = events.message().await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "TOKEN_UNKNOWN"));
}
