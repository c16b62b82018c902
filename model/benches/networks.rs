//! A policy of a million networks: what a look-up in it costs, and what making it ready does.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, LazyLock},
};

use divan::{Bencher, black_box, counter::ItemsCount};
use ipnet::IpNet;
use quorumgate_model::{
    change,
    resource::{IP_NETS_MAX, IpPolicy, Kind, Nets, Place, Places, Policy, PolicyKind, Resource},
    ruleset::{Rule, Ruleset},
    state::State,
};
use serde_json::json;

const LOOKUPS: usize = 4_096;

static RULES: LazyLock<Ruleset> = LazyLock::new(|| Ruleset::compile(&state(), None));
static NETS: LazyLock<Vec<IpNet>> = LazyLock::new(nets);

fn main() {
    LazyLock::force(&RULES);
    divan::main();
}

/// Each in another place, of /20 to /32, spread over all of IPv4.
fn nets() -> Vec<IpNet> {
    let spread = |n: u32| n.wrapping_mul(2_654_435_761);
    let net = |n: u32| IpNet::new(Ipv4Addr::from(spread(n)).into(), 20 + (n % 13) as u8).map(|it| it.trunc());
    (0..IP_NETS_MAX as u32).filter_map(|n| net(n).ok()).collect()
}

fn state() -> State {
    let deny = Nets::new("deny", NETS.clone()).expect("as many as there may be");
    let kind = PolicyKind::Ip(IpPolicy { allow: Nets::default(), deny, places: Places::default() });
    let name = "bad-nets".parse().expect("a name");
    let (labels, owner, description) = Default::default();
    let policy = Resource::Policy(Arc::new(Policy { name, labels, owner, description, kind }));
    let route = json!({ "name": "r", "match": { "path_prefix": "/" }, "respond": {}, "policies": ["bad-nets"] });
    let route = Kind::Route.parse(route).expect("a route");
    let mut state = State::default();
    for resource in [policy, route] {
        state.resources.insert(resource.key(), change::stored(resource));
    }
    state
}

#[divan::bench]
fn look_up(bencher: Bencher<'_, '_>) {
    let rule: &Arc<Rule> = RULES.rules.values().next().expect("the route");
    let mut address = 1u32;
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        for _ in 0..LOOKUPS {
            address = address.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            black_box(RULES.shut_out(rule, IpAddr::V4(address.into()), |_| Place::default()));
        }
    });
}

#[divan::bench(sample_count = 10)]
fn sort_a_million(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(|| NETS.clone()).bench_values(|nets| Nets::new("deny", nets).expect("as many as there may be"));
}

#[divan::bench(sample_count = 10)]
fn compile_a_million(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(state).bench_values(|state| Ruleset::compile(&state, None));
}
