//! What one decision of a limit costs that is held by the whole cluster, beside the crate `governor`, which holds its own for
//! one process. `main` also prints what a million keys take of memory, everything included: the holder's accounts, the
//! leases, the table that workers look into; and what they would take of the replicated state if nodes had outgrown them all.
//! `cargo bench -p quorumgate-proxy --bench limits --features governor`
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark reads the clock")]

use std::{
    hint::black_box,
    num::NonZeroU32,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use divan::Bencher;
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use quorumgate_model::{
    digest::Digest,
    ledger::{
        Ledger,
        command::{Key, Kind, LeaseBatch, LeaseItem, LedgerCommand, Mode, NoQuorum, OpenSession, Rule},
        holder::{Holder, Outgoing},
        lease::Lease,
    },
    resource::{Limit, Name, Resource, Stored},
    state::State,
};
use quorumgate_proxy::{Limits, freshness::boottime_ns};

/// That of the binary: what a key takes depends on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 1_000_000;
/// More than any run asks for in a window, so that every decision admits.
const SLOTS: u32 = 200_000_000;
/// Longer than any run.
const SESSION_US: u64 = 1_000_000_000_000;
/// Decisions that are timed one by one.
const TIMED: usize = 1_000_000;
/// Nodes that hold something of each key in the ledger.
const NODES: u64 = 3;
/// Of how many keys one entry speaks: so few that what the last entries did, which is kept for holders, weighs nothing.
const KEYS_AT_ONCE: usize = 64;

struct World {
    limits: Arc<Limits>,
    name: Name,
    lease: Arc<Lease>,
    governor: DefaultKeyedRateLimiter<String>,
    keys: Vec<String>,
}

static WORLD: LazyLock<World> = LazyLock::new(build);

fn main() {
    LazyLock::force(&WORLD);
    percentiles();
    divan::main();
}

fn now_us() -> u64 {
    boottime_ns() / 1_000
}

fn build() -> World {
    let words = serde_json::json!({ "name": "free", "per": "consumer", "limit": SLOTS, "window": "1m" });
    let limit: Limit = serde_json::from_value(words).expect("a limit");
    let resource = Resource::Limit(Arc::new(limit));
    let mut state = State::default();
    state.resources.insert(resource.key(), Stored { resource: resource.clone(), etag: Digest([0; 32]) });
    let rule = Rule {
        name: resource.key().name,
        kind: Kind::Sliding { limit: SLOTS.into(), window_us: 60_000_000 },
        mode: Mode::Leased,
        on_no_quorum: NoQuorum::Deny,
    };
    state.ledger.apply(1, &LedgerCommand::DefineLimit(rule));
    let id = state.ledger.version;
    state.ledger.apply(1, &LedgerCommand::ShareEpoch { divisor: 1 });
    let mut holder = Holder::start(1, [1; 16], SESSION_US, &state.ledger, now_us());
    let Some(Outgoing::Open(open)) = holder.poll(now_us()) else { panic!("a session first") };
    let effects = state.ledger.apply(1, &LedgerCommand::OpenSession(open));
    holder.applied(&state.ledger, &effects, now_us());
    let lease = holder.lease(&Key { limit: id, who: "hot".into() }, now_us()).expect("the limit is known");
    let limits = Arc::new(Limits::default());
    limits.publish(&state);
    limits.attach(holder);

    let keys: Vec<String> = (0..KEYS).map(|n| format!("consumer-{n:07}")).collect();
    let name = resource.key().name;
    let (before, began) = (resident_bytes(), Instant::now());
    for key in &keys {
        assert_eq!(limits.decide(&name, key, 1), Some(true));
    }
    let (first, ours) = (began.elapsed(), resident_bytes() - before);
    let before = resident_bytes();
    let governor = RateLimiter::keyed(quota());
    for key in &keys {
        assert!(governor.check_key(key).is_ok());
    }
    let theirs = resident_bytes() - before;
    println!(
        "{KEYS} keys, each asked for once: {} bytes a key, {} ns for the first decision of each; governor {} bytes a key",
        ours / KEYS as u64,
        first.as_nanos() / KEYS as u128,
        theirs / KEYS as u64
    );
    println!("{KEYS} keys in the ledger, of {NODES} nodes each: {} bytes a key", bytes_of_ledger(&keys) / KEYS as u64);
    World { limits, name, lease, governor, keys }
}

/// Of keys that are in the replicated state, each with what every node holds of it.
fn bytes_of_ledger(keys: &[String]) -> u64 {
    let before = resident_bytes();
    let mut ledger = Ledger::default();
    let kind = Kind::Sliding { limit: SLOTS.into(), window_us: 60_000_000 };
    let name = "free".parse().expect("a name");
    let rule = Rule { name, kind, mode: Mode::Leased, on_no_quorum: NoQuorum::Deny };
    ledger.apply(0, &LedgerCommand::DefineLimit(rule));
    let limit = ledger.version;
    for node in 1..=NODES {
        let open = OpenSession { node, boot: [node as u8; 16], open: 1, length_us: SESSION_US };
        ledger.apply(0, &LedgerCommand::OpenSession(open));
    }
    let session = ledger.version;
    ledger.apply(0, &LedgerCommand::ShareEpoch { divisor: NODES });
    for (keys, seq) in keys.chunks(KEYS_AT_ONCE).zip(1..) {
        let ask = |who: &String| {
            let key = Key { limit, who: who.as_str().into() };
            LeaseItem { demand: 1_000, want: 1, ..LeaseItem::of(key) }
        };
        let (items, applied) = (keys.iter().map(ask).collect(), ledger.version);
        let batch = LeaseBatch { node: NODES, session, seq, attempt: 0, applied, items, wall_ahead_us: 0 };
        ledger.apply(0, &LedgerCommand::Batches([batch].into()));
    }
    assert_eq!(ledger.keys.len(), keys.len());
    resident_bytes() - before
}

fn quota() -> Quota {
    Quota::per_minute(NonZeroU32::new(SLOTS).expect("not zero"))
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split_ascii_whitespace().nth(1).and_then(|it| it.parse().ok()).expect("a number of pages");
    pages * 4_096
}

/// One by one, with the cost of reading the clock beside them: it is part of every figure.
fn percentiles() {
    let world = &*WORLD;
    let next = AtomicU64::new(1);
    let some = || &world.keys[scattered(&next)];
    timed("reading the clock alone", || {});
    timed("take, one key", || _ = black_box(world.lease.take(1, black_box(now_us()))));
    timed("decide, one key", || _ = black_box(world.limits.decide(&world.name, &world.keys[7], 1)));
    timed("governor keyed, one key", || _ = black_box(world.governor.check_key(&world.keys[7])));
    timed("decide, a million keys", || _ = black_box(world.limits.decide(&world.name, some(), 1)));
    timed("governor keyed, a million keys", || _ = black_box(world.governor.check_key(some())));
}

fn timed(what: &str, mut run: impl FnMut()) {
    let mut all: Vec<u64> = (0..TIMED)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed().as_nanos() as u64
        })
        .collect();
    all.sort_unstable();
    let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
    println!("{what}: p50 {} ns, p99 {} ns, p99.9 {} ns", at(0.5), at(0.99), at(0.999));
}

/// Keys in no order that a cache could follow.
fn scattered(next: &AtomicU64) -> usize {
    let n = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n >> 32) as usize % KEYS
}

/// The node's own count of a handle that a worker has, with a clock that was read already.
#[divan::bench(sample_count = 1_000, sample_size = 10_000)]
fn take(bencher: Bencher) {
    let (lease, now) = (&WORLD.lease, now_us());
    bencher.bench(|| lease.take(1, black_box(now)).is_ok());
}

#[divan::bench(sample_count = 1_000, sample_size = 10_000)]
fn take_and_the_clock(bencher: Bencher) {
    let lease = &WORLD.lease;
    bencher.bench(|| lease.take(1, now_us()).is_ok());
}

#[divan::bench(sample_count = 1_000, sample_size = 10_000, threads = [2])]
fn take_contended(bencher: Bencher) {
    let (lease, now) = (&WORLD.lease, now_us());
    bencher.bench(|| lease.take(1, black_box(now)).is_ok());
}

/// It reads its clock itself.
#[divan::bench(sample_count = 1_000, sample_size = 10_000)]
fn governor_direct(bencher: Bencher) {
    let governor: DefaultDirectRateLimiter = RateLimiter::direct(quota());
    bencher.bench(|| governor.check());
}

/// One key, looked up as a worker does, with the clock.
#[divan::bench(sample_count = 1_000, sample_size = 10_000)]
fn decide_one_key(bencher: Bencher) {
    bencher.bench(|| WORLD.limits.decide(&WORLD.name, &WORLD.keys[7], 1));
}

#[divan::bench(sample_count = 1_000, sample_size = 10_000)]
fn governor_keyed_one_key(bencher: Bencher) {
    bencher.bench(|| WORLD.governor.check_key(&WORLD.keys[7]));
}

#[divan::bench(sample_count = 1_000, sample_size = 10_000, threads = [2])]
fn decide_contended(bencher: Bencher) {
    bencher.bench(|| WORLD.limits.decide(&WORLD.name, &WORLD.keys[7], 1));
}

#[divan::bench(sample_count = 1_000, sample_size = 10_000, threads = [2])]
fn governor_keyed_contended(bencher: Bencher) {
    bencher.bench(|| WORLD.governor.check_key(&WORLD.keys[7]));
}

#[divan::bench(sample_count = 1_000, sample_size = 10_000)]
fn decide_a_million_keys(bencher: Bencher) {
    let next = AtomicU64::new(1);
    bencher.bench(|| WORLD.limits.decide(&WORLD.name, &WORLD.keys[scattered(&next)], 1));
}

#[divan::bench(sample_count = 1_000, sample_size = 10_000)]
fn governor_keyed_a_million_keys(bencher: Bencher) {
    let next = AtomicU64::new(1);
    bencher.bench(|| WORLD.governor.check_key(&WORLD.keys[scattered(&next)]));
}
