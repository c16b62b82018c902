//! Every failure as a gRPC status: one code for one CLI exit code, ErrorInfo always, details where they help.
//!
//! | who must act | code | CLI |
//! | the operator's words (`Invalid`) | INVALID_ARGUMENT, BadRequest with field paths | 8 |
//! | a command that the state refuses (`Rejected`) | by its reason, see `code_of` | 3, 4, 5 |
//! | no quorum | UNAVAILABLE, RetryInfo | 6 |
//! | perhaps written | DEADLINE_EXCEEDED, reason OUTCOME_UNKNOWN, metadata request_id where it can be repeated | 7 |

use std::{collections::HashMap, time::Duration};

use quorumgate_model::{
    command::{Reason, Rejected},
    invalid::Invalid,
    resource::Key,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uuid::Uuid;

use crate::consensus::ProposeError;

/// The `domain` of every ErrorInfo.
pub const DOMAIN: &str = "quorumgate.io";

/// When a client should ask again while there is no quorum: about one election.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A status with its ErrorInfo.
pub fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    with_details(code, message, info(reason))
}

pub fn invalid(invalid: &Invalid) -> Status {
    bad_request("INVALID", &invalid.field, &invalid.to_string(), &complaint(invalid))
}

/// How many rows a call wants; 0 is `default`.
pub fn top(found: u32, default: u32, max: u32) -> Result<usize, Status> {
    match found {
        0 => Ok(default as usize),
        top if top <= max => Ok(top as usize),
        top => Err(bad_field("top", &format!("found {top}; allowed: 1 to {max}"))),
    }
}

/// A field of the request itself, outside any resource.
pub fn bad_field(field: &str, why: &str) -> Status {
    bad_request("INVALID", field, &format!("{field}: {why}"), why)
}

pub fn rejected(rejected: &Rejected) -> Status {
    let reason = rejected.reason.word();
    let code = code_of(rejected.reason);
    match code {
        Code::InvalidArgument => bad_request(reason, &rejected.field, &rejected.message, &rejected.message),
        Code::FailedPrecondition => precondition(reason, &rejected.field, &rejected.message),
        _ => {
            let mut details = info(reason);
            if !rejected.field.is_empty() {
                details.add_bad_request_violation(&rejected.field, &rejected.message);
            }
            with_details(code, &rejected.message, details)
        }
    }
}

/// A read that needed the cluster, or a wait for an index.
pub fn unread(error: ProposeError) -> Status {
    match error {
        ProposeError::OutcomeUnknown(why) => status(Code::DeadlineExceeded, "DEADLINE", format!("not in time: {why}")),
        other => unwritten(other, None),
    }
}

/// A write that the cluster could not answer; the id is what it may be repeated under.
pub fn unwritten(error: ProposeError, request_id: Option<Uuid>) -> Status {
    let message = error.to_string();
    match error {
        ProposeError::NoQuorum(_) => {
            let mut details = info("NO_QUORUM");
            details.set_retry_info(Some(RETRY_AFTER));
            with_details(Code::Unavailable, message, details)
        }
        ProposeError::OutcomeUnknown(_) => {
            let request_id = request_id.map(|it| it.to_string());
            let metadata: HashMap<_, _> = request_id.iter().map(|it| ("request_id".to_owned(), it.clone())).collect();
            let mut details = ErrorDetails::with_error_info("OUTCOME_UNKNOWN", DOMAIN, metadata);
            if let Some(request_id) = request_id {
                details.set_request_info(request_id, "");
            }
            with_details(Code::DeadlineExceeded, message, details)
        }
        ProposeError::TooLarge { .. } => entry_too_large(&message),
        ProposeError::Stopped(_) => status(Code::Unavailable, "CONSENSUS_STOPPED", message),
        ProposeError::Refused(_) => precondition("REFUSED", "cluster", &message),
    }
}

/// Nothing was written: the change waits under this id.
pub fn held(id: u64, key: &Key) -> Status {
    let reason = "APPROVAL_REQUIRED";
    let message = format!("{key} is protected: change {id} waits for the approval of somebody else");
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::from([("id".into(), id.to_string())]));
    details.add_precondition_failure_violation(reason, key.to_string(), &message);
    with_details(Code::FailedPrecondition, message, details)
}

/// The transaction does not fit into one log entry.
pub fn entry_too_large(message: &str) -> Status {
    bad_request("ENTRY_TOO_LARGE", "config", message, message)
}

pub fn too_many_failures(retry_after: Duration) -> Status {
    let mut details = info("TOO_MANY_FAILURES");
    details.set_retry_info(Some(retry_after));
    with_details(Code::Unauthenticated, "too many refused calls from this address", details)
}

/// An answer that does not fit into one message.
pub fn too_large(bytes: usize) -> Status {
    message_too_large(&format!("the answer takes {bytes} bytes"))
}

fn message_too_large(what: &str) -> Status {
    let limit = super::MESSAGE_BYTES_MAX >> 20;
    status(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", format!("{what}; allowed: {limit} MiB"))
}

/// This node has not applied the index that was asked for.
pub fn unapplied(index: u64, error: ProposeError) -> Status {
    match error {
        ProposeError::Stopped(_) => unread(error),
        _ => status(Code::DeadlineExceeded, "DEADLINE", format!("this node has not applied {index} yet")),
    }
}

/// It has applied it, and does not go by it yet.
pub fn unserved(index: u64) -> Status {
    status(Code::DeadlineExceeded, "DEADLINE", format!("this node does not serve {index} yet"))
}

/// Gives a bare status (from tonic itself) its ErrorInfo; a message over the limit becomes RESOURCE_EXHAUSTED.
pub fn complete(bare: Status) -> Status {
    if !bare.details().is_empty() || bare.code() == Code::Ok {
        return bare;
    }
    match bare.code() {
        Code::OutOfRange if bare.message().contains("too large") => message_too_large(bare.message()),
        Code::Unimplemented => {
            status(Code::Unimplemented, "UNIMPLEMENTED", "this node does not know the call; is it of another version?")
        }
        code => status(code, "INTERNAL", bare.message()),
    }
}

fn complaint(invalid: &Invalid) -> String {
    match invalid.found.is_empty() {
        true => invalid.allowed.clone(),
        false => format!("found {}; allowed: {}", invalid.found, invalid.allowed),
    }
}

/// What guardrails deny: each object's field and why, and how many more there are.
pub fn guarded(denied: &[(String, String)], more: usize) -> Status {
    let mut details = info("GUARDRAIL_DENIED");
    for (field, why) in denied {
        details.add_bad_request_violation(field, why);
    }
    let mut message: Vec<&str> = denied.iter().map(|(_, why)| why.as_str()).collect();
    let rest = format!("{more} more are denied");
    if more > 0 {
        message.push(&rest);
    }
    with_details(Code::InvalidArgument, message.join("; "), details)
}

fn bad_request(reason: &str, field: &str, message: &str, description: &str) -> Status {
    let mut details = info(reason);
    details.add_bad_request_violation(field, description);
    with_details(Code::InvalidArgument, message, details)
}

pub fn precondition(reason: &str, subject: &str, message: &str) -> Status {
    let mut details = info(reason);
    details.add_precondition_failure_violation(reason, subject, message);
    with_details(Code::FailedPrecondition, message, details)
}

fn info(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new())
}

fn with_details(code: Code, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(code, message, details)
}

fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::Invalid => Code::InvalidArgument,
        Reason::Conflict | Reason::TrialOpen | Reason::RequestIdReused => Code::Aborted,
        Reason::NotFound | Reason::NoTrial => Code::NotFound,
        Reason::AlreadyExists | Reason::NameTaken => Code::AlreadyExists,
        Reason::TokenUnknown | Reason::TokenExpired | Reason::TokenUsed => Code::Unauthenticated,
        Reason::TokenRoleMismatch | Reason::OwnerForbidden | Reason::OwnApproval => Code::PermissionDenied,
        Reason::WouldLoseQuorum | Reason::TrialNotOver | Reason::NotBootstrapped => Code::FailedPrecondition,
        Reason::LimitReached => Code::ResourceExhausted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Status, code: Code, reason: &str) -> ErrorDetails {
        assert_eq!(status.code(), code, "{status:?}");
        let details = status.get_error_details();
        let info = details.error_info().expect("ErrorInfo is always there");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN));
        details
    }

    fn refuse(reason: Reason) -> Status {
        rejected(&Rejected { reason, field: "routes[0].upstream".into(), message: "no".into() })
    }

    #[test]
    fn wrong_words_carry_their_field_path() {
        let wrong = Invalid::field("routes[3].priority").found(1).allowed("0");
        let details = check(invalid(&wrong), Code::InvalidArgument, "INVALID");
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "routes[3].priority");
        assert_eq!(violation.description, "found 1; allowed: 0");
    }

    #[test]
    fn refusals_keep_their_reason() {
        check(refuse(Reason::Invalid), Code::InvalidArgument, "INVALID");
        check(refuse(Reason::Conflict), Code::Aborted, "CONFLICT");
        check(refuse(Reason::TrialOpen), Code::Aborted, "TRIAL_OPEN");
        check(refuse(Reason::RequestIdReused), Code::Aborted, "REQUEST_ID_REUSED");
        check(refuse(Reason::NotFound), Code::NotFound, "NOT_FOUND");
        check(refuse(Reason::NameTaken), Code::AlreadyExists, "NAME_TAKEN");
        check(refuse(Reason::OwnerForbidden), Code::PermissionDenied, "OWNER_FORBIDDEN");
        let details = check(refuse(Reason::WouldLoseQuorum), Code::FailedPrecondition, "WOULD_LOSE_QUORUM");
        assert!(details.precondition_failure().is_some());
    }

    #[test]
    fn an_unknown_outcome_names_the_request_to_repeat() {
        let late = || ProposeError::OutcomeUnknown("late".into());
        let id = Uuid::from_u128(7);
        let details = check(unwritten(late(), Some(id)), Code::DeadlineExceeded, "OUTCOME_UNKNOWN");
        assert_eq!(details.error_info().unwrap().metadata["request_id"], id.to_string());
        let details = check(unwritten(late(), None), Code::DeadlineExceeded, "OUTCOME_UNKNOWN");
        assert!(details.error_info().unwrap().metadata.is_empty() && details.request_info().is_none());

        let details = check(unwritten(ProposeError::NoQuorum("x".into()), Some(id)), Code::Unavailable, "NO_QUORUM");
        assert!(details.retry_info().is_some());
    }
}
