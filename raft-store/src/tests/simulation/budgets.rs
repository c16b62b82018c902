//! What the cluster lends: limits, holders on every member as `node` drives them, clients that spend, and an auditor who
//! knows nothing of slots. Windows are of real time, whatever members' clocks show.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorumgate_model::{
    command::{Body, ChangeResources, Expect, ResourceChange, Standing},
    ledger::{
        Lease, Ledger,
        command::{Key, LedgerCommand},
        holder::{Holder, Outgoing, POLL_EVERY_US},
    },
    resource::{Limit, LimitCost, LimitKind, LimitMode, LimitPart, OnNoQuorum, Resource},
    units::Span,
};
use tokio::time::{Instant, sleep, timeout};

use super::{Shared, host::Host};
use crate::tests::rng::Rng;

const WINDOW: Duration = Duration::from_secs(2);
/// It outlasts an election, not many of them.
const SESSION_US: u64 = 3_000_000;
const SEND_MAX: Duration = Duration::from_millis(650);
const LOOK: Duration = Duration::from_millis(5);
const POLL_EVERY: Duration = Duration::from_millis(20);
const LED_EVERY: Duration = Duration::from_micros(POLL_EVERY_US);
const EPOCH_EVERY: Duration = Duration::from_millis(200);
/// Of each limit.
const KEYS: u64 = 2;
/// Name, slots a window, mode.
const LIMITS: [(&str, u64, LimitMode); 3] =
    [("wide", 400, LimitMode::Leased), ("tiny", 3, LimitMode::Leased), ("exact", 40, LimitMode::Exact)];

/// When each was let in, microseconds of real time, by limit and key.
pub type Admitted = BTreeMap<(usize, u64), Vec<u64>>;

pub fn limits() -> Body {
    let changes = LIMITS.map(|(name, limit, mode)| {
        let limit = Resource::Limit(Arc::new(Limit {
            name: name.parse().unwrap(),
            labels: BTreeMap::new(),
            owner: String::new(),
            description: String::new(),
            per: vec![LimitPart::Consumer],
            plans: Vec::new(),
            kind: LimitKind::Sliding { limit, window: Span(WINDOW) },
            mode,
            cost: LimitCost::Fixed(1),
            on_no_quorum: OnNoQuorum::Deny,
            exceeded_status: 429,
            soft: false,
            grant_wait: Span::secs(1),
        }));
        ResourceChange { key: limit.key(), after: Some(limit), expect: Expect::Anything }
    });
    Body::ChangeResources(ChangeResources { changes: changes.into(), keeps_counters: true, ..Default::default() })
}

/// One process's part in the budgets, while it lives.
pub async fn hold(shared: Shared, host: Host, mut rng: Rng) {
    let mut states = host.states.clone();
    if states.wait_for(|state| state.nodes.contains_key(&host.id)).await.is_err() {
        return;
    }
    let mut boot = [0; 16];
    boot[..8].copy_from_slice(&rng.next().to_le_bytes());
    let mut holder = Holder::start(host.id, boot, SESSION_US, &host.state().ledger, host.clock.now_us());
    let sending = Arc::new(AtomicBool::new(false));
    let mut polled = Instant::now();
    let mut leases: BTreeMap<Key, Arc<Lease>> = BTreeMap::new();
    while shared.runs(&host) {
        sleep(LOOK).await;
        let (now_us, state) = (host.clock.now_us(), host.state());
        if state.ledger.version != holder.ledger().version {
            match state.ledger.effects_since(holder.ledger().version) {
                Some(effects) => holder.applied(&state.ledger, &effects, now_us),
                None => {
                    shared.counts.resynced.fetch_add(1, Ordering::Relaxed);
                    holder.resync(&state.ledger, now_us);
                }
            }
        }
        if state.nodes.get(&host.id).is_some_and(|node| node.standing == Standing::Leaving) {
            holder.drain();
        }
        if polled.elapsed() >= POLL_EVERY && !sending.load(Ordering::Relaxed) {
            polled = Instant::now();
            if let Some(outgoing) = holder.poll(now_us) {
                sending.store(true, Ordering::Relaxed);
                tokio::spawn(send(shared.clone(), host.clone(), outgoing, sending.clone(), rng.chance(8)));
            }
        }
        spend(&shared, &host, &mut holder, &mut leases, &mut rng);
    }
}

/// As a worker does: a lease that has given way is looked up anew.
fn spend(shared: &Shared, host: &Host, holder: &mut Holder, leases: &mut BTreeMap<Key, Arc<Lease>>, rng: &mut Rng) {
    let (now_us, real_us) = (host.clock.now_us(), host.clock.real_us());
    for (number, (name, ..)) in LIMITS.iter().enumerate() {
        let Some(limit) = holder.ledger().limit_named(name).map(|limit| limit.id) else { return };
        let who = rng.below(KEYS);
        let key = Key { limit, who: who.to_string().into() };
        if leases.get(&key).is_none_or(|lease| lease.is_retired()) {
            let Some(lease) = holder.lease(&key, now_us) else { continue };
            leases.insert(key.clone(), lease);
        }
        let lease = &leases[&key];
        match lease.take(1, now_us) {
            Ok(_) => shared.admitted.lock().unwrap().entry((number, who)).or_default().push(real_us),
            Err(_) => holder.signal(&key),
        }
    }
}

/// What did not arrive is sent again by the holder; some of what did arrive comes twice.
async fn send(shared: Shared, host: Host, outgoing: Outgoing, sending: Arc<AtomicBool>, twice: bool) {
    let command = match outgoing {
        Outgoing::Open(open) => LedgerCommand::OpenSession(open),
        Outgoing::Batch(batch) => LedgerCommand::Batches(Arc::new([batch])),
    };
    if twice {
        tokio::spawn(late(shared.clone(), host.clone(), command.clone()));
    }
    let _ = timeout(SEND_MAX, carry(&shared, &host, command)).await;
    sending.store(false, Ordering::Relaxed);
}

async fn late(shared: Shared, host: Host, command: LedgerCommand) {
    let late = Duration::from_micros(shared.net.lines().rng.below(2_000_000));
    sleep(late).await;
    carry(&shared, &host, command).await;
}

async fn carry(shared: &Shared, host: &Host, command: LedgerCommand) {
    let Some(leader) = shared.leader_by(host.id) else { return };
    if leader.id == host.id || shared.net.pass(host.id, leader.id).await.is_ok() {
        shared.propose(&leader, Body::Ledger(command)).await;
    }
}

/// What time, and nobody else, asks of the ledger: the leader's part.
pub async fn keep_time(shared: Shared, host: Host) {
    let mut asked: Option<Instant> = None;
    while shared.runs(&host) {
        sleep(LED_EVERY).await;
        let Some(stamp) = host.stamp() else { continue };
        let state = host.state();
        assert_whole(&state.ledger);
        let divisor = state.ledger.wanted_divisor();
        if divisor != state.ledger.epoch.divisor && asked.is_none_or(|at| at.elapsed() >= EPOCH_EVERY) {
            asked = Some(Instant::now());
            shared.propose(&host, Body::Ledger(LedgerCommand::ShareEpoch { divisor })).await;
        } else if state.ledger.due_us().is_some_and(|at| at <= stamp.clock_us) {
            shared.propose(&host, Body::Ledger(LedgerCommand::Tick)).await;
        }
    }
}

/// The ledger's own assertions mark the limit that they fail for.
pub fn assert_whole(ledger: &Ledger) {
    let broken = ledger.limits.values().find_map(|limit| Some((&limit.rule.name, limit.broken.as_ref()?)));
    assert_eq!(broken, None, "a limit is broken");
}

/// No window of any key is over its limit.
pub fn audit(admitted: &Admitted) -> Result<(), String> {
    let window_us = WINDOW.as_micros() as u64;
    for ((limit, key), times) in admitted {
        let (name, most, _) = LIMITS[*limit];
        let mut times = times.clone();
        times.sort_unstable();
        let over = times.windows(most as usize + 1).find(|span| span[most as usize] - span[0] < window_us);
        if let Some(span) = over {
            let (from, to) = (span[0], span[most as usize]);
            return Err(format!("{name}: over {most} of key {key} from {from} to {to} µs"));
        }
    }
    Ok(())
}

#[test]
fn a_window_over_its_limit_is_noticed() {
    let tiny = |times: &[u64]| audit(&Admitted::from([((1, 0), times.to_vec())]));
    assert_eq!(tiny(&[0, 10, 20, 2_000_000]), Ok(()));
    assert!(tiny(&[1_999_999, 0, 10, 20]).is_err());
}
