//! Who uses the cluster: proposals with their outcomes, and clients that add to sets and read them at any member.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use openraft::{
    ReadPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, RaftError},
};
use quorumgate_model::{
    NodeId,
    command::{Applied, Body, NewRevocation, Revoke},
    revocation::{Selector, SelectorKind, SelectorParts},
    state::State,
};
use tokio::time::{sleep, timeout};

use super::{
    HEARTBEAT, PATIENCE, Shared,
    history::{Outcome, Set},
    host::{Host, command},
};
use crate::tests::rng::Rng;

/// How many are open at a time. Each has a history of its own: what is linearizable one by one is so together (Herlihy
/// and Wing 1990).
pub const SETS: usize = 24;
/// Of how many operations one is a read.
const READS: u64 = 4;
const PAUSE_US_MAX: u64 = 4_000;

/// What whoever proposed something was told.
pub enum Told {
    Done(Applied),
    /// Certainly not, and never.
    Refused,
    Unknown,
}

fn element(set: usize, number: usize) -> Selector {
    let value = format!("{set}-{number}");
    SelectorParts { kind: SelectorKind::Jti, issuer: b"", value: value.as_bytes() }.checked().unwrap()
}

fn added(selector: Selector) -> Body {
    let entry = NewRevocation { selector, ttl: Duration::from_secs(3_600), not_before_s: None };
    Body::Revoke(Revoke { entries: [entry].into(), reason: String::new() })
}

fn seen(state: &State, set: &Set) -> Vec<bool> {
    set.keys.iter().map(|key| state.revocations.get(key).is_some()).collect()
}

impl Shared {
    /// Whether this very process still does.
    pub fn runs(&self, host: &Host) -> bool {
        self.net.lines().hosts.get(&host.id).is_some_and(|now| now.started == host.started)
    }

    /// Whoever this member takes for the leader.
    pub fn leader_by(&self, one: NodeId) -> Option<Host> {
        let leader = self.net.host(one).ok()?.raft.metrics().borrow_watched().current_leader?;
        self.net.host(leader).ok()
    }

    pub async fn propose(&self, leader: &Host, body: Body) -> Told {
        let Some(stamp) = leader.stamp() else { return Told::Refused };
        match timeout(PATIENCE, leader.raft.client_write(command(stamp, body))).await {
            Ok(Ok(response)) => Told::Done(response.data.expect("a command is answered")),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Told::Refused,
            Ok(Err(_)) | Err(_) => Told::Unknown,
        }
    }

    fn next_of(&self, set: usize) -> (usize, Selector) {
        let mut sets = self.sets.lock().unwrap();
        let number = sets.all[set].history.add();
        let selector = element(set, number);
        sets.all[set].keys.push(selector.key());
        (number, selector)
    }

    async fn add(&self, leader: &Host, set: usize) -> Outcome {
        let (number, selector) = self.next_of(set);
        let told = self.propose(leader, added(selector)).await;
        let mut sets = self.sets.lock().unwrap();
        let history = &mut sets.all[set].history;
        match told {
            Told::Done(applied) if applied.outcome.is_ok() => history.done(number),
            Told::Done(applied) => panic!("a revocation was answered {applied:?}"),
            Told::Refused => history.refused(number),
            Told::Unknown => {}
        }
        history.adds[number].outcome
    }

    /// By an index that the leader names, at any member.
    async fn read(&self, leader: &Host, at: &Host, set: usize) {
        let called = self.sets.lock().unwrap().all[set].history.tick();
        let linearizer = timeout(PATIENCE, leader.raft.get_read_linearizer(ReadPolicy::ReadIndex)).await;
        let Ok(Ok(linearizer)) = linearizer else { return };
        let index = linearizer.read_log_id().index();
        let mut states = at.states.clone();
        let state: Arc<State> = match timeout(PATIENCE, states.wait_for(|state| state.index >= index)).await {
            Ok(Ok(state)) => state.clone(),
            _ => return,
        };
        let mut sets = self.sets.lock().unwrap();
        let set = &mut sets.all[set];
        let seen = seen(&state, set);
        set.history.read(called, seen);
    }
}

pub async fn client(shared: Shared, mut rng: Rng) {
    while !shared.quiet.load(Ordering::Relaxed) {
        sleep(Duration::from_micros(rng.below(PAUSE_US_MAX))).await;
        let (Some(one), Some(other)) = (shared.net.anybody(&mut rng), shared.net.anybody(&mut rng)) else { continue };
        let Some(leader) = shared.leader_by(one.id) else { continue };
        let set = shared.sets.lock().unwrap().at(rng.below(SETS as u64) as usize);
        if rng.chance(READS) {
            shared.read(&leader, &other, set).await;
        } else {
            shared.add(&leader, set).await;
        }
    }
}

/// Written and read once more when all is mended, in each set.
pub async fn last_word(shared: Shared) {
    for place in 0..SETS {
        let set = shared.sets.lock().unwrap().at(place);
        loop {
            let Some(leader) = shared.any_leader() else {
                sleep(HEARTBEAT).await;
                continue;
            };
            if matches!(shared.add(&leader, set).await, Outcome::Done(_)) {
                shared.read(&leader, &leader, set).await;
                break;
            }
            sleep(HEARTBEAT).await;
        }
    }
}
