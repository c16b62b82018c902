//! Certificates of a few seconds: renewed while in use, and after they have ended.

use std::time::Duration;

use crate::members::{Home, Member, SOON};
use quorumgate_model::command::{Body, Role};
use quorumgate_node::{
    consensus::CA_KEY_PURPOSE,
    pki::{self, Authority, CLUSTER_KEY, ClusterKey, Held, Names},
};
use quorumgate_raft_store::Identity;

/// Puts a certificate into the directory that has ended.
fn expire(home: &Home, authority: &Authority) {
    let identity = Identity::read(home.path()).unwrap();
    let held = Held::read(home.path()).unwrap();
    let request = held.key().request(&Names::of(&home.settings)).unwrap();
    held.swap(authority.sign(&request, identity.cluster, identity.node, Duration::ZERO).unwrap()).unwrap();
}

fn authority(member: &Member, home: &Home) -> Authority {
    let key = ClusterKey::from_bytes(&pki::read_private(&home.path().join(CLUSTER_KEY)).unwrap()).unwrap();
    let state = member.consensus.state();
    let facts = state.cluster.as_ref().unwrap();
    let ca_key = key.open(CA_KEY_PURPOSE, &facts.sealed_ca_key).unwrap();
    Authority::from_der(&facts.ca_certificate, &ca_key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_in_use_and_after_their_end() {
    pki::shorten_lifetime(Duration::from_secs(6));
    let founder = Home::founder("n1");
    let member = founder.run().await;
    let token = member.token(Role::Replica, Duration::from_secs(60)).await;
    let first = member.consensus.certificate_not_after();
    member.sees("a renewed certificate", |it| it.certificate_not_after() > first).await;
    member.propose(Body::Tick).await.unwrap().outcome.unwrap();

    // A node that was let in, and first runs after its certificate has ended: a peer renews it.
    let late = Home::new("n2");
    late.join(&founder, &token).await.unwrap();
    let authority = authority(&member, &founder);
    expire(&late, &authority);
    let follower = late.run().await;
    let index = member.consensus.state().index;
    follower.consensus.wait_applied(index, SOON).await.unwrap();
    follower.propose(Body::Tick).await.unwrap().outcome.unwrap();

    // All were off until every certificate had ended: each renews its own from its own state.
    follower.stop().await;
    member.stop().await;
    expire(&founder, &authority);
    expire(&late, &authority);
    let (member, follower) = (founder.run().await, late.run().await);
    member.founded().await;
    follower.propose(Body::Tick).await.unwrap().outcome.unwrap();
    follower.stop().await;
    member.stop().await;
}
