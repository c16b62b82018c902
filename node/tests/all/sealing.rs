//! The sealing key is being replaced when a backup is saved, or when a snapshot is all that a node gets of it.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use quorumgate_model::{
    command::{
        Actor, Body, ChangeResources, Command, Expect, RefoundCause, Resealed, ResourceChange, RotateSealingKey, Stamp,
    },
    resource::{Kind, Resource, Secret},
    sealed::key_number,
    state::{SealingStage, State},
};
use quorumgate_node::{consensus::Draft, pki::Keys, refound::Legacy, secrets};
use quorumgate_raft_store::{Options, backup::Past};
use serde_json::json;

use crate::members::{Home, Member, SOON, actor, leader, three_with};

const WEBHOOK: &str = "anomaly.webhook.secret";

/// A policy with a secret of its own, as a node seals it.
fn policy(keys: &Keys) -> Resource {
    let words = json!({ "name": "walks", "anomaly": { "over": { "objects": 9 }, "webhook": {
        "url": "https://hooks.test/", "secret": "plain:0123456789abcdef0123456789abcdef",
    } } });
    let mut policy = Kind::Policy.parse(words).unwrap();
    let purpose = format!("secret of {} {WEBHOOK}", policy.key());
    for (field, secret) in policy.secrets_mut() {
        assert_eq!(field, WEBHOOK);
        *secret = Secret::sealed(keys.seal(&purpose, b"of the webhook").unwrap());
    }
    policy
}

/// Once the cluster has made its own, everything that is sealed.
async fn filled(member: &Member) -> State {
    member.sees("its own secrets", |it| it.state().secrets.len() == 2 && !it.state().ticket_keys.is_empty()).await;
    let after = policy(&member.consensus.keys());
    let change = ResourceChange { key: after.key(), after: Some(after), expect: Expect::Anything };
    let changes = ChangeResources { changes: [change].into(), ..ChangeResources::default() };
    member.propose(Body::ChangeResources(changes)).await.unwrap().outcome.unwrap();
    State::clone(&*member.consensus.linearize(SOON).await.unwrap())
}

/// Of everything that is sealed.
fn opened(keys: &Keys, state: &State) -> Vec<(String, Vec<u8>)> {
    let open = |(purpose, sealed): (String, &[u8])| {
        let secret = keys.open(&purpose, sealed).unwrap_or_else(|error| panic!("{purpose}: {error:#}"));
        (purpose, secret)
    };
    let mut opened: Vec<_> = secrets::all(state).map(open).collect();
    opened.sort();
    opened
}

fn step(state: &mut State, step: RotateSealingKey) -> u64 {
    let body = Body::RotateSealingKey(step);
    let stamp = Stamp { clock_us: state.clock_us, wall_ms: state.wall_ms };
    let min_level = body.min_level();
    let command = Command { min_level, request_id: None, asked: None, stamp, actor: actor(), body };
    state.apply(state.index + 1, &command).0.outcome.unwrap();
    state.index
}

/// So many of what is sealed under the old key.
fn reseal(state: &mut State, keys: &Keys, number: u64, count: usize) {
    let old = secrets::all(state).filter(|(_, sealed)| key_number(sealed) != number).take(count);
    let anew = old.map(|(purpose, sealed)| {
        let after = keys.seal(&purpose, &keys.open(&purpose, sealed).unwrap()).unwrap();
        Resealed { before: sealed.into(), after: after.into() }
    });
    let resealed: Vec<_> = anew.collect();
    step(state, RotateSealingKey::Reseal { number, resealed: resealed.into() });
}

fn legacy(state: &State, keys: Keys) -> Legacy {
    let (state, past) = (state.clone(), Past::default());
    Legacy { state, past, keys, cause: RefoundCause::Restored, reset_budgets: false, bump: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_from_the_middle_of_a_replacement_opens_everything_and_goes_on_with_it() {
    let home = Home::founder("n1");
    let member = home.run().await;
    let founded = filled(&member).await;
    let keyring = member.consensus.keyring().clone();
    let expected = opened(&keyring.at(&founded), &founded);
    assert!(expected.iter().any(|(_, secret)| secret == b"of the webhook"), "{} are sealed", expected.len());

    let mut introduced = founded.clone();
    let sealed_key = member.consensus.new_sealing_key().unwrap();
    let number = step(&mut introduced, RotateSealingKey::Introduce { sealed_key: sealed_key.into() });
    let mut replaced = introduced.clone();
    step(&mut replaced, RotateSealingKey::Replace { number });
    let mut half = replaced.clone();
    let keys = keyring.at(&replaced);
    reseal(&mut half, &keys, number, expected.len() / 2);
    let mut all = half.clone();
    reseal(&mut all, &keys, number, expected.len());
    assert!(half.sealed_before() > 0 && half.sealed_before() < expected.len() && all.sealed_before() == 0);
    member.stop().await;

    for (stage, state) in [("introduced", &introduced), ("replaced", &replaced), ("half", &half), ("all", &all)] {
        // As `cluster backup save` writes them down and `cluster restore` reads them.
        let keys = Keys::from_bytes(&keyring.at(state).to_bytes()).unwrap();
        assert_eq!(opened(&keys, state), expected, "{stage}");
        let new = Home::new("r1");
        legacy(state, keys).settle(new.path(), &new.settings).unwrap_or_else(|error| panic!("{stage}: {error:#}"));
        let restored = new.run().await;
        restored
            .sees(&format!("the end of what was {stage}"), |it| {
                let state = it.state();
                state.cluster.is_some() && state.sealing.rotation.is_none() && it.keyring().on_disk() == [number]
            })
            .await;
        let state = restored.consensus.linearize(SOON).await.unwrap();
        assert!(state.all_sealed().all(|sealed| key_number(sealed) == number), "{stage}");
        assert_eq!(opened(&restored.consensus.keys(), &state), expected, "{stage}");
        assert_eq!(state.resources_hash, founded.resources_hash, "{stage}: nobody sees anything of it");
        restored.stop().await;
    }

    // The new key is in the state itself, under the old one: of a backup that has that one alone nothing is missing.
    let of = |state: &State, which: &dyn Fn(u64) -> bool| {
        let new = Home::new("r2");
        let keys = keyring.at(state).keeping(which);
        legacy(state, keys).settle(new.path(), &new.settings).map(drop).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(of(&half, &|it| it == 0), Ok(()));
    let missing = of(&half, &|it| it == number).unwrap_err();
    let left = half.sealed_before();
    assert!(
        missing.contains("the sealing key 0 is missing") && missing.contains(&format!(": {left} secrets")),
        "{missing}"
    );
    let mut ended = all.clone();
    step(&mut ended, RotateSealingKey::End { number, nodes_upto: u64::MAX });
    let missing = of(&ended, &|it| it == 0).unwrap_err();
    assert!(missing.contains(&format!("the sealing key {number} is missing")) && missing.contains("[0]"), "{missing}");
}

/// What a node that is away misses of a replacement.
#[derive(Debug, Clone, Copy)]
enum Missed {
    Introduction,
    /// All that it gets is sealed under a key that it never heard of.
    Replacement,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_from_the_middle_brings_the_new_key_along() {
    for missed in [Missed::Introduction, Missed::Replacement] {
        let options = Options { snapshot_after_bytes: 256 << 10, segment_bytes: 128 << 10 };
        let (homes, mut members) = three_with(options.clone()).await;
        let at = leader(&members);
        let expected = opened(&members[at].consensus.keys(), &filled(&members[at]).await);
        let away = (at + 1) % 3;
        members.remove(away).stop().await;
        let at = leader(&members);
        let consensus = &members[at].consensus;
        let last_seen = consensus.view().applied;

        let sealed_key = consensus.new_sealing_key().unwrap();
        let introduce = RotateSealingKey::Introduce { sealed_key: sealed_key.into() };
        let number = members[at].propose(Body::RotateSealingKey(introduce)).await.unwrap();
        number.outcome.unwrap();
        let number = number.index;
        let stage = match missed {
            Missed::Introduction => SealingStage::Introduced,
            Missed::Replacement => {
                // The leader itself would wait for the one that is away.
                let replace = RotateSealingKey::Replace { number };
                members[at].propose(Body::RotateSealingKey(replace)).await.unwrap().outcome.unwrap();
                members[at].sees("all is sealed anew", |it| it.state().sealed_before() == 0).await;
                SealingStage::Replaced
            }
        };
        let actor = Arc::new(Actor { name: "filler".into(), rpc: "x".repeat(8 << 10), ..Default::default() });
        let mut rounds = 0;
        while consensus.purged().is_none_or(|purged| purged <= last_seen.max(number + 1)) {
            let draft = || Draft { request_id: None, asked: None, actor: actor.clone(), body: Body::Tick };
            for written in join_all((0..32).map(|_| consensus.propose(draft(), SOON))).await {
                written.unwrap().outcome.unwrap();
            }
            rounds += 1;
            assert!(rounds < 100, "the log was not purged");
        }
        let rotation = consensus.state().sealing.rotation.as_ref().map(|it| it.stage);
        assert_eq!(rotation, Some(stage), "it waits for the one that is away");

        let back = homes[away].run_with(options).await;
        back.consensus.wait_applied(consensus.view().applied, Duration::from_secs(20)).await.unwrap();
        members.push(back);
        for member in &members {
            member
                .sees(&format!("the end, {missed:?} missed"), |it| {
                    it.state().sealing.rotation.is_none() && it.keyring().on_disk() == [number]
                })
                .await;
            let state = member.consensus.state();
            assert_eq!(opened(&member.consensus.keys(), &state), expected, "{missed:?}");
        }
        for member in members {
            member.stop().await;
        }
    }
}
