//! A node's log over its API.

use quorumgate_proto::admin::v1 as admin;
use tonic::{Code, Streaming};

use super::fixture::{Fixture, reason};
use crate::telemetry::logs;

async fn next(lines: &mut Streaming<admin::WatchLogsResponse>) -> Option<String> {
    let message = lines.message().await.unwrap()?;
    assert_eq!(message.header.unwrap().node, "n1");
    Some(message.line)
}

#[tokio::test]
async fn the_newest_lines_come_first_and_the_next_ones_until_the_token_is_gone() {
    let node = Fixture::start().await;
    let log = logs::of_test();
    let token = node.admin_token("reader", "viewer", "").await;
    let reader = node.remote(Some(&token)).await;
    ["one", "two", "three"].into_iter().for_each(|line| log.remember(line.as_bytes()));
    let asked = admin::WatchLogsRequest { lines: 2, follow: false };
    let mut past = reader.observe().watch_logs(asked).await.unwrap().into_inner();
    assert_eq!([next(&mut past).await, next(&mut past).await], [Some("two".into()), Some("three".into())]);
    assert_eq!(next(&mut past).await, None, "it is not followed");

    let asked = admin::WatchLogsRequest { lines: 1, follow: true };
    let mut followed = reader.observe().watch_logs(asked).await.unwrap().into_inner();
    assert_eq!(next(&mut followed).await.unwrap(), "three");
    log.remember(b"four\n");
    assert_eq!(next(&mut followed).await.unwrap(), "four");
    let remove = admin::RemoveAdminTokenRequest { name: "reader".into() };
    node.local().await.cluster().remove_admin_token(remove).await.unwrap();
    let ended = followed.message().await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "TOKEN_UNKNOWN"));
}
