//! What operators do to nodes: drain, promote, remove, and moving leadership.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::async_runtime::watch::WatchReceiver;
use quorumgate_model::{
    NodeId,
    command::{Actor, Applied, Body, Role, Standing, UpdateNode},
};
use quorumgate_proto::peer::v1::{self as pb, failure::Reason, request::Call, response::Answer};
use tokio::time::timeout;

use super::{Consensus, Draft, ProposeError, member::Member};

impl Consensus {
    /// Drains the node (its proxy says so by readiness), lets it leave, or takes that back. Refused when it would lose
    /// the quorum.
    pub async fn set_standing(
        &self,
        node: NodeId,
        standing: Standing,
        actor: Arc<Actor>,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        let update = UpdateNode { id: node, standing: Some(standing), ..Default::default() };
        self.propose(Draft { request_id: None, asked: None, actor, body: Body::UpdateNode(update) }, deadline).await
    }

    /// Promotes or demotes; refused when it would lose the quorum.
    pub async fn set_role(
        &self,
        node: NodeId,
        role: Role,
        actor: Arc<Actor>,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        let update = UpdateNode { id: node, wanted_role: Some(role), ..Default::default() };
        self.propose(Draft { request_id: None, asked: None, actor, body: Body::UpdateNode(update) }, deadline).await
    }

    /// Removes a dead node; refused when it would lose the quorum.
    pub async fn remove_node(
        &self,
        node: NodeId,
        actor: Arc<Actor>,
        deadline: Duration,
    ) -> Result<Applied, ProposeError> {
        self.propose(Draft { request_id: None, asked: None, actor, body: Body::RemoveNode { id: node } }, deadline)
            .await
    }

    /// Moves leadership to that voter, or to the best one; returns the new leader and its term.
    pub async fn transfer_leader(&self, to: Option<NodeId>, deadline: Duration) -> Result<(NodeId, u64), ProposeError> {
        let member = &self.member;
        let ends = Instant::now() + deadline;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            match member.leader(&member.glance()) {
                Some(leader) if leader == member.me.node => return member.hand_over(to, left).await,
                Some(leader) => return member.ask_to_hand_over(leader, to, left).await,
                None if left.is_zero() => return Err(ProposeError::NoQuorum("no leader is known".into())),
                None => member.pause().await,
            }
        }
    }

    /// Hands leadership over if this node leads and another voter can take it; stops raft and closes the peers.
    pub async fn shut_down(&self, deadline: Duration) {
        let member = &self.member;
        let glance = member.glance();
        if glance.leader == Some(member.me.node) && glance.voters.len() > 1 {
            // Where nobody takes over in the time of an election, nobody is there.
            match member.hand_over(None, deadline.min(member.timing.failover_budget)).await {
                Ok((leader, term)) => tracing::info!(leader, term, "handed leadership over"),
                Err(error) => tracing::info!(%error, "leadership was not handed over"),
            }
        }
        self.abandon().await;
    }

    /// Stops raft and closes the peers at once, without handing anything over.
    pub async fn abandon(&self) {
        self.member.peers.close();
        if let Err(error) = self.member.raft.shutdown().await {
            tracing::debug!(%error, "raft did not end in order");
        }
        self.member.peers.closed(Duration::from_secs(1)).await;
    }
}

impl Member {
    /// On the leader: asks the voter (or the one that lags least) to take over, and waits until it has.
    pub(super) async fn hand_over(
        &self,
        to: Option<NodeId>,
        deadline: Duration,
    ) -> Result<(NodeId, u64), ProposeError> {
        let glance = self.glance();
        if glance.leader != Some(self.me.node) {
            return Err(ProposeError::NoQuorum("this node does not lead".into()));
        }
        let observed = self.observed(&glance);
        let others = observed.voters.iter().copied().filter(|id| *id != self.me.node);
        let lag = |id: &NodeId| observed.lag.get(id).copied();
        let to = match to {
            Some(id) if id == self.me.node => return Ok((id, glance.term)),
            Some(id) if !observed.voters.contains(&id) => {
                return Err(ProposeError::Refused(format!("node {id} does not vote: only voters lead")));
            }
            Some(id) if !observed.reachable.contains(&id) => {
                return Err(ProposeError::Refused(format!("node {id} is not in reach")));
            }
            Some(id) => id,
            None => others
                .filter(|id| lag(id).is_some())
                .min_by_key(|id| (lag(id), *id))
                .ok_or_else(|| ProposeError::Refused("no other voter is in reach".into()))?,
        };
        self.raft.trigger().transfer_leader(to).await.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        let mut metrics = self.raft.server_metrics();
        let moved = metrics.wait_until(|it| it.current_leader.is_some_and(|leader| leader != self.me.node));
        match timeout(deadline, moved).await {
            Ok(Ok(it)) => Ok((it.current_leader.unwrap_or(to), self.glance().term)),
            Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
            Err(_) => Err(ProposeError::OutcomeUnknown(format!("node {to} has not taken over within {deadline:?}"))),
        }
    }

    async fn ask_to_hand_over(
        &self,
        leader: NodeId,
        to: Option<NodeId>,
        deadline: Duration,
    ) -> Result<(NodeId, u64), ProposeError> {
        let unreachable = |why: String| ProposeError::NoQuorum(format!("the leader, node {leader}: {why}"));
        let target = self.target(leader).ok_or_else(|| unreachable("its address is not known yet".into()))?;
        let request = pb::MembershipRequest {
            act: pb::membership_request::Act::TransferLeader.into(),
            node_id: to.unwrap_or(0),
            deadline_ms: deadline.as_millis() as u64,
        };
        match self.peers.call(&target, Call::Membership(request), deadline).await {
            Ok(Answer::Membership(response)) => Ok((response.leader, response.term)),
            Ok(Answer::Failure(failure)) => Err(match failure.reason() {
                Reason::Refused | Reason::Invalid => ProposeError::Refused(failure.message),
                Reason::OutcomeUnknown => ProposeError::OutcomeUnknown(failure.message),
                _ => unreachable(failure.message),
            }),
            Ok(_) => Err(unreachable("an answer of another kind".into())),
            Err(error) => Err(unreachable(error.to_string())),
        }
    }
}
