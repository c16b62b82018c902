//! What is protected changes once somebody else has approved, whichever way it is written.

mod common;

use std::sync::Arc;

use common::{bootstrap, command, key, node, secs};
use quorumgate_model::{
    command::{
        Actor, AdminRole, Applied, Body, ChangeResources, Command, CreateAdminToken, DecideChange, Expect, HoldChange,
        Outcome, Reason, Refound, RefoundCause, Resealed, ResourceChange, Role, RotateSealingKey, Stamp, TrialEnd,
        Verdict,
    },
    resource::{Kind, Resource, Secret},
    sealed::key_number,
    snapshot,
    state::{PENDING_CHANGES_MAX, PENDING_MAX, PENDING_OF_ONE_MAX, State},
};
use serde_json::json;

fn upstream(name: &str, port: u16, tier: Option<&str>) -> Resource {
    let labels = tier.map(|tier| json!({ "tier": tier })).unwrap_or_else(|| json!({}));
    Kind::Upstream.parse(json!({ "name": name, "targets": [format!("127.0.0.1:{port}")], "labels": labels })).unwrap()
}

fn rail(labels: &[&str]) -> Resource {
    let words = json!({ "name": "four-eyes", "message": "two of us", "require": "true", "approval_labels": labels });
    Kind::Guardrail.parse(words).unwrap()
}

fn change(sides: &[(&str, Option<Resource>)], state: &State) -> ChangeResources {
    let one = |(at, after): &(&str, Option<Resource>)| {
        let expect = state.resources.get(&key(at)).map_or(Expect::Missing, |it| Expect::Etag(it.etag));
        ResourceChange { key: key(at), after: after.clone(), expect }
    };
    let changes = sides.iter().map(one).collect();
    ChangeResources { changes, guardrails: state.guardrails(), ..ChangeResources::default() }
}

fn apply_at(state: &mut State, actor: &str, clock_us: u64, body: Body) -> Applied {
    let actor = Arc::new(Actor { name: actor.into(), ..Actor::default() });
    let stamp = Stamp { clock_us, wall_ms: 0 };
    let applied = state.apply(state.index + 1, &Command { actor, stamp, ..command(body) }).0;
    let mut rebuild = snapshot::Rebuild::default();
    snapshot::records(state).for_each(|record| rebuild.push(record).unwrap());
    assert_eq!(rebuild.finish().unwrap(), *state);
    applied
}

fn apply(state: &mut State, actor: &str, body: Body) -> Result<Outcome, Reason> {
    apply_at(state, actor, 1_000_000, body).outcome.map_err(|it| it.reason)
}

fn write(state: &mut State, sides: &[(&str, Option<Resource>)]) -> Result<Outcome, Reason> {
    let change = change(sides, state);
    apply(state, "ann", Body::ChangeResources(change))
}

fn hold(state: &mut State, sides: &[(&str, Option<Resource>)]) -> Result<u64, Reason> {
    let change = ChangeResources { guardrails: None, ..change(sides, state) };
    apply(state, "ann", Body::HoldChange(HoldChange { change, ttl: secs(60) })).map(|_| state.index)
}

fn decide(state: &mut State, actor: &str, id: u64, verdict: Verdict) -> Result<Outcome, Reason> {
    apply(state, actor, Body::DecideChange(DecideChange { id, verdict, reason: "seen".into() }))
}

fn approved(state: &State) -> Verdict {
    Verdict::Approved { guardrails: state.guardrails(), findings: [].into() }
}

/// With a gold upstream, one of another tier, and what protects gold.
fn protecting() -> State {
    let mut state = State::default();
    apply(&mut state, "ann", Body::Bootstrap(Arc::new(bootstrap()))).unwrap();
    let all = [
        ("upstream/gold", Some(upstream("gold", 80, Some("gold")))),
        ("upstream/other", Some(upstream("other", 80, Some("tin")))),
        ("guardrail/four-eyes", Some(rail(&["tier=gold", "frozen"]))),
    ];
    write(&mut state, &all).unwrap();
    state
}

#[test]
fn no_change_leads_past_an_approval() {
    let state = protecting();
    let check = |sides: &[(&str, Option<Resource>)], held: bool| {
        let mut state = state.clone();
        let expected = if held { Err(Reason::Conflict) } else { Ok(()) };
        assert_eq!(write(&mut state, sides).map(|_| ()), expected, "{sides:?}");
        assert_eq!(hold(&mut state, sides).is_ok(), held, "{sides:?}");
    };
    let (gold, rail_at) = ("upstream/gold", "guardrail/four-eyes");
    check(&[(gold, Some(upstream("gold", 81, Some("gold"))))], true);
    check(&[(gold, None)], true);
    // Its label goes, or it gets another value, in the same change.
    check(&[(gold, Some(upstream("gold", 81, None)))], true);
    check(&[(gold, Some(upstream("gold", 81, Some("tin"))))], true);
    // What protects it goes, or protects something else, alone and beside it.
    check(&[(rail_at, None)], true);
    check(&[(rail_at, None), (gold, None)], true);
    check(&[(rail_at, Some(rail(&["tier=lead"])))], true);
    check(&[(rail_at, Some(rail(&["tier=gold", "frozen", "more"])))], true);
    // What gets such a label is protected too; hidden beside others.
    check(&[("upstream/new", Some(upstream("new", 80, Some("gold"))))], true);
    check(&[("upstream/other", Some(upstream("other", 81, None))), (gold, None)], true);
    check(&[("upstream/other", Some(upstream("other", 81, Some("silver"))))], false);
    check(&[("upstream/other", None)], false);
}

#[test]
fn another_one_approves_and_nobody_does_so_twice() {
    let mut state = protecting();
    let revision = state.revision;
    let id = hold(&mut state, &[("upstream/gold", Some(upstream("gold", 81, Some("gold"))))]).unwrap();
    assert_eq!(state.revision, revision, "it only waits");
    let verdict = approved(&state);
    assert_eq!(decide(&mut state, "ann", id, verdict.clone()), Err(Reason::OwnApproval));
    let outdated = Verdict::Approved { guardrails: None, findings: [].into() };
    assert_eq!(decide(&mut state, "ben", id, outdated), Err(Reason::Conflict), "other guardrails than there are");
    assert_eq!(decide(&mut state, "ben", id, verdict.clone()).unwrap().counts.updated, 1);
    let newest = state.history.back().unwrap();
    assert_eq!((newest.revision, newest.actor.as_str()), (state.revision, "ann"), "it is hers");
    assert_eq!(decide(&mut state, "ben", id, verdict), Err(Reason::NotFound));
    assert!(state.pending.is_empty());
}

fn ask(state: &mut State, actor: &str, owner: &str, port: u16) -> Result<u64, Reason> {
    let sides = [("upstream/gold", Some(upstream("gold", port, Some("gold"))))];
    let change = ChangeResources { guardrails: None, ..change(&sides, state) };
    let actor = Arc::new(Actor { name: actor.into(), owner_scope: owner.into(), ..Actor::default() });
    let body = Body::HoldChange(HoldChange { change, ttl: secs(600) });
    let stamp = Stamp { clock_us: 1_000_000, wall_ms: 0 };
    let applied = state.apply(state.index + 1, &Command { actor, stamp, ..command(body) }).0;
    applied.outcome.map(|_| applied.index).map_err(|it| it.reason)
}

#[test]
fn whoever_has_a_nodes_machine_approves_nothing() {
    let mut state = protecting();
    for (asks, port) in [("root", 81), ("node/n1", 82), ("oidc/ann", 83)] {
        let id = ask(&mut state, asks, "", port).unwrap();
        for actor in ["root", "uid/990", "node/n1"] {
            let decided = decide(&mut state.clone(), actor, id, approved(&state));
            assert_eq!(decided, Err(Reason::OwnApproval), "{asks}, {actor}");
            decide(&mut state.clone(), actor, id, Verdict::Rejected).unwrap();
        }
        decide(&mut state.clone(), "token/root", id, approved(&state)).unwrap();
    }
    // Together they are one.
    let mut state = protecting();
    for (n, actor) in (81..).zip(["root", "uid/990", "node/n1"].iter().cycle().take(PENDING_OF_ONE_MAX)) {
        ask(&mut state, actor, "", n).unwrap();
    }
    assert_eq!(ask(&mut state, "node/n2", "", 90), Err(Reason::LimitReached));
    ask(&mut state, "oidc/ann", "", 90).unwrap();
}

#[test]
fn actors_with_an_owner_leave_room_for_others() {
    let mut state = State::default();
    apply(&mut state, "ann", Body::Bootstrap(Arc::new(bootstrap()))).unwrap();
    let owned = |port| {
        let labels = json!({ "tier": "gold" });
        let words =
            json!({ "name": "gold", "targets": [format!("127.0.0.1:{port}")], "labels": labels, "owner": "team" });
        Kind::Upstream.parse(words).unwrap()
    };
    let rail_at = ("guardrail/four-eyes", Some(rail(&["tier=gold"])));
    write(&mut state, &[("upstream/gold", Some(owned(80))), rail_at]).unwrap();
    let mut ask = |name: String, owner: &str, port| {
        let change = ChangeResources { guardrails: None, ..change(&[("upstream/gold", Some(owned(port)))], &state) };
        let actor = Arc::new(Actor { name, owner_scope: owner.into(), ..Actor::default() });
        let body = Body::HoldChange(HoldChange { change, ttl: secs(600) });
        let applied = state.apply(state.index + 1, &Command { actor, ..command(body) }).0;
        applied.outcome.map(|_| ()).map_err(|it| it.reason)
    };
    for n in 0..PENDING_MAX / 2 {
        ask(format!("token/t{}", n % 4), "team", 81 + n as u16).unwrap();
    }
    assert_eq!(ask("token/t9".into(), "team", 200), Err(Reason::LimitReached));
    ask("token/whole".into(), "", 201).unwrap();
}

#[test]
fn a_change_does_not_outlive_the_token_that_asked_for_it() {
    let token_of = |secret: &[u8], role, owner: &str| {
        let (secret_hash, ttl) = (quorumgate_model::digest::Digest::of(secret), secs(60));
        Body::CreateAdminToken(CreateAdminToken {
            name: "ann".parse().unwrap(),
            secret_hash,
            role,
            owner: owner.into(),
            ttl,
        })
    };
    let token = |role, owner: &str| token_of(b"s", role, owner);
    let mut state = protecting();
    apply(&mut state, "root", token(AdminRole::Operator, "")).unwrap();
    let id = ask(&mut state, "token/ann", "", 81).unwrap();
    let approve = |mut state: State| {
        let verdict = approved(&state);
        decide(&mut state, "token/ben", id, verdict).map(|_| ())
    };
    assert_eq!(approve(state.clone()), Ok(()));
    let mut late = state.clone();
    apply_at(&mut late, "root", 61_000_001, Body::Tick);
    assert!(late.pending.contains_key(&id));
    assert_eq!(approve(late), Err(Reason::Conflict), "it has expired");
    apply(&mut state, "root", Body::RemoveAdminToken { name: "ann".parse().unwrap() }).unwrap();
    assert_eq!(approve(state.clone()), Err(Reason::Conflict), "it is gone");
    for (role, owner, expected) in [
        (AdminRole::Operator, "team", Err(Reason::Conflict)),
        (AdminRole::Viewer, "", Err(Reason::Conflict)),
        (AdminRole::Operator, "", Ok(())),
    ] {
        let mut state = state.clone();
        apply(&mut state, "root", token(role, owner)).unwrap();
        assert_eq!(approve(state), expected, "{role:?} {owner}");
    }
    // Another one has its name, and may do as much or more.
    for role in [AdminRole::Operator, AdminRole::Admin] {
        let mut state = state.clone();
        apply(&mut state, "root", token_of(b"another", role, "")).unwrap();
        assert_eq!(approve(state), Err(Reason::Conflict), "{role:?}");
    }
}

#[test]
fn no_more_is_asked_for_at_once_than_is_shown_whole() {
    let mut state = State::default();
    apply(&mut state, "ann", Body::Bootstrap(Arc::new(bootstrap()))).unwrap();
    let names: Vec<String> = (0..=PENDING_CHANGES_MAX).map(|n| format!("upstream/u{n}")).collect();
    let there = names.iter().map(|at| (at.as_str(), Some(upstream(&at["upstream/".len()..], 80, Some("gold")))));
    let rail_at = ("guardrail/four-eyes", Some(rail(&["tier=gold"])));
    write(&mut state, &there.chain([rail_at]).collect::<Vec<_>>()).unwrap();
    let gone: Vec<(&str, Option<Resource>)> = names.iter().map(|at| (at.as_str(), None)).collect();
    assert_eq!(hold(&mut state, &gone), Err(Reason::Invalid));
    hold(&mut state, &gone[1..]).unwrap();
}

#[test]
fn what_is_held_says_what_every_object_is_to_be_like_then() {
    let mut state = protecting();
    let open = ResourceChange { key: key("upstream/gold"), after: None, expect: Expect::Anything };
    let careless = ChangeResources { changes: [open].into(), ..ChangeResources::default() };
    let held = apply(&mut state, "ann", Body::HoldChange(HoldChange { change: careless, ttl: secs(60) }));
    assert_eq!(held, Err(Reason::Invalid));
    let body = |level: &str| {
        let sides = [("guardrail/new", Some(rail(&[level])))];
        let change = ChangeResources { guardrails: None, ..change(&sides, &State::default()) };
        [Body::HoldChange(HoldChange { change: change.clone(), ttl: secs(1) }), Body::ChangeResources(change)]
    };
    assert!(body("a").iter().all(|it| it.min_level() == 6), "builds before know nothing of it");
}

#[test]
fn an_owner_takes_back_its_own_and_nobody_elses() {
    let mut state = protecting();
    let id = hold(&mut state, &[("upstream/gold", None)]).unwrap();
    let mut reject = |name: &str, owner: &str| {
        let actor = Arc::new(Actor { name: name.into(), owner_scope: owner.into(), ..Actor::default() });
        let body = Body::DecideChange(DecideChange { id, verdict: Verdict::Rejected, reason: String::new() });
        let applied = state.apply(state.index + 1, &Command { actor, ..command(body) }).0;
        applied.outcome.map(|_| ()).map_err(|it| it.reason)
    };
    assert_eq!(reject("ben", "team"), Err(Reason::OwnerForbidden));
    assert_eq!(reject("ann", "team"), Ok(()));
}

#[test]
fn a_trial_begins_with_the_approval_and_ends_where_it_began() {
    let mut state = protecting();
    let sides = [("upstream/gold", Some(upstream("gold", 81, Some("gold"))))];
    let change = ChangeResources {
        guardrails: None,
        trial: Some(secs(60)),
        expected_revision: Some(state.revision),
        ..change(&sides, &state)
    };
    let held = |change: &ChangeResources| Body::HoldChange(HoldChange { change: change.clone(), ttl: secs(600) });
    apply(&mut state, "ann", held(&change)).unwrap();
    let id = state.index;
    let before = state.resources.clone();
    let verdict = approved(&state);
    decide(&mut state, "ben", id, verdict.clone()).unwrap();
    assert!(state.trial.is_some());
    // While it is open nothing else is asked for, nor approved.
    assert_eq!(apply(&mut state, "ann", held(&change)), Err(Reason::TrialOpen));
    apply(&mut state, "ann", Body::EndTrial { revision: 0, end: TrialEnd::Abort }).unwrap();
    assert_eq!(state.resources, before);
    // Nothing but the revision has moved on, which was expected.
    assert_eq!(apply(&mut state, "ann", held(&change)), Err(Reason::Conflict));
}

#[test]
fn a_cluster_that_begins_anew_has_nothing_that_waits() {
    let mut state = protecting();
    hold(&mut state, &[("upstream/gold", None)]).unwrap();
    let refound = Refound {
        cluster_id: [9; 16],
        node: node(state.index, "n9", Role::Voter),
        cause: RefoundCause::Restored,
        reset_budgets: false,
    };
    apply(&mut state, "ann", Body::Refound(Arc::new(refound))).unwrap();
    assert!(state.pending.is_empty(), "its id may come to name another change");
}

/// As the key of that number would seal it, as far as the outside can tell.
fn sealed(number: u64, text: &str) -> Vec<u8> {
    let head = if number == 0 { vec![1] } else { [&[2][..], &number.to_le_bytes()].concat() };
    [head, vec![0; 28], text.as_bytes().to_vec()].concat()
}

fn auth(text: &str) -> Resource {
    let words = json!({ "name": "gold", "labels": { "tier": "gold" }, "client_credentials": {
        "token_endpoint": "https://idp.test/", "client_id": "c", "client_secret": "plain:x",
    } });
    let mut auth = Kind::Auth.parse(words).unwrap();
    auth.secrets_mut().into_iter().for_each(|(_, it)| *it = Secret::sealed(sealed(0, text)));
    auth
}

#[test]
fn a_secret_that_waits_is_sealed_anew_like_all_others() {
    let mut state = protecting();
    let verdict = approved(&state);
    let first = hold(&mut state, &[("auth/gold", Some(auth("first")))]).unwrap();
    decide(&mut state, "ben", first, verdict).unwrap();
    let id = hold(&mut state, &[("auth/gold", Some(auth("second")))]).unwrap();
    let fingerprint = Secret::sealed(sealed(0, "second")).fingerprint();

    let sealed_key: Arc<[u8]> = sealed(0, "next").into();
    apply(&mut state, "ann", Body::RotateSealingKey(RotateSealingKey::Introduce { sealed_key })).unwrap();
    let number = state.index;
    apply(&mut state, "ann", Body::RotateSealingKey(RotateSealingKey::Replace { number })).unwrap();
    let end = || Body::RotateSealingKey(RotateSealingKey::End { number, nodes_upto: u64::MAX });
    let of_pending: Arc<[u8]> = sealed(0, "second").into();
    let all: Vec<Arc<[u8]>> = state.all_sealed().map(Arc::from).collect();
    assert!(all.contains(&of_pending));
    let reseal = |before: &Arc<[u8]>| Resealed { before: before.clone(), after: sealed(number, "anew").into() };
    let others = all.iter().filter(|it| **it != of_pending).map(reseal).collect();
    apply(&mut state, "ann", Body::RotateSealingKey(RotateSealingKey::Reseal { number, resealed: others })).unwrap();
    assert_eq!(apply(&mut state, "ann", end()), Err(Reason::Conflict), "the one that waits is left");
    let last = [reseal(&of_pending)].into();
    apply(&mut state, "ann", Body::RotateSealingKey(RotateSealingKey::Reseal { number, resealed: last })).unwrap();
    apply(&mut state, "ann", end()).unwrap();

    let verdict = approved(&state);
    decide(&mut state, "ben", id, verdict).unwrap();
    let stored = &state.resources[&key("auth/gold")].resource;
    let secret = stored.secrets()[0].1.clone();
    assert_eq!((key_number(secret.bytes().unwrap()), secret.fingerprint()), (number, fingerprint));
    assert!(state.all_sealed().all(|it| key_number(it) == number));
}

#[test]
fn what_was_approved_is_what_was_asked_for() {
    let mut state = protecting();
    let gold = |port| ("upstream/gold", Some(upstream("gold", port, Some("gold"))));
    let [first, second] = [81, 82].map(|port| hold(&mut state, &[gold(port)]).unwrap());
    // Another write, elsewhere, stands in nobody's way.
    write(&mut state, &[("upstream/other", None)]).unwrap();
    let verdict = approved(&state);
    decide(&mut state, "ben", first, verdict.clone()).unwrap();
    assert_eq!(decide(&mut state, "ben", second, verdict), Err(Reason::Conflict), "the object is another one now");
    assert!(state.pending.contains_key(&second), "and can be looked at");
    // Whoever has asked takes it back.
    decide(&mut state, "ann", second, Verdict::Rejected).unwrap();
    assert!(state.pending.is_empty());
}

#[test]
fn what_waits_is_bounded_in_number_and_time() {
    let mut state = protecting();
    let sides = [("upstream/gold", None)];
    let ids: Vec<_> = (0..PENDING_OF_ONE_MAX).map(|_| hold(&mut state, &sides).unwrap()).collect();
    assert_eq!(hold(&mut state, &sides), Err(Reason::LimitReached));
    for n in 1..PENDING_MAX / PENDING_OF_ONE_MAX {
        for _ in 0..PENDING_OF_ONE_MAX {
            let change = ChangeResources { guardrails: None, ..change(&sides, &state) };
            apply(&mut state, &format!("ann{n}"), Body::HoldChange(HoldChange { change, ttl: secs(90) })).unwrap();
        }
    }
    let change = ChangeResources { guardrails: None, ..change(&sides, &state) };
    let one_more = Body::HoldChange(HoldChange { change, ttl: secs(60) });
    assert_eq!(apply(&mut state, "zoe", one_more), Err(Reason::LimitReached));
    // By the log clock: sixty seconds after the first second.
    apply_at(&mut state, "ann", 60_999_999, Body::Tick);
    assert!(ids.iter().all(|id| state.pending.contains_key(id)));
    apply_at(&mut state, "ann", 61_000_000, Body::Tick);
    assert!(!ids.iter().any(|id| state.pending.contains_key(id)));
    assert_eq!(state.pending.len(), PENDING_MAX - PENDING_OF_ONE_MAX);
}
