//! The nodes as the asked one sees them: never needs a quorum, never waits long.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorumgate_model::{
    NodeId,
    command::{NodeRecord, Standing},
    state::State,
};
use quorumgate_proto::{
    admin::v1::{GetStatusResponse, LinkRoundTrip, NodeStatus, ResponseHeader},
    peer::v1::{StatusResponse, report_response},
};
use tonic::{Code, Status};

use super::{
    authority::{ca_word, sealing_word},
    config::messages,
    failure,
};
use crate::consensus::{Consensus, View};

/// For the answers of the other nodes.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// One look at the cluster.
pub struct Seen {
    pub state: Arc<State>,
    view: View,
    answers: BTreeMap<NodeId, StatusResponse>,
}

impl Seen {
    pub async fn now(consensus: &Consensus, left: Duration) -> Self {
        let answers = consensus.statuses(ANSWERS_WITHIN.min(left)).await;
        let answers = answers.into_iter().filter_map(|(id, answer)| Some((id, answer?))).collect();
        Self { state: consensus.state(), view: consensus.view(), answers }
    }

    pub fn answers(&self, node: NodeId) -> bool {
        self.answers.contains_key(&node)
    }

    /// How many nodes gave an answer.
    pub fn answered(&self) -> usize {
        self.state.nodes.keys().filter(|id| self.answers.contains_key(id)).count()
    }

    /// Of every open connection, as the node that has it measures it.
    pub fn round_trips(&self) -> Vec<LinkRoundTrip> {
        let of = |(id, answer): (&NodeId, &StatusResponse)| -> Vec<_> {
            let from = name(&self.state, *id);
            let known = answer.round_trips.iter().filter(|it| self.state.nodes.contains_key(&it.node_id));
            let link = |it: &report_response::RoundTrip| LinkRoundTrip {
                from: from.clone(),
                to: name(&self.state, it.node_id),
                took: Some(messages::duration(Duration::from_micros(it.micros))),
            };
            known.map(link).collect()
        };
        self.answers.iter().flat_map(of).collect()
    }

    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.state.nodes.values().map(|node| self.node(node)).collect()
    }

    pub fn status(&self, header: ResponseHeader) -> GetStatusResponse {
        let timing = self.state.timing();
        let findings = self.findings();
        GetStatusResponse {
            header: Some(header),
            cluster: self.state.cluster.as_ref().map(|facts| facts.name.clone()).unwrap_or_default(),
            // Its name: none while this node has yet to apply who that is, as a cluster just begun.
            leader: self
                .view
                .leader
                .filter(|id| self.state.nodes.contains_key(id))
                .map(|id| name(&self.state, id))
                .unwrap_or_default(),
            term: self.view.term,
            voters: self.view.voters.len() as u32,
            failure_tolerance: self.failure_tolerance(),
            revision: self.state.revision,
            healthy: findings.is_empty(),
            max_rtt: Some(messages::duration(timing.max_rtt)),
            max_staleness: Some(messages::duration(timing.max_staleness)),
            findings,
            under_way: self.under_way(),
        }
    }

    /// How many more voters may fail, by those that answer now.
    fn failure_tolerance(&self) -> u32 {
        let majority = self.view.voters.len() / 2 + 1;
        let answering = self.view.voters.iter().filter(|id| self.answers.contains_key(id)).count();
        answering.saturating_sub(majority) as u32
    }

    /// What is wrong, most serious first; empty when healthy.
    fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        if let Some(why) = &self.view.stopped {
            findings.push(format!("consensus has stopped on {}: {why}", self.view.name));
        }
        if self.view.leader.is_none() {
            findings.push("no leader is known: writes are refused".to_owned());
        } else if !self.view.quorum {
            findings.push("this node does not reach a majority of the voters".to_owned());
        }
        for node in self.nodes() {
            match node.state.as_str() {
                "unreachable" => findings.push(format!("node {} is unreachable", node.name)),
                "joining" => findings.push(format!("node {} is still joining", node.name)),
                _ => {}
            }
            findings.extend(node.problems.iter().map(|problem| format!("node {}: {problem}", node.name)));
        }
        findings
    }

    /// What is being replaced, and whom it waits for.
    fn under_way(&self) -> Vec<String> {
        let mut under_way = Vec::new();
        if self.state.other_ca.is_some() {
            under_way.push(format!("the CA is being replaced ({})", ca_word(&self.state)));
        }
        if self.state.sealing.rotation.is_some() {
            let newest = self.state.sealing.newest();
            let holds = |id| self.answers.get(id).is_some_and(|it| it.sealing_keys.contains(&newest));
            let without: Vec<_> =
                self.state.nodes.values().filter(|it| !holds(&it.id)).map(|it| it.name.to_string()).collect();
            let mut line = format!("the sealing key is being replaced ({})", sealing_word(&self.state));
            if !without.is_empty() {
                line += &format!(": waits for {}", without.join(", "));
            }
            under_way.push(line);
        }
        under_way
    }

    fn node(&self, node: &NodeRecord) -> NodeStatus {
        let answer = self.answers.get(&node.id);
        let votes = self.view.voters.contains(&node.id);
        let raft = match (self.view.leader == Some(node.id), votes) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "learner",
        };
        let applied = answer.map(|answer| answer.applied_index);
        NodeStatus {
            name: node.name.to_string(),
            id: node.id,
            region: node.region.clone(),
            role: if votes { "voter" } else { "replica" }.to_owned(),
            state: self.state_of(node, answer).to_owned(),
            raft: raft.to_owned(),
            lag: applied.map(|applied| self.view.committed.saturating_sub(applied)),
            revision: answer.map_or(0, |answer| answer.published_revision),
            version: answer.map_or_else(|| node.version.clone(), |answer| answer.version.clone()),
            peer_address: node.peer_address.clone(),
            certificate_not_after: answer
                .filter(|answer| answer.certificate_not_after > 0)
                .map(|answer| prost_types::Timestamp { seconds: answer.certificate_not_after, nanos: 0 }),
            applied_index: applied,
            problems: answer.map(|answer| answer.problems.clone()).unwrap_or_default(),
        }
    }

    fn state_of(&self, node: &NodeRecord, answer: Option<&StatusResponse>) -> &'static str {
        let member = self.view.voters.contains(&node.id) || self.view.learners.contains(&node.id);
        match answer {
            _ if !member => "joining",
            None => "unreachable",
            Some(answer) if answer.draining || node.standing != Standing::Active => "draining",
            Some(answer) if answer.ready => "ready",
            Some(_) => "joining",
        }
    }
}

/// By name or id.
pub fn find(state: &State, node: &str) -> Result<NodeId, Status> {
    let by_id = || node.parse().ok().filter(|id| state.nodes.contains_key(id));
    let found = state.node_named(node).map(|node| node.id).or_else(by_id);
    found.ok_or_else(|| failure::status(Code::NotFound, "NOT_FOUND", format!("there is no node {node:?}")))
}

/// Its name, or its id when it is not known here.
pub fn name(state: &State, id: NodeId) -> String {
    state.nodes.get(&id).map_or_else(|| id.to_string(), |node| node.name.to_string())
}

#[cfg(test)]
mod tests {
    use quorumgate_model::command::Role;

    use super::*;

    fn seen(answering: &[NodeId], leader: Option<NodeId>) -> Seen {
        let mut state = State::default();
        for id in [1, 4, 6] {
            let record = NodeRecord {
                id,
                name: format!("n{id}").parse().unwrap(),
                region: "eu".into(),
                peer_address: String::new(),
                incarnation: [0; 16],
                spki_sha256: [0; 32],
                wanted_role: Role::Voter,
                standing: Standing::Active,
                level: 1,
                version: "0.1.0".into(),
            };
            state.nodes.insert(id, Arc::new(record));
        }
        let answer = StatusResponse { ready: true, applied_index: 7, ..StatusResponse::default() };
        Seen {
            state: Arc::new(state),
            view: View { leader, voters: [1, 4, 6].into(), committed: 9, quorum: true, ..View::default() },
            answers: answering.iter().map(|id| (*id, answer.clone())).collect(),
        }
    }

    #[test]
    fn a_whole_cluster_of_three_tolerates_one_failure() {
        let status = seen(&[1, 4, 6], Some(4)).status(ResponseHeader::default());
        assert_eq!((status.voters, status.failure_tolerance, status.healthy), (3, 1, true));
        assert_eq!(status.leader, "n4");
    }

    #[test]
    fn a_silent_node_is_unreachable_and_no_failure_is_tolerated() {
        let seen = seen(&[1, 4], None);
        let status = seen.status(ResponseHeader::default());
        assert_eq!((status.failure_tolerance, status.healthy, status.leader.as_str()), (0, false, ""));
        let nodes = seen.nodes();
        assert_eq!((nodes[2].state.as_str(), nodes[2].lag), ("unreachable", None));
        assert_eq!((nodes[0].state.as_str(), nodes[0].lag), ("ready", Some(2)));
    }

    #[test]
    fn a_node_is_found_by_name_and_by_id() {
        let state = seen(&[], None).state;
        assert_eq!(find(&state, "n4").unwrap(), 4);
        assert_eq!(find(&state, "6").unwrap(), 6);
        assert_eq!(find(&state, "5").unwrap_err().code(), Code::NotFound);
    }
}
