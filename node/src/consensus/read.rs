//! Reads that must see everything committed before them: ReadIndex through the leader, never a lease.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use quorumgate_model::{
    NodeId,
    mutants::{self, Mutant},
    state::State,
};
use quorumgate_proto::peer::v1::{self as pb, request::Call, response::Answer};
use tokio::time::timeout;

use super::{Consensus, ProposeError, member::Member, propose::until};

impl Consensus {
    /// ReadIndex: everything committed before the call is applied on this node when it returns.
    pub async fn linearize(&self, deadline: Duration) -> Result<Arc<State>, ProposeError> {
        let ends = Instant::now() + deadline;
        let index = match mutants::is(Mutant::StaleRead) {
            true => 0,
            false => self.member.read_index(ends).await?,
        };
        self.wait_applied(index, ends.saturating_duration_since(Instant::now())).await
    }

    pub async fn wait_applied(&self, index: u64, deadline: Duration) -> Result<Arc<State>, ProposeError> {
        let mut states = self.member.states.clone();
        let applied = timeout(deadline, states.wait_for(|state| state.index >= index)).await;
        match applied {
            Ok(Ok(state)) => Ok(state.clone()),
            Ok(Err(_)) => Err(ProposeError::Stopped("the state machine has stopped".into())),
            Err(_) => match self.member.stopped() {
                Some(reason) => Err(ProposeError::Stopped(reason)),
                None => Err(ProposeError::NoQuorum(format!("this node has not applied {index} within the deadline"))),
            },
        }
    }
}

impl Member {
    /// An index that covers everything committed before the call, confirmed by a quorum round that starts after it.
    pub(super) async fn read_index(&self, ends: Instant) -> Result<u64, ProposeError> {
        loop {
            if let Some(reason) = self.stopped() {
                return Err(ProposeError::Stopped(reason));
            }
            let asked = match self.leader(&self.glance()) {
                Some(leader) if leader == self.me.node => until(ends, self.read_index_here()).await,
                Some(leader) => Some(self.read_index_there(leader, ends).await),
                None => Some(Err("no leader is known".into())),
            };
            let why = match asked {
                Some(Ok(index)) => return Ok(index),
                Some(Err(why)) => why,
                None => "no quorum has answered within the deadline".into(),
            };
            if Instant::now() >= ends {
                return Err(ProposeError::NoQuorum(why));
            }
            self.pause().await;
        }
    }

    /// On the leader.
    pub(super) async fn read_index_here(&self) -> Result<u64, String> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Err("not the leader".into()),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(short))) => {
                Err(format!("the leader hears only {} of its voters", short.got.len()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn read_index_there(&self, leader: NodeId, ends: Instant) -> Result<u64, String> {
        let target = self.target(leader).ok_or("the leader's address is not known yet")?;
        // A leader that has died must not cost the whole deadline.
        let patience = self.timing.election_max + 4 * self.timing.max_rtt;
        let left = ends.saturating_duration_since(Instant::now()).min(patience);
        let request = pb::ReadIndexRequest { deadline_ms: left.as_millis() as u64 };
        match self.call_leader(&target, Call::ReadIndex(request), left).await {
            Ok(Answer::ReadIndex(response)) => Ok(response.index),
            Ok(Answer::Failure(failure)) => Err(failure.message),
            Ok(_) => Err("an answer of another kind".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}
