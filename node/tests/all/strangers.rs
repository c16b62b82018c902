//! What a member's peer listener refuses: foreign and borrowed certificates, frames that are too long or cut.

use std::{sync::Arc, time::Duration};

use crate::members::{Home, Member, SOON};
use quorumgate_model::command::Role;
use quorumgate_node::{
    peer::{
        CallError, Peers, Target,
        frame::FRAME_MAX,
        hello::{Me, Use},
    },
    pki::{Authority, Held, Names, NodeKey},
    tasks::Tasks,
};
use quorumgate_proto::peer::v1::{RenewRequest, StatusRequest, request::Call, response::Answer};
use quorumgate_raft_store::Identity;

/// A founder that runs, and a second node that was let in and does not.
async fn founder_and_member() -> (Home, Member, Home, Me) {
    let founder = Home::founder("n1");
    let member = founder.run().await;
    let token = member.token(Role::Replica, Duration::from_secs(60)).await;
    let other = Home::new("n2");
    other.join(&founder, &token).await.unwrap();
    let identity = Identity::read(other.path()).unwrap();
    let me = Me { cluster: identity.cluster, node: identity.node, incarnation: identity.incarnation };
    (founder, member, other, me)
}

fn dial_as(me: Me, home: &Home) -> Peers {
    let held = Arc::new(Held::read(home.path()).unwrap());
    let (tasks, _) = Tasks::new();
    Peers::bind("127.0.0.1:0".parse().unwrap(), me, held, tasks).unwrap()
}

async fn status(peers: &Peers, seed: &Home, id: u64) -> Result<Answer, CallError> {
    let target = Target { id, address: seed.address().to_string() };
    peers.call(&target, Call::Status(StatusRequest {}), SOON).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_members_own_certificate_and_directory_let_it_in() {
    let (founder, member, other, me) = founder_and_member().await;
    status(&dial_as(me, &other), &founder, 1).await.unwrap();

    let wiped = Me { incarnation: [9; 16], ..me };
    let error = status(&dial_as(wiped, &other), &founder, 1).await.unwrap_err();
    assert!(matches!(&error, CallError::Refused(why) if why.contains("data directory")), "{error}");
    let borrowed = Me { node: 1, ..me };
    let error = status(&dial_as(borrowed, &other), &founder, 1).await.unwrap_err();
    assert!(matches!(&error, CallError::Refused(_)), "{error}");
    let error = status(&dial_as(me, &other), &founder, 3).await.unwrap_err();
    assert!(matches!(&error, CallError::Refused(why) if why.contains("node 3 was dialled")), "{error}");

    // The cluster's CA, but a certificate that it has not signed.
    let foreign = Home::new("n3");
    let key = NodeKey::generate().unwrap();
    let request = key.request(&Names::default()).unwrap();
    let signed = Authority::generate(me.cluster).unwrap().sign(&request, me.cluster, me.node, SOON).unwrap();
    let ca = Held::read(other.path()).unwrap().cas()[0].clone();
    Held::write(foreign.path(), &key, &ca, &signed).unwrap();
    let error = status(&dial_as(me, &foreign), &founder, 1).await.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable(_)), "{error}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_for_its_own_key_alone() {
    let (founder, member, other, me) = founder_and_member().await;
    let target = Target { id: 1, address: founder.address().to_string() };
    let renewed = async |key: &NodeKey| {
        let request = RenewRequest { csr: key.request(&Names::default()).unwrap() };
        // A connection is for one such call.
        dial_as(me, &other).call_renew(&target, request, SOON).await.unwrap()
    };
    let answer = renewed(Held::read(other.path()).unwrap().key()).await;
    assert!(matches!(answer, Answer::Renew(_)), "{answer:?}");
    let answer = renewed(&NodeKey::generate().unwrap()).await;
    assert!(matches!(&answer, Answer::Failure(it) if it.message.contains("for another key")), "{answer:?}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_frame_ends_its_stream_and_nothing_else() {
    let (founder, member, other, me) = founder_and_member().await;
    let peers = dial_as(me, &other);
    let target = Target { id: 1, address: founder.address().to_string() };
    let too_long = (FRAME_MAX as u32 + 1).to_be_bytes();
    let cut = [0, 0, 1, 0, 1, 2, 3];
    let garbage = [0, 0, 0, 4, 255, 255, 255, 255];
    for bytes in [&too_long[..], &cut, &garbage] {
        let (mut to, mut from) = peers.open(&target, Use::Control).await.unwrap();
        to.write_all(bytes).await.unwrap();
        let _ = to.finish();
        let answer = tokio::time::timeout(SOON, from.read_to_end(1024)).await.expect("the stream must end");
        assert!(answer.is_err() || answer.is_ok_and(|bytes| bytes.is_empty()));
        status(&peers, &founder, 1).await.unwrap();
    }
    member.stop().await;
}
