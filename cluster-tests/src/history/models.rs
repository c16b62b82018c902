//! What operations do: to one register, and to the cluster's revision.

use super::{Call, Model, Operation, Outcome};

/// One register: its value, and the highest revision of the cluster that anybody was told of so far.
#[derive(Debug, Clone, Copy)]
pub struct Register;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Held {
    value: Option<u64>,
    revision: u64,
}

impl Model for Register {
    type State = Held;

    fn step(&self, held: &Held, operation: &Operation) -> Option<Held> {
        let fits = match operation.call {
            Call::Read | Call::Write(_) => true,
            Call::Swap { expect, .. } => held.value == expect,
            // Others may have written meanwhile: it is not known what the revision is, only what it is not.
            Call::WriteAt { revision, .. } => held.revision <= revision,
        };
        let may_conflict = match operation.call {
            Call::Read | Call::Write(_) => false,
            Call::Swap { .. } => !fits,
            Call::WriteAt { .. } => true,
        };
        let after = match operation.call {
            Call::Read => held.value,
            Call::Write(value) | Call::Swap { value, .. } | Call::WriteAt { value, .. } => Some(value),
        };
        let above = match operation.call {
            Call::WriteAt { revision, .. } => revision.max(held.revision),
            _ => held.revision,
        };
        match operation.outcome {
            Outcome::Found { value, revision } => {
                let revision = revision.unwrap_or(held.revision);
                (value == held.value && revision >= held.revision).then_some(Held { value, revision })
            }
            Outcome::Written { revision } => (fits && revision > above).then_some(Held { value: after, revision }),
            Outcome::Conflict => may_conflict.then_some(*held),
            Outcome::Unknown => fits.then_some(Held { value: after, ..*held }),
            Outcome::Failed => None,
        }
    }

    fn alike(&self, one: &Operation, other: &Operation) -> bool {
        one.call == other.call
    }
}

/// The revision of the cluster, which every write of any register makes higher.
#[derive(Debug, Clone, Copy)]
pub struct Revisions;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    Exactly(u64),
    /// Higher: something was written whose revision nobody was told.
    Above(u64),
}

impl Default for At {
    /// What there was before the first operation.
    fn default() -> Self {
        At::Above(0)
    }
}

impl Model for Revisions {
    type State = At;

    fn step(&self, at: &At, operation: &Operation) -> Option<At> {
        let may_be = |wanted: u64| match *at {
            At::Exactly(revision) => revision == wanted,
            At::Above(revision) => revision < wanted,
        };
        let (At::Exactly(least) | At::Above(least)) = *at;
        let fits = match operation.call {
            Call::WriteAt { revision, .. } => may_be(revision),
            _ => true,
        };
        match (operation.outcome, operation.call) {
            (Outcome::Found { revision: Some(revision), .. }, _) => may_be(revision).then_some(At::Exactly(revision)),
            (Outcome::Found { revision: None, .. }, _) => Some(*at),
            (Outcome::Written { revision }, call) => {
                let above = if let Call::WriteAt { revision, .. } = call { revision } else { least };
                (fits && revision > above.max(least)).then_some(At::Exactly(revision))
            }
            (Outcome::Conflict, Call::WriteAt { revision, .. }) => (*at != At::Exactly(revision)).then_some(*at),
            (Outcome::Conflict, _) => Some(*at),
            (Outcome::Unknown, _) => fits.then_some(At::Above(least)),
            (Outcome::Failed, _) => None,
        }
    }

    fn alike(&self, one: &Operation, other: &Operation) -> bool {
        match (one.call, other.call) {
            (Call::WriteAt { revision, .. }, Call::WriteAt { revision: other, .. }) => revision == other,
            (Call::WriteAt { .. }, _) | (_, Call::WriteAt { .. }) => false,
            _ => true,
        }
    }
}
