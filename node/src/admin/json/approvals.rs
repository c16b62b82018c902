//! Changes that wait for somebody's approval.

use http::Request;
use quorumgate_proto::admin::v1::{self as admin, approvals_client::ApprovalsClient};
use serde_json::Value;
use tonic::Status;

use super::{
    Local, internal,
    paths::{ApprovalVerb, Asked},
    words::Words,
};
use crate::{
    admin::{MESSAGE_BYTES_MAX, failure},
    cli::{diff, shape, verbs::approvals},
};

pub async fn answer<T>(asked: Asked, request: &Request<T>, local: Local) -> Result<Value, Status> {
    let mut service = ApprovalsClient::new(local).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let Asked::Approval(id, verb) = asked else {
        Words::of(request, &[])?;
        return Ok(approvals::listed(&service.list_pending(admin::ListPendingRequest {}).await?.into_inner()));
    };
    let allowed = || failure::bad_field("id", &format!("found {id:?}; allowed: a number that approvals has"));
    let id = id.parse().map_err(|_| allowed())?;
    if verb == ApprovalVerb::Get {
        Words::of(request, &[])?;
        let answer = service.get_pending(admin::GetPendingRequest { id }).await?.into_inner();
        let pending = answer.pending.unwrap_or_default();
        let mut json = approvals::shown(&pending);
        let objects: Result<Vec<_>, _> = pending.changes.iter().map(diff::json).collect();
        json["objects"] = objects.map_err(internal)?.into();
        return Ok(json);
    }
    let decision = admin::DecideRequest { id, reason: Words::of(request, &["reason"])?.text("reason") };
    let answer = match verb {
        ApprovalVerb::Reject => service.reject(decision).await?,
        _ => service.approve(decision).await?,
    };
    Ok(shape::write(&answer.into_inner()))
}
