//! Between openraft's messages and the peers' frames.

use anyhow::{Context, Result};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use quorumgate_proto::{peer::v1 as pb, store::v1 as store};
use quorumgate_raft_store::{LogId, TypeConfig, Vote, wire};

pub(crate) fn log_id_to(id: Option<&LogId>) -> Option<store::LogId> {
    id.map(wire::log_id_to)
}

pub(crate) fn log_id_from(id: Option<&store::LogId>) -> Option<LogId> {
    id.map(wire::log_id_from)
}

pub(crate) fn vote_from(vote: Option<&store::Vote>) -> Result<Vote> {
    wire::vote_from(vote.context("a message without its vote")?)
}

pub(crate) fn append_to(request: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(wire::vote_to(&request.vote)),
        prev_log_id: log_id_to(request.prev_log_id.as_ref()),
        leader_commit: log_id_to(request.leader_commit.as_ref()),
        entries: request.entries.iter().map(wire::entry_to).collect(),
    }
}

pub(crate) fn append_from(request: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>> {
    Ok(AppendEntriesRequest {
        vote: vote_from(request.vote.as_ref())?,
        prev_log_id: log_id_from(request.prev_log_id.as_ref()),
        leader_commit: log_id_from(request.leader_commit.as_ref()),
        entries: request.entries.into_iter().map(wire::entry_from).collect::<Result<_>>()?,
    })
}

pub(crate) fn appended_to(result: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Outcome;
    let (outcome, matched, vote) = match result {
        Ok(matched) => (Outcome::Success, log_id_to(matched.as_ref()), None),
        Err(StreamAppendError::Conflict(at)) => (Outcome::Conflict, log_id_to(Some(at)), None),
        Err(StreamAppendError::HigherVote(vote)) => (Outcome::HigherVote, None, Some(wire::vote_to(vote))),
    };
    pb::AppendResponse { outcome: outcome.into(), matched, vote }
}

pub(crate) fn appended_from(response: &pb::AppendResponse) -> Result<StreamAppendResult<TypeConfig>> {
    use pb::append_response::Outcome;
    let matched = log_id_from(response.matched.as_ref());
    Ok(match response.outcome() {
        Outcome::Success => Ok(matched),
        Outcome::Conflict => Err(StreamAppendError::Conflict(matched.context("a conflict without its place")?)),
        Outcome::HigherVote => Err(StreamAppendError::HigherVote(vote_from(response.vote.as_ref())?)),
        Outcome::Partial | Outcome::Unspecified => anyhow::bail!("an answer of an unknown kind"),
    })
}

pub(crate) fn vote_request_to(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(wire::vote_to(&request.vote)),
        last_log_id: log_id_to(request.last_log_id.as_ref()),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from(request: &pb::VoteRequest) -> Result<VoteRequest<TypeConfig>> {
    let mut vote = VoteRequest::new(vote_from(request.vote.as_ref())?, log_id_from(request.last_log_id.as_ref()));
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

pub(crate) fn vote_response_to(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(wire::vote_to(&response.vote)),
        granted: response.vote_granted,
        last_log_id: log_id_to(response.last_log_id.as_ref()),
    }
}

pub(crate) fn vote_response_from(response: &pb::VoteResponse) -> Result<VoteResponse<TypeConfig>> {
    let vote = vote_from(response.vote.as_ref())?;
    Ok(VoteResponse::new(vote, log_id_from(response.last_log_id.as_ref()), response.granted))
}

pub(crate) fn transfer_to(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        from_leader: Some(wire::vote_to(request.from_leader())),
        to_node_id: *request.to_node_id(),
        last_log_id: log_id_to(request.last_log_id()),
    }
}

pub(crate) fn transfer_from(request: &pb::TransferLeaderRequest) -> Result<TransferLeaderRequest<TypeConfig>> {
    let from = vote_from(request.from_leader.as_ref())?;
    Ok(TransferLeaderRequest::new(from, request.to_node_id, log_id_from(request.last_log_id.as_ref())))
}
