//! What a change costs when there are 10,000 routes: it must follow what changes, not what exists.

use std::sync::Arc;

use divan::{Bencher, black_box};
use quorumgate_model::{
    LEVEL, change,
    command::{
        Actor, Body, Bootstrap, ChangeResources, Command, Expect, NodeRecord, ResourceChange, Role, Stamp, Standing,
    },
    resource::{Resource, Upstream},
    snapshot,
    state::State,
    timing::MAX_RTT_DEFAULT,
};
use serde_json::json;

const ROUTES: usize = 10_000;

fn main() {
    divan::main();
}

fn command(body: Body) -> Command {
    let actor = Arc::new(Actor::default());
    Command { min_level: LEVEL, request_id: None, asked: None, stamp: Stamp::default(), actor, body }
}

fn write(resource: Resource) -> ResourceChange {
    ResourceChange { key: resource.key(), after: Some(resource), expect: Expect::Anything }
}

fn upstream() -> ResourceChange {
    let words = json!({ "name": "x", "targets": ["127.0.0.1:80"] });
    write(Resource::Upstream(Arc::new(serde_json::from_value::<Upstream>(words).expect("an upstream"))))
}

fn route(n: usize, description: &str) -> ResourceChange {
    let path = format!("/service-{n}/orders");
    let hosts = [format!("h{}.test", n % 100)];
    let words = json!({
        "name": format!("route-{n}"), "description": description, "upstream": "x",
        "match": { "hosts": hosts, "path_prefix": path, "methods": ["GET", "POST"] },
    });
    write(Resource::Route(Arc::new(serde_json::from_value(words).expect("a route"))))
}

fn change(changes: Vec<ResourceChange>) -> Command {
    command(Body::ChangeResources(ChangeResources { changes: changes.into(), ..Default::default() }))
}

fn empty() -> State {
    let node = NodeRecord {
        id: 1,
        name: "n1".parse().expect("a name"),
        region: String::new(),
        peer_address: "127.0.0.1:7000".into(),
        incarnation: [0; 16],
        spki_sha256: [0; 32],
        wanted_role: Role::Voter,
        standing: Standing::Active,
        level: LEVEL,
        version: String::new(),
    };
    let bootstrap = Bootstrap {
        cluster_id: [0; 16],
        cluster_name: "bench".into(),
        max_rtt: MAX_RTT_DEFAULT,
        ca_certificate: vec![],
        sealed_ca_key: vec![],
        node,
    };
    let mut state = State::default();
    state.apply(1, &command(Body::Bootstrap(Arc::new(bootstrap)))).0.outcome.expect("bootstrapped");
    state
}

fn everything() -> Command {
    change(std::iter::once(upstream()).chain((0..ROUTES).map(|n| route(n, ""))).collect())
}

fn full() -> State {
    let mut state = empty();
    state.apply(2, &everything()).0.outcome.expect("10,000 routes");
    state
}

#[divan::bench]
fn one_route_of_10k(bencher: Bencher) {
    let (state, command) = (full(), change(vec![route(4_321, "changed")]));
    bencher.with_inputs(|| state.clone()).bench_local_values(|mut state| {
        assert!(state.apply(3, black_box(&command)).1.diff.is_some());
        state
    });
}

#[divan::bench]
fn refused_deletion_of_10k_uses(bencher: Bencher) {
    let change = ResourceChange { after: None, ..upstream() };
    let (state, command) = (full(), self::change(vec![change]));
    bencher.with_inputs(|| state.clone()).bench_local_values(|mut state| {
        assert!(state.apply(3, black_box(&command)).0.outcome.is_err());
        state
    });
}

#[divan::bench]
fn all_10k_routes_at_once(bencher: Bencher) {
    let (state, command) = (empty(), everything());
    bencher.with_inputs(|| state.clone()).bench_local_values(|mut state| {
        assert!(state.apply(2, black_box(&command)).1.diff.is_some());
        state
    });
}

#[divan::bench]
fn all_10k_routes_again_as_they_are(bencher: Bencher) {
    let (state, command) = (full(), everything());
    bencher.with_inputs(|| state.clone()).bench_local_values(|mut state| {
        assert!(state.apply(3, black_box(&command)).1.diff.is_none());
        state
    });
}

#[divan::bench]
fn between_two_revisions(bencher: Bencher) {
    let before = full();
    let mut after = before.clone();
    after.apply(3, &change(vec![route(4_321, "changed")]));
    bencher.bench_local(|| change::between(black_box(&before.resources), black_box(&after.resources)));
}

#[divan::bench]
fn hash_of_the_state(bencher: Bencher) {
    let state = full();
    bencher.bench_local(|| black_box(&state).hash());
}

#[divan::bench]
fn snapshot_there_and_back(bencher: Bencher) {
    let state = full();
    bencher.bench_local(|| {
        let mut rebuild = snapshot::Rebuild::default();
        for record in snapshot::records(&state) {
            rebuild.push(record).expect("our own record");
        }
        rebuild.finish().expect("our own snapshot")
    });
}
