//! From a gRPC status with its details to a failure with an exit code.

use std::error::Error;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::failure::{Exit, Failure, Problem};

/// The code of a write of which nobody knows whether it has happened.
const UNKNOWN: &str = "outcome_unknown";

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

/// Whether the connection broke under the call. None: the node has answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// There was none: nothing was sent.
    Before,
    /// It may have been carried out, and nobody has said so.
    Meanwhile,
}

/// A node's own answers come with details; what has a cause is made here, by the transport.
fn broken(status: &Status) -> Option<Broken> {
    let mut cause = status.source().filter(|_| status.details().is_empty())?;
    loop {
        if cause.is::<tonic::ConnectError>() {
            return Some(Broken::Before);
        }
        if cause.is::<tonic::TimeoutExpired>() {
            return None;
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => return Some(Broken::Meanwhile),
        }
    }
}

/// A stream that was under way: whoever reads loses nothing with it.
pub fn ended(status: Status) -> Failure {
    match broken(&status) {
        Some(_) => {
            Failure::new(Exit::Unavailable, "the connection to the node was lost").help("ask again, or another node")
        }
        None => Failure::from(status),
    }
}

/// For a call without a request id: what to do where it may have happened.
pub fn or_look(look: &str) -> impl Fn(Status) -> Failure {
    move |status| {
        let failure = Failure::from(status);
        if failure.exit == Exit::Deadline { failure.help(look) } else { failure }
    }
}

fn cut_off(broken: Broken, status: &Status) -> Failure {
    let cause = root(status);
    let (exit, message) = match broken {
        Broken::Before => (Exit::Unavailable, format!("cannot reach the node: {cause}")),
        Broken::Meanwhile => (Exit::Deadline, format!("the connection was lost before the node had answered: {cause}")),
    };
    let mut failure = Failure::new(exit, message).help(help(exit, None, None));
    if broken == Broken::Meanwhile {
        failure.problems[0].code = UNKNOWN.to_owned();
    }
    failure
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if let Some(broken) = broken(&status) {
            return cut_off(broken, &status);
        }
        let info = status.get_details_error_info();
        let code = info.as_ref().map(|it| it.reason.to_ascii_lowercase()).filter(|it| !it.is_empty());
        let exit = match code.as_deref() {
            Some("approval_required") => Exit::Held,
            _ => exit(status.code()),
        };
        let found = violations(&status);
        let request_id = info.as_ref().and_then(|it| it.metadata.get("request_id")).map(String::as_str);
        let mut failure = Failure::new(exit, message(&status)).help(help(exit, code.as_deref(), request_id));
        if let Some(code) = code {
            failure.problems[0].code = code;
        }
        if exit == Exit::Invalid && !found.is_empty() {
            let code = failure.problems[0].code.clone();
            failure.problems = found.iter().map(|it| Problem { code: code.clone(), ..problem(it) }).collect();
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

fn root(status: &Status) -> String {
    let mut cause: &dyn Error = status;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn help(exit: Exit, code: Option<&str>, request_id: Option<&str>) -> String {
    let help = match (exit, code) {
        (Exit::Forbidden, _) => {
            "give an admin token with --admin-token-file, or ask over the unix socket as root or the daemon's user"
        }
        (Exit::Held, _) => {
            "somebody else looks with `quorumgate approval get ID`, then `approval approve ID` or `reject ID`"
        }
        (Exit::Unavailable, _) => {
            "nothing was written; `quorumgate cluster status` says who is there, and reads may be asked with --stale"
        }
        (Exit::Deadline, Some("deadline")) => "",
        (Exit::Deadline, _) => {
            return match request_id {
                Some(id) => format!("repeated under the request id {id} it is not done twice"),
                None => "if it was to change something: look with `quorumgate audit ls` whether it has".to_owned(),
            };
        }
        _ => "",
    };
    help.to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use clap::Parser;
    use quorumgate_proto::admin::v1::ApplyConfigRequest;
    use tokio::{io::AsyncReadExt, net::UnixListener};
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::cli::{args::Cli, client::Client};

    #[tokio::test]
    async fn what_was_sent_to_a_node_that_dies_is_unknown_and_what_was_not_is_not() {
        const MARK: &str = "a message that is found again";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        // It takes the request whole, and dies.
        let node = async move {
            let (mut taken, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.windows(MARK.len()).any(|it| it == MARK.as_bytes()) {
                assert!(taken.read_buf(&mut seen).await.unwrap() > 0, "the request has not come");
            }
        };
        let endpoint = format!("unix:{}", path.display());
        let global = Cli::parse_from(["quorumgate", "--endpoint", &endpoint, "node", "ls"]).global;
        let ask = async {
            let client = Client::connect(&global).await.unwrap();
            let request = || client.ask(ApplyConfigRequest { message: MARK.into(), ..Default::default() });
            let lost = client.config().apply_config(request()).await.unwrap_err();
            (lost, client.config().apply_config(request()).await.unwrap_err())
        };
        let ((), (lost, unsent)) = tokio::join!(node, ask);
        let streamed = ended(lost.clone());
        let lost = Failure::from(lost);
        assert_eq!((lost.exit, lost.problems[0].code.as_str()), (Exit::Deadline, UNKNOWN), "{lost}");
        assert_eq!(Failure::from(unsent).exit, Exit::Unavailable);
        assert_eq!(streamed.exit, Exit::Unavailable);
    }

    #[test]
    fn each_complaint_has_the_reason_as_its_code() {
        let check = |reason: &str, expected: &str| {
            let mut details = ErrorDetails::with_error_info(reason, "quorumgate.io", HashMap::new());
            details.add_bad_request_violation("routes[0]", "no");
            details.add_bad_request_violation("routes[1]", "nor this");
            let failure = Failure::from(Status::with_error_details(Code::InvalidArgument, "both", details));
            let codes: Vec<_> = failure.problems.iter().map(|it| it.code.as_str()).collect();
            assert_eq!(codes, [expected, expected]);
        };
        check("GUARDRAIL_DENIED", "guardrail_denied");
        check("ENTRY_TOO_LARGE", "entry_too_large");
        check("INVALID", "invalid");
    }

    #[test]
    fn only_what_can_be_repeated_under_an_id_is_said_to_be() {
        let told = |id: Option<&str>| {
            let metadata: HashMap<_, _> = id.map(|id| ("request_id".to_owned(), id.to_owned())).into_iter().collect();
            let details = ErrorDetails::with_error_info("OUTCOME_UNKNOWN", "quorumgate.io", metadata);
            Status::with_error_details(Code::DeadlineExceeded, "late", details)
        };
        assert!(Failure::from(told(Some("an-id"))).to_string().contains("an-id"));
        let without = Failure::from(told(None));
        assert_eq!(without.problems[0].code, UNKNOWN);
        assert!(!without.to_string().contains("request id"), "{without}");
        assert!(or_look("look there")(told(None)).to_string().ends_with("help: look there"));
    }
}
