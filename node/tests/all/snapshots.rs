//! A member that was away for longer than the log reaches back gets a snapshot, and nobody is disturbed by it.

use std::{sync::Arc, time::Duration};

use crate::members::{SOON, leader, three_with};
use futures_util::future::join_all;
use quorumgate_model::command::{Actor, Body, Role};
use quorumgate_node::consensus::Draft;
use quorumgate_raft_store::Options;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_member_gets_a_snapshot_while_heartbeats_go_on() {
    let options = Options { snapshot_after_bytes: 256 << 10, segment_bytes: 128 << 10 };
    let (homes, mut members) = three_with(options.clone()).await;
    let away = (leader(&members) + 1) % 3;
    members.remove(away).stop().await;
    let at = leader(&members);
    let consensus = &members[at].consensus;
    let term = consensus.view().term;
    let last_seen = consensus.view().applied;

    // The member that is away misses these audit entries for good: they are behind the snapshot.
    let audited = consensus.audit(100).await.len();
    for _ in 0..3 {
        members[at].token(Role::Replica, SOON).await;
    }
    // What fills the log is the actor's text.
    let actor = Arc::new(Actor { name: "filler".into(), rpc: "x".repeat(8 << 10), ..Default::default() });
    let mut rounds = 0;
    while consensus.purged().is_none_or(|purged| purged <= last_seen) {
        let draft = || Draft { request_id: None, asked: None, actor: actor.clone(), body: Body::Tick };
        for written in join_all((0..32).map(|_| consensus.propose(draft(), SOON))).await {
            written.unwrap().outcome.unwrap();
        }
        rounds += 1;
        assert!(rounds < 100, "the log was not purged; snapshot {:?}", consensus.view());
    }
    let target = consensus.view().applied;
    let back = homes[away].run_with(options).await;
    back.consensus.wait_applied(target, Duration::from_secs(20)).await.unwrap();
    assert_eq!(
        back.consensus.linearize(SOON).await.unwrap().hash(),
        members[at].consensus.linearize(SOON).await.unwrap().hash()
    );
    let there = members[at].consensus.audit(100).await;
    assert_eq!(there.len(), audited + 3);
    assert_eq!(back.consensus.audit(100).await, there, "what the snapshot skipped comes from the others");
    assert_eq!(back.consensus.audit(2).await, there[..2]);
    assert_eq!(members[at].consensus.view().term, term, "an election took place");
    back.stop().await;
    for member in members {
        member.stop().await;
    }
}
