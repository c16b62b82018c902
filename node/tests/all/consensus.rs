//! Elections, failover, joins, removals: members in one process over real QUIC on loopback.

use std::time::{Duration, Instant};

use crate::members::{Home, SOON, actor, leader, three};
use quorumgate_model::command::{Applied, Body, Reason, Role};
use quorumgate_node::{
    consensus::{Draft, ProposeError},
    join::{JoinToken, join},
    pki::Authority,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_starts_again_with_what_it_knew() {
    let home = Home::founder("n1");
    let member = home.run().await;
    let token = member.token(Role::Voter, Duration::from_secs(60)).await;
    let state = member.consensus.linearize(SOON).await.unwrap();
    assert!(state.join_tokens.contains_key(&token.id));
    member.sees("fresh", |_| member.freshness.is_fresh()).await;
    let hash = member.consensus.state().hash();
    member.stop().await;

    let member = home.run().await;
    let state = member.consensus.linearize(SOON).await.unwrap();
    assert!(state.join_tokens.contains_key(&token.id));
    assert_eq!(state.cluster.as_ref().unwrap().name, "n1");
    assert_eq!(state.hash() == hash, state.index == 0, "the index is part of the hash and has moved");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_write_through_any_and_survive_their_leader() {
    let (homes, mut members) = three().await;
    for member in &members {
        member.token(Role::Replica, Duration::from_secs(60)).await;
    }
    let at = leader(&members);
    let killed = Instant::now();
    members.remove(at).kill().await;
    let token = members[0].token(Role::Replica, Duration::from_secs(60)).await;
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());

    let back = homes[at].run().await;
    back.sees("what was written meanwhile", |it| it.state().join_tokens.contains_key(&token.id)).await;
    // A peer that was away is dialled again after a pause only.
    let deadline = Instant::now() + SOON;
    loop {
        let receipts = members[0].consensus.await_published(back.consensus.state().index, SOON).await;
        if receipts.iter().all(|receipt| !receipt.unreachable) {
            break;
        }
        assert!(Instant::now() < deadline, "{receipts:?}");
    }
    members.push(back);
    let now = leader(&members);
    let (to, _) = members[(now + 1) % 3].consensus.transfer_leader(None, SOON).await.unwrap();
    members[now].sees("the new leader", |it| it.view().leader == Some(to)).await;
    for member in members {
        member.stop().await;
    }
}

async fn refused(home: &Home, seed: &Home, token: &JoinToken) -> String {
    format!("{:#}", home.join(seed, token).await.expect_err("a bad token"))
}

#[track_caller]
fn assert_says(reason: &str, word: &str) {
    assert!(reason.contains(word), "{reason:?} does not say {word:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_refused_with_its_reason() {
    let founder = Home::founder("n1");
    let member = founder.run().await;
    let token = member.token(Role::Replica, Duration::from_secs(60)).await;

    let stranger = Authority::generate([1; 16]).unwrap();
    let foreign = JoinToken {
        ca_spki_sha256: JoinToken::generate(stranger.certificate()).unwrap().ca_spki_sha256,
        ..token.clone()
    };
    assert_says(&refused(&Home::new("n2"), &founder, &foreign).await, "cluster CA is not the one");
    let unknown = JoinToken { id: "nobody".into(), ..token.clone() };
    assert_says(&refused(&Home::new("n2"), &founder, &unknown).await, "refused the join");
    let guessed = JoinToken { secret: "guessed".into(), ..token.clone() };
    assert_says(&refused(&Home::new("n2"), &founder, &guessed).await, "refused the join");
    assert_says(&refused(&Home::new("n1"), &founder, &token).await, "a node named n1 is in the cluster");
    let home = Home::new("n2");
    let seeds = [founder.address().to_string()];
    let voter = join(&seeds, &token, home.path(), &home.settings, Some(Role::Voter)).await.unwrap_err();
    assert_says(&format!("{voter:#}"), "replica");

    // The same directory may try again, and then the token is used up.
    home.join(&founder, &token).await.unwrap();
    assert_says(&refused(&Home::new("n3"), &founder, &token).await, "use");
    assert_says(&refused(&home, &founder, &token).await, "not empty");

    let short = member.token(Role::Replica, Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_says(&refused(&Home::new("n3"), &founder, &short).await, "expired");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_shut_out_and_says_so() {
    let (homes, mut members) = three().await;
    let at = (leader(&members) + 1) % 3;
    let id = members[at].consensus.view().id;
    let witness = (at + 1) % 3;
    members[witness].consensus.remove_node(id, actor(), SOON).await.unwrap().outcome.unwrap();
    members[at].sees("its removal", |it| it.view().stopped.is_some()).await;
    members[witness].sees("one voter", |it| !it.view().voters.contains(&id) && !it.view().learners.contains(&id)).await;
    let error = members[at].propose(Body::Tick).await.unwrap_err();
    assert!(matches!(error, ProposeError::Stopped(_)), "{error:?}");
    members.remove(at).stop().await;

    // With the state of before its removal it is told by the others.
    let back = homes[at].run().await;
    back.sees("its removal", |it| it.view().stopped.is_some()).await;
    back.stop().await;
    let result = members[0].consensus.remove_node(members[0].consensus.view().id, actor(), SOON).await;
    assert!(!matches!(result, Ok(Applied { outcome: Ok(_), .. })), "the last voter went: {result:?}");
    for member in members {
        member.stop().await;
    }
}

/// It must not get into a log from which it cannot be sent on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_replicated_is_never_appended() {
    let (_homes, members) = three().await;
    let at = leader(&members);
    let follower = &members[(at + 1) % 3];
    let id = |bytes| Body::RemoveJoinToken { id: "x".repeat(bytes) };
    for member in [&members[at], follower] {
        let error = member.propose(id(13 << 20)).await.unwrap_err();
        assert!(matches!(error, ProposeError::TooLarge { .. }), "{error:?}");
        // The longest that may pass, passes on all of its way.
        let refused = member.propose(id((12 << 20) - 64)).await.unwrap().outcome.unwrap_err();
        assert_eq!(refused.reason, Reason::NotFound);
    }
    let index = follower.propose(Body::Tick).await.unwrap().index;
    for member in &members {
        member.consensus.wait_applied(index, SOON).await.unwrap();
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_write_is_certainly_not_appended() {
    let (homes, mut members) = three().await;
    let at = leader(&members);
    let leader = members.remove(at);
    for member in members {
        member.kill().await;
    }
    let alone = Instant::now();
    // An answer that they still gave counts from when it was asked for, whenever it is looked at.
    let election_max = leader.consensus.state().timing().election_max;
    leader.sees("no quorum", |it| alone.elapsed() > election_max && !it.view().quorum).await;
    let before = leader.consensus.view().last_log_index;
    let draft = Draft { request_id: None, asked: None, actor: actor(), body: Body::Tick };
    let error = leader.consensus.propose(draft, Duration::from_millis(800)).await.unwrap_err();
    assert!(matches!(error, ProposeError::NoQuorum(_)), "{error:?}");
    assert_eq!(leader.consensus.view().last_log_index, before);
    leader.consensus.linearize(Duration::from_millis(500)).await.unwrap_err();
    let receipts = leader.consensus.await_published(1, Duration::from_secs(5)).await;
    assert_eq!(receipts.iter().filter(|receipt| receipt.unreachable).count(), 2);

    // It has written nothing that the others lack: they come back and agree.
    let others: Vec<_> = homes.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, home)| home).collect();
    let back = others[0].run().await;
    back.propose(Body::Tick).await.unwrap().outcome.unwrap();
    back.stop().await;
    leader.stop().await;
}
