//! What a look-up costs among a million keys and ten million revocations, made by the real apply. `main` also prints what
//! they take of memory, everything included: the state, its maps, the proxy's tables.

use std::{
    cell::Cell,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use divan::{Bencher, black_box};
use quorumgate_model::{
    LEVEL,
    command::{
        Actor, Body, Bootstrap, ChangeResources, Command, Expect, NewCredential, NewRevocation, NodeRecord,
        ResourceChange, Revoke, Role, Stamp, Standing,
    },
    credential::CredentialKind,
    resource::Resource,
    revocation::{SelectorKind, SelectorParts},
    state::{BATCH_MAX, State},
    timing::MAX_RTT_DEFAULT,
};
use quorumgate_proxy::identity::{
    RevocationSubject, TokenMarks,
    directory::{Directory, Opened},
    keys::key_hash,
};

/// That of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 1_000_000;
const REVOCATIONS: usize = 10_000_000;
const PEPPER: [u8; 32] = [7; 32];

struct World {
    directory: Directory,
    state: State,
}

static WORLD: LazyLock<World> = LazyLock::new(build);

fn main() {
    LazyLock::force(&WORLD);
    divan::main();
}

fn apply(state: &mut State, body: Body) {
    let actor = Arc::new(Actor::default());
    let stamp = Stamp { clock_us: 1_000_000, wall_ms: 0 };
    let command = Command { min_level: LEVEL, request_id: None, asked: None, stamp, actor, body };
    state.apply(state.index + 1, &command).0.outcome.expect("a good command");
}

fn founded() -> State {
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
    apply(&mut state, Body::Bootstrap(Arc::new(bootstrap)));
    let words = serde_json::json!({ "name": "acme" });
    let acme = Resource::Consumer(Arc::new(serde_json::from_value(words).expect("a consumer")));
    let changes = [ResourceChange { key: acme.key(), after: Some(acme), expect: Expect::Anything }];
    apply(&mut state, Body::ChangeResources(ChangeResources { changes: changes.into(), ..Default::default() }));
    state
}

fn key_text(n: usize) -> String {
    format!("qg_live_{:033}_{:08x}", n as u128 * 0x9E37_79B9_7F4A_7C15_F39C, n)
}

fn jti(n: usize) -> String {
    format!("{:032x}", n as u128 * 0x9E37_79B9_7F4A_7C15_F39C)
}

fn keys(from: usize) -> Body {
    let new = |n| {
        let hash = key_hash(&PEPPER, &key_text(n));
        let (id, kind) = CredentialKind::api_key(&hash, *b"aBcDeF12").expect("not zeros");
        let consumer = "acme".parse().expect("a name");
        NewCredential { id, consumer, kind, grants: None, ttl: None, keys_max: None }
    };
    Body::CreateCredentials((from..from + BATCH_MAX).map(new).collect())
}

fn revocations(from: usize) -> Body {
    let new = |n| {
        let (kind, value) = (SelectorKind::Jti, jti(n));
        let parts = SelectorParts { kind, issuer: b"https://idp.test", value: value.as_bytes() };
        let selector = parts.checked().expect("a selector");
        NewRevocation { selector, ttl: Duration::from_secs(86_400), not_before_s: None }
    };
    let entries = (from..from + BATCH_MAX).map(new).collect();
    Body::Revoke(Revoke { entries, reason: "leaked".into() })
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn build() -> World {
    let directory = Directory::default();
    let opened = Arc::new(Opened { pepper: Some(PEPPER), ..Opened::default() });
    let mut state = founded();
    let mut load = |what: &str, count: usize, batch: &dyn Fn(usize) -> Body| {
        let (before, began) = (resident_bytes(), Instant::now());
        let mut published = Duration::ZERO;
        for from in (0..count).step_by(BATCH_MAX) {
            // As the node does: the published state is still held while the next entry is applied.
            let mut next = state.clone();
            apply(&mut next, batch(from));
            state = next;
            let at = Instant::now();
            directory.publish(&state, opened.clone());
            published += at.elapsed();
        }
        let took = began.elapsed();
        // What the allocator does not use goes back to the system a second later, when it is asked for more.
        std::thread::sleep(Duration::from_secs(2));
        drop(vec![1u8; 1 << 20]);
        let bytes = resident_bytes().saturating_sub(before) / count;
        println!(
            "{count} {what} in batches of {BATCH_MAX}: {took:.1?}, of it publishing {published:.1?}; {bytes} bytes each"
        );
    };
    load("keys", KEYS, &keys);
    load("revocations", REVOCATIONS, &revocations);
    let began = Instant::now();
    println!("state hash {}: {:.1?}", state.hash(), began.elapsed());
    World { directory, state }
}

fn subject(n: usize) -> RevocationSubject {
    let marks = TokenMarks {
        issuer: Some("https://idp.test".into()),
        jti: Some(jti(n).into()),
        subject: Some("somebody".into()),
        client: Some("web".into()),
        kid: Some("k1".into()),
        issued_at: Some(1),
        ..TokenMarks::default()
    };
    RevocationSubject { token: Some(Arc::new(marks)), ..Default::default() }
}

/// What is asked is made just before, as a request's is; the tables are cold.
fn asked<T, R>(bencher: Bencher<'_, '_>, make: impl Fn(usize) -> T, ask: impl Fn(&T) -> R) {
    let at = Cell::new(0);
    let next = || {
        at.set(at.get() + 97);
        make(at.get())
    };
    bencher.with_inputs(next).bench_local_refs(|it| ask(black_box(it)));
}

#[divan::bench(sample_count = 1_000, sample_size = 50)]
fn a_key_of_a_million(bencher: Bencher<'_, '_>) {
    assert!((0..KEYS).step_by(1_000).all(|n| WORLD.directory.keys.find(&key_text(n)).is_some()));
    asked(bencher, |n| key_text(n % KEYS), |text| WORLD.directory.keys.find(text));
}

#[divan::bench(sample_count = 1_000, sample_size = 50)]
fn a_key_that_is_unknown(bencher: Bencher<'_, '_>) {
    asked(bencher, |n| key_text(KEYS * 2 + n), |text| WORLD.directory.keys.find(text));
}

#[divan::bench(sample_count = 1_000, sample_size = 50)]
fn a_token_that_is_not_revoked_of_ten_million(bencher: Bencher<'_, '_>) {
    asked(bencher, |n| subject(REVOCATIONS * 2 + n), |it| WORLD.directory.is_revoked(it));
}

#[divan::bench(sample_count = 1_000, sample_size = 50)]
fn a_token_that_is_revoked_of_ten_million(bencher: Bencher<'_, '_>) {
    assert!((0..REVOCATIONS).step_by(10_000).all(|n| WORLD.directory.is_revoked(&subject(n)).is_some()));
    asked(bencher, |n| subject(n % REVOCATIONS), |it| WORLD.directory.is_revoked(it));
}

/// A batch more, and a batch less, seen by every worker.
#[divan::bench(sample_count = 100)]
fn a_thousand_revocations_are_published(bencher: Bencher<'_, '_>) {
    let opened = Arc::new(Opened { pepper: Some(PEPPER), ..Opened::default() });
    let mut next = WORLD.state.clone();
    apply(&mut next, revocations(REVOCATIONS * 3));
    let turn = Cell::new(false);
    bencher.bench_local(|| {
        turn.set(!turn.get());
        let state = if turn.get() { &next } else { &WORLD.state };
        WORLD.directory.publish(black_box(state), opened.clone());
    });
}
