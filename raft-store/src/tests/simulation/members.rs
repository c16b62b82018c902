//! Who belongs to the cluster: the leader's round, which carries out the model's plan as `node` does, and operators, who let
//! nodes in, remove them and ask them to leave.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use openraft::{ChangeMembers, Precondition};
use quorumgate_model::{
    LEVEL, NodeId,
    command::{AdmitNode, Body, Bootstrap, CreateJoinToken, NodeRecord, Role, Standing, UpdateNode},
    digest::Digest,
    membership::{self, Step},
};
use tokio::time::{sleep, timeout};

use super::{
    ELECTION_MAX, HEARTBEAT, PATIENCE, Shared, Told,
    host::{Glance, Host, command},
};
use crate::{Denied, RaftNode};

/// For one membership step; a change that was left half-way is finished by the next round.
const STEP_MAX: Duration = Duration::from_secs(2);
const LET_KNOW_MAX: Duration = Duration::from_millis(600);
const TOKEN: &str = "join";

/// What a disk is made for: the machine's number, which no other has.
pub fn incarnation(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

pub fn member(record: &NodeRecord) -> RaftNode {
    let (name, address) = (record.name.to_string(), record.peer_address.clone());
    RaftNode { name, address, incarnation: record.incarnation }
}

/// The record of a node that asks to be let in; its id is 0.
pub fn record(number: u64) -> NodeRecord {
    NodeRecord {
        id: 0,
        name: format!("n{number}").parse().unwrap(),
        region: String::new(),
        peer_address: format!("n{number}:7000"),
        incarnation: incarnation(number),
        spki_sha256: [number as u8; 32],
        wanted_role: Role::Voter,
        standing: Standing::Active,
        level: LEVEL,
        version: String::new(),
    }
}

/// What makes a cluster of the first node.
pub fn founding() -> [Body; 2] {
    let bootstrap = Bootstrap {
        cluster_id: [7; 16],
        cluster_name: "simulated".into(),
        max_rtt: Duration::from_millis(50),
        ca_certificate: vec![],
        sealed_ca_key: vec![],
        node: NodeRecord { id: 1, ..record(1) },
    };
    let token = CreateJoinToken {
        id: TOKEN.into(),
        secret_hash: Digest([3; 32]),
        role: Role::Voter,
        ttl: Duration::from_secs(24 * 3_600),
        uses: 10_000,
    };
    [Body::Bootstrap(Arc::new(bootstrap)), Body::CreateJoinToken(token)]
}

/// What the leader does by itself, while the process lives.
pub async fn lead(shared: Shared, host: Host) {
    while shared.runs(&host) {
        sleep(HEARTBEAT).await;
        let glance = host.glance();
        if glance.leads && glance.applied_term == glance.term {
            round(&shared, &host, &glance).await;
        }
    }
}

async fn round(shared: &Shared, host: &Host, glance: &Glance) {
    let state = host.state();
    let gone = |node: &Arc<NodeRecord>| node.standing == Standing::Leaving && !glance.voters.contains(&node.id);
    if let Some(node) = state.nodes.values().find(|node| gone(node)) {
        shared.propose(host, Body::RemoveNode { id: node.id }).await;
    }
    if glance.joint || !glance.settled {
        if glance.settled {
            change(host, ChangeMembers::AddVoterIds(BTreeSet::new()), glance).await;
        }
        return;
    }
    match membership::next_step(&state, &host.observed(glance)) {
        Some(Step::AddLearner(id)) => {
            let node = member(&state.nodes[&id]);
            change(host, ChangeMembers::AddNodes(BTreeMap::from([(id, node)])), glance).await;
        }
        Some(Step::SetVoters(voters)) => change(host, ChangeMembers::ReplaceAllVoters(voters), glance).await,
        Some(Step::RemoveLearner(id)) => {
            let _ = timeout(LET_KNOW_MAX, let_know(host, id)).await;
            change(host, ChangeMembers::RemoveNodes(BTreeSet::from([id])), &host.glance()).await;
        }
        Some(Step::TransferLeader(id)) => {
            let _ = host.raft.trigger().transfer_leader(id).await;
        }
        None => {}
    }
}

/// A removed node that is still in reach hears of its removal before raft drops it.
async fn let_know(host: &Host, id: NodeId) {
    let committed = host.glance().committed;
    while host.glance().matched.get(&id).is_some_and(|matched| *matched < committed) {
        sleep(HEARTBEAT).await;
    }
    sleep(2 * HEARTBEAT).await;
}

async fn change(host: &Host, change: ChangeMembers<NodeId, RaftNode>, glance: &Glance) {
    let unless_changed = Precondition::LastMembershipLogId { last_membership_log_id: glance.membership_log_id };
    let _ = timeout(STEP_MAX, host.raft.change_membership_if(change, true, [unless_changed])).await;
}

/// A machine with an empty disk asks to be let in. What came of it is known by the id that it is told, or never.
pub async fn join(shared: Shared, number: u64) {
    let admit = AdmitNode { token_id: TOKEN.into(), token_secret_hash: Digest([3; 32]), node: record(number) };
    let told = match shared.any_leader() {
        Some(leader) => shared.propose(&leader, Body::AdmitNode(admit)).await,
        None => Told::Refused,
    };
    let admitted = match told {
        Told::Done(applied) => applied.outcome.expect("the token is good").node_id,
        Told::Refused | Told::Unknown => None,
    };
    let mut joining = shared.joining.lock().unwrap();
    joining.under_way -= 1;
    joining.admitted.extend(admitted.map(|id| (id, number)));
}

/// An operator's wish, which the leader refuses where a quorum would be lost by it, as `node` does.
pub async fn ask_to_go(shared: Shared, id: NodeId, standing: Option<Standing>) {
    let Some(leader) = shared.any_leader() else { return };
    let Some(stamp) = leader.stamp() else { return };
    let body = match standing {
        None => Body::RemoveNode { id },
        Some(standing) => Body::UpdateNode(UpdateNode { id, standing: Some(standing), ..UpdateNode::default() }),
    };
    let begun = leader.departures.begin(id, |going| {
        let mut observed = leader.observed(&leader.glance());
        observed.reachable.retain(|id| !going.contains(id));
        match standing {
            None => membership::may_lose(&leader.state(), &observed, id),
            Some(_) => membership::may_hand_over(&leader.state(), &observed, id),
        }
    });
    let raft = leader.raft.clone();
    let write = async move { raft.client_write(command(stamp, body)).await };
    match begun {
        Ok(mut departure) => drop(timeout(PATIENCE, departure.carry_out(write)).await),
        Err(Denied::Refused(_)) => drop(shared.counts.refused.fetch_add(1, Ordering::Relaxed)),
        Err(Denied::UnderWay) => {}
    }
}

impl Shared {
    /// Whoever leads, by its own reckoning, and was elected last.
    pub fn any_leader(&self) -> Option<Host> {
        let hosts: Vec<Host> = self.net.lines().hosts.values().cloned().collect();
        hosts.into_iter().filter(Host::leads).max_by_key(|host| host.glance().term)
    }
}

/// How long after a loss nobody is asked to go: until the leader knows who answers no more.
pub const NOTICED_AFTER: Duration = ELECTION_MAX.saturating_mul(2).saturating_add(PATIENCE);
