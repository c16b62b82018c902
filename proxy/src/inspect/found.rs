//! What a policy found in a request: where, against which of its rules, and why, for the client and for the log.

use std::{borrow::Cow, fmt::Write};

use quorumgate_model::resource::Name;
use serde::Serialize;

/// What one refusal names at most.
pub(crate) const ERRORS_MAX: usize = 20;
/// Bytes of a pointer; what lies deeper is told by what is around it.
const POINTER_BYTES_MAX: usize = 256;

/// One thing that a policy does not let pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Violation {
    #[serde(rename = "in")]
    pub(crate) place: Place,
    /// RFC 6901, within the place.
    pub(crate) pointer: String,
    /// The policy's word for it, such as `max_depth`.
    pub(crate) rule: &'static str,
    pub(crate) detail: Cow<'static, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    Path,
    Query,
    Header,
    Cookie,
    Body,
    /// Of an answer.
    Status,
}

/// Why a policy has a request refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violations {
    pub(crate) policy: Name,
    /// At least one.
    pub(crate) errors: Vec<Violation>,
}

impl Place {
    pub(super) fn word(self) -> &'static str {
        match self {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
            Place::Cookie => "cookie",
            Place::Body => "body",
            Place::Status => "status",
        }
    }
}

impl Violation {
    pub(crate) fn body(pointer: String, rule: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { place: Place::Body, pointer, rule, detail: detail.into() }
    }

    /// For the log, where nobody is refused for it: `json-limits: max_depth in body/a/0`
    pub(crate) fn told(&self, policy: &str) -> Box<str> {
        format!("{policy}: {} in {}{}", self.rule, self.place.word(), self.pointer).into()
    }
}

impl Violations {
    /// Of as many as are told.
    pub(crate) fn new(policy: Name, mut errors: Vec<Violation>) -> Self {
        errors.truncate(ERRORS_MAX);
        Self { policy, errors }
    }

    /// The member `errors` of a problem, with its comma.
    pub(crate) fn member(&self) -> String {
        let errors = serde_json::to_string(&self.errors).expect("texts and words are JSON");
        format!(",\"errors\":{errors}")
    }

    pub(crate) fn rule(&self) -> &'static str {
        self.errors.first().map_or("", |it| it.rule)
    }
}

/// A step of the way to a place within a body.
#[derive(Debug, Clone)]
pub(crate) enum Step<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

/// `/orders/3/a~1b`
pub(crate) fn pointer(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        let before = text.len();
        match step {
            Step::Index(index) => {
                let _ = write!(text, "/{index}");
            }
            // Not even written where it cannot fit.
            Step::Key(key) if key.len() > POINTER_BYTES_MAX => return text,
            Step::Key(key) => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
        }
        if text.len() > POINTER_BYTES_MAX {
            text.truncate(before);
            return text;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_twenty_errors_are_told() {
        let errors = (0..30).map(|n| Violation::body(format!("/{n}"), "max_depth", "too deep")).collect();
        assert_eq!(Violations::new("p".parse().unwrap(), errors).errors.len(), 20);
    }

    #[test]
    fn pointers_are_escaped_and_never_long() {
        let key = |text: &'static str| Step::Key(text.into());
        assert_eq!(pointer(&[]), "");
        assert_eq!(pointer(&[key(""), Step::Index(0), key("a/b~c"), key("~1")]), "//0/a~1b~0c/~01");
        let long = "x".repeat(200);
        let of = |steps: &[&str]| pointer(&steps.iter().map(|it| Step::Key(Cow::Borrowed(*it))).collect::<Vec<_>>());
        assert_eq!(of(&["a", &long, "b"]), format!("/a/{long}/b"));
        assert_eq!(of(&["a", &long, &long]), format!("/a/{long}"));
        assert_eq!(of(&[&"x".repeat(1 << 20), "b"]), "");
    }
}
