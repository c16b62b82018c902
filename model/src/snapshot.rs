//! The state as a stream of prost records, and back. Deterministic: equal states give equal bytes.

use quorumgate_proto::store::v1::SnapshotRecord;

use crate::{invalid::Invalid, state::State};

/// The records of a state, in their fixed order: head first.
pub fn records(_state: &State) -> Box<dyn Iterator<Item = SnapshotRecord> + '_> {
    todo!("H2")
}

/// Rebuilds a state from its records.
#[derive(Default)]
pub struct Rebuild {}

impl Rebuild {
    pub fn push(&mut self, _record: SnapshotRecord) -> Result<(), Invalid> {
        todo!("H2")
    }

    /// Errors when the head is missing, or its hash of the resources differs from theirs.
    pub fn finish(self) -> Result<State, Invalid> {
        todo!("H2")
    }
}
