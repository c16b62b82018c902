//! The key that secrets are sealed under is replaced: what is sealed changes, and nothing that anybody sees.

mod common;

use std::sync::Arc;

use common::{bootstrap, command, node, secs};
use quorumgate_model::{
    change,
    command::{
        AdmitNode, Applied, Body, ChangeResources, CreateJoinToken, Expect, Reason, Resealed, ResourceChange, Role,
        RotateCa, RotateSealingKey, RotateTicketKeys, SetSecret, TrialEnd,
    },
    digest::Digest,
    resource::{Kind, Resource, Secret},
    sealed::key_number,
    snapshot,
    state::{SealingStage, State},
};
use serde_json::json;

/// As the key of that number would seal it, as far as the outside can tell.
fn sealed(number: u64, text: &str) -> Arc<[u8]> {
    let head = match number {
        0 => vec![1],
        number => [&[2][..], &number.to_le_bytes()].concat(),
    };
    [head, vec![0; 28], text.as_bytes().to_vec()].concat().into()
}

fn auth(name: &str, description: &str, secret: Secret) -> Resource {
    let words = json!({ "name": name, "description": description, "client_credentials": {
        "token_endpoint": "https://idp.test/", "client_id": "c", "client_secret": "plain:x",
    } });
    let mut auth = Kind::Auth.parse(words).unwrap();
    auth.secrets_mut().into_iter().for_each(|(_, it)| *it = secret.clone());
    auth
}

fn change(after: Resource) -> ChangeResources {
    let change = ResourceChange { key: after.key(), after: Some(after), expect: Expect::Anything };
    ChangeResources { changes: [change].into(), ..ChangeResources::default() }
}

fn secret_of(state: &State, name: &str) -> Secret {
    let stored = state.resources.get(&common::key(&format!("auth/{name}"))).unwrap();
    stored.resource.secrets()[0].1.clone()
}

/// Two that are given the same, and a third that is read from a snapshot before each entry.
struct Replicas([State; 3]);

impl Replicas {
    fn apply(&mut self, body: Body) -> Applied {
        self.0[2] = reread(&self.0[2]);
        let command = command(body);
        let [a, b, c] = self.0.each_mut().map(|state| state.apply(state.index + 1, &command));
        assert_eq!((&a, &a), (&b, &c), "{command}");
        let [x, y, z] = self.0.each_ref().map(State::hash);
        assert_eq!((x, x), (y, z), "after {command}");
        a.0
    }

    fn step(&mut self, step: RotateSealingKey) -> Result<u64, Reason> {
        let applied = self.apply(Body::RotateSealingKey(step));
        applied.outcome.map(|_| applied.index).map_err(|it| it.reason)
    }

    fn state(&self) -> &State {
        &self.0[0]
    }

    /// What a leader does, in batches of two.
    fn reseal_all(&mut self) -> usize {
        let number = self.state().sealing.number;
        let mut batches = 0;
        while self.state().sealed_before() > 0 {
            let before = self.state().all_sealed().filter(|it| key_number(it) != number).take(2);
            let resealed = before.map(|it| anew(it, number)).collect();
            self.step(RotateSealingKey::Reseal { number, resealed }).unwrap();
            batches += 1;
        }
        batches
    }
}

fn anew(before: &[u8], number: u64) -> Resealed {
    Resealed { before: before.into(), after: sealed(number, &Digest::of(before).to_string()) }
}

fn reread(state: &State) -> State {
    let mut rebuild = snapshot::Rebuild::default();
    snapshot::records(state).for_each(|record| rebuild.push(record).unwrap());
    let read = rebuild.finish().unwrap();
    assert_eq!(read, *state);
    read
}

fn founded() -> Replicas {
    let mut replicas = Replicas(Default::default());
    let secret = SetSecret { name: "key-pepper".parse().unwrap(), sealed: sealed(0, "pepper") };
    let bodies = [
        Body::Bootstrap(Arc::new(bootstrap())),
        Body::SetSecret(secret),
        Body::RotateTicketKeys(RotateTicketKeys { sealed: sealed(0, "tickets"), newest: 0 }),
        Body::RotateCa(RotateCa::Introduce { certificate: vec![9].into(), sealed_key: sealed(0, "other CA") }),
        Body::ChangeResources(change(auth("a", "", Secret::sealed(sealed(0, "a").to_vec())))),
        Body::ChangeResources(change(auth("b", "", Secret::sealed(sealed(0, "b").to_vec())))),
    ];
    for body in bodies {
        replicas.apply(body).outcome.unwrap();
    }
    replicas
}

fn introduce(number: u64) -> RotateSealingKey {
    RotateSealingKey::Introduce { sealed_key: sealed(number, "the next key") }
}

#[test]
fn a_new_key_changes_nothing_that_is_seen() {
    let mut replicas = founded();
    // On trial: what it would go back to has secrets too.
    let trial = ChangeResources { trial: Some(secs(60)), ..change(auth("a", "", Secret::sealed(vec![1; 40]))) };
    replicas.apply(Body::ChangeResources(trial)).outcome.unwrap();
    let first = replicas.state().clone();
    let seen = |state: &State| {
        let etags: Vec<_> = state.resources.values().map(|it| (it.etag, format!("{:?}", it.resource))).collect();
        (etags, state.resources_hash, state.revision, state.history.clone())
    };

    let number = replicas.step(introduce(0)).unwrap();
    assert_eq!((replicas.state().sealing.number, replicas.state().sealing.newest()), (0, number));
    assert_eq!(replicas.step(introduce(0)), Err(Reason::AlreadyExists));
    assert_eq!(replicas.step(RotateSealingKey::End { number, nodes_upto: u64::MAX }), Err(Reason::Conflict));
    replicas.step(RotateSealingKey::Replace { number }).unwrap();
    let stage = replicas.state().sealing.rotation.as_ref().map(|it| it.stage);
    assert_eq!((replicas.state().sealing.number, stage), (number, Some(SealingStage::Replaced)));
    assert_eq!(replicas.step(RotateSealingKey::Abandon), Err(Reason::Conflict));
    let end = |replicas: &mut Replicas| replicas.step(RotateSealingKey::End { number, nodes_upto: u64::MAX });
    assert_eq!(end(&mut replicas), Err(Reason::Conflict), "secrets are left");
    // CA, the other CA, pepper, ticket key, a twice, b; it is the same twice for b.
    assert_eq!((replicas.state().sealed_before(), replicas.reseal_all()), (8, 4));
    end(&mut replicas).unwrap();
    assert_eq!(replicas.state().sealing.rotation, None);
    assert!(replicas.state().all_sealed().all(|it| key_number(it) == number));
    assert_eq!(seen(replicas.state()), seen(&first));

    // What the trial goes back to is as it was, and sealed anew.
    replicas.apply(Body::EndTrial { revision: 0, end: TrialEnd::Abort }).outcome.unwrap();
    assert_eq!(secret_of(replicas.state(), "a").fingerprint(), Some(fingerprint("a")));
    assert_eq!(replicas.state().resources_hash, first.history[1].hash);

    // The next one replaces this one.
    let second = replicas.step(introduce(number)).unwrap();
    replicas.step(RotateSealingKey::Replace { number: second }).unwrap();
    replicas.reseal_all();
    replicas.step(RotateSealingKey::End { number: second, nodes_upto: u64::MAX }).unwrap();
    assert_eq!(replicas.state().resources_hash, first.history[1].hash);
    assert_eq!(secret_of(replicas.state(), "b").fingerprint(), Some(fingerprint("b")));
}

fn fingerprint(text: &str) -> quorumgate_model::resource::Fingerprint {
    quorumgate_model::resource::Fingerprint::of(&sealed(0, text))
}

#[test]
fn what_was_written_meanwhile_is_not_overwritten() {
    let mut replicas = founded();
    let number = replicas.step(introduce(0)).unwrap();
    replicas.step(RotateSealingKey::Replace { number }).unwrap();
    let old = secret_of(replicas.state(), "a").bytes().unwrap().clone();
    let newer = Secret::sealed(sealed(number, "newer").to_vec());
    replicas.apply(Body::ChangeResources(change(auth("a", "", newer.clone())))).outcome.unwrap();
    let late = RotateSealingKey::Reseal { number, resealed: [anew(&old, number)].into() };
    replicas.step(late).unwrap();
    assert_eq!(secret_of(replicas.state(), "a"), newer);
    // By another key than the one that seals, nothing is sealed anew.
    let other = RotateSealingKey::Reseal { number, resealed: [anew(&old, number + 1)].into() };
    assert_eq!(replicas.step(other), Err(Reason::Invalid));
}

#[test]
fn an_object_keeps_its_etag_until_it_is_changed() {
    let mut replicas = founded();
    let etag = |replicas: &Replicas| replicas.state().resources[&common::key("auth/a")].etag;
    let (before, old) = (etag(&replicas), secret_of(replicas.state(), "a"));
    let number = replicas.step(introduce(0)).unwrap();
    replicas.step(RotateSealingKey::Replace { number }).unwrap();
    replicas.reseal_all();
    assert_eq!(etag(&replicas), before);
    // Whoever has read the secret as it was sealed before writes the same, or the same beside something else.
    let same = replicas.apply(Body::ChangeResources(change(auth("a", "", old.clone())))).outcome.unwrap();
    assert!(same.noop);
    let (state, described) = (replicas.state().clone(), auth("a", "described", old.clone()));
    let applied = replicas.apply(Body::ChangeResources(change(described)));
    assert_eq!(applied.outcome.unwrap().counts.updated, 1);
    let Secret::Sealed { bytes, fingerprint, etag: kept } = secret_of(replicas.state(), "a") else { panic!() };
    assert_eq!((key_number(&bytes), Some(fingerprint), kept), (number, old.fingerprint(), None));
    assert_ne!(etag(&replicas), before);
    assert_eq!(replicas.state().resources_hash, change::hash_of(&replicas.state().resources));
    // The way back in the history leads to what its hash is of.
    let (_, effects) =
        state.clone().apply(state.index + 1, &command(Body::ChangeResources(change(auth("a", "x", old)))));
    let undone = change::undo(&replicas.state().resources, &effects.diff.unwrap().changes);
    assert_eq!(change::hash_of(&undone), state.resources_hash);
}

#[test]
fn nothing_is_sealed_under_a_key_that_is_gone_or_that_some_node_may_lack() {
    let mut replicas = founded();
    let number = replicas.step(introduce(0)).unwrap();
    let write = |replicas: &mut Replicas, number| {
        let secret = Secret::sealed(sealed(number, "new").to_vec());
        let one = replicas.apply(Body::ChangeResources(change(auth("c", "", secret))));
        let newest = replicas.state().ticket_keys.back().unwrap().index;
        let tickets = RotateTicketKeys { sealed: sealed(number, "new"), newest };
        let two = replicas.apply(Body::RotateTicketKeys(tickets));
        let [one, two] = [one, two].map(|it| it.outcome.map(|_| ()).map_err(|it| it.reason));
        assert_eq!(one, two);
        one
    };
    assert_eq!(write(&mut replicas, number), Err(Reason::Conflict), "it does not seal yet");
    assert_eq!(write(&mut replicas, 0), Ok(()));
    replicas.step(RotateSealingKey::Replace { number }).unwrap();
    assert_eq!((write(&mut replicas, 0), write(&mut replicas, number)), (Ok(()), Ok(())));
    replicas.reseal_all();
    replicas.step(RotateSealingKey::End { number, nodes_upto: u64::MAX }).unwrap();
    assert_eq!(write(&mut replicas, 0), Err(Reason::Conflict));
    assert_eq!(write(&mut replicas, number), Ok(()));
    assert_eq!(replicas.step(introduce(0)), Err(Reason::Conflict), "sealed under the one before");
}

#[test]
fn a_key_that_does_not_seal_is_given_up_and_a_late_node_is_not_left_out() {
    let mut replicas = founded();
    assert_eq!(replicas.step(RotateSealingKey::Abandon), Err(Reason::NotFound));
    replicas.step(introduce(0)).unwrap();
    replicas.step(RotateSealingKey::Abandon).unwrap();
    let number = replicas.step(introduce(0)).unwrap();
    assert_eq!(replicas.step(RotateSealingKey::Replace { number: number - 2 }), Err(Reason::Conflict), "given up");
    replicas.step(RotateSealingKey::Replace { number }).unwrap();
    replicas.reseal_all();
    let asked = replicas.state().index;
    let secret_hash = Digest::of(b"s");
    let token = CreateJoinToken { id: "t".into(), secret_hash, role: Role::Voter, ttl: secs(60), uses: 1 };
    replicas.apply(Body::CreateJoinToken(token)).outcome.unwrap();
    let late = AdmitNode {
        token_id: "t".into(),
        token_secret_hash: secret_hash,
        node: quorumgate_model::command::NodeRecord { level: 5, ..node(0, "n2", Role::Voter) },
    };
    let late = replicas.apply(Body::AdmitNode(late)).outcome.unwrap().node_id.unwrap();
    assert_eq!(replicas.step(RotateSealingKey::End { number, nodes_upto: asked }), Err(Reason::Conflict));
    replicas.step(RotateSealingKey::End { number, nodes_upto: late }).unwrap();
}
