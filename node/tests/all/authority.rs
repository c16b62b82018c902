//! The cluster's CA is replaced while the nodes serve.

use std::time::Duration;

use quorumgate_model::{
    command::{Body, Role, RotateCa},
    state::CaStage,
};
use quorumgate_node::{
    consensus::may_go_on,
    pki::{Anchor, Held},
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use webpki::KeyUsage;

use crate::{
    cli_node::Node,
    members::{Member, SOON, three},
};

async fn step(member: &Member, step: RotateCa) {
    member.propose(Body::RotateCa(step)).await.unwrap().outcome.unwrap();
}

async fn all_have_got_to(member: &Member, stage: CaStage) {
    let waited = async {
        while !may_go_on(stage, &member.consensus.ca_progress(SOON).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, waited).await.unwrap_or_else(|_| panic!("not every node has got to {stage:?}"));
}

fn trusted(home: &crate::members::Home) -> Vec<CertificateDer<'static>> {
    Held::read(home.path()).unwrap().cas().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_is_replaced_under_members_and_the_old_one_is_worth_nothing_then() {
    let (mut homes, mut members) = three().await;
    let old = trusted(&homes[0]);
    let (certificate, sealed_key) = members[1].consensus.new_ca().unwrap();
    let new = vec![CertificateDer::from(certificate.clone())];
    step(&members[1], RotateCa::Introduce { certificate: certificate.into(), sealed_key: sealed_key.into() }).await;
    all_have_got_to(&members[0], CaStage::Introduced).await;
    step(&members[2], RotateCa::Replace).await;
    all_have_got_to(&members[0], CaStage::Replaced).await;
    step(&members[0], RotateCa::End).await;
    all_have_got_to(&members[0], CaStage::Replaced).await;
    for home in &homes {
        assert_eq!(trusted(home), new, "written down for the next start");
    }
    let by_new = CertificateDer::from_pem_file(homes[0].path().join("tls/node.pem")).unwrap();
    let verified = |cas: &[CertificateDer<'static>]| {
        Anchor::of(cas).unwrap().verify(&by_new, KeyUsage::client_auth(), UnixTime::now())
    };
    assert!(verified(&new).is_ok() && verified(&old).is_err());

    // By the new one alone a member comes back and a node joins.
    members.pop().unwrap().stop().await;
    members.push(homes[2].run().await);
    let token = members[0].token(Role::Replica, Duration::from_secs(60)).await;
    let late = crate::members::Home::new("n4");
    late.join(&homes[0], &token).await.unwrap();
    members.push(late.run().await);
    homes.push(late);
    let index = members[0].propose(Body::Tick).await.unwrap().index;
    for member in &members {
        member.consensus.wait_applied(index, SOON).await.unwrap();
    }
    for member in members {
        member.stop().await;
    }
}

#[test]
fn one_command_gives_a_cluster_a_new_ca() {
    let node = Node::start();
    let file = node.data().join("tls/ca.pem");
    let before = std::fs::read_to_string(&file).unwrap();
    let status = node.json(&["cluster", "rotate-ca", "--status"], "");
    assert_eq!((&status["stage"], &status["nodes"][0]["trusts"]), (&"none".into(), &true.into()), "{status}");
    node.check(&["cluster", "rotate-ca"], "", 2, &["--yes"]);
    node.check(&["cluster", "rotate-ca", "--abandon", "--yes"], "", 5, &["error[not_introduced]"]);
    let done = node.json(&["cluster", "rotate-ca", "--yes"], "");
    assert_eq!((&done["stage"], &done["nodes"][0]["holds"]), (&"none".into(), &true.into()), "{done}");
    assert_ne!(done["ca_sha256"], status["ca_sha256"]);
    let after = std::fs::read_to_string(&file).unwrap();
    assert!(!after.contains(before.trim()) && after.matches("BEGIN CERTIFICATE").count() == 1, "{after}");
    // Over TLS clients see the new one at once.
    let (endpoint, ca) = (format!("https://{}", node.admin), file.to_str().unwrap().to_owned());
    let token = node.dir.path().join("token");
    let secret = node.check(&["admin-token", "create", "ops", "--role", "viewer", "-q"], "", 0, &[]);
    std::fs::write(&token, secret).unwrap();
    let words = ["--endpoint", &endpoint, "--ca", &ca, "--admin-token-file", token.to_str().unwrap(), "node", "ls"];
    node.check(&words, "", 0, &[]);
    std::fs::write(&file, before).unwrap();
    node.check(&words, "", 6, &[]);
}

#[test]
fn one_command_seals_the_secrets_anew() {
    let node = Node::start();
    let file = node.data().join("cluster.key");
    let first = std::fs::read(&file).unwrap();
    let status = node.json(&["cluster", "rotate-sealing-key", "--status"], "");
    assert_eq!(
        (&status["stage"], &status["number"], &status["left"]),
        (&"none".into(), &0.into(), &0.into()),
        "{status}"
    );
    node.check(&["cluster", "rotate-sealing-key"], "", 2, &["--yes"]);
    node.check(&["cluster", "rotate-sealing-key", "--abandon", "--yes"], "", 4, &["not being replaced"]);
    let mut numbers = vec![0];
    for _ in 0..2 {
        let done = node.json(&["cluster", "rotate-sealing-key", "--yes"], "");
        assert_eq!((&done["stage"], &done["nodes"][0]["alone"]), (&"none".into(), &true.into()), "{done}");
        numbers.push(done["number"].as_u64().unwrap());
    }
    assert!(numbers.is_sorted() && numbers[1] < numbers[2], "{numbers:?}");
    let last = std::fs::read(&file).unwrap();
    assert!(!last.windows(32).any(|it| it == first));
    let trail = node.json(&["audit", "ls"], "")["entries"].to_string();
    assert!(trail.contains("a new sealing key introduced") && trail.contains("the old sealing key is gone"), "{trail}");
    node.json(&["key", "ls"], "");
}
