//! What clients asked of the cluster and what they were told, and whether one order explains it all: each operation takes
//! effect at one moment between its call and its answer (linearizability; Herlihy and Wing, 1990). Objects are checked
//! one by one, which is enough (their theorem 1), and what revisions say of all of them together besides.

mod models;
mod search;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub use self::{
    models::{Register, Revisions},
    search::{Broken, Model, Verdict, search},
};

/// Configurations that one search may remember: some 200 bytes each.
pub const CONFIGURATIONS_MAX: usize = 1_000_000;

/// One call of one client, in microseconds of the test's own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub client: u32,
    /// The node that was asked, the last one where it was repeated.
    pub node: Arc<str>,
    pub key: u32,
    pub call: Call,
    pub invoked_us: u64,
    /// Of an unknown outcome: when the client gave up. It may take effect at any time after the call, or never.
    pub returned_us: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Read,
    Write(u64),
    /// Where the register holds `expect` (None: where there is none yet).
    Swap {
        expect: Option<u64>,
        value: u64,
    },
    /// Where the whole cluster is at `revision`.
    WriteAt {
        revision: u64,
        value: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The revision is the cluster's as of the read, where it was told.
    Found {
        value: Option<u64>,
        revision: Option<u64>,
    },
    Written {
        revision: u64,
    },
    /// What was expected did not hold: nothing was written.
    Conflict,
    /// Nothing was written, or nothing was read: it says nothing.
    Failed,
    Unknown,
}

impl Operation {
    /// It may have taken effect, and nobody was told.
    pub fn is_unknown(&self) -> bool {
        self.outcome == Outcome::Unknown && self.call != Call::Read
    }

    /// The cluster's revision where it took effect.
    pub fn told(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Written { revision } | Outcome::Found { revision: Some(revision), .. } => Some(revision),
            _ => None,
        }
    }

    /// It says nothing: a read without an answer, a write that was not made.
    pub fn is_void(&self) -> bool {
        self.outcome == Outcome::Failed || (self.outcome == Outcome::Unknown && self.call == Call::Read)
    }
}

/// What was checked, and what of it no order explains.
#[derive(Debug, Default)]
pub struct Findings {
    pub registers: usize,
    pub operations: usize,
    pub unknown: usize,
    /// What it is about, with the operations that its numbers refer to.
    pub broken: Vec<(String, Vec<Operation>, Broken)>,
    pub undecided: Vec<String>,
}

/// Each register for itself, then the revisions of all of them.
pub fn check(operations: &[Operation]) -> Findings {
    let mut findings = Findings { operations: operations.len(), ..Findings::default() };
    findings.unknown = operations.iter().filter(|it| it.is_unknown()).count();
    let mut by_key: BTreeMap<u32, Vec<Operation>> = BTreeMap::new();
    for operation in operations {
        by_key.entry(operation.key).or_default().push(operation.clone());
    }
    findings.registers = by_key.len();
    for (key, operations) in by_key {
        let verdict = search(&Register, &operations, CONFIGURATIONS_MAX);
        findings.note(format!("register {key}"), operations, verdict);
    }
    let verdict = search(&Revisions, operations, CONFIGURATIONS_MAX);
    findings.note("the revisions".into(), operations.to_vec(), verdict);
    findings
}

impl Findings {
    fn note(&mut self, what: String, operations: Vec<Operation>, verdict: Verdict) {
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Broken(broken) => self.broken.push((what, operations, broken)),
            Verdict::Undecided => self.undecided.push(what),
        }
    }

    pub fn hold(&self) -> bool {
        self.broken.is_empty() && self.undecided.is_empty()
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, node, key, invoked_us, returned_us, .. } = self;
        let seconds = |us: u64| us as f64 / 1e6;
        write!(f, "{:>10.6} to {:>10.6}  client {client:>2} at {node}: ", seconds(*invoked_us), seconds(*returned_us))?;
        match self.call {
            Call::Read => write!(f, "read {key}")?,
            Call::Write(value) => write!(f, "write {key} := {value}")?,
            Call::Swap { expect: Some(expect), value } => write!(f, "swap {key} from {expect} to {value}")?,
            Call::Swap { expect: None, value } => write!(f, "create {key} := {value}")?,
            Call::WriteAt { revision, value } => write!(f, "write {key} := {value} at revision {revision}")?,
        }
        match self.outcome {
            Outcome::Found { value, revision } => {
                let value = value.map_or("nothing".to_owned(), |value| value.to_string());
                let revision = revision.map_or(String::new(), |it| format!(" at revision {it}"));
                write!(f, " → {value}{revision}")
            }
            Outcome::Written { revision } => write!(f, " → revision {revision}"),
            Outcome::Conflict => f.write_str(" → conflict"),
            Outcome::Failed => f.write_str(" → failed"),
            Outcome::Unknown => f.write_str(" → unknown"),
        }
    }
}
