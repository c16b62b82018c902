//! How many keys somebody may make for himself: counted where all nodes count alike.

mod common;

use std::{num::NonZeroU32, time::Duration};

use common::{api_key, command, credential_state, new_key, secs};
use quorumgate_model::{
    command::{Body, Decided, NewCredential, Reason, RotateCredential},
    state::State,
};

fn apply(state: &mut State, body: Body) -> Result<(), Reason> {
    let (applied, _) = state.apply(state.index + 1, &command(body));
    applied.outcome.map(|_| ()).map_err(|rejected| rejected.reason)
}

fn own(text: &str, max: u32) -> NewCredential {
    NewCredential { keys_max: NonZeroU32::new(max), ..new_key(text, "acme") }
}

fn create(state: &mut State, text: &str, max: u32) -> Result<(), Reason> {
    apply(state, Body::CreateCredentials([own(text, max)].into()))
}

fn revoke(state: &mut State, text: &str) {
    apply(state, Body::SetCredentialState { id: api_key(text).0, to: Decided::Revoked }).unwrap();
}

/// Of `acme`: none that counts.
fn state() -> State {
    let mut state = credential_state().0;
    revoke(&mut state, "rich");
    revoke(&mut state, "new");
    state
}

#[test]
fn a_consumer_has_no_more_keys_than_it_may_make() {
    let mut state = state();
    assert_eq!(create(&mut state, "a", 2), Ok(()));
    assert_eq!(apply(&mut state, Body::CreateCredentials([new_key("operators", "acme")].into())), Ok(()));
    let hash = state.credentials.hash();
    assert_eq!(create(&mut state, "b", 2), Err(Reason::LimitReached), "whoever made them");
    assert_eq!(state.credentials.hash(), hash, "a refusal leaves no trace");
    apply(&mut state, Body::SetCredentialState { id: api_key("a").0, to: Decided::Disabled }).unwrap();
    assert_eq!(create(&mut state, "b", 2), Err(Reason::LimitReached), "it may be enabled again");
    revoke(&mut state, "a");
    assert_eq!(create(&mut state, "b", 2), Ok(()));
    assert_eq!(
        apply(&mut state, Body::CreateCredentials([own("c", 3), own("d", 3)].into())),
        Err(Reason::LimitReached)
    );
    assert_eq!(apply(&mut state, Body::CreateCredentials([own("c", 4), own("d", 4)].into())), Ok(()));
    assert_eq!(create(&mut state, "e", 4), Err(Reason::LimitReached));
    // Operators are not counted.
    assert_eq!(apply(&mut state, Body::CreateCredentials([new_key("e", "acme")].into())), Ok(()));
}

#[test]
fn a_rotation_may_have_the_old_keys_beside_the_new_ones() {
    let mut state = state();
    let rotate = |state: &mut State, from: &str, to: &str| {
        let (new_id, kind) = api_key(to);
        let (id, keys_max) = (api_key(from).0, NonZeroU32::new(2));
        apply(state, Body::RotateCredential(RotateCredential { id, new_id, kind, overlap: secs(3_600), keys_max }))
    };
    create(&mut state, "a", 2).unwrap();
    create(&mut state, "b", 2).unwrap();
    assert_eq!(rotate(&mut state, "a", "a2"), Ok(()));
    assert_eq!(rotate(&mut state, "b", "b2"), Ok(()));
    assert_eq!(rotate(&mut state, "a2", "a3"), Err(Reason::LimitReached), "the overlaps last");
}

#[test]
fn whoever_makes_and_revokes_in_turn_has_to_wait() {
    let mut state = state();
    let mut made = 0;
    while create(&mut state, &format!("k{made}"), 1) == Ok(()) {
        revoke(&mut state, &format!("k{made}"));
        made += 1;
        assert!(made <= 100);
    }
    assert!(made > 90, "{made}");
    // Until they are forgotten.
    let mut later = command(Body::Tick);
    let clock_us = state.clock_us + Duration::from_secs(31 * 86_400).as_micros() as u64;
    later.stamp.clock_us = clock_us;
    state.apply(state.index + 1, &later).0.outcome.unwrap();
    let mut again = command(Body::CreateCredentials([own("again", 1)].into()));
    again.stamp.clock_us = clock_us;
    assert!(state.apply(state.index + 1, &again).0.outcome.is_ok());
}
