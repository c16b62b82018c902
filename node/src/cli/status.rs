//! From a gRPC status with its details to a failure with an exit code.

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::failure::{Exit, Failure, Problem};

/// The exit code of a status (docs/OPERATING.md; one-to-one).
pub fn exit(code: Code) -> Exit {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted => Exit::Invalid,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Forbidden,
        Code::NotFound => Exit::NotFound,
        Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => Exit::Conflict,
        Code::Unavailable => Exit::Unavailable,
        Code::DeadlineExceeded | Code::Cancelled => Exit::Deadline,
        _ => Exit::Internal,
    }
}

/// One complaint about one field, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub field: String,
    pub message: String,
}

pub fn violations(status: &Status) -> Vec<Violation> {
    let details = status.get_error_details();
    let fields = details.bad_request().into_iter().flat_map(|it| &it.field_violations);
    let conditions = details.precondition_failure().into_iter().flat_map(|it| &it.violations);
    let mut found: Vec<Violation> =
        fields.map(|it| Violation { field: it.field.clone(), message: it.description.clone() }).collect();
    found.extend(conditions.map(|it| Violation { field: it.subject.clone(), message: it.description.clone() }));
    found
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let reason = status.get_details_error_info().map(|it| it.reason.to_ascii_lowercase());
        let code = reason.filter(|it| !it.is_empty());
        let exit = match code.as_deref() {
            Some("approval_required") => Exit::Held,
            _ => exit(status.code()),
        };
        let found = violations(&status);
        let mut failure = Failure::new(exit, message(&status)).help(help(exit, code.as_deref()));
        if let Some(code) = code {
            failure.problems[0].code = code;
        }
        if exit == Exit::Invalid && !found.is_empty() {
            failure.problems = found.iter().map(problem).collect();
        }
        failure
    }
}

fn problem(violation: &Violation) -> Problem {
    let message = match violation.field.is_empty() || violation.message.starts_with(&violation.field) {
        true => violation.message.clone(),
        false => format!("{}: {}", violation.field, violation.message),
    };
    Problem::invalid(message)
}

fn message(status: &Status) -> String {
    match (status.message(), status.code()) {
        ("", code) => code.description().to_owned(),
        ("Timeout expired", _) => "no answer within the deadline; a write may or may not have happened".to_owned(),
        (message, _) => message.to_owned(),
    }
}

fn help(exit: Exit, code: Option<&str>) -> &'static str {
    match (exit, code) {
        (Exit::Forbidden, _) => {
            "give an admin token with --admin-token-file, or ask over the unix socket as root or the daemon's user"
        }
        (Exit::Held, _) => {
            "somebody else looks with `quorumgate approval get ID`, then `approval approve ID` or `reject ID`"
        }
        (Exit::Conflict, Some("conflict")) => "somebody else was faster: look at the newest revision and try again",
        (Exit::Unavailable, _) => {
            "nothing was written; `quorumgate cluster status` says who is there, and reads may be asked with --stale"
        }
        (Exit::Deadline, _) => {
            "look with `quorumgate history`, or repeat with the same --request-id: it is not done twice"
        }
        _ => "",
    }
}
