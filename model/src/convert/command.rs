//! Commands, answers and journal records between model and prost. An unknown body or level is an error that stops
//! consensus on this node.

use quorumgate_proto::store::v1 as store;

use crate::{
    command::{Applied, Command, NodeRecord},
    invalid::Invalid,
    state::{AuditEntry, RevisionDiff},
};

pub fn command_from(_message: store::Command) -> Result<Command, Invalid> {
    todo!("H2")
}

pub fn command_to(_command: &Command) -> store::Command {
    todo!("H2")
}

pub fn applied_from(_message: store::ApplyOutcome) -> Result<Applied, Invalid> {
    todo!("H2")
}

pub fn applied_to(_applied: &Applied) -> store::ApplyOutcome {
    todo!("H2")
}

pub fn node_from(_message: store::Node) -> Result<NodeRecord, Invalid> {
    todo!("H2")
}

pub fn node_to(_node: &NodeRecord) -> store::Node {
    todo!("H2")
}

pub fn diff_from(_message: store::RevisionDiff) -> Result<RevisionDiff, Invalid> {
    todo!("H2")
}

pub fn diff_to(_diff: &RevisionDiff) -> store::RevisionDiff {
    todo!("H2")
}

pub fn audit_from(_message: store::AuditRecord) -> Result<AuditEntry, Invalid> {
    todo!("H2")
}

pub fn audit_to(_entry: &AuditEntry) -> store::AuditRecord {
    todo!("H2")
}
