//! Why a command failed: its exit code, what is wrong, where, and what to do about it.

use std::{fmt, process::ExitCode};

/// The exit codes that scripts depend on (docs/OPERATING.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Negative = 1,
    Usage = 2,
    Forbidden = 3,
    NotFound = 4,
    Conflict = 5,
    Unavailable = 6,
    Deadline = 7,
    Invalid = 8,
    /// It waits for somebody's approval.
    Held = 9,
    Internal = 10,
    Settings = 78,
}

impl Exit {
    fn word(self) -> &'static str {
        match self {
            Exit::Negative => "negative",
            Exit::Usage => "usage",
            Exit::Forbidden => "forbidden",
            Exit::NotFound => "not_found",
            Exit::Conflict => "conflict",
            Exit::Unavailable => "unavailable",
            Exit::Deadline => "deadline",
            Exit::Invalid => "invalid",
            Exit::Held => "held",
            Exit::Internal => "internal",
            Exit::Settings => "settings",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Printed on stderr as `error[code]: message`, the place, and `help:`.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable word in brackets.
    pub code: String,
    pub message: String,
    /// `file:line:column` and the line with a caret, or a field path; empty if there is none.
    pub place: String,
    pub help: String,
}

pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        let problem = Problem {
            code: exit.word().into(),
            message: message.to_string(),
            place: String::new(),
            help: String::new(),
        };
        Self { exit, problems: vec![problem] }
    }

    /// The answer was no, and it has been printed already.
    pub fn negative() -> Self {
        Self { exit: Exit::Negative, problems: Vec::new() }
    }

    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Internal, format!("{:#}", error.into()))
    }

    pub fn invalid(problems: Vec<Problem>) -> Self {
        Self { exit: Exit::Invalid, problems }
    }

    pub fn help(mut self, help: impl fmt::Display) -> Self {
        if let Some(last) = self.problems.last_mut() {
            last.help = help.to_string();
        }
        self
    }
}

impl Problem {
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self {
            code: Exit::Invalid.word().into(),
            message: message.to_string(),
            place: String::new(),
            help: String::new(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.message)?;
        if !self.place.is_empty() {
            write!(f, "\n{}", self.place)?;
        }
        if !self.help.is_empty() {
            write!(f, "\nhelp: {}", self.help)?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}
