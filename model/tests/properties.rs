//! What holds of any sequence of commands: the same state everywhere, snapshots that lose nothing, changes that undo.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use common::{
    api_key, auth, bootstrap, command, consumer, credential_state, full_state, key, new_key, node, route, secs,
    selector, upstream,
};
use proptest::prelude::*;
use prost::Message;
use quorumgate_model::{
    change::{self, Lookups},
    command::{
        AdmitNode, Body, ChangeResources, Command, CreateJoinToken, Decided, Expect, NewCredential, NewRevocation,
        Reason, ResourceChange, Revoke, Role, RotateCredential, SetSecret, Standing, StoreJwks, TrialEnd, UpdateNode,
    },
    convert,
    credential::{BasicUser, CredentialId, CredentialKind, Grants},
    digest::Digest,
    resource::{Name, Resource, Resources},
    revocation::{Revocation, SelectorKind},
    snapshot::{Rebuild, records},
    state::{
        BATCH_MAX, CREDENTIAL_REMEMBERED, DEDUP_MAX, Effects, HISTORY_MAX, REVOCATION_REMEMBERED, State, TOKENS_MAX,
    },
};
use quorumgate_proto::store::v1::{self as store, snapshot_record::Record};

fn object() -> impl Strategy<Value = (String, Option<Resource>)> {
    prop_oneof![
        (0..4u8, 0..3u16)
            .prop_map(|(n, port)| (format!("upstream/u{n}"), Some(upstream(&format!("u{n}"), port + 80, "")))),
        (0..6u8, 0..4u8, 0..8u8).prop_map(|(n, to, path)| {
            let it = route(&format!("r{n}"), &format!("u{to}"), &format!("/p{path}"), "");
            (format!("route/r{n}"), Some(it))
        }),
        (0..3u8).prop_map(|n| (format!("consumer/c{n}"), Some(consumer(&format!("c{n}"))))),
        (0..3u8).prop_map(|n| (format!("consumer/c{n}"), None)),
        (0..2u8).prop_map(|n| (format!("auth/a{n}"), Some(auth(&format!("a{n}"))))),
        (0..2u8).prop_map(|n| (format!("auth/a{n}"), None)),
        (0..4u8).prop_map(|n| (format!("upstream/u{n}"), None)),
        (0..6u8).prop_map(|n| (format!("route/r{n}"), None)),
    ]
}

fn change_resources() -> impl Strategy<Value = ChangeResources> {
    let objects = prop::collection::btree_map("[a-z]", object(), 1..5);
    (objects, prop::option::weighted(0.1, 1..9u64)).prop_map(|(objects, trial)| {
        let changes = objects.into_values().map(|(text, after)| ResourceChange {
            key: key(&text),
            after,
            expect: Expect::Anything,
        });
        ChangeResources { changes: changes.collect(), trial: trial.map(secs), ..Default::default() }
    })
}

fn new_credential() -> impl Strategy<Value = NewCredential> {
    let grants = prop_oneof![
        Just(None),
        prop::collection::vec("[a-z]{1,3}", 0..3).prop_map(|scopes| {
            let scopes = scopes.into_iter().map(Into::into).collect();
            Some(Arc::new(Grants { scopes, ..Grants::default() }))
        }),
    ];
    (0..8u8, 0..3u8, any::<bool>(), grants, prop::option::of(1..9u64)).prop_map(|(n, owner, basic, grants, ttl)| {
        let user = BasicUser { name: format!("u{n}"), password_hash: "$argon2id$x".into() };
        let key = new_key(&format!("k{n}"), &format!("c{owner}"));
        let (id, kind) = match basic {
            true => (CredentialId::new(u64::from(n) + 1).unwrap(), CredentialKind::Basic(Arc::new(user))),
            false => (key.id, key.kind),
        };
        NewCredential { id, kind, grants, ttl: ttl.map(secs), ..new_key("", &format!("c{owner}")) }
    })
}

fn new_revocation() -> impl Strategy<Value = NewRevocation> {
    let kinds = prop::sample::select(vec![SelectorKind::Jti, SelectorKind::Sid, SelectorKind::Subject]);
    (kinds, 0..6u8, 1..200u64, prop::option::of(0..4u64)).prop_map(|(kind, n, ttl, not_before_s)| NewRevocation {
        selector: selector(kind, "i", &format!("v{n}")),
        ttl: secs(ttl),
        not_before_s,
    })
}

/// Everything that concerns credentials.
fn credential_body() -> impl Strategy<Value = Body> {
    let id = |n: u8| api_key(&format!("k{n}")).0;
    let decided = prop::sample::select(vec![Decided::Active, Decided::Disabled, Decided::Revoked]);
    prop_oneof![
        4 => prop::collection::vec(new_credential(), 1..4).prop_map(|all| Body::CreateCredentials(all.into())),
        1 => (0..8u8, 0..8u8, 0..9u64).prop_map(move |(old, new, overlap)| {
            let (new_id, kind) = api_key(&format!("k{new}"));
            Body::RotateCredential(RotateCredential { id: id(old), new_id, kind, overlap: secs(overlap), keys_max: None })
        }),
        1 => (0..8u8, decided).prop_map(move |(n, to)| Body::SetCredentialState { id: id(n), to }),
        4 => (prop::collection::vec(new_revocation(), 1..5), "[a-z]{0,3}").prop_map(|(entries, reason)| {
            Body::Revoke(Revoke { entries: entries.into(), reason })
        }),
        1 => (0..2u8, 0..3u8).prop_map(|(auth, body)| Body::StoreJwks(StoreJwks {
            auth: format!("a{auth}").parse().unwrap(),
            body: vec![body; 3].into(),
            fetched_wall_ms: 1,
        })),
        1 => (0..3u8).prop_map(|n| {
            Body::SetSecret(SetSecret { name: format!("s{n}").parse().unwrap(), sealed: vec![n + 1; 2].into() })
        }),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    let end = prop_oneof![Just(TrialEnd::Confirm), Just(TrialEnd::Abort), Just(TrialEnd::Expire)];
    let role = || prop_oneof![Just(Role::Voter), Just(Role::Replica)];
    let token = |n: u8| format!("t{n}");
    prop_oneof![
        12 => change_resources().prop_map(Body::ChangeResources),
        10 => credential_body(),
        2 => end.prop_map(|end| Body::EndTrial { revision: 0, end }),
        1 => (0..3u8, role(), 1..20u64, 1..3u32).prop_map(move |(n, role, ttl, uses)| {
            let secret_hash = Digest::of(b"s");
            Body::CreateJoinToken(CreateJoinToken { id: token(n), secret_hash, role, ttl: secs(ttl), uses })
        }),
        1 => (0..3u8).prop_map(move |n| Body::RemoveJoinToken { id: token(n) }),
        2 => (0..3u8, 0..5u8, role()).prop_map(move |(n, name, role)| Body::AdmitNode(AdmitNode {
            token_id: token(n),
            token_secret_hash: Digest::of(b"s"),
            node: node(0, &format!("n{name}"), role),
        })),
        1 => (1..20u64, role(), any::<bool>()).prop_map(|(id, role, leaving)| Body::UpdateNode(UpdateNode {
            id,
            wanted_role: Some(role),
            standing: leaving.then_some(Standing::Leaving),
            ..UpdateNode::default()
        })),
        1 => (1..20u64).prop_map(|id| Body::RemoveNode { id }),
        1 => (1..3000u64).prop_map(|ms| Body::SetMaxRtt { max_rtt: std::time::Duration::from_millis(ms) }),
        1 => Just(Body::Tick),
    ]
}

/// Bootstrapped at once, with a clock that mostly runs forward and request ids that sometimes repeat.
fn commands() -> impl Strategy<Value = Vec<Command>> {
    let one = (body(), prop::option::weighted(0.3, 0..20u8), 0..4u64);
    prop::collection::vec(one, 1..50).prop_map(|all| {
        let mut clock_us = 1_000_000;
        let first = command(Body::Bootstrap(Arc::new(bootstrap())));
        let rest = all.into_iter().map(move |(body, id, step)| {
            clock_us = (clock_us + 1_000_000 * step).saturating_sub(500_000 * u64::from(step == 0));
            let mut one = command(body);
            one.request_id = id.map(|id| [id; 16]);
            one.stamp.clock_us = clock_us;
            one
        });
        std::iter::once(first).chain(rest).collect()
    })
}

/// Through bytes, as on another node.
fn rebuilt(state: &State) -> State {
    let mut rebuild = Rebuild::default();
    for record in records(state) {
        let bytes = record.encode_to_vec();
        rebuild.push(store::SnapshotRecord::decode(&*bytes).unwrap()).unwrap();
    }
    rebuild.finish().unwrap()
}

fn rewired(command: &Command) -> Command {
    let bytes = convert::command_to(command).encode_to_vec();
    convert::command_from(store::Command::decode(&*bytes).unwrap()).unwrap()
}

fn check_invariants(before: &State, state: &State, command: &Command, effects: &Effects) {
    assert_eq!(state.resources_hash, change::hash_of(&state.resources));
    assert_eq!(state.lookups, Lookups::of(&state.resources));
    assert_eq!(state.dedup.len(), state.dedup_order.len());
    let credentials = state.credentials.by_id();
    let mut of_consumers: Vec<_> = credentials.values().map(|it| (it.consumer.clone(), it.id)).collect();
    of_consumers.sort();
    let consumers: BTreeSet<_> = of_consumers.iter().map(|(consumer, _)| consumer).collect();
    let found = consumers.iter().flat_map(|it| state.credentials.of(it).map(|id| (Name::clone(it), id)));
    assert_eq!(found.collect::<Vec<_>>(), of_consumers);
    let exists = |consumer: &&Name| state.resources.contains_key(&key(&format!("consumer/{consumer}")));
    assert!(consumers.iter().all(exists), "a credential without its consumer");
    assert!(state.jwks.keys().all(|it| state.resources.contains_key(&key(&format!("auth/{it}")))));
    for (key, entry) in state.revocations.entries() {
        assert_eq!(*key, entry.selector.key());
    }
    // What is revoked stays so until its time is over, whatever is revoked beside it.
    for (key, earlier) in before.revocations.entries() {
        let now = state.revocations.get(key);
        assert!(now.is_some() || earlier.expires_at_us < state.clock_us, "{earlier:?} is gone");
        let covers = |it: &Revocation, at| it.expires_at_us > state.clock_us && it.covers(at);
        for at in [None, Some(0), Some(1), Some(2), Some(3)] {
            assert!(!covers(earlier, at) || covers(now.unwrap(), at), "{earlier:?} covers less");
        }
    }
    if let Some(last) = state.history.back() {
        assert_eq!((last.revision, last.hash), (state.revision, state.resources_hash));
    }
    match &effects.diff {
        None => assert_eq!(state.resources, before.resources),
        Some(diff) => {
            assert_eq!((diff.previous, diff.revision), (before.revision, state.revision));
            assert_eq!(change::redo(&before.resources, &diff.changes), state.resources);
            assert_eq!(change::undo(&state.resources, &diff.changes), before.resources);
            let wire = convert::diff_from(convert::diff_to(diff)).unwrap();
            assert_eq!(wire, *diff);
        }
    }
    if let (Body::EndTrial { end: TrialEnd::Abort | TrialEnd::Expire, .. }, Some(_)) = (&command.body, &effects.diff) {
        assert_eq!(state.resources, before.trial.as_ref().unwrap().prior);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_node_reaches_the_same_state(commands in commands(), restart in 0..50usize) {
        let (mut leader, mut follower) = (State::default(), State::default());
        for (n, command) in commands.iter().enumerate() {
            let before = leader.clone();
            let index = n as u64 + 1;
            let told = leader.apply(index, command);
            prop_assert_eq!(&told, &follower.apply(index, &rewired(command)));
            check_invariants(&before, &leader, command, &told.1);
            if n == restart {
                follower = rebuilt(&leader);
            }
            prop_assert_eq!(&leader, &follower);
        }
        prop_assert_eq!(leader.hash(), follower.hash());
        prop_assert_eq!(leader.hash(), rebuilt(&leader).hash());
    }

    #[test]
    fn history_walks_back_byte_for_byte(commands in commands()) {
        let (mut state, mut diffs) = (State::default(), Vec::new());
        let mut earlier: BTreeMap<u64, Resources> = [(0, Resources::default())].into();
        for (n, command) in commands.iter().enumerate() {
            let (_, effects) = state.apply(n as u64 + 1, command);
            diffs.extend(effects.diff);
            earlier.insert(state.revision, state.resources.clone());
        }
        let mut resources = state.resources.clone();
        for diff in diffs.iter().rev() {
            if let Some(facts) = state.history.iter().find(|facts| facts.revision == diff.revision) {
                prop_assert_eq!(facts.hash, change::hash_of(&resources));
                prop_assert_eq!((facts.previous, facts.counts), (diff.previous, change::counts(&diff.changes)));
            }
            resources = change::undo(&resources, &diff.changes);
            prop_assert_eq!(&resources, &earlier[&diff.previous]);
        }
        prop_assert!(resources.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// A damaged command or record is an error or another command, never a panic.
    #[test]
    fn damage_is_no_panic(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let (mut state, commands) = if which.index(2) == 0 { full_state() } else { credential_state() };
        let mut bytes = convert::command_to(which.get(&commands)).encode_to_vec();
        let at_command = at.index(bytes.len());
        bytes[at_command] ^= flip;
        if let Ok(message) = store::Command::decode(&*bytes)
            && let Ok(command) = convert::command_from(message)
        {
            state.apply(100, &command);
        }
        let mut all: Vec<_> = records(&state).map(|record| record.encode_to_vec()).collect();
        let record = which.index(all.len());
        let at_record = at.index(all[record].len());
        all[record][at_record] ^= flip;
        let mut rebuild = Rebuild::default();
        let pushed = all.iter().try_for_each(|bytes| match store::SnapshotRecord::decode(&**bytes) {
            Ok(record) => rebuild.push(record).map_err(drop),
            Err(_) => Err(()),
        });
        if let (Ok(()), Ok(mut state)) = (pushed, rebuild.finish()) {
            let index = state.index.saturating_add(1).max(2);
            if state.index < index {
                state.apply(index, &command(Body::EndTrial { revision: 0, end: TrialEnd::Abort }));
            }
        }
    }
}

#[test]
fn a_snapshot_shares_what_the_trial_left_alone_and_is_checked() {
    let (state, _) = full_state();
    assert_eq!(rebuilt(&state), state);
    let refused = |change: &dyn Fn(&mut Vec<store::SnapshotRecord>)| {
        let mut all: Vec<_> = records(&state).collect();
        change(&mut all);
        let mut rebuild = Rebuild::default();
        all.into_iter().try_for_each(|record| rebuild.push(record)).and_then(|()| rebuild.finish()).unwrap_err().field
    };
    assert_eq!(refused(&|all| drop(all.remove(0))), "head");
    assert_eq!(refused(&|all| all.clear()), "head");
    assert_eq!(refused(&|all| all.push(all[0].clone())), "head");
    assert_eq!(refused(&|all| drop(all.remove(1))), "resources_hash");
    let nth = |kind: fn(&Record) -> bool| records(&state).position(|it| it.record.as_ref().is_some_and(kind)).unwrap();
    let revision = nth(|record| matches!(record, Record::Revision(_)));
    assert_eq!(refused(&|all| all.swap(revision, revision + 1)), "history");
    assert_eq!(refused(&|all| drop(all.remove(revision + 1))), "history");
    let trial = nth(|record| matches!(record, Record::Trial(_)));
    assert_eq!(refused(&|all| drop(all.remove(trial))), "trial_prior");
    assert_eq!(refused(&|all| all.push(all[1].clone())), "resource");
    assert_eq!(refused(&|all| all.push(store::SnapshotRecord { record: None })), "record");
}

#[test]
fn what_is_remembered_has_a_bound() {
    let mut state = State::default();
    state.apply(1, &command(Body::Bootstrap(Arc::new(bootstrap()))));
    let tick = |n: u64| Command { request_id: Some(u128::from(n).to_be_bytes()), ..command(Body::Tick) };
    let last = DEDUP_MAX as u64 + 10;
    for index in 2..=last {
        state.apply(index, &tick(index));
    }
    assert_eq!((state.dedup.len(), state.dedup_order.len()), (DEDUP_MAX, DEDUP_MAX));
    assert_eq!(state.apply(last + 1, &tick(last)).0.index, last, "the newest is remembered");
    assert_eq!(state.apply(last + 2, &tick(2)).0.index, last + 2, "the oldest is forgotten");

    let revisions = HISTORY_MAX as u64 + 10;
    for n in 0..revisions {
        let port = 1_000 + n as u16;
        let one =
            ResourceChange { key: key("upstream/x"), after: Some(upstream("x", port, "")), expect: Expect::Anything };
        let change = ChangeResources { changes: [one].into(), ..Default::default() };
        state.apply(last + 3 + n, &command(Body::ChangeResources(change)));
    }
    assert_eq!(state.history.len(), HISTORY_MAX);
    assert_eq!(state.history.back().unwrap().revision, last + 2 + revisions);
}

#[test]
fn spent_tokens_make_room_and_live_ones_do_not() {
    let mut state = State::default();
    state.apply(1, &command(Body::Bootstrap(Arc::new(bootstrap()))));
    let token = |n: usize, ttl| {
        let (id, secret_hash, role) = (format!("t{n}"), Digest::of(b"s"), Role::Voter);
        command(Body::CreateJoinToken(CreateJoinToken { id, secret_hash, role, ttl: secs(ttl), uses: 1 }))
    };
    state.apply(2, &token(0, 60));
    let one = state.join_tokens["t0"].clone();
    for n in 1..TOKENS_MAX {
        state.join_tokens.insert(format!("t{n}"), one.clone());
    }
    let (applied, _) = state.apply(3, &token(TOKENS_MAX, 60));
    assert_eq!(applied.outcome.unwrap_err().reason, Reason::LimitReached);

    let admit =
        AdmitNode { token_id: "t7".into(), token_secret_hash: Digest::of(b"s"), node: node(0, "n2", Role::Voter) };
    assert!(state.apply(4, &command(Body::AdmitNode(admit))).0.outcome.is_ok());
    assert!(state.apply(5, &token(TOKENS_MAX, 60)).0.outcome.is_ok());
    assert_eq!(state.join_tokens.len(), TOKENS_MAX);
    assert!(!state.join_tokens.contains_key("t7"));
}

#[test]
fn what_has_ended_is_forgotten_by_the_log_clock_a_bit_at_a_time() {
    let (mut state, _) = credential_state();
    let batch = |n: usize| {
        let entries = (0..BATCH_MAX).map(|at| NewRevocation {
            selector: selector(SelectorKind::Jti, "i", &format!("{n}-{at}")),
            ttl: secs(100),
            not_before_s: None,
        });
        let keys =
            (0..BATCH_MAX).map(|at| NewCredential { ttl: Some(secs(100)), ..new_key(&format!("{n}-{at}"), "acme") });
        [
            Body::Revoke(Revoke { entries: entries.collect(), reason: String::new() }),
            Body::CreateCredentials(keys.collect()),
        ]
    };
    for body in (0..10).flat_map(batch) {
        state.apply(state.index + 1, &command(body)).0.outcome.unwrap();
    }
    let (kept, keys) = (state.revocations.len(), state.credentials.len());
    assert!(kept > 10_000 && keys > 10_000);
    let tick = |state: &mut State, clock_us: u64| {
        let before = state.revocations.len() + state.credentials.len();
        let mut command = command(Body::Tick);
        command.stamp.clock_us = clock_us;
        state.apply(state.index + 1, &command);
        before - state.revocations.len() - state.credentials.len()
    };
    let ended_us = 1_000_000 * 101 + REVOCATION_REMEMBERED.as_micros() as u64;
    assert_eq!(tick(&mut state, ended_us - 1), 1, "the entry of a minute");
    // The first may look at 16 s worth: all of it.
    let mut gone = 0;
    for second in 0..4 {
        let now = tick(&mut state, ended_us + second * 1_000_000);
        assert!(now <= 2 * 4_096, "{now} at once");
        gone += now;
    }
    assert!(gone >= 10_000, "{gone}");
    assert_eq!(state.revocations.len(), 1, "the one of ten minutes");
    assert_eq!(state.credentials.len(), keys, "a credential still says why");
    let forgotten_us = 1_000_000 * 101 + CREDENTIAL_REMEMBERED.as_micros() as u64;
    for second in 0..2 {
        tick(&mut state, forgotten_us + second * 1_000_000);
    }
    assert_eq!(state.credentials.len(), 0);
    assert_eq!(rebuilt(&state), state);
}
