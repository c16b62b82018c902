//! The cluster itself: its beginning, its nodes, its timing. Whether a quorum survives depends on who is reachable and
//! is the leader's to judge before it proposes (`membership::may_lose`); here only what is certainly wrong is refused.

use std::{sync::Arc, time::Duration};

use super::{ClusterFacts, JoinToken, NODES_MAX, REMOVED_MAX, RemovedNode, State, apply::Done};
use crate::{
    NodeId,
    command::{
        AdmitNode, Bootstrap, NodeRecord, Outcome, Reason, Refound, RefoundCause, Rejected, Role, Standing, UpdateNode,
    },
    invalid::Invalid,
    ledger::command::LedgerCommand,
    mutants::{self, Mutant},
    resource::Authority,
    timing::MAX_RTT_RANGE,
    units::Span,
};

/// The longest region, version or address of a node, bytes.
const NODE_WORD_BYTES_MAX: usize = 255;

impl State {
    pub(super) fn bootstrap(&mut self, it: &Bootstrap) -> Result<Done, Rejected> {
        if let Some(cluster) = &self.cluster {
            return Err(Reason::AlreadyExists.because(format!("cluster {:?} has been bootstrapped", cluster.name)));
        }
        check_max_rtt(it.max_rtt)?;
        // Ids of later nodes are later indexes: none meets the founder's.
        if it.node.id == 0 || it.node.id > self.index {
            return Err(Invalid::field("node.id").found(it.node.id).allowed(format!("1 to {}", self.index)).into());
        }
        check_words(&it.node)?;
        self.cluster = Some(Arc::new(ClusterFacts {
            id: it.cluster_id,
            name: it.cluster_name.clone(),
            max_rtt: it.max_rtt,
            ca_certificate: it.ca_certificate.clone(),
            sealed_ca_key: it.sealed_ca_key.clone(),
            // Raised by the first command that needs more.
            level: 1,
        }));
        self.nodes.insert(it.node.id, Arc::new(it.node.clone()));
        Ok(Done::changed(format!("cluster {:?} bootstrapped by node {}", it.cluster_name, it.node.name)))
    }

    /// The nodes of the old cluster are shut out, whatever they hold of the limits is void, and their join tokens end: a
    /// seed that they name is no longer of this cluster.
    pub(super) fn refound(&mut self, it: &Refound) -> Result<Done, Rejected> {
        let cluster = self.cluster.as_ref().expect("apply has refused everything before Bootstrap");
        if cluster.id == it.cluster_id {
            return Err(Reason::AlreadyExists.because("the cluster has gone on under this id already"));
        }
        let latest = [self.nodes.keys().next_back(), self.removed.keys().next_back()].into_iter().flatten().max();
        let least = latest.map_or(1, |id| id + 1);
        if it.node.id < least || it.node.id > self.index {
            let allowed = format!("{least} to {}", self.index);
            return Err(Invalid::field("node.id").found(it.node.id).allowed(allowed).into());
        }
        check_words(&it.node)?;
        let facts = ClusterFacts { id: it.cluster_id, ..ClusterFacts::clone(cluster) };
        self.cluster = Some(Arc::new(facts));
        let old = std::mem::take(&mut self.nodes);
        for node in old.values() {
            let removed = RemovedNode { name: node.name.clone(), spki_sha256: node.spki_sha256 };
            self.removed.insert(node.id, removed);
        }
        self.forget_removed();
        self.join_tokens.clear();
        // Ids go on from the backup's: one that somebody has read may come to name another change.
        self.pending.clear();
        // Those chains and certificates were the old nodes'.
        self.chains.clear();
        self.other_ca = None;
        self.nodes.insert(it.node.id, Arc::new(it.node.clone()));
        if self.ledger.version > 0 {
            self.ledger.apply(
                self.clock_us,
                &LedgerCommand::Restore { incarnation: it.node.incarnation, reset_budgets: it.reset_budgets },
            );
        }
        let cause = match it.cause {
            RefoundCause::Restored => "restored from a backup",
            RefoundCause::Recovered => "recovered after the loss of its quorum",
        };
        Ok(Done::changed(format!("cluster {cause} by node {}; {} nodes shut out", it.node.name, old.len())))
    }

    /// The token with one use less, if the node may come in. Asked before the command is proposed, too: who shows no
    /// good token must not have the cluster write.
    pub fn check_admission(&self, it: &AdmitNode) -> Result<JoinToken, Rejected> {
        let token = self.token_for(it)?;
        let node = &it.node;
        if self.node_named(&node.name).is_some() {
            return Err(Reason::NameTaken.because(format!("a node named {} is in the cluster", node.name)));
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(
                Reason::LimitReached.because(format!("the cluster has {NODES_MAX} nodes, the most there may be"))
            );
        }
        check_words(node)?;
        let level = self.cluster.as_ref().map_or(1, |facts| facts.level);
        if node.level < level && !mutants::is(Mutant::OldBuildLetIn) {
            let allowed = format!("{level} or more: the cluster uses what an older build does not know");
            return Err(Invalid::field("node.level").found(node.level).allowed(allowed).into());
        }
        Ok(token)
    }

    pub(super) fn admit_node(&mut self, it: &AdmitNode) -> Result<Done, Rejected> {
        let token = self.check_admission(it)?;
        let node = NodeRecord { id: self.index, ..it.node.clone() };
        let summary =
            format!("node {} admitted as {} by join token {}", node.name, node.wanted_role.word(), it.token_id);
        let id = node.id;
        self.join_tokens.insert(it.token_id.clone(), token);
        let reused = self.nodes.insert(id, Arc::new(node)).is_some() || self.removed.contains_key(&id);
        assert!(!reused, "node id {id} was given twice");
        let outcome = Outcome { node_id: Some(id), ..Outcome::default() };
        Ok(Done { outcome, ..Done::changed(summary) })
    }

    pub(super) fn update_node(&mut self, it: &UpdateNode) -> Result<Done, Rejected> {
        let before = self.node(it.id)?;
        let after = NodeRecord {
            standing: it.standing.unwrap_or(before.standing),
            wanted_role: it.wanted_role.unwrap_or(before.wanted_role),
            peer_address: it.peer_address.clone().unwrap_or_else(|| before.peer_address.clone()),
            level: it.level.unwrap_or(before.level),
            version: it.version.clone().unwrap_or_else(|| before.version.clone()),
            ..NodeRecord::clone(before)
        };
        if after == **before {
            return Ok(Done::noop());
        }
        check_words(&after)?;
        if votes(before) && !votes(&after) {
            self.check_another_voter(it.id)?;
        }
        let summary = update_summary(before, &after);
        self.nodes.insert(it.id, Arc::new(after));
        Ok(Done::changed(summary))
    }

    pub(super) fn remove_node(&mut self, id: NodeId) -> Result<Done, Rejected> {
        let node = self.node(id)?;
        if node.wanted_role == Role::Voter {
            self.check_another_voter(id)?;
        }
        let summary = format!("node {} removed", node.name);
        let removed = RemovedNode { name: node.name.clone(), spki_sha256: node.spki_sha256 };
        self.nodes.remove(&id);
        if !mutants::is(Mutant::RemovedForgotten) {
            self.removed.insert(id, removed);
        }
        self.retire_holder(id);
        self.forget_chains_of(id);
        self.forget_removed();
        Ok(Done::changed(summary))
    }

    fn forget_removed(&mut self) {
        while self.removed.len() > REMOVED_MAX {
            let (oldest, _) = *self.removed.get_min().expect("it is longer than its bound");
            self.removed.remove(&oldest);
        }
    }

    pub(super) fn set_max_rtt(&mut self, max_rtt: Duration) -> Result<Done, Rejected> {
        check_max_rtt(max_rtt)?;
        let cluster = self.cluster.as_mut().expect("apply has refused everything before Bootstrap");
        if cluster.max_rtt == max_rtt {
            return Ok(Done::noop());
        }
        let summary = format!("max_rtt set from {} to {}", Span(cluster.max_rtt), Span(max_rtt));
        Arc::make_mut(cluster).max_rtt = max_rtt;
        Ok(Done::changed(summary))
    }

    fn node(&self, id: NodeId) -> Result<&Arc<NodeRecord>, Rejected> {
        self.nodes.get(&id).ok_or_else(|| Reason::NotFound.because(format!("there is no node with the id {id}")))
    }

    /// A cluster whose last voter goes can never decide anything again.
    fn check_another_voter(&self, id: NodeId) -> Result<(), Rejected> {
        match self.nodes.values().any(|node| node.id != id && votes(node)) || mutants::is(Mutant::LastVoterGoes) {
            true => Ok(()),
            false => Err(Reason::WouldLoseQuorum.because("it is the only node that is to vote")),
        }
    }
}

/// Whether the node is to be a voter and to stay.
fn votes(node: &NodeRecord) -> bool {
    node.wanted_role == Role::Voter && node.standing != Standing::Leaving
}

fn check_max_rtt(max_rtt: Duration) -> Result<(), Invalid> {
    match MAX_RTT_RANGE.contains(&max_rtt) {
        true => Ok(()),
        false => {
            let allowed = format!("{} to {}", Span(*MAX_RTT_RANGE.start()), Span(*MAX_RTT_RANGE.end()));
            Err(Invalid::field("max_rtt").found(Span(max_rtt)).allowed(allowed))
        }
    }
}

/// What a node says of itself: short, and an address that can be dialled.
fn check_words(node: &NodeRecord) -> Result<(), Invalid> {
    for (field, text) in [("region", &node.region), ("version", &node.version), ("peer_address", &node.peer_address)] {
        if text.len() > NODE_WORD_BYTES_MAX {
            let allowed = format!("at most {NODE_WORD_BYTES_MAX} bytes");
            return Err(Invalid::field(field).found(format!("{} bytes", text.len())).allowed(allowed));
        }
    }
    match node.peer_address.parse::<Authority>() {
        Ok(_) => Ok(()),
        Err(_) => Err(Invalid::field("peer_address").found(format!("{:?}", node.peer_address)).allowed("host:port")),
    }
}

/// `node n2: standing active → draining, role voter → replica`
fn update_summary(before: &NodeRecord, after: &NodeRecord) -> String {
    let words = [
        ("standing", before.standing.word().to_owned(), after.standing.word().to_owned()),
        ("role", before.wanted_role.word().to_owned(), after.wanted_role.word().to_owned()),
        ("peer address", before.peer_address.clone(), after.peer_address.clone()),
        ("level", before.level.to_string(), after.level.to_string()),
        ("version", before.version.clone(), after.version.clone()),
    ];
    let changed = words.iter().filter(|(_, before, after)| before != after);
    let changed: Vec<_> = changed.map(|(word, before, after)| format!("{word} {before} → {after}")).collect();
    format!("node {}: {}", before.name, changed.join(", "))
}
